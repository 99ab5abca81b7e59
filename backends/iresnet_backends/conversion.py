"""From one backend to another: the same memory through DLPack, or a copy where one is asked for."""

from __future__ import annotations

from typing import Any

import array_api_compat

from iresnet_backends.backend import Backend
from iresnet_backends.errors import BackendUnavailableError
from iresnet_ref.arrays import to_host
from iresnet_ref.errors import DTypeError


def convert(x: Any, to: Backend, *, copy: bool = False) -> Any:
    """Return x as an array of the backend `to`, with the same shape, values and dtype.

    Without `copy` the result shares the memory of x (writing to one shows in the other), and where memory cannot be
    shared (another device, unaligned for JAX, Python objects) nothing is copied silently: BackendUnavailableError says so.
    With `copy` the values go through the host; only numbers of arbitrary precision are rounded, to float64.

    Raises: DTypeError where the dtypes differ (cast first: nothing is rounded silently), BackendUnavailableError.

    >>> import numpy as np, iresnet_backends
    >>> x = np.zeros(3)
    >>> y = convert(x, iresnet_backends.get("numpy"))
    >>> x[0] = 1.0
    >>> float(y[0])
    1.0
    """
    if _dtype(x.dtype) != _dtype(to.dtype):
        raise DTypeError(
            f"convert: expected dtype {_dtype(to.dtype)} for {to.name!r}, got {_dtype(x.dtype)}; cast with xp.astype first"
        )
    if copy:
        return to.asarray(to_host(x))
    if to.name.startswith("precision"):  # its DLPack export is a copy in float64, without an address to tell by
        raise _cannot(type(x).__name__, to, "its numbers are Python objects")
    try:
        with to.active():
            y = _from_dlpack(x, to)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise _cannot(type(x).__name__, to, error) from error
    if y.dtype != to.dtype or array_api_compat.device(y) != to.device or not _same_memory(x, y):
        raise _cannot(type(x).__name__, to, "the framework had to make a copy")
    return y


def _from_dlpack(x: Any, to: Backend) -> Any:
    try:
        return to.xp.from_dlpack(x, device=to.device)
    except TypeError:  # no keyword device
        return to.xp.from_dlpack(x)


def _cannot(kind: str, to: Backend, reason: object) -> BackendUnavailableError:
    text = " ".join(str(reason).split())
    return BackendUnavailableError(
        f"convert: expected an array whose memory {to.name!r} can share, got {kind} ({text}); try convert(..., copy=True)"
    )


def _dtype(dtype: Any) -> str:
    """Name of the dtype: torch.float32, <f4, numpy.float32 and array_api_strict.float32 are float32."""
    return str(getattr(dtype, "name", getattr(dtype, "__name__", dtype))).rsplit(".", 1)[-1]


def _same_memory(x: Any, y: Any) -> bool:
    return x.shape == y.shape and (_address(x) == _address(y) or None in (_address(x), _address(y)))


def _address(a: Any) -> int | None:
    """Return where the data are, None where the framework does not tell."""
    for name in ("data_ptr", "unsafe_buffer_pointer"):  # torch, JAX
        if hasattr(a, name):
            return int(getattr(a, name)())
    if hasattr(a, "ctypes"):  # NumPy
        return int(a.ctypes.data)
    pointer = getattr(getattr(a, "data", None), "ptr", None)  # CuPy
    return None if pointer is None else int(pointer)
