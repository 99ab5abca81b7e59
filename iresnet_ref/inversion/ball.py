"""The ball around a computed inverse that contains the true preimage, rounding included.

r(x) = y − x − g(x) has ‖x − x*‖ ≤ ‖r(x)‖/(1 − L) for the exact preimage x* of y ([B19] Thm 1). Known is r̂ = fl r(x), with
‖r̂ − r(x)‖ ≤ ρ = s(x) + u‖fl(y − x)‖ + u‖r̂‖, s the running error bound of g (`error_analysis.forward`). docs/proofs.md derives each
line, and names what is assumed of the arithmetic.

On a box with Lip(g) ≤ K < 1 let the ball B of radius ϱ = ‖r(x)‖/(1 − K) around x lie in the box. Then T(z) = y − g(z) has
‖T(z) − x‖ ≤ ‖T(z) − T(x)‖ + ‖T(x) − x‖ ≤ Kϱ + ‖r(x)‖ = ϱ for z ∈ B: T maps B into itself and contracts there. So y has a preimage in B, and
no other one in the box (Banach; as in Newton–Kantorovich), also where g contracts nowhere else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, HostArray, device, namespace, public, row_norm, to_host
from iresnet_ref.arrays.validation import require_alike, require_batch, require_finite
from iresnet_ref.block import ResidualBlock, in_float64
from iresnet_ref.branches.certificates.box import BoxCertificate
from iresnet_ref.errors import NotContractiveError, ShapeError


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
    """μ ≥ 1 − L of ‖ΔF‖ ≥ μ‖Δx‖ everywhere; 0 where nothing is proved."""
    box: float | None = None
    """K ≥ Lip(g) on the box of `within`."""
    inside: HostArray | None = None
    """Per row, whether the ball of K lies in the box, so that it holds a preimage, and the box no other one."""

    @property
    def reason(self) -> str:
        """What the radius is made of, or why rows are without one."""
        if self.box is None or self.inside is None:
            return self._everywhere()
        within = f"(‖r̂‖ + ρ)/(1 − K) with Lip(g) ≤ K = {self.box:.6g} on the box"
        if self.box >= 1.0:
            return f"on the box nothing below 1 is proved of Lip(g), {self.box:.6g}: {self._everywhere()}"
        if self.inside.all():
            return f"{within}, in which all balls lie; rounding ρ for u = {self.roundoff:.3g}"
        first = int(np.flatnonzero(~self.inside)[0])
        left = f"{int((~self.inside).sum())} rows, the first of them {first}, have a ball that is not proved to lie in it: there "
        return f"{within}; {left}{self._everywhere()}"

    def _everywhere(self) -> str:
        """Say what the radius of the whole space is made of."""
        if self.stretch == 0.0:
            return "no radius: Lip(g) < 1 is not proved everywhere; try a larger box, or an x nearer to the preimage"
        missing = [i for i, radius in enumerate(to_host(self.radius)) if not math.isfinite(radius)]
        if not missing:
            return f"(‖r̂‖ + ρ)/μ with μ = {self.stretch:.6g} and Lip(g) ≤ {self.lipschitz:.6g}, rounding ρ for u = {self.roundoff:.3g}"
        return (
            f"no radius for row {missing[0]} ({len(missing)} rows in all): the rounding of its residual is not bounded "
            f"within the range of an arithmetic with u = {self.roundoff:.3g}; use float64, on the CPU "
            "if this device has none, or smaller inputs"
        )


@public
def inverse_ball(block: ResidualBlock, x: Array, y: Array, *, within: BoxCertificate | None = None, check: bool = True) -> Ball:
    """Return a ball around x, however x was found, that contains the exact preimage of y: radius (‖r̂‖ + ρ)/(1 − L) per row.

    The residual is evaluated in float64 on x's device wherever there is float64, whatever the dtype of x: a float32
    inverse gets a radius of the size of its error, where float32 arithmetic proves one 1e2 to 1e5 times wider. The cost
    is about three forward passes in that precision. Unlike `Inverse.error_bound` the ball is about the exact preimage
    only, not about every x′ whose rounded F(x′) equals y.

    `within` = `ir.certify(block, within=box)` with a constant K < 1 gives (‖r̂‖ + ρ)/(1 − K) on rows whose ball of that radius lies in the
    box, where that is less: the ball is proved to hold a preimage, the only one in the box, although Lip(g) may be 1 or more elsewhere.
    The other rows have the radius of the whole space, inf where none is proved, and `reason` says so. x may come from anywhere, such as
    `ir.invert` of a block that states `lipschitz=K`; from x₀ in the box Banach's iteration stays there if its ball does.

    Shapes: x and y (batch, *event); the radius has the dtype in which the residual was evaluated.
    Limits: it assumes IEEE arithmetic (no TF32) and elementary functions as accurate as declared, as docs/proofs.md says;
    with a stated lipschitz= it rests on that constant.
    Raises: NotContractiveError (Lip(g) < 1 neither proved nor stated, and no `within`), ShapeError, DTypeError, NonFiniteError,
    ValueError for a certificate of another branch.
    Reference: [B19] Thm 1 with rounding added.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5, like=np.zeros(1, dtype=np.float32)))
    >>> y = F(np.ones((1, 2), dtype=np.float32))
    >>> inverse = ir.invert(F, y)
    >>> bool(ir.bounds.inverse_ball(F, inverse.x, y).radius[0] < 1e-5)
    True
    >>> here = ir.certify(F, within=(-3 * np.ones(2, dtype=np.float32), 3 * np.ones(2, dtype=np.float32)))
    >>> ir.bounds.inverse_ball(F, inverse.x, y, within=here).inside.tolist()
    [True]
    """
    block.require(y, "y", check=False)
    require_batch(x, block.branch.event_shape, "x", check=False)
    require_alike(x, y, "x")
    if check:
        require_finite(y, y=y, x=x)
    if x.shape[0] != y.shape[0]:
        raise ShapeError(f"x: expected {y.shape[0]} rows like y, got {x.shape[0]}; pass the y that x was computed from")
    if within is not None and not (within.layers is block.branch.layers and within.norm == block.norm):
        raise ValueError("within: expected a certificate of this very branch, got that of another one; try ir.certify(block, within=box)")
    lipschitz = block.certificate.bound if block.lipschitz is None else block.lipschitz
    try:
        stretch = block.least_stretch()
    except NotContractiveError:
        if within is None:
            raise
        stretch = 0.0
    flushed = rounding.smallest_normal(x)  # also by the conversion
    block, (x, y) = in_float64(block, x, y)
    size, total = _residual(block, x, y, flushed)
    radius = _over(total, stretch)
    ball = Ball(radius, size, lipschitz, rounding.unit_roundoff(x), stretch)
    if within is None:
        return ball
    local = _over(total, rounding.down(1.0 - within.bound, 1) if within.bound < 1.0 else 0.0)
    inside = within.contains(to_host(x), to_host(local))
    xp = namespace(x)
    closer = xp.where(xp.asarray(inside, dtype=xp.bool, device=device(x)), xp.minimum(local, radius), radius)
    return replace(ball, radius=closer, box=within.bound, inside=inside)


def _residual(block: ResidualBlock, x: Array, y: Array, flushed: float) -> tuple[Array, Array]:
    """Return ‖r̂‖ and ‖r̂‖ + ρ per row in the block's norm, evaluated in the arithmetic of x."""
    u = rounding.unit_roundoff(x)
    event, p = x.ndim - 1, block.norm
    n = math.prod(x.shape[1:])
    g, error, _, _ = block.branch.running_error(x, flushed)
    difference = y - x
    size_r = row_norm(difference - g, event, p)
    total = size_r * (1.0 + u) + error + u * row_norm(difference, event, p)
    total = total * (1.0 + (2 * n + 32) * u) + 4.0 * n * flushed
    return size_r, total


def _over(total: Array, stretch: float) -> Array:
    """Return total/stretch, rounded up; inf where there is none."""
    xp = namespace(total)
    radius = total / stretch * (1.0 + 8.0 * rounding.unit_roundoff(total)) if stretch > 0.0 else xp.full_like(total, math.inf)
    return xp.where(xp.isnan(radius), xp.full_like(radius, math.inf), radius)
