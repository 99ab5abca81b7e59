"""The gradient through the inverse, by the implicit function theorem.

F(x; θ) = y gives (I + J)dx = dy − ∂g/∂θ dθ: a cotangent x̄ of x = F⁻¹(y) becomes ȳ = (I + J)⁻ᵀx̄ and θ̄ = −(∂g/∂θ)ᵀȳ. No
iterate of the inversion is stored or differentiated.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, indices, namespace, public, row_norm, to_host
from iresnet_ref.arrays.validation import require_full_precision
from iresnet_ref.block import ResidualBlock
from iresnet_ref.errors import ConvergenceError
from iresnet_ref.gradient.adjoint import dual, solve_adjoint
from iresnet_ref.gradient.log_determinant import logdet_gradient, require, require_names
from iresnet_ref.gradient.result import InverseGradient
from iresnet_ref.log_determinant.methods import LogDetMethod, Name


@public
def inverse_gradient(
    block: ResidualBlock,
    x: Array,
    x_bar: Array | None = None,
    *,
    weights: Array | None = None,
    rtol: float | None = None,
    method: LogDetMethod | Name = "auto",
    parameters: Collection[str] | None = None,
    throw: bool = True,
    check: bool = True,
) -> InverseGradient:
    """Return the gradient of Σ x̄ᵀF⁻¹(y) + Σ_b w_b log|det dF⁻¹/dy|(y_b) with respect to the parameters and y.

    `x` (batch, *event) is the preimage of y, from `ir.invert`; `x_bar` the cotangent of x and `weights` (batch,) those of
    the inverse's log-determinants, each zero if left out. ȳ = (I + J)⁻ᵀx̄ is solved on the stored chain of x until
    ‖x̄ − (I + J)ᵀȳ‖ ≤ rtol·‖x̄‖ on each row, and θ̄ = −(∂g/∂θ)ᵀȳ. Of the log-determinant, −log det(I + J(x)), both the direct
    part and the part through x are counted; `method` as in `logdet_gradient`. `rtol` defaults to
    u^(3/4): three quarters of the digits.

    Guarantee: ‖ȳ − (I + J)⁻ᵀx̄‖ ≤ residual_norm/(1 − L), the result's `error_bound`, up to rounding; the norms are dual to the
    block's, 2 to 2 and 1 to ∞. An error δ in x moves the
    gradient by O(δ): invert to a tolerance that suits.

    Raises: ConvergenceError with `.result` where rounding keeps a row above rtol (unless `throw=False`),
    NotContractiveError, ShapeError, DTypeError, NonFiniteError, ValueError. Reference: [B19] §3.1 (the inverse);
    Bai et al. 2019, arXiv 1909.01377, Thm 1 (implicit differentiation of a fixed point).

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> x = ir.invert(F, np.ones((3, 2)), rtol=1e-12).x
    >>> gradient = ir.inverse_gradient(F, x, np.ones((3, 2)))
    >>> bool(np.max(gradient.residual_norm) < 1e-11)
    True
    """
    if x_bar is None and weights is None:
        raise ValueError("inverse_gradient: expected a cotangent, x_bar or weights, got neither; try x_bar=ones_like(x)")
    require(block, x, weights, x_bar, check=check, cotangent="x_bar", products=True)
    require_full_precision(x, "inverse_gradient", "the block with weights and inputs cast to float32")
    wanted = require_names(block, parameters)
    rtol = float(rounding.unit_roundoff(x) ** 0.75) if rtol is None else rtol
    if not 0.0 < rtol < 1.0:
        raise ValueError(f"inverse_gradient: expected 0 < rtol < 1, got {rtol}; leave it out for u^(3/4)")
    lipschitz = block.contraction()
    xp = namespace(x)
    total = xp.zeros_like(x) if x_bar is None else x_bar
    direct = None
    if weights is not None:
        direct = logdet_gradient(block, x, method, weights=-weights, check=False)
        total = total + direct.x_bar
    tape = block.branch.record(x)
    q = dual(block.norm)
    size = row_norm(total, x.ndim - 1, q)
    goal = rtol * size
    z, norm, products, used = solve_adjoint(tape.jacobian, total, goal, lipschitz, q)
    _, _, through = tape.pullback(z)
    gradients = {k: -through[k] if direct is None else direct.parameters[k] - through[k] for k in wanted}
    bound = xp.full_like(norm, math.inf) if block.branch.awaits_proof else norm / (1.0 - lipschitz)
    result = InverseGradient(gradients, z, norm, bound, indices(np.full(x.shape[0], products), x), used)
    if throw and bool(xp.any(norm > goal)):
        worst = float(np.max(to_host(norm / xp.where(size > 0.0, size, xp.ones_like(size)))))
        raise ConvergenceError(
            f"inverse_gradient: expected ‖x̄ − (I + J)ᵀȳ‖ ≤ {rtol:g}‖x̄‖ on every row, got {worst:.3g} after {products} "
            "products, at the rounding floor or too slowly: try a larger rtol or float64 (the result is in .result)",
            result,
        )
    return result
