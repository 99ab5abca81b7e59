"""Above d = 128 the audit searches by products with J and differentiates log-dets by copies of rows: the same answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from iresnet_ref.rounding import gamma
from iresnet_verify import Subject, audit
from iresnet_verify.catalogue.shared import parameter_gradients as gradient_oracle
from iresnet_verify.catalogue.shared import singular_products
from iresnet_verify.catalogue.shared import stretch_search as search
from iresnet_verify.catalogue.shared.map_errors import Domain
from iresnet_verify.check.budget import BUDGETS
from iresnet_verify.check.context import Context
from iresnet_verify.check.result import CheckResult
from iresnet_verify.running.run import Prepared

SHAPE = (2, 9, 8)
D = math.prod(SHAPE)
L = 0.9**2
"""Each of the two convolutions has √(largest row sum · largest column sum) = .9."""


class Block(nn.Module):
    """x + g(x), g two convolutions with ELU between them, Lip(g) < 1 by the kernels' absolute sums."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
        with torch.no_grad():
            for layer in (self.first, self.last):
                size = layer.weight.abs()
                layer.weight.div_((size.sum((1, 2, 3)).max() * size.sum((0, 2, 3)).max()).sqrt() / 0.9)

    def g(self, x: Tensor) -> Tensor:
        return self.last(functional.elu(self.first(x)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.g(x)

    def log_det(self, x: Tensor) -> Tensor:
        """Return log|det dF/dx| with a graph, row by row."""
        return torch.stack([torch.linalg.slogdet(self.jacobian(row))[1] for row in x.double()]).to(x)

    def jacobian(self, x: Tensor) -> Tensor:
        """Return dF/dx at one x from the images of the basis."""
        basis = torch.eye(D, dtype=x.dtype).reshape(D, *SHAPE)
        first, last = (layer.weight.to(x.dtype) for layer in (self.first, self.last))
        h = functional.conv2d(x[None], first, self.first.bias.to(x.dtype), padding=1)
        slope = torch.where(h > 0, torch.ones_like(h), torch.exp(h))
        columns = functional.conv2d(slope * functional.conv2d(basis, first, padding=1), last, padding=1)
        return torch.eye(D, dtype=x.dtype) + columns.reshape(D, D).T


def block(log_det: Callable[[Block, Tensor], Tensor] = Block.log_det, *, residual: bool = True, dtype: Any = torch.float64) -> Subject:
    net = Block().to(dtype)
    return Subject(name="block", event_shape=SHAPE, forward=net, residual=net.g if residual else None, module=net, lipschitz=0.9,
                   log_det=lambda x: log_det(net, x), dtype=str(dtype).removeprefix("torch."))


def context(subject: Subject, check: str = "lipschitz.bounds-jacobian") -> Context:
    prepared = Prepared(subject, 0)
    return Context(subject, check, None, 0, BUDGETS["quick"], 0.0, prepared.framework, prepared.conventions(None))


def one(subject: Subject, id: str) -> CheckResult:
    return audit(subject, seed=0, budget="quick", select=[id]).checks[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("residual", [True, False])
def test_products_find_the_largest_singular_value(residual: bool, dtype: Any) -> None:
    ctx = context(block(residual=residual, dtype=dtype))
    assert singular_products.available(ctx)
    x = ctx.inputs(3)
    sigma, u, v = singular_products.largest(ctx, x)
    J = ctx.residual_jacobian(x).matrix
    top = np.linalg.norm(J, 2, axis=(1, 2))
    rounding = 100 * ctx.u * math.sqrt(D)
    assert (sigma <= top * (1 + rounding)).all()
    # A start with |cos| ≥ 1e-3 to the top vector leaves (σ₂/σ₁)²⁴·10³ of the others; here the spectrum is dense near σ₁.
    assert (sigma >= 0.97 * top).all()
    assert np.allclose(np.einsum("ni,nij,nj->n", u, J, v), sigma, rtol=0.02)
    further, _, _ = singular_products.largest(ctx, x, v)
    assert (further >= sigma * (1 - rounding)).all()


def test_products_of_a_map_that_is_not_finite_are_ranked_last() -> None:
    net = Block().double()

    def g(x: Tensor) -> Tensor:
        far = x.detach().flatten(1).norm(dim=1)[:, None, None, None] > 5
        return net.g(x) * torch.where(far, torch.nan, 1.0)

    ctx = context(Subject(name="NaN far out", event_shape=SHAPE, forward=lambda x: x + g(x), residual=g, module=net))
    near = np.zeros((1, *SHAPE))
    sigma, _, _ = singular_products.largest(ctx, np.concatenate([near, near + 1.0]))
    assert np.isfinite(sigma[0])
    assert sigma[1] == -np.inf


class Ridge(nn.Module):
    """g(x) = L·u·tanh(vᵀx − t): ‖J_g‖ = L·sech²(vᵀx − t), L on one hyperplane far from typical inputs, nearly 0 elsewhere."""

    def __init__(self, height: float, t: float = 6.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.height, self.t = height, t
        self.u, self.v = (nn.Parameter(functional.normalize(torch.randn(200, dtype=torch.float64), dim=0)) for _ in range(2))

    def g(self, x: Tensor) -> Tensor:
        return self.height * torch.tanh(x @ self.v - self.t)[:, None] * self.u

    def forward(self, x: Tensor) -> Tensor:
        return x + self.g(x)


def ridge(height: float) -> Subject:
    net = Ridge(height)
    return Subject(name="ridge", event_shape=(200,), forward=net, residual=net.g, module=net, lipschitz=0.9, modes=("eval",))


def test_the_ascent_climbs_to_where_few_inputs_lie() -> None:
    subject = ridge(0.9)
    ctx = context(subject)
    domain = Domain.of(ctx)
    pool, _, _ = singular_products.largest(ctx, search.starts(ctx, domain, 32))
    worst = search.ascend(ctx, domain, restarts=4, steps=20)
    assert worst.value > 0.999 * 0.9 > pool.max()
    assert one(subject, "lipschitz.bounds-jacobian").status == "passed"
    found = one(ridge(0.905), "lipschitz.bounds-jacobian")
    assert found.status == "failed"
    assert found.counterexample is not None


class Tripled(torch.autograd.Function):
    """The identity, with three times its gradient."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]  # torch declares *gradients
        return 3 * gradient


def _tripled(net: Block, x: Tensor) -> Tensor:
    return net.g(Tripled.apply(x))


def _detached(net: Block, x: Tensor) -> Tensor:
    return net.g(x).detach()


@pytest.mark.parametrize("g", [_tripled, _detached])
def test_without_a_true_backward_pass_the_oracle_searches(g: Callable[[Block, Tensor], Tensor]) -> None:
    net = Block().double()

    def residual(x: Tensor) -> Tensor:
        return g(net, x)

    ctx = context(Subject(name="no gradient", event_shape=SHAPE, forward=lambda x: x + residual(x), residual=residual, module=net))
    assert not singular_products.available(ctx)
    worst = search.ascend(ctx, Domain.of(ctx), restarts=1, steps=4)
    assert "differences" in worst.source
    J = context(block()).residual_jacobian(worst.x)
    truth = float(np.linalg.norm(J.matrix[0], 2))
    # both are known to their own errors; the singular value decomposition of d columns adds about du
    assert abs(worst.value - truth) <= worst.error + float(J.error[0]) + D * 2.0**-53 * truth


@pytest.mark.parametrize("residual", [True, False])
def test_copies_of_a_row_give_the_gradients_of_the_whole_graph(residual: bool) -> None:
    ctx = context(block(residual=residual), "gradient.log-det")
    x = ctx.inputs(2)
    chosen = gradient_oracle.sketch(ctx, x)
    copies = gradient_oracle._by_copies(ctx, x, chosen, 3, 1 / 3)
    whole = gradient_oracle._differentiated(ctx, x, chosen, 3, 1.0, True)
    assert copies is not None
    for block_of in range(len(chosen.names)):
        mine, theirs = copies[:, chosen.owner == block_of], whole[:, chosen.owner == block_of]
        # tr((I + J)⁻¹∂J): an inverse by elimination errs by γ_3d·κ (Higham, Theorem 9.3 and eq. 14.20), and κ ≤ (1 + L)/(1 − L)
        assert np.linalg.norm(mine - theirs) <= 2 * gamma(3 * D, 2.0**-53) * (1 + L) / (1 - L) * np.linalg.norm(whole)


def test_rows_that_see_each_other_are_not_copied() -> None:
    net = Block().double()

    def g(x: Tensor) -> Tensor:
        return net.g(x - 0.1 * x.mean(0))

    ctx = context(Subject(name="centred", event_shape=SHAPE, forward=lambda x: x + g(x), residual=g, module=net), "gradient.log-det")
    x = ctx.inputs(2)
    assert gradient_oracle._by_copies(ctx, x, gradient_oracle.sketch(ctx, x), 3, 1.0) is None


def _half(net: Block, x: Tensor) -> Tensor:
    value = net.log_det(x)
    return value.detach() + (value - value.detach()) / 2


def _blind(net: Block, x: Tensor) -> Tensor:
    return net.log_det(x.detach())


@pytest.mark.parametrize(
    ("log_det", "check", "status"),
    [(Block.log_det, "gradient.log-det", "passed"), (Block.log_det, "gradient.log-det-input", "passed"),
     (_half, "gradient.log-det", "failed"), (_blind, "gradient.log-det-input", "failed")],
)
def test_gradients_of_log_dets_are_judged(log_det: Callable[[Block, Tensor], Tensor], check: str, status: str) -> None:
    assert one(block(log_det), check).status == status


def test_double_backward_is_held_against_differences() -> None:
    ctx = context(block(), "gradient.log-det")
    x = ctx.inputs(2)
    chosen, weights = gradient_oracle.sketch(ctx, x), np.array([1.0, -1.7])
    right = weights @ gradient_oracle._per_row(ctx, x, chosen, 3)
    assert gradient_oracle._agrees(ctx, x, weights, chosen, right, 3)
    assert not gradient_oracle._agrees(ctx, x, weights, chosen, 2.0 * right, 3)
    assert not gradient_oracle._agrees(ctx, x, weights, chosen, -right, 3)


def test_batches_shrink_with_the_dimension() -> None:
    assert context(block()).rows == BUDGETS["quick"].rows
    wide = Subject(name="wide", event_shape=(5000,), forward=lambda x: 2 * x)
    assert context(wide).rows == 4
