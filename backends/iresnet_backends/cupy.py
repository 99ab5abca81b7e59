"""CuPy on CUDA devices.

CuPy computes on the *current* device of the thread, whatever `device=` a creation function is given: with more than
one GPU, work inside `with backend.active():`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from iresnet_backends.backend import Backend


def make(name: str, device: str, dtype: str) -> Backend:
    """Return the CuPy backend on the GPU int(device). Raises RuntimeError where CuPy finds no driver or no GPU."""
    import array_api_compat.cupy as xp
    import cupy

    place = cupy.cuda.Device(int(device))
    wanted = np.dtype(dtype)

    def asarray(a: Any) -> Any:
        with place:
            return cupy.array(np.asarray(a), dtype=wanted)

    def memory() -> int:
        with place:
            return cupy.get_default_memory_pool().used_bytes()

    def generator(seed: int) -> Any:
        with place:
            return cupy.random.default_rng(seed)

    def active() -> Any:
        return cupy.cuda.Device(place.id)

    return Backend(name, xp, wanted, place, asarray, cupy.asnumpy, place.synchronize, memory, generator, active)


def devices() -> list[str]:
    """Return the numbers of the GPUs. Raises RuntimeError where the import works and nothing else does."""
    import cupy

    if not cupy.is_available():  # the import succeeds without a driver
        raise RuntimeError("CuPy is installed, but finds no CUDA driver or no GPU")
    return [str(i) for i in range(cupy.cuda.runtime.getDeviceCount())]
