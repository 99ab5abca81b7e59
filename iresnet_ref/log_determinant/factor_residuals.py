"""log|det(I + M)| enclosed by residuals of its factors: nothing is assumed of the routines that compute factors or inverses.

For any matrices with A := I + M = QR + E, R triangular, and X ≈ A⁻¹ with ‖I − XA‖_F ≤ ½, so that ‖A⁻¹‖_F ≤ a := ‖X‖_F/(1 − ‖I − XA‖_F):

    log|det A| = Σ log|r_ii| + log|det Q| − log|det(I − A⁻¹E)|,

|log|det(I − Z)|| ≤ |tr Z| + ‖Z‖_F²/(2(1 − ‖Z‖_F)) ≤ τ + τ²/(2(1 − τ)) for Z = A⁻¹E and τ = a‖E‖_F < 1, since Σ|log(1 − λ) + λ| ≤
Σ|λ|²/(2(1 − |λ|)) and Σ|λ|² ≤ ‖Z‖_F² (Schur). With G = QᵀQ − I likewise |log|det Q|| ≤ ½(|tr G| + ‖G‖_F²/(2(1 − ‖G‖_F))). Q, R are those of
the QR factorisation; where the namespace has no linalg, of elimination without pivoting, and det Q = 1 exactly. Where ‖M‖_F is tiny
tr M − tr M²/2 is closer, with the remainder ‖M‖_F³/(3(1 − ‖M‖_F)). docs/proofs.md counts the roundings.
"""

from __future__ import annotations

import math

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, device, namespace
from iresnet_ref.log_determinant.exact import inverse_of_identity_plus


def enclosed(matrix: Array) -> tuple[Array, Array]:
    """Return (m, ρ) with |m − log|det(I + M)|| ≤ ρ per row for M (batch, n, n); ρ is inf or NaN where nothing is proved.

    >>> import numpy as np
    >>> m, rho = enclosed(np.diag([-0.5, 1.0, 0.0])[None])
    >>> bool(abs(m[0]) <= rho[0] < 1e-13)
    True
    """
    xp = namespace(matrix)
    middle, radius = _by_factors(matrix)
    other, closer = _by_series(matrix)
    better = ~(radius <= closer)
    return xp.where(better, other, middle), xp.where(better, closer, radius)


def _by_factors(matrix: Array) -> tuple[Array, Array]:
    """Return (Σ log|r_ii|, ρ) per row."""
    xp, n, u = namespace(matrix), matrix.shape[-1], rounding.unit_roundoff(matrix)
    identity = xp.eye(n, dtype=matrix.dtype, device=device(matrix))
    g = rounding.gamma(n + 2, u)
    f = _lost(matrix)
    on_top = 1.0 + (2 * n + 32) * u
    a = identity + matrix
    q, r, triangular = _factors(a)
    # E = A − QR: the sum, the product of n terms and the difference round
    product = xp.matmul(q, r)
    terms = _size(xp.abs(a) + xp.matmul(xp.abs(q), xp.abs(r)))
    e = (_size(a - product) * (1.0 + u) + g * terms) * on_top + f
    x = inverse_of_identity_plus(matrix)
    size_x = _size(x) * on_top + f
    away = (_size(identity - xp.matmul(x, a)) * (1.0 + u) + g * size_x * _size(a)) * on_top + f
    half = away <= 0.5
    tau = xp.where(half, size_x * e / (1.0 - xp.where(half, away, xp.zeros_like(away))), xp.full_like(away, math.inf)) * on_top
    logs = xp.log(xp.abs(xp.sum(r * identity, axis=-1)))
    sizes = xp.sum(xp.abs(logs), axis=-1)
    summed = rounding.ELEMENTARY * u * (sizes + n) / (1.0 - rounding.ELEMENTARY * u) + g * sizes
    radius = _beyond(tau, tau) + summed
    if not triangular:
        gram = xp.matmul(xp.matrix_transpose(q), q) - identity
        squares = g * _size(q) * _size(q)
        diagonal = xp.sum(gram * identity, axis=-1)
        trace = (xp.abs(xp.sum(diagonal, axis=-1)) + g * xp.sum(xp.abs(diagonal), axis=-1) + squares) * on_top + f
        radius = radius + 0.5 * _beyond((_size(gram) * (1.0 + u) + squares) * on_top + f, trace)
    return xp.sum(logs, axis=-1), radius * on_top


def _by_series(matrix: Array) -> tuple[Array, Array]:
    """Return (tr M − tr M²/2, ρ) per row: sums of n and of n² terms, the latter by rows."""
    xp, n, u = namespace(matrix), matrix.shape[-1], rounding.unit_roundoff(matrix)
    g, f = rounding.gamma(2 * n + 2, u), _lost(matrix)
    on_top = 1.0 + (4 * n + 32) * u
    identity = xp.eye(n, dtype=matrix.dtype, device=device(matrix))
    first = xp.sum(xp.sum(matrix * identity, axis=-1), axis=-1)
    second = xp.sum(xp.sum(matrix * xp.matrix_transpose(matrix), axis=-1), axis=-1)
    size = _size(matrix) * on_top + f
    inside = size < 0.5
    z = xp.where(inside, size, xp.zeros_like(size))
    rest = g * (math.sqrt(n) * z + z * z) + z * z * z / (3.0 * (1.0 - z))
    lost = 2.0 * n * n * rounding.smallest_normal(matrix)
    return first - 0.5 * second, xp.where(inside, rest * on_top + lost, xp.full_like(rest, math.inf))


def _beyond(z: Array, trace: Array) -> Array:
    """Return |tr| + z²/(2(1 − z)), inf for z ≥ 1."""
    xp = namespace(z)
    inside = z < 1.0
    z = xp.where(inside, z, xp.zeros_like(z))
    return xp.where(inside, trace + 0.5 * z * z / (1.0 - z), xp.full_like(z, math.inf))


def _size(matrix: Array) -> Array:
    """Return ‖·‖_F per row."""
    xp = namespace(matrix)
    return xp.sqrt(xp.sum(xp.sum(matrix * matrix, axis=-1), axis=-1))


def _lost(matrix: Array) -> float:
    """Return what a flush to zero may take of ‖·‖_F of a product: of n² sums of n terms, and of n² squares."""
    n, f = matrix.shape[-1], rounding.smallest_normal(matrix)
    return n * n * (n + 4) * f + 2.0 * n * math.sqrt(f)


def _factors(a: Array) -> tuple[Array, Array, bool]:
    """Return (Q, R, whether Q is triangular with a diagonal of ones) with QR ≈ A and R upper triangular."""
    xp = namespace(a)
    if hasattr(xp, "linalg"):
        q, r = xp.linalg.qr(a)
        return q, xp.triu(r), False
    batch, n = a.shape[0], a.shape[-1]
    rows: list[Array] = []
    columns: list[Array] = []
    for k in range(n):
        before = xp.zeros((batch, 1, k), dtype=a.dtype, device=device(a))
        rows.append(xp.concat([before, a[:, :1, :]], axis=-1))
        column = xp.matrix_transpose(a[:, :, :1] / a[:, :1, :1])
        columns.append(xp.concat([before, column], axis=-1))
        a = a[:, 1:, 1:] - xp.matrix_transpose(column[:, :, 1:]) * a[:, :1, 1:]
    return xp.matrix_transpose(xp.concat(columns, axis=1)), xp.concat(rows, axis=1), True
