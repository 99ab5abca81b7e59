"""What a backend is: it makes arrays and names devices; it holds no mathematics."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from iresnet_backends.errors import BackendUnavailableError
from iresnet_ref.arrays import device

HostArray = npt.NDArray[Any]


def no_generator(seed: int) -> Any:
    """Refuse: the framework has no random generator of its own."""
    raise BackendUnavailableError(
        f"generator: expected a backend with a random generator of its own, got none (seed {seed}); try ir.Probes(seed={seed})"
    )


@dataclass(frozen=True)
class Backend:
    """Arrays of one namespace, device and dtype.

    `name` is what `get` was asked for. `asarray(a)` copies a host array to the device in the backend's dtype;
    `to_numpy(a)` copies back, exactly (bfloat16 as float32). `synchronise()` waits until the device has finished;
    `memory()` is the number of bytes in use there, None where the framework does not say. `generator(seed)` is the
    framework's own random generator, for those who ask for it: the reference never does. `active()` is a context in which
    the device is the current one, for the framework that computes on a current device (CuPy).

    >>> import iresnet_backends
    >>> be = iresnet_backends.get("numpy", dtype="float32")
    >>> be.to_numpy(be.asarray([1.0])).dtype, be.memory()
    (dtype('float32'), None)
    """

    name: str
    xp: Any
    dtype: Any
    device: Any
    asarray: Callable[[Any], Any]
    to_numpy: Callable[[Any], HostArray]
    synchronise: Callable[[], None] = lambda: None
    memory: Callable[[], int | None] = lambda: None
    generator: Callable[[int], Any] = no_generator
    active: Callable[[], AbstractContextManager[Any]] = nullcontext


def allocate(backend: Backend) -> Backend:
    """Return the backend after it has allocated one element: availability is what works, not what imports."""
    with backend.active():
        array = backend.asarray(np.ones(1))
        one = backend.to_numpy(array)
    if one.shape != (1,) or float(one[0]) != 1.0 or array.dtype != backend.dtype or device(array) != backend.device:
        raise RuntimeError(
            f"expected to read back [1.0] of {backend.dtype} on {backend.device}, got {one!r} of {array.dtype} on {device(array)}"
        )
    return backend
