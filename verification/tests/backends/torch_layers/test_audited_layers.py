"""The audit of every kind of layer, in training and in evaluation mode: what applies passes, and nothing is left undecided."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from torch_layer_subjects import MODULES, subject

from iresnet_verify import audit

QUICKEST = ("gradient", "state", "parity")
"""Families that tell of a module rather than of the formulas under it, for the daily run."""


def examined(name: str, select: Iterable[str] | None = None) -> None:
    report = audit(subject(name), seed=0, budget="quick", select=select)
    others = [(c.id, c.status, c.message) for c in report.checks if c.status not in ("passed", "skipped")]
    assert not others
    assert report.status == "passed" or select is not None


@pytest.mark.parametrize("name", ["exact", "actnorm"])
def test_the_manners_of_a_module(name: str) -> None:
    examined(name, QUICKEST)


@pytest.mark.thorough
@pytest.mark.parametrize("name", MODULES)
def test_every_check_passes(name: str) -> None:
    examined(name)
