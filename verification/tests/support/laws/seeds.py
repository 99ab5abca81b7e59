"""The seeds of a law: as many as its backend can show something with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import wraps

import pytest
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


def each_with_seeds(name: str, cases: Iterable[str], count: int = 3) -> pytest.MarkDecorator:
    """Parametrise by cases × seeds: in CI each case takes one of the seeds, in turn, in the thorough tests all of them."""
    pairs = [
        pytest.param(case, seed, marks=() if seed == i % count else pytest.mark.thorough)
        for i, case in enumerate(cases) for seed in range(count)
    ]
    return pytest.mark.parametrize((name, "seed"), pairs)
