"""Proofs in host float64: ‖A‖₂ ≤ c by a shifted Cholesky factorisation, Lip(g), and the ball around a computed inverse.

*Norms.* Let G = WᵀW for W with m ≥ n = number of columns, Ĝ its float64 value, c₂ ≤ c² and Ã = fl(c₂I − Ĝ − sI). If the
floating-point Cholesky factorisation of Ã runs to the end with a positive diagonal, its factor R̂ has R̂ᵀR̂ = Ã + Δ with
‖Δ‖₂ ≤ κ tr Ã, κ = γ_{n+1}/(1 − γ_{n+1}) (Rump, *Verification of positive definiteness*, BIT 46, 2006; Demmel 1989), hence
Ã ⪰ −κ tr(Ã) I. With ‖Ĝ − G‖₂ ≤ γ_m max_i (|W|ᵀ|W|1)_i and the rounding δ of the diagonal,

    c²I − WᵀW ⪰ (s − κ tr Ã − ‖Ĝ − G‖₂ − δ) I ⪰ 0    once    s ≥ κ tr Ã + ‖Ĝ − G‖₂ + δ,

that is ‖W‖₂ ≤ c. The inner products may be summed in any order, with or without fused multiply-add, but must be IEEE
float64: this runs on the host, on exactly converted weights. `docs/proofs.md` derives each line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from iresnet_ref import rounding
from iresnet_ref.arrays import device, namespace, row_norm
from iresnet_ref.rounding import down, gamma, up

if TYPE_CHECKING:
    from iresnet_ref.block import ResidualBlock
    from iresnet_ref.branch import Branch

Matrix = npt.NDArray[np.float64]
_U = rounding.FLOAT64_ROUNDOFF


@dataclass(frozen=True)
class Certificate:
    """A proved upper bound on a Lipschitz constant; `bound` is inf, and `reason` says why, where nothing is proved."""

    bound: float
    proved: bool
    reason: str


def proves_norm_at_most(weight: Matrix, c: float) -> bool:
    """Return whether float64 arithmetic proves ‖W‖₂ ≤ c; False means "not proved", not "false".

    Slack: succeeds for c ≥ ‖W‖₂(1 + about n²u), n the smaller side.

    >>> w = np.diag([0.9, 0.3])
    >>> proves_norm_at_most(w, 0.9 * (1 + 1e-14)), proves_norm_at_most(w, 0.9 * (1 - 1e-14))
    (True, False)
    """
    w = np.asarray(weight, dtype=np.float64)
    if w.size == 0:
        return c >= 0.0
    if not np.isfinite(w).all() or not math.isfinite(c) or c <= 0.0:
        return bool(c == 0.0 and not w.any())
    if w.shape[0] < w.shape[1]:
        w = w.T
    scale = 2.0 ** -math.frexp(max(c, float(np.abs(w).max())))[1]  # a power of two: exact unless it underflows
    w, c = w * scale, c * scale
    m, n = w.shape
    # What underflow can lose in Ĝ, in the scaling and in the factorisation, with everything of size at most about 1.
    underflow = 8.0 * (m + n) * n * np.finfo(np.float64).tiny
    gram = w.T @ w
    absolute = np.abs(w)
    gram_error = gamma(m, _U) * float((absolute.T @ (absolute @ np.ones(n))).max())
    c_squared = c * c * (1.0 - 2.0 * _U)
    diagonal = c_squared - np.diag(gram)
    diagonal_error = 4.0 * _U * (c_squared + float(np.diag(gram).max()))
    kappa = gamma(n + 1, _U) / (1.0 - gamma(n + 1, _U))
    shift = kappa * float(np.abs(diagonal).sum()) + gram_error + diagonal_error
    shift = shift * (1.0 + 2.0 * (m + 2 * n + 16) * _U) + underflow
    shifted = -gram
    shifted[np.diag_indices(n)] = diagonal - shift
    try:
        factor = np.linalg.cholesky(shifted)
    except np.linalg.LinAlgError:
        return False
    pivots = np.diag(factor)
    return bool(np.isfinite(factor).all() and (pivots > 0.0).all())


def norm_bound(weight: Matrix) -> float:
    """Return a proved upper bound on ‖W‖₂, about n²u above it; inf where none can be proved (non-finite entries).

    The candidate comes from the largest eigenvalue of the smaller Gram matrix; the proof does not trust it.

    >>> 0.5 <= norm_bound(np.diag([0.5, 0.1])) <= 0.5 * (1 + 1e-14)
    True
    """
    w = np.asarray(weight, dtype=np.float64)
    if w.size == 0 or not w.any():
        return 0.0
    if not np.isfinite(w).all():
        return math.inf
    magnitude = float(np.abs(w).max())
    if not 1e-100 < magnitude < 1e100:  # the Gram matrix would leave the range of float64
        return up(float(np.abs(w).sum()), w.size)
    gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    estimate = math.sqrt(max(float(np.linalg.eigvalsh(gram)[-1]), 0.0))
    slack = max(0.5 * gram.shape[0] * (gram.shape[0] + 4), 4.0) * _U
    while slack < 1.0:
        if proves_norm_at_most(w, estimate * (1.0 + slack)):
            return estimate * (1.0 + slack)
        slack *= 2.0
    return up(float(np.sqrt((w * w).sum())), w.size)


def absolute_norm_bound(weight: Matrix) -> float:
    """Return √(‖W‖₁‖W‖_∞) ≥ ‖|W|‖₂, rounded up."""
    a = np.abs(np.asarray(weight, dtype=np.float64))
    return up(math.sqrt(float(a.sum(axis=0).max(initial=0.0)) * float(a.sum(axis=1).max(initial=0.0))), sum(a.shape))


def certify(subject: Branch | ResidualBlock) -> Certificate:
    """Return a proved bound on Lip(g): the product of proved operator norms and activation constants, rounded up.

    The certificate belongs to the weights as they are now: branches are values, so it is computed once per object.
    Raises nothing; where no bound is proved, `bound` is inf and `reason` names the layer.

    Reference: [B19] §2 (Lip of a composition); Rump 2006 for the norms.

    >>> import numpy as np, iresnet_ref as ir
    >>> c = ir.certify(ir.mlp((2, 8, 2), lipschitz=0.9, like=np.zeros(1)))
    >>> c.proved and 0 < c.bound <= 0.9
    True
    """
    return subject.certificate


def product_certificate(bounds: list[tuple[str, float]]) -> Certificate:
    """Return the certificate of a composition from (name, proved bound) of its layers."""
    bad = [name for name, bound in bounds if not math.isfinite(bound)]
    if bad:
        return Certificate(
            math.inf,
            False,
            f"no bound on the norm of {bad[0]} is proved (non-finite weights, or precision beyond float64)",
        )
    total = 1.0
    for _, bound in bounds:
        total = up(total * bound, 1) if bound != 1.0 else total
    return Certificate(total, True, "product of " + ", ".join(f"{name} ≤ {bound:.6g}" for name, bound in bounds))


def inverse_ball(block: ResidualBlock, x: Any, y: Any, lipschitz: float) -> tuple[Any, Any]:
    """Return (‖r̂‖₂, radius) per row: the computed residual of x, and a ball around x that contains the preimage of y.

    radius = (‖r̂‖ + ρ + ρ′)/(1 − L − a), where ρ bounds the rounding of r̂ = y − x − g(x), and ρ′ + a‖x − x′‖ that of
    evaluating F at any x′: so the ball contains the exact preimage of y and every x′ whose computed F(x′) equals y.
    It is inf where 1 − L − a ≤ 0. Costs about three forward passes. Reference: [B19] Thm 1 with rounding added.
    """
    xp = namespace(x)
    u = rounding.unit_roundoff(x)
    event_ndim = x.ndim - 1
    n = math.prod(x.shape[1:])
    g, error, growth, drift = block.branch.running_error(x)
    difference = y - x
    residual = difference - g
    size_r = row_norm(residual, event_ndim)
    size_e = row_norm(error, event_ndim)
    total = (
        size_r + 2.0 * size_e + drift + 2.0 * u * (row_norm(difference, event_ndim) + size_r + row_norm(y, event_ndim))
    )
    total = total * (1.0 + (2 * n + 32) * u) + 4.0 * n * rounding.smallest_normal(x)
    contraction = down(1.0 - lipschitz - growth, 2)
    if contraction <= 0.0:
        return size_r, xp.full(size_r.shape, math.inf, dtype=x.dtype, device=device(x))
    return size_r, total / contraction * (1.0 + 8.0 * u)
