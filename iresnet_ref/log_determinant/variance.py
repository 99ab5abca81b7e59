"""A bound on the variance of the roulette estimate from L and d alone, and how many replicates it asks for.

With a_k = (−1)^{k+1} vᵀJᵏv/k and S = Σ_{k>q} a_k, the estimate Y = Σ_{q<k≤N} a_k/P(N ≥ k) has, given v,
Var(Y | v) = Σ_{k>q} (a_k² + 2a_k Σ_{j>k} a_j)(1/P(N ≥ k) − 1), and Var(Y) = E Var(Y | v) + Var(S). A block of m probes that share
N has the mean of its vᵀJᵏv for it, at most dLᵏ for signs, with second moment at most (d² + 2d/m)L^{2k} for Gaussians, and
Var(S) ≤ c(Σ_{k>q} Lᵏ/k)², c = 2d/m or less (`probe_variance`). By Cauchy–Schwarz in the first part

    Var(Y) ≤ Σ_{k>q} (b_k² + 2b_k Σ_{j>k} b_j)(1/P(N ≥ k) − 1) + c(Σ_{k>q} Lᵏ/k)²,   b_k = √(d² [+ 2d/m]) Lᵏ/k.

The first part is attained by J = −L·I with signs. The sum runs over N as it is drawn, which is bounded: nothing is left out.
"""

from __future__ import annotations

import numpy as np

from iresnet_ref.arrays import public
from iresnet_ref.log_determinant.length_distributions import (
    LengthDistribution,
    Table,
    near_optimal,
    require_finite_variance,
    table,
)
from iresnet_ref.probes import ProbeKind


@public
def roulette_variance_bound(
    lipschitz: float,
    d: int,
    lengths: LengthDistribution | None = None,
    *,
    kind: ProbeKind = "rademacher",
    block: int = 1,
    exact_traces: int = 0,
) -> float:
    """Return a bound on the variance of one replicate of the roulette estimate, in nats², from L = Lip(g) and d.

    Divide by the number of replicates for that of their mean. `lengths` defaults to `near_optimal(lipschitz)`; `block`, `kind`
    and `exact_traces` are those of the estimate (`Probes`, `LogDet.exact_traces`). It is a worst case over all branches of
    that Lipschitz constant: the variance of a given branch is often smaller by orders of magnitude.

    Raises: InfiniteVarianceError where finite variance is not proved from L, ValueError for L outside [0, 1).
    Reference: the formula is in this module's docstring; [C19] §3.1, Rhee & Glynn 2015.

    >>> import iresnet_ref as ir
    >>> roulette_variance_bound(0.5, 4) < roulette_variance_bound(0.5, 4, ir.roulette.geometric(0.5))
    True
    >>> roulette_variance_bound(0.9, 4, ir.roulette.poisson(4.0))
    Traceback (most recent call last):
    ...
    iresnet_ref.errors.InfiniteVarianceError: lengths: expected a tail ratio above L² = 0.81, got 0 (poisson(4, n_exact_terms=1)): finite \
variance is not proved from L = 0.9; try near_optimal(0.9) or geometric(0.9), or pass allow_infinite_variance=True
    """
    if not 0.0 <= lipschitz < 1.0 or d < 1 or block < 1 or exact_traces < 0:
        raise ValueError(
            "roulette_variance_bound: expected 0 ≤ lipschitz < 1, d ≥ 1, block ≥ 1 and exact_traces ≥ 0, got "
            f"{lipschitz}, {d}, {block}, {exact_traces}; try roulette_variance_bound(0.9, 2)"
        )
    lengths = near_optimal(lipschitz) if lengths is None else lengths
    require_finite_variance(lengths, lipschitz)
    return drawn_variance_bound(table(lengths, lipschitz), lipschitz, d, kind=kind, block=block, exact=exact_traces)


def drawn_variance_bound(drawn: Table, lipschitz: float, d: int, *, kind: ProbeKind, block: int, exact: int) -> float:
    """Return the bound for a distribution as it is drawn."""
    k = np.arange(1.0, drawn.last + 1.0)
    survival = np.concatenate([np.ones(drawn.n_exact_terms), drawn.thresholds.astype(np.float64) / 2.0**64])
    size = np.where(k > exact, lipschitz**k / k, 0.0)
    after = np.concatenate([np.cumsum(size[::-1])[::-1][1:], [0.0]])
    from_length = square_moment(d, kind, block) * float(np.sum(size * (size + 2.0 * after) * (1.0 / survival - 1.0)))
    return from_length + probe_variance(d, kind, block) * float(np.sum(size)) ** 2


def square_moment(d: int, kind: ProbeKind, block: int) -> float:
    """Return E(mean of ‖v‖² over a block)²: d² for signs, d² + 2d/m for Gaussians."""
    return float(d) ** 2 + (2.0 * d / block if kind == "gaussian" else 0.0)


def probe_variance(d: int, kind: ProbeKind, block: int) -> float:
    """Return a bound on Var(mean of vᵀSv over a block) for ‖S‖₂ ≤ 1: 2d/m; of Hadamard columns 2d(n − m)/((n − 1)m), n = 2^⌈log₂ d⌉.

    One sign in one dimension and all n columns leave nothing to chance.

    >>> probe_variance(8, "rademacher", 1), probe_variance(8, "hadamard", 8), probe_variance(1, "rademacher", 1)
    (16.0, 0.0, 0.0)
    """
    if kind == "gaussian":
        return 2.0 * d / block
    if d == 1:
        return 0.0
    order = 1 << (d - 1).bit_length()
    share = max(order - block, 0) / (order - 1) if kind == "hadamard" else 1.0
    return 2.0 * d * share / block
