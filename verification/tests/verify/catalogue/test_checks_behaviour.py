"""Checks of behaviour, state and parity: each mistake is rejected by the check meant for it, correct networks by none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from iresnet_verify import Subject, audit
from iresnet_verify.mutants.block import Block, correct, make

FAMILIES = ("hygiene", "state", "parity")


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.thorough) for s in (1, 2))])
def test_a_correct_network_is_accepted(seed: int) -> None:
    report = audit(correct(seed), seed=seed, budget="quick", select=FAMILIES)
    wrong = [(c.id, c.status, c.message) for c in report.checks if c.status not in ("passed", "skipped")]
    assert not wrong


class WarmStarted(Block):
    """Begins an inversion where the last one ended: another answer each time, within the tolerance."""

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        last = self.__dict__.get("last")
        x = y if last is None or last.shape != y.shape else last
        while bool((y - super().forward(x)).abs().max() > 1e-9):
            x = y - self.g(x)
        self.__dict__["last"] = x.detach()
        return x


def test_an_inverse_that_begins_where_the_last_one_ended_is_the_same() -> None:
    subject = make(WarmStarted, 0, inverse_tolerance=1e-8)
    y = np.random.default_rng(0).standard_normal((4, 3))
    assert subject.inverse is not None
    first, again = (np.asarray(subject.inverse(torch.from_numpy(y)).detach()) for _ in range(2))
    assert (first == again).all()  # where the first ended no step is due
    (found,) = audit(subject, budget="quick", select=["hygiene.determinism"]).checks
    assert found.status == "passed", found.message


@pytest.mark.parametrize("name", ["residual", "inverse_log_det", "log_prob", "sample"])
def test_what_any_callable_leaves_behind_is_seen(name: str) -> None:
    subject = make(Block, 0)
    module, inverse, log_det = subject.module, subject.inverse, subject.log_det
    assert inverse is not None
    assert log_det is not None

    def moves(argument: object) -> torch.Tensor:
        with torch.no_grad():
            for p in module.parameters():
                p.mul_(1.0 - 1e-3)
        x = torch.zeros(argument, *subject.event_shape, dtype=torch.float64) if isinstance(argument, int) else argument
        return inverse(x) if name == "sample" else subject.forward(x) - x if name == "residual" else log_det(x)

    (found,) = audit(replace(subject, **{name: moves}), budget="quick", select=["hygiene.determinism"]).checks
    assert found.status == "failed", found.message


# Its two answers are as far apart as rounding allows at condition 4·10⁶; the inverse checks pass it by the same floor.
def test_an_inverse_refined_from_the_last_answer_may_round_otherwise() -> None:
    class Refined(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            matrix = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0 + 1e-6, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
            self.matrix = torch.nn.Parameter(matrix)
            self.last: torch.Tensor | None = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.matrix.T

        def inverse(self, y: torch.Tensor) -> torch.Tensor:
            x = torch.zeros_like(y) if self.last is None or self.last.shape != y.shape else self.last
            for _ in range(3):
                x = x + torch.linalg.solve(self.matrix, (y - self(x)).T).T
            self.last = x.detach().clone()
            return x

    net = Refined()
    subject = Subject(name="refined", event_shape=(3,), forward=net, inverse=net.inverse, module=net, modes=("eval",),
                      inverse_tolerance=1e-14)
    for check in audit(subject, budget="quick", select=["hygiene.determinism", "inverse.recovers-input"]).checks:
        assert check.status == "passed", check.message


def test_calls_that_raise_are_no_finding_of_how_often_they_are_called() -> None:
    class Refuses(Block):
        def inverse(self, y: torch.Tensor) -> torch.Tensor:
            raise NotImplementedError("no inverse in this mode")

    (found,) = audit(make(Refuses, 0), budget="quick", select=["hygiene.determinism"]).checks
    assert found.status in ("passed", "skipped"), found.message
