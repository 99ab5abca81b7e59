"""The values that a subject returns, brought to one form: packing, log-det shapes, dtypes. The suite does it, not the adapter.

Packings: `y`, `(y,)`, `[y]`, `(y, log_det)`, `([y], log_det)`. Log-dets of a batch of B events: `(B,)`, `(B, 1)` (or
further axes of length 1), one number for all rows (`()`, `(1,)`, a Python float), or element-wise `(B, *event)`,
which is summed over the event. Anything else is a `SubjectError`: expected, got, try.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import array_api_compat as compat
import numpy as np

from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.frameworks import UNIT_ROUNDOFF, Framework, dtype_name
from iresnet_verify.subject.subject import EventShape, Native


def describe(value: object) -> str:
    """Describe `value` in a few words: `float64 (5, 3)`, `a tuple of 3`, `NoneType`."""
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)} ({', '.join(describe(v) for v in value[:3])})"
    shape = getattr(value, "shape", None)
    if shape is not None and hasattr(value, "dtype"):
        return f"{type(value).__module__.split('.')[0]} {dtype_name(value)} {tuple(shape)}"
    return f"{type(value).__name__} {str(value)[:40]!r}" if isinstance(value, Real | str) else type(value).__name__


def unpack(name: str, result: Any) -> tuple[Any, Any, str]:
    """Split what `name` returned into (event array, log-det or None, the name of the packing)."""
    if not isinstance(result, tuple | list):
        return result, None, "y"
    if len(result) == 1:
        return _single(name, result[0]), None, "[y]"
    if len(result) == 2:
        packing = "([y], log_det)" if isinstance(result[0], tuple | list) else "(y, log_det)"
        return _single(name, result[0]), result[1], packing if result[1] is not None else "(y, None)"
    raise SubjectError(f"{name}: expected y or (y, log_det), got {describe(result)}; try wrapping it: "
                       f"{name}=lambda x: module(x)[:2]")


def _single(name: str, value: Any) -> Any:
    if not isinstance(value, tuple | list):
        return value
    if len(value) == 1:
        return value[0]
    raise SubjectError(f"{name}: expected one event array, got {describe(value)}; try concatenating the parts")


def event(name: str, value: Any, framework: Framework, batch: int, shape: EventShape) -> Native:
    """Check that `value` is an event array of the framework, of shape (batch, *shape) and a floating dtype."""
    if not framework.is_array(value):
        raise SubjectError(f"{name}: expected a {framework.array_type} of shape {(batch, *shape)}, got "
                           f"{describe(value)}; try returning the framework's own array, or correct `framework`")
    if tuple(value.shape) != (batch, *shape):
        raise SubjectError(f"{name}: expected shape {(batch, *shape)}, got {tuple(value.shape)}; "
                           "try correcting event_shape, or reshape inside the callable")
    if dtype_name(value) not in UNIT_ROUNDOFF:
        raise SubjectError(f"{name}: expected a floating dtype, got {dtype_name(value)}; "
                           "try returning the dtype of the input")
    return value


def log_det(
    name: str, value: Any, framework: Framework, batch: int, *, shape: EventShape, like: Native
) -> tuple[Native, str]:
    """Normalise a log-det to shape (batch,), still differentiable; also return the name of its shape."""
    xp = compat.array_namespace(like)
    is_array = framework.is_array(value)
    if not is_array and isinstance(value, Real):
        return xp.full((batch,), float(value), dtype=like.dtype, device=compat.device(like)), "a Python number"
    if not is_array:
        raise SubjectError(f"{name}: expected a log-det of shape {(batch,)}, got {describe(value)}; "
                           f"try returning a {framework.array_type} with one number per row")
    got = tuple(value.shape)
    size = math.prod(got)
    if dtype_name(value) not in UNIT_ROUNDOFF:
        raise SubjectError(f"{name}: expected a real floating log-det, got {describe(value)}; "
                           "try the real part, in the dtype of the input")
    if len(got) >= 1 and got[0] == batch and size == batch:
        return xp.reshape(value, (batch,)), "(B,)" if len(got) == 1 else f"(B, {', '.join('1' for _ in got[1:])})"
    if got == (batch, *shape):
        return xp.sum(xp.reshape(value, (batch, math.prod(shape))), axis=1), "element-wise (B, *event)"
    if size == 1:
        return xp.broadcast_to(xp.reshape(value, ()), (batch,)), str(got).replace(" ", "")
    raise SubjectError(f"{name}: expected a log-det of shape {(batch,)}, {(batch, 1)}, () or element-wise "
                       f"{(batch, *shape)}, got {got}; try summing over all but the batch axis")


def host_log_det(value: Native, framework: Framework) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Convert a normalised log-det to float64 on the host."""
    return np.asarray(framework.host(value), dtype=np.float64)
