"""Checks of behaviour, state and parity: each mistake is rejected by the check meant for it, correct networks by none."""

from __future__ import annotations

import pytest
from broken_manners import BROKEN, correct

from iresnet_verify import audit

FAMILIES = ("hygiene", "state", "parity")


@pytest.mark.parametrize("mistake", BROKEN)
def test_each_mistake_is_rejected_by_its_check(mistake: str) -> None:
    check, make = BROKEN[mistake]
    report = audit(make(1), seed=0, budget="quick", select=[check])
    assert [(c.id, c.status) for c in report.checks] == [(check, "failed")], [c.message for c in report.checks]
    assert report.checks[0].counterexample is not None


@pytest.mark.parametrize("seed", range(3))
def test_a_correct_network_is_accepted(seed: int) -> None:
    report = audit(correct(seed), seed=seed, budget="quick", select=FAMILIES)
    wrong = [(c.id, c.status, c.message) for c in report.checks if c.status not in ("passed", "skipped")]
    assert not wrong
