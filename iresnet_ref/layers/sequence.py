"""Layers one behind the other, f = layer_k ∘ ⋯ ∘ layer_1: a branch, a path, what a concatenation appends. None at all is the identity."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce

from iresnet_ref.arrays import Array
from iresnet_ref.jacobian.factors import Factor
from iresnet_ref.layers.layer import Layer
from iresnet_ref.rounding import up

Layers = Sequence[Layer]


def value(layers: Layers, x: Array) -> Array:
    """Return f(x)."""
    return reduce(lambda h, layer: layer(h), layers, x)


def steps(layers: Layers, x: Array) -> Iterator[tuple[Layer, Array, Array]]:
    """Yield each layer, what goes into it, and its value."""
    for layer in layers:
        y = layer(x)
        yield layer, x, y
        x = y


def linearized(layers: Layers, x: Array) -> tuple[Array, tuple[Factor, ...]]:
    """Return f(x) and the factors of its Jacobian, the first applied first; what went into the layers is not kept."""
    factors: list[Factor] = []
    for layer in layers:
        x, factor = layer.linearize(x)
        factors.append(factor)
    return x, tuple(factors)


def out_shape(layers: Layers, event: tuple[int, ...]) -> tuple[int, ...]:
    """Return the event shape of f(x). Raises ShapeError where a layer does not fit the one before."""
    return reduce(lambda shape, layer: layer.out_shape(shape), layers, event)


def norm_bound(layers: Layers, p: float) -> float:
    """Return a proved Lipschitz constant of f: the product of those of its layers, rounded up; 1 and what is a power of 1 exactly."""
    bounds = [layer.norm_bound(p) for layer in layers]
    return up(math.prod(bounds), len(bounds)) if any(bound != 1.0 for bound in bounds) else 1.0


def parameters(layers: Layers) -> dict[str, Array]:
    """Return all parameters as {"0.weight": …}, in the order of the layers."""
    return {f"{i}.{name}": p for i, layer in enumerate(layers) for name, p in layer.parameters.items()}


def with_parameters(layers: Layers, parameters: Mapping[str, Array]) -> tuple[Layer, ...]:
    """Return the layers with these parameters, which fit, by the names of `parameters`."""
    return tuple(
        layer.of_fitting({name: parameters[f"{i}.{name}"] for name in own}) if (own := layer.parameters) else layer
        for i, layer in enumerate(layers)
    )
