"""The last step of an inversion: what the final residual proves, and one more Banach step where that proves more.

The rounding of an evaluation is at most e(x) = α + β‖x‖, constants of the branch (`Branch.rounding`), so that the proof costs
no evaluation. Let r̂ be the computed residual y − x − g(x) and ρ = 2(α + β(‖x‖ + ‖r̂‖)) + 5u(‖x‖ + ‖y‖ + ‖r̂‖).

*Staying at x:* ‖x − x*‖ ≤ (‖r̂‖ + ρ)/(1 − L) for the exact preimage x* of y; with 1 − L − β in place of 1 − L also for every
x* whose computed F(x*) equals y, since e(x*) ≤ e(x) + β‖x − x*‖.

*Where that proves not one digit,* which is the rule near L = 1 in float32, the rows have the ball about the exact preimage instead, whose
residual is evaluated in float64 where the device has it (`inversion.ball`): three forward passes of those rows.

*Going to z = fl(y − g(x)),* which has been evaluated already: y − z − g(z) = g(x) − g(z) up to e(x) and the rounding of z, so that
the residual of z, computed by anybody, is at most L‖r̂‖ + ρ ([B19] Thm 1), and ‖z − x*‖ ≤ (L‖r̂‖ + ρ)/(1 − L − β). This radius is
smaller than that of x. The step is taken where L‖r̂‖ + ρ is below ‖r̂‖ or the tolerance, that is above the rounding floor.
"""

from __future__ import annotations

import math

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, HostArray, device, expand_rows, from_host, indices, namespace, to_host
from iresnet_ref.block import ResidualBlock
from iresnet_ref.errors import ConvergenceError
from iresnet_ref.inversion.ball import inverse_ball
from iresnet_ref.inversion.rows import Rows
from iresnet_ref.inversion.safeguard import Goal, Point

ONE_DIGIT = 0.1
"""A radius above this part of ‖x‖ proves no decimal digit of x."""


def last_step(block: ResidualBlock, point: Point, rows: Rows, goal: Goal) -> tuple[Array, Array, Array, Array]:
    """Return (x, ‖r‖, radius, covers_computed) per row, from the last evaluated point and its record."""
    xp, n = namespace(point.x), math.prod(point.x.shape[1:])
    u, underflow = rounding.unit_roundoff(point.x), 4.0 * n * rounding.smallest_normal(point.x)
    alpha, beta = block.branch.rounding
    if rows.size_y is None:
        raise ConvergenceError("last step: expected rows that the host has looked at, got none; try rows.measure(point, rtol)")
    residual, reach = rows.residual, rows.size + rows.residual
    rho = (2.0 * beta + 5.0 * u) * reach + (5.0 * u * rows.size_y + 2.0 * alpha)
    on_top = 1.0 + (2 * n + 64) * u  # the rounding of the norms and of these lines
    stepped = (goal.lipschitz * residual + rho) * on_top + underflow
    allowed = np.maximum(residual, goal.rtol * np.maximum(rows.size, rows.size_y))
    stays = stepped >= (1.0 - 2.0 * goal.rtol) * allowed  # the tolerance is relative to ‖x‖, which moves by ‖r̂‖
    x, norm, total = point.y - point.g, stepped, stepped
    if stays.any():
        mask = expand_rows(xp.asarray(stays, dtype=xp.bool, device=device(x)), x.ndim - 1)
        x, norm = xp.where(mask, point.x, x), np.where(stays, residual, stepped)
        total = np.where(stays, (residual + rho) * on_top + underflow, stepped)
    contraction = rounding.down(block.least_stretch() - beta, 2)
    radius = total / contraction if contraction > 0.0 else np.full_like(total, math.inf)
    closer = _of_ball(block, x, point.y, radius, np.flatnonzero(~(radius <= ONE_DIGIT * rows.size)))
    covers = xp.asarray(radius <= closer, dtype=xp.bool, device=device(x))
    known = from_host(np.stack([norm, closer * (1.0 + 4.0 * u)]), x)
    return x, known[0, :], known[1, :], covers


def _of_ball(block: ResidualBlock, x: Array, y: Array, radius: HostArray, loose: HostArray) -> HostArray:
    """Return the radii, those of the loose rows replaced by the ball's where that is smaller."""
    if not loose.size:
        return radius
    xp, index = namespace(x), indices(loose, x)
    found = to_host(inverse_ball(block, xp.take(x, index, axis=0), xp.take(y, index, axis=0), check=False).radius)
    closer = radius.copy()
    closer[loose] = np.minimum(radius[loose], found)
    return closer
