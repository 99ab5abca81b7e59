"""The measurements by which a reproduction shows a violated claim about the map or its inverse.

Each function is copied into the reproduction file by itself, so it uses its arguments and NumPy alone, and its
annotations are strings. It returns (value, bound) of the worst row; the claim is violated where not value <= bound.
"""

from typing import Any

import numpy as np


def recovered_input(
    calls: "Any", x: "Any", tolerance: float, floor: float
) -> "tuple[float, float]":
    """‖inverse(forward(x)) − x‖₂ against tolerance·max(1, ‖x‖₂) + floor, on the worst row."""
    back = calls.inverse(calls.forward(x))
    flat = x.reshape(len(x), -1).astype(np.float64)
    error = np.linalg.norm(back.reshape(len(x), -1).astype(np.float64) - flat, axis=1)
    bound = tolerance * np.maximum(1.0, np.linalg.norm(flat, axis=1)) + floor
    worst = int(np.argmax(np.where(np.isfinite(error), error / bound, np.inf)))
    return float(error[worst]), float(bound[worst])


def recovered_output(calls: "Any", y: "Any", tolerance: float, floor: float) -> "tuple[float, float]":
    """‖forward(inverse(y)) − y‖₂ against tolerance·max(1, ‖inverse(y)‖₂) + floor, on the worst row."""
    try:
        calls.forward(y[::-1] / 2)  # so that an inverse cannot return the cached input of the last forward call
    except Exception:
        print("forward raises at y/2; an inverse that caches may go unnoticed here")
    x = calls.inverse(y)
    gap = calls.forward(x).reshape(len(y), -1).astype(np.float64) - y.reshape(len(y), -1).astype(np.float64)
    error = np.linalg.norm(gap, axis=1)
    bound = tolerance * np.maximum(1.0, np.linalg.norm(x.reshape(len(y), -1).astype(np.float64), axis=1)) + floor
    worst = int(np.argmax(np.where(np.isfinite(error), error / bound, np.inf)))
    return float(error[worst]), float(bound[worst])


def hidden_failure(calls: "Any", y: "Any", tolerance: float, floor: float) -> "tuple[float, float]":
    """As for `recovered_output`, but a result that is not finite, or an exception, reports the failure and counts 0."""
    try:
        calls.forward(y[::-1] / 2)  # as in `recovered_output`
    except Exception:
        print("forward raises at y/2; an inverse that caches may go unnoticed here")
    try:
        x = calls.inverse(y)
    except Exception as report:
        print("reported:", type(report).__name__)
        return 0.0, floor
    flat = x.reshape(len(y), -1).astype(np.float64)
    if not np.isfinite(flat).all():
        return 0.0, floor
    error = np.linalg.norm(calls.forward(x).reshape(len(y), -1).astype(np.float64) - y.reshape(len(y), -1), axis=1)
    bound = tolerance * np.maximum(1.0, np.linalg.norm(flat, axis=1)) + floor
    worst = int(np.argmax(np.where(np.isfinite(error), error / bound, np.inf)))
    return float(error[worst]), float(bound[worst])


def wasted_precision(calls: "Any", x: "Any", bits: int) -> "tuple[float, float]":
    """The share of inverse(forward(x))'s entries that fit into `bits` bits of mantissa, where x's own do not."""
    there = np.ldexp(np.frexp(x.astype(np.float64))[0], bits)
    back = np.ldexp(np.frexp(calls.inverse(calls.forward(x)).astype(np.float64))[0], bits)
    full = there != np.round(there)
    return float(np.mean((back == np.round(back))[full])), 0.5


def same_image(calls: "Any", a: "Any", b: "Any", rounding: float) -> "tuple[float, float]":
    """The rounding of two evaluations against ‖forward(a) − forward(b)‖₂ of two points far apart: not above it."""
    gap = calls.forward(a).astype(np.float64) - calls.forward(b).astype(np.float64)
    print("distance of the inputs:", np.linalg.norm((a.astype(np.float64) - b.astype(np.float64)).ravel()))
    return rounding, float(np.linalg.norm(gap.ravel()))


def stretch_of_residual(calls: "Any", a: "Any", b: "Any", lipschitz: float, rounding: float) -> "tuple[float, float]":
    """‖g(a) − g(b)‖₂ against L·‖a − b‖₂ + rounding, g the subject's residual, else F − id; points of shape (1, …)."""
    p, q = a.astype(np.float64), b.astype(np.float64)
    if calls.residual is not None:
        image = calls.residual(a).astype(np.float64) - calls.residual(b).astype(np.float64)
    else:
        image = calls.forward(a).astype(np.float64) - calls.forward(b).astype(np.float64) - (p - q)
    return float(np.linalg.norm(image.ravel())), float(lipschitz * np.linalg.norm((p - q).ravel()) + rounding)


def stretch_above(calls: "Any", a: "Any", b: "Any", lipschitz: float, rounding: float) -> "tuple[float, float]":
    """‖F(a) − F(b)‖₂ against (1 + L)‖a − b‖₂ + rounding; points of shape (1, …)."""
    image = calls.forward(a).astype(np.float64) - calls.forward(b).astype(np.float64)
    gap = float(np.linalg.norm((a.astype(np.float64) - b.astype(np.float64)).ravel()))
    return float(np.linalg.norm(image.ravel())), (1.0 + lipschitz) * gap + rounding


def stretch_below(calls: "Any", a: "Any", b: "Any", lipschitz: float, rounding: float) -> "tuple[float, float]":
    """(1 − L)‖a − b‖₂ − rounding against ‖F(a) − F(b)‖₂: not above it; points of shape (1, …)."""
    image = calls.forward(a).astype(np.float64) - calls.forward(b).astype(np.float64)
    gap = float(np.linalg.norm((a.astype(np.float64) - b.astype(np.float64)).ravel()))
    return (1.0 - lipschitz) * gap - rounding, float(np.linalg.norm(image.ravel()))


def residual_gap(calls: "Any", x: "Any", rounding: float) -> "tuple[float, float]":
    """‖F(x) − x − g(x)‖₂ against the rounding of F and of g, on the worst row."""
    gap = calls.forward(x).astype(np.float64) - x.astype(np.float64) - calls.residual(x).astype(np.float64)
    return float(np.linalg.norm(gap.reshape(len(x), -1), axis=1).max()), rounding


def growth_from_zero(calls: "Any", x: "Any", lipschitz: float, rounding: float) -> "tuple[float, float]":
    """‖g(x) − g(0)‖₂ minus its rounding, against L‖x‖₂."""
    x = np.asarray(x)
    gap = np.asarray(calls.residual(x, seed=0), np.float64) - np.asarray(calls.residual(np.zeros_like(x), seed=0), np.float64)
    value = float(np.nan_to_num(np.linalg.norm(gap), nan=np.inf))
    return value - rounding, lipschitz * float(np.linalg.norm(np.asarray(x, np.float64)))


def layer_stretch(calls: "Any", name: str, v: "Any", claimed: float) -> "tuple[float, float]":
    """‖A(v) − A(0)‖₂ of one linear layer at a unit vector v, against the norm claimed for it."""
    apply = {entry[0]: entry[1] for entry in calls.subject.linear_maps()}[name]
    v = np.asarray(v)
    if str(getattr(calls.subject, "framework", "torch")).startswith("torch"):
        import torch

        dtype = getattr(torch, calls.subject.dtype)
        out = [apply(torch.tensor(a, dtype=dtype)).detach().double().numpy() for a in (v, np.zeros_like(v))]
    else:
        out = [np.asarray(apply(a), np.float64) for a in (v, np.zeros_like(v))]
    return float(np.linalg.norm(out[0] - out[1]) / np.linalg.norm(v)), float(claimed)


def preimage_depends_on_others(calls: "Any", y: "Any", at: int, bound: float) -> "tuple[float, float]":
    """How far the inverse of row `at` of y alone lies from the one within y."""
    a, b = (np.asarray(v, np.float64).reshape(-1) for v in (calls.inverse(y)[at], calls.inverse(y[at : at + 1])[0]))
    return float(np.nan_to_num(np.linalg.norm(a - b), nan=np.inf)), bound
