"""PyTorch on the CPU and on CUDA devices."""

from __future__ import annotations

from typing import Any

import numpy as np

from iresnet_backends.backend import Backend, HostArray

DTYPES = ("float64", "float32")


def make(name: str, device: str, dtype: str) -> Backend:
    """Return the torch backend on "cpu" or "cuda:N". Raises RuntimeError where torch cannot use the device."""
    import array_api_compat.torch as xp
    import torch

    place = torch.device(device)
    wanted = getattr(torch, dtype)

    def asarray(a: Any) -> Any:
        return torch.tensor(np.asarray(a), dtype=wanted, device=place)

    def to_numpy(a: Any) -> HostArray:
        return a.detach().cpu().numpy()

    def synchronise() -> None:
        if place.type == "cuda":
            torch.cuda.synchronize(place)

    return Backend(name, xp, wanted, place, asarray, to_numpy, synchronise)


def devices() -> list[str]:
    """Return "cpu" and every CUDA device that torch sees."""
    import torch

    return ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
