"""Backends: arrays, devices and names. `get("torch:cuda:0", dtype="float32")`, `available()`.

A backend is *available* if it can allocate one element, not if it can be imported.
"""

from __future__ import annotations

import importlib
from contextlib import nullcontext, suppress
from types import ModuleType

from iresnet_backends.backend import Backend, allocate
from iresnet_ref.errors import BackendUnavailableError, DTypeError

_MODULES = {"numpy": "numpy", "torch": "torch", "array-api-strict": "array_api_strict", "precision": "precision"}
_EXTRAS = {"torch": "torch", "array-api-strict": "strict", "precision": "precision"}
_DEFAULT_DEVICE = {"precision": "50"}
FAMILIES = tuple(_MODULES)
"""The backends there are, working here or not."""


def get(name: str, dtype: str = "float64") -> Backend:
    """Return the backend `name` = "family[:device]", such as "numpy", "torch:cuda:0" or "array-api-strict:device1".

    Raises: BackendUnavailableError naming the cause and the remedy (unknown family, missing package, missing driver, wrong
    device), DTypeError for an unsupported dtype.

    >>> get("numpy", dtype="float32").asarray([1.0]).dtype
    dtype('float32')
    """
    family, _, device = name.partition(":")
    module = _module(family)
    if dtype not in module.DTYPES:
        raise DTypeError(f"backend {name!r}: expected a dtype of {', '.join(module.DTYPES)}, got {dtype!r}")
    try:
        if device and family != "precision" and device not in module.devices():
            raise RuntimeError(f"no such device; here it has {', '.join(module.devices())}")
        return allocate(module.make(name, device or _DEFAULT_DEVICE.get(family, "cpu"), dtype))
    except ImportError as missing:
        extra = _EXTRAS.get(family, "all")
        raise BackendUnavailableError(
            f'backend {name!r}: the package {missing.name or family} cannot be imported; try pip install "iresnet-ref[{extra}]"'
        ) from missing
    except (RuntimeError, ValueError, AssertionError) as error:
        raise BackendUnavailableError(
            f"backend {name!r}: cannot allocate on device {device or 'cpu'!r}: {error}; try get({family!r}) or another device"
        ) from error


def available() -> list[str]:
    """Return the names that `get` accepts here, one per backend and device: each has just allocated one element.

    >>> "numpy:cpu" in available()
    True
    """
    found = []
    for family in _MODULES:
        try:
            module = _module(family)
            names = [f"{family}:{device}" for device in module.devices()]
            with getattr(module, "undisturbed", nullcontext)():
                for name in names:
                    with suppress(BackendUnavailableError):
                        found.append(get(name, dtype=module.DTYPES[-1]).name)
        except ImportError:
            continue
    return found


def devices(family: str) -> list[str]:
    """Return the devices that a family names here. Raises ImportError where its package is missing."""
    return list(_module(family).devices())


def _module(family: str) -> ModuleType:
    if family not in _MODULES:
        raise BackendUnavailableError(f"backend {family!r}: expected one of {', '.join(sorted(_MODULES))}; try 'numpy'")
    return importlib.import_module(f"iresnet_backends.{_MODULES[family]}")


__all__ = ["FAMILIES", "Backend", "available", "devices", "get"]
