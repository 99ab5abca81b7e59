"""Laws of the series length N in Russian roulette, by their survival function P(N ≥ k), k = 1, 2, ….

The estimator Σ_{k≤N} (−1)^{k+1} vᵀJᵏv/(k·P(N ≥ k)) has finite variance if Σ L^{2k}/(k²P(N ≥ k)) < ∞, its gradient if
Σ L^{2k}/P(N ≥ k) < ∞. Geometric laws with continuation q need q > L² (the value also allows q = L²); Poisson laws are
infinite for every L > 0. Reference: [C19] §3.1, Rhee & Glynn 2015; here N is drawn for each sample, not once a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from iresnet_ref.errors import DTypeError, InfiniteVarianceError

_LONGEST = 200_000


@dataclass(frozen=True)
class Law:
    """A law of N given by `survival(k)` = P(N ≥ k), decreasing from survival(1) = 1, with its tail ratio.

    `tail_ratio` = lim P(N ≥ k+1)/P(N ≥ k); the variance is accepted as finite for L² < tail_ratio, or for L² equal to it
    where `finite_at_ratio` says that the *value* is. A law of your own is taken at its word; without a tail ratio nothing
    is proved, and it is refused. `roulette_variance_bound` computes what the drawn law costs.
    """

    survival: Callable[[int], float]
    tail_ratio: float = 0.0
    name: str = "user law"
    finite_at_ratio: bool = False

    def has_finite_variance(self, lipschitz: float, *, gradient: bool = False) -> bool:
        """Return whether finite variance follows from L alone, for the value or for its parameter gradient."""
        square = lipschitz * lipschitz
        return (
            square < self.tail_ratio
            or (square == self.tail_ratio and self.finite_at_ratio and not gradient)
            or lipschitz == 0.0
        )


def geometric(q: float, sure: int = 1) -> Law:
    """Return N = sure + Geometric: P(N ≥ k) = q^max(k − sure, 0), 0 < q < 1; `sure` terms are always taken.

    >>> geometric(0.5, sure=2).survival(3)
    0.5
    """
    if not 0.0 < q < 1.0 or sure < 1:
        raise ValueError(f"geometric: expected 0 < q < 1 and sure ≥ 1, got q={q}, sure={sure}; try geometric(0.9)")
    return Law(lambda k: q ** max(k - sure, 0), q, f"geometric({q:g}, sure={sure})", True)


def poisson(mean: float, sure: int = 1) -> Law:
    """Return N = sure + Poisson(mean). Its variance is infinite for every L > 0: it exists to be refused, or overridden.

    >>> poisson(2.0).has_finite_variance(0.1)
    False
    """
    if not mean > 0.0 or sure < 1:
        raise ValueError(f"poisson: expected mean > 0 and sure ≥ 1, got {mean}, {sure}")

    def survival(k: int) -> float:
        # P(Poisson ≥ n) summed from n upwards, so that small tails do not cancel
        n = k - sure
        if n <= 0:
            return 1.0
        term = math.exp(n * math.log(mean) - mean - math.lgamma(n + 1))
        total, i = 0.0, n
        while term > 0.0 and (term > 1e-18 * total or i < mean):
            total += term
            i += 1
            term *= mean / i
        return min(total, 1.0)

    return Law(survival, 0.0, f"poisson({mean:g}, sure={sure})")


@lru_cache(maxsize=256)
def near_optimal(lipschitz: float, cost: float | None = None) -> Law:
    """Return P(N ≥ k) = min(1, s·Lᵏ/k), s such that E[N] = cost (default: max(6, 1.5/(1 − L))).

    P(N ≥ 1) = 1 leaves no cost below −log(1 − L)/L: a smaller one gives that.

    The variance-optimal law has P(N ≥ k) ∝ the root of the second moment of term k; this one is within 0–21 % of it where
    |vᵀJᵏv| ~ Lᵏ. Its value and its gradient have finite variance for every L < 1. With E[N] = 1/(1 − L) error × cost is the
    same to some ten per cent, but long series are so rare that 16 replicates often miss them all.

    >>> law = near_optimal(0.9)
    >>> round(sum(law.survival(k) for k in range(1, 2000)), 6)
    15.0
    """
    wanted = max(6.0, 1.5 / (1.0 - lipschitz)) if cost is None else cost
    if wanted < 1.0:
        raise ValueError(f"near_optimal: expected cost = E[N] ≥ 1, got {cost}")
    ratio = max(lipschitz, 1e-3)  # L = 0: any thin tail will do
    k = np.arange(1.0, min(60.0 / (1.0 - ratio) + 60.0, 1e7))
    shape = np.exp(k * math.log(ratio)) / k
    low, high = 0.0, 1.0
    while np.minimum(1.0, high * shape).sum() < wanted:
        high *= 2.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if np.minimum(1.0, middle * shape).sum() < wanted else (low, middle)
    s = max(high, 1.0 / ratio)
    return Law(lambda j: min(1.0, s * ratio**j / j) if j > 1 else 1.0, ratio, f"near-optimal(L={lipschitz:g}, E[N]≥{wanted:g})")


@dataclass(frozen=True)
class Table:
    """The law as it is drawn: `sure` certain terms, then P(N ≥ sure + 1 + i) = thresholds[i]/2⁶⁴ exactly; `last` = max N."""

    sure: int
    thresholds: npt.NDArray[np.uint64]

    @property
    def mean(self) -> float:
        """E[N] = Σ P(N ≥ k)."""
        return self.sure + float(np.sum(self.thresholds.astype(np.float64))) / 2.0**64

    @property
    def last(self) -> int:
        """The largest N."""
        return self.sure + int(self.thresholds.size)

    def survival(self, k: int) -> float:
        """Return P(N ≥ k) of the drawn law."""
        if k <= self.sure:
            return 1.0
        return int(self.thresholds[k - self.sure - 1]) / 2.0**64 if k <= self.last else 0.0


@lru_cache(maxsize=256)
def table(law: Law, lipschitz: float) -> Table:
    """Return the 64-bit table of a law, long enough that what it leaves out is below 2⁻⁶⁴ per dimension.

    Raises ValueError unless survival(1) = 1 and the survival function decreases within [0, 1].
    """
    sure, thresholds = 0, []
    previous = 1.0
    if law.survival(1) != 1.0:
        raise ValueError(f"law: expected survival(1) = P(N ≥ 1) = 1, got {law.survival(1)}; count from 1")
    for k in range(1, _LONGEST):
        p = law.survival(k)
        if not 0.0 <= p <= previous:
            raise ValueError(f"law: expected survival to decrease within [0, 1], got {p} after {previous} at k = {k}")
        if p == 1.0:
            sure = k
        else:
            negligible = lipschitz**k < 2.0**-64 * (1.0 - lipschitz)
            if p * 2.0**64 < 1.0 and negligible:
                break
            thresholds.append(max(1, min(int(p * 2.0**64), 2**64 - 1)))
        previous = p
    return Table(sure, np.asarray(thresholds, dtype=np.uint64))


def require_law(law: object) -> None:
    """Raise DTypeError unless this is a law."""
    if not isinstance(law, Law):
        raise DTypeError(f"law: expected an ir.Law, got {type(law).__name__}; try ir.geometric(0.9) or ir.near_optimal(0.9)")


def require_finite_variance(law: Law, lipschitz: float, *, gradient: bool = False) -> None:
    """Raise InfiniteVarianceError unless finite variance is proved from L, naming a law that is."""
    require_law(law)
    if not law.has_finite_variance(lipschitz, gradient=gradient):
        what = "of the gradient " if gradient else ""
        raise InfiniteVarianceError(
            f"law: expected a tail ratio above L² = {lipschitz**2:.6g}, got {law.tail_ratio:.6g} ({law.name}): "
            f"finite variance {what}is not proved from L = {lipschitz:.6g}; try near_optimal({lipschitz:.6g}) or "
            f"geometric({lipschitz:.6g}), or pass allow_infinite_variance=True"
        )
