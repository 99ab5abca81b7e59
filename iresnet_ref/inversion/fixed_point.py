"""The Banach iteration x₀ = y, x_{k+1} = y − g(x_k), stopped on the residual, and its safeguarded acceleration.

‖r_{k+1}‖ ≤ L‖r_k‖, and ‖x_k − x*‖ ≤ ‖r_k‖/(1 − L) in exact arithmetic ([B19] Thm 1, Algorithm 1). It never stops on the
step or its square. All rows step together, and the host looks at ‖r‖ at most once per `check_every` evaluations. With
`Secants` a step may be an Anderson trial, accepted by the rule of `safeguard` (m = 1); then a row that has met its
tolerance stays where it is until it is dropped.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import numpy as np

from iresnet_ref.arrays import HostArray, expand_rows, flatten_events, indices, namespace, size
from iresnet_ref.block import ResidualBlock
from iresnet_ref.inversion.anderson import Secants
from iresnet_ref.inversion.backoff import Backoff
from iresnet_ref.inversion.rows import Rows
from iresnet_ref.inversion.safeguard import Goal, Point, accepts, between, device_tolerance, refute, steps_wanted

SLOW = 0.5
"""Steps are accelerated where the observed ‖r_{k+1}‖/‖r_k‖ exceeds this …"""
FEW = 2
"""… or where so many times as many Banach steps are wanted as secants span the space; else acceleration costs more than it saves."""
Acceleration = Literal["never", "always", "observed"]


def iterate(
    block: ResidualBlock,
    y: Any,
    goal: Goal,
    *,
    acceleration: Acceleration = "never",
    memory: int | None = None,
    start: Any = None,
    absolute: HostArray | None = None,
) -> tuple[Point, Rows, bool]:
    """Return (the last point of every row, its record, whether a step was accelerated).

    It starts at y, or at `start`, where it may end; `absolute` per row replaces the tolerance of the goal. The host looks after
    the first two evaluations (one from `start`), and then when half of the rows should be there, `check_every` evaluations
    later at most, but never more than 1 + evaluations/check_every times in all.
    """
    rows = Rows(y.shape[0], block.norm)
    events = size(tuple(y.shape[1:]))
    secants = Secants.of(events, memory) if acceleration == "always" else None
    x = y if start is None else start
    last = Point(x, block.branch(x), y, norm=block.norm)
    twice = start is None and goal.left(1) > 0
    seen = now = _banach(block, last) if twice else last  # a rejected trial is seen and not kept
    rows.spend(1 + twice)
    if secants is not None and twice:
        secants = _remember(secants, last, now)
    backoff, first, previous, steps, looks = Backoff.none(now.size), np.zeros(0), np.zeros(0), 1, 0
    while True:
        pair = between(last, seen) if goal.stated else ()
        residual, target, reach, others = rows.look(now, goal.rtol, last.r, *pair)
        looks += 1
        target = target if absolute is None else absolute
        if looks == 1:
            first = previous = others[0]
        if goal.stated:
            refute(block, others[1:], goal.lipschitz, y)
        met = residual <= target
        done = met | rows.stand_still(residual, goal) | (rows.evaluations[rows.active] >= goal.budget(first, target, 1))
        if done.any():
            rows.settle(done, met, residual, reach, now)
            if not rows.active.size:
                return rows.assemble(), rows, secants is not None
            stay = np.flatnonzero(~done)
            keep = partial(_take, at=indices(stay, y))
            now, last = now.take(stay), last.take(stay)
            backoff, secants = backoff.map(keep), secants if secants is None else secants.map(keep)
            first, previous, residual, target = first[stay], previous[stay], residual[stay], target[stay]
            absolute = absolute if absolute is None else target
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = (residual / previous) ** (1.0 / steps)
        wanted = steps_wanted(residual, target, rate)
        slow = ((rate > SLOW) | (wanted > FEW * (events + 1))).any()
        if last is not now and acceleration == "observed" and secants is None and slow:
            secants = _remember(Secants.of(events), last, now)
        previous = residual
        soon = math.ceil(np.sort(np.minimum(wanted, goal.check_every))[wanted.size // 2])
        steps = min(max(soon, goal.check_every * looks - rows.spent()), goal.left(rows.spent()))
        if secants is None:
            for _ in range(steps):
                last = now
                seen = now = _banach(block, now)
        else:
            allowed = device_tolerance(target, y)
            for _ in range(steps):
                last = now
                seen, now, secants, backoff = step(block, now, secants, backoff, goal.lipschitz, allowed)
        rows.spend(steps)


def _banach(block: ResidualBlock, now: Point) -> Point:
    x = now.y - now.g
    return Point(x, block.branch(x), now.y, norm=block.norm)


def step(
    block: ResidualBlock, now: Point, memory: Secants, backoff: Backoff, lipschitz: float, target: Any
) -> tuple[Point, Point, Secants, Backoff]:
    """Return (the point evaluated, the point kept, memory, backoff): one evaluation, of a trial or of a Banach step."""
    xp, event = namespace(now.x), now.x.ndim - 1
    moving = expand_rows(xp.astype(now.size > target, now.x.dtype), event)  # 0 where the tolerance is met
    explained, rest = memory.project(flatten_events(now.r, event))
    tried = (backoff.wait <= 0.0) & (not memory.empty)
    move = xp.where(expand_rows(tried, event), xp.reshape(explained + rest, now.r.shape), now.r)
    z = now.x + moving * move
    new = Point(z, block.branch(z), now.y, norm=block.norm)
    rejected = tried & ~accepts(now, new, 1, lipschitz, target)
    memory = _remember(memory, now, new, rejected)
    return new, choose(rejected, now, new), memory, backoff.after_steps(1).after_trial(tried, rejected)


def choose(condition: Any, a: Point, b: Point) -> Point:
    """Return a on the rows where the condition holds, b elsewhere; both have the same y."""
    xp = namespace(a.x)
    wide = expand_rows(condition, a.x.ndim - 1)
    return Point(xp.where(wide, a.x, b.x), xp.where(wide, a.g, b.g), a.y, norm=a.norm)


def _remember(memory: Secants, a: Point, b: Point, restart: Any = None) -> Secants:
    """Add the step a → b: p = b − a, w = r(a) − r(b) = (b − a) + (g(b) − g(a))."""
    event = a.x.ndim - 1
    return memory.add(flatten_events(b.x - a.x, event), flatten_events(a.r - b.r, event), restart=restart)


def _take(a: Any, at: Any) -> Any:
    return namespace(a).take(a, at, axis=0)
