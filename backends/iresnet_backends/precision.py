"""Arbitrary precision (mparray over mpmath): the oracle for every other backend. `precision:50` has 50 digits.

The precision is mpmath's working precision, a setting of the whole process: the digits are set when the backend is made,
and the last one made holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from iresnet_backends.backend import Backend
from iresnet_ref.arrays import to_host

FEWEST = 16

def make(name: str, device: str, dtype: str) -> Backend:
    """Return the backend with int(device) decimal digits."""
    import mparray as xp

    if not device.isdecimal() or int(device) < FEWEST:
        raise ValueError(f"expected a number of digits from {FEWEST}, what float64 numbers need, as in 'precision:50'")
    xp.mp.dps = int(device)
    wanted = getattr(xp, dtype)

    def asarray(a: Any) -> Any:
        return xp.asarray(np.asarray(a, dtype=np.float64), dtype=wanted)

    return Backend(name, xp, wanted, "cpu", asarray, to_host)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave the working precision of the process as it was: for looking at the backend without using it."""
    import mparray as xp

    digits = xp.mp.dps
    try:
        yield
    finally:
        xp.mp.dps = digits


def devices() -> list[str]:
    """Return the digits offered by default; any positive number may be asked for."""
    return ["50"]
