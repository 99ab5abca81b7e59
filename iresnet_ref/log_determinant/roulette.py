"""The unbiased Russian-roulette estimate of log det(I + J), with a series length of its own for every sample.

Σ_{k≤N} (−1)^{k+1} vᵀJᵏv/(k·P(N ≥ k)), E over N and v = Σ_k (−1)^{k+1} tr(Jᵏ)/k ([C19] eq. 6 with N per sample). Exact
traces replace the first q terms, with weight 1 and whatever N is; a sample with N ≤ q needs no product at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from iresnet_ref.arrays import Array, HostArray, size
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.log_determinant.bounds import truncation_bound
from iresnet_ref.log_determinant.length_distributions import Table
from iresnet_ref.log_determinant.ragged import ragged_series
from iresnet_ref.log_determinant.series import PowerSeries, completed, products, stochastic_terms
from iresnet_ref.log_determinant.variance import drawn_variance_bound
from iresnet_ref.probes import Probes


def roulette_logdet(chain: Chain, v: Array, lengths: HostArray, drawn: Table, traces: Sequence[Array] = ()) -> Array:
    """Return one estimate per (probe, row) for v of shape (count, batch, *event) and `lengths` N of shape (count, batch)."""
    terms = stochastic_terms(len(chain.in_shape), len(traces), drawn.survival)
    (stochastic,) = ragged_series(chain, v, products(lengths, len(traces)), terms)
    return completed(stochastic, traces, v)


@dataclass(frozen=True)
class RouletteEstimator(PowerSeries):
    """The series of random length, its distribution as it is `drawn`."""

    drawn: Table
    method: ClassVar[str] = "roulette"

    @property
    def products(self) -> float:
        """E[N]."""
        return self.drawn.mean

    def lengths(self, probes: Probes, batch: int) -> HostArray:
        """Return what the probes draw."""
        return probes.lengths(batch, self.drawn.thresholds, self.drawn.n_exact_terms)

    def survival(self, k: int) -> float:
        """Return P(N ≥ k)."""
        return self.drawn.survival(k)

    def bias_bound(self, rank: int) -> float:
        """Return what lies beyond the longest series that is drawn."""
        return truncation_bound(rank, self.lipschitz, self.drawn.last)

    def variance(self, probes: Probes) -> float:
        """Return the bound of `roulette_variance_bound`."""
        d, exact = size(self.chain.in_shape), len(self.traces)
        return drawn_variance_bound(self.drawn, self.lipschitz, d, kind=probes.kind, block=probes.block, exact=exact)
