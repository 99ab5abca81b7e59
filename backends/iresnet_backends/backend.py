"""What a backend is: it makes arrays and names devices; it holds no mathematics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

HostArray = npt.NDArray[Any]


@dataclass(frozen=True)
class Backend:
    """Arrays of one namespace, device and dtype.

    `name` is what `get` was asked for. `asarray(a)` copies a host array to the device in the backend's dtype;
    `to_numpy(a)` copies back, exactly; `synchronise()` waits until the device has finished.
    """

    name: str
    xp: Any
    dtype: Any
    device: Any
    asarray: Callable[[Any], Any]
    to_numpy: Callable[[Any], HostArray]
    synchronise: Callable[[], None] = lambda: None


def allocate(backend: Backend) -> Backend:
    """Return the backend after it has allocated one element: availability is what works, not what imports."""
    one = backend.to_numpy(backend.asarray(np.ones(1)))
    if one.shape != (1,) or float(one[0]) != 1.0:
        raise RuntimeError(f"{backend.name}: expected to read back [1.0], got {one!r}")
    return backend
