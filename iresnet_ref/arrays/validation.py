"""Validation at the public boundary, once; the kernels behind it contain only mathematics."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from iresnet_ref.arrays.namespaces import device, from_host, holds, is_array, is_short, is_traced, namespace, size
from iresnet_ref.arrays.types import Array, DType, HostArray, Namespace
from iresnet_ref.errors import DTypeError, NonFiniteError, NotContractiveError, ShapeError

_PROBE = 32


def require_finite(products_like: Array | None = None, **arrays: Array | None) -> None:
    """Refuse NaN and infinity, by one host synchronisation for all arrays together; None and empty ones are passed over.

    With `products_like` that look is also at a matrix product in its arithmetic: whoever bounds rounding refuses one that keeps
    fewer bits than the dtype has. Under a compiler there is nothing to look at, and no product.
    Raises: NonFiniteError, DTypeError.
    """
    finite = {name: namespace(a).isfinite(a) for name, a in arrays.items() if a is not None and size(tuple(a.shape))}
    # NumPy's products are the host's own
    like = None if products_like is None or type(products_like) is np.ndarray or is_traced(products_like) else products_like
    probe = () if like is None else (keeps_products(like),)
    if not (finite or probe) or holds(*finite.values(), *probe):
        return
    for name, condition in finite.items():
        if not holds(condition):
            raise NonFiniteError(f"{name}: expected finite values, got NaN or infinity; look at the rows where isfinite is false")
    dtype = getattr(products_like, "dtype", None)
    raise DTypeError(
        f"expected matrix products in {dtype}'s own precision, on which every bound on rounding rests, got fewer bits; "
        "leave autocast for this call, or switch TF32 off: torch.backends.cuda.matmul.allow_tf32 = False, "
        "jax.config.update('jax_default_matmul_precision', 'highest'), CUPY_TF32=0"
    )


def keeps_products(x: Array) -> Array:
    """Return a condition on the device: (1 + 2u)·1 is 1 + 2u in a product of matrices large enough for tensor cores."""
    factors = from_host(_probe(float(namespace(x).finfo(x.dtype).eps)), x)
    return namespace(x).equal(factors[0, ...] @ factors[1, ...], factors[0, ...])


@cache
def _probe(eps: float) -> HostArray:
    return np.stack([np.full((_PROBE, _PROBE), 1.0 + eps), np.eye(_PROBE)])


def require_full_precision(x: Array, what: str, remedy: str) -> None:
    """Refuse dtypes of fewer than 32 bits. Raises DTypeError."""
    if is_short(x):
        raise DTypeError(f"{what}: expected float32 or float64, got {x.dtype}, whose rounding would swamp the result; try {remedy}")


_ARRAYS: set[type] = set()
"""Types of arrays met so far."""


def require_array(x: Any, name: str) -> None:
    """Refuse what is no array of the standard: masked arrays and matrices of NumPy mean something else. Raises DTypeError."""
    kind: type[object] = type(x)  # pyright: ignore[reportUnknownVariableType] - narrowed from Any
    if kind in _ARRAYS:
        return
    if isinstance(x, np.ma.MaskedArray | np.matrix):
        raise DTypeError(
            f"{name}: expected a plain array, got {kind.__name__}, whose operators mean something else; "
            "try x.filled(value), rows without a mask, or numpy.asarray of a matrix"
        )
    if not is_array(x):
        raise DTypeError(
            f"{name}: expected an array of the Python Array API (NumPy, torch, …), got {kind.__name__}; "
            "try numpy.asarray or your framework's asarray"
        )
    _ARRAYS.add(kind)


@cache
def _is_real(xp: Namespace, dtype: DType) -> bool:
    return bool(xp.isdtype(dtype, "real floating")) and getattr(dtype, "char", "") != "g"


def require_real(x: Array, name: str) -> None:
    """Refuse anything but a real floating-point array. Raises DTypeError."""
    require_array(x, name)
    xp = namespace(x)
    if not _is_real(xp, x.dtype):
        raise DTypeError(f"{name}: expected a real floating dtype, got {x.dtype}; try xp.astype(x, xp.float64)")


def require_batch(x: Array, event_shape: tuple[int, ...], name: str, *, check: bool = True) -> None:
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


def require_alike(x: Array, other: Array, name: str) -> None:
    """Refuse arrays of different namespace, dtype or device: nothing is promoted or moved silently."""
    if type(x) is not type(other) and namespace(x) is not namespace(other):
        raise DTypeError(
            f"{name}: expected an array of {namespace(other).__name__} like the weights, got {namespace(x).__name__}; "
            "convert it with the backend's asarray"
        )
    if x.dtype != other.dtype:
        raise DTypeError(f"{name}: expected dtype {other.dtype} like the weights, got {x.dtype}; convert one of them with xp.astype")
    mine, theirs = device(x), device(other)
    if mine != theirs and None not in (mine, theirs):  # under jax.jit there is no device
        raise DTypeError(f"{name}: expected device {theirs} like the weights, got {mine}; move one with array_api_compat.to_device")


def require_rows(x: Array, other: Array, name: str) -> None:
    """Refuse an array of another number of rows. Raises ShapeError."""
    if x.shape[0] != other.shape[0]:
        raise ShapeError(f"{name}: expected one row for each of the {other.shape[0]} of the batch, got {x.shape[0]}; try as many")


def require_event(shape: tuple[int, ...], name: str) -> None:
    """Refuse what is no shape of an event: at least one axis, none of them empty. Raises ShapeError."""
    if not shape or min(shape) < 1:
        raise ShapeError(f"{name}: expected an event shape of positive sizes, (channels, …), got {shape}; try (2,)")


def require_parameters(got: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    """Refuse parameters of other names or shapes. Raises ShapeError, DTypeError."""
    for key in sorted(got.keys() ^ wanted.keys(), key=str):
        raise ShapeError(f"parameters: expected exactly the keys {sorted(wanted)}, got {key!r} on one side only; try those of parameters()")
    for key, old in wanted.items():
        if type(got[key]) is type(old) and got[key].dtype == old.dtype and got[key].shape == old.shape:
            continue
        require_real(got[key], f"parameters[{key!r}]")
        if tuple(got[key].shape) != tuple(old.shape):
            raise ShapeError(
                f"parameters[{key!r}]: expected shape {tuple(old.shape)}, got {tuple(got[key].shape)}; try an array like the old one"
            )


def require_lipschitz(name: str, lipschitz: float) -> None:
    """Refuse a constant outside [0, 1), NaN too. Raises NotContractiveError."""
    if not 0.0 <= lipschitz < 1.0:
        raise NotContractiveError(f"{name}: expected 0 ≤ Lip(g) < 1, got {lipschitz}; try 0.9")
