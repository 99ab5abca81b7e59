"""A bound on the error of the exact log-determinant: the rounding of J, and of its determinant.

The value is that of a computed matrix M̂ = M + δM, M a rotation of the chain of J with ‖M‖₂ ≤ P = Π‖A_i‖ΠLip(φ_i) < 1, of the narrowest
dimension n. With t = ‖δM‖_*/(1 − P) < 1 the eigenvalues λ of (I + M)⁻¹δM have Σ|λ| ≤ t (Weyl), so

    |log det(I + M̂) − log det(I + M)| = |Σ log|1 + λ|| ≤ −log(1 − t).

‖δM‖_* ≤ Σ_i ‖δD_i‖_* Π_{j≠i}‖F_j‖ + nγ_K Π‖|F_i|‖: the activations' derivatives are off by their own rounding and by that of
their arguments (`error_analysis.jacobian`), and the factors are multiplied in any association with K roundings a term. The
determinant of M̂ adds ε/(1 − t), ε = 8nu/(1 − P) − n²u·log(1 − P): the factorisation, and n logarithms summed one by one.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

from iresnet_ref import rounding
from iresnet_ref.arrays import device, namespace, public, size
from iresnet_ref.block import ResidualBlock
from iresnet_ref.error_analysis.forward import no_error
from iresnet_ref.error_analysis.jacobian import JacobianError, jacobian_errors, telescoped
from iresnet_ref.rounding import down


@public
def logdet_error_bound(block: ResidualBlock, x: Any, *, check: bool = True) -> Any:
    """Return, per row, a bound on |value − log det(I + J_g(x))| of `logdet(block, x, method="exact")`, in nats.

    −log(1 − t) + ε/(1 − t), t = ‖δM‖_*/(1 − P): see the module. Measured cost: two to six forward passes, no determinant.

    The first term is proved, under the assumptions on the arithmetic in docs/proofs.md. The second is derived, not
    proved: LU with partial pivoting has no useful a-priori bound; docs/proofs.md has the measurements.
    For J so small that the value is tr J − tr J²/2, ε is the proved rounding and remainder of that.

    It is inf where t ≥ 1 (low precision, or a kink, a tie of sorted channels, within rounding of the argument), where
    Lip(g) < 1 is stated but not proved, and for blocks that contract in another norm than the 2-norm.
    Shapes: x (batch, *event); the result (batch,) of x's dtype.
    Raises: NotContractiveError, ShapeError, DTypeError, NonFiniteError. Reference: Higham 2002, §3.5 and §14.6.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((4, 16, 4), lipschitz=0.9))
    >>> bool(logdet_error_bound(F, np.ones((1, 4)))[0] < 1e-11)
    True
    """
    block.require(x, "x", check=check, products=True)
    block.contraction()
    xp = namespace(x)
    u = rounding.unit_roundoff(x)
    unproved = xp.full(x.shape[:1], math.inf, dtype=x.dtype, device=device(x))
    product = block.branch.product.bound  # of every rotation, which no other bound is; only the 2-norm is treated below
    if product >= 1.0 or block.norm != 2.0:
        return unproved
    layers = block.branch.layers
    events = accumulate(layers[:-1], lambda event, layer: layer.out_shape(event), initial=block.branch.event_shape)
    factors, sizes = jacobian_errors(layers, x, no_error(x)), [size(event) for event in events]
    n, gap = min(sizes), down(1.0 - product, 1)
    nuclear = _rounding_of_products(factors, n, x) + telescoped(factors)
    on_top = 1.0 + (2 * max(sizes) + 64) * u
    t = nuclear * (on_top / gap)
    inside = t < 1.0
    t = xp.where(inside, t, xp.zeros_like(t))
    error = (_determinant(n, u, product, gap) / (1.0 - t) - xp.log1p(-t)) * on_top
    return xp.where(inside, error, unproved)


def _rounding_of_products(factors: list[JacobianError], n: int, x: Any) -> float:
    """Return nγ_K Π‖|F_i|‖, and what underflow may lose."""
    terms = sum(factor.terms for factor in factors)
    absolute = math.prod(factor.absolute for factor in factors)
    underflow = n * terms * rounding.smallest_normal(x) * math.prod(1.0 + factor.absolute for factor in factors)
    return n * rounding.gamma(terms, rounding.unit_roundoff(x)) * absolute + underflow


def _determinant(n: int, u: float, product: float, gap: float) -> float:
    """Return ε, or the rounding and the remainder of tr M − tr M²/2 where ‖M‖_F ≤ √nP is sure to choose that."""
    frobenius = math.sqrt(n) * product
    factorised = 8.0 * n * u / gap - n * n * u * math.log(gap)
    if frobenius >= 0.99 * u ** (1.0 / 3.0):
        return factorised
    return min(factorised, 2.0 * n * (n + 2) * u * product + 0.5 * frobenius**3)
