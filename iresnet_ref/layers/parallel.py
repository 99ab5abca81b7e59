"""Paths side by side whose values are added, y = f₁(x) + … + f_k(x): skip connections inside a branch."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

from iresnet_ref.arrays import Array, public
from iresnet_ref.arrays.validation import require_parameters
from iresnet_ref.errors import ShapeError
from iresnet_ref.jacobian.shared_factors import Summed
from iresnet_ref.layers import sequence
from iresnet_ref.layers.layer import Layer, Pullback, over_rows
from iresnet_ref.layers.tape import added, record
from iresnet_ref.rounding import up

Path = tuple[Layer, ...]


@public
@dataclass(frozen=True)
class Parallel(Layer):
    """h ↦ Σ_k f_k(h), f_k a sequence of layers; an empty one is the identity. ‖Σ J_k‖ ≤ Σ_k Π Lip of the layers of f_k.

    Raises: ShapeError without a path, or where the paths end in different shapes.

    >>> import numpy as np
    >>> from iresnet_ref.layers.activations import get
    >>> from iresnet_ref.layers.pointwise import Pointwise
    >>> skip = Parallel(((), (Pointwise(get("relu")),)))
    >>> skip(np.asarray([[2.0, -1.0]])).tolist(), skip.norm_bound()
    ([[4.0, -1.0]], 2.0)
    """

    paths: tuple[Path, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", tuple(tuple(path) for path in self.paths))
        if not self.paths:
            raise ShapeError("parallel: expected at least one path, got none; try ((), (layer,)) for x + layer(x)")

    @property
    def name(self) -> str:
        """E.g. "sum of (identity) and (dense 3→3, elu)"."""
        return "sum of " + " and ".join(f"({', '.join(layer.name for layer in path) or 'identity'})" for path in self.paths)

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Those of the paths' layers, as "path.layer.weight" …"""
        return {f"{k}.{name}": p for k, path in enumerate(self.paths) for name, p in sequence.parameters(path).items()}

    @public
    def with_parameters(self, parameters: Mapping[str, Array]) -> Parallel:
        """Return the layer with these parameters."""
        require_parameters(parameters, self.parameters)
        own = [{name: parameters[f"{k}.{name}"] for name in sequence.parameters(path)} for k, path in enumerate(self.paths)]
        return Parallel(tuple(map(sequence.with_parameters, self.paths, own)))

    def out_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the sum."""
        ends = [sequence.out_shape(path, event) for path in self.paths]
        if len(set(ends)) > 1:
            raise ShapeError(f"{self.name}: expected paths that end in one shape, got {ends}; nothing is broadcast")
        return ends[0]

    def __call__(self, x: Array) -> Array:
        """Return Σ f_k(x)."""
        return reduce(operator.add, (sequence.value(path, x) for path in self.paths))

    def linearize(self, x: Array) -> tuple[Array, Summed]:
        """Return the value and Σ J_k."""
        images, parts = zip(*(sequence.linearized(path, x) for path in self.paths), strict=True)
        value = reduce(operator.add, images)
        return value, Summed(parts, tuple(x.shape[1:]), tuple(value.shape[1:]))

    def pullback(self, x: Array, v: Array | None, y_bar: Array | None, t_bar: Array | None) -> Pullback:
        """The sums of what the paths pull back."""
        gradients: dict[str, Array] = {}
        x_bar: Array | None = None
        v_bar: Array | None = None
        for k, path in enumerate(self.paths):
            if path:
                tape = record(path, x, linearize=v is not None)
                own: Array | None
                own, tangent, found = tape.pullback(y_bar, () if v is None else tape.push(v), t_bar)
                gradients |= {f"{k}.{name}": gradient for name, gradient in found.items()}
            else:
                own, tangent = y_bar, None if t_bar is None or v is None else over_rows(t_bar, v, x.ndim)
            x_bar, v_bar = added(x_bar, own), added(v_bar, tangent)
        return x_bar, v_bar, gradients

    def norm_bound(self, p: float = 2.0) -> float:
        """Return Σ_k Π Lip, rounded up."""
        total = sum(sequence.norm_bound(path, p) for path in self.paths)
        return up(total, len(self.paths)) if total % 1.0 else total
