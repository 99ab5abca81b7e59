"""Mistakes that issue trackers report, of base densities and samples. Each address is beside the mutant."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from iresnet_verify.mutants.fresh.networks import of
from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.mutants.unseen.networks import Coupling, D, Network, normal, small_net
from iresnet_verify.mutants.unseen.trackers import DENSITY

FOLLOW = "density.samples-follow-log-prob"


def gaussian(z: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """The log-density of normal events with a mean and a deviation for each component."""
    return normal((z - mean) * torch.exp(-log_deviation)) - log_deviation.expand_as(z).sum(1)


class Learnt(Coupling):
    """A coupling, whose base has a mean and a deviation that are parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.randn(4, dtype=D))
        self.log_deviation = nn.Parameter(0.3 + 0.4 * torch.rand(4, dtype=D))

    def base(self, z: Tensor) -> Tensor:
        """The right one."""
        return gaussian(z, self.mean, self.log_deviation)

    def as_variance(self, z: Tensor) -> Tensor:
        """The logarithm of the deviation is taken for that of the variance."""
        away = (z - self.mean) ** 2 / (2 * torch.exp(self.log_deviation))
        return -(away + 0.5 * self.log_deviation + 0.5 * math.log(2 * math.pi)).sum(1)


class Split(Coupling):
    """The second half of z is normal around what a network says of the first, which is standard normal."""

    def __init__(self) -> None:
        super().__init__()
        self.prior = small_net(2, 4)

    def halves(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both, and mean and log-deviation of the second."""
        a, b = z.chunk(2, 1)
        mean, r = self.prior(a).chunk(2, 1)
        return a, b, mean, torch.tanh(r)

    def base(self, z: Tensor) -> Tensor:
        """The right one."""
        a, b, mean, r = self.halves(z)
        return normal(a) + gaussian(b, mean, r)

    def without_scale(self, z: Tensor) -> Tensor:
        """(b − mean)/deviation is given to the standard normal density, and the deviation forgotten."""
        a, b, mean, r = self.halves(z)
        return normal(a) + normal((b - mean) * torch.exp(-r))


class Deviation(Network):
    """x is divided by a deviation, then coupled; the density subtracts the deviation's logarithm, which the log-det has already."""

    def __init__(self) -> None:
        super().__init__()
        self.coupling = Coupling()
        self.s = nn.Parameter(0.3 + 0.3 * torch.rand(4, dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        return self.coupling(x * torch.exp(-self.s))

    def inverse(self, y: Tensor) -> Tensor:
        return self.coupling.inverse(y) * torch.exp(self.s)

    def log_det(self, x: Tensor) -> Tensor:
        return self.coupling.log_det(x * torch.exp(-self.s)) - self.s.sum()

    def log_prob(self, x: Tensor) -> Tensor:
        return normal(self(x)) + self.log_det(x) - self.s.sum()


class Plane(Network):
    """A flow of the plane: x₀·e^a + b, then x₁·e^{tanh x₀} + x₀²/4."""

    shape = (2,)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.tensor(v, dtype=D)) for v in (0.5, 1.5))

    def forward(self, x: Tensor) -> Tensor:
        u, v = x.reshape(len(x), 2).T
        return torch.stack([u * self.a.exp() + self.b, v * torch.exp(torch.tanh(u)) + u**2 / 4], 1)

    def inverse(self, y: Tensor) -> Tensor:
        u = (y[:, 0] - self.b) * (-self.a).exp()
        return torch.stack([u, (y[:, 1] - u**2 / 4) * torch.exp(-torch.tanh(u))], 1)

    def log_det(self, x: Tensor) -> Tensor:
        return self.a + torch.tanh(x[:, 0])


def density(kind: type[Network], log_prob: Callable[[Any], Callable[[Tensor], Tensor]], base: str = "base") -> Factory:
    """With this log-density, and the network's base."""
    return of(kind, made=lambda n: {"log_prob": log_prob(n), "base_log_prob": getattr(n, base)})


def sampled(draw: Callable[[Plane, int], Tensor]) -> Factory:
    """The plane, with this sampler."""
    def made(net: Plane) -> dict[str, Any]:
        def sample(n: int) -> Tensor:
            with torch.no_grad():
                return draw(net, n)

        return {"sample": sample}

    return of(Plane, made=made)


MUTANTS = table("december", {
    # HIPS/autograd#266
    "a deviation whose logarithm is one": (DENSITY, of(
        Coupling, made=lambda n: {"log_prob": lambda x: gaussian(n(x), torch.zeros(4, dtype=D), torch.ones(4, dtype=D)) + n.log_det(x)})),
    # hill-a/stable-baselines#1059
    "the deviation taken for the variance in the base": (DENSITY, density(Learnt, lambda n: lambda x: n.as_variance(n(x)) + n.log_det(x))),
    # openai/glow#67
    "no deviation in the density of the second half": (DENSITY, density(Split, lambda n: lambda x: n.without_scale(n(x)) + n.log_det(x))),
    # VincentStimper/normalizing-flows#46
    "the second half's density without the first": (DENSITY, density(Split, lambda n: lambda x: normal(n(x)) + n.log_det(x))),
    # open-mmlab/mmpose#1259
    "the deviation counted again in the density": (DENSITY, of(Deviation)),
    # rachtsingh/ibp_vae#3
    "samples of the variance for the deviation": (FOLLOW, sampled(
        lambda net, n: net.inverse(torch.randn(n, 2, dtype=D) * torch.tensor([1.0, 0.5], dtype=D) ** 2))),
    # kazewong/flowMC#18
    "samples with their components exchanged": (FOLLOW, sampled(lambda net, n: net.inverse(torch.randn(n, 2, dtype=D)).flip(1))),
})
