"""The ball around a computed inverse that contains the true preimage, rounding included.

r(x) = y − x − g(x) has ‖x − x*‖ ≤ ‖r(x)‖/(1 − L) for the exact preimage x* of y ([B19] Thm 1). Known is r̂ = fl r(x), with
‖r̂ − r(x)‖ ≤ ρ = s(x) + u‖fl(y − x)‖ + u‖r̂‖, s the running error bound of g (`error_analysis.forward`). docs/proofs.md derives each
line, and names what is assumed of the arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from iresnet_ref import rounding
from iresnet_ref.arrays import (
    Array,
    namespace,
    public,
    require_alike,
    require_batch,
    require_finite,
    row_norm,
    to_host,
)
from iresnet_ref.block import ResidualBlock, in_float64
from iresnet_ref.errors import ShapeError


@dataclass(frozen=True)
class Ball:
    """‖x − x*‖ ≤ `radius` per row, for the exact preimage x* of y; `residual_norm` is the computed ‖y − x − g(x)‖: in the block's norm.

    `roundoff` is u of the arithmetic that evaluated the residual. Where nothing is proved `radius` is inf.

    Shapes: `radius`, `residual_norm` (batch,). Reference: [B19] Thm 1.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> ball = ir.bounds.inverse_ball(F, np.zeros((1, 2)), F(np.zeros((1, 2))))
    >>> bool(ball.radius[0] < 1e-12)
    True
    """

    radius: Array
    residual_norm: Array
    lipschitz: float
    roundoff: float
    stretch: float
    """μ ≥ 1 − L of ‖ΔF‖ ≥ μ‖Δx‖."""

    @property
    def reason(self) -> str:
        """What the radius is made of, or why rows are without one."""
        missing = [i for i, radius in enumerate(to_host(self.radius)) if not math.isfinite(radius)]
        if not missing:
            return f"(‖r̂‖ + ρ)/μ with μ = {self.stretch:.6g} and Lip(g) ≤ {self.lipschitz:.6g}, rounding ρ for u = {self.roundoff:.3g}"
        return (
            f"no radius for row {missing[0]} ({len(missing)} rows in all): the rounding of its residual is not bounded "
            f"within the range of an arithmetic with u = {self.roundoff:.3g}; use float64, on the CPU "
            "if this device has none, or smaller inputs"
        )


@public
def inverse_ball(block: ResidualBlock, x: Array, y: Array, *, check: bool = True) -> Ball:
    """Return a ball around x, however x was found, that contains the exact preimage of y: radius (‖r̂‖ + ρ)/(1 − L) per row.

    The residual is evaluated in float64 on x's device wherever there is float64, whatever the dtype of x: a float32
    inverse gets a radius of the size of its error, where float32 arithmetic proves one 1e2 to 1e5 times wider. The cost
    is about three forward passes in that precision. Unlike `Inverse.error_bound` the ball is about the exact preimage
    only, not about every x′ whose rounded F(x′) equals y.

    Shapes: x and y (batch, *event); the radius has the dtype in which the residual was evaluated.
    Limits: it assumes IEEE arithmetic (no TF32) and elementary functions as accurate as declared, as docs/proofs.md says;
    with a stated lipschitz= it rests on that constant.
    Raises: NotContractiveError (Lip(g) < 1 neither proved nor stated), ShapeError, DTypeError, NonFiniteError.
    Reference: [B19] Thm 1 with rounding added.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5, like=np.zeros(1, dtype=np.float32)))
    >>> y = F(np.ones((1, 2), dtype=np.float32))
    >>> inverse = ir.invert(F, y)
    >>> bool(ir.bounds.inverse_ball(F, inverse.x, y).radius[0] < 1e-5)
    True
    """
    block.require(y, "y", check=False)
    require_batch(x, block.branch.event_shape, "x", check=False)
    require_alike(x, y, "x")
    if check:
        require_finite(y, y=y, x=x)
    if x.shape[0] != y.shape[0]:
        raise ShapeError(f"x: expected {y.shape[0]} rows like y, got {x.shape[0]}; pass the y that x was computed from")
    stretch, lipschitz = block.least_stretch(), block.certificate.bound if block.lipschitz is None else block.lipschitz
    flushed = rounding.smallest_normal(x)  # also by the conversion
    block, (x, y) = in_float64(block, x, y)
    size, radius = _radius(block, x, y, stretch, flushed)
    return Ball(radius, size, lipschitz, rounding.unit_roundoff(x), stretch)


def _radius(block: ResidualBlock, x: Array, y: Array, stretch: float, flushed: float) -> tuple[Array, Array]:
    """Return ‖r̂‖ and (‖r̂‖ + ρ)/μ per row in the block's norm, evaluated in the arithmetic of x."""
    xp = namespace(x)
    u = rounding.unit_roundoff(x)
    event, p = x.ndim - 1, block.norm
    n = math.prod(x.shape[1:])
    g, error, _, _ = block.branch.running_error(x, flushed)
    difference = y - x
    size_r = row_norm(difference - g, event, p)
    total = size_r * (1.0 + u) + error + u * row_norm(difference, event, p)
    total = total * (1.0 + (2 * n + 32) * u) + 4.0 * n * flushed
    radius = total / stretch * (1.0 + 8.0 * u)
    return size_r, xp.where(xp.isnan(radius), xp.full_like(radius, math.inf), radius)
