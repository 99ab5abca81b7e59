"""F(x) = y where m < 1 is proved but Lip(g) < 1 is not: the block θF, whose branch θF − id = (θ − 1)x + θg(x) contracts by r.

θF(x) = θy is solved as every residual block is, with r in place of Lip(g). A residual of θF is θ times that of F, so a tolerance of θ·rtol
is one of rtol for F, and ‖x − x*‖ ≤ (‖r̃‖ + ρ̃ + u‖θy‖)/(1 − r), the last term for the rounding of θy; θ − 1 is exact.
"""

from __future__ import annotations

from dataclasses import replace

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, device, namespace, row_norm
from iresnet_ref.block import ResidualBlock
from iresnet_ref.branches.branch import Branch
from iresnet_ref.branches.certificates.two_sided import TwoSided
from iresnet_ref.inversion.result import Inverse
from iresnet_ref.layers.diagonal import DiagonalAffine
from iresnet_ref.layers.parallel import Parallel


def damping_of(block: ResidualBlock) -> TwoSided | None:
    """Return the proved step and rate where they are all there is: L ≥ 1 and nothing stated."""
    known = block.branch.two_sided
    if known is None or block.lipschitz is not None or block.certificate.bound < 1.0:
        return None
    return known if known.rate < 1.0 else None


def damped_block(block: ResidualBlock, damping: TwoSided) -> ResidualBlock:
    """Return θF as a block."""
    branch, xp = block.branch, namespace(block.branch.like)
    origin = xp.zeros(branch.event_shape, dtype=branch.like.dtype, device=device(branch.like))

    def scaled(factor: float) -> DiagonalAffine:
        return DiagonalAffine(xp.full_like(origin, factor), origin)

    theta = damping.step
    layers = (Parallel(((scaled(theta - 1.0),), (*branch.layers, scaled(theta)))),)
    return ResidualBlock(Branch(layers, branch.event_shape), damping.rate)


def undamped(result: Inverse, y: Array, damping: TwoSided) -> Inverse:
    """Return the result of θF at θy as one of F at y."""
    u = rounding.unit_roundoff(y)
    moved = 4.0 * u * damping.step * row_norm(y, y.ndim - 1) / rounding.down(1.0 - damping.rate, 1)
    return replace(
        result, residual_norm=result.residual_norm / damping.step, error_bound=result.error_bound * (1.0 + 4.0 * u) + moved,
        method=f"damped {result.method}",
    )  # fmt: skip
