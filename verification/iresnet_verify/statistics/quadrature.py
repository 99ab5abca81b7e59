"""Integrals over the whole line or plane: composite Gauss–Legendre in a coordinate that maps it to (−1, 1)ᵈ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Density = Callable[[Vector], Vector]
"""(n, d) -> (n,)."""
NODES = 8
CHUNK = 8192


def grid(centre: Vector, scale: Vector, panels: int) -> tuple[Vector, Vector]:
    """Return points (n, d) and weights (n,) for x = c + s·t/(1 − t²), dx = s·(1 + t²)/(1 − t²)² dt."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    edges = np.linspace(-1.0, 1.0, panels + 1)
    t = (edges[:-1, None] + np.diff(edges)[:, None] * (nodes + 1.0) / 2.0).ravel()
    w = (np.diff(edges)[:, None] * weights / 2.0).ravel() * (1.0 + t**2) / (1.0 - t**2) ** 2
    axes = np.meshgrid(*[t / (1.0 - t**2)] * centre.size, indexing="ij")
    points = np.stack([a.ravel() for a in axes], axis=1) * scale + centre
    weight = np.prod(np.meshgrid(*[w] * centre.size, indexing="ij"), axis=0).ravel() * float(np.prod(scale))
    return points, weight


def integrate(density: Density, centre: Vector, scale: Vector, most: int, wanted: float) -> tuple[float, float, int, int]:
    """Return (∫ p, error, panels, points): panels double until the error is ≤ `wanted` or there are `most`.

    The error is the change from half the panels, but at least a thousandth of the change before it: two coarse grids may agree
    by chance, and the 8 nodes of a panel gain up to 2¹⁶ from one grid to the next once they resolve the density.
    """
    panels, points, last, before = 4, 0, np.inf, np.inf
    while True:
        x, w = grid(centre, scale, panels)
        total = 0.0
        for i in range(0, len(x), CHUNK):
            total += float(density(x[i : i + CHUNK]) @ w[i : i + CHUNK])
        points += len(x)
        change = abs(total - last)
        error = float(np.maximum(change, before / 1000.0))
        if error <= wanted or 2 * panels > most:
            return total, error if np.isfinite(error) else np.inf, panels, points
        panels, last, before = 2 * panels, total, change


def window(density: Density, start: Vector, rng: np.random.Generator) -> tuple[Vector, Vector] | None:
    """Return (centre, scale) of the mass: mean and spread of a Metropolis walk from the given points; None without mass.

    The integral is over the whole space whatever they are; they only put the nodes where the density is.
    """
    x, step = start.copy(), np.maximum(start.std(0), 0.1)
    p = density(x)
    p = np.where(np.isfinite(p), p, 0.0)
    if not (p > 0).any():
        return None
    best = np.flatnonzero(p > 0)
    x, p = np.where((p > 0)[:, None], x, x[best[0]]), np.where(p > 0, p, p[best[0]])
    kept = []
    for i in range(60):
        trial = x + step * rng.standard_normal(x.shape) * np.exp(rng.normal(size=(len(x), 1)))
        q = density(trial)
        q = np.where(np.isfinite(q), q, 0.0)
        accept = rng.uniform(size=len(x)) * p < q
        x, p = np.where(accept[:, None], trial, x), np.where(accept, q, p)
        if i >= 20:
            kept.append(x.copy())
            step = np.maximum(np.concatenate(kept).std(0), 1e-3)
    cloud = np.concatenate(kept)
    return cloud.mean(0), 1.5 * np.maximum(cloud.std(0), 1e-3)
