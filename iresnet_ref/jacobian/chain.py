"""The Jacobian of a residual branch as a chain of factors, J_g(x) = A_L · D_{L−1} · A_{L−1} ⋯ D₁ · A₁.

Everything that is asked of J is answered by the factors: products with J and Jᵀ on any number of probes, the dense
matrix, det(I + J) at the narrowest dimension (Weinstein–Aronszajn: det(I + AB) = det(I + BA)), and exact traces.
"""

from __future__ import annotations

from dataclasses import dataclass

from iresnet_ref.arrays import Array, RowIndex, contiguous, device, lazy, namespace, size
from iresnet_ref.jacobian.factors import Dense, Diagonal, Factor, StackedDiagonal, applied, transposed


@dataclass(frozen=True)
class Chain:
    """The product of `factors`, the first applied first; `like` is any array of the wanted dtype and device."""

    factors: tuple[Factor, ...]
    batch: int
    like: Array

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The event shape that the chain takes."""
        return self.factors[0].in_shape

    def matvec(self, v: Array) -> Array:
        """Return J v for v of shape (*probes, batch, *in_shape)."""
        return applied(self.factors, v)

    def rmatvec(self, u: Array) -> Array:
        """Return Jᵀ u for u of shape (*probes, batch, *out_shape)."""
        return transposed(self.factors, u)

    def take(self, rows: RowIndex) -> Chain:
        """Return the chain of these rows of the batch (an index array or a slice)."""
        factors = tuple(f.take(rows) for f in self.factors)
        batch = len(range(self.batch)[rows]) if isinstance(rows, slice) else rows.shape[0]
        return Chain(factors, batch, self.like)

    def dense(self) -> Array:
        """Return J as (batch, out, in): by matrix products where all factors are dense or diagonal, else by columns."""
        xp = namespace(self.like)
        flat = all(isinstance(f, Dense) or (isinstance(f, Diagonal) and len(f.in_shape) == 1) for f in self.factors)
        product = self._product() if flat and size(self.in_shape) > 8 else self._columns()
        return xp.broadcast_to(product, (self.batch, *product.shape[1:]))

    def _product(self) -> Array:
        """Return J as (batch, out, in), or (1, out, in) where all factors are shared."""
        xp = namespace(self.like)
        first, n = self.factors[0], size(self.in_shape)
        if isinstance(first, Dense):
            product, rest = xp.reshape(first.weight, (1, *first.weight.shape)), self.factors[1:]
        else:
            identity = xp.eye(n, dtype=self.like.dtype, device=device(self.like))
            product, rest = xp.reshape(identity, (1, n, n)), self.factors
        for factor in rest:
            if isinstance(factor, Dense):
                product = xp.matmul(factor.weight, product)
            elif isinstance(factor, Diagonal):
                product = xp.reshape(factor.entries, (self.batch, *factor.in_shape, 1)) * product
        return product

    def _columns(self) -> Array:
        """Return J as (batch, out, in), or (1, out, in) where all factors are shared, contiguous in memory."""
        xp = namespace(self.like)
        n = size(self.in_shape)
        identity = xp.eye(n, dtype=self.like.dtype, device=device(self.like))
        columns = self.matvec(xp.reshape(identity, (n, 1, *self.in_shape)))
        batch, out = columns.shape[1], size(columns.shape[2:])
        return contiguous(xp.permute_dims(xp.reshape(columns, (n, batch, out)), (1, 2, 0)))

    def rotated(self, start: int) -> Chain:
        """Return A_k ⋯ A₁ A_L ⋯ A_{k+1}: the same non-zero eigenvalues, hence the same det(I + ·) and traces of powers."""
        return Chain(self.factors[start:] + self.factors[:start], self.batch, self.like)

    def narrowest(self) -> Chain:
        """Return the rotation that starts at the smallest inner dimension."""
        return self.rotated(self.narrowest_index())

    def merged(self) -> Chain:
        """Return the same product with the dense factors at its beginning multiplied into one, once for all rows."""
        factors = list(self.factors)
        xp = namespace(self.like)
        while len(factors) > 1 and isinstance(factors[0], Dense) and isinstance(factors[1], Dense):
            factors[:2] = [Dense(xp.matmul(factors[1].weight, factors[0].weight))]
        return Chain(tuple(factors), self.batch, self.like)

    def narrowest_index(self) -> int:
        """Return the index of the factor whose input dimension is smallest.

        Among equals it is the one from where the fewest multiplications fall on each sample: shared factors that follow
        it directly are multiplied once for the whole batch.
        """

        def work(k: int) -> int:
            factors = self.rotated(k).factors
            first = next((i for i, f in enumerate(factors) if not f.shared), len(factors))
            return sum(size(f.in_shape) * size(f.out_shape) for f in factors[first:] if f.shared)

        sizes = [size(f.in_shape) for f in self.factors]
        places = [k for k, n in enumerate(sizes) if n == min(sizes)]
        return places[0] if len(places) == 1 else min(places, key=work)

    @lazy
    def rank(self) -> int:
        """The smallest inner dimension: a bound on the rank of J."""
        return min(size(f.in_shape) for f in self.factors)

    def trace(self) -> Array | None:
        """Return tr J per row, exactly and without forming J, for chains with one or two diagonals between dense factors.

        One diagonal: tr(W₂ D W₁) = Σᵢ Dᵢ (W₁W₂)ᵢᵢ. Two: tr(W₃ D₂ W₂ D₁ W₁) = D₂ᵀ (W₂ ∘ (W₁W₃)ᵀ) D₁. Otherwise None.
        """
        cut = self._cut
        if cut is None or len(cut[0]) > 2:
            return None
        diagonals, matrices = cut
        xp = namespace(self.like)
        if not diagonals:
            return _repeat(xp.sum(_diagonal_of(matrices[0])), self.batch)
        if len(diagonals) == 1:
            return xp.matmul(diagonals[0], _diagonal_of(matrices[0]))
        first, second = diagonals
        return xp.sum(second * xp.matmul(first, xp.matrix_transpose(matrices[0]) * matrices[1]), axis=-1)

    def trace_of_square(self) -> Array | None:
        """Return tr J² per row for chains with at most one diagonal, Dᵀ (M ∘ Mᵀ) D with M = W₁W₂; otherwise None."""
        cut = self._cut
        if cut is None or len(cut[0]) > 1:
            return None
        diagonals, (matrix,) = cut
        xp = namespace(self.like)
        weights = matrix * xp.matrix_transpose(matrix)
        if not diagonals:
            return _repeat(xp.sum(weights), self.batch)
        return xp.sum(diagonals[0] * xp.matmul(diagonals[0], weights), axis=-1)

    @lazy
    def _cut(self) -> tuple[list[Array], list[Array]] | None:
        """Return (diagonals, matrices) of a cyclic rotation D_1, M_1, D_2, M_2 …: M_i leads from D_i to D_{i+1}."""
        if any(isinstance(f, StackedDiagonal) and len(f.in_shape) == 1 for f in self.factors):
            parts = (f.split() if isinstance(f, StackedDiagonal) else (f,) for f in self.factors)
            return Chain(tuple(part for split in parts for part in split), self.batch, self.like)._cut
        if not all(isinstance(f, Dense | Diagonal) for f in self.factors):
            return None
        xp = namespace(self.like)
        places = [i for i, f in enumerate(self.factors) if isinstance(f, Diagonal)]
        factors = self.rotated(places[0]).factors if places else self.factors
        diagonals: list[Array] = []
        matrices: list[Array] = []
        for factor in factors:
            if isinstance(factor, Diagonal):
                if len(matrices) < len(diagonals):
                    return None  # two diagonals in a row: not a branch that this module builds
                diagonals.append(factor.entries)
            elif isinstance(factor, Dense):
                if len(matrices) == max(len(diagonals), 1):
                    matrices[-1] = xp.matmul(factor.weight, matrices[-1])
                else:
                    matrices.append(factor.weight)
        return (diagonals, matrices) if len(matrices) == max(len(diagonals), 1) else None


def _diagonal_of(matrix: Array) -> Array:
    """Return diag(M) through a mask: the namespace may have no linalg."""
    xp = namespace(matrix)
    return xp.sum(matrix * xp.eye(matrix.shape[0], dtype=matrix.dtype, device=device(matrix)), axis=-1)


def _repeat(value: Array, batch: int) -> Array:
    return namespace(value).broadcast_to(value, (batch,))
