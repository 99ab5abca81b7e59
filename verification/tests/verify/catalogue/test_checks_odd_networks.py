"""Networks that are odd in ways that have nothing to do with what is claimed: the audit has no errors of its own there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iresnet_verify import Subject, audit
from iresnet_verify.check.result import CheckResult
from iresnet_verify.mutants.block import Block, make

D = torch.float64


def troubles(subject: Subject) -> dict[str, str]:
    report = audit(subject, budget="quick")
    return {c.id: f"{c.status}: {c.message}" for c in report.checks if c.status in ("failed", "error", "inconclusive")}


def turned(a: Tensor) -> Tensor:
    """The same numbers in memory that is not contiguous."""
    return a.T.contiguous().T


def not_contiguous() -> Subject:
    made = make(Block, 0)
    block = made.module
    return replace(made, forward=lambda x: turned(block(x)), inverse=lambda y: turned(block.inverse(y)),
                   residual=lambda x: turned(block.g(x)),
                   log_det=lambda x: torch.stack([block.log_det(x)] * 2, 1)[:, 0])


def channels_last() -> Subject:
    def forward(x: Tensor) -> Tensor:
        return (x + 0.1 * torch.tanh(x)).to(memory_format=torch.channels_last)

    def inverse(y: Tensor) -> Tensor:
        x = y
        for _ in range(60):
            x = y - 0.1 * torch.tanh(x)
        return x.to(memory_format=torch.channels_last)

    return Subject(name="channels last", event_shape=(2, 3, 3), forward=forward, inverse=inverse,
                   log_det=lambda x: torch.log1p(0.1 * (1 - torch.tanh(x) ** 2)).to(memory_format=torch.channels_last))


class ByAutograd(nn.Module):
    """The gradient of a convex function, by autograd inside forward."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(0.1 * torch.randn(3, 3, dtype=D, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        x = x if x.requires_grad else x.detach().requires_grad_()
        energy = (x**2).sum() / 2 + torch.log(torch.cosh(x @ self.w.T)).sum()
        return torch.autograd.grad(energy, x, create_graph=True)[0]


def by_autograd() -> Subject:
    net = ByAutograd()
    return Subject(name="by autograd", event_shape=(3,), forward=net, module=net, fresh=lambda dtype=None, device=None: by_autograd())


def built_by(fresh: Callable[..., Any]) -> Subject:
    made = make(Block, 0)
    return replace(made, fresh=fresh)


def refuses_float32(dtype: str | None = None, device: str | None = None) -> Subject:
    if dtype == "float32":
        raise RuntimeError("no float32 here")
    return make(Block, 1)


def refuses_every_dtype(**options: Any) -> Subject:
    if options:
        raise TypeError("unexpected keyword")
    return make(Block, 1)


ODD: dict[str, Callable[[], Subject]] = {
    "outputs that are not contiguous": not_contiguous,
    "outputs in channels-last memory": channels_last,
    "autograd inside forward": by_autograd,
    "fresh without arguments": lambda: built_by(lambda: make(Block, 1)),
    "fresh that ignores the dtype": lambda: built_by(lambda dtype=None, device=None: make(Block, 1)),
    "fresh that refuses float32": lambda: built_by(refuses_float32),
    "fresh that refuses keywords": lambda: built_by(refuses_every_dtype),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_and_right_is_neither_failed_nor_an_error(name: str) -> None:
    assert not troubles(ODD[name]())


class Rate(nn.Module):
    """A parameter that is a probability: 100 times it is none."""

    def __init__(self) -> None:
        super().__init__()
        made = torch.Generator().manual_seed(0)
        self.w, self.p = nn.Parameter(torch.randn(3, 3, dtype=D, generator=made)), nn.Parameter(torch.tensor(0.5, dtype=D))

    def g(self, x: Tensor) -> Tensor:
        if not 0 <= float(self.p) <= 1:
            raise ValueError(f"expected a probability, got {float(self.p)}")
        return 0.9 * self.p * torch.tanh(x @ (self.w / torch.linalg.matrix_norm(self.w, 2)).T)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.g(x)


def test_parameters_that_are_rates_are_not_multiplied_by_100() -> None:
    net = Rate()
    subject = Subject(name="rate", event_shape=(3,), forward=net, module=net, residual=net.g, lipschitz=0.9, lipschitz_holds="always")
    (found,) = audit(subject, budget="quick", select=["lipschitz.survives-parameters"]).checks
    assert found.status in ("passed", "skipped"), found.message
    assert "expected a probability" in str(found.evidence.get("refused", found.message))


def over(excess: float, dtype: str = "float64") -> Subject:
    """A layer of norm .98·(1 + excess), claimed .98."""
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=D, generator=torch.Generator().manual_seed(0)))[0]
    layer = nn.Linear(4, 4, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(0.98 * (1 + excess) * turn)
    layer = layer.to(getattr(torch, dtype))
    return Subject(name="over", event_shape=(4,), forward=lambda x: x + layer(x), residual=layer, module=layer, lipschitz=0.98, dtype=dtype,
                   linear_maps=lambda: [("w", layer, (4,), 0.98)])


def of_bounds(subject: Subject) -> list[CheckResult]:
    return [c for c in audit(subject, budget="quick", select=["lipschitz", "convergence"]).checks if c.status != "skipped"]


@pytest.mark.parametrize(("excess", "dtype"), [(1e-7, "float64"), (1e-4, "float32")])
def test_a_norm_above_its_claim_fails_and_the_difference_is_shown(excess: float, dtype: str) -> None:
    failed = [c for c in of_bounds(over(excess, dtype)) if c.status == "failed"]
    assert {"lipschitz.bounds-jacobian", "lipschitz.layers"} <= {c.id for c in failed}
    for c in failed:
        assert "0.98 + " in c.message or "too much" in c.message, c.message
        assert "got 0.98," not in c.message
        assert "got 0.98 at" not in c.message


@pytest.mark.parametrize(("excess", "dtype"), [(1e-15, "float64"), (5e-7, "float32")])
def test_a_norm_above_its_claim_by_rounding_is_a_note(excess: float, dtype: str) -> None:
    found = of_bounds(over(excess, dtype))
    assert {c.status for c in found} == {"passed"}
    assert any("above the claim, within its rounding" in c.message for c in found)


class Own(nn.Module):
    """A class of linear layers that nobody knows: it keeps `coeff` and divides by the root mean square instead of the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.coeff = nn.Parameter(torch.randn(4, 4, dtype=D, generator=torch.Generator().manual_seed(0))), 0.9

    def forward(self, x: Tensor) -> Tensor:
        return x @ (0.9 * self.w / self.w.square().mean().sqrt()).T + 1.0


def layers_of(net: nn.Module, shape: tuple[int, ...]) -> CheckResult:
    subject = Subject(name="net", event_shape=shape, forward=lambda x: x + 0.1 * net(x), residual=lambda x: 0.1 * net(x), module=net,
                      lipschitz=0.9, modes=("eval",))
    return audit(subject, budget="quick", select=["lipschitz.layers"]).checks[0]


def test_layers_of_any_class_are_measured_and_their_coefficient_is_noted() -> None:
    found = layers_of(nn.Sequential(Own(), nn.Tanh()), (4,))
    matrix = Own()(torch.eye(4, dtype=D)).detach() - 1.0
    assert found.evidence["0 at (4,)"] == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-9)
    assert "its coeff is 0.9" in found.message


def test_pooling_is_measured_by_itself() -> None:
    found = layers_of(nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1)), (1, 6, 6))
    assert "no linear layer is visible" in found.message
    net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1).double(), nn.MaxPool2d(3, stride=1, padding=1))
    found = layers_of(net, (1, 6, 6))
    assert found.evidence["slope of 1"] == pytest.approx(3.0), "a pixel above all its neighbours counts nine times"
    assert "a layer without parameters has the slope 3" in found.message


def test_a_fresh_that_runs_the_network_is_noted() -> None:
    def fresh(dtype: str | None = None, device: str | None = None) -> Subject:
        made = make(Block, 1, dtype)
        made.module(torch.zeros(1, 3, dtype=made.module.w1.dtype))
        return made

    for builder, noted in ((fresh, True), (lambda dtype=None, device=None: make(Block, 1, dtype), False)):
        (found,) = audit(built_by(builder), budget="quick", select=["state.save-and-load"]).checks
        assert found.status == "passed"
        assert ("fresh() runs Block" in found.message) is noted


def test_a_series_that_is_cut_is_told_what_to_declare() -> None:
    made = make(Block, 0)
    block = made.module

    def cut(x: Tensor) -> Tensor:
        w1, w2 = block.weights()
        J = w2 @ ((1 - torch.tanh(x @ w1.T + block.b1) ** 2)[:, :, None] * w1)
        power, total = J, torch.zeros(len(x), dtype=x.dtype)
        for k in range(1, 5):
            total = total + (-1) ** (k + 1) / k * power.diagonal(dim1=1, dim2=2).sum(1)
            power = power @ J
        return total

    report = audit(replace(made, log_det=cut), budget="quick", select=["logdet.matches-determinant"])
    assert [c.status for c in report.checks] == ["failed"]
    (finding,) = report.findings
    assert "cut after 4 terms" in str(finding)
    assert "Declare the bound of what is left out, log_det_is=<nats>" in str(finding)
