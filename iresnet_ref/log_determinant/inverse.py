"""log|det dF⁻¹/dy| = −log det(I + J_g(x)) at x = F⁻¹(y), with what the error of x̂ can change.

Along a segment |d log det(I + J)| = |tr((I + J)⁻¹dJ)| ≤ ‖dJ‖_*/(1 − L), and each term of dJ has rank at most r, the narrowest
dimension: ‖dJ‖_* ≤ r S‖dx‖, S the Lipschitz constant of x ↦ J(x) in the spectral norm as the sum over the layers gives it.
Layer by layer, with Λ the Lipschitz constant in front: a linear one has Λ ← ‖A‖Λ, S ← ‖A‖S; an activation S ← sup|φ″|Λ² + Lip(φ)S,
Λ ← Lip(φ)Λ. Without a bound on φ″ (ReLU: φ′ jumps) what stays is that both values lie in [r log(1 − L), r log(1 + L)].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, namespace, public
from iresnet_ref.block import ResidualBlock
from iresnet_ref.inversion.result import Inverse
from iresnet_ref.inversion.solve import invert_block
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.layers.activations import Activation
from iresnet_ref.layers.layer import Layer
from iresnet_ref.log_determinant.evaluate import logdet_of_block
from iresnet_ref.log_determinant.methods import LogDetMethod, Name
from iresnet_ref.log_determinant.result import LogDet


@dataclass(frozen=True)
class InverseLogDet(LogDet):
    """A `LogDet` of F⁻¹ at y: `inverse` is the computed x̂ = F⁻¹(y) with its certificate.

    `displacement_bound` ≥ |log det at x̂ − log det at the exact preimage| per row: what the error of x̂ adds to `bias_bound`.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> back = ir.logdet_of_inverse(F, F(np.ones((3, 2))), "exact")
    >>> bool(np.max(back.displacement_bound) < 1e-9), tuple(back.inverse.x.shape)
    (True, (3, 2))
    """

    inverse: Inverse | None = None
    displacement_bound: Array | None = None


@public
def logdet_of_inverse(
    block: ResidualBlock,
    y: Array,
    method: LogDetMethod | Name = "auto",
    *,
    rtol: float | None = None,
    throw: bool = True,
    check: bool = True,
) -> InverseLogDet:
    """Return log|det dF⁻¹/dy| = −log det(I + J_g(x)) per row at x = F⁻¹(y), in nats; `method` as in `ir.logdet`.

    The log-determinant belongs to the point x, not to y. The error of the computed x̂ changes it by at most
    `displacement_bound` = min(r S ε/(1 − L), r log((1 + L)/(1 − L))), ε = `inverse.error_bound`, r the narrowest dimension and
    S a Lipschitz constant of x ↦ J(x). For kinked activations S is infinite: the second bound is all that is known then, and
    it does not depend on ε.

    Shapes: y (batch, *event). `rtol` (default u^(3/4)) and `throw` are those of `invert`.
    Raises: as `invert` and `logdet`; ConvergenceError with `.result` where rounding keeps a row above rtol, unless
    `throw=False`. Reference: [B19] Thm 1 and §3.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> x = np.array([[1.0, -2.0]])
    >>> back = ir.logdet_of_inverse(F, F(x), "exact")
    >>> bool(abs(back.value + ir.logdet(F, x, "exact").value)[0] <= back.displacement_bound[0] + 1e-14)
    True
    """
    block.require(y, "y", check=check, products=True)
    rtol = float(rounding.unit_roundoff(y) ** 0.75) if rtol is None else rtol
    inverse = invert_block(block, y, rtol=rtol, throw=throw, check=False)
    forward = logdet_of_block(block, inverse.x, method, check=False)
    known = {f.name: getattr(forward, f.name) for f in fields(forward)}
    known["value"] = -forward.value
    known["skewness"] = None if forward.skewness is None else -forward.skewness
    return InverseLogDet(**known, inverse=inverse, displacement_bound=_displacement(block, inverse))


def _displacement(block: ResidualBlock, inverse: Inverse) -> Array:
    """Return min(r S ε/(1 − L), r log((1 + L)/(1 − L))) per row; the first in the 2-norm only."""
    xp, lipschitz = namespace(inverse.x), block.contraction()
    if block.branch.awaits_proof:
        return xp.full_like(inverse.error_bound, math.inf)
    _, chain = block.branch.linearize(inverse.x[:1, ...])
    rank = chain.rank
    epsilon = inverse.error_bound
    anywhere = xp.full_like(epsilon, rank * (math.log1p(lipschitz) - math.log1p(-lipschitz)))
    slope = rounding.up(rank * jacobian_lipschitz(block, chain) / (1.0 - lipschitz), 8)
    return xp.minimum(slope * epsilon, anywhere) if slope < math.inf and block.norm == 2.0 else anywhere


def jacobian_lipschitz(block: ResidualBlock, chain: Chain) -> float:
    """Return S with Σ over layers of the norms of the terms of dJ ≤ S‖dx‖, inf where a φ″ is not bounded."""
    before, slope = 1.0, 0.0
    for layer, factor in zip(block.branch.layers, chain.factors, strict=True):
        norm = layer.norm_bound()
        bend = 0.0 if factor.shared else _curvature(layer)
        slope, before = rounding.up(bend * before * before + norm * slope), rounding.up(norm * before)
    return slope


def _curvature(layer: Layer) -> float:
    """Return the Lipschitz constant of φ′, inf for one that jumps and for other layers whose Jacobian depends on the point."""
    phi = getattr(layer, "activation", None)
    return phi.curvature if isinstance(phi, Activation) and phi.jump == 0.0 else math.inf
