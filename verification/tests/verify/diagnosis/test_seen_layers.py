"""A bound that fails is explained by the weights as g applies them, whatever normalises them on the way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from iresnet_verify import Subject, audit

D = torch.float64
Normalised = Callable[[Tensor], Tensor]


def exact(w: Tensor) -> Tensor:
    return 0.9 * w / torch.linalg.matrix_norm(w, 2)


def to_one(w: Tensor) -> Tensor:
    return w / torch.linalg.matrix_norm(w, 2)


def by_one_step(w: Tensor) -> Tensor:
    v = w.T @ (w @ torch.ones(w.shape[1], dtype=D))
    return 0.9 * w / (w @ v / v.norm()).norm()


def by_its_entry(w: Tensor) -> Tensor:
    return 0.9 * w / w.abs().max()


class Branch(nn.Module):
    """x + c·tanh(Ŵ₂ tanh(Ŵ₁x)), claimed .81."""

    def __init__(self, normalised: Normalised, c: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(5)
        w = torch.randn(4, 4, dtype=D)
        self.w = nn.ParameterList([w, w.T.clone()])  # at 0 their product is as large as their norms let it be
        self.normalised, self.c = normalised, c

    def forward(self, x: Tensor) -> Tensor:
        first, last = (self.normalised(w) for w in self.w)
        return x + self.c * torch.tanh(torch.tanh(x @ first.T) @ last.T)


@pytest.mark.parametrize(("normalised", "c", "cause", "words"), [
    (to_one, 1.0, "weights-above-claim", "1 · 1 = 1, the claim is 0.81 (each layer is normalised to 1, without the coefficient)"),
    (by_one_step, 1.0, "norm-along-one-vector", "1 power iterations from ones"),
    pytest.param(by_its_entry, 1.0, "entry-for-norm", "largest entry", marks=pytest.mark.thorough),
    (exact, 2.0, "beyond-the-weights", "0.9 · 0.9 = 0.81"),
])
def test_the_layers_are_seen_as_they_are_applied(normalised: Normalised, c: float, cause: str, words: str) -> None:
    net = Branch(normalised, c)
    bound = ("lipschitz.bounds-jacobian",)
    (found,) = audit(Subject(name="branch", event_shape=(4,), forward=net, module=net, modes=("eval",), lipschitz=0.81), 0, "quick",
                     select=bound).findings
    assert found.cause == cause
    assert words in found.wrong


class Coefficient(nn.Module):
    """x + a·tanh(Ŵ tanh(x)), ‖Ŵ‖ = 1, of which four power iterations are the norm to rounding; a is −1.5, the claim .9."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.diag(torch.tensor([3.0, 0.01, 0.01], dtype=D)) + 0.01)

    def forward(self, x: Tensor) -> Tensor:
        return x - 1.5 * torch.tanh(torch.tanh(x) @ to_one(self.w).T)


# A claim of a layer that holds is the norm of it: that few iterations give it as well explains nothing.
@pytest.mark.parametrize("declared", [1 + 1e-9, 0.5])
def test_a_norm_that_is_right_is_no_cause(declared: float) -> None:
    net = Coefficient()
    (found,) = audit(Subject(
        name="coefficient", event_shape=(3,), forward=net, module=net, modes=("eval",), lipschitz=0.9,
        linear_maps=lambda: [("linear", lambda v: v @ to_one(net.w).T, (3,), declared)]), 0, "quick",
        select=("lipschitz.bounds-jacobian", "lipschitz.layers")).findings
    assert found.cause == ("beyond-the-weights" if declared > 1 else "lipschitz.layers")
