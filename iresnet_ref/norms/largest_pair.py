"""σ₁, its singular vectors and a proof that ‖W‖₂ ≤ c from one Gram matrix, the vectors from a block that is nearly right already.

The largest eigenvalues of G = WᵀW are estimated in a block of p vectors, such as those of the weight one step of training ago. With λ_p the
smallest of their Rayleigh quotients, the filter T_k((2/λ_p)G − I) leaves [0, λ_p] below 1 and grows like cosh(k arccosh(2λ/λ_p − 1)) above;
then the Rayleigh–Ritz values of the block are the best in its span (Zhou, Saad 2007, doi 10.1137/050636802). One vector is not enough:
normalisation flattens the top of the spectrum into near-ties, among which a single vector does not converge.

Nothing rests on the estimate θ: c² = θ(1 + μ) + the shift is proved by the Cholesky factorisation of `norms.dense`, which fails where the
block has missed the largest eigenvalue. Then all eigenvalues are computed.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from iresnet_ref.arrays import HostArray
from iresnet_ref.norms.dense import Gram, largest, scaled, times_power_of_two
from iresnet_ref.norms.host_arithmetic import require_gradual_underflow
from iresnet_ref.rounding import FLOAT64_ROUNDOFF

BLOCK = 16
"""Vectors that are carried: as many as near-ties at the top need, and few beside the side of the matrix."""
EXACT_UP_TO = 48
"""Up to this side all eigenvalues cost no more than the filter."""
_DEGREE = 12
_FILTERS = (np.float32, np.float64, np.float64, np.float64)
"""Vectors to a residual of 1e-5 are enough mostly, and those of a step before are known no better in float32."""
_MARGIN = (1e-10, 1e-9)
"""c²/θ − 1: the least that is tried, and the most that is accepted, so that c is within 1e-9 of θ^½."""


class LargestPair(NamedTuple):
    """c ≥ ‖W‖₂ proved (`bound`), σ = uᵀWv within 1e-9, unit vectors u, v, and the `block` (smaller side, p) to begin with next."""

    bound: float
    sigma: float
    u: HostArray
    v: HostArray
    block: HostArray | None


def largest_pair(weight: HostArray, start: HostArray | None = None) -> LargestPair:
    """Return the largest singular pair of a finite W (m, n) with a proved bound; `start` (min(m, n), p) has the block to begin with.

    Without a start, and where it does not lead to a proof, from all eigenvalues. The bound is inf only where nothing is proved.

    >>> pair = largest_pair(np.diag([0.5, 0.1, 0.3]))
    >>> 0.5 <= pair.bound <= 0.5 * (1 + 1e-14), pair.sigma
    (True, 0.5)
    """
    require_gradual_underflow()
    w = np.asarray(weight, dtype=np.float64)
    if w.shape[0] < w.shape[1]:
        pair = largest_pair(w.T, start)
        return pair._replace(u=pair.v, v=pair.u)
    magnitude = largest(w)
    exponent = math.frexp(magnitude)[1]
    w = scaled(w, -exponent)
    n = w.shape[1]
    if start is None or n <= EXACT_UP_TO or magnitude == 0.0 or not _fits(start, n):
        gram, found = Gram.of(w), None
    else:
        gram = Gram.of(w, block=len(w))
        found = _from_block(gram, start)
    if found is None:
        values, vectors = np.linalg.eigh(gram.matrix)
        nothing = math.inf if gram.matrix.any() else 0.0
        found = gram.proved_above(float(values[-1])) if values[-1] > 0.0 else nothing, vectors[:, -min(n, BLOCK) :]
    c, block = found
    v = block[:, -1]
    u = w @ v
    sigma = float(np.linalg.norm(u))
    u = u / max(sigma, float(np.finfo(np.float64).tiny))
    bound, sigma = (times_power_of_two(value, exponent) for value in (c, sigma))
    return LargestPair(bound, sigma, u, v, None if n <= EXACT_UP_TO else block)


def _fits(block: HostArray, n: int) -> bool:
    return block.ndim == 2 and len(block) == n and 0 < block.shape[1] <= n and bool(np.isfinite(block).all())


def _from_block(gram: Gram, start: HostArray) -> tuple[float, HostArray] | None:
    """Return a proved c and the block of Ritz vectors, the largest last; None where the block does not lead to a proof."""
    block = np.asarray(start, dtype=np.float64)
    for kind in _FILTERS:
        try:
            values, found, residual = _filtered(gram.matrix, block, kind)
        except np.linalg.LinAlgError:
            continue
        top = float(values[-1])
        if not (math.isfinite(residual) and top > 0.0):
            continue
        block = found
        gap = max(top - float(values[0]), 1e-3 * top)
        margin = max(_MARGIN[0], 10.0 * (residual / top) * (residual / gap))  # θ is off by at most residual²/gap beyond the block
        if margin <= _MARGIN[1]:
            c = math.sqrt(top * (1.0 + margin) + gram.least_excess(top)) * (1.0 + 4.0 * FLOAT64_ROUNDOFF)
            if gram.below(c):
                return c, block
    return None


@np.errstate(over="ignore", invalid="ignore")
def _filtered(gram: HostArray, block: HostArray, kind: type[np.floating[Any]]) -> tuple[Any, HostArray, float]:
    """Return the Ritz values, ascending, and vectors of T_k(2G/λ_p − I)·block, and the norm of the largest pair's residual.

    The filter is computed in numbers of this kind; it may overflow in float32, to no harm.
    """
    quotients = (block * (gram @ block)).sum(axis=0) / np.maximum((block * block).sum(axis=0), np.finfo(np.float64).tiny)
    cut = max(float(quotients.min()), 0.01 * float(np.diagonal(gram).max()))  # λ₁ ≤ n max ĝ: T_k(200n) is far from overflow in float64
    doubled = np.multiply(gram, 4.0 / cut, out=np.empty(gram.shape, kind), casting="same_kind")  # 2(2G/λ_p − I), once its diagonal is
    places = np.arange(len(gram))
    doubled[places, places] -= kind(2.0)
    before = block.astype(kind)
    now = kind(0.5) * (doubled @ before)
    for _ in range(_DEGREE - 1):
        before, now = now, doubled @ now - before
    q = np.linalg.qr(now.astype(np.float64))[0]
    product = gram @ q
    values, s = np.linalg.eigh(q.T @ product)
    residual = product @ s[:, -1] - values[-1] * (q @ s[:, -1])
    return values, q @ s, float(np.linalg.norm(residual))
