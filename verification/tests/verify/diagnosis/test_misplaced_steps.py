"""Steps that an inverse leaves out, repeats or exchanges are named, and components in which it does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from iresnet_verify import Subject, audit, mutants
from iresnet_verify.diagnosis.runs.steps import segments

BACK, VALUE = ("inverse.recovers-input", "inverse.recovers-output"), ("logdet.matches-determinant",)
D = torch.float64


class Chain(nn.Module):
    """y = sinh(s·x + b), one function after the other."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.s, self.b = nn.Parameter(0.2 + 0.2 * torch.rand(4, dtype=D)), nn.Parameter(0.3 * torch.randn(4, dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sinh(x * self.s + self.b)

    def inverse(self, y: Tensor) -> Tensor:
        return (torch.asinh(y) - self.b) / self.s

    def log_det(self, x: Tensor) -> Tensor:
        return (self.s.log() + torch.log(torch.cosh(x * self.s + self.b))).sum(1)


class ShiftLast(Chain):
    def inverse(self, y: Tensor) -> Tensor:
        return torch.asinh(y - self.b) / self.s


class WithoutSinh(Chain):
    def inverse(self, y: Tensor) -> Tensor:
        return (y - self.b) / self.s


class SinhAgain(Chain):
    def inverse(self, y: Tensor) -> Tensor:
        return (torch.sinh(y) - self.b) / self.s


class TwoComponents(Chain):
    def inverse(self, y: Tensor) -> Tensor:
        return (torch.cat([torch.asinh(y[:, :2]), y[:, 2:]], 1) - self.b) / self.s


def subject(net: Chain) -> Subject:
    return Subject(name="chain", event_shape=(4,), forward=net, inverse=net.inverse, log_det=net.log_det, module=net, modes=("eval",))


@pytest.mark.parametrize(("kind", "cause", "words"), [
    (ShiftLast, "order-of-blocks", "step 3 of 3 of forward (up to its result) after step 2 of 3"),
    (WithoutSinh, "block-left-out", "step 3 of 3"),
    pytest.param(SinhAgain, "block-applied-forward", "step 3 of 3", marks=pytest.mark.thorough),
    (TwoComponents, "components-left-out", "components 3, 4"),
])
def test_what_the_inverse_does_not_undo(kind: type[Chain], cause: str, words: str) -> None:
    (found,) = audit(subject(kind()), 0, "quick", select=BACK).findings
    assert found.cause == cause
    assert words in found.wrong


def test_a_right_chain_has_no_finding() -> None:
    assert audit(subject(Chain()), 0, "quick", select=(*BACK, *VALUE)).findings == ()


def test_every_run_of_steps_is_tried() -> None:
    assert list(segments(3)) == [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3)]


@pytest.mark.thorough
@pytest.mark.parametrize(("id", "cause"), [
    ("interleaved-halves-one-behind-the-other", "halves-interleaved"), ("alpha-is-not-undone", "block-left-out"),
    ("a-normalisation-that-knows-no-inverse", "block-applied-forward"), ("one-component-is-not-scaled-back", "components-left-out"),
    ("components-visited-as-listed-not-as-numbered", "order-of-components"), ("the-same-probe-for-ever", "one-fixed-probe"),
    ("an-estimate-that-is-never-negative", "clamped"), ("a-density-between-20-and-20", "clamped"),
])
def test_the_step_is_named(id: str, cause: str) -> None:
    mutant = mutants.load()[f"fresh/{id}"]
    assert audit(mutant.make(2), 1, "quick", select=mutant.meant).findings[0].cause == cause
