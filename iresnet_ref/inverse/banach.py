"""The Banach iteration x₀ = y, x_{k+1} = y − g(x_k) = x_k + r_k, stopped on the residual, and its safeguarded acceleration.

‖r_{k+1}‖ ≤ L‖r_k‖, and ‖x_k − x*‖ ≤ ‖r_k‖/(1 − L) in exact arithmetic ([B19] Thm 1, Algorithm 1). It never stops on the
step or its square. All rows step together; a row that has met its tolerance stays where it is until it is dropped. With
`Secants` a step may be an Anderson trial, accepted by the rule of `safeguard` (m = 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from iresnet_ref.arrays import HostArray, expand_rows, flatten_events, namespace, size
from iresnet_ref.block import ResidualBlock
from iresnet_ref.inverse.anderson import Secants
from iresnet_ref.inverse.rows import Rows
from iresnet_ref.inverse.safeguard import Goal, Point, accepts, decide, freeze, refute

SLOW = 0.5
"""Acceleration pays where the observed ‖r_{k+1}‖/‖r_k‖ exceeds this; below it costs more than it saves."""
PATIENCE = 16.0
"""The most Banach steps after a rejected trial: 1, 2, 4, … up to this."""

Acceleration = Literal["never", "always", "observed"]


@dataclass(frozen=True)
class Trials:
    """Per row: how many Banach steps are owed before the next trial, and how many the next rejection will cost."""

    owed: Any
    price: Any

    @staticmethod
    def none(size: Any) -> Trials:
        """Return the state before any trial."""
        xp = namespace(size)
        return Trials(xp.zeros_like(size), xp.ones_like(size))

    def after(self, tried: Any, rejected: Any) -> Trials:
        """Return the state after one step: a rejection doubles the price, an accepted trial halves it."""
        xp = namespace(self.owed)
        one = xp.ones_like(self.owed)
        owed = xp.where(rejected, self.price, xp.maximum(self.owed - 1.0, xp.zeros_like(self.owed)))
        raised = xp.minimum(2.0 * self.price, PATIENCE * one)
        lowered = xp.where(tried, xp.maximum(0.5 * self.price, one), self.price)
        return Trials(owed, xp.where(rejected, raised, lowered))


def iterate(
    block: ResidualBlock,
    y: Any,
    goal: Goal,
    *,
    acceleration: Acceleration = "never",
    start: Any = None,
    absolute: HostArray | None = None,
) -> tuple[Any, Rows, bool]:
    """Return (x, rows, accelerated): the iterate of every row, with its evaluations and whether it met the tolerance.

    It starts at y, or at `start`; `absolute` per row replaces the tolerance of the goal.
    The host synchronises after the first two evaluations and then once per `check_every`; finished rows are dropped.
    """
    rows = Rows(y.shape[0])
    memory = None if acceleration != "always" else Secants.of(size(tuple(y.shape[1:])))
    accelerated = memory is not None
    x = y if start is None else start
    now = Point.at(x, y, block.branch(x))
    rows.spend(1)
    last: tuple[Point, Point] | None = None
    trials, first, previous = Trials.none(now.size), np.zeros(0), np.zeros(0)
    steps = 1
    while True:
        length, target = decide(now, y, goal.rtol)
        target = target if absolute is None else absolute
        if last is not None and goal.stated:
            refute(block, *last, goal.lipschitz)
        first = length if last is None else first
        met = length <= target
        done = met | (rows.evaluations[rows.active] >= goal.budget(first, target, 1))
        if memory is None and last is not None and acceleration == "observed" and _slow(previous, length, done, steps):
            memory = _remember(Secants.of(size(tuple(y.shape[1:]))), *last)
            accelerated = True
        previous = length
        if done.any():
            keep = rows.settle(done, met, now.x)
            if not rows.active.size:
                return rows.assemble(), rows, accelerated
            y, now, trials = keep(y), now.map(keep), Trials(keep(trials.owed), keep(trials.price))
            memory = memory if memory is None else memory.map(keep)
            first, previous, target = first[~done], previous[~done], target[~done]
            absolute = absolute if absolute is None else target
        goal_size = freeze(target, y)
        steps = 1 if last is None else min(goal.check_every, goal.left(int(rows.evaluations[rows.active].max())))
        for _ in range(steps):
            last, now, memory, trials = step(block, y, now, memory, trials, goal.lipschitz, goal_size)
        rows.spend(steps)


def step(
    block: ResidualBlock, y: Any, now: Point, memory: Secants | None, trials: Trials, lipschitz: float, target: Any
) -> tuple[tuple[Point, Point], Point, Secants | None, Trials]:
    """Return ((x, z) as evaluated, the next point, memory, trials) after one evaluation, at z."""
    xp = namespace(y)
    event = y.ndim - 1
    moving = expand_rows(xp.astype(now.size > target, y.dtype), event)  # 0 where the tolerance is met: evaluated again
    if memory is None:
        z = now.x + moving * now.r
        new = Point.at(z, y, block.branch(z))
        return (now, new), new, None, trials
    explained, rest = memory.project(flatten_events(now.r, event))
    tried = (trials.owed <= 0.0) & (memory.images is not None)
    move = xp.where(expand_rows(tried, event), xp.reshape(explained + rest, now.r.shape), now.r)
    z = now.x + moving * move
    new = Point.at(z, y, block.branch(z))
    rejected = tried & ~accepts(now, new, 1, lipschitz, target)
    memory = _remember(memory, now, new, rejected)
    return (now, new), choose(rejected, now, new), memory, trials.after(tried, rejected)


def choose(condition: Any, a: Point, b: Point) -> Point:
    """Return a on the rows where the condition holds, b elsewhere."""
    xp = namespace(a.x)
    wide = expand_rows(condition, a.x.ndim - 1)
    return Point(
        xp.where(wide, a.x, b.x),
        xp.where(wide, a.g, b.g),
        xp.where(wide, a.r, b.r),
        xp.where(condition, a.size, b.size),
    )


def _remember(memory: Secants, a: Point, b: Point, restart: Any = None) -> Secants:
    """Add the step a → b: p = b − a, w = r(a) − r(b) = (b − a) + (g(b) − g(a))."""
    event = a.x.ndim - 1
    return memory.add(flatten_events(b.x - a.x, event), flatten_events(a.r - b.r, event), restart=restart)


def _slow(previous: HostArray, length: HostArray, done: HostArray, steps: int) -> bool:
    """Return whether some row that goes on has shrunk by less than SLOW per step since the last check."""
    return bool((length > SLOW**steps * previous)[~done].any())
