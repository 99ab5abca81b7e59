"""Proofs in host float64: ‖A‖₂ ≤ c by a shifted Cholesky factorisation, and Lip(g) as a product of such bounds.

*Norms.* Let G = WᵀW for W with m ≥ n = number of columns, Ĝ its float64 value, c₂ ≤ c² and Ã = fl(c₂I − Ĝ − sI). If the
floating-point Cholesky factorisation of Ã runs to the end with a positive diagonal, its factor R̂ has R̂ᵀR̂ = Ã + Δ with
‖Δ‖₂ ≤ κ tr Ã, κ = γ_{n+1}/(1 − γ_{n+1}) (Rump, *Verification of positive definiteness*, BIT 46, 2006; Demmel 1989), hence
Ã ⪰ −κ tr(Ã) I. With ‖Ĝ − G‖₂ ≤ γ_t max_i (|W|ᵀ|W|1)_i, t the terms of an inner product, and the rounding δ of the diagonal,

    c²I − WᵀW ⪰ (s − κ tr Ã − ‖Ĝ − G‖₂ − δ) I ⪰ 0    once    s ≥ κ tr Ã + ‖Ĝ − G‖₂ + δ,

that is ‖W‖₂ ≤ c. The inner products may be summed in any order, with or without fused multiply-add, but must be IEEE
float64: this runs on the host, on exactly converted weights. `docs/proofs.md` derives each line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from iresnet_ref.arrays import HostArray, lazy
from iresnet_ref.norms.host_arithmetic import require_gradual_underflow
from iresnet_ref.rounding import FLOAT64_ROUNDOFF, gamma, up

Matrix = npt.NDArray[np.float64]
_U = FLOAT64_ROUNDOFF
_BLOCK = 64
"""Rows per partial Gram matrix: k + m/k rounded additions in an inner product of m terms, instead of m."""


def proves_norm_at_most(weight: Matrix, c: float) -> bool:
    """Return whether float64 arithmetic proves ‖W‖₂ ≤ c, for every one of a stack; False means "not proved", not "false".

    Slack: succeeds for c ≥ ‖W‖₂(1 + n²u), n the smaller side, except for the smallest matrices (a few u).

    >>> w = np.diag([0.9, 0.3])
    >>> proves_norm_at_most(w, 0.9 * (1 + 1e-14)), proves_norm_at_most(w, 0.9 * (1 - 1e-14))
    (True, False)
    """
    require_gradual_underflow()
    w = np.asarray(weight, dtype=np.float64)
    magnitude = largest(w)
    if magnitude == 0.0:
        return c >= 0.0
    if not (math.isfinite(magnitude) and math.isfinite(c) and c > 0.0):
        return False
    exponent = math.frexp(max(c, magnitude))[1]
    return Gram.of(scaled(w, -exponent)).below(math.ldexp(c, -exponent))


def norm_bound(weight: Matrix) -> float:
    """Return a proved upper bound on ‖W‖₂, at most about n²u above it; inf where float64 cannot hold one.

    The candidate comes from the largest eigenvalue of the smaller Gram matrix; the proof does not trust it.

    >>> 0.5 <= norm_bound(np.diag([0.5, 0.1])) <= 0.5 * (1 + 1e-14)
    True
    """
    require_gradual_underflow()
    w = np.asarray(weight, dtype=np.float64)
    magnitude = largest(w)
    if magnitude == 0.0 or not math.isfinite(magnitude):
        return 0.0 if magnitude == 0.0 else math.inf
    exponent = math.frexp(magnitude)[1]
    gram = Gram.of(scaled(w, -exponent))
    top = float(np.linalg.eigvalsh(gram.matrix)[-1])
    return times_power_of_two(float(gram.proved_above(top)), exponent)


@dataclass(frozen=True)
class Gram:
    """Ĝ with ‖Ĝ − WᴴW‖₂ ≤ `error`, for W with `rows` ≥ columns and the larger of its entries and c near 1, or a stack of such.

    Ĝ is the symmetric, or Hermitian, matrix that either of its triangles defines; `error` is one number or one for each of the stack,
    `absolute` is ‖W‖₁‖W‖_∞ ≥ ‖|W|‖₂², not rounded up.
    """

    matrix: npt.NDArray[Any]
    error: Any
    rows: int
    absolute: Any = math.inf

    @staticmethod
    def of(w: Matrix, *, block: int | None = None) -> Gram:
        """Return Ĝ of the smaller side of W, where it is square WWᵀ; long blocks are faster, and less is proved of them."""
        if w.shape[-2] > w.shape[-1]:
            w = w.swapaxes(-1, -2)
        n, m = w.shape[-2:]
        block = max(_BLOCK, n // 4, math.isqrt(m)) if block is None else block
        transposed, part = w.swapaxes(-1, -2), None
        gram = np.matmul(w[..., :block], transposed[..., :block, :], out=_apart(w.shape[:-1]))
        for start in range(block, m, block):
            part = np.matmul(w[..., start : start + block], transposed[..., start : start + block, :], out=part)
            gram += part
        terms = min(m, block) + math.ceil(m / block) - 1
        absolute = np.abs(w)
        rows, columns = absolute @ np.ones((m, 1)), absolute.swapaxes(-1, -2) @ np.ones((n, 1))
        error = gamma(terms, _U) * (absolute @ columns).max(axis=(-2, -1))
        return Gram(gram, error, m, rows.max(axis=(-2, -1)) * columns.max(axis=(-2, -1)))

    @lazy
    def _squares(self) -> tuple[Matrix, Matrix]:
        """ĝ_ii, and the largest of them."""
        squares = np.real(np.diagonal(self.matrix, axis1=-2, axis2=-1))
        return squares, squares.max(axis=-1)

    def shift(self, c: Any) -> tuple[Matrix, Matrix]:
        """Return (fl(c₂ − ĝ_ii), s), s ≥ κ tr Ã + ‖Ĝ − G‖₂ + δ with its own rounding, and all underflow, included. c may be an array."""
        (squares, most), n = self._squares, self.matrix.shape[-1]
        c_squared = c * c * (1.0 - 2.0 * _U)
        diagonal = np.asarray(c_squared)[..., None] - squares
        twice = np.iscomplexobj(self.matrix)  # docs/proofs.md: √2γ_{2n+1}, of real inner products twice as long
        g = gamma(2 * n + 1 if twice else n + 1, _U)
        kappa = (1.5 * g if twice else g) / (1.0 - g)
        delta = 4.0 * _U * (c_squared + most)
        total = kappa * np.abs(diagonal).sum(axis=-1) + self.error + delta
        return diagonal, total * (1.0 + 2.0 * (self.rows + 2 * n + 16) * _U)

    def least_excess(self, top: Any) -> Any:
        """Return about what c² must exceed the largest eigenvalue `top` of Ĝ by for a proof: the shift, and the rounding of `top`.

        `top` is one for all, or one for each of the stack.
        """
        shift = self.shift(np.sqrt(top))[1]
        return (shift if np.ndim(top) else np.max(shift)) + 8.0 * math.sqrt(self.matrix.shape[-1]) * _U * top

    def proved_above(self, top: Any, least: float = 0.0) -> Any:
        """Return a proved c ≥ `least` just above √top, `top` > 0 the largest eigenvalue of Ĝ, of all or of each; inf where nothing is."""
        excess: HostArray = np.asarray(self.least_excess(top))
        below, c = np.asarray(False), excess
        for _ in range(100):  # the first candidate nearly always; far above the norm every proof succeeds
            c = np.maximum(least, np.sqrt(top + excess) * (1.0 + 4.0 * _U))
            below = np.asarray(self.each_below(c) if np.ndim(c) else self.below(c))
            if below.all():
                return c
            excess = np.where(below, excess, 2.0 * excess)
        return np.where(below, c, math.inf)

    def part(self, places: Any) -> Gram:
        """Return the Gram matrices at these places of the stack."""
        return Gram(self.matrix[places], np.broadcast_to(self.error, len(self.matrix))[places], self.rows)

    def each_below(self, c: Matrix) -> npt.NDArray[np.bool_]:
        """Return for each of a stack whether c²I − WᴴW ⪰ 0 is proved: all at once, each alone where that fails."""
        if self.below(c):
            return np.ones(len(c), dtype=bool)
        return np.asarray([len(c) > 1 and self.part([i]).below(c[i]) for i in range(len(c))])

    def below(self, c: Any) -> bool:
        """Return whether c²I − WᴴW ⪰ 0 is proved, of every one of a stack; c is one, or one for each."""
        (diagonal, s), n = self.shift(c), self.matrix.shape[-1]
        side = n + 1 if n % 128 == 0 else n  # LAPACK's copies at strides of large powers of two cost more than the factors: 1 is put below
        shifted = np.zeros((*self.matrix.shape[:-2], side, side), dtype=self.matrix.dtype)
        np.negative(self.matrix, out=shifted[..., :n, :n])
        np.einsum("...ii->...i", shifted[..., :n, :n])[...] = diagonal - np.asarray(s)[..., None]
        shifted[..., n:, n:] = 1.0
        try:
            pivots = np.diagonal(np.linalg.cholesky(shifted.swapaxes(-1, -2)), axis1=-2, axis2=-1).real  # LAPACK's own order of entries
        except np.linalg.LinAlgError:
            return False
        return bool((np.isfinite(pivots) & (pivots > 0.0)).all())  # pivot i holds the squares of row i: all entries are finite


def _apart(shape: tuple[int, ...]) -> Matrix:
    """Return an empty stack of square matrices, rows not apart by large powers of two: caches are slow with those."""
    n = shape[-1]
    return np.empty((*shape, n + 8 if n % 128 == 0 else n))[..., :n]


def largest(w: Matrix) -> float:
    """Return max |w_ij|, NaN where there is one, and 0 of nothing."""
    return max(float(w.max()), -float(w.min())) if w.size else 0.0


def scaled(w: Matrix, exponent: int) -> Matrix:
    """Return W·2^exponent, each entry rounded once: where the power is far inside the range by a product, which is fast."""
    return w * math.ldexp(1.0, exponent) if abs(exponent) < 1000 else np.ldexp(w, exponent)


def times_power_of_two(value: float, exponent: int) -> float:
    """Return value·2^exponent, rounded up where the result is not a normal number."""
    if exponent + math.frexp(value)[1] > 1024:
        return math.inf
    result = math.ldexp(value, exponent)
    return result if math.ldexp(result, -exponent) >= value else math.nextafter(result, math.inf)


def absolute_norm_bound(weight: Matrix) -> float:
    """Return √(‖W‖₁‖W‖_∞) ≥ ‖|W|‖₂, rounded up."""
    require_gradual_underflow()
    a = np.abs(np.asarray(weight, dtype=np.float64))
    product = _product_of_sums(a)
    if 2.0**-800 < product < 2.0**800:  # no sum overflows, and what underflows is far below its rounding
        return up(math.sqrt(product), sum(a.shape))
    magnitude = largest(a)
    if magnitude == 0.0 or not math.isfinite(magnitude):
        return 0.0 if magnitude == 0.0 else math.inf
    exponent = math.frexp(magnitude)[1]
    return times_power_of_two(up(math.sqrt(_product_of_sums(scaled(a, -exponent))), sum(a.shape)), exponent)


def _product_of_sums(a: Matrix) -> float:
    """Return ‖A‖₁‖A‖_∞ of A ≥ 0."""
    return float((np.ones(len(a)) @ a).max(initial=0.0)) * float((a @ np.ones(a.shape[1])).max(initial=0.0))
