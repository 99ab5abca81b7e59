"""A stochastic estimate of log det(I + J) at given points, ready to be run with any probes: series, roulette or Arnoldi."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from iresnet_ref.arrays import HostArray, device, namespace, size
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.log_determinant.arnoldi import arnoldi_logdet
from iresnet_ref.log_determinant.bounds import truncation_bound
from iresnet_ref.log_determinant.length_distributions import Table
from iresnet_ref.log_determinant.roulette import products, roulette_logdet
from iresnet_ref.log_determinant.series import series_logdet
from iresnet_ref.probes import Probes
from iresnet_ref.rounding import unit_roundoff

FEWEST_REPLICATES = 8
"""Below this many independent replicates no standard error is given."""
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


def standard_error(estimates: Any, mean: Any) -> Any:
    """Return sd/√count over independent replicates, NaN below the fewest that say anything."""
    xp = namespace(estimates)
    count = estimates.shape[0]
    if count < FEWEST_REPLICATES:
        return xp.full(mean.shape, math.nan, dtype=mean.dtype, device=device(mean))
    deviation = estimates - mean
    return xp.sqrt(xp.sum(deviation * deviation, axis=0) / ((count - 1) * count))


def skewness(estimates: Any, mean: Any) -> Any:
    """Return m₃/m₂^{3/2} of the replicates, 0 where they agree."""
    xp = namespace(estimates)
    deviation = estimates - mean
    second = xp.mean(deviation * deviation, axis=0)
    third = xp.mean(deviation * deviation * deviation, axis=0)
    differ = second > 0.0
    root = xp.sqrt(xp.where(differ, second, xp.ones_like(second)))
    return xp.where(differ, third / (root * root * root), xp.zeros_like(third))
