"""Directional derivatives by differences, with an error bound: the Jacobian oracle that needs no autograd.

Central differences D(h) = (F(x + hv) − F(x − hv)) / 2h at h = h₀·4⁻ᵏ are extrapolated in h² (Richardson's tableau
T_{k,m} = T_{k,m−1} + (T_{k,m−1} − T_{k−1,m−1}) / (16ᵐ − 1)). The error of an entry is estimated by the larger of its
two differences to its parents (Ridders) plus the rounding (η‖F‖ + u‖x‖(1 + ‖D‖)) / h of the smallest step it uses,
doubled; the entry with the smallest error wins, row by row. η is the relative noise of one evaluation. h₀ is a share of
max(1, ‖x‖_∞), but an entry whose smallest step is more than that share of 1 does not count: near a point at 10⁶ the
secants of a bounded oscillation agree with each other, about 0. Steps end where the rounding η‖F‖/h of the next alone is
more than the error reached in every row.

Numerical limits: the truncation part is an estimate, as it must be for a black box; it is reliable for F smooth on
the scale of the first steps that count and grows visibly at a kink. Steps at which F raises or is not finite are left out.
Far out in float32 rounding leaves nothing of so small steps: which the error then shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
LEVELS, TOGETHER = 8, 4
FARTHEST = 2.0**48
"""‖x‖_∞ from which on steps stay larger: smaller ones are lost to rounding against x."""
CHUNK = 4096
"""Most rows of one evaluation."""


def derivative(
    f: Callable[[Array], Array], x: Array, v: Array, noise: float, u: float, *, together: bool = False
) -> tuple[Array, Array]:
    """Return (DF(x)[v], error) for rows x, v of shape (n, d) and F with m outputs: shapes (n, m) and (n,).

    `together` evaluates all points of `TOGETHER` steps in one batch: for F whose rows do not depend on it.
    """
    n = x.shape[0]
    size_x = np.maximum(1.0, np.abs(x).max(axis=1, initial=0.0))
    first = max(2.0**-5, noise ** (1 / 7)) * size_x
    best, error = np.empty((n, 0)), np.full(n, np.inf)
    previous: list[Array] = []
    known: list[tuple[Array, Array]] = []
    counts = np.ceil(np.log(np.fmin(size_x, FARTHEST)) / math.log(4.0))  # from which level on
    for k in range(int(counts.max(initial=0)) + LEVELS):
        h = first * 4.0**-k
        if not known:
            known = _central(f, x, v, [h * 4.0**-j for j in range(TOGETHER if together else 1)])
        difference, size = known.pop(0)
        if difference.shape[1] > best.shape[1]:  # the first step, or the first at which F does not raise
            best = np.full_like(difference, np.nan)
        with np.errstate(all="ignore"):
            rounding = (noise * size + u * np.linalg.norm(x, axis=1) * (1 + np.linalg.norm(difference, axis=1))) / h
            row = [difference]
            for m, parent in enumerate(previous, start=1):
                entry = row[-1] + (row[-1] - parent) / (16.0**m - 1)
                scatter = np.maximum(np.linalg.norm(entry - row[-1], axis=1), np.linalg.norm(entry - parent, axis=1))
                estimate = 2 * (scatter + rounding)
                better = (estimate < error) & (k >= counts)
                best[better], error[better] = entry[better], estimate[better]
                row.append(entry)
        previous = row
        if (2 * noise * size / (h / 4) >= error).all():
            break
    return best, error


def _central(f: Callable[[Array], Array], x: Array, v: Array, steps: list[Array]) -> list[tuple[Array, Array]]:
    """For each step h the central difference and ‖F(x + hv)‖ + ‖F(x − hv)‖ + 1; NaN where F cannot be evaluated.

    One step takes two evaluations, several take one; where that raises, they are taken one by one.
    """
    moves = [h[:, None] * v for h in steps]
    try:
        if len(steps) == 1:
            images = [f(x + moves[0]), f(x - moves[0])]
        else:
            images = np.split(f(np.concatenate([p for move in moves for p in (x + move, x - move)])), 2 * len(steps))
    except Exception:
        if len(steps) > 1:
            return [pair for h in steps for pair in _central(f, x, v, [h])]
        images = [np.full((len(x), 1), np.nan)] * 2  # as wide as anything
    pairs = []
    for h, up, down in zip(steps, images[::2], images[1::2], strict=True):
        with np.errstate(all="ignore"):
            size = np.linalg.norm(up, axis=1) + np.linalg.norm(down, axis=1) + 1.0
            pairs.append(((up - down) / (2 * h[:, None]), np.where(np.isfinite(size), size, 1.0)))
    return pairs


def full_jacobian(
    f: Callable[[Array], Array], x: Array, noise: float, u: float
) -> tuple[Array, Array]:
    """Return (J, error): (n, d, d) with J[:, i, j] = ∂F_i/∂x_j, and a bound on the 2-norm error of each J.

    Several columns, steps and all rows in one evaluation: for F whose rows do not depend on their batch.
    """
    n, d = x.shape
    J, squares = np.empty((n, d, d)), np.zeros(n)
    columns = max(1, CHUNK // max(n * 2 * TOGETHER, 1))
    for start in range(0, d, columns):
        js = np.arange(start, min(d, start + columns))
        X = np.tile(x, (len(js), 1))
        V = np.repeat(np.eye(d)[js], n, axis=0)
        D, error = derivative(f, X, V, noise, u, together=True)
        J[:, :, js] = np.broadcast_to(D, (len(X), d)).reshape(len(js), n, d).transpose(1, 2, 0)
        squares += (error.reshape(len(js), n) ** 2).sum(axis=0)
    return J, np.sqrt(squares)
