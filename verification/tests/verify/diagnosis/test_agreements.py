"""Where forward alone was changed, its inverse and its log-det are not two mistakes."""

from __future__ import annotations

import pytest
from torch import Tensor

from iresnet_verify import audit, mutants
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
