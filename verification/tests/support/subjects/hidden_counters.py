"""What functions may hide that look the same at every call: counters in objects, lists and closures, and a clock looked at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

MANY = 10**6
"""Calls that nobody makes in a test."""


class Counting:
    """An object that counts in an attribute of its own."""

    calls = 0


@lru_cache(maxsize=1)
def remembered_clock() -> float:
    """Return the time of the first call, ever after."""
    return time.time()


def count_in(place: Any) -> bool:
    """Count in an attribute; whether it were MANY."""
    place.calls = getattr(place, "calls", 0) + 1
    return bool(place.calls > MANY)


def count_at(place: Any) -> bool:
    """Count in the first entry; whether it were MANY."""
    place[0] += 1
    return bool(place[0] > MANY)


def count_outside() -> Callable[[Any], bool]:
    """Return a function that counts in a variable around it."""
    calls = 0

    def count(x: Any) -> bool:
        nonlocal calls
        calls += 1
        return calls > MANY

    return count
