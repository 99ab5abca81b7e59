"""PyTorch on the CPU, on CUDA devices and on Apple's Metal (mps)."""

from __future__ import annotations

from typing import Any

import numpy as np

from iresnet_backends.backend import Backend, HostArray


def make(name: str, device: str, dtype: str) -> Backend:
    """Return the torch backend on "cpu", "cuda:N" or "mps". Raises RuntimeError where torch cannot use the device."""
    import array_api_compat.torch as xp
    import torch

    place = torch.empty(0, device=device).device  # "cuda" is "cuda:0", as its arrays will say
    wanted = getattr(torch, dtype)

    def asarray(a: Any) -> Any:
        return torch.tensor(np.asarray(a), device=place if place.type != "mps" else "cpu").to(dtype=wanted, device=place)

    def to_numpy(a: Any) -> HostArray:
        a = a.detach().cpu()
        return np.array((a.float() if a.dtype == torch.bfloat16 else a).numpy())

    def synchronise() -> None:
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        elif place.type == "mps":
            torch.mps.synchronize()

    def memory() -> int | None:
        if place.type == "cpu":
            return None
        return torch.mps.current_allocated_memory() if place.type == "mps" else torch.cuda.memory_allocated(place)

    def generator(seed: int) -> Any:
        return torch.Generator(device=place).manual_seed(seed)

    return Backend(name, xp, wanted, place, asarray, to_numpy, synchronise, memory, generator)


def devices() -> list[str]:
    """Return "cpu", every CUDA device that torch sees, and "mps" where it can be used."""
    import torch

    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]


def absent(device: str) -> str:
    """Return why a device is not among `devices()`."""
    import torch

    if device.startswith("mps"):
        return "torch finds no Metal: no Apple GPU, or macOS before 12.3"
    if not device.startswith("cuda") or torch.cuda.is_available():
        return ""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    return f"torch finds no driver for CUDA {torch.version.cuda}, or no GPU"
