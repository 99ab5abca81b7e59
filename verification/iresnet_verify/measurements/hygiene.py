"""The measurements by which a reproduction shows a violated claim about calls: rows, seeds, modes, strides, arguments, dtypes.

Each function is copied into the reproduction file by itself, so it uses its arguments, NumPy and imports of its own
alone, and its annotations are strings. It returns (value, bound); the claim is violated where not value <= bound.
"""

from typing import Any

import numpy as np


def depends_on_others(calls: "Any", x: "Any", rows: "Any", at: int, name: str, bound: float) -> "tuple[float, float]":
    """How far `name` at one row of x[rows] lies from the same row evaluated within x."""
    f, rows = getattr(calls, name), np.asarray(rows)
    a, b = (np.asarray(v, np.float64).reshape(-1) for v in (f(x, seed=0)[rows[at]], f(x[rows], seed=0)[at]))
    return float(np.nan_to_num(np.linalg.norm(a - b), nan=np.inf)), bound


def depends_on_seed(calls: "Any", x: "Any", name: str, seeds: "Any", bound: float) -> "tuple[float, float]":
    """How far two evaluations at the same x with these two seeds lie apart."""
    f = getattr(calls, name)
    a, b = (np.asarray(f(x, seed=s), np.float64).reshape(len(x), -1) for s in seeds)
    return float(np.nan_to_num(np.linalg.norm(a - b, axis=1), nan=np.inf).max()), bound


def depends_on_strides(calls: "Any", x: "Any", bound: float) -> "tuple[float, float]":
    """How far y of a strided view lies from y of a contiguous copy of the same numbers (torch)."""
    import torch

    both = torch.tensor(np.stack([x, x[::-1] + 1.0], axis=-1)).to(getattr(calls.subject, "device", "cpu"))
    ys = []
    for view in (both[..., 0], both[..., 0].clone(memory_format=torch.contiguous_format)):
        y = calls.subject.forward(view)
        y = y[0] if isinstance(y, (tuple, list)) else y
        y = y[0] if isinstance(y, (tuple, list)) else y
        ys.append(y.detach().cpu().double().reshape(len(x), -1).numpy())
    return float(np.nan_to_num(np.linalg.norm(ys[0] - ys[1], axis=1), nan=np.inf).max()), bound


def changed_entries(calls: "Any", x: "Any", name: str) -> "tuple[float, float]":
    """The number of entries of its argument that a call changes; infinite where its memory was freed."""
    given, is_torch = x.copy(), str(getattr(calls.subject, "framework", "torch")).startswith("torch")
    if is_torch:
        import torch

        given = torch.tensor(x).to(getattr(calls.subject, "device", "cpu"))
    getattr(calls.subject, name)(given)
    if is_torch:
        if given.untyped_storage().nbytes() < x.nbytes:
            return np.inf, 0.0
        given = given.detach().cpu()
    return float(np.sum(np.asarray(given).view(np.uint8) != x.view(np.uint8))), 0.0


def wrong_dtype(calls: "Any", x: "Any", name: str, dtype: str) -> "tuple[float, float]":
    """1 where the array that `name` returns has another dtype than its argument."""
    return float(str(getattr(calls, name)(x).dtype) != dtype), 0.0


def finite_for_bad_row(calls: "Any", x: "Any", row: int) -> "tuple[float, float]":
    """1 where y of a row that holds NaN or inf is finite."""
    return float(np.isfinite(calls.forward(x)[row]).all()), 0.0


def changed_by_bad_row(calls: "Any", x: "Any", row: int, at: int, bound: float) -> "tuple[float, float]":
    """How far y of a good row moves when another row is filled with a non-finite number."""
    good = x.copy()
    good[row] = 0.0
    a, b = (np.asarray(calls.forward(v, seed=0)[at], np.float64).reshape(-1) for v in (good, x))
    return float(np.nan_to_num(np.linalg.norm(a - b), nan=np.inf)), bound


def wrong_shape(calls: "Any", x: "Any", name: str) -> "tuple[float, float]":
    """1 where the array that the raw callable returns has another shape than its argument; an exception counts 0."""
    given = x
    if str(getattr(calls.subject, "framework", "torch")).startswith("torch"):
        import torch

        given = torch.tensor(x).to(getattr(calls.subject, "device", "cpu"))
    try:
        y = getattr(calls.subject, name)(given)
    except Exception as error:
        print("rejected:", type(error).__name__)
        return 0.0, 0.0
    y = y[0] if isinstance(y, (tuple, list)) else y
    y = y[0] if isinstance(y, (tuple, list)) else y
    return float(tuple(y.shape) != tuple(x.shape)), 0.0


def differs_without_autograd(
    calls: "Any", x: "Any", name: str, context: str, bound: float
) -> "tuple[float, float]":
    """How far y or the log-det under torch.no_grad or torch.inference_mode lies from the one with autograd on."""
    import torch

    f = getattr(calls, name)
    on = np.asarray(f(x, seed=0), np.float64).reshape(len(x), -1)
    try:
        with getattr(torch, context)():
            off = np.asarray(f(x, seed=0), np.float64).reshape(len(x), -1)
    except Exception as error:
        print("raised", type(error).__name__, error)
        return np.inf, bound
    return float(np.nan_to_num(np.linalg.norm(on - off, axis=1), nan=np.inf).max()), bound


def modes_apart(calls: "Any", x: "Any", name: str, bound: float) -> "tuple[float, float]":
    """How far y or the log-det in train mode lies from the one in eval mode."""
    module, f = calls.subject.module, getattr(calls, name)
    values = []
    for mode in (True, False):
        module.train(mode)
        values.append(np.asarray(f(x, seed=0), np.float64).reshape(len(x), -1))
    return float(np.nan_to_num(np.linalg.norm(values[0] - values[1], axis=1), nan=np.inf).max()), bound


def second_difference(calls: "Any", x: "Any", step: "Any", bounds: "Any") -> "tuple[float, float]":
    """The upper quartile over rows of ‖F(x + h) − 2F(x) + F(x − h)‖₂ / bound, against 1."""
    a, b, c = (np.asarray(calls.forward(v, seed=0), np.float64).reshape(len(x), -1) for v in (x + step, x, x - step))
    return float(np.quantile(np.linalg.norm(a - 2 * b + c, axis=1) / bounds, 0.75)), 1.0


def log_det_disagreement(calls: "Any", x: "Any", row: int, bound: float) -> "tuple[float, float]":
    """How far the log-det returned by forward lies from the one of log_det."""
    import torch

    given = torch.tensor(x).to(getattr(calls.subject, "device", "cpu"))
    packed = torch.as_tensor(calls.subject.forward(given)[1]).detach().cpu().double().numpy()
    packed = np.full(len(x), packed.item()) if packed.size == 1 else packed.reshape(len(x), -1).sum(1)
    return float(np.nan_to_num(abs(packed[row] - calls.log_det(x, seed=0)[row]), nan=np.inf)), bound


def not_finite(calls: "Any", x: "Any") -> "tuple[float, float]":
    """The number of entries of forward(x) that are NaN or infinite, against 0."""
    return float((~np.isfinite(calls.forward(x))).sum()), 0.0
