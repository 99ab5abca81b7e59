"""Above d = 128 products with J answer where they can: their bounds hold, and each mistake that a Jacobian showed is still found."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from iresnet_verify import Subject, audit
from iresnet_verify.catalogue.shared import singular_products as products
from iresnet_verify.catalogue.shared import stretch_search as search
from iresnet_verify.catalogue.shared.map_errors import Domain
from iresnet_verify.check.budget import BUDGETS
from iresnet_verify.check.context import Context
from iresnet_verify.check.result import CheckResult
from iresnet_verify.running.run import Prepared

D = 160
WITHOUT_MATRIX = ("inverse.is-injective", "inverse.unique-preimage", "inverse.separates-inputs", "lipschitz.bounds-jacobian",
                  "lipschitz.bounds-pairs", "lipschitz.bounds-stretch", "gradient.forward-input", "gradient.through-inverse")


class Perceptron(nn.Module):
    """x + g(x), g(x) = c·W₂ tanh(W₁x + b), ‖W₁‖ = ‖W₂‖ = 1."""

    def __init__(self, c: float = 0.8, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.c = c
        first, last = torch.randn(40, D, dtype=torch.float64), torch.randn(D, 40, dtype=torch.float64)
        self.first, self.last = (nn.Parameter(w / torch.linalg.matrix_norm(w, 2)) for w in (first, last))
        self.bias = nn.Parameter(0.1 * torch.randn(40, dtype=torch.float64))

    def g(self, x: Tensor) -> Tensor:
        return self.c * torch.tanh(x @ self.first.T + self.bias) @ self.last.T

    def forward(self, x: Tensor) -> Tensor:
        return x + self.g(x)

    def inverse(self, y: Tensor) -> Tensor:
        x = y
        for _ in range(200):
            x = y - self.g(x)
        return x


def right(**changes: Any) -> Subject:
    net = Perceptron()
    made = Subject(name="perceptron", event_shape=(D,), forward=net, inverse=net.inverse, residual=net.g, module=net, lipschitz=0.8,
                   modes=("eval",))
    return replace(made, **{k: v(net) for k, v in changes.items()})


def context(subject: Subject, id: str = "inverse.is-injective") -> Context:
    prepared = Prepared(subject, 0)
    return Context(subject, id, "eval", 0, BUDGETS["quick"], 0.0, prepared.framework, prepared.conventions("eval"), prepared.shared)


def one(subject: Subject, id: str) -> CheckResult:
    return audit(subject, seed=0, budget="quick", select=[id]).checks[0]


def test_the_bound_on_the_norm_holds_and_is_near() -> None:
    ctx = context(right())
    x = np.concatenate([0.3 * ctx.inputs(5), ctx.inputs(5)])
    norm = np.linalg.norm(ctx.residual_jacobian(x).matrix, 2, axis=(1, 2))
    bound = products.contraction(ctx, x)
    assert (bound >= norm).all()
    # after q rounds at most (α√(2/π)·√(Σw²))^{1/2q} too large, and a row stops being sharpened where its bound is below ENOUGH
    most = (products.ALPHA * math.sqrt(2 / math.pi) * 2 * math.sqrt(D)) ** (1 / (2 * products.ROUNDS))
    assert (bound <= np.maximum(products.ENOUGH, most * norm)).all()


def test_more_rounds_show_a_norm_close_to_one_to_be_below_it() -> None:
    ctx = context(right())
    x = ctx.inputs(1) * 0.0
    factor = 0.97 / float(np.linalg.norm(ctx.residual_jacobian(x).matrix[0], 2))
    close = context(right(residual=lambda net: lambda z: factor * net.g(z), forward=lambda net: lambda z: z + factor * net.g(z),
                          inverse=lambda net: None))
    assert products.contraction(close, x)[0] >= 1.0
    assert 0.97 <= products.contraction(close, x, products.MANY_ROUNDS)[0] < 1.0


def test_lanczos_finds_what_is_stretched_most_and_least() -> None:
    ctx = context(right())
    x = 0.1 * ctx.inputs(3)
    J = ctx.jacobian(x).matrix
    top, bottom = products.extremes(ctx, x)
    sigma = np.linalg.svd(J, compute_uv=False)
    most, least = (np.linalg.norm(np.einsum("nij,nj->ni", J, v), axis=1) for v in (top, bottom))
    assert np.allclose(np.linalg.norm(top, axis=1), 1.0)
    assert (most <= sigma[:, 0] * (1 + 1e-12)).all()
    assert (least >= sigma[:, -1] * (1 - 1e-12)).all()
    # rank(J − I) ≤ 40: 30 steps leave less than a hundredth of the spread
    assert (sigma[:, 0] - most <= 0.01 * (sigma[:, 0] - sigma[:, -1])).all()
    assert (least - sigma[:, -1] <= 0.01 * (sigma[:, 0] - sigma[:, -1])).all()


def test_the_norm_at_the_end_of_an_ascent_is_that_of_the_jacobian() -> None:
    ctx = context(right())
    worst = search.ascend(ctx, Domain.of(ctx), restarts=2, steps=4)
    assert worst.source == products.SOURCE
    norm = float(np.linalg.norm(ctx.residual_jacobian(worst.x).matrix[0], 2))
    assert worst.value - worst.error <= norm
    assert worst.value >= 0.99 * norm


@pytest.mark.parametrize("id", WITHOUT_MATRIX)
def test_a_contraction_passes_without_a_jacobian(id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a Jacobian was asked for")

    monkeypatch.setattr(Context, "jacobian", refuse)
    found = one(right(), id)
    assert found.status == "passed", found.message
    assert found.evidence["compared"] > 0


class Fold(nn.Module):
    """x − 2u tanh(uᵀx): det J < 0 where |uᵀx| is small, three preimages of every image there."""

    def __init__(self, height: float = 2.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.u = nn.Parameter(functional.normalize(torch.randn(D, dtype=torch.float64), dim=0))
        self.height = height

    def forward(self, x: Tensor) -> Tensor:
        return x - self.height * torch.tanh(x @ self.u)[:, None] * self.u


class Projection(Fold):
    """x − (uᵀx)u."""

    def forward(self, x: Tensor) -> Tensor:
        return x - (x @ self.u)[:, None] * self.u


def around(net: nn.Module) -> Subject:
    return Subject(name=type(net).__name__, event_shape=(D,), forward=net, module=net, modes=("eval",))


def test_a_fold_is_found() -> None:
    assert one(around(Fold()), "inverse.is-injective").status == "failed"


def test_a_projection_is_found() -> None:
    assert one(around(Projection()), "inverse.separates-inputs").status == "failed"


def test_a_second_preimage_is_found() -> None:
    # from a start on the other side of the fold the steps without a Jacobian end at the other preimage
    assert one(around(Fold(1.9)), "inverse.unique-preimage").status == "failed"


def test_a_scaled_skip_connection_stretches_too_far() -> None:
    assert one(right(forward=lambda net: lambda x: 0.1 * x + net.g(x)), "lipschitz.bounds-stretch").status == "failed"


def test_a_claim_just_below_the_norm_is_refuted() -> None:
    ctx = context(right())
    top = search.worst_stretch(ctx, Domain.of(ctx), restarts=4, steps=20).value
    found = one(replace(right(), lipschitz=top * (1 - 1e-6)), "lipschitz.bounds-jacobian")
    assert found.status == "failed", found.message


def _scaled(factor: float) -> Callable[[Perceptron], Callable[[Tensor], Tensor]]:
    return lambda net: lambda x: x + net.g(x) + factor * (net.g(x) - net.g(x).detach())


@pytest.mark.parametrize("factor", [1.0, 1e-3, 1e-6])
def test_a_wrong_backward_pass_is_found_along_directions(factor: float) -> None:
    assert one(right(forward=_scaled(factor), residual=lambda net: None), "gradient.forward-input").status == "failed"


def test_a_wrong_gradient_of_the_inverse_is_found() -> None:
    def inverse(net: Perceptron) -> Callable[[Tensor], Tensor]:
        return lambda y: y - net.g(net.inverse(y.detach()))

    assert one(right(inverse=inverse), "gradient.through-inverse").status == "failed"


def test_one_ascent_serves_all_checks_of_a_state_and_no_other_state() -> None:
    subject = right()
    ctx = context(subject)
    first = search.worst_stretch(ctx, Domain.of(ctx), restarts=1, steps=4)
    other = replace(ctx, check_id="lipschitz.bounds-pairs")
    assert search.worst_stretch(other, Domain.of(other), restarts=4, steps=20) is first
    fresh = context(right(), "convergence.worst-input")  # another process: the same numbers, whichever check asks first
    assert np.array_equal(search.worst_stretch(fresh, Domain.of(fresh), restarts=2, steps=5).x, first.x)
    with torch.no_grad():
        subject.module.last.mul_(0.5)
    again = search.worst_stretch(ctx, Domain.of(ctx), restarts=1, steps=4)
    assert again.value < 0.6 * first.value
