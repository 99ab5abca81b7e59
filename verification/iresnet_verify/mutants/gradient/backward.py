"""Mistakes of backward passes that values near the data do not show: far out, at 0, in the density, in float32, exceptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from iresnet_verify.mutants.gradient.derivatives import reweighted
from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.mutants.volume import Net, exact, normal, subject
from iresnet_verify.subject.subject import Subject

D = torch.float64


class Elementwise(nn.Module):
    """x + .5·φ(a·x), a of size 1, with its log-det from φ′."""

    def __init__(self, seed: int, phi: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        made = torch.Generator().manual_seed(seed)
        self.a = nn.Parameter(0.5 + 0.5 * torch.rand(3, dtype=D, generator=made))
        self.phi, self.slope = phi, slope

    def forward(self, x: Tensor) -> Tensor:
        """Return y."""
        return x + 0.5 * self.phi(self.a * x)

    def log_det(self, x: Tensor) -> Tensor:
        """Return the log-det."""
        return torch.log1p(0.5 * self.a * self.slope(self.a * x)).sum(1)


def softplus_by_where(z: Tensor) -> Tensor:
    return torch.where(z > 30.0, z, torch.log1p(torch.exp(z)))


def slope_by_where(z: Tensor) -> Tensor:
    return torch.where(z > 30.0, torch.ones_like(z), torch.exp(z) / (1.0 + torch.exp(z)))


def elu_by_where(z: Tensor) -> Tensor:
    return torch.where(z > 0.0, z, torch.exp(z) - 1.0)


def squared_root(z: Tensor) -> Tensor:
    """z·‖z‖/(1 + ‖z‖), smooth at 0 but for the root."""
    size = z.square().sum(1, keepdim=True).sqrt()
    return z * size / (1.0 + size)


def huber_by_where(z: Tensor) -> Tensor:
    """√(1 + z²) − 1, its square by an exponential where z is small."""
    return torch.where(z.abs() > 1.0, torch.sqrt(1.0 + z * z), torch.sqrt(1.0 + torch.exp(2.0 * torch.log(z.abs())))) - 1.0


def elementwise(
    phi: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor] | None, **changes: Any
) -> Factory:
    """The network of `Elementwise`; without a slope it gives no log-det."""

    def build(seed: int) -> Subject:
        net = Elementwise(seed, phi, slope or torch.sigmoid)
        return Subject(name="elementwise", event_shape=(3,), forward=net, module=net, log_det=net.log_det if slope else None, **changes)

    return build


def density(log_prob: Callable[[Net, Tensor], Tensor]) -> Factory:
    """A network with this log-density, right in its values."""

    def build(seed: int) -> Subject:
        made = subject(seed=seed, d=3, density="right")
        return replace(made, log_prob=lambda x: log_prob(made.module, x), base_log_prob=normal)

    return build


class Raises(torch.autograd.Function):
    """The identity whose backward pass raises."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, kind: type[Exception]) -> Tensor:
        ctx.kind = kind
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        raise ctx.kind("'NoneType' object has no attribute 'grad'")


def raising(kind: type[Exception], where: str) -> Factory:
    """A network whose map, or whose log-det, cannot be differentiated although it says so."""

    def build(seed: int) -> Subject:
        made = subject(seed=seed)
        net, function = made.module, Raises
        apply: Any = function.apply
        if where == "map":
            return replace(made, forward=lambda x: apply(net(x), kind))
        return replace(made, log_det=lambda x: apply(exact(net, x), kind))

    return build


def narrow(cut: Callable[[Net, Tensor], Tensor]) -> Factory:
    """A float32 network in 64 dimensions, where rounding hides half of a derivative from coarse differences."""

    def build(seed: int) -> Subject:
        net = Net(64, seed, hidden=64).float()

        def inverse(y: Tensor) -> Tensor:
            return net.inverse(y)

        return Subject(name="narrow", event_shape=(64,), forward=lambda x: cut(net, x), inverse=inverse, module=net, dtype="float32",
                       modes=("train",))

    return build


def shift_lost(net: Net, x: Tensor) -> Tensor:
    """x + g(x) without a gradient for the shift."""
    return x + torch.tanh(x @ net.first.T + net.shift.detach()) @ net.last.T


MUTANTS = table("gradient", {
    "softplus by where, overflow in the branch not taken": ("gradient.far-inputs", elementwise(softplus_by_where, torch.sigmoid)),
    "slope by where in the log-det": ("gradient.far-inputs", elementwise(nn.functional.softplus, slope_by_where)),
    "ELU by where": ("gradient.far-inputs", elementwise(elu_by_where, None)),
    "root of a square at 0": ("gradient.far-inputs", elementwise(squared_root, None)),
    "logarithm of 0 in the branch taken": ("gradient.far-inputs", elementwise(huber_by_where, None)),
    "log-det detached in the density": ("gradient.log-prob", density(lambda n, x: normal(n(x)) + exact(n, x).detach())),
    "base density detached": ("gradient.log-prob", density(lambda n, x: normal(n(x)).detach() + exact(n, x))),
    "mean weight in the density": ("gradient.log-prob", density(lambda n, x: reweighted(normal(n(x)) + exact(n, x), "mean"))),
    "density without a graph": ("gradient.log-prob", density(lambda n, x: (normal(n(x)) + exact(n, x)).detach())),
    "backward raises AttributeError": ("gradient.forward-input", raising(AttributeError, "map")),
    "backward of the log-det raises ValueError": (
        ("gradient.log-det", "gradient.log-det-input"), raising(ValueError, "log-det")),
    "shift without gradient in float32": ("gradient.forward", narrow(shift_lost)),
    "branch halved in float32": ("gradient.forward", narrow(lambda n, x: x + 0.5 * (n.g(x) + n.g(x).detach()))),
})
