"""How fast P(N ≥ k) of a series length falls, and whether sums weighted by 1/P(N ≥ k) converge: finite variance or not."""

from __future__ import annotations

import math
from collections.abc import Callable


def tail_ratio(survival: Callable[[int], float], smallest: float = 1e-250) -> float:
    """Return lim P(N ≥ k+1)/P(N ≥ k) as far as numbers reach; ∞ for a bounded length, 0 where the ratio keeps falling.

    A ratio that falls by a tenth over the second half of the reachable k (Poisson: λ/k) is taken to fall for ever.

    >>> tail_ratio(lambda k: 0.5 ** (k - 1)), tail_ratio(lambda k: float(k < 9)), tail_ratio(lambda k: 2.0**k / math.factorial(k))
    (0.5, inf, 0.0)
    """
    ratios, here = [], survival(1)
    for k in range(1, 4000):
        after = survival(k + 1)
        if after < smallest:
            if after <= 0.0 and here > 1e3 * smallest:
                return math.inf
            break
        ratios.append(after / here)
        here = after
    if not ratios:
        return math.inf
    return 0.0 if ratios[-1] < 0.9 * ratios[len(ratios) // 2] else ratios[-1]


def series_sum(ratio: float, survival: Callable[[int], float], power: int) -> float:
    """Return Σ_k ratioᵏ/(kᵖ·P(N ≥ k)) over the k that are drawn at all, ∞ unless ratio < `tail_ratio`."""
    if ratio <= 0.0:
        return 0.0
    if not ratio < tail_ratio(survival):
        return math.inf
    total, k = 0.0, 1
    while k < 20_000:
        p = survival(k)
        if p < 1e-280:
            return total
        term = math.exp(k * math.log(ratio) - power * math.log(k) - math.log(p))
        total, k = total + term, k + 1
        if term < 1e-18 * total:
            break
    return total
