"""No check fails a correct network: a few seeds of each in every run, 2,000 audits in the thorough one."""

from __future__ import annotations

from pathlib import Path

import pytest
from correct_subjects import CORRECT

from iresnet_verify import audit
from iresnet_verify.loading import Origin, load

AUDITS = {
    "linear": 700, "reference numpy float64 exact": 400, "reference numpy float32 exact": 400, "reference torch float64 exact": 150,
    "reference numpy float64 roulette": 120, "reference strict device1 float32 exact": 120, "complete": 40, "nflows affine": 30,
    "normflows RealNVP": 20, "nflows spline": 10, "zuko NSF": 10,
}
"""Audits of the thorough run: 2,000 in all, most of those that take a second, fewest of those that take ten."""
FAMILIES = [(name, seed) for name in CORRECT for seed in range(AUDITS[name])]


def alarms(name: str, seed: int) -> list[tuple[str, str, str]]:
    report = audit(CORRECT[name](seed), seed=seed, budget="quick")
    allowed = ("passed", "skipped") if name == "complete" or name.startswith("reference") else ("passed", "skipped", "inconclusive")
    return [(c.id, c.status, c.message) for c in report.checks if c.status not in allowed]


def test_the_table_is_as_long_as_is_published() -> None:
    assert len(FAMILIES) == 2000


@pytest.mark.parametrize("name", [n for n in CORRECT if n.startswith(("linear", "reference", "nflows affine"))])
def test_a_correct_network_raises_no_alarm(name: str) -> None:
    assert not alarms(name, 10_000)


@pytest.mark.parametrize("factory", ["subject", "roulette"])
def test_every_log_det_of_the_gallerys_reference_is_decided(factory: str) -> None:
    (subject,) = load(Origin(str(Path(__file__).resolve().parents[2] / "examples/subjects/reference.py"), factory))
    report = audit(subject, budget="quick", select=["estimator", "logdet", "density.change-of-variables"])
    assert {c.status for c in report.checks} <= {"passed", "skipped"}


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "seed"), FAMILIES)
def test_no_false_alarm_in_2000_audits(name: str, seed: int) -> None:
    """0 alarms in n independent audits bound their rate by 1 − .05^(1/n) at 95 % confidence: 1.5e-3 for 2,000."""
    assert not alarms(name, seed)
