"""Mistakes of a random estimate of the log-determinant: its coefficients, its probes, its lengths, its variance."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from iresnet_verify.mutants.log_dets import wrong
from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.mutants.volume import STAY, LogDet, Net, powers, roulette, series

Weight = Callable[[int], float]


def weighted(weight: Weight, draw: str = "numpy") -> Factory:
    """The roulette with these coefficients in place of (−1)^{k+1}/(k P(N ≥ k))."""
    return wrong(lambda n, x: roulette(n, x, draw=draw, weight=weight), "unbiased")


def unbiased(log_det: LogDet) -> Factory:
    """An estimate that is claimed to be unbiased."""
    return wrong(log_det, "unbiased")


def with_probes(make: Callable[[Tensor], Tensor], terms: int = 40) -> LogDet:
    """The series with these probes."""

    def log_det(net: Net, x: Tensor) -> Tensor:
        total = torch.zeros(len(x), dtype=x.dtype)
        for k, t in enumerate(powers(net, x, make(x), terms)):
            total = total + (-1.0) ** k / (k + 1) * t
        return total

    return log_det


def sum_over_probes(net: Net, x: Tensor) -> Tensor:
    """Two probes, added up instead of averaged."""
    return roulette(net, x) + roulette(net, x)


def thin(net: Net, x: Tensor, stay: float = 0.02) -> Tensor:
    """A geometric law whose continuation probability is below L²."""
    n = torch.tensor(np.random.geometric(1 - stay, size=len(x)))  # noqa: NPY002  as packages draw
    total = torch.zeros(len(x), dtype=x.dtype)
    for k, t in enumerate(powers(net, x, torch.randn_like(x), int(n.max())), start=1):
        total = total + (-1.0) ** (k + 1) / (k * stay ** (k - 1)) * torch.where(n >= k, t, torch.zeros_like(t))
    return total


def poisson(net: Net, x: Tensor, rate: float = 3.0) -> Tensor:
    """Poisson lengths: the variance is infinite for every L."""
    n = torch.tensor(np.random.poisson(rate, size=len(x))) + 1  # noqa: NPY002  as packages draw
    tail = [1.0]
    for i in range(60):
        tail.append(tail[-1] - math.exp(-rate) * rate**i / math.factorial(i))
    total = torch.zeros(len(x), dtype=x.dtype)
    for k, t in enumerate(powers(net, x, torch.randn_like(x), int(n.max())), start=1):
        total = total + (-1.0) ** (k + 1) / (k * max(tail[k - 1], 1e-12)) * torch.where(n >= k, t, torch.zeros_like(t))
    return total


MUTANTS = table("estimator", {
    "every term with sign +": ("estimator.unbiased", weighted(lambda k: 1 / (k * STAY ** (k - 1)))),
    "every sign flipped": ("estimator.unbiased", weighted(lambda k: (-1.0) ** k / (k * STAY ** (k - 1)))),
    "missing 1/k": ("estimator.unbiased", weighted(lambda k: (-1.0) ** (k + 1) / STAY ** (k - 1))),
    "1/(k+1) for 1/k": ("estimator.unbiased", weighted(lambda k: (-1.0) ** (k + 1) / ((k + 1) * STAY ** (k - 1)))),
    "weights off by one": ("estimator.unbiased", weighted(lambda k: (-1.0) ** (k + 1) / (k * STAY**k))),
    "P(N = k) for P(N >= k)": (
        "estimator.unbiased", weighted(lambda k: (-1.0) ** (k + 1) / (k * STAY ** (k - 1) * (1 - STAY)))),
    "continuation and stop exchanged": (
        "estimator.unbiased", weighted(lambda k: (-1.0) ** (k + 1) / (k * (1 - STAY) ** (k - 1)))),
    "weights forgotten": ("estimator.unbiased", weighted(lambda k: (-1.0) ** (k + 1) / k)),
    "even terms dropped": (
        "estimator.unbiased", weighted(lambda k: 0.0 if k % 2 == 0 else 1 / (k * STAY ** (k - 1)))),
    "third term dropped": (
        "estimator.unbiased", weighted(lambda k: 0.0 if k == 3 else (-1.0) ** (k + 1) / (k * STAY ** (k - 1)))),
    "one length per batch, wrong weight": (
        "estimator.unbiased", weighted(lambda k: (-1.0) ** (k + 1) / (k * STAY ** max(k - 2, 0)), "shared")),
    "mean over dimensions": ("estimator.unbiased", unbiased(lambda n, x: roulette(n, x) / x.shape[1])),
    "probes added up, not averaged": ("estimator.unbiased", unbiased(sum_over_probes)),
    "probes of variance 1.21": ("estimator.unbiased", unbiased(lambda n, x: roulette(n, x, scale=1.1))),
    "uniform probes": ("estimator.unbiased", unbiased(with_probes(torch.rand_like))),
    "probes of unit length": (
        "estimator.unbiased", unbiased(with_probes(lambda x: torch.nn.functional.normalize(torch.randn_like(x), dim=1)))),
    "one probe for the whole series but the first": (
        "estimator.unbiased", unbiased(lambda n, x: series(n, x) + 0.02 * torch.randn_like(x).square().mean(1))),
    "bias of a thousandth": ("estimator.unbiased", unbiased(lambda n, x: roulette(n, x) + 1e-3)),
    "series claimed unbiased": ("estimator.unbiased", unbiased(series)),
    "Poisson lengths": ("estimator.variance", unbiased(poisson)),
    "continuation below the square of L": (("estimator.variance", "estimator.unbiased"), unbiased(thin)),
})
