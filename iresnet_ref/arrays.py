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

from iresnet_ref.errors import DTypeError, NonFiniteError, ShapeError

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


_NAMESPACES: dict[tuple[type, Any], Any] = {}


def namespace(*arrays: Array) -> Any:
    """Return the array-API namespace `xp` of the arrays; of a single one it is looked up once for each type and dtype."""
    if len(arrays) != 1:
        return array_api_compat.array_namespace(*arrays)
    kind = type(arrays[0]), getattr(arrays[0], "dtype", None)
    xp = _NAMESPACES.get(kind)
    if xp is None:
        xp = _NAMESPACES[kind] = array_api_compat.array_namespace(arrays[0])
    return xp


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


def require_finite(**arrays: Any) -> None:
    """Refuse NaN and infinity, by one host synchronisation for all arrays together; None and empty ones are passed over.

    Raises: NonFiniteError.
    """
    finite = {name: namespace(a).isfinite(a) for name, a in arrays.items() if a is not None and size(tuple(a.shape))}
    if finite and not holds(*finite.values()):
        name = next(name for name, condition in finite.items() if not holds(condition))
        raise NonFiniteError(
            f"{name}: expected finite values, got NaN or infinity; look at the rows where isfinite is false"
        )


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


def require_full_precision(x: Array, what: str, instead: str) -> None:
    """Refuse dtypes of fewer than 32 bits. Raises DTypeError."""
    if is_short(x):
        raise DTypeError(
            f"{what}: expected float32 or float64, got {x.dtype}, whose rounding would swamp the result; "
            f"try {instead} weights and inputs cast to float32"
        )


def stack_norm(x: Array, p: float = 2.0) -> Any:
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
    total = (
        xp.linalg.vector_norm(scaled, axis=-1) if hasattr(xp, "linalg") else xp.sqrt(xp.sum(scaled * scaled, axis=-1))
    )
    return total * m[..., 0]


def flatten_events(x: Array, event_ndim: int) -> Any:
    """Return x with its last `event_ndim` axes flattened to one."""
    if event_ndim == 1:
        return x
    lead = x.shape[: x.ndim - event_ndim]
    return namespace(x).reshape(x, (*lead, size(x.shape[x.ndim - event_ndim :])))


def row_norm(x: Array, event_ndim: int, p: float = 2.0) -> Any:
    """Return ‖x_b‖_p over the last `event_ndim` axes."""
    return stack_norm(flatten_events(x, event_ndim), p)


def host_norms(*arrays: Array, p: float = 2.0) -> HostArray:
    """Return ‖x_b‖_p of every row of every array (batch, *event) on the host, in float64 as (arrays, batch).

    One synchronisation. The squares are summed as they are, and again with `row_norm` if they leave the range of the dtype,
    but for norms whose squares all vanish beside a larger one of their row: those are 0, to an eps of the larger one.
    """
    xp = namespace(*arrays)
    flat = [flatten_events(x, x.ndim - 1) for x in arrays]
    if p != 2.0:
        return to_host(xp.stack([stack_norm(x, p) for x in flat], axis=0)).astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        squares = to_host(xp.stack([xp.vecdot(x, x) for x in flat], axis=0)).astype(np.float64)
    info = xp.finfo(flat[0].dtype)
    lost = flat[0].shape[-1] * float(info.smallest_normal) / float(info.eps) ** 2  # what underflows is below rounding
    vanishing = (squares == 0.0) & (squares.max(axis=0) > lost)  # then the true square is below n·smallest_normal = lost·eps²
    if (((squares > lost) | vanishing) & (squares < math.inf)).all():
        return np.sqrt(squares)
    return to_host(xp.stack([stack_norm(x) for x in flat], axis=0)).astype(np.float64)


def expand_rows(row: Array, event_ndim: int) -> Any:
    """Return a per-row array with `event_ndim` axes of length 1 appended, ready to broadcast over events."""
    return namespace(row).reshape(row, (*row.shape, *(1,) * event_ndim))


def require_real(x: Any, name: str) -> None:
    """Refuse anything but a real floating-point array. Raises DTypeError."""
    if not array_api_compat.is_array_api_obj(x):
        raise DTypeError(
            f"{name}: expected an array of the Python Array API (NumPy, torch, …), got {type(x).__name__}; "
            "try numpy.asarray or your framework's asarray"
        )
    xp = namespace(x)
    if not xp.isdtype(x.dtype, "real floating"):
        raise DTypeError(f"{name}: expected a real floating dtype, got {x.dtype}; try xp.astype(x, xp.float64)")


def require_batch(x: Any, event_shape: tuple[int, ...], name: str, *, check: bool = True) -> None:
    """Refuse anything but a finite floating-point batch `(batch, *event_shape)`.

    Raises: DTypeError, ShapeError, NonFiniteError (the last only with `check`, which costs one host synchronisation).
    """
    require_real(x, name)
    if x.ndim != 1 + len(event_shape) or tuple(x.shape[1:]) != tuple(event_shape):
        raise ShapeError(
            f"{name}: expected shape (batch, {', '.join(map(str, event_shape))}), got {tuple(x.shape)}; "
            "put the batch first, try x[None] for a single event"
        )
    if check:
        require_finite(**{name: x})


def require_alike(x: Any, other: Any, name: str) -> None:
    """Refuse arrays of different namespace, dtype or device: nothing is promoted or moved silently."""
    if namespace(x) is not namespace(other):
        raise DTypeError(
            f"{name}: expected an array of {namespace(other).__name__} like the weights, got {namespace(x).__name__}; "
            "convert it with the backend's asarray"
        )
    if x.dtype != other.dtype:
        raise DTypeError(
            f"{name}: expected dtype {other.dtype} like the weights, got {x.dtype}; convert one of them with xp.astype"
        )
    if None not in (device(x), device(other)) and device(x) != device(other):  # under jax.jit there is no device
        raise DTypeError(
            f"{name}: expected device {device(other)} like the weights, got {device(x)}; move one with array_api_compat.to_device"
        )
