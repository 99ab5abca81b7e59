"""The measurements by which a reproduction shows a violated claim about a log-det, its gradient or a density.

Each function is copied into the reproduction file by itself, so it uses its arguments, NumPy (and torch, where a module
is needed), and its annotations are strings. It returns (value, bound); the claim is violated where not value <= bound.
"""

from typing import Any

import numpy as np


def mean_log_det(
    calls: "Any", x: "Any", truth: "float", allowed: "float", calls_per_mean: "int", copies: "int"
) -> "tuple[float, float]":
    """Distance of the mean of many draws of log_det from the true log-det, against half the bias that was found."""
    rows = np.repeat(x, int(copies), axis=0)
    mean = np.mean([calls.log_det(rows, seed=1000 + i) for i in range(int(calls_per_mean))])
    return abs(float(mean) - float(truth)), float(allowed)


def log_det_by_differences(calls: "Any", x: "Any", allowed: "float") -> "tuple[float, float]":
    """|log_det(x) − log|det J|| with J from central differences of forward, on the worst row."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    d, gaps = flat.shape[1], []
    step = np.finfo(x.dtype).eps ** (1.0 / 3.0)
    values = calls.log_det(x)
    for i in range(len(x)):
        h = step * max(1.0, float(np.abs(flat[i]).max()))
        up = np.stack([flat[i] + h * e for e in np.eye(d)]).reshape(d, *x.shape[1:]).astype(x.dtype)
        down = np.stack([flat[i] - h * e for e in np.eye(d)]).reshape(d, *x.shape[1:]).astype(x.dtype)
        width = (up.astype(np.float64) - down).reshape(d, d).diagonal()
        rise = calls.forward(up).reshape(d, d).astype(np.float64) - calls.forward(down).reshape(d, d)
        gaps.append(abs(float(values[i]) - float(np.linalg.slogdet(rise / width[:, None])[1])))
    worst = float(np.max(gaps)) if np.isfinite(gaps).all() else np.inf
    return worst, float(allowed)


def log_det_against_truth(calls: "Any", x: "Any", truth: "Any", allowed: "Any") -> "tuple[float, float]":
    """|log_det(x) − truth| on the worst row; truth is the float64 determinant of the autodiff Jacobian of forward."""
    gap = np.abs(calls.log_det(x) - np.asarray(truth))
    gap = np.where(np.isfinite(gap), gap, np.inf)
    worst = int(np.argmax(gap / np.asarray(allowed)))
    return float(gap[worst]), float(np.asarray(allowed)[worst])


def log_det_outside_bounds(calls: "Any", x: "Any", low: "float", high: "float") -> "tuple[float, float]":
    """Distance of log_det(x) from [low, high] = d·log(1 ∓ L) with rounding, on the worst row; at most 0."""
    values = calls.log_det(x)
    outside = np.maximum(float(low) - values, values - float(high))
    return float(np.max(np.where(np.isfinite(values), outside, np.inf))), 0.0


def inverse_log_det_against_truth(calls: "Any", y: "Any", truth: "Any", allowed: "Any") -> "tuple[float, float]":
    """|inverse_log_det(y) + log|det J_F(x)|| with y = F(x), on the worst row."""
    gap = np.abs(calls.inverse_log_det(y) + np.asarray(truth))
    gap = np.where(np.isfinite(gap), gap, np.inf)
    worst = int(np.argmax(gap / np.asarray(allowed)))
    return float(gap[worst]), float(np.asarray(allowed)[worst])


def constant_log_det(calls: "Any", x: "Any", seeds: "int") -> "tuple[float, float]":
    """The number of seeds at which log_det gives one value for all rows, though the determinants differ: not all of them."""
    constant = sum(bool(np.ptp(calls.log_det(x, seed=i)) == 0.0) for i in range(int(seeds)))
    return float(constant), float(seeds) - 0.5


def density_gap(calls: "Any", x: "Any", expected: "Any", allowed: "Any") -> "tuple[float, float]":
    """|log_prob(x) − (base_log_prob(F(x)) + log|det J_F(x)|)| on the worst row."""
    gap = np.abs(calls.log_prob(x) - np.asarray(expected))
    gap = np.where(np.isfinite(gap), gap, np.inf)
    worst = int(np.argmax(gap / np.asarray(allowed)))
    return float(gap[worst]), float(np.asarray(allowed)[worst])


def volume_of_one_image(calls: "Any", a: "Any", b: "Any", smallest: float) -> "tuple[float, float]":
    """log(e^min log_det·vol(B)) against log (2δ)^d, B the box between the rows a and b, δ the distance of their images or its rounding."""
    box = np.concatenate([a, b])
    y = calls.forward(box).reshape(2, -1).astype(np.float64)
    spread = max(float(np.linalg.norm(y[1] - y[0])), 8 * np.finfo(box.dtype).eps * float(np.linalg.norm(y[0])), smallest)
    volume = float(np.log(np.abs(b.astype(np.float64) - a)).sum())
    return float(np.min(calls.log_det(box))) + volume, y.shape[1] * float(np.log(2.0 * spread))
