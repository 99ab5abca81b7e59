"""The one loop of every inversion: look at the host, refute a false constant, set rows aside, go on with the others.

A method is how the rows go on between two looks (`Steps`). All rows step together on the device; what is decided about them is decided
here, from norms, by one host synchronisation for each look.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from iresnet_ref.arrays import Array, HostArray
from iresnet_ref.block import ResidualBlock
from iresnet_ref.inversion.rows import Rows
from iresnet_ref.inversion.safeguard import Goal, Point, between, refute


@dataclass(frozen=True)
class Measured:
    """What the host has seen: of each row at work ‖r‖, its tolerance and the norm of what the method watches; of all, the rest.

    `number` counts the looks, `spent` are the most evaluations of a row and `left` those until the limit.
    """

    residual: HostArray
    target: HostArray
    watched: HostArray
    number: int
    spent: int
    left: int


class Steps(ABC):
    """A method at work: where the rows are, and how they go on.

    `now` is the point of each row; `pair` the last two evaluations, of which the second need not have been kept; `watched` comes to the
    host with the norms, and is r(y) at the first look; `spent` evaluations precede that, and a trial costs at most `most`.
    """

    now: Point
    pair: tuple[Point, Point]
    watched: Array
    spent: int
    most: int

    @abstractmethod
    def advance(self, measured: Measured) -> int | HostArray:
        """Take steps until the host should look again; return what they cost, for all rows or for each."""

    @abstractmethod
    def keep(self, rows: HostArray) -> None:
        """Go on with these rows only."""


def iterate(block: ResidualBlock, steps: Steps, goal: Goal, absolute: HostArray | None = None) -> tuple[Point, Rows]:
    """Return the last point of every row, and its record; `absolute` per row replaces the tolerance of the goal."""
    rows, first = Rows(steps.now.x.shape[0], block.norm), np.zeros(0)
    rows.spend(steps.spent)
    for number in itertools.count(1):
        pair = between(*steps.pair) if goal.stated else ()
        residual, target, reach, (watched, *others) = rows.measure(steps.now, goal.rtol, steps.watched, *pair)
        first = watched if number == 1 else first
        target = target if absolute is None else absolute[rows.active]
        if goal.stated:
            refute(block, others, goal.lipschitz, steps.now.x)
        met = residual <= target
        done = met if met.all() else met | rows.stand_still(residual, goal) | rows.out_of_budget(goal.budget(first, target, steps.most))
        if done.any():
            rows.retire(done, met, residual, reach, steps.now)
            if not rows.active.size:
                break
            stay = np.flatnonzero(~done)
            steps.keep(stay)
            first, residual, target, watched = (a[stay] for a in (first, residual, target, watched))
        spent = rows.spent()
        rows.spend(steps.advance(Measured(residual, target, watched, number, spent, goal.left(spent))))
    return rows.assemble(), rows
