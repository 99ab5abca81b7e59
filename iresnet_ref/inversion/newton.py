"""The safeguarded Newton iteration z = x + (I + J_g(x))⁻¹ r(x).

Few dimensions: I + J from the chain, d products, and one dense solve. Otherwise GCR on the chain (`krylov`), to the forcing
term η of Eisenstat & Walker (SISC 1996) or `INNER` products. What it leaves of the linear residual is taken as a Banach step. A trial of k
products costs m = k + 1 evaluations, k + 2 where the chain at x has to be built again; the rule of `safeguard` decides
about it. Without that rule Newton cycles or diverges on kinked g; with it the a-priori Banach count holds. Rows whose trial
was rejected take m, then 2m, 4m … Banach steps, while the others wait; every row takes part in the next trial.
"""

from __future__ import annotations

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
    stack_norm,
)
from iresnet_ref.block import ResidualBlock
from iresnet_ref.errors import NotContractiveError
from iresnet_ref.inversion.backoff import Backoff, no_backoff
from iresnet_ref.inversion.fixed_point import banach, choose
from iresnet_ref.inversion.iteration import Measured, Steps
from iresnet_ref.inversion.krylov import gcr
from iresnet_ref.inversion.safeguard import Goal, Point, accepts, device_tolerance
from iresnet_ref.jacobian.chain import Chain

DENSE = 16
"""Up to this many dimensions the linear system is solved densely."""
INNER = 40
"""The most products with J in one Krylov solve."""
REJECTED, ACCEPTED = 1.0, 2.0
"""How the outcome of a trial comes to the host, among the norms: as that of a row with one entry."""


class NewtonSteps(Steps):
    """Newton trials; the rows whose trial was rejected take Banach steps.

    One host synchronisation per trial, and one per `check_every` products or Banach steps.
    """

    def __init__(self, block: ResidualBlock, y: Array, goal: Goal) -> None:
        n = size(tuple(y.shape[1:]))
        self.block, self.goal, self.dense = block, goal, n <= DENSE and hasattr(namespace(y), "linalg")
        self.products = n if self.dense else min(INNER, n)
        self.spent, self.most = 1, self.products + 2
        value, chain = block.branch.linearize(y)
        self.now, self.chain = Point(y, value, y, norm=block.norm), cast("Chain | None", chain)
        self.pair, self.watched = (self.now, self.now), self.now.r
        self.trial = 0  # what a trial cost whose outcome the host has not seen yet
        self.before, self.unit = np.zeros(0), from_host(np.eye(1, n).reshape(y.shape[1:]), y)
        self.backoff: Backoff[HostArray] = no_backoff(np.zeros(y.shape[0]))

    def keep(self, rows: HostArray) -> None:
        """Go on with these rows only."""
        self.now = self.now.take(rows)
        self.chain = None if self.chain is None else self.chain.take(indices(rows, self.now.x))
        self.backoff = self.backoff.map(lambda a: a[rows])
        self.before = self.before if not self.before.size else self.before[rows]

    def advance(self, measured: Measured) -> int | HostArray:
        """Take one trial on all rows, or Banach steps on those that wait."""
        if self.trial:
            rejected: HostArray = measured.watched < 0.5 * (REJECTED + ACCEPTED)
            everywhere: HostArray = rejected | True
            self.backoff = self.backoff.after_trial(everywhere, rejected, self.trial)
            self.chain = None if rejected.any() else self.chain
        waiting = self.backoff.wait > 0.0
        if waiting.any() or measured.left < (self.most if self.dense else 3):
            return self._wait(waiting, measured.left)
        before = self.before if self.before.size else measured.residual  # ‖r‖ at the last trial
        ratio = (measured.residual / before) ** 2
        forcing = np.maximum(np.clip(0.9 * ratio, 1e-4, 0.3), np.minimum(0.5 * measured.target / measured.residual, 0.5))
        products = 0 if self.dense else min(self.products, measured.left - 2)
        now, y = self.now, self.now.y
        z, self.chain, self.trial = _trial(self.block, now, self.chain, from_host(forcing, y), products, self.goal.check_every)
        accepted = accepts(now, z, self.trial, self.goal.lipschitz, device_tolerance(measured.target, y))
        outcome = REJECTED + (ACCEPTED - REJECTED) * namespace(y).astype(accepted, y.dtype)
        self.watched = expand_rows(outcome, y.ndim - 1) * self.unit
        self.pair, self.before, self.now = (now, z), measured.residual, choose(accepted, z, now)
        return self.trial

    def _wait(self, waiting: HostArray, left: int) -> HostArray:
        """Take Banach steps on the rows that wait, or on all where little is left; return what each row spent."""
        who = waiting if waiting.any() else np.ones_like(waiting)
        count = int(min(self.goal.check_every, left, *self.backoff.wait[waiting]))
        self.pair = _banach(self.block, self.now, who, count)
        self.now, self.backoff = self.pair[1], self.backoff.after_steps(count)
        self.chain, self.trial, self.watched = None, 0, self.now.r
        return np.where(who, count, 0)


def _trial(
    block: ResidualBlock, x: Point, chain: Chain | None, forcing: Array, products: int, check_every: int
) -> tuple[Point, Chain, int]:
    """Return (z, the chain at z, cost): one Newton step from x, dense if `products` is 0."""
    cost = 1
    if chain is None:
        chain, cost = block.branch.linearize(x.x)[1], 2
    if products:
        goal = forcing * stack_norm(flatten_events(x.r, x.r.ndim - 1))
        dx, rest, products = gcr(chain.matvec, x.r, goal, products, check_every)
        move = dx + rest
    else:
        move, products = _dense(chain, x.r), size(tuple(x.x.shape[1:]))
    z = x.x + move
    value, chain = block.branch.linearize(z)
    return Point(z, value, x.y, norm=x.norm), chain, cost + products


def _banach(block: ResidualBlock, now: Point, who: HostArray, count: int) -> tuple[Point, Point]:
    """Return the last two points of `count` Banach steps on the rows `who`."""
    moving, resting = np.flatnonzero(who), np.flatnonzero(~who)
    rest = now.take(resting)
    xp, order = namespace(now.x), indices(np.argsort(np.concatenate([moving, resting]), kind="stable"), now.x)

    def merged(point: Point) -> Point:
        both = zip(point.arrays(), rest.arrays(), strict=True)
        return Point(*(xp.take(xp.concat(ab, axis=0), order, axis=0) for ab in both), norm=point.norm)

    last, new = banach(block, now.take(moving), count)
    return merged(last), merged(new)


def _dense(chain: Chain, r: Array) -> Array:
    """Return (I + J)⁻¹ r by elimination."""
    xp = namespace(r)
    flat = flatten_events(r, r.ndim - 1)
    matrix = chain.dense() + xp.eye(flat.shape[1], dtype=r.dtype, device=device(r))
    try:
        solution = xp.linalg.solve(matrix, flat[:, :, None])
    except (ValueError, RuntimeError) as singular:  # the LinAlgError of NumPy and of torch
        raise NotContractiveError(
            "expected Lip(g) < 1, but I + J is singular at an iterate; drop lipschitz= or normalise the weights"
        ) from singular
    return xp.reshape(solution[:, :, 0], r.shape)
