"""A bound on the error of an exact log-determinant: log det(I + J) is enclosed, in float64 where there is float64.

M, a rotation of the chain of J, has ‖M‖₂ ≤ P = Π‖A_i‖ΠLip(φ_i) < 1 and the narrowest dimension n; M̂ = M + δM is computed. With
t = ‖δM‖_*/(1 − P) < 1 the eigenvalues λ of (I + M)⁻¹δM have Σ|λ| ≤ t (Weyl), so

    |log det(I + M̂) − log det(I + M)| = |Σ log|1 + λ|| ≤ −log(1 − t) ≤ t/(1 − t).

‖δM‖_* ≤ Σ_i ‖δD_i‖_* Π_{j≠i}‖F_j‖ + nγ_K Π‖|F_i|‖: the activations' derivatives are off by their own rounding and by that of
their arguments (`error_analysis.jacobian`), and the factors are multiplied in any association with K roundings a term.
log|det(I + M̂)| is enclosed by measured residuals of its factors (`factor_residuals`): no factorisation is trusted.
"""

from __future__ import annotations

import math
from itertools import accumulate

from iresnet_ref.arrays import Array, every_row, namespace, public, size
from iresnet_ref.arrays.validation import require_alike, require_finite, require_full_precision, require_real
from iresnet_ref.block import ResidualBlock, in_float64
from iresnet_ref.error_analysis.forward import no_error
from iresnet_ref.error_analysis.jacobian import JacobianError, jacobian_errors, telescoped
from iresnet_ref.errors import ShapeError
from iresnet_ref.log_determinant.exact import cuts_of, exact_logdet
from iresnet_ref.log_determinant.factor_residuals import enclosed
from iresnet_ref.rounding import down, gamma, smallest_normal, unit_roundoff


@public
def logdet_error_bound(block: ResidualBlock, x: Array, value: Array | None = None, *, check: bool = True) -> Array:
    """Return, per row, a proved bound on |value − log det(I + J_g(x))| in nats; `value` is that of `logdet(block, x, "exact")`.

    |value − m| + ρ, where [m − ρ, m + ρ] contains the log-determinant: see the module. Array `value` may be given, whatever it was computed
    with; left out, the exact one is computed again, of the whole batch as `logdet` does it. The enclosure is evaluated in float64 on x's
    device wherever there is float64, whatever the dtype of x, as by `inverse_ball`: the bound is then of the size of the error, while
    float32 arithmetic proves nothing of most branches of ten layers. Where a device has none (MPS, TPU, JAX without x64), move block and x
    to the CPU.
    Cost: a forward pass with its errors, J, a QR factorisation, an inverse and four products of n × n matrices a row.

    It is inf where t ≥ 1 (low precision, or a kink, a tie of sorted channels, within rounding of the argument), where
    Lip(g) < 1 is stated but not proved, and for blocks that contract in another norm than the 2-norm.
    Shapes: x (batch, *event), value (batch,); the result (batch,) of x's dtype.
    Limits: the assumptions on the arithmetic in docs/proofs.md.
    Raises: NotContractiveError, ShapeError, DTypeError, NonFiniteError. Reference: Higham 2002, §3.5; docs/proofs.md has the proof.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((4, 16, 4), lipschitz=0.9))
    >>> x = np.ones((1, 4))
    >>> bool(logdet_error_bound(F, x)[0] < 1e-11)
    True
    >>> bool(logdet_error_bound(F, x, ir.logdet(F, x).value + 0.5)[0] >= 0.5)
    True
    """
    block.require(x, "x", check=check, products=True)
    if value is None:
        require_full_precision(x, "logdet_error_bound, of the exact value", "the block with weights and inputs cast to float32")
    else:
        _require_value(value, x, check)
    block.contraction()
    xp, unproved = namespace(x), every_row(x, math.inf)
    if block.norm != 2.0 or 0 in x.shape:  # only the 2-norm is treated below
        return unproved
    chain = block.branch.jacobian(x)
    start = chain.narrowest_index()
    if block.branch.rotation_bound(start) >= 1.0:
        return unproved
    value = exact_logdet(chain, contracts=block.contracts_from(start)) if value is None else value
    wide, (at,) = in_float64(block, x)
    middle, radius = _enclosure(wide, at, smallest_normal(x))
    bound = xp.abs(xp.astype(value, at.dtype) - middle) + radius
    bound = xp.astype(bound * (1.0 + 8.0 * unit_roundoff(x)) + smallest_normal(x), x.dtype)
    return xp.where(bound < math.inf, bound, unproved)  # NaN too


def _require_value(value: Array, x: Array, check: bool) -> None:
    require_real(value, "value")
    require_alike(value, x, "value")
    if tuple(value.shape) != tuple(x.shape[:1]):
        got, wanted = tuple(value.shape), tuple(x.shape[:1])
        raise ShapeError(f"value: expected shape {wanted}, one for each row of x, got {got}; try logdet(…).value")
    if check:
        require_finite(value=value)


def _enclosure(block: ResidualBlock, x: Array, flushed: float) -> tuple[Array, Array]:
    """Return (m, ρ) with |m − log det(I + J)| ≤ ρ per row, evaluated in the arithmetic of x; ρ is inf where t ≥ 1."""
    xp, layers = namespace(x), block.branch.layers
    events = list(accumulate(layers[:-1], lambda event, layer: layer.out_shape(event), initial=block.branch.event_shape))
    sizes = [size(event) for event in events]
    factors, n = jacobian_errors(layers, x, no_error(x, 2.0, flushed)), min(sizes)
    chain = block.branch.jacobian(x)
    contraction = block.branch.rotation_bound(chain.narrowest_index())
    nuclear = _rounding_of_products(factors, n, unit_roundoff(x), flushed) + telescoped(factors)
    on_top = 1.0 + (2 * max(sizes) + 64) * unit_roundoff(x)
    t = nuclear * (on_top / down(1.0 - contraction, 1))
    inside = t < 1.0
    t = xp.where(inside, t, xp.zeros_like(t))
    chain = chain.narrowest().merged()
    parts = [enclosed(chain.take(cut).dense()) for cut in cuts_of(chain)]
    middle, radius = (xp.concat(of, axis=0) for of in zip(*parts, strict=True))
    return middle, xp.where(inside, (radius + t / (1.0 - t)) * on_top, xp.full_like(t, math.inf))


def _rounding_of_products(factors: list[JacobianError], n: int, u: float, flushed: float) -> float:
    """Return nγ_K Π‖|F_i|‖, and what underflow may lose."""
    terms = sum(factor.terms for factor in factors)
    absolute = math.prod(factor.absolute for factor in factors)
    underflow = n * terms * flushed * math.prod(1.0 + factor.absolute for factor in factors)
    return n * gamma(terms, u) * absolute + underflow
