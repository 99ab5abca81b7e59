"""The measurements by which a reproduction shows a wrong density; see `log_dets` for the rules they keep."""

from typing import Any

import numpy as np


def total_probability(
    calls: "Any", centre: "Any", scale: "Any", panels: "int", allowed: "float"
) -> "tuple[float, float]":
    """|∫ exp(log_prob(x)) dx − 1| by composite Gauss–Legendre in x = centre + scale·t/(1 − t²)."""
    centre, scale = np.asarray(centre, dtype=float), np.asarray(scale, dtype=float)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    edges = np.linspace(-1.0, 1.0, int(panels) + 1)
    t = (edges[:-1, None] + np.diff(edges)[:, None] * (nodes + 1.0) / 2.0).ravel()
    w = (np.diff(edges)[:, None] * weights / 2.0).ravel() * (1.0 + t**2) / (1.0 - t**2) ** 2
    t = t / (1.0 - t**2)
    axes = np.meshgrid(*[t] * centre.size, indexing="ij")
    x = np.stack([a.ravel() for a in axes], axis=1) * scale + centre
    weight = np.prod(np.meshgrid(*[w] * centre.size, indexing="ij"), axis=0).ravel() * np.prod(scale)
    total = 0.0
    for i in range(0, len(x), 8192):
        rows = x[i : i + 8192].reshape(-1, *calls.subject.event_shape).astype(calls.subject.dtype)
        total += float((np.exp(calls.log_prob(rows)) * weight[i : i + 8192]).sum())
    return abs(total - 1.0), float(allowed)
