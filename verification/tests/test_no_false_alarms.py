"""No check fails a correct network: a few seeds of each in every run, 2,000 audits in the thorough one."""

from __future__ import annotations

from pathlib import Path

import pytest
from correct_subjects import CORRECT

from iresnet_verify import audit
from iresnet_verify.loading import Origin, load

AUDITS = {
    "linear": 400, "reference numpy float64 exact": 350, "reference numpy float32 exact": 350,
    "complete": 100, "nflows affine": 100, "normflows RealNVP": 40, "nflows spline": 30, "zuko NSF": 30,
}
"""Audits of the thorough run, 200 where nothing is said: 2,000 in all, most of those that take a second, fewest of those that take ten."""
FAMILIES = [(name, seed) for name in CORRECT for seed in range(AUDITS.get(name, 200))]


def alarms(name: str, seed: int) -> list[tuple[str, str, str]]:
    report = audit(CORRECT[name](seed), seed=seed, budget="quick")
    allowed = ("passed", "skipped") if name == "complete" or name.startswith("reference") else ("passed", "skipped", "inconclusive")
    return [(c.id, c.status, c.message) for c in report.checks if c.status not in allowed]


def test_the_table_is_as_long_as_is_published() -> None:
    assert len(FAMILIES) == 2000


@pytest.mark.parametrize("name", [n for n in CORRECT if AUDITS.get(n, 200) >= 100 and n != "complete"])
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
