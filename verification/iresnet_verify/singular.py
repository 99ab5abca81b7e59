"""Singular values of batches of square matrices (n, d, d): by SVD up to d = `LARGE`, above it only what is asked for.

A full SVD of a 768 × 768 Jacobian takes .34 s; a search looks at hundreds. Above `LARGE`:
- the largest triple by subspace iteration (block of 8, 20 steps, Rayleigh–Ritz): a lower bound on ‖A‖₂, which is what a
  search for a large one needs;
- the smallest triple as the largest of the inverse, and 1/‖A⁻¹‖_F ≤ σ_min as its lower bound;
- all values from the eigenvalues of AᵀA, unless they spread over more than 10⁶, where the SVD is taken after all;
- ‖A‖₂ ≤ √(‖A‖₁‖A‖_∞) where a bound will do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LARGE = 128
BLOCK, STEPS = 8, 20
SPREAD = 1e-6

Array = np.ndarray[Any, np.dtype[np.float64]]


def norm_bound(A: Array) -> Array:
    """Return an upper bound on ‖A‖₂ of every matrix, exact up to d = LARGE."""
    if not len(A):
        return np.zeros(0)
    if A.shape[-1] <= LARGE:
        return np.asarray(np.linalg.norm(A, 2, axis=(1, 2)))
    size = np.abs(A)
    return np.sqrt(size.sum(1).max(1) * size.sum(2).max(1))


def values(A: Array) -> Array:
    """Return all singular values, descending, (n, d)."""
    if A.shape[-1] <= LARGE:
        return np.asarray(np.linalg.svd(A, compute_uv=False), dtype=np.float64)
    squares = np.linalg.eigvalsh(np.swapaxes(A, 1, 2) @ A)[:, ::-1]
    narrow = squares[:, -1] > SPREAD**2 * squares[:, 0]
    found: Array = np.sqrt(np.maximum(squares, 0.0))
    if not narrow.all():
        found[~narrow] = np.linalg.svd(A[~narrow], compute_uv=False)
    return found


def largest(A: Array) -> tuple[Array, Array, Array]:
    """Return (σ, u, v) of the largest singular value, (n,), (n, d), (n, d)."""
    if A.shape[-1] <= LARGE:
        u, sigma, v = np.linalg.svd(A)
        return sigma[:, 0], u[:, :, 0], v[:, 0, :]
    found = [_iterated(a) for a in A]
    return np.array([f[0] for f in found]), np.stack([f[1] for f in found]), np.stack([f[2] for f in found])


def smallest(A: Array) -> tuple[Array, Array, Array, Array]:
    """Return (σ, a lower bound on it, u, v) of the smallest singular value; 0 where the matrix is singular."""
    if A.shape[-1] <= LARGE:
        u, sigma, v = np.linalg.svd(A)
        return sigma[:, -1], sigma[:, -1], u[:, :, -1], v[:, -1, :]
    sigma, low, left, right = np.zeros(len(A)), np.zeros(len(A)), np.zeros(A.shape[:2]), np.zeros(A.shape[:2])
    for i, a in enumerate(A):
        try:
            inverse = np.linalg.inv(a)
        except np.linalg.LinAlgError:
            continue
        if np.isfinite(inverse).all():
            top, right[i], left[i] = _iterated(inverse)
            sigma[i], low[i] = 1.0 / top, 1.0 / float(np.linalg.norm(inverse))
    return sigma, low, left, right


def _iterated(a: Array) -> tuple[float, Array, Array]:
    """Subspace iteration on aᵀa."""
    q = np.random.default_rng(0).standard_normal((a.shape[1], BLOCK))
    for _ in range(STEPS):
        q = np.linalg.qr(a.T @ (a @ q))[0]
    u, sigma, v = np.linalg.svd(a @ q, full_matrices=False)
    return float(sigma[0]), u[:, 0], q @ v[0]
