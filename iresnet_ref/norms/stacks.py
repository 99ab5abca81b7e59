"""Proved bounds on the p-norm, p = 1, 2 or ∞, of every matrix of a stack at once, in host float64: for many small ones.

In the 2-norm by Gram iteration: ‖X‖² = ‖XᵀX‖, so with X_{i+1} = fl(X_iᵀX_i)·2^{−e_i}, and γ_t‖X_i‖_F² for what t rounded terms err by,

    ‖X_i‖₂ ≤ (2^{e_i}‖X_{i+1}‖₂ + γ_t‖X_i‖_F²)^½,      ‖X_k‖₂ ≤ ‖X_k‖_F,

a factor n^{1/2^{k+1}} above the norm of X₀. Nothing is symmetric that must be, nothing is trusted. docs/proofs.md derives each line.
Reference: Delattre and others 2023 (arXiv 2305.16173), with rounding.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from iresnet_ref.rounding import FLOAT64_ROUNDOFF, gamma

Stack = npt.NDArray[np.float64]
_U = FLOAT64_ROUNDOFF
_SQUARINGS = 10


def stack_norm_bounds(stack: Stack, p: float) -> Stack:
    """Return c of shape (count,) with ‖A‖_p ≤ c for each A of a stack (count, m, n): within .04 % for n = 2; inf where A is not finite.

    >>> bounds = stack_norm_bounds(np.asarray([[[3.0, 0.0], [0.0, -4.0]], [[0.0, 0.0], [0.0, 0.0]]]), 2.0)
    >>> bool(4.0 <= bounds[0] <= 4.001), float(bounds[1])
    (True, 0.0)
    """
    if p != 2.0:
        return _largest_sums(np.abs(stack), p)
    x, first = _scaled(stack if stack.shape[1] >= stack.shape[2] else stack.swapaxes(1, 2))
    exponents: list[npt.NDArray[np.int32]] = []
    errors: list[Stack] = []
    for _ in range(_SQUARINGS):
        errors.append(gamma(x.shape[1], _U) * _squares(x))
        x, exponent = _scaled(np.matmul(x.swapaxes(1, 2), x))
        exponents.append(exponent)
    bounds = np.sqrt(_squares(x)) * (1.0 + 4.0 * _U)
    for exponent, error in zip(reversed(exponents), reversed(errors), strict=True):
        bounds = np.sqrt(np.ldexp(bounds, exponent) + error) * (1.0 + 8.0 * _U)
    bounds = np.ldexp(bounds, first) * (1.0 + 2.0 * _U)
    tiny = bounds < 2.0**-1000  # where ldexp may have rounded
    return np.where(np.isfinite(bounds), np.where(tiny & (bounds > 0.0), 2.0**-1000, bounds), math.inf)


def nonnegative_norm_bounds(stack: Stack, p: float) -> Stack:
    """Return c with ‖A‖_p ≤ c for each A ≥ 0 of a stack: in the 2-norm √(‖A‖₁‖A‖_∞), which is sharp for equal sums."""
    if p != 2.0:
        return _largest_sums(stack, p)
    product = _largest_sums(stack, 1.0) * _largest_sums(stack, math.inf)
    return np.asarray(np.sqrt(product) * (1.0 + 4.0 * _U) + 2.0**-500)  # the product may underflow


def _largest_sums(stack: Stack, p: float) -> Stack:
    """Return the largest sum of a column (p = 1), of a row (p = ∞), rounded up."""
    sums = stack.sum(axis=1 if p == 1.0 else 2)
    found = sums.max(axis=1, initial=0.0) * (1.0 + 2.0 * (sum(stack.shape[1:]) + 4) * _U)
    return np.where(np.isfinite(found), found, math.inf)


def _squares(x: Stack) -> Stack:
    """Return ‖X‖_F², rounded up."""
    _, m, n = x.shape
    return np.asarray((x * x).sum(axis=(1, 2)) * (1.0 + 2.0 * (m * n + 4) * _U))


def _scaled(x: Stack) -> tuple[Stack, npt.NDArray[np.int32]]:
    """Return X·2^{−e} with its largest entry in [½, 1), and e."""
    exponents = np.frexp(np.abs(x).max(axis=(1, 2), initial=0.0))[1]
    return np.ldexp(x, -exponents[:, None, None]), exponents
