"""A stochastic estimate of log det(I + J) at given points, ready to be run with any probes: series, roulette or Arnoldi."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from iresnet_ref.arrays import HostArray, namespace, size
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.log_determinant.arnoldi import arnoldi_logdet
from iresnet_ref.log_determinant.bounds import truncation_bound
from iresnet_ref.log_determinant.length_distributions import Table
from iresnet_ref.log_determinant.roulette import products, roulette_logdet
from iresnet_ref.log_determinant.series import series_logdet
from iresnet_ref.log_determinant.variance import drawn_variance_bound, probe_variance, square_moment
from iresnet_ref.probes import Probes
from iresnet_ref.rounding import unit_roundoff

AT_ONCE = 2**24
"""Entries of the probes that are drawn at a time."""


@dataclass(frozen=True)
class Estimator:
    """`terms` products for series and Arnoldi, the distribution of N as it is `drawn` for roulette; `traces` replace the first terms.

    `lipschitz` is that of the norm in which g contracts, 2 or another; it bounds the spectral radius of J in each of them.
    """

    chain: Chain
    lipschitz: float
    terms: int
    drawn: Table | None
    traces: tuple[Any, ...]
    arnoldi: bool = False
    norm: float = 2.0

    @property
    def random(self) -> bool:
        """Whether any term is left to the probes."""
        return self.drawn is not None or self.arnoldi or self.terms > len(self.traces)

    def estimates(self, probes: Probes, like: Any) -> tuple[Any, HostArray]:
        """Return one estimate per (replicate, row) and the products per row, a part of the replicates at a time."""
        per_replicate = probes.block * max(1, like.shape[0]) * size(self.chain.in_shape)
        at_once = max(1, AT_ONCE // per_replicate)
        parts = [
            self._part(probes.part(first, min(first + at_once, probes.count)), like)
            for first in range(0, probes.count, at_once)
        ]
        evaluations = np.sum([part[1] for part in parts], axis=0)
        return (parts[0][0] if len(parts) == 1 else namespace(like).concat([p[0] for p in parts], axis=0)), evaluations

    def _part(self, probes: Probes, like: Any) -> tuple[Any, HostArray]:
        xp = namespace(like)
        v, batch = probes.draw(like), like.shape[0]
        if self.drawn is None:
            evaluations = np.full(batch, self.terms * probes.count * probes.block)
            if self.arnoldi:
                values = arnoldi_logdet(self.chain, v, self.terms, self.lipschitz, self.traces)
            else:
                values = series_logdet(self.chain, v, self.terms, self.traces)
        else:
            lengths = probes.lengths(batch, self.drawn.thresholds, self.drawn.n_exact_terms)
            evaluations = probes.block * products(lengths, len(self.traces)).sum(axis=0)
            # the probes of a block share their N: only then is the block one replicate
            values = roulette_logdet(self.chain, v, np.repeat(lengths, probes.block, axis=0), self.drawn, self.traces)
        return xp.mean(xp.reshape(values, (probes.count, probes.block, batch)), axis=1), evaluations

    def bias_bound(self, rank: int) -> float:
        """Return a bound on |E − truth| from L, d and a bound on the rank of J."""
        if self.drawn is not None:
            return truncation_bound(rank, self.lipschitz, self.drawn.last)
        if self.arnoldi:
            d = size(self.chain.in_shape)
            return truncation_bound(rank + d, self.lipschitz, self.terms) + d * unit_roundoff(self.chain.like)
        return truncation_bound(rank, self.lipschitz, self.terms)

    def variance_bound(self, probes: Probes) -> float:
        """Return a bound on the variance of one replicate from L and d: that of the sum of the terms which are not exact.

        Roulette: `roulette_variance_bound`. Series: that of the probes, ‖Σaₖ‖ ≤ Σ_{q<k≤n} Lᵏ/k. Arnoldi: the second moment,
        |vᵀf(H)v| ≤ ‖v‖² Σ_{k>q} Lᵏ/k for f the logarithm without its first q terms.
        """
        d, exact = size(self.chain.in_shape), len(self.traces)
        if self.drawn is not None:
            bound = drawn_variance_bound(self.drawn, self.lipschitz, d, kind=probes.kind, block=probes.block, exact=exact)
        elif self.arnoldi:
            bound = square_moment(d, probes.kind, probes.block) * truncation_bound(1, self.lipschitz, exact) ** 2
        else:
            terms = math.fsum(self.lipschitz**k / k for k in range(exact + 1, self.terms + 1))
            bound = probe_variance(d, probes.kind, probes.block) * terms**2
        return bound if self.norm == 2.0 else d * bound  # ‖Jᵏ‖₂ ≤ √d Lᵏ only

    @property
    def noise(self) -> float:
        """√d log(1/(1 − L)): what the roundings of the d entries of vᵀlog(I + J)v add up to, in units of u."""
        return math.sqrt(size(self.chain.in_shape)) * -math.log1p(-self.lipschitz)
