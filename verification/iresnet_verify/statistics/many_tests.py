"""What many audits say together: a rate of failures with its exact interval, and which of many e-values are discoveries.

An e-value of a hypothesis is a non-negative number whose expectation is at most 1 where the hypothesis is true; `closed_e_bh` needs
nothing else of them, and no independence. The interval of a rate needs trials that are independent and alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from iresnet_verify.statistics.confidence_sequences import Vector


@lru_cache(maxsize=65536)
def clopper_pearson(failures: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a probability from independent trials: it covers with probability at least `level`, whatever it is.

    Its ends solve P(X ≥ k | p) = (1 − level)/2 and P(X ≤ k | p) = (1 − level)/2 for X binomial; 0 and 1 are ends of their own, where the
    other one is still that of two sides.

    Reference: Clopper and Pearson, *The use of confidence or fiducial limits illustrated in the case of the binomial*,
    Biometrika 26 (1934).

    >>> [round(p, 4) for p in clopper_pearson(0, 200)], [round(p, 3) for p in clopper_pearson(5, 10)]
    ([0.0, 0.0183], [0.187, 0.813])
    """
    if not 0 <= failures <= trials or not 0.0 < level < 1.0:
        raise ValueError(f"expected 0 ≤ failures ≤ trials and 0 < level < 1, got {failures} of {trials} at {level}")
    if trials == 0:
        return 0.0, 1.0
    low = 0.0 if failures == 0 else _root(failures, trials, 0.5 * (1.0 - level))
    high = 1.0 if failures == trials else 1.0 - _root(trials - failures, trials, 0.5 * (1.0 - level))
    return low, high


def _root(k: int, n: int, tail: float) -> float:
    """The largest p found with P(X ≥ k | p) ≤ tail, by bisection."""
    x = np.arange(k, n + 1)
    log_gamma = np.array([math.lgamma(i + 1) for i in range(n + 1)])
    choose = log_gamma[n] - log_gamma[x] - log_gamma[n - x]
    low, high = 0.0, 1.0
    while high - low > 1e-12 * high:
        p = 0.5 * (low + high)
        if float(np.exp(choose + x * math.log(p) + (n - x) * math.log1p(-p)).sum()) <= tail:
            low = p
        else:
            high = p
    return low


def closed_e_bh(e_values: Sequence[float], level: float) -> list[int]:
    """Return the places of the discoveries: of those that are no discoveries in truth the expected share is at most `level`.

    With e₁, …, e_m and A_S = mean of e over S, the r largest are discovered for the largest r with

        A_S ≥ |R ∩ S| / (level·r)   for every set S of hypotheses.

    Then FDR ≤ level whatever the dependence, for A_N ≥ FDP/level on the set N of true hypotheses, and E[A_N] ≤ 1. All discoveries of e-BH
    (Wang and Ramdas 2022) are among these. The worst S with k members in R and some outside holds the k smallest of R and, of the
    others, all below k/(level·r); so m² comparisons are enough.

    Reference: Xu, Solari, Fischer, de Heide, Ramdas, Goeman, *Bringing closure to false discovery rate control* (arXiv 2509.02517).

    >>> closed_e_bh([100.0, 0.5, 30.0, 0.0], 0.05)
    [0, 2]
    """
    e = np.asarray(e_values, dtype=np.float64)
    if not 0.0 < level < 1.0 or not bool((e >= 0.0).all()):
        raise ValueError(f"expected e-values ≥ 0 and 0 < level < 1, got {e[~(e >= 0.0)][:3].tolist()} at {level}")
    order = np.argsort(-e, kind="stable")
    ordered = e[order]
    for r in range(len(e), 0, -1):
        if ordered[r - 1] * level * r >= 1.0 and _all_sets_agree(ordered[:r], ordered[r:], level):
            return sorted(int(i) for i in order[:r])
    return []


def _all_sets_agree(found: Vector, others: Vector, level: float) -> bool:
    """Whether the mean over every set S is at least |R ∩ S|/(level·|R|), for R = `found`; both in falling order."""
    k = np.arange(1, len(found) + 1)
    threshold = k / (level * len(found))
    inside, outside = np.cumsum(found[::-1]), np.r_[0.0, np.cumsum(others[::-1])]
    taken = np.searchsorted(others[::-1], threshold)
    return bool((inside + outside[taken] >= (k + taken) * threshold).all())
