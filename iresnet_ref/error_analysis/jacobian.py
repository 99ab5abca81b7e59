"""How far the computed Jacobian factors of layers are from the true ones; `logdet_error_bound` is made of it.

`jacobian_error` is one function a type of layer; of a layer without one nothing is proved: ‖F̂ − F‖_* ≤ ∞.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import singledispatch
from typing import NamedTuple

from iresnet_ref.arrays import Array, flatten_events, namespace, size
from iresnet_ref.error_analysis.forward import ForwardError, forward_error, no_error, weight_roundings
from iresnet_ref.layers import CLipSwish, Concatenation, DiagonalAffine, GroupSort, LipSwish, Parallel, Pointwise
from iresnet_ref.layers.layer import Layer
from iresnet_ref.layers.linear import LinearLayer
from iresnet_ref.layers.rearrangement import Rearrangement
from iresnet_ref.layers.sequence import Layers, steps
from iresnet_ref.rounding import unit_roundoff, up


class JacobianError(NamedTuple):
    """How far the computed Jacobian factor F̂ is from the true F.

    `norm` ≥ ‖F‖₂, ‖F̂‖₂; `absolute` ≥ ‖|F̂|‖₂; `terms` roundings in a product with F̂; `nuclear` ≥ ‖F̂ − F‖_* per row.
    """

    norm: float
    absolute: float
    terms: int
    nuclear: Array


def telescoped(factors: Sequence[JacobianError]) -> Array:
    """Return Σ_i ‖δF_i‖_* Π_{j≠i}‖F_j‖ ≥ ‖ΠF̂ − ΠF‖_* per row, the products taken exactly."""
    norms = [factor.norm for factor in factors]
    parts = [f.nuclear * math.prod(norms[:i] + norms[i + 1 :]) for i, f in enumerate(factors)]
    return sum(parts[1:], parts[0])


@singledispatch
def jacobian_error(layer: Layer, h: Array, error: Array) -> JacobianError:
    """Return what is known of the factor computed at ĥ, ‖ĥ − h‖₂ ≤ error per row. Of a layer of another package, nothing.

    >>> import numpy as np
    >>> jacobian_error(Rearrangement((2,), (0,), (2,)), np.ones((1, 2)), np.ones(1))
    JacobianError(norm=1.0, absolute=1.0, terms=0, nuclear=array([0.]))
    """
    return JacobianError(math.inf, math.inf, 0, namespace(error).full_like(error, math.inf))


def jacobian_errors(layers: Layers, x: Array, before: ForwardError) -> list[JacobianError]:
    """Return what is known of each layer's factor at x, given the rounding of x."""
    found: list[JacobianError] = []
    for layer, h, y in steps(layers, x):
        found.append(jacobian_error(layer, h, before.error))
        before = forward_error(layer, h, y, before)
    return found


@jacobian_error.register
def _linear(layer: LinearLayer, h: Array, error: Array) -> JacobianError:
    """The factor is the weight itself."""
    return JacobianError(*layer.norms(2.0), layer.operator.terms, namespace(error).zeros_like(error))


@jacobian_error.register
def _diagonal(layer: DiagonalAffine, h: Array, error: Array) -> JacobianError:
    """The factor is the scale itself."""
    norm = layer.norm_bound()
    return JacobianError(norm, norm, 1, namespace(error).zeros_like(error))


@jacobian_error.register
def _rearrangement(layer: Rearrangement, h: Array, error: Array) -> JacobianError:
    """None: the factor is exact."""
    return JacobianError(1.0, 1.0, 0, namespace(error).zeros_like(error))


@jacobian_error.register
def _pointwise(layer: Pointwise, h: Array, error: Array) -> JacobianError:
    """|fl φ′(ĥ) − φ′(h)| ≤ c(|φ′| + 1) + curvature·e + jump·#{k: |ĥ − k| ≤ e}, a diagonal: its nuclear norm is the sum, Σe ≤ √m s."""
    xp, phi, u = namespace(h), layer.activation, unit_roundoff(h)
    flat, m = flatten_events(h, h.ndim - 1), size(tuple(h.shape[1:]))
    computed = phi.error_on(h) * u * (phi.lipschitz + 1.0)
    nuclear = error * (phi.curvature * math.sqrt(m)) + m * computed
    if phi.jump > 0.0:
        for kink in phi.kinks:
            near = xp.abs(flat - kink) <= error[:, None] * (1.0 + 4.0 * u)
            nuclear = nuclear + phi.jump * xp.sum(xp.astype(near, h.dtype), axis=-1)
    return JacobianError(phi.lipschitz + computed, phi.lipschitz + computed, 1, nuclear)


@jacobian_error.register
def _lipswish(layer: LipSwish, h: Array, error: Array) -> JacobianError:
    """That of the activation with β fixed."""
    return jacobian_error(layer.fixed, h, error)


@jacobian_error.register
def _clipswish(layer: CLipSwish, h: Array, error: Array) -> JacobianError:
    """‖[D; D′]‖₂ = max √(d² + d′²); the nuclear norm of the difference is at most the sum of its entries."""
    inner = jacobian_error(layer.inner, namespace(h).concat([h, -h], axis=1), math.sqrt(2.0) * error)
    norm = 1.0 + 2.0 * (inner.norm - layer.inner.norm_bound())
    return JacobianError(norm, norm, 2, inner.nuclear)


@jacobian_error.register
def _sorting(layer: GroupSort, h: Array, error: Array) -> JacobianError:
    """The permutation is that of h in groups whose neighbours are further apart than 2e; in others ‖P̂ − P‖_* ≤ 2k, k their size."""
    xp, groups = namespace(h), layer.groups(layer(h))
    gaps = xp.abs(groups[:, :, 1:, :] - groups[:, :, :-1, :])
    doubtful = xp.any(gaps <= 2.0 * xp.reshape(error, (-1, 1, 1, 1)), axis=2)
    count = xp.sum(xp.astype(doubtful, h.dtype), axis=(1, 2))
    return JacobianError(1.0, 1.0, 0, 2.0 * groups.shape[2] * count)


@jacobian_error.register
def _concatenation(layer: Concatenation, h: Array, error: Array) -> JacobianError:
    """‖F̂ − F‖_* ≤ η₂Σ‖δF_i‖_*Π_{j≠i}‖F_j‖ + cn(η₁ + η₂K) for F = [η₁I; η₂F_k⋯F₁] of n columns, c the accuracy of η."""
    found = jacobian_errors(layer.inner, h, no_error(h)._replace(error=error))
    c, n = weight_roundings(layer) * unit_roundoff(h), size(tuple(h.shape[1:]))
    first, second = (w * (1.0 + 2.0 * c) for w in layer.host_weights())
    norm, absolute, terms = _multiplied(found)
    nuclear = c * n * (first + second * norm) + second * telescoped(found)
    norm, absolute = (up(math.hypot(first, second * of)) for of in (norm, absolute))
    return JacobianError(norm, absolute, terms + 2, nuclear)


@jacobian_error.register
def _parallel(layer: Parallel, h: Array, error: Array) -> JacobianError:
    """‖F̂ − F‖_* ≤ Σ_k of the telescoped products; the norms add up."""
    paths = [jacobian_errors(path, h, no_error(h)._replace(error=error)) for path in layer.paths]
    nuclear: Array = sum((telescoped(found) for found in paths if found), 0.0 * error)  # a path without layers is the identity, exactly
    norm, absolute, terms = (sum(of) for of in zip(*map(_multiplied, paths), strict=True))
    terms, count = int(terms) + len(paths), len(paths)
    return JacobianError(up(norm, terms + count), up(absolute, terms + count), terms, nuclear)


def _multiplied(factors: Sequence[JacobianError]) -> tuple[float, float, int]:
    """Return Π‖F_i‖, Π‖|F̂_i|‖ and the roundings in a product with all."""
    return math.prod(f.norm for f in factors), math.prod(f.absolute for f in factors), sum(f.terms for f in factors)
