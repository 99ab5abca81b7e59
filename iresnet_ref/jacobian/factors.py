"""The factors of a chain: linear maps with `apply`, `transpose` and their sizes.

A factor is *shared* (one matrix for all samples: Dense) or *per-sample* (one for each: Diagonal, the activation's
derivatives). Tangents are `(*probes, batch, *event)`; a shared factor takes any leading axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Protocol, Self, runtime_checkable

from iresnet_ref.arrays import Array, RowIndex, device, lazy, namespace, product, size


@runtime_checkable
class Factor(Protocol):
    """A linear map at one point x: A (shared) or D (per sample)."""

    @property
    def in_shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def out_shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def shared(self) -> bool: ...  # noqa: D102

    def apply(self, v: Array) -> Array:
        """Return A v."""
        ...

    def transpose(self, u: Array) -> Array:
        """Return Aᵀ u."""
        ...

    def take(self, rows: RowIndex) -> Self:
        """Return the factor restricted to these rows of the batch (an index array or a slice)."""
        ...


def applied(factors: Sequence[Factor], v: Array) -> Array:
    """Return F_n ⋯ F₁ v."""
    return reduce(lambda w, factor: factor.apply(w), factors, v)


def transposed(factors: Sequence[Factor], u: Array) -> Array:
    """Return F₁ᵀ ⋯ F_nᵀ u."""
    return reduce(lambda w, factor: factor.transpose(w), reversed(factors), u)


class SharedFactor:
    """One map for all samples: it has no rows."""

    shared = True

    def take(self, rows: RowIndex) -> Self:
        """Return itself."""
        return self


class RowFactor:
    """A map for each sample."""

    shared = False


class SquareFactor:
    """A map from events of one shape to events of the same."""

    @property
    def out_shape(self: Factor) -> tuple[int, ...]:
        """The event shape."""
        return self.in_shape


@dataclass(frozen=True)
class Dense(SharedFactor):
    """v ↦ W v with W of shape (out, in), on the last axis."""

    weight: Array

    @property
    def in_shape(self) -> tuple[int, ...]:
        """(in,)."""
        return (self.weight.shape[1],)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(out,)."""
        return (self.weight.shape[0],)

    def apply(self, v: Array) -> Array:
        """Return W v, as one matrix product over all leading axes."""
        return _rows_times(v, self.weight.T)

    def transpose(self, u: Array) -> Array:
        """Return Wᵀ u."""
        return _rows_times(u, self.weight)

    @property
    def terms(self) -> int:
        """The length of the inner products."""
        return self.weight.shape[1]

    def weight_gradient(self, u: Array, v: Array) -> Array:
        """Return ∂/∂W Σ uᵀ(W v) = Σ u vᵀ over all leading axes; the last leading axis of u or v may be 1 for all rows."""
        return outer(u, v)

    def matrix(self) -> Array:
        """Return W."""
        return self.weight

    def absolute(self) -> Dense:
        """Return v ↦ |W| v, for running error bounds."""
        return Dense(namespace(self.weight).abs(self.weight))

    def squared(self) -> Dense:
        """Return v ↦ (W∘W) v, for the propagation of rounding noise."""
        return Dense(self.weight * self.weight)


def _rows_times(v: Array, matrix: Array) -> Array:
    if v.ndim == 2:
        return product(v, matrix)
    xp, lead = namespace(v), v.shape[:-1]
    return xp.reshape(product(xp.reshape(v, (size(lead), v.shape[-1])), matrix), (*lead, matrix.shape[1]))


def outer(u: Array, v: Array) -> Array:
    """Return Σ u vᵀ over all leading axes, as one matrix product; the last leading axis of v or u may be 1 for all rows."""
    xp = namespace(u)
    u, v = matching_rows(u, v, 1)
    flat_u, flat_v = (a if a.ndim == 2 else xp.reshape(a, (size(a.shape[:-1]), a.shape[-1])) for a in (u, v))
    return flat_u.T @ flat_v


def matching_rows(u: Array, v: Array, event_ndim: int) -> tuple[Array, Array]:
    """Return u and v with equal batch axes for a bilinear sum: where one has length 1, the other is summed over its rows."""
    xp, axis = namespace(u), -1 - event_ndim
    if u.shape[axis] == v.shape[axis]:
        return u, v
    return (
        xp.sum(u, axis=axis, keepdims=True) if v.shape[axis] == 1 else u,
        xp.sum(v, axis=axis, keepdims=True) if u.shape[axis] == 1 else v,
    )


def _rows(a: Array, rows: RowIndex) -> Array:
    """Return these rows, an index array or a slice."""
    return a[rows, ...] if isinstance(rows, slice) else namespace(a).take(a, rows, axis=0)


@dataclass(frozen=True)
class StackedDiagonal(RowFactor):
    """v ↦ [D₁v; D₂v] along the first event axis, `entries` = [D₁; D₂] of shape (batch, 2·channels, *pixels)."""

    entries: Array

    @property
    def in_shape(self) -> tuple[int, ...]:
        """(channels, *pixels)."""
        return (self.entries.shape[1] // 2, *self.entries.shape[2:])

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(2·channels, *pixels)."""
        return tuple(self.entries.shape[1:])

    def apply(self, v: Array) -> Array:
        """Return [D₁v; D₂v]."""
        return namespace(v).concat([v, v], axis=v.ndim - self.entries.ndim + 1) * self.entries

    def transpose(self, u: Array) -> Array:
        """Return D₁u₁ + D₂u₂."""
        xp = namespace(u)
        halves = xp.reshape(u * self.entries, (*self._lead(u), 2, *self.in_shape))
        return xp.sum(halves, axis=halves.ndim - self.entries.ndim)

    def _lead(self, u: Array) -> tuple[int, ...]:
        probes = u.shape[: u.ndim - self.entries.ndim]
        return (*probes, max(u.shape[len(probes)], self.entries.shape[0]))

    def take(self, rows: RowIndex) -> StackedDiagonal:
        """Return the factor of these rows."""
        return StackedDiagonal(_rows(self.entries, rows))

    def split(self) -> tuple[Factor, ...]:
        """Return [I; I] and the diagonal, whose product it is; for events of one axis."""
        xp = namespace(self.entries)
        identity = xp.eye(self.in_shape[0], dtype=self.entries.dtype, device=device(self.entries))
        return Dense(xp.concat([identity, identity], axis=0)), Diagonal(self.entries)


@dataclass(frozen=True)
class Diagonal(SquareFactor, RowFactor):
    """v ↦ D v with a diagonal for each sample, `entries` of shape (batch, *event); `second` are their derivatives, where they are known."""

    entries: Array
    second: Array | None = None

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The event shape."""
        return tuple(self.entries.shape[1:])

    def apply(self, v: Array) -> Array:
        """Return D v."""
        return v * self.entries

    def transpose(self, u: Array) -> Array:
        """Return Dᵀ u = D u."""
        return u * self.entries

    def take(self, rows: RowIndex) -> Diagonal:
        """Return the diagonals of these rows."""
        return Diagonal(_rows(self.entries, rows), None if self.second is None else _rows(self.second, rows))


@dataclass(frozen=True)
class Concatenated:
    """v ↦ [η₁v; η₂F_k ⋯ F₁v] along the first event axis."""

    first: Array
    second: Array
    inner: tuple[Factor, ...]

    @property
    def in_shape(self) -> tuple[int, ...]:
        """(channels, *pixels)."""
        return self.inner[0].in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(channels + those of F, *pixels)."""
        (own, *pixels), more = self.in_shape, self.inner[-1].out_shape[0]
        return (own + more, *pixels)

    @property
    def shared(self) -> bool:
        """Whether F is."""
        return all(factor.shared for factor in self.inner)

    def apply(self, v: Array) -> Array:
        """Return [η₁v; η₂Fv]."""
        xp = namespace(v)
        image = applied(self.inner, v)
        axis = v.ndim - len(self.in_shape)
        own = xp.broadcast_to(v, (*image.shape[:axis], *self.in_shape))
        return xp.concat([self.first * own, self.second * image], axis=axis)

    def transpose(self, u: Array) -> Array:
        """Return η₁u₁ + η₂Fᵀu₂."""
        own, image = split(u, self.in_shape[0], u.ndim - len(self.in_shape))
        return self.first * own + self.second * transposed(self.inner, image)

    def take(self, rows: RowIndex) -> Concatenated:
        """Return the factor of these rows."""
        return replace(self, inner=tuple(factor.take(rows) for factor in self.inner))


def split(u: Array, channels: int, axis: int) -> tuple[Array, Array]:
    """Return the first `channels` along the axis, and the others."""
    rest = (slice(None),) * (u.ndim - axis - 1)
    return u[(..., slice(0, channels), *rest)], u[(..., slice(channels, None), *rest)]


@dataclass(frozen=True)
class Permutation(SquareFactor, RowFactor):
    """v ↦ v[index] on the flattened event, `index` of shape (batch, n): a permutation for each sample."""

    index: Array
    in_shape: tuple[int, ...]

    def apply(self, v: Array) -> Array:
        """Return P v."""
        return self._gather(v, self.index)

    def transpose(self, u: Array) -> Array:
        """Return Pᵀ u = P⁻¹ u."""
        return self._gather(u, self._inverse)

    @lazy
    def _inverse(self) -> Array:
        return namespace(self.index).argsort(self.index, axis=1)

    def _gather(self, v: Array, index: Array) -> Array:
        xp = namespace(v)
        batch, n = index.shape
        probes = v.shape[: v.ndim - len(self.in_shape) - 1]
        rows = xp.reshape(xp.arange(batch, dtype=index.dtype, device=device(index)), (batch, 1)) * n
        v = xp.broadcast_to(v, (*probes, batch, *self.in_shape))
        flat = xp.reshape(v, (size(probes), batch * n))
        taken = xp.take(flat, xp.reshape(index + rows, (batch * n,)), axis=1)
        return xp.reshape(taken, (*probes, batch, *self.in_shape))

    def take(self, rows: RowIndex) -> Permutation:
        """Return the permutations of these rows."""
        return Permutation(_rows(self.index, rows), self.in_shape)
