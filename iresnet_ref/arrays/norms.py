"""Norms of events and of stacks, and the shapes they need."""

from __future__ import annotations

import math

import numpy as np

from iresnet_ref.arrays.namespaces import device, namespace, size, to_host
from iresnet_ref.arrays.types import Array, HostArray


def stack_norm(x: Array, p: float = 2.0) -> Array:
    """Return the p-norm of each event, p = 1, 2 or ∞, as (*probes, batch); ‖x_b‖₂ = m‖x_b/m‖₂ with m = max|x_b|.

    The event axes are flattened first. The division keeps the squares inside the range of the dtype: without it every
    float32 event below 1e-19 would have norm 0, and every one above 1e19 norm inf.
    """
    xp = namespace(x)
    if p == 1.0:
        return xp.sum(xp.abs(x), axis=-1)
    m = xp.max(xp.abs(x), axis=-1, keepdims=True)
    if p == math.inf:
        return m[..., 0]
    m = xp.where((m > 0.0) & xp.isfinite(m), m, xp.ones_like(m))
    scaled = x / m
    total = xp.linalg.vector_norm(scaled, axis=-1) if hasattr(xp, "linalg") else xp.sqrt(xp.sum(scaled * scaled, axis=-1))
    return total * m[..., 0]


def row_dot(a: Array, b: Array) -> Array:
    """Return the inner products of a and b over the last axis, as they are: squares of numbers near the ends of the range leave it."""
    xp = namespace(a)
    return xp.linalg.vecdot(a, b) if hasattr(xp, "linalg") else xp.vecdot(a, b)


def flatten_events(x: Array, event_ndim: int) -> Array:
    """Return x with its last `event_ndim` axes flattened to one."""
    if event_ndim == 1:
        return x
    lead = x.shape[: x.ndim - event_ndim]
    return namespace(x).reshape(x, (*lead, size(x.shape[x.ndim - event_ndim :])))


def row_norm(x: Array, event_ndim: int, p: float = 2.0) -> Array:
    """Return ‖x_b‖_p over the last `event_ndim` axes."""
    return stack_norm(flatten_events(x, event_ndim), p)


def host_norms(*arrays: Array, p: float = 2.0, leading: int | None = None) -> HostArray:
    """Return ‖x_b‖_p of every row of every array (batch, *event) on the host, in float64 as (arrays, batch).

    One synchronisation. The squares are summed as they are, and again with `row_norm` if they leave the range of the dtype,
    but for norms whose squares all are negligible next to a larger one of their row: those are 0, to an eps of the larger one. Only
    the first `leading` arrays count as larger ones (default: all); what follows may be of another size.
    """
    xp = namespace(*arrays)
    rows = flatten_events(xp.stack(arrays, axis=0), arrays[0].ndim - 1)
    if p != 2.0:
        return to_host(stack_norm(rows, p)).astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        squares = to_host(row_dot(rows, rows)).astype(np.float64)
    info = xp.finfo(rows.dtype)
    lost = rows.shape[-1] * float(info.smallest_normal) / float(info.eps) ** 2  # what underflows is below rounding
    if lost < squares.min(initial=math.inf) <= squares.max(initial=0.0) < math.inf:
        return np.sqrt(squares)
    vanishing = (squares == 0.0) & (squares[:leading].max(axis=0) > lost)  # then the true square is below n·smallest_normal = lost·eps²
    if (((squares > lost) | vanishing) & (squares < math.inf)).all():
        return np.sqrt(squares)
    return to_host(stack_norm(rows)).astype(np.float64)


def every_row(x: Array, value: float = 0.0) -> Array:
    """Return the value for every row of x, in its dtype and on its device."""
    return namespace(x).full(x.shape[:1], value, dtype=x.dtype, device=device(x))


def expand_rows(row: Array, event_ndim: int) -> Array:
    """Return a per-row array with `event_ndim` axes of length 1 appended, ready to broadcast over events."""
    return namespace(row).reshape(row, (*row.shape, *(1,) * event_ndim)) if event_ndim else row
