"""Checks of behaviour, state and parity: each mistake is rejected by the check meant for it, correct networks by none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from iresnet_verify import audit
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


def test_calls_that_raise_are_no_finding_of_how_often_they_are_called() -> None:
    class Refuses(Block):
        def inverse(self, y: torch.Tensor) -> torch.Tensor:
            raise NotImplementedError("no inverse in this mode")

    (found,) = audit(make(Refuses, 0), budget="quick", select=["hygiene.determinism"]).checks
    assert found.status in ("passed", "skipped"), found.message
