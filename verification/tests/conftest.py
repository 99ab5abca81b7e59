"""Hypothesis profiles, the CuPy of the tests, and the surroundings of a backend.

Profiles: `ci` is deterministic, `thorough` random and longer, on the whole table, `short` for a first look at a backend that compiles every
operation; chosen by HYPOTHESIS_PROFILE. `import cupy` gives the contract
stand-in of cupy_contract/ in this process, unless IRESNET_GPU=1 asks for the real one. What JAX compiles is kept beside
pytest's cache: the processes of a run compile it once, and the next run not at all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from iresnet_backends import capabilities

settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=8, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("short", settings.get_profile("ci"), max_examples=2)
settings.register_profile("thorough", deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[2] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

if not os.environ.get("IRESNET_GPU"):
    assert "cupy" not in sys.modules, "the real CuPy was imported before the tests could put the stand-in in its place"
    sys.path.insert(0, str(Path(__file__).parent / "support/cupy_contract"))


def _parameters(item: pytest.Item) -> dict[str, Any]:
    return getattr(getattr(item, "callspec", None), "params", {})


def _backend(item: pytest.Item) -> str | None:
    """Return the key of tables.BACKENDS that the test is parametrised with."""
    from tables import BACKENDS

    return next((v for v in _parameters(item).values() if isinstance(v, str) and v in BACKENDS), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip sorts where the backend cannot sort."""
    from tables import BACKENDS

    for item in items:
        backend = _backend(item)
        gap = capabilities.gap(BACKENDS[backend][0], "sorting", BACKENDS[backend][1]) if backend else None
        if gap and any(str(v).startswith("sort") for v in _parameters(item).values()):
            item.add_marker(pytest.mark.skip(reason=gap))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[Any]:
    """Run a law in the context its backend asks for: the current device, 32-bit JAX, a standard without options."""
    from tables import context

    with context(_backend(item)):
        return (yield)
