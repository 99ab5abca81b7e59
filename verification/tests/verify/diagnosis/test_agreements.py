"""Where forward alone was changed, its inverse and its log-det are not two mistakes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from iresnet_verify import audit, mutants
from iresnet_verify.diagnosis import densities, volumes
from iresnet_verify.mutants.block import Block, make

BOTH = ("inverse.recovers-input", "inverse.recovers-output", "logdet.matches-determinant")


class Stretched(Block):
    """Forward has 1.1 times the branch."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1.1 * self.g(x)


class Old(Block):
    """The inverse and the log-det read other weights than forward."""

    def weights(self) -> tuple[Tensor, Tensor]:
        w1, w2 = super().weights()
        return w1, w2 * 0.9

    def forward(self, x: Tensor) -> Tensor:
        w1, w2 = super().weights()
        return x + (x @ w1.T + self.b1).tanh() @ w2.T


class Shifted(Block):
    """Of these two the log-det is right."""

    def inverse(self, y: Tensor) -> Tensor:
        return super().inverse(y) + 0.1


@pytest.mark.parametrize("kind", [Stretched, Old])
def test_forward_is_the_odd_one(kind: type[Block]) -> None:
    report = audit(make(kind, 1), 0, "quick", select=BOTH)
    assert [f.cause for f in report.findings] == ["forward-is-another-map"]
    assert len([c for c in report.checks if c.because_of]) == 2


# inverse_log_det is −log_det(inverse), and log_prob adds log_det up: both are wrong with it, and no mistakes of their own.
def test_what_is_made_of_a_wrong_log_det_is_folded_under_it() -> None:
    report = audit(mutants.load()["unseen/actnorm-the-other-way-round"].make(1), 0, "quick",
                   select=("logdet.matches-determinant", "logdet.of-the-inverse", "density.change-of-variables"))
    (found,) = report.findings
    assert (found.cause, found.follows) == ("sign", ("logdet.of-the-inverse", "density.change-of-variables"))


def test_two_mistakes_are_no_other_map() -> None:
    report = audit(make(Shifted, 1, log_det=lambda b: lambda x: -b.log_det(x)), 0, "quick", select=BOTH)
    assert {f.cause for f in report.findings} == {"shift-of-the-inverse", "sign"}


@pytest.mark.parametrize(("error", "unknown", "follows"), [(0.0, 1, True), (5.0, 1, False), (5.0, 3, False), (0.0, 3, False)])
def test_nothing_follows_where_the_log_det_is_not_known(error: float, unknown: int, follows: bool) -> None:
    def ones(x: Any, seed: int) -> Any:
        return np.ones(len(x))

    def off(x: Any, seed: int) -> Any:  # 1 + 1, and −1, were right
        return np.full(len(x), right + error)

    right, slack = 2.0, np.full(3, 1e-12)
    slack[:unknown] = np.inf
    f = SimpleNamespace(log_prob=off, base_log_prob=ones, log_det=ones, inverse=lambda y, seed: y, inverse_log_det=off)
    ctx = SimpleNamespace(f=f, evaluate_log_det=ones, u=2.0**-53, d=2)
    case: Any = SimpleNamespace(ctx=ctx, x=np.ones((3, 2)), y=np.ones((3, 2)), size=np.ones(3), truth=SimpleNamespace(slack=slack))
    assert densities.log_prob_follows(case) == follows
    right = -1.0
    assert volumes.inverse_log_det_follows(case) == follows
