"""max_ω ‖B(ω)‖₂ over the frequencies of a grid, proved, from the autocorrelation of the kernel's taps; and where the maximum is.

For B(ω) = Σ_t K_t e^{iω·t} with at least as many outputs as inputs (otherwise transposed, with the same norms),

    B(ω)ᴴB(ω) = Σ_d R_d e^{iω·d},  R_d = Σ_{t'−t=d} K_tᵀK_t',  R_{−d} = R_dᵀ,

so a real product with the cosines of half of the differences d, and one with the sines, gives the Gram matrices of all
frequencies. Each must lie below c²I by the Cholesky factorisation of `norms.dense`; c comes from the eigenvalues of a few frequencies,
those where vectors of the last call say that the norms are largest. Where the factorisation fails for some frequencies, their
eigenvalues raise c: no estimate is trusted. `docs/proofs.md` derives the constants.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from iresnet_ref.arrays import HostArray
from iresnet_ref.norms.convolution import Grid, circle
from iresnet_ref.norms.dense import Gram, absolute_norm_bound
from iresnet_ref.norms.host_arithmetic import require_gradual_underflow
from iresnet_ref.rounding import FLOAT64_ROUNDOFF, gamma, up

TAPS_UP_TO = 2048
"""The Gram matrix of all taps, (taps·channels)², is formed up to this side."""
_TOGETHER = 8
"""Frequencies whose eigenvalues are computed at once; blocks with at most so many rows all at once."""
_STEPS = 8


class Peak(NamedTuple):
    """c ≥ max_ω ‖B(ω)‖₂ over a grid (`bound`), the index of the largest block, and the `vectors` (frequencies, 2n) to begin with next."""

    bound: float
    frequency: int
    vectors: HostArray | None


def peak(kernel: HostArray, grid: Grid, start: HostArray | None = None) -> Peak:
    """Return a proved bound on every ‖B(ω)‖₂ of a grid, for a kernel scaled so that max|K| lies in [½, 1).

    The bound is inf where nothing is proved. Slack: about n²u.

    >>> box = np.full((1, 1, 3, 3), 0.5)
    >>> found = peak(box, ((9, 0), (9, 0)))
    >>> 4.5 <= found.bound <= 4.5 * (1 + 1e-13), found.frequency
    (True, 0)
    """
    require_gradual_underflow()
    gram = gram_symbol(kernel, grid)
    matrices, n = gram.matrix, gram.matrix.shape[-1]
    if n <= _TOGETHER:
        order, together, vectors = np.arange(len(matrices)), len(matrices), None
    else:
        fits = start is not None and start.shape == (len(matrices), 2 * n) and np.isfinite(start).all()
        v = _complex(start) if start is not None and fits else _columns(matrices)
        length = np.zeros(len(v))
        for _ in range(1 if fits else _STEPS):
            product = (matrices @ v[:, :, None])[:, :, 0]
            length = np.linalg.norm(product, axis=1)
            v = product / np.maximum(length, np.finfo(np.float64).tiny)[:, None]
        order, together, vectors = np.argsort(-length, kind="stable"), _TOGETHER, np.concatenate([np.real(v), np.imag(v)], axis=1)
    top, best, c, first = 0.0, 0, 0.0, True
    for start_of in range(0, len(order), together):
        chunk = order[start_of : start_of + together]
        part = Gram(matrices[chunk], gram.error, gram.rows)
        if first or not part.below(c):
            values = np.linalg.eigvalsh(part.matrix)[:, -1]
            if first or values.max() > top:
                top, best = float(values.max()), int(chunk[np.argmax(values)])
            c, first = float(part.proved_above(top, c)) if top > 0.0 else math.inf, False
    return Peak(c, best, vectors)


def gram_symbol(kernel: HostArray, grid: Grid) -> Gram:
    """Return B(ω)ᴴB(ω) for one of each pair ±ω, in the order of `norms.convolution.symbol`, with a bound on its error."""
    k = kernel if kernel.shape[0] >= kernel.shape[1] else kernel.swapaxes(0, 1)
    m, n, kh, kw = k.shape
    taps = kh * kw
    rows = np.ascontiguousarray(np.moveaxis(k, 1, 3).reshape(m, taps * n))
    products = (rows.T @ rows).reshape(taps, n, taps, n)
    (t, other, starts), cosines, sines = waves(kh, kw, grid)
    r = np.add.reduceat(products[t, :, other, :], starts, axis=0)
    even, odd = r + r.swapaxes(1, 2), r - r.swapaxes(1, 2)
    even[0], odd[0] = r[0], 0.0
    matrix = np.empty((len(cosines), n, n), dtype=np.complex128)
    matrix.real = (cosines @ even.reshape(len(even), -1)).reshape(-1, n, n)
    matrix.imag = (sines @ odd.reshape(len(odd), -1)).reshape(-1, n, n)
    terms = m + taps + len(starts) + 8
    absolute = up(absolute_norm_bound(np.abs(k).sum(axis=(2, 3))), taps)
    return Gram(matrix, up(1.5 * gamma(terms, FLOAT64_ROUNDOFF) * absolute * absolute, 8), m * taps)


@lru_cache(maxsize=64)
def waves(kh: int, kw: int, grid: Grid) -> tuple[tuple[HostArray, HostArray, HostArray], HostArray, HostArray]:
    """Return for half of the differences d of taps, 0 first, the pairs (t, t') with t' − t = d, and cos, sin of ω·d (frequencies, d).

    Of the pairs all t, all t', and where those of each d begin.
    """
    half = [(a, b) for a in range(kh) for b in range(1 - kw, kw) if a > 0 or b >= 0]
    pairs = [
        [(i * kw + j, (i + a) * kw + j + b) for i in range(kh) for j in range(kw) if 0 <= i + a < kh and 0 <= j + b < kw]
        for a, b in half
    ]
    t, other = np.asarray([pair for of_one in pairs for pair in of_one]).T
    starts = np.cumsum([0, *map(len, pairs[:-1])])
    (rows, down), (columns, across) = grid
    along, over = np.asarray(half).T
    (c1, s1), (c2, s2) = (
        circle(2 * n)[:, np.outer(2 * np.arange(m) + twist, d) % (2 * n)]
        for n, twist, d, m in ((rows, down, along, rows), (columns, across, over, columns // 2 + 1))
    )
    cosines = c1[:, None, :] * c2[None, :, :] - s1[:, None, :] * s2[None, :, :]
    sines = s1[:, None, :] * c2[None, :, :] + c1[:, None, :] * s2[None, :, :]
    return (t, other, starts), cosines.reshape(-1, len(half)), sines.reshape(-1, len(half))


def _columns(matrices: HostArray) -> HostArray:
    """Return of each matrix the longest column, its norm 1."""
    lengths = np.linalg.norm(matrices, axis=1)
    v = np.take_along_axis(matrices, np.argmax(lengths, axis=1)[:, None, None], axis=2)[:, :, 0]
    return np.asarray(v / np.maximum(lengths.max(axis=1), np.finfo(np.float64).tiny)[:, None])


def _complex(vectors: HostArray) -> HostArray:
    n = vectors.shape[1] // 2
    v = np.asarray(vectors, dtype=np.float64)
    return np.asarray(v[:, :n] + 1j * v[:, n:])
