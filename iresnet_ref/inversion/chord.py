"""The chord method: Newton's with one Jacobian, that at the origin, for all rows and steps, while it contracts.

With the affine model A(x) = x + g(0) + J_g(0)x of F it starts at x₀ = A⁻¹(y) and goes on by x ← x + q(x), q = (I + J_g(0))⁻¹ r: a step
costs an evaluation and a small product, and leaves of ‖q‖ what J_g differs from J_g(0) between x and x*. What earlier steps have seen of
that difference is taken away by `Secants` of q. Nothing of this is proved, so it is a trial in the sense of `safeguard`, of all steps
between two looks. The first one is accepted where ‖r‖ ≤ ½(1 − L)‖g(x)‖, since then

    ‖r(y)‖ = ‖g(y)‖ ≥ ‖g(x)‖ − L‖y − x‖ = ‖g(x)‖ − L‖g(x) + r‖ ≥ (1 − L)‖g(x)‖ − L‖r‖ ≥ ‖r‖ :

the rows are no farther than Banach's iteration is where it starts; every other one where ‖r‖ has shrunk by L for each step. Where a row
fails, that row goes back, to y or to the Banach step from where it was, and all go on by `FixedPoint`: first by as many Banach
steps as there are until the next look.

The host sees w = ‖2|g(x)| + 2|y − x|‖ of the first point. It is at least ‖r(y)‖ ≤ ‖g(x)‖ + L‖y − x‖, from which the evaluations are
counted that a row may take, in each of the three norms; and ‖g(x)‖ ≥ ¼w − ½‖r‖.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import numpy as np

from iresnet_ref.arrays import (
    Array,
    HostArray,
    device,
    expand_rows,
    flatten_events,
    from_host,
    indices,
    namespace,
    size,
)
from iresnet_ref.block import ResidualBlock
from iresnet_ref.branches.affine_model import AffineModel
from iresnet_ref.inversion.anderson import Secants
from iresnet_ref.inversion.fixed_point import SLOW, FixedPoint, cheapest, take_rows
from iresnet_ref.inversion.iteration import Measured, Steps
from iresnet_ref.inversion.safeguard import Goal, Point, steps_wanted

NARROW = 64
"""Up to so many dimensions a model is made: in fewer milliseconds than a row takes without it."""
POWER = 2.5
"""Of the misfit this power is taken for what a step with a secant leaves, after that without one (measured at the points where the model is
tried out: 1.7 to 2.8 on planar networks, 1.3 to 1.8 in 8 to 64 dimensions; after one more step 1.9 to 4.9)."""


def usable_model(block: ResidualBlock, y: Array, goal: Goal) -> AffineModel | None:
    """Return the affine model if it is cheap to make, and by the first look twice as good as needed where it was tried out.

    None where L is stated: steps that J_g(0) makes exact would not contradict a false one, as Banach's do.
    """
    if goal.stated or size(tuple(y.shape[1:])) > NARROW:
        return None
    model = block.branch.affine_model
    power = POWER if goal.check_every > 2 else 1.0  # of two steps, or of one
    return model if model is not None and model.misfit**power <= 0.25 * (1.0 - goal.lipschitz) else None


class Chord(Steps):
    """Chord steps with secants, two to four evaluations before the first look; `rest` is the iteration that has taken over."""

    def __init__(self, block: ResidualBlock, y: Array, goal: Goal, model: AffineModel) -> None:
        self.block, self.goal, self.inverse = block, goal, from_host(model.inverse, y)
        self.rest: FixedPoint | None = None
        self.secants, self.seen = Secants.of(self.inverse.shape[0]), cast("tuple[Array, ...]", ())
        wanted = 1 + sum(model.misfit**power > min(goal.rtol, 0.25 * (1.0 - goal.lipschitz)) for power in (1.0, POWER))
        self.back, self.before, self.count = y, np.zeros(0), min(wanted, max(goal.check_every - 1, 1), goal.left(1))
        x = self._solved(flatten_events(y, y.ndim - 1) - from_host(model.value, y))
        start = namespace(y).reshape(x, y.shape)
        self.pair = self._steps(Point(start, block.branch(start), y, norm=block.norm), self.count)
        self.now, self.spent, self.most = self.pair[1], 1 + self.count, max(2, goal.check_every)

    @property
    def method(self) -> str:
        """What was used."""
        return "chord" if self.rest is None else self.rest.method

    @property
    def watched(self) -> Array:  # type: ignore[override]  # not kept
        """What w is the norm of, at the first look."""
        if self.rest is not None:
            return self.rest.watched
        xp, now = namespace(self.now.x), self.now
        return now.r if self.before.size else 2.0 * (xp.abs(now.g) + xp.abs(now.y - now.x))

    def keep(self, rows: HostArray) -> None:
        """Go on with these rows only."""
        if self.rest is not None:
            self.rest.keep(rows)
            self.now = self.rest.now
            return
        take = partial(take_rows, at=indices(rows, self.now.x))
        self.now, self.back = self.now.take(rows), take(self.back)
        self.before = self.before if not self.before.size else self.before[rows]
        self.secants, self.seen = self.secants.map(take), tuple(take(a) for a in self.seen)

    def advance(self, measured: Measured) -> int:
        """Take chord steps if those before were good enough, else go on by `FixedPoint`."""
        count = self._advance(measured) if self.rest is None else self.rest.advance(measured)
        if self.rest is not None:
            self.now, self.pair = self.rest.now, self.rest.pair
        return count

    def _advance(self, measured: Measured) -> int:
        first, every = not self.before.size, self.goal.check_every
        before = np.maximum(0.25 * measured.watched - 0.5 * measured.residual, 0.0) if first else self.before
        share = 0.5 * (1.0 - self.goal.lipschitz) if first else self.goal.lipschitz**self.count
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = (measured.residual / before) ** (1.0 / (self.count + first))
        wanted = steps_wanted(measured.residual, measured.target, rate)
        count = min(cheapest(wanted, every * measured.number - measured.spent, every), measured.left)
        behind = measured.residual > share * before
        banach = self.now.y - self.now.g
        if behind.any() or (rate > SLOW).any():
            xp = namespace(banach)
            mask = expand_rows(xp.asarray(behind, dtype=xp.bool, device=device(banach)), banach.ndim - 1)
            start = xp.where(mask, self.back, banach)
            self.rest = FixedPoint(self.block, self.now.y, self.goal, "observed", start=start, steps=count - 1)
            return count
        self.back, self.before, self.count = banach, measured.residual, count
        self.pair = self._steps(self.now, count)
        self.now = self.pair[1]
        return count

    def _steps(self, now: Point, count: int) -> tuple[Point, Point]:
        """Return the last two points of so many steps, from `now` with the secants to it."""
        last = now
        for _ in range(count):
            x, q = flatten_events(now.x, now.x.ndim - 1), self._solved(flatten_events(now.r, now.x.ndim - 1))
            move = q
            if self.seen:
                self.secants = self.secants.add(x - self.seen[0], self.seen[1] - q)
                explained, rest = self.secants.project(q)
                move = explained + rest
            self.seen = x, q
            z = namespace(x).reshape(x + move, now.x.shape)
            last, now = now, Point(z, self.block.branch(z), now.y, norm=now.norm)
        return last, now

    def _solved(self, r: Array) -> Array:
        """Return (I + J_g(0))⁻¹ r of events that are flat."""
        return r @ self.inverse
