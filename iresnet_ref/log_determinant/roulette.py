"""The unbiased Russian-roulette estimate of log det(I + J), with a series length of its own for every sample.

Σ_{k≤N} (−1)^{k+1} vᵀJᵏv/(k·P(N ≥ k)), E over N and v = Σ_k (−1)^{k+1} tr(Jᵏ)/k ([C19] eq. 6 with N per sample). Exact
traces replace the first q terms, with weight 1 and whatever N is; a sample with N ≤ q needs no product at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iresnet_ref.arrays import Array, HostArray, size
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.log_determinant.bounds import truncation_bound
from iresnet_ref.log_determinant.estimator import Estimates, Estimator
from iresnet_ref.log_determinant.length_distributions import Table
from iresnet_ref.log_determinant.ragged import ragged_series
from iresnet_ref.log_determinant.series import divisor, event_dot, replaced_terms
from iresnet_ref.log_determinant.variance import drawn_variance_bound
from iresnet_ref.probes import Probes


def products(lengths: HostArray, exact: int) -> HostArray:
    """Return how many products with J a sample of this length takes after `exact` exact traces."""
    return np.where(lengths > exact, lengths, 0)


def roulette_logdet(chain: Chain, v: Array, lengths: HostArray, drawn: Table, traces: Sequence[Array] = ()) -> Array:
    """Return one estimate per (probe, row) for v of shape (count, batch, *event) and `lengths` N of shape (count, batch)."""
    q, event = len(traces), len(chain.in_shape)
    stochastic = ragged_series(
        chain, v, products(lengths, q),
        lambda w, v: event_dot(w, v, event),
        lambda k: divisor(k) * drawn.survival(k) if k > q else math.inf,
    )  # fmt: skip
    return replaced_terms(traces, stochastic) + stochastic


@dataclass(frozen=True)
class RouletteEstimator(Estimator):
    """The series of random length, its distribution as it is `drawn`."""

    drawn: Table

    @property
    def products(self) -> float:
        """E[N]."""
        return self.drawn.mean

    def values(self, probes: Probes, v: Array) -> Estimates:
        """Return the estimate of each probe and row; those of a block share their N: only then is the block one replicate."""
        lengths = probes.lengths(v.shape[1], self.drawn.thresholds, self.drawn.n_exact_terms)
        evaluations = probes.block * products(lengths, len(self.traces)).sum(axis=0)
        lengths = np.repeat(lengths, probes.block, axis=0)
        return Estimates(roulette_logdet(self.chain, v, lengths, self.drawn, self.traces), evaluations)

    def bias_bound(self, rank: int) -> float:
        """Return what lies beyond the longest series that is drawn."""
        return truncation_bound(rank, self.lipschitz, self.drawn.last)

    def variance(self, probes: Probes) -> float:
        """Return the bound of `roulette_variance_bound`."""
        d, exact = size(self.chain.in_shape), len(self.traces)
        return drawn_variance_bound(self.drawn, self.lipschitz, d, kind=probes.kind, block=probes.block, exact=exact)
