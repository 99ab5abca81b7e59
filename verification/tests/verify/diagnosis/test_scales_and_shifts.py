"""Of couplings and autoregressions it is said how the scale and the shift are undone wrongly, and what stands for the log of the scale."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from iresnet_verify import Subject, audit

BACK = ("inverse.recovers-input", "inverse.recovers-output")
VALUE = ("logdet.matches-determinant",)


class Coupling(nn.Module):
    """y = (a, b·s(a) + t(a))."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.activation = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4)).double(), activation

    def before(self, x: Tensor) -> Tensor:
        """What the activation of the scale is given."""
        return self.net(x[:, :2])[:, :2]

    def scale(self, x: Tensor) -> Tensor:
        return self.activation(self.before(x))

    def shift(self, x: Tensor) -> Tensor:
        return self.net(x[:, :2])[:, 2:]

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :2], x[:, 2:] * self.scale(x) + self.shift(x)], 1)

    def log_det(self, x: Tensor) -> Tensor:
        return self.scale(x).log().sum(1)


def cause(subject: Subject, checks: tuple[str, ...]) -> list[str]:
    return [f.cause for f in audit(subject, 0, "quick", select=checks).findings]


def thorough(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.thorough)


def exponential(a: Tensor) -> Tensor:
    return torch.exp(torch.tanh(a))


@pytest.mark.parametrize(("undo", "expected"), [
    (lambda b, s, t: b / s - t, ["scale-and-shift-exchanged"]), thorough(lambda b, s, t: (b - t) * s, ["scale-applied-again"]),
    thorough(lambda b, s, t: (b + t) / s, ["shift-sign"]), thorough(lambda b, s, t: b / s, ["shift-forgotten"]),
    thorough(lambda b, s, t: b - t, ["scale-forgotten"]), thorough(lambda b, s, t: b * s + t, ["inverse-applies-forward"]),
    thorough(lambda b, s, t: (b - t) / s, []), (lambda b, s, t: (b - t) / s**0.5, ["one-change"]),
])
def test_how_a_coupling_is_undone(undo: Callable[[Tensor, Tensor, Tensor], Tensor], expected: list[str]) -> None:
    net = Coupling(exponential)
    subject = Subject(name="coupling", event_shape=(4,), forward=net, module=net, modes=("eval",),
                      inverse=lambda y: torch.cat([y[:, :2], undo(y[:, 2:], net.scale(y), net.shift(y))], 1))
    assert cause(subject, BACK) == expected


@pytest.mark.parametrize(("activation", "log_det", "expected"), [
    (exponential, lambda n, x: n.scale(x).sum(1), ["scale-for-its-logarithm"]),
    thorough(lambda a: torch.sigmoid(a + 2.0), lambda n, x: n.before(x).sum(1), ["scale-for-its-logarithm"]),
    thorough(nn.functional.softplus, lambda n, x: n.before(x).sum(1), ["scale-for-its-logarithm"]),
    thorough(exponential, lambda n, x: n.log_det(x.roll(2, 1)), ["at-another-point"]),
    thorough(exponential, lambda n, x: n.scale(x)[:, :1].log().sum(1), ["components-left-out"]),
    thorough(exponential, lambda n, x: -n.log_det(x), ["sign"]), thorough(exponential, lambda n, x: n.log_det(x), []),
    (exponential, lambda n, x: n.before(x).sum(1), ["one-change"]),
])
def test_what_stands_for_the_logarithm_of_the_scale(
    activation: Callable[[Tensor], Tensor], log_det: Callable[[Coupling, Tensor], Tensor], expected: list[str]
) -> None:
    net = Coupling(activation)
    subject = Subject(name="coupling", event_shape=(4,), forward=net, module=net, modes=("eval",), log_det=lambda x: log_det(net, x))
    assert cause(subject, VALUE) == expected


def linear() -> nn.Linear:
    torch.manual_seed(3)
    layer = nn.Linear(4, 4).double()
    with torch.no_grad():
        layer.weight.copy_(torch.eye(4) + 0.3 * torch.randn(4, 4))
    return layer


@pytest.mark.thorough
def test_a_transpose_undoes_a_rotation_alone() -> None:
    layer = linear()
    subject = Subject(name="linear", event_shape=(4,), forward=layer, module=layer, modes=("eval",),
                      inverse=lambda y: (y - layer.bias) @ layer.weight)
    assert cause(subject, BACK) == ["transpose-for-inverse"]
    with torch.no_grad():
        layer.weight.copy_(torch.linalg.qr(layer.weight)[0])
    assert cause(subject, BACK) == []


def test_an_autoregression_is_not_undone_in_one_pass() -> None:
    torch.manual_seed(5)
    w, v = torch.randn(2, 3, 3).double().tril(-1)
    subject = Subject(name="autoregression", event_shape=(3,), modes=("eval",),
                      forward=lambda x: x * torch.exp(0.5 * torch.tanh(x @ w.T)) + torch.tanh(x @ v.T),
                      inverse=lambda y: (y - torch.tanh(y @ v.T)) * torch.exp(-0.5 * torch.tanh(y @ w.T)))
    assert cause(subject, BACK) == ["conditioned-on-y"]
