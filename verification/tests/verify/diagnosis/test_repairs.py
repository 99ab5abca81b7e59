"""A slip of the pen is named by its line: the one change that makes the numbers right is found by trying, and put back."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from iresnet_verify import Subject, audit, mutants
from iresnet_verify.diagnosis.trials.code_changes import changes_of, functions_of

VALUE, BACK = ("logdet.matches-determinant",), ("inverse.recovers-input", "inverse.recovers-output")
D = torch.float64


class Sine(nn.Module):
    """y = x + u·sin(w·x + c)/2, |w| = |u| = 1."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        w, u = torch.randn(2, 3, dtype=D)
        self.w, self.u, self.c = nn.Parameter(w / w.norm()), nn.Parameter(u / u.norm()), nn.Parameter(torch.tensor(0.3, dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.5 * torch.sin(x @ self.w + self.c)[:, None] * self.u

    def inverse(self, y: Tensor) -> Tensor:
        x = y
        for _ in range(80):
            x = y - 0.5 * torch.sin(x @ self.w + self.c)[:, None] * self.u
        return x

    def log_det(self, x: Tensor) -> Tensor:
        return torch.log(1 + 0.5 * torch.cos(x @ self.w + self.c) * (self.w @ self.u))


class SineForCosine(Sine):
    def log_det(self, x: Tensor) -> Tensor:
        return torch.log(1 + 0.5 * torch.sin(x @ self.w + self.c) * (self.w @ self.u))


class TwiceTheFrequency(Sine):
    def log_det(self, x: Tensor) -> Tensor:
        return torch.log(1 + 0.5 * torch.cos(2 * (x @ self.w + self.c)) * (self.w @ self.u))


class OtherVector(Sine):
    def log_det(self, x: Tensor) -> Tensor:
        return torch.log(1 + 0.5 * torch.cos(x @ self.u + self.c) * (self.w @ self.u))


class TwoSlips(Sine):
    """No one change repairs it."""

    def log_det(self, x: Tensor) -> Tensor:
        return torch.log(1 + 0.3 * torch.tanh(x @ self.u - self.c) * (self.w @ self.u))


class CosineInTheLoop(Sine):
    def inverse(self, y: Tensor) -> Tensor:
        x = y
        for _ in range(80):
            x = y - 0.5 * torch.cos(x @ self.w + self.c)[:, None] * self.u
        return x


def found(net: Sine, checks: tuple[str, ...]) -> list[tuple[str, str]]:
    subject = Subject(name="sine", event_shape=(3,), forward=net, inverse=net.inverse, log_det=net.log_det, module=net, modes=("eval",))
    return [(f.cause, f.wrong + f.change) for f in audit(subject, 0, "quick", select=checks).findings]


@pytest.mark.parametrize(("kind", "checks", "words"), [
    (SineForCosine, VALUE, "`cos` for `sin` in SineForCosine.log_det, line"),
    pytest.param(TwiceTheFrequency, VALUE, "1 for 2 in TwiceTheFrequency.log_det", marks=pytest.mark.thorough),
    pytest.param(OtherVector, VALUE, "`w` for `u` in OtherVector.log_det", marks=pytest.mark.thorough),
    pytest.param(CosineInTheLoop, BACK, "`sin` for `cos` in CosineInTheLoop.inverse", marks=pytest.mark.thorough),
])
def test_the_line_and_its_repair_are_named(kind: type[Sine], checks: tuple[str, ...], words: str) -> None:
    before = {name: f.__code__ for name, f in vars(kind).items() if callable(f)}
    ((cause, wrong),) = found(kind(), checks)
    assert cause in ("one-change", "parameter-stale")  # a cosine is a sine of another bias
    assert words in wrong
    assert {name: f.__code__ for name, f in vars(kind).items() if callable(f)} == before


class Packed(Sine):
    """The log-det is made where F is, of the same sum."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # both
        inner = x @ self.w + self.c
        log_det = torch.log(1 + 0.5 * torch.sin(inner) * (self.w @ self.u))
        return x + 0.5 * torch.sin(inner)[:, None] * self.u, log_det


# A change of the log-det alone is no other F, and many of one line are one place.
def test_a_log_det_that_forward_returns() -> None:
    net = Packed()
    report = audit(Subject(name="packed", event_shape=(3,), forward=net, module=net, modes=("eval",)), 0, "quick", select=VALUE)
    assert "`cos` for `sin` in Packed.forward" in report.findings[0].wrong


# Without its activation F has one log-det for all rows, which is their median.
@pytest.mark.thorough
@pytest.mark.parametrize("id", ["later/median-over-the-batch", "later/largest-of-the-batch", "later/second-row-for-all"])
def test_an_f_that_makes_the_wrong_number_right_is_no_repair(id: str) -> None:
    mutant = mutants.load()[id]
    assert [f.cause for f in audit(mutant.make(3), 1, "quick", select=mutant.meant).findings] == ["unexplained"]


@pytest.mark.thorough
def test_two_slips_at_once_are_not_repaired_by_one() -> None:
    assert [cause for cause, _ in found(TwoSlips(), VALUE)] == ["unexplained"]


def test_a_right_network_is_right() -> None:
    assert found(Sine(), (*VALUE, *BACK)) == []


def looping(x: float, n: int = 3) -> float:
    total = 0.0
    for k in range(1, n):
        while total > 10 and k < 2:
            total = total / 2
        total += math.exp(-x) * -k if k % 2 else [x, total][-1]
    return total if total >= 0 else -total


# Every change is a code that runs or raises; the loop, its jumps and the rest are as they were where nothing was changed.
def test_every_change_of_a_loop_can_be_run() -> None:
    right, results = looping(0.7), []
    for change in changes_of(looping):  # type: ignore[arg-type]  # a function
        with change.made():
            try:
                results.append(looping(0.7))
            except Exception:
                results.append(None)
        assert looping(0.7) == right
    assert len(results) > 150
    assert {-right, None} < set(results) or right in results
    assert len(set(results)) > 30


@pytest.mark.parametrize("call", [lambda: looping(0.1), lambda: [looping(0.1), math.sin(1.0)]])
def test_the_functions_that_a_call_runs(call: Callable[[], object]) -> None:
    assert looping in functions_of(call)
    assert sys.getprofile() is None


def test_functions_that_act_outside_the_process_are_left_alone() -> None:
    def noted(x: float) -> float:
        if x < 0:
            Path("log").write_text("negative")
        return x + 1.0

    def plain(x: float) -> float:
        return noted(x) * 2.0

    assert [f.__name__ for f in functions_of(lambda: plain(1.0))] == ["<lambda>", "plain"]


# The number of a variable beyond the 256th does not fit into an instruction.
def test_functions_of_many_variables_can_be_changed() -> None:
    made: dict[str, Callable[[], float]] = {}
    exec("def many():\n" + "".join(f"    v{i} = {i}\n" for i in range(300)) + "    return v0 - v1\n", made)
    changes = list(changes_of(made["many"]))  # type: ignore[arg-type]  # a function
    assert any(c.words == "`v255` for `v0`" for c in changes)
    assert not any(c.words == "`v256` for `v0`" for c in changes)


class Folds(nn.Module):
    """y = log(1 + x) above 0 and −log(1 − x) below, whose inverse is wrong below 0 by two changes."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([0.3, -0.2, 0.1], dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        z = x * self.a.exp()
        return torch.where(z < 0, -torch.log1p(-z.clamp(max=0)), torch.log1p(z.clamp(min=0)))

    def inverse(self, y: Tensor) -> Tensor:
        return torch.where(y < 0, y.exp() + 1, y.exp() - 1) * (-self.a).exp()


# Without a minus F is folded at 0, and its inverse finds the other preimage: F(F⁻¹(y)) = y, but F⁻¹(F(x)) is not x.
@pytest.mark.thorough
def test_an_f_that_is_folded_is_no_repair() -> None:
    net = Folds()
    subject = Subject(name="folds", event_shape=(3,), forward=net, inverse=net.inverse, module=net, modes=("eval",))
    assert [f.cause for f in audit(subject, 0, "quick", select=BACK).findings] == ["unexplained"]


class Bracketed(Sine):
    """Newton's method in a bracket that lies below the root: to move its middle, too, lets the method leave it."""

    def inverse(self, y: Tensor) -> Tensor:
        low, high = y @ self.w - 0.5, y @ self.w - 0.5
        z, inner = y @ self.w, self.w @ self.u
        for _ in range(60):
            value = z + 0.5 * torch.sin(z + self.c) * inner
            low, high = torch.where(value < y @ self.w, z, low), torch.where(value < y @ self.w, high, z)
            new = z - (value - y @ self.w) / (1 + 0.5 * torch.cos(z + self.c) * inner)
            z = torch.where((new < low) | (new > high), (low + high) / 2, new)
        return y - 0.5 * torch.sin(z + self.c)[:, None] * self.u


@pytest.mark.thorough
def test_of_two_changes_that_which_holds_everywhere_is_named() -> None:
    ((cause, wrong),) = found(Bracketed(), BACK)
    assert cause == "one-change"
    assert "`+` for `-` in Bracketed.inverse" in wrong


def turned(u: Tensor, v: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """The plane (u, v) turned, with a sine of u for that of the angle."""
    return torch.cos(angle) * u - torch.sin(u) * v, torch.sin(angle) * u + torch.cos(angle) * v


def turned_twice_wrong(u: Tensor, v: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cos(angle) * u - torch.sin(u) * v, torch.sin(angle) * torch.tanh(v) + torch.cos(angle) * v


class Turning(nn.Module):
    """The first two components are turned by an angle of the third, and all are scaled."""

    def __init__(self, by: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.by, self.s = by, nn.Parameter(torch.tensor([0.3, -0.5, 0.4], dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        u, v, w = x.T
        u, v = self.by(u, v, torch.tanh(w))
        return torch.stack([u, v, w], 1) * self.s.exp()

    def inverse(self, y: Tensor) -> Tensor:
        u, v, w = (y * (-self.s).exp()).T
        u, v = self.by(u, v, -torch.tanh(w))
        return torch.stack([u, v, w], 1)

    def log_det(self, x: Tensor) -> Tensor:
        return self.s.sum().expand(len(x))


# The log-det is a constant, as it should be: its numbers are wrong since F is another map.
@pytest.mark.parametrize(("by", "cause", "words"), [
    (turned, "one-change", "`angle` for `u` in turned, line"),
    pytest.param(turned_twice_wrong, "unexplained", "The inverse is wrong", marks=pytest.mark.thorough)])
def test_a_constant_that_a_wrong_f_made_wrong(
    by: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]], cause: str, words: str
) -> None:
    net = Turning(by)
    subject = Subject(name="turning", event_shape=(3,), forward=net, inverse=net.inverse, log_det=net.log_det, module=net, modes=("eval",))
    findings = audit(subject, 0, "quick", select=(*VALUE, *BACK)).findings
    assert {f.cause for f in findings} == {cause}
    assert words in findings[0].wrong


class Detached(Sine):
    def log_det(self, x: Tensor) -> Tensor:
        inner = (x @ self.w).detach() + self.c
        return torch.log(1 + 0.5 * torch.cos(inner) * (self.w @ self.u))


def test_what_cuts_a_gradient_off_is_named() -> None:
    net = Detached()
    subject = Subject(name="sine", event_shape=(3,), forward=net, log_det=net.log_det, module=net, modes=("eval",))
    finding = audit(subject, 0, "quick", select=("gradient.log-det",)).findings[0]
    assert "without `detach` in Detached.log_det, line" in finding.wrong + finding.change
