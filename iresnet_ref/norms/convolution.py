"""Proofs in host float64 of ‖A‖₂ ≤ c for a convolution on the image it is used on.

*Circular padding.* The Fourier transform makes A block diagonal: ‖A‖₂ = max_ω ‖B(ω)‖₂ over the frequencies of the image,
B(ω) = Σ_t K_t e^{iω·t}, one (out, in) matrix for each (Sedghi, Gupta, Long 2019, arXiv 1805.10408). Each computed block is
within ε of the true one, and the norms of the computed blocks are proved as those of dense matrices are (`certify`).

*Zero padding.* The operator on n×n is a crop of the one on N×N that wraps around, for every N ≥ n + (k − 1)/2, where no tap
that starts inside the image reaches it again around the edge. What wraps may as well change its sign: the frequencies are
then (2j + 1)π/N instead of 2jπ/N, and lie on both sides of a peak of ‖B(ω)‖₂ where the others hit it. The bound is the
least of the periodic and antiperiodic operators at N = n + (k − 1)/2. N = n is no bound. Small operators, and those whose kernel is
large on its image, are certified as the matrices they are, and 1×1 kernels as dense.
`docs/proofs.md` derives each line.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from iresnet_ref.arrays import size
from iresnet_ref.jacobian.convolution import Convolution, Operator
from iresnet_ref.norms.dense import absolute_norm_bound, norm_bound, proves_norm_at_most, times_power_of_two
from iresnet_ref.norms.host_arithmetic import require_gradual_underflow
from iresnet_ref.rounding import FLOAT64_ROUNDOFF, gamma, up

Host = npt.NDArray[Any]
Grid = tuple[tuple[int, int], tuple[int, int]]
"""(N, twist) for each axis: what leaves the grid comes back on the other side, with its sign changed where twist is 1."""
_U = FLOAT64_ROUNDOFF
DENSE_UP_TO = 256
"""Operators with a side up to this are certified as matrices, without slack. At 512 the frequencies take a twentieth of the time."""
LOOSE = 4.0 / 3.0
"""… and up to four times this where the grid that covers the image has so many times its pixels: the slack is then 2 to 16 %."""
_SQUARINGS = 5
_CLOSE = 1e-3


def operator_norm_bound(operator: Operator) -> float:
    """Return a proved upper bound on ‖A‖₂ of an operator with a host weight; inf where none can be proved.

    Slack: that of `norm_bound` for circular padding, 1×1 kernels and operators taken as matrices; else the gap between zero padding
    and wrapping around, below 1 % for multi-channel Gaussian 3×3 kernels from 16×16 on; docs/proofs.md has the table.
    """
    require_gradual_underflow()
    kernel = np.asarray(operator.weight, dtype=np.float64)
    if not np.isfinite(kernel).all():
        return math.inf
    operator = replace(operator, weight=kernel)
    if not by_frequencies(operator):
        return norm_bound(as_matrix(operator))
    magnitude = float(np.abs(kernel).max(initial=0.0))
    if magnitude == 0.0:
        return 0.0
    exponent = math.frexp(magnitude)[1]
    scaled = np.ldexp(kernel, -exponent)
    _, blocks = tightest_symbol(replace(operator, weight=scaled))
    return times_power_of_two(proved_on(blocks, symbol_error(scaled)), exponent)


def by_frequencies(operator: Operator) -> TypeGuard[Convolution]:
    """Return whether the bound is not that of a matrix, as it is with zero padding and a small side, the less so the larger the kernel.

    >>> [by_frequencies(Convolution(np.ones((8, 8, k, k)), (8, 8), "zero")) for k in (3, 5)]
    [True, False]
    """
    if not isinstance(operator, Convolution) or operator.weight.shape[2:] == (1, 1):
        return False
    outputs, inputs, *kernel = operator.weight.shape
    side = size(operator.image) * min(outputs, inputs)
    wider = math.prod((n + k // 2) / n for n, k in zip(operator.image, kernel, strict=True))
    return operator.padding != "zero" or side > (4 * DENSE_UP_TO if wider >= LOOSE else DENSE_UP_TO)


def as_matrix(operator: Operator) -> Host:
    """Return the matrix of a host weight that is proved where it is not by frequencies; of a 1×1 kernel that of a pixel."""
    weight = np.asarray(operator.weight)
    return weight.reshape(weight.shape[:2]) if weight.shape[2:] in ((), (1, 1)) else np.asarray(operator.matrix())


def weight_slope(operator: Operator, u: Host, v: Host) -> Host:
    """Return ∂(uᵀAv)/∂W for singular vectors of `as_matrix`."""
    if operator.weight.shape[2:] in ((), (1, 1)):
        return np.outer(u, v).reshape(operator.weight.shape)
    return np.asarray(operator.weight_gradient(u.reshape(1, *operator.out_shape), v.reshape(1, *operator.in_shape)))


def tightest_symbol(operator: Convolution) -> tuple[Grid, Host]:
    """Return the grid that bounds ‖A‖₂ best, and the blocks B(ω) there, for a host kernel."""
    kernel = np.asarray(operator.weight)
    rows, columns = operator.image
    around: list[Grid] = [((rows, 0), (columns, 0))]
    grids = around if operator.padding == "circular" else covering_grids(operator.image, kernel.shape[2:])
    blocks = {grid: symbol(kernel, grid) for grid in grids}
    best = min(grids, key=lambda grid: float(_lower_and_upper(blocks[grid])[0].max()))
    return best, blocks[best]


def absolute_bound(operator: Operator) -> float:
    """Return √(‖A‖₁‖A‖_∞) ≥ ‖|A|‖₂ of the operator, a convolution on any image, rounded up: that of the matrix Σ_t |K_t|."""
    kernel = np.abs(np.asarray(operator.weight, dtype=np.float64))
    if kernel.ndim == 2:
        return absolute_norm_bound(kernel)
    return up(absolute_norm_bound(np.sum(kernel, axis=(2, 3))), kernel[0, 0].size)


def covering_grids(image: tuple[int, int], kernel: tuple[int, ...]) -> list[Grid]:
    """Return the grids whose operators contain the zero-padded one: N = n + (k − 1)/2, periodic (0) or antiperiodic (1).

    >>> covering_grids((8, 8), (3, 1))
    [((9, 0), (8, 0)), ((9, 1), (8, 0))]
    """
    rows, columns = ([(n + k // 2, twist) for twist in ((0, 1) if k > 1 else (0,))] for n, k in zip(image, kernel, strict=True))
    return list(product(rows, columns))


def symbol(kernel: Host, grid: Grid) -> Host:
    """Return B(ω) = Σ_t K_t e^{iω·t} as (frequencies, out, in), complex, for one of each pair ±ω: their norms are equal.

    ω = (2j + twist)π/N on each axis (N, twist).
    Summed directly, first along the rows of the kernel and then along its columns; see `symbol_error`.
    """
    outputs, inputs, kh, kw = kernel.shape
    (rows, _), (columns, _) = grid
    (c1, s1), (c2, s2) = (
        circle(2 * n)[:, np.outer(range(k), 2 * np.arange(m) + twist) % (2 * n)]
        for (n, twist), k, m in zip(grid, (kh, kw), (rows, columns // 2 + 1), strict=True)
    )
    along = np.concatenate([kernel @ c2, kernel @ s2], axis=2)  # (out, in, 2kh, columns)
    along = np.moveaxis(along.reshape(outputs * inputs, 2 * kh, -1), 1, 0).reshape(2 * kh, -1)
    parts = [np.concatenate(pair).T @ along for pair in ((c1, -s1), (s1, c1))]
    real, imaginary = (p.reshape(rows, outputs, inputs, -1) for p in parts)
    return np.moveaxis(real + 1j * imaginary, 3, 1).reshape(-1, outputs, inputs)


def symbol_error(kernel: Host) -> float:
    """Return ε ≥ ‖B̂(ω) − B(ω)‖₂ for every ω: 3γ(kw + 2kh + 4)·‖Σ_t |K_t|‖, rounded up."""
    kh, kw = kernel.shape[2:]
    absolute = up(absolute_norm_bound(np.abs(kernel).sum(axis=(2, 3))), kh * kw)
    return up(3.0 * gamma(kw + 2 * kh + 4, _U) * absolute)


def symbol_terms(kernel: Host) -> int:
    """Return k with |Re B̂(ω) − Re B(ω)| ≤ γ_k Σ_t |K_t| entry by entry, and likewise of Im: 2(kw + 2kh + 4), since 2γ_m ≤ γ_2m."""
    kh, kw = kernel.shape[2:]
    return 2 * (kw + 2 * kh + 4)


@cache
def circle(n: int) -> Host:
    """Return (cos, sin)(2πk/n) for k < n, each within 1.01u: Taylor's series in integers scaled by 2¹²⁸.

    >>> circle(4)[0][[0, 2]].tolist()
    [1.0, -1.0]
    """
    one = 1 << 128
    parts = np.empty((2, n))
    for k in range(n):
        angle = 2 * _pi(one) * k // n
        term, sums = one, [0, 0]
        for i in range(1, 90):  # (2π)ⁿ/n! is below 2⁻¹²⁸ from n = 46 on
            sums[(i - 1) % 2] += term if (i - 1) % 4 < 2 else -term
            term = term * angle // (i * one)
        parts[:, k] = [s / one for s in sums]  # integer division is correctly rounded
    return parts


def _pi(one: int) -> int:
    """Return π·one by Machin's formula, within a few hundred units."""

    def arctan_of_inverse(x: int) -> int:
        power, total, i = one // x, 0, 1
        while power:
            total += power // i if i % 4 == 1 else -(power // i)
            power, i = power // (x * x), i + 2
        return total

    return 16 * arctan_of_inverse(5) - 4 * arctan_of_inverse(239)


def proved_on(blocks: Host, error: float) -> float:
    """Return a proved bound on every ‖B(ω)‖₂ for blocks that are within `error` of them in norm."""
    n = 2 * min(blocks.shape[1:])
    estimate = float(np.linalg.svd(blocks[largest_blocks(blocks)], compute_uv=False)[:, 0].max())
    slack = max(n * n, 32) * _U
    re, im = np.real(blocks), np.imag(blocks)
    real = np.concatenate([np.concatenate([re, -im], 2), np.concatenate([im, re], 2)], 1)
    while slack < 1.0:
        c = estimate * (1.0 + slack)
        if proves_norm_at_most(real, c):
            return up(c + error, 1)
        slack *= 2.0
    return math.inf


def largest_blocks(blocks: Host) -> npt.NDArray[np.int64]:
    """Return the indices of the blocks whose norm may be the largest."""
    lower, upper = _lower_and_upper(blocks)
    return np.flatnonzero(upper >= lower.max() * (1.0 - _CLOSE))


def _lower_and_upper(blocks: Host) -> tuple[Host, Host]:
    """Return bounds on each ‖B‖₂, without their rounding, from the powers of its Gram matrix: G ← G²/‖G²‖_F.

    Above, ‖G^(2^s)‖_F^(1/2^(s+1)) (Delattre et al. 2023, arXiv 2305.16173); below, ‖Bv‖/‖v‖ at the longest column v.
    """
    small = blocks if blocks.shape[1] >= blocks.shape[2] else blocks.conj().swapaxes(1, 2)
    gram = small.conj().swapaxes(1, 2) @ small
    logarithm = np.zeros(len(gram))
    for s in range(_SQUARINGS + 1):
        norm = np.maximum(np.linalg.norm(gram, axis=(1, 2)), np.finfo(np.float64).tiny)
        logarithm = logarithm + np.log(norm) / 2.0**s
        gram = gram / norm[:, None, None]
        if s < _SQUARINGS:
            gram = gram @ gram
    longest = np.argmax(np.linalg.norm(gram, axis=1), axis=1)
    v = np.take_along_axis(gram, longest[:, None, None], axis=2)
    length = np.maximum(np.linalg.norm(v, axis=(1, 2)), np.finfo(np.float64).tiny)
    return np.linalg.norm(small @ v, axis=(1, 2)) / length, np.exp(logarithm / 2.0)
