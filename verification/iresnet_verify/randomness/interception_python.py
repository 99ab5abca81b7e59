"""Python's own generator: the functions of the module `random`, recorded as draws of unknown distribution."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from iresnet_verify.randomness.distributions import OTHER
from iresnet_verify.randomness.recorder import DrawRecorder, patch

_NAMES = (
    "random", "gauss", "normalvariate", "uniform", "randint", "randrange", "choice", "choices", "getrandbits", "expovariate",
    "shuffle", "sample",
)


def install(recorder: DrawRecorder, stack: ExitStack) -> None:
    """Record the functions of `random` until the stack is closed."""
    for name in _NAMES:
        real = getattr(random, name)

        def recorded(*args: Any, _real: Callable[..., Any] = real, _name: str = f"random.{name}", **kwargs: Any) -> Any:
            out = recorder.unrecorded(_real, *args, **kwargs)
            recorder.record(_name, OTHER, np.asarray(0.0 if out is None else out, dtype=object), "random")
            return out

        patch(stack, random, name, recorded)
