"""Factors that are the same for all samples and no matrix: a diagonal, a rearrangement of entries, and a sum of products."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import reduce

from iresnet_ref.arrays import Array, RowIndex, namespace
from iresnet_ref.jacobian.factors import Factor, SharedFactor, SquareFactor, applied, transposed


@dataclass(frozen=True)
class SharedDiagonal(SquareFactor, SharedFactor):
    """v ↦ D v with one diagonal for all samples, `entries` of shape (*event)."""

    entries: Array

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The event shape."""
        return tuple(self.entries.shape)

    def apply(self, v: Array) -> Array:
        """Return D v."""
        return v * self.entries

    def transpose(self, u: Array) -> Array:
        """Return Dᵀ u = D u."""
        return u * self.entries


@dataclass(frozen=True)
class Rearranged(SharedFactor):
    """v ↦ v with its event axes permuted, then reshaped: an isometry of every p-norm."""

    in_shape: tuple[int, ...]
    axes: tuple[int, ...]
    out_shape: tuple[int, ...]

    def apply(self, v: Array) -> Array:
        """Return the rearranged v."""
        lead = tuple(v.shape[: v.ndim - len(self.in_shape)])
        return namespace(v).reshape(_permuted(v, self.axes), (*lead, *self.out_shape))

    def transpose(self, u: Array) -> Array:
        """Return u put back."""
        lead = tuple(u.shape[: u.ndim - len(self.out_shape)])
        u = namespace(u).reshape(u, (*lead, *(self.in_shape[axis] for axis in self.axes)))
        return _permuted(u, tuple(self.axes.index(axis) for axis in range(len(self.axes))))


def _permuted(v: Array, axes: tuple[int, ...]) -> Array:
    lead = v.ndim - len(axes)
    if axes == tuple(range(len(axes))):
        return v
    return namespace(v).permute_dims(v, (*range(lead), *(lead + axis for axis in axes)))


@dataclass(frozen=True)
class Summed:
    """v ↦ Σ_k F_{k,n} ⋯ F_{k,1} v; an empty product is the identity."""

    parts: tuple[tuple[Factor, ...], ...]
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]

    @property
    def shared(self) -> bool:
        """Whether all factors are."""
        return all(factor.shared for part in self.parts for factor in part)

    def apply(self, v: Array) -> Array:
        """Return Σ_k F_k v."""
        return reduce(operator.add, [applied(part, v) for part in self.parts])

    def transpose(self, u: Array) -> Array:
        """Return Σ_k F_kᵀ u."""
        return reduce(operator.add, [transposed(part, u) for part in self.parts])

    def take(self, rows: RowIndex) -> Summed:
        """Return the factor of these rows."""
        return Summed(tuple(tuple(f.take(rows) for f in part) for part in self.parts), self.in_shape, self.out_shape)
