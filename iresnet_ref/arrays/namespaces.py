"""The `Array` protocol, the namespace of an array, the way to the host and back, and validation at the boundary.

Validation happens here and once, in the public functions; the kernels behind them contain only mathematics.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol, Self

import array_api_compat
import numpy as np
import numpy.typing as npt

from iresnet_ref.errors import DTypeError

HostArray = npt.NDArray[Any]


class Array(Protocol):
    """What the reference needs of an array of the Python Array API standard."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102 - as the standard has it
    @property
    def ndim(self) -> int: ...  # noqa: D102 - as the standard has it
    @property
    def dtype(self) -> Any: ...  # noqa: D102 - as the standard has it

    def __neg__(self) -> Self: ...
    def __add__(self, other: Any, /) -> Self: ...
    def __radd__(self, other: Any, /) -> Self: ...
    def __sub__(self, other: Any, /) -> Self: ...
    def __rsub__(self, other: Any, /) -> Self: ...
    def __mul__(self, other: Any, /) -> Self: ...
    def __rmul__(self, other: Any, /) -> Self: ...
    def __truediv__(self, other: Any, /) -> Self: ...
    def __rtruediv__(self, other: Any, /) -> Self: ...
    def __getitem__(self, key: Any, /) -> Self: ...
    def __lt__(self, other: Any, /) -> Any: ...
    def __le__(self, other: Any, /) -> Any: ...
    def __gt__(self, other: Any, /) -> Any: ...
    def __ge__(self, other: Any, /) -> Any: ...


_NAMESPACES: dict[type, Any] = {}


def namespace(*arrays: Array) -> Any:
    """Return the array-API namespace `xp` of the arrays; of a single one it is looked up once for each type."""
    if len(arrays) != 1:
        return array_api_compat.array_namespace(*arrays)
    kind = type(arrays[0])
    if kind is np.ndarray and arrays[0].dtype.kind == "V":  # JAX's gradients that are zero: arrays of NumPy by type
        return array_api_compat.array_namespace(arrays[0])
    xp = _NAMESPACES.get(kind)
    if xp is None:
        xp = _NAMESPACES[kind] = array_api_compat.array_namespace(arrays[0])
    return xp


def contiguous(x: Array) -> Any:
    """Return x with its entries in the order of its axes in memory: matrix products with negative strides are slow."""
    xp = namespace(x)
    return xp.reshape(xp.reshape(x, (size(x.shape),)), x.shape)


def family(x: Array) -> str:
    """Return the package that computes with x: "numpy", "torch", "jax", …"""
    return str(namespace(x).__name__).removeprefix("array_api_compat.").partition(".")[0]


def device(x: Array) -> Any:
    """Return the device of x, for `device=` of a creation function."""
    return array_api_compat.device(x)


def size(shape: tuple[int, ...]) -> int:
    """Return the number of entries of an array of this shape."""
    return math.prod(shape)


def to_host(x: Array) -> HostArray:
    """Return x as a NumPy array: the values exactly, no gradient history.

    Meant for weights (certificates) and for the one decision per `check_every` iterations, never for a whole batch.
    Arbitrary-precision arrays are rounded to float64.
    """
    detach: Callable[[], Any] | None = getattr(x, "detach", None)
    plain: Any = detach() if detach is not None else x
    if is_short(x):  # exact, and NumPy has no bfloat16
        plain = namespace(x).astype(plain, namespace(x).float32)
    for convert in (_by_dlpack, _by_device, np.asarray):
        try:
            host = convert(plain)
        except (TypeError, ValueError, BufferError, RuntimeError, AttributeError, NotImplementedError):
            continue
        return _by_element(plain) if host.dtype == object else host
    raise DTypeError(
        f"expected an array that can be copied to the host, got {type(x).__name__}; convert it to NumPy first, and keep what "
        "decides on values (inverses, certificates) outside jit and vmap: there, state lipschitz="
    )


def _by_dlpack(x: Any) -> HostArray:
    return np.from_dlpack(x)


def _by_device(x: Any) -> HostArray:
    return np.asarray(array_api_compat.to_device(x, "cpu"))


def _by_element(x: Any) -> HostArray:
    flat = namespace(x).reshape(x, (-1,))
    return np.asarray([float(flat[i]) for i in range(flat.shape[0])], dtype=np.float64).reshape(x.shape)


def from_host(a: HostArray | list[Any] | float, like: Array) -> Any:
    """Return a host array in the namespace, on the device and in the dtype of `like`."""
    return namespace(like).asarray(np.asarray(a), dtype=like.dtype, device=device(like))


def indices(a: HostArray, like: Array) -> Any:
    """Return host integers as an index array on the device of `like`."""
    xp = namespace(like)
    return xp.asarray(np.asarray(a, dtype=np.int32), dtype=xp.int32, device=device(like))


def is_compiling(*arrays: Array) -> bool:
    """Return whether a compiler that the namespace names (torch's) traces this call: nothing may ask for values or NumPy's state."""
    compiler = getattr(namespace(*arrays), "compiler", None)
    return compiler is not None and bool(compiler.is_compiling())


def is_traced(x: Array) -> bool:
    """Return whether x has no value of its own: under a compiler, or where no device is named (jax.jit)."""
    return is_compiling(x) or (hasattr(x, "device") and device(x) is None)


def holds(*conditions: Any) -> bool:
    """Return whether every entry of every condition is true, by one host synchronisation.

    True where there is no value to look at: under jit, compile or vmap, and on a device without data (torch's meta).
    """
    xp = namespace(*conditions)
    if is_compiling(*conditions):
        return True
    every = functools.reduce(operator.and_, (xp.all(condition) for condition in conditions))
    try:
        return bool(every)
    except (TypeError, RuntimeError):  # what tracers, and arrays without data, raise when asked for a value
        return True


def all_finite(x: Array) -> bool:
    """Return whether every entry is finite, by one host synchronisation; True where there is no value to look at."""
    return holds(namespace(x).isfinite(x))


@cache
def _is_short(xp: Any, dtype: Any) -> bool:
    return bool(xp.isdtype(dtype, "real floating") and getattr(xp.finfo(dtype), "bits", 64) < 32)


def is_short(x: Array) -> bool:
    """Return whether x has fewer than 32 bits (bfloat16, float16): sums of it are accumulated in float32."""
    return _is_short(namespace(x), x.dtype)


def widen(x: Array) -> Any:
    """Return x, in float32 where it has fewer than 32 bits."""
    return namespace(x).astype(x, namespace(x).float32) if is_short(x) else x


def product(a: Array, b: Array) -> Any:
    """Return the matrix product a b in a's dtype, accumulated in at least float32."""
    xp = namespace(a)
    return xp.astype(xp.matmul(widen(a), widen(b)), a.dtype) if is_short(a) else xp.matmul(a, b)
