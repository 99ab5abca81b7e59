"""Directional derivatives by differences, with an error bound: the Jacobian oracle that needs no autograd.

Central differences D(h) = (F(x + hv) − F(x − hv)) / 2h at h = h₀·4⁻ᵏ are extrapolated in h² (Richardson's tableau
T_{k,m} = T_{k,m−1} + (T_{k,m−1} − T_{k−1,m−1}) / (16ᵐ − 1)). The error of an entry is estimated by the larger of its
two differences to its parents (Ridders) plus the rounding (η‖F‖ + u‖x‖(1 + ‖D‖)) / h of the smallest step it uses,
doubled; the entry with the smallest error wins, row by row. η is the relative noise of one evaluation.

Numerical limits: the truncation part is an estimate, as it must be for a black box; it is reliable for F smooth on
the scale h₀ and grows visibly at a kink. Steps at which F raises or is not finite are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
LEVELS = 8
CHUNK = 4096
"""Most rows of one evaluation."""


def derivative(
    f: Callable[[Array], Array], x: Array, v: Array, noise: float, u: float
) -> tuple[Array, Array]:
    """Return (DF(x)[v], error) for rows x, v of shape (n, d): shapes (n, d) and (n,)."""
    n = x.shape[0]
    first = max(2.0**-5, noise ** (1 / 7)) * np.maximum(1.0, np.abs(x).max(axis=1, initial=0.0))
    best, error = np.full_like(x, np.nan), np.full(n, np.inf)
    previous: list[Array] = []
    for k in range(LEVELS):
        h = first * 4.0**-k
        difference, size = _central(f, x, v, h)
        with np.errstate(all="ignore"):
            rounding = (noise * size + u * np.linalg.norm(x, axis=1) * (1 + np.linalg.norm(difference, axis=1))) / h
            row = [difference]
            for m, parent in enumerate(previous, start=1):
                entry = row[-1] + (row[-1] - parent) / (16.0**m - 1)
                spread = np.maximum(np.linalg.norm(entry - row[-1], axis=1), np.linalg.norm(entry - parent, axis=1))
                estimate = 2 * (spread + rounding)
                better = estimate < error
                best[better], error[better] = entry[better], estimate[better]
                row.append(entry)
        previous = row
    return best, error


def _central(f: Callable[[Array], Array], x: Array, v: Array, h: Array) -> tuple[Array, Array]:
    """Return the central difference and ‖F(x + hv)‖ + ‖F(x − hv)‖ + 1; NaN where F cannot be evaluated."""
    try:
        up, down = f(x + h[:, None] * v), f(x - h[:, None] * v)
    except Exception:
        return np.full_like(x, np.nan), np.ones(x.shape[0])
    with np.errstate(all="ignore"):
        size = np.linalg.norm(up, axis=1) + np.linalg.norm(down, axis=1) + 1.0
        return (up - down) / (2 * h[:, None]), size


def full_jacobian(
    f: Callable[[Array], Array], x: Array, noise: float, u: float
) -> tuple[Array, Array]:
    """Return (J, error): (n, d, d) with J[:, i, j] = ∂F_i/∂x_j, and a bound on the 2-norm error of each J.

    One column at a time for all rows, as the columns of one row are independent evaluations: d·2·LEVELS batches.
    """
    n, d = x.shape
    J, squares = np.empty((n, d, d)), np.zeros(n)
    columns = max(1, CHUNK // max(n, 1))
    for start in range(0, d, columns):
        js = np.arange(start, min(d, start + columns))
        X = np.tile(x, (len(js), 1))
        V = np.repeat(np.eye(d)[js], n, axis=0)
        D, error = derivative(f, X, V, noise, u)
        J[:, :, js] = D.reshape(len(js), n, d).transpose(1, 2, 0)
        squares += (error.reshape(len(js), n) ** 2).sum(axis=0)
    return J, np.sqrt(squares)
