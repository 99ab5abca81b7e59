"""array-api-strict: the standard and nothing else, on devices that refuse to mix.

Of its five devices "device1" and "device2" catch arrays made on the default device, "no_float64" behaves like Apple's
Metal, and "no_x64" like JAX before float64 is enabled. `without` removes what the standard calls optional.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from iresnet_backends.backend import Backend

OPTIONAL = ("boolean_indexing", "data_dependent_shapes", "extensions")


def make(name: str, device: str, dtype: str) -> Backend:
    """Return the strict backend on "cpu" (CPU_DEVICE) or one of the four devices that are not the default."""
    import array_api_strict as xp

    place = xp.Device("CPU_DEVICE" if device == "cpu" else device)
    wanted = getattr(xp, dtype)

    def asarray(a: Any) -> Any:
        return xp.asarray(np.array(a, dtype=dtype), dtype=wanted, device=place)

    def to_numpy(a: Any) -> Any:
        return np.array(np.from_dlpack(a))

    return Backend(name, xp, wanted, place, asarray, to_numpy)


def devices() -> list[str]:
    """Return the devices that can be asked for."""
    return ["cpu", "device1", "device2", "no_float64", "no_x64"]


@contextmanager
def without(*optional: str) -> Iterator[None]:
    """Take the named optional parts (of `OPTIONAL`) away from array-api-strict, in the whole process, for a while.

    >>> import array_api_strict
    >>> with without("extensions"):
    ...     hasattr(array_api_strict, "linalg")
    False
    """
    import array_api_strict as xp

    flags: dict[str, Any] = {name: False for name in optional if name != "extensions"}
    if "extensions" in optional:
        flags["enabled_extensions"] = ()
    with xp.ArrayAPIStrictFlags(**flags):
        yield
