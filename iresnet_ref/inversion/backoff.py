"""Exponential backoff after rejected trials: 1, 2, 4, … times the cost of the trial in Banach steps, halved again by success."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from iresnet_ref.arrays import Array, namespace

LONGEST = 16.0
"""The longest wait after a rejected trial, in units of its cost."""


Rows = TypeVar("Rows", bound=Array)


@dataclass(frozen=True)
class Backoff(Generic[Rows]):
    """Per row, on the host or on the device: `wait` Banach steps until the next trial, and the `factor` of the next rejection.

    >>> import numpy as np
    >>> rejected = np.asarray([True])
    >>> twice = no_backoff(np.zeros(1)).after_trial(rejected, rejected, 3).after_trial(rejected, rejected, 3)
    >>> twice.wait.tolist(), twice.after_steps(2).wait.tolist()
    ([6.0], [4.0])
    """

    wait: Rows
    factor: Rows

    def map(self, function: Callable[[Rows], Rows]) -> Backoff[Rows]:
        """Return the state with each array replaced by function(array), for dropping rows."""
        return Backoff(function(self.wait), function(self.factor))

    def after_steps(self, count: int) -> Backoff[Rows]:
        """Return the state after `count` Banach steps."""
        return Backoff(namespace(self.wait).maximum(self.wait - count, 0.0 * self.wait), self.factor)

    def after_trial(self, tried: Array, rejected: Array, cost: int = 1) -> Backoff[Rows]:
        """Return the state after a trial of `cost` evaluations on the rows `tried`, of which some are `rejected`."""
        xp, one = namespace(self.wait), 0.0 * self.factor + 1.0
        longer, shorter = xp.minimum(2.0 * self.factor, LONGEST * one), xp.maximum(0.5 * self.factor, one)
        return Backoff(
            xp.where(rejected, cost * self.factor, self.wait),
            xp.where(rejected, longer, xp.where(tried, shorter, self.factor)),
        )


def no_backoff(like: Rows) -> Backoff[Rows]:
    """Return the state before any trial, for the rows of `like` (batch,)."""
    xp = namespace(like)
    return Backoff(xp.zeros_like(like), xp.ones_like(like))
