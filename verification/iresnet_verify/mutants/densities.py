"""Mistakes of densities and samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.mutants.volume import Net, exact, normal, subject
from iresnet_verify.subject.subject import Subject

CHANGE, TOTAL = "density.change-of-variables", "density.integrates-to-one"
FOLLOW = "density.samples-follow-log-prob"


def density(log_prob: Callable[[Net, Tensor], Tensor], d: int = 2, *, base: bool = True) -> Factory:
    """A network with this log-density; without `base` nothing says what it should be but its integral."""

    def build(seed: int) -> Subject:
        made = subject(seed=seed, d=d, density="right")
        net: Any = made.module
        return replace(made, log_prob=lambda x: log_prob(net, x), base_log_prob=normal if base else None)

    return build


def samples(draw: Callable[[Net, int], Tensor]) -> Factory:
    """A network with this sampler."""

    def build(seed: int) -> Subject:
        made = subject(seed=seed, d=4, density="right")
        net: Any = made.module
        return replace(made, sample=lambda n: draw(net, n))

    return build


def noise(n: int, d: int = 4) -> Tensor:
    """Standard normal rows."""
    return torch.randn(n, d, dtype=torch.float64)


MUTANTS = table("density", {
    "log-det subtracted": (CHANGE, density(lambda n, x: normal(n(x)) - exact(n, x))),
    "log-det forgotten": (CHANGE, density(lambda n, x: normal(n(x)))),
    "base density at x": (CHANGE, density(lambda n, x: normal(x) + exact(n, x))),
    "one dimension too few in the base": (
        CHANGE, density(lambda n, x: normal(n(x)) + exact(n, x) + 0.5 * math.log(2 * math.pi))),
    "in bits": (CHANGE, density(lambda n, x: (normal(n(x)) + exact(n, x)) / math.log(2))),
    "bits per dimension off by log 2": (
        CHANGE, density(lambda n, x: normal(n(x)) + exact(n, x) - x.shape[1] * math.log(2))),
    "not normalised, d=1": (TOTAL, density(lambda n, x: normal(n(x)) + exact(n, x) + 0.25, d=1, base=False)),
    "not normalised, d=2": (TOTAL, density(lambda n, x: normal(n(x)) + exact(n, x) - 0.25, d=2, base=False)),
    "temperature .8": (FOLLOW, samples(lambda net, n: net.inverse(0.8 * noise(n)))),
    "samples not inverted": (FOLLOW, samples(lambda net, n: noise(n) * 0.5)),
    "samples too far out": (FOLLOW, samples(lambda net, n: net.inverse(1.5 * noise(n)))),
    "constant samples": ("density.samples", samples(lambda net, n: torch.zeros(n, 4, dtype=torch.float64))),
    "samples are not numbers": (
        "density.samples", samples(lambda net, n: torch.full((n, 4), math.nan, dtype=torch.float64))),
})
