"""The checks of the log-det: correct networks pass all of them, each mistake is rejected by the check meant for it."""

from __future__ import annotations

import re
from dataclasses import replace

import correct_subjects
import pytest
import torch
from seeds import each_with_seeds

from iresnet_verify import audit
from iresnet_verify.check.result import CheckResult
from iresnet_verify.mutants.volume import LOG_DETS, Net, exact, subject
from iresnet_verify.subject.subject import Subject


def one(made: Subject, id: str, *, seed: int = 0, budget: str = "quick") -> CheckResult:
    return audit(made, seed=seed, budget=budget, select=[id]).checks[0]


@each_with_seeds("kind", LOG_DETS)
def test_correct_log_dets_pass(kind: str, seed: int) -> None:
    report = audit(subject(kind, d=3 + seed, seed=seed), seed=seed, budget="quick", select=["logdet"])
    wrong = {c.id: (c.status, c.message) for c in report.checks if c.status != "passed"}
    assert wrong.pop("logdet.other-shapes")[0] == "skipped"  # none are given
    compares_nothing = "gradient-only: its value claims|^random values: each is compared|^one log-det is given|the log-det is random"
    assert {status for status, _ in wrong.values()} <= {"skipped"}, wrong
    assert all(re.search(compares_nothing, message) for _, message in wrong.values()), wrong


@pytest.mark.parametrize("kind", ["exact", "roulette, gaussian"])
def test_the_inverse_at_the_wrong_point_is_rejected(kind: str) -> None:
    found = one(subject(kind, inverse_at="y"), "logdet.of-the-inverse")
    assert found.status == "failed"


def test_a_missing_minus_sign_of_the_inverse_is_rejected() -> None:
    net = Net(4, 0)
    made = replace(subject(), inverse_log_det=lambda y: exact(net, net.inverse(y)))
    found = one(made, "logdet.of-the-inverse")
    assert found.status == "failed"


def test_two_sources_that_disagree_are_rejected() -> None:
    net = Net(4, 0)
    made = replace(subject(), forward=lambda x: (net(x), exact(net, x) * 1.001), inverse_log_det=None)
    found = one(made, "logdet.one-value")
    assert found.status == "failed"
    assert "forward(x)[1]" in found.message


def test_a_lipschitz_claim_that_the_determinant_contradicts_is_rejected() -> None:
    found = one(replace(subject(), lipschitz=1e-4), "logdet.within-bounds")
    assert found.status == "failed"


def test_each_promise_of_a_contraction_is_refuted_by_a_subject_that_breaks_it_alone() -> None:
    def reflect(x: torch.Tensor) -> torch.Tensor:
        return x * torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=x.dtype)

    def statuses(made: Subject) -> dict[str, str]:
        report = audit(made, seed=0, budget="quick",
                       select=["logdet.finite", "logdet.within-bounds", "logdet.positive-determinant"])
        return {c.id.removeprefix("logdet."): c.status for c in report.checks}

    net = Net(4, 0)
    right = {"finite": "passed", "within-bounds": "passed", "positive-determinant": "passed"}
    assert statuses(subject()) == right
    negative = Subject(name="reflection", event_shape=(4,), framework="torch", dtype="float64", forward=reflect,
                       log_det=lambda x: x.new_zeros(len(x)), lipschitz=0.5)
    assert statuses(negative) == {**right, "positive-determinant": "failed"}
    scaled = replace(subject(), forward=net, log_det=lambda x: 60 * exact(net, x))
    assert statuses(scaled) == {**right, "within-bounds": "failed"}
    far = replace(subject(), forward=net, lipschitz=None, log_det=lambda x: torch.where(x[:, 0] > 0, torch.inf, exact(net, x)))
    assert statuses(far) == {"finite": "failed", "within-bounds": "skipped", "positive-determinant": "skipped"}


def test_single_precision_networks_pass_in_single_precision() -> None:
    class Single(Net):
        def __init__(self) -> None:
            super().__init__(4, 2)
            self.float()

    net = Single()
    made = replace(subject(), forward=net, inverse=net.inverse, residual=net.g, module=net, dtype="float32",
                   log_det=lambda x: exact(net, x.to(torch.float32)), inverse_log_det=None, inverse_tolerance=1e-4)
    for seed in range(3):
        report = audit(made, seed=seed, budget="quick", select=["logdet", "estimator", "gradient"])
        wrong = [(c.id, c.message) for c in report.checks if c.status not in ("passed", "skipped")]
        assert not wrong


def test_a_roulette_whose_draws_agree_by_luck_is_still_an_estimate() -> None:
    """Lip(g) ≤ .2: at this seed three seeds of the check draw the same lengths for its three rows, and others differ."""
    subject = correct_subjects.CORRECT["reference numpy float64 roulette"](77)
    for c in audit(subject, seed=77, budget="quick", select=["logdet.adds-up", "hygiene.batch-independence", "gradient.log-det"]).checks:
        assert c.status != "failed", (c.id, c.message)
