"""Singular values of batches of square matrices (n, d, d): by SVD while d ≤ `SMALL`, above it only what is asked for.

A search looks at hundreds of Jacobians; the full SVD of one takes 1.5 ms at d = 64 and .34 s at d = 768. Above `SMALL`:
- the largest triple by subspace iteration on AᵀA (a block of 8, powers of AᵀA up to `LARGE`, Rayleigh–Ritz at the end): a
  lower bound on ‖A‖₂, which is what a search for a large one needs;
- the smallest triple as the largest of the inverse, and 1/‖A⁻¹‖ as its lower bound;
- ‖A‖₂ ≤ ‖(AᵀA)^p‖_F^{1/2p}, at most d^{1/4p} too large: 7 % at d = 64 for p = 16; above `LARGE`, where products cost,
  ‖A‖₂ ≤ min(√(‖A‖₁‖A‖_∞), ‖A‖_F);
- all values from the eigenvalues of AᵀA, unless they spread over more than 10³ (u·10⁶ of σ_min is lost), where the SVD is
  taken after all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SMALL, LARGE = 16, 128
BLOCK, STEPS = 8, 20
SQUARINGS = 4
"""p = 2⁴ = 16."""
SPREAD = 1e-3

Array = np.ndarray[Any, np.dtype[np.float64]]


def norm_bound(A: Array) -> Array:
    """Return an upper bound on ‖A‖₂ of every matrix, exact up to d = SMALL."""
    if not len(A):
        return np.zeros(0)
    if A.shape[-1] <= SMALL:
        return np.asarray(np.linalg.norm(A, 2, axis=(1, 2)))
    return _cheap_bound(A) if A.shape[-1] > LARGE else _bound_of_powers(A, *_powers(A))


def _cheap_bound(A: Array) -> Array:
    size = np.abs(A)
    return np.minimum(np.sqrt(size.sum(1).max(1) * size.sum(2).max(1)), np.sqrt(np.einsum("nij,nij->n", A, A)))


def _powers(A: Array) -> tuple[Array, Array]:
    """Return (AᵀA/s²)^p and s = ‖A‖_F."""
    scale: Array = np.linalg.norm(A, axis=(1, 2))
    unit = A / np.maximum(scale, np.finfo(float).tiny)[:, None, None]
    square: Array = np.swapaxes(unit, 1, 2) @ unit
    for _ in range(SQUARINGS):
        square = square @ square
    return square, scale


def _bound_of_powers(A: Array, power: Array, scale: Array) -> Array:
    root = np.linalg.norm(power, axis=(1, 2)) ** (0.5 / 2**SQUARINGS)
    return np.asarray(scale * root * (1.0 + 2.0**-52 * A.shape[-1] ** 2))


def values(A: Array) -> Array:
    """Return all singular values, descending, (n, d)."""
    if A.shape[-1] <= SMALL:
        return np.asarray(np.linalg.svd(A, compute_uv=False), dtype=np.float64)
    squares = np.linalg.eigvalsh(np.swapaxes(A, 1, 2) @ A)[:, ::-1]
    narrow = squares[:, -1] > SPREAD**2 * squares[:, 0]
    found: Array = np.sqrt(np.maximum(squares, 0.0))
    if not narrow.all():
        found[~narrow] = np.linalg.svd(A[~narrow], compute_uv=False)
    return found


def largest(A: Array) -> tuple[Array, Array, Array]:
    """Return (σ, u, v) of the largest singular value, (n,), (n, d), (n, d)."""
    if A.shape[-1] <= SMALL:
        u, sigma, v = np.linalg.svd(A)
        return sigma[:, 0], u[:, :, 0], v[:, 0, :]
    return _iterated(A)[:3]


def _iterated(A: Array) -> tuple[Array, Array, Array, Array]:
    """Return (σ, u, v, an upper bound on ‖A‖₂) by subspace iteration on AᵀA."""
    n, d = A.shape[:2]
    q = np.broadcast_to(np.random.default_rng(0).standard_normal((d, BLOCK)), (n, d, BLOCK))
    if d <= LARGE:
        power, scale = _powers(A)
        bound = _bound_of_powers(A, power, scale)
        for _ in range(3):
            q = np.linalg.qr(power @ q)[0]
    else:
        bound = _cheap_bound(A)
        for _ in range(STEPS):
            q = np.linalg.qr(np.swapaxes(A, 1, 2) @ (A @ q))[0]
    images = A @ q
    w = np.linalg.eigh(np.swapaxes(images, 1, 2) @ images)[1][:, :, -1:]
    v, image = (q @ w)[:, :, 0], (images @ w)[:, :, 0]
    sigma: Array = np.linalg.norm(image, axis=1)
    return sigma, image / np.maximum(sigma, np.finfo(float).tiny)[:, None], v, bound


def smallest(A: Array) -> tuple[Array, Array, Array, Array]:
    """Return (σ, a lower bound on it, u, v) of the smallest singular value; 0 where the matrix is singular.

    The computed inverse is that of A + E with ‖E‖ ≤ 8·d·u·‖A‖, as in `log_det_truth`: the bound allows for it.
    """
    n, d = A.shape[:2]
    if d <= SMALL:
        u, sigma, v = np.linalg.svd(A)
        return sigma[:, -1], sigma[:, -1], u[:, :, -1], v[:, -1, :]
    sigma, low, left, right = np.zeros(n), np.zeros(n), np.zeros((n, d)), np.zeros((n, d))
    inverse = _inverses(A)
    good = np.isfinite(inverse).all(axis=(1, 2))
    if good.any():
        top, right[good], left[good], bound = _iterated(inverse[good])
        lost = 8 * d * 2.0**-53 * np.linalg.norm(A[good], axis=(1, 2))
        sigma[good], low[good] = 1.0 / top, np.maximum(0.0, 1.0 / bound - lost)
    return sigma, low, left, right


def _inverses(A: Array) -> Array:
    """Return the inverse of every matrix, NaN where it is singular."""
    try:
        return np.asarray(np.linalg.inv(A), dtype=np.float64)
    except np.linalg.LinAlgError:
        return np.full_like(A, np.nan) if len(A) == 1 else np.concatenate([_inverses(A[i : i + 1]) for i in range(len(A))])
