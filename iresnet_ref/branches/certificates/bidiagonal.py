"""Lip(g) ≤ L for activations with slopes in [0, 1] by multipliers that are given: one proof that a norm is at most 1, no solver.

g(x) = W_ℓ φ(⋯ φ(W₁x + b₁) ⋯) + b_ℓ. With diagonal D_k > 0 of hidden layer k, D₀ = I, D_ℓ = I/L, and c_k = √2 for each side of W_k on
which φ stands (2 inside), let P_k = D_k W_k D_{k−1}⁻¹/c_k, and let J be symmetric with the blocks P_k, P_kᵀ beside a zero diagonal.

    ‖J‖₂ ≤ 1  ⇒  Lip(g) ≤ L.

*Proof.* p₀ = Δx, p_k = √2 D_k Δφ(v_k), p_ℓ = Δg/L. Slopes in [0, 1], δ² ≤ δ·v entry by entry, weighted by 2D_k², say
‖p_k‖² ≤ 2p_kᵀP_kp_{k−1} for 0 < k < ℓ, and p_ℓ = P_ℓp_{ℓ−1}. Hence
Σ_{k≥0}‖p_k‖² ≥ pᵀJp = 2Σ p_kᵀP_kp_{k−1} ≥ Σ_{0<k<ℓ}‖p_k‖² + 2‖p_ℓ‖², which is ‖Δx‖ ≥ ‖p_ℓ‖. ∎

J joins even signals with odd ones only, so that ‖J‖₂ = ‖K‖₂ of the bidiagonal matrix K of its blocks from the odd to the even.
It is the linear matrix inequality of Fazlyab and others (arXiv 1906.04893) with multipliers 2D_k², scaled to have ones on its diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.norms.dense import Matrix, absolute_norm_bound, proves_norm_at_most

_U = rounding.FLOAT64_ROUNDOFF
_FARTHEST = 500
"""The largest exponent of a quotient of multipliers: those are then normal numbers, rounded once."""


def proves_lipschitz(weights: Sequence[Matrix], multipliers: Sequence[Matrix], lipschitz: float) -> bool:
    """Return whether float64 arithmetic proves Lip(g) ≤ `lipschitz`, for slopes in [0, 1]; False means "not proved", not "false".

    `weights` are W₁ … W_ℓ as they are used, `multipliers` the positive diagonals of D₁ … D_{ℓ−1}, from anywhere. An entry of K̂ is
    rounded at most five times, so that ‖K‖ ≤ ‖K̂‖ + γ₆‖|K̂|‖ + 2⁻⁹⁰⁰ (docs/proofs.md). Slack: about n²u/2, n the side of K.
    Raises HostArithmeticError.

    >>> w = [np.eye(2), np.eye(2)]
    >>> proves_lipschitz(w, [np.ones(2)], 1.0 + 1e-14), proves_lipschitz(w, [np.ones(2)], 1.0 - 1e-14)
    (True, False)
    """
    if not (0.0 < lipschitz < math.inf and all(np.isfinite(a).all() for a in (*weights, *multipliers))):
        return False
    k = scaled_blocks(weights, multipliers, lipschitz)
    if k is None or not np.isfinite(k).all():
        return False
    error = rounding.gamma(7, _U) * absolute_norm_bound(k) + 2.0**-900
    return error < 1.0 and proves_norm_at_most(k, rounding.down(1.0 - error, 1))


def scaled_blocks(weights: Sequence[Matrix], multipliers: Sequence[Matrix], lipschitz: float) -> Matrix | None:
    """Return K̂, rows the even signals and columns the odd ones; None where a quotient of multipliers is out of range."""
    last = len(weights)
    diagonals = [np.ones(weights[0].shape[1]), *multipliers, np.full(weights[-1].shape[0], 1.0 / lipschitz)]
    starts = [0, 0]
    places: list[slice] = []
    for d in diagonals:
        side = len(places) % 2
        places.append(slice(starts[side], starts[side] + len(d)))
        starts[side] += len(d)
    out = np.zeros(starts)
    for k, w in enumerate(weights, 1):
        if not (diagonals[k] > 0.0).all():
            return None
        quotient = diagonals[k][:, None] / diagonals[k - 1]
        if not (np.abs(np.frexp(quotient)[1]) <= _FARTHEST).all():
            return None
        block = quotient * w / (1.0, math.sqrt(2.0), 2.0)[(k > 1) + (k < last)]
        if k % 2:
            out[places[k - 1], places[k]] = block.T
        else:
            out[places[k], places[k - 1]] = block
    return out
