"""array-api-strict: the standard and nothing else, on devices that refuse to mix."""

from __future__ import annotations

from typing import Any

import numpy as np

from iresnet_backends.backend import Backend, HostArray

DTYPES = ("float64", "float32")


def make(name: str, device: str, dtype: str) -> Backend:
    """Return the strict backend on "cpu" (CPU_DEVICE), "device1" or "device2"."""
    import array_api_strict as xp

    place = xp.Device("CPU_DEVICE" if device == "cpu" else device)
    wanted = getattr(xp, dtype)

    def asarray(a: Any) -> Any:
        return xp.asarray(np.asarray(a, dtype=dtype), dtype=wanted, device=place)

    def to_numpy(a: Any) -> HostArray:
        return np.from_dlpack(a)

    return Backend(name, xp, wanted, place, asarray, to_numpy)


def devices() -> list[str]:
    """Return the devices that can be asked for."""
    return ["cpu", "device1", "device2"]
