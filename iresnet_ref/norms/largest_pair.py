"""σ₁, its singular vectors and a proof that ‖W‖₂ ≤ c of each matrix of a stack, from one Gram matrix and vectors that are nearly right.

The largest eigenvalues of G = WWᵀ, of WᵀW where W is tall, are estimated in a block of p vectors, such as those of the weight one step of
training ago. With λ_p the smallest of their Rayleigh quotients, the filter T_k((2/λ_p)G − I) leaves [0, λ_p] below 1 and grows like
cosh(k arccosh(2λ/λ_p − 1)) above; then the Rayleigh–Ritz values of the block are the best in its span (Zhou, Saad 2007,
doi 10.1137/050636802). One vector is not enough: normalisation flattens the top of the spectrum into near-ties, among which a single vector
does not converge.

Nothing rests on the estimate θ: c² = θ(1 + μ) + the shift is proved by the Cholesky factorisation of `norms.dense`, which fails where the
block has missed the largest eigenvalue. Then all eigenvalues are computed. Of small matrices a call costs more than the numbers do, so
those of one shape are taken at once; what is proved of one rests on no other.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from iresnet_ref.arrays import HostArray
from iresnet_ref.norms.dense import Gram
from iresnet_ref.norms.host_arithmetic import require_gradual_underflow
from iresnet_ref.rounding import FLOAT64_ROUNDOFF, up

BLOCK = 16
"""Vectors that are carried, half as many below side 48: as many as near-ties at the top need, and few beside the side of the matrix."""
EXACT_UP_TO = 24
"""Up to this side all eigenvalues cost no more than the filter."""
_DEGREES = (4, 24)
"""Of the filter, least and most."""
_FILTERS = (np.float32, np.float64, np.float64, np.float64)
"""Vectors to a residual of 1e-5 are enough mostly, and those of a step before are known no better in float32."""
_MARGIN = (1e-10, 1e-9)
"""c²/θ − 1: the least that is tried, and the most that is accepted, so that c is within 1e-9 of θ^½."""
_TINY = float(np.finfo(np.float64).tiny)


class LargestPairs(NamedTuple):
    """Of each W: c ≥ ‖W‖₂ (`bound`) and a ≥ ‖|W|‖₂ (`absolute`), both proved; σ = uᵀWv within 1e-9, and unit vectors u, v.

    The next proof begins with `block`, (smaller side, p). The first axis of each array counts the matrices.
    """

    bound: HostArray
    absolute: HostArray
    sigma: HostArray
    u: HostArray
    v: HostArray
    block: HostArray | None


def largest_pairs(weights: HostArray, starts: HostArray | None = None) -> LargestPairs:
    """Return the largest singular pairs of finite W (count, m, n) with proved bounds; `starts` (count, min(m, n), p) to begin with.

    Without a start, and where it does not lead to a proof, from all eigenvalues. A bound is inf only where nothing is proved.

    >>> pairs = largest_pairs(np.stack([np.diag([0.5, 0.1, 0.3]), np.diag([0.1, 0.1, 2.0])]))
    >>> bool(np.all([0.5, 2.0] <= pairs.bound) and np.all(pairs.bound <= np.asarray([0.5, 2.0]) * (1 + 1e-14))), pairs.sigma.tolist()
    (True, [0.5, 2.0])
    """
    require_gradual_underflow()
    tall = weights.shape[1] > weights.shape[2]
    w = weights.swapaxes(1, 2) if tall else weights
    count, n, m = w.shape
    exponents = np.frexp(np.abs(w).max(axis=(1, 2), initial=0.0))[1]
    w = _scaled(w, -exponents[:, None, None])
    warm = starts is not None and n > EXACT_UP_TO and _fits(starts, count, n)
    gram = whole = Gram.of(w, block=m) if warm else Gram.of(w)
    if starts is not None and warm:
        bound, block = _from_blocks(gram, starts)
    else:
        bound, block = np.full(count, math.inf), np.empty((count, n, _vectors(n)))
    missed = np.flatnonzero(~(bound < math.inf))
    if len(missed):
        gram = Gram.of(w[missed]) if warm else gram
        values, vectors = np.linalg.eigh(gram.matrix)
        top = values[:, -1]
        nothing = np.where(gram.matrix.any(axis=(1, 2)), math.inf, 0.0)
        bound[missed] = np.where(top > 0.0, gram.proved_above(np.where(top > 0.0, top, 1.0)), nothing)
        block[missed] = vectors[:, :, -block.shape[2] :]
    u = np.ascontiguousarray(block[:, :, -1])
    v = (u[:, None, :] @ w)[:, 0, :]
    sigma = np.sqrt((v * v).sum(axis=1))
    v /= np.maximum(sigma, _TINY)[:, None]
    bound, sigma = _times(bound, exponents), _times(sigma, exponents)
    absolute = _times(np.asarray(up(np.sqrt(whole.absolute), n + m)), exponents)
    left, right = (v, u) if tall else (u, v)
    return LargestPairs(bound, absolute, sigma, left, right, None if n <= EXACT_UP_TO else block)


def _vectors(n: int) -> int:
    return min(n, BLOCK if n >= 48 else BLOCK // 2)


def _fits(starts: HostArray, count: int, n: int) -> bool:
    return starts.ndim == 3 and starts.shape[:2] == (count, n) and 0 < starts.shape[2] <= n and bool(np.isfinite(starts).all())


def _scaled(w: HostArray, exponents: HostArray) -> HostArray:
    """Return W·2^exponent in float64, each entry rounded once: where the power is far inside the range by a product, which is fast."""
    if np.abs(exponents).max(initial=0) < 1000:
        return np.multiply(w, np.ldexp(1.0, exponents), dtype=np.float64)
    return np.ldexp(w, exponents, dtype=np.float64)


@np.errstate(over="ignore", under="ignore")
def _times(values: HostArray, exponents: HostArray) -> HostArray:
    """Return values·2^exponents, rounded up where the result is not a normal number."""
    result = np.ldexp(values, exponents)
    return np.where(np.ldexp(result, -exponents) >= values, result, np.nextafter(result, math.inf))


def _from_blocks(gram: Gram, starts: HostArray) -> tuple[HostArray, HostArray]:
    """Return proved c and the blocks of Ritz vectors, the largest last; c is inf where the block does not lead to a proof."""
    block, bound = np.array(starts, dtype=np.float64), np.full(len(starts), math.inf)
    open_ = np.arange(len(starts))
    for kind in _FILTERS:
        part = gram if len(open_) == len(bound) else gram.part(open_)
        try:
            values, found, residual = _filtered(part.matrix, block[open_], kind)
        except np.linalg.LinAlgError:
            continue
        top = values[:, -1]
        usable = np.isfinite(residual) & (top > 0.0)
        block[open_[usable]] = found[usable]
        top = np.where(usable, top, 1.0)
        gap = np.maximum(top - values[:, 0], 1e-3 * top)
        margin = np.maximum(_MARGIN[0], 10.0 * (residual / top) * (residual / gap))  # θ is off by at most residual²/gap beyond the block
        c = np.sqrt(top * (1.0 + margin) + part.least_excess(top)) * (1.0 + 4.0 * FLOAT64_ROUNDOFF)
        good = usable & (margin <= _MARGIN[1])
        good[good] = (part if good.all() else part.part(good)).each_below(c[good])
        bound[open_[good]] = c[good]
        open_ = open_[~good]
        if not len(open_):
            break
    return bound, block


@np.errstate(over="ignore", divide="ignore", invalid="ignore")
def _filtered(gram: HostArray, block: HostArray, kind: type[np.floating[Any]]) -> tuple[HostArray, HostArray, HostArray]:
    """Return of each the Ritz values, ascending, and vectors of T_k(2G/λ_p − I)·block, and the norm of the largest pair's residual.

    The filter is computed in numbers of this kind; it may overflow in float32, to no harm. The degree k is what the largest pair needs, by
    its residual in the block as it comes and the growth of T_k at its Rayleigh quotient.
    """
    diagonal = np.diagonal(gram, axis1=1, axis2=2)
    least = 0.01 * np.maximum(diagonal.max(axis=1), 0.25)  # λ₁ ≤ n max ĝ: T_k(200n) is far from overflow; ĝ ≥ ¼ but for W = 0
    doubled, before = gram.astype(kind), block.astype(kind)
    now = doubled @ before
    quotients = (before * now).sum(axis=1) / np.maximum((before * before).sum(axis=1), np.finfo(kind).tiny)
    cut, top = np.maximum(quotients.min(axis=1), least), quotients[:, -1:]
    rest = now[:, :, -1] - top * before[:, :, -1]
    degree = _degree(np.sqrt((rest * rest).sum(axis=1)), top[:, 0], cut)
    doubled *= (4.0 / cut).astype(kind)[:, None, None]  # 2(2G/λ_p − I), once …
    np.einsum("kii->ki", doubled)[...] -= kind(2.0)  # … its diagonal is
    now = now * (2.0 / cut).astype(kind)[:, None, None] - before
    for _ in range(degree - 1):
        before, now = now, doubled @ now - before
    q = np.linalg.qr(now.astype(np.float64))[0]
    product = gram @ q
    values, s = np.linalg.eigh(q.swapaxes(1, 2) @ product)
    ritz, last = q @ s, s[:, :, -1:]
    residual = (product @ last - values[:, -1:, None] * ritz[:, :, -1:])[:, :, 0]
    return values, ritz, np.sqrt((residual * residual).sum(axis=1))


def _degree(residual: HostArray, top: HostArray, cut: HostArray) -> int:
    """Return the degree at which T_k(2λ/λ_p − 1) = cosh(k arccosh(2λ/λ_p − 1)) takes every residual to what a margin of 3e-10 asks for."""
    gap = np.maximum(1.0 - cut / top, 1e-3)
    wanted = residual / (top * np.sqrt(3e-11 * gap))
    degree = (np.arccosh(np.maximum(wanted, 1.0)) / np.arccosh(1.0 + 2.0 * gap)).max()
    return max(_DEGREES[0], math.ceil(degree)) if degree < _DEGREES[1] else _DEGREES[1]  # NaN: the most
