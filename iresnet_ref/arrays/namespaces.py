"""The namespace of an array, its device, and the way to the host and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, cast

import array_api_compat
import numpy as np

from iresnet_ref.arrays.types import Array, Device, DType, HostArray, Namespace
from iresnet_ref.errors import DTypeError

_NAMESPACES: dict[object, Namespace] = {}
_ARE_ARRAYS: dict[type, bool] = {}
_WITH_DEVICE: set[type] = set()
"""Types whose `device` is what the standard says."""


def namespace(x: Array, *others: Array) -> Namespace:
    """Return the array-API namespace `xp` of the arrays; it is looked up once for each type."""
    if others and any(type(other) is not type(x) for other in others):
        return array_api_compat.array_namespace(x, *others)
    kind = x.dtype if type(x) is np.ndarray else type(x)  # JAX's gradients that are zero are NumPy's by type
    xp = _NAMESPACES.get(kind)
    if xp is None:
        xp = _NAMESPACES[kind] = array_api_compat.array_namespace(x)
    return xp


def contiguous(x: Array) -> Array:
    """Return x with its entries in the order of its axes in memory: matrix products with negative strides are slow."""
    xp = namespace(x)
    return xp.reshape(xp.reshape(x, (size(x.shape),)), x.shape)


def family(x: Array) -> str:
    """Return the package that computes with x: "numpy", "torch", "jax", …"""
    return str(namespace(x).__name__).removeprefix("array_api_compat.").partition(".")[0]


def is_array(x: object) -> bool:
    """Return whether x is an array of a package that `array_api_compat` knows, or of the standard."""
    kind: type[object] = type(x)
    found = _ARE_ARRAYS.get(kind)
    if found is None:
        found = bool(array_api_compat.is_array_api_obj(x))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] - its stubs leave parts out
        _ARE_ARRAYS[kind] = found
    return found


def device(x: Array) -> Device:
    """Return the device of x, for `device=` of a creation function."""
    kind = type(x)
    if kind is np.ndarray:
        return "cpu"
    if kind in _WITH_DEVICE:
        return cast("Any", x).device
    if family(x) in {"torch", "cupy"}:
        _WITH_DEVICE.add(kind)
    return array_api_compat.device(x)  # pyright: ignore[reportUnknownMemberType] - its stubs leave parts out


def size(shape: tuple[int, ...]) -> int:
    """Return the number of entries of an array of this shape."""
    return math.prod(shape)


def to_host(x: Array) -> HostArray:
    """Return x as a NumPy array: the values exactly, no gradient history.

    Meant for weights (certificates) and for the one decision per `check_every` iterations, never for a whole batch.
    Arbitrary-precision arrays are rounded to float64.
    """
    detach: Callable[[], Array] | None = getattr(x, "detach", None)
    plain = detach() if detach is not None else x
    if is_short(x):  # exact, and NumPy has no bfloat16
        plain = namespace(x).astype(plain, namespace(x).float32)
    objects = False
    # torch's DLPack would hand out memory that its fake tensors do not have
    for convert in (np.asarray, _by_dlpack, _by_device) if detach is None else (np.asarray, _by_device):
        try:
            host = convert(plain)
        except (TypeError, ValueError, BufferError, RuntimeError, AttributeError, NotImplementedError):
            continue
        if host.dtype != object:
            return host
        objects = True
    if objects:
        return _by_element(plain)
    raise DTypeError(
        f"expected an array that can be copied to the host, got {type(x).__name__}; convert it to NumPy first, and keep what "
        "decides on values (inverses, certificates) outside jit and vmap: there, state lipschitz="
    )


def _by_dlpack(x: Array) -> HostArray:
    return np.from_dlpack(cast("Any", x))


def _by_device(x: Array) -> HostArray:
    return np.asarray(array_api_compat.to_device(x, "cpu"))


def _by_element(x: Array) -> HostArray:
    flat = namespace(x).reshape(x, (-1,))
    return np.asarray([float(flat[i]) for i in range(flat.shape[0])], dtype=np.float64).reshape(x.shape)


def from_host(a: HostArray | Sequence[float] | float, like: Array) -> Array:
    """Return a host array in the namespace, on the device and in the dtype of `like`."""
    return namespace(like).asarray(np.asarray(a), dtype=like.dtype, device=device(like))


def indices(a: HostArray, like: Array) -> Array:
    """Return host integers as an index array on the device of `like`."""
    xp = namespace(like)
    return xp.asarray(np.asarray(a, dtype=np.int32), dtype=xp.int32, device=device(like))


def is_compiling(*arrays: Array) -> bool:
    """Return whether a compiler that the namespace names (torch's) traces this call: nothing may ask for values or NumPy's state."""
    compiler = getattr(namespace(*arrays), "compiler", None)
    return compiler is not None and bool(compiler.is_compiling())


def is_traced(x: Array) -> bool:
    """Return whether x has no value of its own: under a compiler, or where no device is named (jax.jit)."""
    if is_compiling(x):
        return True
    try:
        return device(x) is None
    except AttributeError:  # arrays of arbitrary precision have none
        return False


def holds(*conditions: Array) -> bool:
    """Return whether every entry of every condition is true, by one host synchronisation.

    True where there is no value to look at: under jit, compile or vmap, and on a device without data (torch's meta).
    """
    xp = namespace(*conditions)
    if is_compiling(*conditions):
        return True
    every = xp.all(conditions[0])
    for condition in conditions[1:]:
        every = every & xp.all(condition)
    try:
        return bool(every)
    except (TypeError, RuntimeError):  # what tracers, and arrays without data, raise when asked for a value
        return True


def all_finite(x: Array) -> bool:
    """Return whether every entry is finite, by one host synchronisation; True where there is no value to look at."""
    return holds(namespace(x).isfinite(x))


@cache
def _is_short(xp: Namespace, dtype: DType) -> bool:
    return bool(xp.isdtype(dtype, "real floating") and getattr(xp.finfo(dtype), "bits", 64) < 32)


def is_short(x: Array) -> bool:
    """Return whether x has fewer than 32 bits (bfloat16, float16): sums of it are accumulated in float32."""
    return _is_short(namespace(x), x.dtype)


def widen(x: Array) -> Array:
    """Return x, in float32 where it has fewer than 32 bits."""
    return namespace(x).astype(x, namespace(x).float32) if is_short(x) else x


def product(a: Array, b: Array) -> Array:
    """Return the matrix product a b in a's dtype, accumulated in at least float32."""
    return namespace(a).astype(widen(a) @ widen(b), a.dtype) if is_short(a) else a @ b
