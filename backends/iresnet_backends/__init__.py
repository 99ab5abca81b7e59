"""Backends: arrays, devices and names. `get("torch:cuda:0", dtype="float32")`, `available()`, `convert(x, backend)`.

A backend is *available* if it can allocate one element, not if it can be imported. What each can do is declared once, in
`iresnet_backends.capabilities`.
"""

from __future__ import annotations

import importlib
from contextlib import nullcontext, suppress
from types import ModuleType

from iresnet_backends.backend import Backend, allocate
from iresnet_backends.capabilities import DEFAULT_DEVICE, FAMILIES, row
from iresnet_backends.conversion import convert
from iresnet_backends.errors import BackendUnavailableError, FormatError, ModuleError
from iresnet_backends.jax_modules import from_jax
from iresnet_backends.saving import load, save
from iresnet_backends.torch_modules import from_torch, to_torch
from iresnet_backends.training_state import checkpoint, resume


def get(name: str, dtype: str = "float64") -> Backend:
    """Return the backend `name` = "family[:device]", such as "numpy", "torch:cuda:0", "cupy:0" or "jax:cpu".

    Raises: BackendUnavailableError naming the cause and the remedy: unknown family, missing package, missing driver,
    wrong device, unsupported dtype.

    >>> get("numpy", dtype="float32").asarray([1.0]).dtype
    dtype('float32')
    """
    family, _, device = name.partition(":")
    device = device or DEFAULT_DEVICE.get(family, "cpu")
    module = _module(family)
    dtypes = row(name).dtypes
    if dtype not in dtypes:
        raise BackendUnavailableError(
            f"backend {name!r}: expected a dtype of {', '.join(dtypes)}, got {dtype!r}; "
            f"try dtype={'float32' if 'float32' in dtypes else dtypes[0]!r}"
        )
    try:
        here = module.devices()
        if device not in here and f"{device}:0" not in here and family != "precision":
            why = getattr(module, "absent", lambda device: "")(device) or "no such device"
            raise RuntimeError(f"{why}; here it has {', '.join(here)}")
        return allocate(module.make(name, device, dtype))
    except ImportError as missing:
        raise BackendUnavailableError(
            f"backend {name!r}: the package {missing.name or family} cannot be imported; try {_install(name)}"
        ) from missing
    except (RuntimeError, ValueError, AssertionError) as error:
        text = " ".join(str(error).split())
        raise BackendUnavailableError(
            f"backend {name!r}: cannot allocate on device {device!r}: {text}; try another device, or {_install(name)}"
        ) from error


def available() -> list[str]:
    """Return the names that `get` accepts here, one per backend and device: each has just allocated one element.

    >>> "numpy:cpu" in available()
    True
    """
    found = []
    for family in FAMILIES:
        with suppress(ImportError, RuntimeError):  # not installed; no driver
            module = _module(family)
            names = [f"{family}:{device}" for device in module.devices()]
            with getattr(module, "undisturbed", nullcontext)():
                for name in names:
                    with suppress(BackendUnavailableError):
                        found.append(get(name, dtype="float32" if "float32" in row(name).dtypes else "float64").name)
    return found


def devices(family: str) -> list[str]:
    """Return the devices that a family names here.

    Raises: ImportError where its package is missing, RuntimeError where its driver is.

    >>> devices("numpy")
    ['cpu']
    """
    return list(_module(family).devices())


def _module(family: str) -> ModuleType:
    if family not in FAMILIES:
        raise BackendUnavailableError(f"backend {family!r}: expected one of {', '.join(sorted(FAMILIES))}; try 'numpy'")
    return importlib.import_module(f"iresnet_backends.{row(family).module}")


def _install(name: str) -> str:
    if name.startswith("cupy"):
        return 'pip install "iresnet-ref[cupy12x]" (CUDA 12) or "iresnet-ref[cupy13x]" (CUDA 13), and a driver'
    if name.startswith("jax:gpu"):
        return 'pip install "jax[cuda12]" (CUDA 12) or "jax[cuda13]" (CUDA 13), and a driver'
    extra = row(name).extra
    return f'pip install "iresnet-ref[{extra}]"' if extra else 'get("numpy")'


__all__ = [
    "FAMILIES",
    "Backend",
    "BackendUnavailableError",
    "FormatError",
    "ModuleError",
    "available",
    "checkpoint",
    "convert",
    "devices",
    "from_jax",
    "from_torch",
    "get",
    "load",
    "resume",
    "save",
    "to_torch",
]
