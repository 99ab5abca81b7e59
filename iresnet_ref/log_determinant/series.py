"""The truncated power series log det(I + J) ≈ Σ_{k≤n} (−1)^{k+1} tr(Jᵏ)/k, traces by Hutchinson probes ([B19] eq. 4).

The first q traces may be exact: they then *replace* the terms vᵀJᵏv, k ≤ q, with weight 1. As a control variate with
coefficient 1 the expectation stays what it was at every n.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from iresnet_ref.arrays import Array, HostArray, namespace, size, widen
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.log_determinant.bounds import truncation_bound
from iresnet_ref.log_determinant.estimator import Estimates, Estimator
from iresnet_ref.log_determinant.ragged import Sum, even_series, ragged_series
from iresnet_ref.log_determinant.variance import probe_variance
from iresnet_ref.probes import Probes


def event_dot(a: Array, b: Array, event_ndim: int) -> Array:
    """Return aᵀb over the event axes, accumulated in at least float32."""
    return namespace(a).sum(widen(a) * widen(b), axis=tuple(range(-event_ndim, 0)))


def divisor(k: int) -> float:
    """Return (−1)^{k+1}k: dividing by it is exact at every precision, where multiplying by 1/k has the error of float64.

    >>> [divisor(k) for k in (1, 2)]
    [1.0, -2.0]
    """
    return (-1.0) ** (k + 1) * k


def exact_traces(chain: Chain, most: int | None = None) -> tuple[Array, ...]:
    """Return (tr J,) or (tr J, tr J²) per row, as many as the chain knows without forming J and at most `most`."""
    known: list[Array] = []
    for trace in (chain.trace, chain.trace_of_square)[:most]:
        value = trace()
        if value is None:
            break
        known.append(value)
    return tuple(known)


def replaced_terms(traces: Sequence[Array], like: Array) -> Array:
    """Return Σ_{k≤q} (−1)^{k+1} tr(Jᵏ)/k per row, zeros of the dtype and device of `like` for q = 0."""
    total = namespace(like).zeros_like(like)
    for k, trace in enumerate(traces, start=1):
        total = total + trace / divisor(k)
    return total


def products(lengths: HostArray, exact: int) -> HostArray:
    """Return how many products with J a sample of this length takes after `exact` exact traces."""
    return np.where(lengths > exact, lengths, 0)


def stochastic_terms(event_ndim: int, exact: int, survival: Callable[[int], float] = lambda _: 1.0) -> Sum:
    """Return Σ_{q<k≤N} (−1)^{k+1} vᵀJᵏv/(k·P(N ≥ k)), q = `exact`."""

    def term(w: Array, v: Array) -> Array:
        return event_dot(w, v, event_ndim)

    def weighted(k: int) -> float:
        return divisor(k) * survival(k) if k > exact else math.inf

    return Sum(term, weighted)


def series_logdet(chain: Chain, v: Array, terms: int, traces: Sequence[Array] = ()) -> Array:
    """Return Σ_{k≤terms} (−1)^{k+1} vᵀJᵏv/k for each probe and row, the first len(traces) ≤ terms terms exact."""
    (stochastic,) = even_series(chain, v, terms, [stochastic_terms(len(chain.in_shape), len(traces))])
    return completed(stochastic, traces, v)


def completed(stochastic: Array, traces: Sequence[Array], v: Array) -> Array:
    """Return the series of each probe and row: its exact terms and the others, in the dtype of v."""
    return namespace(v).astype(replaced_terms(traces, stochastic) + stochastic if traces else stochastic, v.dtype)


@dataclass(frozen=True)
class PowerSeries(Estimator):
    """Σ_{k≤N} (−1)^{k+1} vᵀJᵏv/(k·P(N ≥ k))."""

    @abstractmethod
    def lengths(self, probes: Probes, batch: int) -> HostArray:
        """Return N of each (replicate, row); the probes of a block share it: only then is the block one replicate."""

    def survival(self, k: int) -> float:
        """Return P(N ≥ k) for a k that occurs."""
        return 1.0

    def values(self, probes: Probes, v: Array) -> Estimates:
        """Return the series of each probe and row."""
        return self.swept(probes, v)[0]

    def swept(self, probes: Probes, v: Array, *more: Sum) -> tuple[Estimates, list[Array]]:
        """Return `values`, and what else is summed over the same powers.

        By itself a sample whose terms are all exact takes no product.
        """
        exact, lengths = len(self.traces), self.lengths(probes, v.shape[1])
        needed = products(lengths, exact)
        swept = np.repeat(lengths if more else needed, probes.block, axis=0)
        own = stochastic_terms(len(self.chain.in_shape), exact, self.survival)
        stochastic, *others = ragged_series(self.chain, v, swept, own, *more)
        return Estimates(completed(stochastic, self.traces, v), probes.block * needed.sum(axis=0)), others


@dataclass(frozen=True)
class SeriesEstimator(PowerSeries):
    """The first `terms` of the series."""

    terms: int
    method: ClassVar[str] = "series"

    @property
    def random(self) -> bool:
        """Whether a term is not exact."""
        return self.terms > len(self.traces)

    @property
    def products(self) -> float:
        """One for each term."""
        return float(self.terms)

    def lengths(self, probes: Probes, batch: int) -> HostArray:
        """Return `terms`."""
        return np.full((probes.count, batch), self.terms)

    def bias_bound(self, rank: int) -> float:
        """Return the bound on what is cut off."""
        return truncation_bound(rank, self.lipschitz, self.terms)

    def variance(self, probes: Probes) -> float:
        """Return that of the probes, ‖Σaₖ‖ ≤ Σ_{q<k≤n} Lᵏ/k."""
        terms = math.fsum(self.lipschitz**k / k for k in range(len(self.traces) + 1, self.terms + 1))
        return probe_variance(size(self.chain.in_shape), probes.kind, probes.block) * terms**2
