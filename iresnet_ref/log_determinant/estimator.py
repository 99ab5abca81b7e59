"""A stochastic estimate of log det(I + J) at given points, ready to be run with any probes: what series, roulette and Arnoldi share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from iresnet_ref.arrays import Array, HostArray, namespace, size
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.probes import Probes

AT_ONCE = 2**24
"""Entries of the probes that are drawn at a time."""


class Estimates(NamedTuple):
    """One value for each (probe or replicate, row), the products of each row, and what each value is off by at most, or None."""

    values: Array
    evaluations: HostArray
    errors: Array | None = None

    def averaged(self, probes: Probes) -> Estimates:
        """Return the means over the probes of each block: one value for each (replicate, row)."""
        if probes.block == 1:
            return self

        def means(a: Array) -> Array:
            return namespace(a).mean(namespace(a).reshape(a, (probes.count, probes.block, a.shape[1])), axis=1)

        return Estimates(means(self.values), self.evaluations, None if self.errors is None else means(self.errors))


@dataclass(frozen=True)
class Estimator(ABC):
    """J as a `chain`, and its first `traces`, exact ones, which replace the first terms of the series.

    `lipschitz` is that of the `norm` in which g contracts, 2 or another; it bounds the spectral radius of J in each of them.
    """

    chain: Chain
    lipschitz: float
    traces: tuple[Array, ...]
    norm: float
    method: ClassVar[str]

    @property
    def random(self) -> bool:
        """Whether any term is left to the probes."""
        return True

    @property
    @abstractmethod
    def products(self) -> float:
        """Products with J for each probe, in the mean."""

    @abstractmethod
    def values(self, probes: Probes, v: Array) -> Estimates:
        """Return one value for each probe of v (count·block, batch, *event) and row."""

    @abstractmethod
    def bias_bound(self, rank: int) -> float:
        """Return a bound on |E − truth| from L, d and a bound on the rank of J."""

    @abstractmethod
    def variance(self, probes: Probes) -> float:
        """Return a bound on the variance of one replicate where g contracts in the 2-norm."""

    def variance_bound(self, probes: Probes) -> float:
        """Return a bound on the variance of one replicate from L and d: that of the sum of the terms which are not exact."""
        bound = self.variance(probes)
        return bound if self.norm == 2.0 else size(self.chain.in_shape) * bound  # ‖Jᵏ‖₂ ≤ √d Lᵏ only

    def estimates(self, probes: Probes, like: Array) -> Estimates:
        """Return one estimate per (replicate, row), a part of the replicates at a time."""
        at_once = self.at_once(probes, like)
        some = [probes.part(first, min(first + at_once, probes.count)) for first in range(0, probes.count, at_once)]
        parts = [self.values(part, part.draw(like)).averaged(part) for part in some]
        if len(parts) == 1:
            return parts[0]
        xp, errors = namespace(like), [part.errors for part in parts]
        return Estimates(
            xp.concat([part.values for part in parts], axis=0),
            np.sum([part.evaluations for part in parts], axis=0),
            None if errors[0] is None else xp.concat(errors, axis=0),
        )

    def at_once(self, probes: Probes, like: Array) -> int:
        """Return how many replicates are drawn at a time."""
        return max(1, AT_ONCE // (probes.block * max(1, like.shape[0]) * size(self.chain.in_shape)))

    @property
    def noise(self) -> float:
        """√d log(1/(1 − L)): what the roundings of the d entries of vᵀlog(I + J)v add up to, in units of u."""
        return math.sqrt(size(self.chain.in_shape)) * -math.log1p(-self.lipschitz)
