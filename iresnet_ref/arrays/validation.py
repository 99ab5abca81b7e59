"""Validation at the public boundary, once; the kernels behind it contain only mathematics."""

from __future__ import annotations

from typing import Any

import array_api_compat

from iresnet_ref.arrays.namespaces import Array, device, holds, is_short, is_traced, namespace, size
from iresnet_ref.errors import DTypeError, NonFiniteError, ShapeError

_PROBE = 32


def require_finite(products_like: Any = None, **arrays: Any) -> None:
    """Refuse NaN and infinity, by one host synchronisation for all arrays together; None and empty ones are passed over.

    With `products_like` that look is also at a matrix product in its arithmetic: whoever bounds rounding refuses one that keeps
    fewer bits than the dtype has. Under a compiler there is nothing to look at, and no product.
    Raises: NonFiniteError, DTypeError.
    """
    finite = {name: namespace(a).isfinite(a) for name, a in arrays.items() if a is not None and size(tuple(a.shape))}
    probe = () if products_like is None or is_traced(products_like) else (keeps_products(products_like),)
    if not (finite or probe) or holds(*finite.values(), *probe):
        return
    for name, condition in finite.items():
        if not holds(condition):
            raise NonFiniteError(f"{name}: expected finite values, got NaN or infinity; look at the rows where isfinite is false")
    raise DTypeError(
        f"expected matrix products in {products_like.dtype}'s own precision, on which every bound on rounding rests, got fewer bits; "
        "leave autocast for this call, or switch TF32 off: torch.backends.cuda.matmul.allow_tf32 = False, "
        "jax.config.update('jax_default_matmul_precision', 'highest'), CUPY_TF32=0"
    )


def keeps_products(x: Array) -> Any:
    """Return a condition on the device: (1 + 2u)·1 is 1 + 2u in a product of matrices large enough for tensor cores."""
    xp = namespace(x)
    a = xp.full((_PROBE, _PROBE), 1.0 + float(xp.finfo(x.dtype).eps), dtype=x.dtype, device=device(x))
    return xp.matmul(a, xp.eye(_PROBE, dtype=x.dtype, device=device(x))) == a


def require_full_precision(x: Array, what: str, instead: str) -> None:
    """Refuse dtypes of fewer than 32 bits. Raises DTypeError."""
    if is_short(x):
        raise DTypeError(
            f"{what}: expected float32 or float64, got {x.dtype}, whose rounding would swamp the result; "
            f"try {instead} weights and inputs cast to float32"
        )


def _is_array(x: Any) -> bool:
    return bool(array_api_compat.is_array_api_obj(x))  # as a bool: its own type would narrow x to less than is used


def require_real(x: Any, name: str) -> None:
    """Refuse anything but a real floating-point array. Raises DTypeError."""
    if not _is_array(x):
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
