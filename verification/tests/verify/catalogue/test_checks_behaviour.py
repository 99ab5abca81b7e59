"""Checks of behaviour, state and parity: each mistake is rejected by the check meant for it, correct networks by none."""

from __future__ import annotations

import pytest

from iresnet_verify import audit
from iresnet_verify.mutants.block import correct

FAMILIES = ("hygiene", "state", "parity")


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.thorough) for s in (1, 2))])
def test_a_correct_network_is_accepted(seed: int) -> None:
    report = audit(correct(seed), seed=seed, budget="quick", select=FAMILIES)
    wrong = [(c.id, c.status, c.message) for c in report.checks if c.status not in ("passed", "skipped")]
    assert not wrong
