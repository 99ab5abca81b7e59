"""The audit of every kind of layer for JAX: what applies passes, and nothing is left undecided."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iresnet_verify import audit

jax = pytest.importorskip("jax")
from jax_layer_subjects import LAYERS, subject  # noqa: E402

pytestmark = pytest.mark.thorough


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("name", LAYERS)
def test_every_check_passes(name: str) -> None:
    report = audit(subject(name), seed=0, budget="quick")
    assert not [(c.id, c.status, c.message) for c in report.checks if c.status not in ("passed", "skipped")]
    assert report.status == "passed"
