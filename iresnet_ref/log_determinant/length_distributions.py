"""Distributions of the series length N in Russian roulette, by their survival function P(N ≥ k), k = 1, 2, ….

The estimator Σ_{k≤N} (−1)^{k+1} vᵀJᵏv/(k·P(N ≥ k)) has finite variance if Σ L^{2k}/(k²P(N ≥ k)) < ∞, its gradient if
Σ L^{2k}/P(N ≥ k) < ∞. Geometric ones with continuation q need q > L² (the value also allows q = L²); for Poisson ones it is
infinite for every L > 0. Reference: [C19] §3.1, Rhee & Glynn 2015; here N is drawn for each sample, not once a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from iresnet_ref.arrays import public
from iresnet_ref.errors import DTypeError, InfiniteVarianceError

LONGEST = 200_000
"""No series is drawn longer. What this leaves out is below 2⁻⁶⁴ for L ≤ .9997, and part of the result's bias bound beyond."""


@public
@dataclass(frozen=True)
class LengthDistribution:
    """The distribution of N given by `survival(k)` = P(N ≥ k), decreasing from survival(1) = 1, with its tail ratio.

    `tail_ratio` = lim P(N ≥ k+1)/P(N ≥ k); the variance is accepted as finite for L² < tail_ratio, or for L² equal to it
    where `finite_at_ratio` holds for the *value*. `tail_ratio` is not checked against `survival`; without one nothing
    is proved, and the distribution is refused. `roulette_variance_bound` computes the variance that follows.

    Reference: [C19] §3.1.

    >>> import iresnet_ref as ir
    >>> halves = ir.roulette.LengthDistribution(lambda k: 0.5 ** (k - 1), tail_ratio=0.5)
    >>> halves.has_finite_variance(0.7), halves.has_finite_variance(0.9)
    (True, False)
    """

    survival: Callable[[int], float]
    tail_ratio: float = 0.0
    name: str = "user distribution"
    finite_at_ratio: bool = False

    @public
    def has_finite_variance(self, lipschitz: float, *, gradient: bool = False) -> bool:
        """Return whether finite variance follows from L alone, for the value or for its parameter gradient."""
        square = lipschitz * lipschitz
        return square < self.tail_ratio or (square == self.tail_ratio and self.finite_at_ratio and not gradient) or lipschitz == 0.0


@public
def geometric(q: float, n_exact_terms: int = 1) -> LengthDistribution:
    """Return P(N ≥ k) = q^max(k − n_exact_terms, 0), 0 < q < 1: the first `n_exact_terms` terms are always taken, with weight 1.
    The variance is finite for L² < q, and infinite for ρ(J)² > q. Raises: ValueError for q outside (0, 1). Reference: [C19] §3.1.

    >>> geometric(0.5, n_exact_terms=2).survival(3)
    0.5
    """
    if not 0.0 < q < 1.0 or n_exact_terms < 1:
        raise ValueError(
            f"geometric: expected 0 < q < 1 and n_exact_terms ≥ 1, got q={q}, n_exact_terms={n_exact_terms}; try geometric(0.9)"
        )
    name = f"geometric({q:g}, n_exact_terms={n_exact_terms})"
    return LengthDistribution(lambda k: q ** max(k - n_exact_terms, 0), q, name, True)


@public
def poisson(mean: float, n_exact_terms: int = 1) -> LengthDistribution:
    """Return N = n_exact_terms + Poisson(mean). Its variance is infinite for every L > 0: it exists to be refused, or overridden.

    Reference: the condition of [C19] §3.1, Σ L^{2k}/(k²P(N ≥ k)) < ∞, which no Poisson distribution meets.

    >>> poisson(2.0).has_finite_variance(0.1)
    False
    """
    if not 0.0 < mean <= LONGEST or n_exact_terms < 1:
        raise ValueError(f"poisson: expected mean > 0, at most {LONGEST}, and n_exact_terms ≥ 1, got {mean}, {n_exact_terms}; try 4.0")

    # P(Poisson = n), and P(Poisson ≥ n) summed from the far end, so that small tails do not cancel; what is beyond underflows
    last = math.ceil(mean + 40.0 * math.sqrt(mean)) + 200
    terms = [math.exp(n * math.log(mean) - mean - math.lgamma(n + 1)) for n in range(last, -1, -1)]
    tails = np.minimum(np.cumsum(terms)[::-1], 1.0)

    def survival(k: int) -> float:
        n = k - n_exact_terms
        return 1.0 if n <= 0 else float(tails[n]) if n <= last else 0.0

    return LengthDistribution(survival, 0.0, f"poisson({mean:g}, n_exact_terms={n_exact_terms})")


@public
@lru_cache(maxsize=256)
def near_optimal(lipschitz: float, cost: float | None = None) -> LengthDistribution:
    """Return P(N ≥ k) = min(1, s·Lᵏ/k), s such that E[N] = cost (default: max(6, 1.5/(1 − L))).

    P(N ≥ 1) = 1 leaves no cost below −log(1 − L)/L: a smaller one gives that.

    The variance-optimal distribution has P(N ≥ k) ∝ the root of the second moment of term k; this one is within 0–21 % of it where
    |vᵀJᵏv| ~ Lᵏ. Its value and its gradient have finite variance for every L < 1. With E[N] = 1/(1 − L) error × cost is the
    same to some ten per cent, but long series are so rare that 16 replicates often miss them all.

    Raises ValueError for L outside [0, 1) and E[N] outside [1, 10⁵]: beyond L = 1 − 1.5e-5 that is the default.
    Reference: [C19] §3.1; Rhee and Glynn 2015 for the distribution of least variance at a given cost.

    >>> lengths = near_optimal(0.9)
    >>> round(sum(lengths.survival(k) for k in range(1, 2000)), 6)
    15.0
    """
    if not 0.0 <= lipschitz < 1.0:
        raise ValueError(f"near_optimal: expected 0 ≤ L < 1, got {lipschitz}; try the L that F.contraction() returns")
    wanted = max(6.0, 1.5 / (1.0 - lipschitz)) if cost is None else cost
    if not 1.0 <= wanted <= LONGEST // 2:
        default = f", the default for L = {lipschitz:.12g}" if cost is None else ""
        raise ValueError(
            f"near_optimal: expected cost = E[N] ≥ 1 and at most {LONGEST // 2}, got {wanted:.6g}{default}; try a smaller cost "
            "(the mean length of ir.Roulette(lengths=…)), ir.Exact(), or a smaller L"
        )
    ratio = max(lipschitz, 1e-3)  # L = 0: any thin tail will do
    slope = math.log(ratio)
    k = np.arange(1.0, min(wanted - 60.0 / slope + 60.0, LONGEST))
    shape = k * slope - np.log(k)  # of log P(N ≥ k), to which log s is added; s itself may leave the range
    low, high = 0.0, -float(shape[-1])  # there every term is certain
    for _ in range(64):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if np.exp(np.minimum(0.0, middle + shape)).sum() < wanted else (low, middle)
    log_s = max(high, -slope)
    name = f"near-optimal(L={lipschitz:g}, E[N]≥{wanted:g})"
    return LengthDistribution(lambda j: math.exp(min(0.0, log_s + j * slope - math.log(j))) if j > 1 else 1.0, ratio, name)


@dataclass(frozen=True)
class Table:
    """The distribution as it is drawn: P(N ≥ k) = 1 for k ≤ m = `n_exact_terms`, P(N ≥ m + 1 + i) = thresholds[i]/2⁶⁴ exactly."""

    n_exact_terms: int
    thresholds: npt.NDArray[np.uint64]

    @property
    def mean(self) -> float:
        """E[N] = Σ P(N ≥ k)."""
        return self.n_exact_terms + float(np.sum(self.thresholds.astype(np.float64))) / 2.0**64

    @property
    def last(self) -> int:
        """The largest N."""
        return self.n_exact_terms + int(self.thresholds.size)

    def survival(self, k: int) -> float:
        """Return P(N ≥ k) of the drawn distribution."""
        if k <= self.n_exact_terms:
            return 1.0
        return int(self.thresholds[k - self.n_exact_terms - 1]) / 2.0**64 if k <= self.last else 0.0


@lru_cache(maxsize=256)
def table(distribution: LengthDistribution, lipschitz: float) -> Table:
    """Return the 64-bit table of a distribution, so long that what it leaves out is below 2⁻⁶⁴ per dimension, or `LONGEST`.

    Raises ValueError unless survival(1) = 1 and the survival function decreases within [0, 1].
    """
    thresholds: list[int] = []
    n_exact_terms, previous = 0, 1.0
    if distribution.survival(1) != 1.0:
        raise ValueError(f"lengths: expected survival(1) = P(N ≥ 1) = 1, got {distribution.survival(1)}; count from 1")
    for k in range(1, LONGEST):
        p = distribution.survival(k)
        if not 0.0 <= p <= previous:
            raise ValueError(f"lengths: expected survival to decrease within [0, 1], got {p} after {previous} at k = {k}")
        if p == 1.0:
            n_exact_terms = k
        else:
            negligible = lipschitz**k < 2.0**-64 * (1.0 - lipschitz)
            if p * 2.0**64 < 1.0 and negligible:
                break
            thresholds.append(max(1, min(int(p * 2.0**64), 2**64 - 1)))
        previous = p
    return Table(n_exact_terms, np.asarray(thresholds, dtype=np.uint64))


def require_length_distribution(distribution: object) -> None:
    """Raise DTypeError unless this is a LengthDistribution."""
    if not isinstance(distribution, LengthDistribution):
        got = type(distribution).__name__
        raise DTypeError(f"lengths: expected an ir.roulette.LengthDistribution, got {got}; try ir.roulette.near_optimal(0.9)")


def require_finite_variance(distribution: LengthDistribution, lipschitz: float, *, gradient: bool = False) -> None:
    """Raise InfiniteVarianceError unless finite variance is proved from L, naming a distribution for which it is."""
    require_length_distribution(distribution)
    if not distribution.has_finite_variance(lipschitz, gradient=gradient):
        what = "of the gradient " if gradient else ""
        raise InfiniteVarianceError(
            f"lengths: expected a tail ratio above L² = {lipschitz**2:.6g}, got {distribution.tail_ratio:.6g} ({distribution.name}): "
            f"finite variance {what}is not proved from L = {lipschitz:.6g}; try near_optimal({lipschitz:.6g}) or "
            f"geometric({lipschitz:.6g}), or pass allow_infinite_variance=True"
        )
