"""One cause, one finding: what cannot be decided names its reason, and what one mistake fails together is folded under one result."""

from __future__ import annotations

import math

import pytest
import torch

from iresnet_verify import Report, Subject, audit
from iresnet_verify.running.causes import SAME_CLAIM
from iresnet_verify.running.plan import selected

D = torch.float64


class Coupling(torch.nn.Module):
    """An affine coupling with dropout in its network: under one mask it is exactly invertible."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Dropout(0.2), torch.nn.Linear(16, 6)).double()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = x.chunk(2, 1)
        s, t = self.net(a).chunk(2, 1)
        return torch.cat([a, b * torch.exp(torch.tanh(s)) + t], 1), torch.tanh(s).sum(1)

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        a, b = y.chunk(2, 1)
        s, t = self.net(a).chunk(2, 1)
        return torch.cat([a, (b - t) * torch.exp(-torch.tanh(s))], 1)


class Scale(torch.nn.Module):
    """A scale with one infinite entry."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.tensor([0.1, -0.2, math.inf], dtype=D))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * self.log_scale.exp(), self.log_scale.sum().expand(len(x))

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        return y * (-self.log_scale).exp()


def barely_over() -> Subject:
    """A layer of norm .98(1 + 1e-7), claimed .98."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 4, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(0.98 * (1 + 1e-7) * torch.linalg.qr(torch.randn(4, 4, dtype=D))[0])
    return Subject(name="barely over", event_shape=(4,), forward=lambda x: x + layer(x), residual=layer, module=layer, lipschitz=0.98)


def findings(report: Report) -> list[str]:
    return [c.id for c in report.checks if c.status == "failed" and c.because_of is None]


def test_a_random_forward_is_the_only_finding_in_its_mode() -> None:
    module = Coupling()
    report = audit(Subject(name="dropout", event_shape=(6,), forward=module, inverse=module.inverse, module=module), 0, "quick")
    assert [c.id for c in report.checks if c.status == "failed"] == ["hygiene.forward-not-random"]
    undecided = [c for c in report.checks if c.because_of is not None]
    assert len(undecided) > 10
    assert {(c.status, c.because_of, c.mode) for c in undecided} == {("inconclusive", "hygiene.forward-not-random", "train")}


# A norm, a frozen parameter and the argument of a call are what they are, however random the values of F.
def test_a_random_forward_hides_no_norm_that_is_too_large() -> None:
    layer = torch.nn.Linear(4, 4, bias=False, dtype=D)
    with torch.no_grad():
        layer.weight.copy_(1.2 * torch.linalg.qr(torch.randn(4, 4, dtype=D))[0])

    def forward(x: torch.Tensor) -> torch.Tensor:
        return x + layer(x) * (1 + 1e-3 * torch.randn_like(x))

    subject = Subject(name="noisy", event_shape=(4,), forward=forward, module=layer, lipschitz=0.9,
                      linear_maps=lambda: [("layer", layer, (4,), 0.9)])
    found = {c.id: c.status for c in audit(subject, 0, "quick", select=["lipschitz", "gradient.frozen-parameters", "hygiene"]).checks}
    assert found["lipschitz.layers"] == found["hygiene.forward-not-random"] == "failed"
    assert found["gradient.frozen-parameters"] == found["hygiene.input-kept"] == found["hygiene.caller-tensors-kept"] == "passed"
    assert found["hygiene.batch-independence"] == "inconclusive"


def test_an_infinite_forward_is_the_only_finding() -> None:
    module = Scale()
    report = audit(Subject(name="infinite", event_shape=(3,), forward=module, inverse=module.inverse, module=module), 0, "quick")
    assert [c.id for c in report.checks if c.status == "failed"] == ["hygiene.forward-finite"]


def test_a_norm_barely_above_its_claim_is_one_finding_that_says_by_how_much() -> None:
    report = audit(barely_over(), 0, "quick", select=["lipschitz", "convergence", "inverse"])
    assert findings(report) == ["lipschitz.bounds-jacobian"]
    (found,) = [c for c in report.checks if c.id == "lipschitz.bounds-jacobian"]
    assert "9.8e-08 too much" in found.message
    assert {c.because_of for c in report.checks if c.status == "failed"} == {None, "lipschitz.bounds-jacobian"}


@pytest.mark.parametrize("ids", SAME_CLAIM)
def test_the_checks_of_one_claim_exist(ids: tuple[str, ...]) -> None:
    assert set(ids) <= {c.id for c in selected()}


def test_a_map_that_refuses_many_rows_is_audited_all_the_same() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        if len(x) > 64:
            raise ValueError("at most 64 rows")
        return 2.0 * x

    (result,) = audit(Subject(name="few rows", event_shape=(3,), forward=forward), 0, "quick", select=["hygiene.forward-finite"]).checks
    assert result.status == "passed", result.message
