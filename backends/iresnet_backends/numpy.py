"""NumPy."""

from __future__ import annotations

import array_api_compat.numpy as xp
import numpy as np

from iresnet_backends.backend import Backend


def make(name: str, device: str, dtype: str) -> Backend:
    """Return the NumPy backend."""
    del device
    wanted = np.dtype(dtype)
    return Backend(
        name, xp, wanted, "cpu", lambda a: np.array(a, dtype=wanted), np.array, generator=np.random.default_rng
    )


def devices() -> list[str]:
    """Return the devices that can be asked for."""
    return ["cpu"]
