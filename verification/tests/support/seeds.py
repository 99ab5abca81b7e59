"""The seeds of a law: as many as its backend can show something with."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps

from hypothesis import given, settings
from hypothesis import strategies as st

SEEDS = st.integers(0, 2**20)


def examples(key: str) -> int:
    """Return how many seeds a law takes on the backend `key`: all of the profile on NumPy, where the formulas are examined.

    array-api-strict and CuPy's stand-in compute with NumPy's own kernels, so that they can fail by dispatch alone: one seed
    shows it. Others bring kernels of their own for the same formulas: a quarter.
    """
    whole = settings.default.max_examples  # type: ignore[union-attr]  # a profile is loaded
    if key.startswith("numpy"):
        return whole
    return 1 if key.startswith(("strict", "cupy-contract")) else max(1, whole // 4)


def for_seeds(law: Callable[..., None]) -> Callable[..., None]:
    """Return a law of (…, key, seed) as a test of (…, key)."""

    @wraps(law)
    def test(**where: str) -> None:
        settings(max_examples=examples(where["key"]))(given(seed=SEEDS)(law))(**where)

    signature = inspect.signature(law)
    test.__signature__ = signature.replace(parameters=[p for p in signature.parameters.values() if p.name != "seed"])  # type: ignore[attr-defined]
    return test
