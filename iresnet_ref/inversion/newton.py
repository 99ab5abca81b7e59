"""The safeguarded Newton iteration z = x + (I + J_g(x))⁻¹ r(x).

Few dimensions: I + J from the chain, d products, and one dense solve. Otherwise GCR on the chain (`Secants` with every pair
kept), to the forcing term η of Eisenstat & Walker (SISC 1996) or `INNER` products; GCR cannot break down, since the
symmetric part of I + J is at least 1 − L. What it leaves of the linear residual is taken as a Banach step. A trial of k
products costs m = k + 1 evaluations, k + 2 where the chain at x has to be built again; the rule of `safeguard` decides
about it. Without that rule Newton cycles or diverges on kinked g; with it the a-priori Banach count holds. Rows whose trial
was rejected take m, then 2m, 4m … Banach steps, while the others wait; every row takes part in the next trial.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from iresnet_ref.arrays import HostArray, device, flatten_events, from_host, indices, namespace, size, stack_norm
from iresnet_ref.block import ResidualBlock
from iresnet_ref.errors import NotContractiveError
from iresnet_ref.inversion.anderson import Secants
from iresnet_ref.inversion.backoff import Backoff
from iresnet_ref.inversion.fixed_point import choose
from iresnet_ref.inversion.rows import Rows
from iresnet_ref.inversion.safeguard import Goal, Point, accepts, between, device_tolerance, refute
from iresnet_ref.jacobian.chain import Chain

DENSE = 16
"""Up to this many dimensions the linear system is solved densely."""
INNER = 40
"""The most products with J in one Krylov solve."""
REJECTED, ACCEPTED = 1.0, 2.0
"""How the outcome of a trial comes to the host, among the norms."""


def iterate_newton(block: ResidualBlock, y: Any, goal: Goal) -> tuple[Point, Rows]:
    """Return (the last point of every row, its record).

    One host synchronisation per trial, and one per `check_every` products or Banach steps.
    """
    rows, n = Rows(y.shape[0], block.norm), size(tuple(y.shape[1:]))
    dense = n <= DENSE and hasattr(namespace(y), "linalg")
    most = n if dense else min(INNER, n)
    value, linear = block.branch.linearize(y)
    now = Point(y, value, y, norm=block.norm)
    last, trial = (now, now), 0  # the last two evaluations, and what a trial cost whose outcome the host has not seen yet
    xp = namespace(y)
    outcome = REJECTED * xp.ones_like(now.size)
    chain: Chain | None = linear
    rows.spend(1)
    backoff, first = Backoff.none(np.zeros(y.shape[0])), np.zeros(0)
    while True:
        pair = between(*last) if goal.stated else ()
        residual, target, reach, others = rows.look(now, goal.rtol, outcome[:, None], *pair)
        if not first.size:
            first = before = residual  # ‖r‖ at the start, and at the last trial
        if goal.stated:
            refute(block, others[1:], goal.lipschitz, y)
        if trial:
            rejected = others[0] < 0.5 * (REJECTED + ACCEPTED)
            backoff, chain = backoff.after_trial(np.ones_like(rejected), rejected, trial), None if rejected.any() else chain
        met = residual <= target
        done = met | rows.stand_still(residual, goal) | (rows.evaluations[rows.active] >= goal.budget(first, target, most + 2))
        if done.any():
            rows.settle(done, met, residual, reach, now)
            if not rows.active.size:
                return rows.assemble(), rows
            stay = np.flatnonzero(~done)
            now = now.take(stay)
            chain = chain if chain is None else chain.take(indices(stay, y))
            backoff, before = backoff.map(lambda a, at=stay: a[at]), before[stay]
            first, residual, target = first[stay], residual[stay], target[stay]
        left = goal.left(rows.spent())
        waiting = backoff.wait > 0.0
        if waiting.any() or left < (n + 2 if dense else 3):
            who = waiting if waiting.any() else np.ones_like(waiting)
            count = int(min(goal.check_every, left, *backoff.wait[waiting]))
            now, last = _banach(block, now, who, count)
            backoff = backoff.after_steps(count)
            rows.spend(np.where(who, count, 0))
            chain, trial, outcome = None, 0, REJECTED * xp.ones_like(now.size)
            continue
        ratio = (residual / before) ** 2
        forcing = np.maximum(np.clip(0.9 * ratio, 1e-4, 0.3), np.minimum(0.5 * target / residual, 0.5))
        products = 0 if dense else min(most, left - 2)
        z, chain, trial = _trial(block, now, chain, from_host(forcing, y), products, goal.check_every)
        accepted = accepts(now, z, trial, goal.lipschitz, device_tolerance(target, y))
        outcome = REJECTED + (ACCEPTED - REJECTED) * xp.astype(accepted, y.dtype)
        last, before, now = (now, z), residual, choose(accepted, z, now)
        rows.spend(trial)


def _trial(
    block: ResidualBlock, x: Point, chain: Chain | None, forcing: Any, products: int, check_every: int
) -> tuple[Point, Chain, int]:
    """Return (z, the chain at z, cost): one Newton step from x, dense if `products` is 0."""
    cost = 1
    if chain is None:
        chain, cost = block.branch.linearize(x.x)[1], 2
    if products:
        move, products = _krylov(chain, x.r, forcing, products, check_every)
    else:
        move, products = _dense(chain, x.r), size(tuple(x.x.shape[1:]))
    z = x.x + move
    value, chain = block.branch.linearize(z)
    return Point(z, value, x.y, norm=x.norm), chain, cost + products


def _banach(block: ResidualBlock, now: Point, who: HostArray, count: int) -> tuple[Point, tuple[Point, Point]]:
    """Return the point after `count` Banach steps on the rows `who`, and the last step."""
    moving, resting = np.flatnonzero(who), np.flatnonzero(~who)
    rest, part = now.take(resting), now.take(moving)
    for _ in range(count):
        x = part.y - part.g
        last, part = part, Point(x, block.branch(x), part.y, norm=part.norm)
    xp = namespace(now.x)
    order = indices(np.argsort(np.concatenate([moving, resting]), kind="stable"), now.x)

    def merged(point: Point) -> Point:
        both = zip(point.arrays(), rest.arrays(), strict=True)
        return Point(*(xp.take(xp.concat(ab, axis=0), order, axis=0) for ab in both), norm=point.norm)

    new = merged(part)
    return new, (merged(last), new)


def _dense(chain: Chain, r: Any) -> Any:
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


def _krylov(chain: Chain, r: Any, eta: Any, products: int, check_every: int) -> tuple[Any, int]:
    """Return (dx + remainder, products used): ‖r − (I + J)dx‖ ≤ η‖r‖ on every row, or the products are used up."""
    xp = namespace(r)
    rest = flatten_events(r, r.ndim - 1)
    goal = eta * stack_norm(rest)
    pairs, dx = Secants(products), xp.zeros_like(rest)
    for k in range(1, products + 1):
        image = rest + flatten_events(chain.matvec(xp.reshape(rest, r.shape)), r.ndim - 1)
        pairs = pairs.add(rest, image, dependent=0.0)
        explained, rest = pairs.project(rest)
        dx = dx + explained
        if k == products or (k % check_every == 0 and bool(xp.all(stack_norm(rest) <= goal))):
            break
    return xp.reshape(dx + rest, r.shape), k
