"""JAX on the CPU and on GPUs.

float64 exists in JAX only after `jax.config.update("jax_enable_x64", True)`, a setting of the whole process: asking for
float64 makes it, asking for float32 leaves it alone. Arrays that exist keep their dtype; arrays that other code makes
without naming a dtype become 64-bit from then on. To keep a process at 32 bits, ask for float32 only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from iresnet_backends.backend import Backend, HostArray


def make(name: str, device: str, dtype: str) -> Backend:
    """Return the JAX backend on "cpu" or "gpu:N". Raises RuntimeError where JAX cannot use the device."""
    import jax
    import jax.numpy as xp

    if dtype == "float64" and not jax.config.read("jax_enable_x64"):
        jax.config.update("jax_enable_x64", True)
    kind, _, index = device.partition(":")
    place = jax.devices(kind)[int(index or 0)]
    wanted = xp.dtype(dtype)

    def asarray(a: Any) -> Any:
        return xp.array(np.asarray(a), dtype=wanted, device=place)

    def to_numpy(a: Any) -> HostArray:
        return np.array(a, dtype=np.float32) if a.dtype == xp.bfloat16 else np.array(a)

    def synchronise() -> None:
        jax.block_until_ready([a for a in jax.live_arrays(kind) if not a.is_deleted()])

    def memory() -> int | None:
        return (place.memory_stats() or {}).get("bytes_in_use")

    return Backend(name, xp, wanted, place, asarray, to_numpy, synchronise, memory, jax.random.key)


def devices() -> list[str]:
    """Return "cpu" and every GPU that JAX sees."""
    import jax

    try:
        return ["cpu", *(f"gpu:{i}" for i in range(len(jax.devices("gpu"))))]
    except RuntimeError:  # no such platform
        return ["cpu"]


def absent(device: str) -> str:
    """Return why a device is not among `devices()`."""
    import jax

    if not device.startswith("gpu") or jax.default_backend() == "gpu":
        return ""
    return "JAX finds no GPU: no CUDA plugin beside its jaxlib, or no driver"
