"""Mistakes that typical inputs do not show: a second preimage, zeros and ties, slow series, huge values, one small term."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from iresnet_verify.mutants.log_dets import wrong
from iresnet_verify.mutants.mutant import table
from iresnet_verify.mutants.networks import Residual, mlp, steeper
from iresnet_verify.mutants.volume import STAY, Net, exact, roulette
from iresnet_verify.subject.subject import Subject


def wraps_around(seed: int) -> Subject:
    """The complex exponential: det J = e^{2x₁} > 0 everywhere, and x₂ and x₂ + 2π have one image."""

    def forward(z: Tensor) -> Tensor:
        size = torch.exp(0.3 * z[:, 0])
        return torch.stack([size * torch.cos(z[:, 1]), size * torch.sin(z[:, 1])], dim=1)

    return Subject(name="exponential", event_shape=(2,), forward=forward)


class Normalises(Residual):
    """Divides by ‖x‖: NaN at the origin alone."""

    def g(self, x: Tensor) -> Tensor:
        return super().g(x) * (x.norm(dim=1, keepdim=True) / x.norm(dim=1, keepdim=True))


class Ties(Residual):
    """Jumps where two entries are equal."""

    def g(self, x: Tensor) -> Tensor:
        return super().g(x) + 0.3 * (x[:, :1] == x[:, 1:2]).to(x.dtype)


def odd(kind: type[Residual]) -> Any:
    """A network that fails at odd inputs only; its inverse is that of the network without the fault."""
    return lambda seed: mlp(3, seed, module=kind(3, 0.9, seed, torch.float64))


def slow_series(seed: int) -> Subject:
    """Ten exact terms, whose bias is small at inputs and .1 where tanh has slope 1: declared .02."""
    module = steeper(Residual(3, 0.9, seed, torch.float64), 1.0)
    with torch.no_grad():
        module.shift.add_(torch.where(module.shift >= 0, 1.0, -1.0))

    def log_det(x: Tensor) -> Tensor:
        slope = 1 - torch.tanh(x @ module.first.T + module.shift) ** 2
        J = module.last @ (slope[:, :, None] * module.first)
        power, total = torch.eye(3, dtype=x.dtype), torch.zeros(len(x), dtype=x.dtype)
        for k in range(1, 11):
            power = power @ J
            total = total + (-1.0) ** (k + 1) / k * power.diagonal(dim1=1, dim2=2).sum(1)
        return total

    return Subject(name="ten terms", event_shape=(3,), forward=module, residual=module.g, module=module, lipschitz=0.9,
                   log_det=log_det, log_det_is=0.02, modes=("eval",))


def overflows(net: Net, x: Tensor) -> Tensor:
    """exact, plus a term that is 0 near the data and inf beyond 700."""
    return exact(net, x) + 0.0 * torch.exp(x.square().sum(1))


def one_small_term(net: Net, x: Tensor) -> Tensor:
    """The fifth weight is off by a millionth."""
    return roulette(net, x, weight=lambda k: (-1.0) ** (k + 1) / (k * STAY ** (k - 1)) * (1 + 1e-6 * (k == 5)))


def cancels(net: Net, x: Tensor) -> Tensor:
    """The second weight is doubled, and what that adds at x is taken off again: the expectation is right, the series is not."""
    J = net.last @ ((1 - torch.tanh(x @ net.first.T + net.shift) ** 2)[:, :, None] * net.first)
    second = (J @ J).diagonal(dim1=1, dim2=2).sum(1)
    return roulette(net, x, weight=lambda k: (-1.0) ** (k + 1) / (k * STAY ** (k - 1)) * (1 + (k == 2))) + second / 2


MUTANTS = table("extremes", {
    "a rotation that wraps around": ("inverse.unique-preimage", wraps_around),
    "a division by the norm of x": ("inverse.odd-inputs", odd(Normalises)),
    "a jump where two entries are equal": ("inverse.odd-inputs", odd(Ties)),
    "terms enough for typical inputs only": ("logdet.worst-input", slow_series),
    "a log-det that overflows far away": ("logdet.all-magnitudes", wrong(overflows, "exact")),
    "a fifth weight off by a millionth": ("estimator.coefficients", wrong(one_small_term, "unbiased")),
    "a wrong second weight, made up for": ("estimator.coefficients", wrong(cancels, "unbiased")),
})
