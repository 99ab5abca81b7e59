"""Proofs in host float64 that a symmetric matrix M ⪰ 0 which is known up to rounding: equilibration and one shifted Cholesky.

M̂ is computed with |M̂ − M| ≤ γ_K N̄ entry by entry, N̄ ≥ 0 the matrix of absolute terms, of which only products N̄x are needed. With a
diagonal D of powers of two that brings the diagonal of M̂ into [1, 4), and a symmetric matrix bounded in the 2-norm by its largest row sum,

    DMD ⪰ Ã + (s − δ − ε) I ⪰ (s − κ tr Ã − δ − ε) I ⪰ 0    once    s ≥ κ tr Ã + ε + δ,    ε = γ_K max_i (D N̄ D 1)_i,

Ã = fl(DM̂D − sI) where its Cholesky factorisation runs to the end (the lemma of `norms.dense`). Without D the shift would be measured by the
largest entry of M, and prove nothing of the small ones. `docs/proofs.md` derives each line.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from iresnet_ref.norms.host_arithmetic import require_gradual_underflow
from iresnet_ref.rounding import FLOAT64_ROUNDOFF, gamma

Matrix = npt.NDArray[np.float64]
_U = FLOAT64_ROUNDOFF
FARTHEST = 100
"""The largest exponent by which a row may be scaled: beyond, underflow is no longer covered."""
_UNDERFLOW = 2.0**-400


@dataclass(frozen=True, eq=False)
class Rounded:
    """A matrix A, or a stack of them, of which `value` Â is known: |Â − A| ≤ γ_k P and |A| ≤ P, k = `roundings`, entry by entry.

    `absolute` is P up to a relative error of γ_k. Exact matrices have P = |Â|, k = 0.

    >>> double = Rounded.exact(np.eye(2)) + Rounded.exact(np.eye(2))
    >>> double.value.tolist(), (double @ double).roundings
    ([[2.0, 0.0], [0.0, 2.0]], 4)
    """

    value: Matrix
    absolute: Matrix
    roundings: int

    @staticmethod
    def exact(value: Matrix) -> Rounded:
        """Return a matrix of float64 numbers as it is."""
        return Rounded(value, np.abs(value), 0)

    def __matmul__(self, other: Rounded) -> Rounded:
        """Return the product: n terms round n times."""
        steps = self.roundings + other.roundings + self.value.shape[-1]
        return Rounded(self.value @ other.value, self.absolute @ other.absolute, steps)

    def __add__(self, other: Rounded) -> Rounded:
        """Return the sum."""
        return Rounded(self.value + other.value, self.absolute + other.absolute, max(self.roundings, other.roundings) + 1)

    def times(self, factor: Any, roundings: int = 0) -> Rounded:
        """Return diag(factor)·A for a column of factors known to so many roundings; a number scales all rows."""
        return Rounded(factor * self.value, np.abs(factor) * self.absolute, self.roundings + roundings + 1)

    def rows(self, index: Any) -> Rounded:
        """Return these rows."""
        return Rounded(self.value[..., index, :], self.absolute[..., index, :], self.roundings)

    def scaled(self, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> Rounded:
        """Return the matrix with row i times 2^rows[i] and column j times 2^columns[j]: exact, but for underflow below 2⁻¹⁰⁷⁴."""
        exponent = rows[:, None] + columns[None, :]
        return Rounded(np.ldexp(self.value, exponent), np.ldexp(self.absolute, exponent), self.roundings)


def proves_semidefinite(matrix: Matrix, absolute: Callable[[Matrix], Matrix], terms: int) -> bool:
    """Return whether float64 arithmetic proves M ⪰ 0, for every one of a stack; False means "not proved", not "false".

    `matrix` (count, n, n) holds M̂ in its lower triangles, the rest is not read; it is overwritten. `absolute` maps x ≥ 0 of shape
    (count, n) to N̄x, from non-negative numbers with at most `terms` + 2n roundings; K is `terms`. What the entries of the matrix and of N̄
    lost to underflow must be below 2⁻⁶⁰⁰. Slack: s is about u(n² + K·row sums), relative to the diagonal of M.

    >>> m = np.asarray([[[2.0, 0.0], [-1.0, 0.5 + 1e-14]]])
    >>> proves_semidefinite(m.copy(), lambda x: np.abs(m + m.swapaxes(1, 2)) @ x[0], 4)
    True
    >>> m[0, 1, 1] -= 2e-14
    >>> proves_semidefinite(m.copy(), lambda x: np.abs(m + m.swapaxes(1, 2)) @ x[0], 4)
    False
    """
    require_gradual_underflow()
    n = matrix.shape[-1]
    diagonal = np.einsum("fii->fi", matrix)
    if not (np.isfinite(diagonal).all() and (diagonal > 0.0).all()):
        return False
    exponents = -np.floor(0.5 * np.log2(diagonal)).astype(np.int64)
    if n and int(np.abs(exponents).max()) > FARTHEST:
        return False
    d = np.ldexp(1.0, exponents)
    matrix *= d[:, :, None]
    matrix *= d[:, None, :]
    on_top = 1.0 + 2.0 * (terms + 4 * n + 64) * _U
    g = gamma(terms, _U)
    kappa = gamma(n + 1, _U) / (1.0 - gamma(n + 1, _U))
    spread = g * (d * absolute(d)).max(axis=1, initial=0.0)
    diagonal = np.einsum("fii->fi", matrix)
    shift = (kappa * diagonal.sum(axis=1) + spread + 2.0 * _U * diagonal.max(axis=1, initial=0.0)) * on_top + _UNDERFLOW
    if not (np.isfinite(shift).all() and g < math.inf):
        return False
    diagonal -= shift[:, None]
    try:
        pivots = np.einsum("fii->fi", np.linalg.cholesky(matrix))
    except np.linalg.LinAlgError:
        return False
    return bool((np.isfinite(pivots) & (pivots > 0.0)).all())
