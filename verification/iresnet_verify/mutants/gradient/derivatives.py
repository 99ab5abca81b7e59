"""Mistakes of derivatives: gradients of the log-det and of the map, with respect to parameters and input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from iresnet_verify.mutants.log_dets import wrong
from iresnet_verify.mutants.mutant import table
from iresnet_verify.mutants.volume import STAY, Net, exact, leaf_of, lengths, roulette, subject
from iresnet_verify.subject.subject import Subject


class Reweighted(torch.autograd.Function):
    """The identity whose backward pass uses wrong upstream weights."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, how: str) -> Tensor:
        """Return a copy."""
        ctx.how = how
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        """Return the upstream weights, mistaken."""
        w = upstream[0]
        return {
            "first": w[:1].expand_as(w), "batch": w / len(w), "mean": w.mean(0, keepdim=True).expand_as(w), "ones": torch.ones_like(w),
            "sign": -w, "double": 2 * w,
        }[ctx.how], None


def reweighted(value: Tensor, how: str) -> Tensor:
    """The value, with a mistaken backward pass."""
    function: Any = Reweighted
    return function.apply(value, how)


def half_cut(net: Net, x: Tensor) -> Tensor:
    """The exact value with the gradient of W₂ cut."""
    x = leaf_of(x)
    g = torch.tanh(x @ net.first.T + net.shift) @ net.last.detach().T
    rows = [torch.autograd.grad(c.sum(), x, create_graph=True)[0] for c in g.T]
    return torch.linalg.slogdet(torch.eye(x.shape[1], dtype=x.dtype) + torch.stack(rows, 1))[1]


def first_order(net: Net, x: Tensor) -> Tensor:
    """The exact value with the Jacobian detached from x: the second derivative of the activation is lost."""
    x = leaf_of(x)
    slope = (1 - torch.tanh(x @ net.first.T + net.shift) ** 2).detach()
    J = net.last @ (slope[:, :, None] * net.first)
    return torch.linalg.slogdet(torch.eye(x.shape[1], dtype=x.dtype) + J)[1]


def neumann_off(net: Net, x: Tensor, off: int = 1, sign: float = -1.0) -> Tensor:
    """The Neumann surrogate with each weight one power off, or without its alternating sign."""
    x, n = leaf_of(x), lengths(len(x), "numpy")
    v, g = torch.randn_like(x), net.g(x)
    w = total = v
    for k in range(1, int(n.max()) + 1):
        w = torch.autograd.grad(g, x, w, retain_graph=True)[0]
        total = total + sign**k / STAY ** (k - 1 + off) * torch.where(n[:, None] >= k, w, torch.zeros_like(w))
    return (torch.autograd.grad(g, x, total.detach(), create_graph=True)[0] * v).sum(1)


def forward_with(how: str) -> Any:
    """A network whose map has a mistaken backward pass."""

    def build(seed: int) -> Subject:
        made = subject(seed=seed)
        net = made.module
        return replace(made, forward=lambda x: x + reweighted(net.g(x), how))

    return build


def counted_twice(seed: int) -> Subject:
    """The value and the gradient of x are right; that of one parameter is not."""
    made = subject(seed=seed)
    net = made.module
    return replace(made, forward=lambda x: x + net.g(x) + 0.5 * (net.shift - net.shift.detach()).sum())


class FrozenRaises(Net):
    """A backward pass of its own that insists on a gradient for every parameter."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x + g(x)."""
        y = x + self.g(x)
        if torch.is_grad_enabled() and self.training:
            torch.autograd.grad(y.sum(), list(self.parameters()), retain_graph=True)
        return y


def frozen_raises(seed: int) -> Subject:
    """The network of `FrozenRaises`."""
    net = FrozenRaises(4, seed)
    return replace(subject(seed=seed), forward=net, module=net, residual=net.g, inverse=net.inverse,
                   log_det=lambda x: exact(net, x), inverse_log_det=None)


class Forgetful(torch.autograd.Function):
    """The identity whose backward pass changes what it saved, or frees it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, how: str) -> Tensor:
        ctx.how, ctx.scale = how, 1.0
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        scale = ctx.scale
        if scale is None:
            raise RuntimeError("Trying to backward through the graph a second time")
        ctx.scale = 0.5 * scale if ctx.how == "changes" else None
        return upstream[0] * scale, None


def forgetful(how: str) -> Any:
    """A network whose backward pass works once."""

    def build(seed: int) -> Subject:
        made = subject(seed=seed)
        net = made.module
        function: Any = Forgetful
        return replace(made, forward=lambda x: x + function.apply(net.g(x), how))

    return build


def inverse_with(invert: Any) -> Any:
    """A network with a differentiable inverse."""

    def build(seed: int) -> Subject:
        made = subject(seed=seed)
        net = made.module
        return replace(made, inverse=lambda y: invert(net, y), inverse_log_det=None)

    return build


class Implicit(torch.autograd.Function):
    """The inverse with a hand-written backward pass: (I + J)ᵀ where (I + J)⁻ᵀ belongs."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, net: Net) -> Tensor:
        x = net.inverse(y)
        ctx.net = net
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_(True)
            return torch.autograd.grad(ctx.net(x), x, upstream[0])[0], None


def last_step_only(net: Net, y: Tensor) -> Tensor:
    """The last step of the iteration alone carries a gradient."""
    return y - net.g(net.inverse(y).detach())


def implicit(net: Net, y: Tensor) -> Tensor:
    """The inverse by `Implicit`."""
    function: Any = Implicit
    return function.apply(y, net)


MUTANTS = table("gradient", {
    "detached": ("gradient.log-det", wrong(lambda n, x: exact(n, x).detach() + 0 * n.shift.sum())),
    "cut in one layer": ("gradient.log-det", wrong(half_cut)),
    "second derivative lost": (("gradient.log-det", "gradient.log-det-input"), wrong(first_order)),
    "first row's weight for all": ("gradient.log-det", wrong(lambda n, x: reweighted(exact(n, x), "first"))),
    "mean weight for all": ("gradient.log-det", wrong(lambda n, x: reweighted(exact(n, x), "mean"))),
    "weights ignored": ("gradient.log-det", wrong(lambda n, x: reweighted(exact(n, x), "ones"))),
    "divided by the batch": ("gradient.log-det", wrong(lambda n, x: reweighted(exact(n, x), "batch"))),
    "sign of the gradient": ("gradient.log-det", wrong(lambda n, x: reweighted(exact(n, x), "sign"))),
    "doubled": ("gradient.log-det", wrong(lambda n, x: reweighted(exact(n, x), "double"))),
    "x detached": ("gradient.log-det-input", wrong(lambda n, x: exact(n, x.detach()))),
    "random, first row's weight": ("gradient.log-det", wrong(lambda n, x: reweighted(roulette(n, x), "first"), "unbiased")),
    "Neumann weights off by one": ("gradient.log-det", wrong(neumann_off, "gradient-only")),
    "Neumann without alternating sign": (
        "gradient.log-det", wrong(lambda n, x: neumann_off(n, x, 0, 1.0), "gradient-only")),
    "first row's weight in the map": ("gradient.forward-input", forward_with("first")),
    "a parameter counted again in the backward pass": ("gradient.forward", counted_twice),
    "branch doubled in the backward pass": ("gradient.forward-input", forward_with("double")),
    "backward changes what it saved": ("gradient.repeated-backward", forgetful("changes")),
    "backward frees what it saved": ("gradient.repeated-backward", forgetful("frees")),
    "last step of the inverse alone": ("gradient.through-inverse", inverse_with(last_step_only)),
    "implicit gradient not inverted": ("gradient.through-inverse", inverse_with(implicit)),
    "a frozen parameter raises": ("gradient.frozen-parameters", frozen_raises),
})
