"""The checks of derivatives: correct ones agree to rounding, each mistake is rejected by the check meant for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from seeds import each_with_seeds
from torch import Tensor

from iresnet_verify import audit
from iresnet_verify.check.result import CheckResult
from iresnet_verify.mutants.gradient.backward import Elementwise, raising
from iresnet_verify.mutants.volume import LOG_DETS, Net, exact, subject
from iresnet_verify.subject.subject import Subject


def one(made: Subject, id: str, *, seed: int = 0) -> CheckResult:
    return audit(made, seed=seed, budget="quick", select=[id]).checks[0]


@each_with_seeds("kind", LOG_DETS)
def test_correct_gradients_pass(kind: str, seed: int) -> None:
    made = subject(kind, d=2 + 3 * seed, seed=seed, density="right" if kind == "exact" else None)
    report = audit(made, seed=seed, budget="quick", select=["gradient"])
    wrong = [(c.id, c.status, c.message) for c in report.checks if c.status != "passed"]
    no_graph = ("gradient.through-inverse", "skipped", "inverse(y) carries no gradient: none is claimed")
    no_density = ("gradient.log-prob", "skipped", "needs log_prob; the subject gives none")
    assert set(wrong) <= {no_graph} | ({no_density} if kind != "exact" else set()), wrong


class AtAKink(torch.nn.Module):
    """x + tanh(Wx)·.9/max(1, ‖w‖), ‖w‖ = 1: a norm at its limit, where the derivatives from both sides differ."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        made = torch.Generator().manual_seed(seed)
        w = torch.randn(4, 4, dtype=torch.float64, generator=made)
        self.w = torch.nn.Parameter(w / w.norm())

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.9 * torch.tanh(x @ self.w.T) / torch.clamp(self.w.norm(), min=1.0)


@pytest.mark.parametrize("seed", range(3))
def test_a_backward_pass_at_a_kink_may_give_either_side(seed: int) -> None:
    net = AtAKink(seed)
    found = one(Subject(name="kink", event_shape=(4,), forward=net, module=net), "gradient.forward", seed=seed)
    assert found.status == "passed", found.message


@pytest.mark.parametrize("seed", range(3))
def test_differences_of_float32_are_as_sharp_as_they_can_be(seed: int) -> None:
    """What differences do not know to a tenth is no pass; here they know it, and what is missing fails."""
    net = Net(64, seed, hidden=64).float()
    made = Subject(name="narrow", event_shape=(64,), forward=net, module=net, dtype="float32", modes=("train",))
    assert one(made, "gradient.forward", seed=seed).status == "passed"
    found = one(replace(made, forward=lambda x: net(x).detach() + 0 * net.shift.sum()), "gradient.forward", seed=seed)
    assert found.status == "failed", found.message


class Scale(torch.nn.Module):
    """x + a·tanh(x), its gradient with respect to a multiplied by `factor`."""

    def __init__(self, seed: int, dtype: torch.dtype, factor: float) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.rand(3, generator=torch.Generator().manual_seed(seed)).to(dtype))
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        a = self.factor * self.a + (1.0 - self.factor) * self.a.detach()
        return x + a * torch.tanh(x)


@pytest.mark.parametrize(("factor", "status"), [(1.0, "passed"), (1.001, "failed")])
@pytest.mark.parametrize("seed", range(4))
def test_a_backward_pass_in_float32_is_judged_by_the_rounding_of_float32(seed: int, factor: float, status: str) -> None:
    """Its differences are those of a float64 copy, a million times sharper; a thousandth too much is still seen."""

    def built(dtype: str | None = None, device: str | None = None) -> Subject:
        net = Scale(seed, getattr(torch, dtype or "float32"), factor)
        return Subject(name="narrow", event_shape=(3,), forward=net, module=net, dtype=dtype or "float32", fresh=built)

    found = one(built(), "gradient.forward", seed=seed)
    assert found.status == status, found.message


def test_the_rows_of_a_comparison_grow_with_the_budget() -> None:
    rows = {b: audit(subject(d=2), budget=b, select=["gradient.log-det"]).checks[0].evidence["rows"] for b in ("quick", "standard")}
    assert rows == {"quick": 4, "standard": 8}


@pytest.mark.parametrize("far", [torch.nn.functional.softplus, torch.tanh, torch.nn.functional.elu, torch.sigmoid])
@pytest.mark.parametrize("seed", range(2))
def test_honest_activations_have_derivatives_at_every_magnitude(far: Any, seed: int) -> None:
    net = Elementwise(seed, far, torch.sigmoid)
    made = Subject(name="elementwise", event_shape=(3,), forward=net, module=net, log_det=net.log_det if far is not torch.tanh else None)
    assert one(made, "gradient.far-inputs", seed=seed).status == "passed"


class Kinked(torch.nn.Module):
    """Leaky ReLU, all kinks at the origin, its backward pass off by `wrong` within .01 of it."""

    def __init__(self, wrong: float) -> None:
        super().__init__()
        self.wrong = wrong

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bump = self.wrong * x * torch.exp(-((x / 0.01) ** 2))
        return torch.nn.functional.leaky_relu(x, 0.7) + bump - bump.detach()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("wrong", "status"), [(0.0, "passed"), (0.5, "failed")])
@pytest.mark.parametrize("seed", range(2))
def test_a_kink_at_the_origin_is_no_wrong_derivative(seed: int, wrong: float, status: str, dtype: str) -> None:
    net = Kinked(wrong)
    made = Subject(name="kinked", event_shape=(3,), forward=net, module=net, dtype=dtype)
    found = one(made, "gradient.far-inputs", seed=seed)
    assert found.status == status, found.message


@pytest.mark.parametrize("kind", [AttributeError, ValueError, KeyError])
def test_a_backward_pass_that_raises_is_one_finding_and_no_error(kind: type[Exception]) -> None:
    for where, meant in (("map", {"gradient.forward-input"}), ("log-det", {"gradient.log-det", "gradient.log-det-input"})):
        report = audit(raising(kind, where)(0), budget="quick", select=["gradient", "inverse", "convergence"])
        assert not [c.message for c in report.checks if c.status == "error"]
        assert {c.id for c in report.checks if c.status == "failed"} == meant


def test_a_log_det_without_a_gradient_in_evaluation_is_refused_and_no_pass() -> None:
    net = Net(4, 0)
    made = replace(subject(), module=net, modes=("eval",), log_det=lambda x: exact(net, x).detach())
    found = one(made, "gradient.log-det")
    assert (found.status, found.message.startswith("refused: ")) == ("skipped", True)


class Flow(torch.nn.Module):
    """Two blocks: the gradient of the first goes through the input of the second."""

    def __init__(self, cut: bool = False) -> None:
        super().__init__()
        self.blocks, self.cut = torch.nn.ModuleList([Net(3, 1), Net(3, 2)]), cut

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = torch.zeros(len(x), dtype=x.dtype)
        for block in self.blocks:
            total = total + exact(block, x.detach() if self.cut else x)  # type: ignore[arg-type]
            x = block(x)
        return x, total


def flow(cut: bool) -> Subject:
    net = Flow(cut)
    return Subject(name="flow", event_shape=(3,), forward=net, module=net, modes=("train",))


def test_a_flow_passes_and_one_that_detaches_between_blocks_fails() -> None:
    for id in ("gradient.log-det", "gradient.log-det-input"):
        assert one(flow(False), id).status == "passed"
        assert one(flow(True), id).status == "failed"


class Touching(torch.autograd.Function):
    """A hand-written backward pass that raises when a parameter is frozen, as memory-efficient wrappers do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x + 0.1 * torch.tanh(x @ w.T)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, ...]:
        x, w = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            y = x + 0.1 * torch.tanh(x @ w.T)
            return torch.autograd.grad(y, [x, w], upstream[0])


def test_a_backward_pass_that_breaks_with_frozen_parameters_is_rejected() -> None:
    net = Net(4, 0)
    net.extra, net.weight = (torch.nn.Parameter(torch.eye(4, dtype=torch.float64)) for _ in range(2))
    function: Any = Touching
    made = replace(subject(), forward=lambda x: function.apply(x, net.shift[:4] * torch.eye(4, dtype=x.dtype)), module=net)
    assert one(replace(subject(), module=net), "gradient.frozen-parameters").status == "passed"
    named = [n for n, _ in net.named_parameters()]
    frozen = net.get_parameter(named[1])
    made = replace(made, forward=lambda x: function.apply(x, frozen[:4, :4]))
    found = one(made, "gradient.frozen-parameters")
    assert found.status == "failed", found.message


class Switching(torch.autograd.Function):
    """A hand-written backward pass that switches requires_grad on, to differentiate with respect to everything."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.w = w
        ctx.save_for_backward(x)
        return x + 0.1 * torch.tanh(x @ w[:4, :4].T)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor]:
        (x,) = ctx.saved_tensors
        w = ctx.w.requires_grad_(True)
        with torch.enable_grad():
            y = x.detach().requires_grad_(True)
            x_bar, w_bar = torch.autograd.grad(y + 0.1 * torch.tanh(y @ w[:4, :4].T), [y, w], upstream[0])
        return x_bar, w_bar


def test_a_backward_pass_that_thaws_parameters_and_one_that_raises_its_own_error_are_rejected() -> None:
    net = Net(4, 0)
    named = list(net.named_parameters())
    frozen = next(p for _, p in named[1::2] if p.ndim == 2)
    function: Any = Switching
    found = one(replace(subject(), forward=lambda x: function.apply(x, frozen), module=net), "gradient.frozen-parameters")
    assert (found.status, "changed requires_grad of" in found.message) == ("failed", True), found.message

    def strict(x: Tensor) -> Tensor:
        if not all(p.requires_grad for p in net.parameters()):
            raise ValueError("every parameter must be trained")
        return net(x)

    found = one(replace(subject(), forward=strict, module=net), "gradient.frozen-parameters")
    assert (found.status, "raised ValueError" in found.message) == ("failed", True), found.message


def test_forward_without_a_graph_and_with_a_lost_parameter_is_rejected() -> None:
    net = Net(4, 0)
    assert one(subject(), "gradient.forward").status == "passed"
    assert one(subject(), "gradient.forward-input").status == "passed"
    detached = replace(subject(), module=net, forward=lambda x: net(x).detach(), residual=None)
    assert one(detached, "gradient.forward").status == "failed"
    assert one(detached, "gradient.forward-input").status == "failed"

    def without_last(x: Tensor) -> Tensor:
        return x + torch.tanh(x @ net.first.T + net.shift) @ net.last.detach().T

    lost = replace(subject(), module=net, residual=None, forward=without_last)
    found = one(lost, "gradient.forward")
    assert found.status == "failed", found.message
    assert one(lost, "gradient.forward-input").status == "passed"


def test_parameters_modes_and_gradients_are_left_as_found() -> None:
    made = subject("roulette, gaussian")
    before = {n: p.detach().clone() for n, p in made.module.named_parameters()}
    audit(made, budget="quick", select=["gradient"])
    for name, p in made.module.named_parameters():
        assert torch.equal(p, before[name])
        assert p.grad is None
        assert p.requires_grad


def test_single_precision_in_a_log_det_is_no_mask_that_leaks() -> None:
    class Scaled(torch.nn.Module):
        """x·e^s with the log-det summed in float32, as a mask of type float32 does to a scalar parameter."""

        def __init__(self) -> None:
            super().__init__()
            self.s = torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x * self.s.exp(), (self.s * torch.full_like(x, 1.1).float()).sum(1) / 1.1

    net = Scaled()
    subject = Subject(name="float32 inside", event_shape=(3,), forward=net, module=net)
    for seed in range(5):
        assert one(subject, "gradient.masked-rows", seed=seed).status == "passed"
