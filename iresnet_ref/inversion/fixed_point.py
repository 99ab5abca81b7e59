"""The Banach iteration x₀ = y, x_{k+1} = y − g(x_k), stopped on the residual, and its safeguarded acceleration.

‖r_{k+1}‖ ≤ L‖r_k‖, and ‖x_k − x*‖ ≤ ‖r_k‖/(1 − L) in exact arithmetic ([B19] Thm 1, Algorithm 1). It never stops on the
step or its square. With `Secants` a step may be an Anderson trial, accepted by the rule of `safeguard` (m = 1); then a row
that has met its tolerance stays where it is until it is dropped.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np

from iresnet_ref.arrays import Array, HostArray, expand_rows, flatten_events, indices, namespace, size
from iresnet_ref.block import ResidualBlock
from iresnet_ref.inversion.anderson import Secants
from iresnet_ref.inversion.backoff import Backoff, no_backoff
from iresnet_ref.inversion.iteration import Measured, Steps
from iresnet_ref.inversion.safeguard import Goal, Point, accepts, device_tolerance, steps_wanted

SLOW = 0.5
"""Steps are accelerated where the observed ‖r_{k+1}‖/‖r_k‖ exceeds this …"""
FEW = 2
"""… or where so many times as many Banach steps are wanted as secants span the space; else acceleration costs more than it saves."""
Acceleration = Literal["never", "always", "observed"]


def banach(block: ResidualBlock, now: Point, steps: int) -> tuple[Point, Point]:
    """[B19] Algorithm 1: x ← y − g(x), `steps` times. Return the last two points."""
    last = now
    for _ in range(steps):
        x = now.y - now.g
        last, now = now, Point(x, block.branch(x), now.y, norm=block.norm)
    return last, now


class FixedPoint(Steps):
    """Banach steps, and Anderson's where `acceleration` says so.

    It starts at y, with two evaluations before the first look, or at `start`, with `steps` more: by default it may end there. The host
    looks again when that spares most, `check_every` evaluations later at most, but no more than 1 + evaluations/check_every times in all.
    """

    most = 1

    def __init__(
        self, block: ResidualBlock, y: Array, goal: Goal, acceleration: Acceleration, memory: int | None = None,
        start: Array | None = None, steps: int = 0,
    ) -> None:
        self.block, self.goal, self.acceleration, self.events = block, goal, acceleration, size(tuple(y.shape[1:]))
        x, steps = (y, int(goal.left(1) > 0)) if start is None else (start, steps)
        self.last, self.now = banach(block, Point(x, block.branch(x), y, norm=block.norm), steps)
        self.pair, self.spent = (self.last, self.now), 1 + steps
        self.secants = Secants.of(self.events, memory) if acceleration == "always" else None
        if self.secants is not None and steps:
            self.secants = _remember(self.secants, *self.pair)
        self.before, self.count = np.zeros(0), 1
        self.backoff: Backoff[Array] | None = None

    @property
    def method(self) -> str:
        """What was used."""
        return "banach" if self.secants is None else "anderson"

    @property
    def watched(self) -> Array:  # type: ignore[override]  # kept by Newton's method only
        """r of the point before."""
        return self.last.r

    def keep(self, rows: HostArray) -> None:
        """Go on with these rows only."""
        take = partial(take_rows, at=indices(rows, self.now.x))
        self.now, self.last = self.now.take(rows), self.last.take(rows)
        self.backoff = None if self.backoff is None else self.backoff.map(take)
        self.secants = None if self.secants is None else self.secants.map(take)
        self.before = self.before if not self.before.size else self.before[rows]

    def advance(self, measured: Measured) -> int:
        """Take steps until the host should look again."""
        before = self.before if self.before.size else measured.watched
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = (measured.residual / before) ** (1.0 / self.count)
        wanted = steps_wanted(measured.residual, measured.target, rate)
        slow = ((rate > SLOW) | (wanted > FEW * (self.events + 1))).any()
        if self.last is not self.now and self.acceleration == "observed" and self.secants is None and slow:
            self.secants = _remember(Secants.of(self.events), self.last, self.now)
        every = self.goal.check_every
        soon = cheapest(wanted, every * measured.number - measured.spent, every)
        self.before, self.count = measured.residual, min(soon, measured.left)
        if self.secants is None:
            self.last, self.now = self.pair = banach(self.block, self.now, self.count)
            return self.count
        allowed = device_tolerance(measured.target, self.now.x)
        self.backoff = no_backoff(self.now.size) if self.backoff is None else self.backoff
        for _ in range(self.count):
            self.last = self.now
            seen, self.now, self.secants, self.backoff = anderson(
                self.block, self.now, self.secants, self.backoff, self.goal.lipschitz, allowed
            )
            self.pair = (self.last, seen)
        return self.count


def cheapest(wanted: HostArray, least: int, every: int) -> int:
    """Return after how many steps, at least `least`, to look, for rows that want so many: those beyond go on until the look after it.

    >>> cheapest(np.asarray([2.0, 3.0, 3.0]), 1, 4), cheapest(np.asarray([1.0, 1.0, 9.0]), 1, 4), cheapest(np.asarray([50.0]), 1, 4)
    (3, 1, 4)
    """

    first, last = max(least, 1), max(every, least)
    if (wanted <= first).all():
        return first

    rows = wanted[wanted < last + 1]
    # between these the cost does not fall: where a row arrives, or the last place from which the next look is no later for it
    places = np.asarray([first, least + every - 1, last, *np.ceil(rows), *np.floor(rows) - 1], dtype=np.float64)
    places = np.unique(np.clip(places, first, last))[::-1, None]
    beyond = np.maximum(wanted - places, np.maximum(least + every - places, 1.0))
    cost = places[:, 0] * wanted.size + np.where(wanted > places, beyond, 0.0).sum(axis=1)
    return int(places[np.argmin(cost), 0])


def anderson(
    block: ResidualBlock, now: Point, memory: Secants, backoff: Backoff[Array], lipschitz: float, target: Array
) -> tuple[Point, Point, Secants, Backoff[Array]]:
    """Return (the point evaluated, the point kept, memory, backoff): one evaluation, of a trial or of a Banach step."""
    xp, event = namespace(now.x), now.x.ndim - 1
    moving = expand_rows(xp.astype(now.size > target, now.x.dtype), event)  # 0 where the tolerance is met
    explained, rest = memory.project(flatten_events(now.r, event))
    tried = (backoff.wait <= 0.0) & bool(memory.pairs)
    move = xp.where(expand_rows(tried, event), xp.reshape(explained + rest, now.r.shape), now.r)
    z = now.x + moving * move
    new = Point(z, block.branch(z), now.y, norm=block.norm)
    rejected = tried & xp.logical_not(accepts(now, new, 1, lipschitz, target))
    memory = _remember(memory, now, new, rejected)
    return new, choose(rejected, now, new), memory, backoff.after_steps(1).after_trial(tried, rejected)


def choose(condition: Array, a: Point, b: Point) -> Point:
    """Return a on the rows where the condition holds, b elsewhere; both have the same y."""
    xp = namespace(a.x)
    wide = expand_rows(condition, a.x.ndim - 1)
    chosen = Point(xp.where(wide, a.x, b.x), xp.where(wide, a.g, b.g), a.y, norm=a.norm)
    vars(chosen).update(r=xp.where(wide, a.r, b.r), size=xp.where(condition, a.size, b.size))  # known already
    return chosen


def _remember(memory: Secants, a: Point, b: Point, restart: Array | None = None) -> Secants:
    """Add the step a → b: p = b − a, w = r(a) − r(b) = (b − a) + (g(b) − g(a))."""
    event = a.x.ndim - 1
    return memory.add(flatten_events(b.x - a.x, event), flatten_events(a.r - b.r, event), restart=restart)


def take_rows(a: Array, at: Array) -> Array:
    """Return the rows with these indices."""
    return namespace(a).take(a, at, axis=0)
