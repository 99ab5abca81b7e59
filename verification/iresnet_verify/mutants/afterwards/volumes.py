"""Log-dets, estimates, gradients and densities with one mistake each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from iresnet_verify.mutants.densities import density
from iresnet_verify.mutants.estimates import unbiased, weighted
from iresnet_verify.mutants.gradient.derivatives import forward_with, inverse_with, reweighted
from iresnet_verify.mutants.log_dets import jacobian, series_exact, wrong
from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.mutants.volume import STAY, Net, exact, leaf_of, normal, powers, roulette, subject
from iresnet_verify.subject.subject import Subject

VALUE, MEAN, INVERSE = "logdet.matches-determinant", "estimator.unbiased", "logdet.of-the-inverse"
THETA, X, BACK = "gradient.log-det", "gradient.forward-input", "gradient.through-inverse"
CHANGE = "density.change-of-variables"


def eye(x: Tensor) -> Tensor:
    """I."""
    return torch.eye(x.shape[1], dtype=x.dtype)


def traces(net: Net, x: Tensor, weight: Callable[[int], float], terms: int = 60) -> Tensor:
    """Σ weight(k) tr Jᵏ."""
    total = torch.zeros(len(x), dtype=x.dtype)
    for e in eye(x):
        for k, t in enumerate(powers(net, x, e.expand_as(x), terms), start=1):
            total = total + weight(k) * t
    return total


def right(k: int) -> float:
    """(−1)^{k+1}/(k P(N ≥ k))."""
    return (-1.0) ** (k + 1) / (k * STAY ** (k - 1))


def of_inverse(value: Callable[[Net, Tensor], Tensor]) -> Factory:
    """A network with this log-det of its inverse."""

    def build(seed: int) -> Subject:
        net = Net(4, seed)
        return replace(subject(seed=seed), inverse_log_det=lambda y: value(net, y))

    return build


def cut(net: Net, x: Tensor, name: str) -> Tensor:
    """The exact log-det through a copy of one parameter that carries no gradient."""
    x = leaf_of(x)
    p = {n: v.detach() if n == name else v for n, v in net.named_parameters()}
    g = torch.tanh(x @ p["first"].T + p["shift"]) @ p["last"].T
    rows = [torch.autograd.grad(c.sum(), x, create_graph=True)[0] for c in g.T]
    return torch.linalg.slogdet(eye(x) + torch.stack(rows, 1))[1]


class Upstream(torch.autograd.Function):
    """The identity whose backward pass changes the upstream weights."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Return a copy."""
        ctx.change = change
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        """Return what the mistake makes of them."""
        return ctx.change(upstream[0]), None


def changed(change: Callable[[Tensor], Tensor]) -> Callable[[Net, Tensor], Tensor]:
    """The exact value with these upstream weights."""
    function: Any = Upstream
    return lambda net, x: function.apply(exact(net, x), change)


def map_with(branch: Callable[[Net, Tensor], Tensor]) -> Factory:
    """The map with another backward pass through its branch."""

    def build(seed: int) -> Subject:
        made = subject(seed=seed)
        net: Any = made.module
        return replace(made, forward=lambda x: x + branch(net, x))

    return build


def undeclared(sign: float) -> Factory:
    """A roulette that is declared exact."""

    def build(seed: int) -> Subject:
        made = subject("roulette, sign", seed=seed)
        net: Any = made.module
        return replace(made, log_det_is="exact", inverse_log_det=None, log_det=lambda x: sign * roulette(net, x, "sign", "torch"))

    return build


MUTANTS = table("afterwards", {
    "twice the log-det": (VALUE, wrong(lambda n, x: 2 * exact(n, x))),
    "half of the log-det": (VALUE, wrong(lambda n, x: exact(n, x) / 2)),
    "one per cent too much": (VALUE, wrong(lambda n, x: 1.01 * exact(n, x))),
    "decimal logarithm": (VALUE, wrong(lambda n, x: exact(n, x) / math.log(10))),
    "I minus J": (VALUE, wrong(lambda n, x: torch.linalg.slogdet(eye(x) - jacobian(n, x))[1])),
    "three terms": (VALUE, wrong(lambda n, x: series_exact(n, x, 3))),
    "eleven terms": (VALUE, wrong(lambda n, x: series_exact(n, x, 11))),
    "odd terms alone": (VALUE, wrong(lambda n, x: traces(n, x, lambda k: (k % 2) / k))),
    "second term left out": (VALUE, wrong(lambda n, x: traces(n, x, lambda k: (k != 2) * (-1.0) ** (k + 1) / k))),
    "divided by k plus 1": (VALUE, wrong(lambda n, x: traces(n, x, lambda k: (-1.0) ** (k + 1) / (k + 1)))),
    "divided by k squared": (VALUE, wrong(lambda n, x: traces(n, x, lambda k: (-1.0) ** (k + 1) / k**2))),
    "series without 1/k": (VALUE, wrong(lambda n, x: traces(n, x, lambda k: (-1.0) ** (k + 1)))),
    "series without signs": (VALUE, wrong(lambda n, x: traces(n, x, lambda k: 1.0 / k))),
    "a thousandth inside the logarithm": (VALUE, wrong(lambda n, x: torch.log(exact(n, x).exp() + 1e-3))),
    "half a nat too much": (VALUE, wrong(lambda n, x: exact(n, x) + 0.5)),
    "rows backwards": (VALUE, wrong(lambda n, x: exact(n, x).flip(0))),
    "mean over the batch": (VALUE, wrong(lambda n, x: exact(n, x).mean().expand(len(x)))),
    "last row for all": (VALUE, wrong(lambda n, x: exact(n, x)[-1:].expand(len(x)))),
    "nothing": (VALUE, wrong(lambda n, x: 0.0 * exact(n, x))),
    "rounded to half precision": (VALUE, wrong(lambda n, x: exact(n, x).half().double())),
    "Jacobian in float32": (VALUE, wrong(lambda n, x: torch.linalg.slogdet(eye(x) + jacobian(n, x).float().double())[1])),
    "at the origin": (VALUE, wrong(lambda n, x: exact(n, 0.0 * x))),
    "at the preimage": (VALUE, wrong(lambda n, x: exact(n, n.inverse(x)))),
    "the determinant itself": (VALUE, wrong(lambda n, x: exact(n, x).exp())),
    "absolute value of the log-det": (VALUE, wrong(lambda n, x: exact(n, x).abs() + 1e-3 * (exact(n, x) > 0))),
    "inverse: half of it": (INVERSE, of_inverse(lambda n, y: -exact(n, n.inverse(y)) / 2)),
    "inverse: nothing": (INVERSE, of_inverse(lambda n, y: 0.0 * y.sum(1))),
    "three probes added up": (MEAN, unbiased(lambda n, x: roulette(n, x) + roulette(n, x) + roulette(n, x))),
    "weights one earlier": (MEAN, weighted(lambda k: (-1.0) ** (k + 1) / (k * STAY ** max(k - 2, 0)))),
    "second term never drawn": (MEAN, weighted(lambda k: (k != 2) * right(k))),
    "even terms alone": (MEAN, weighted(lambda k: (k % 2 == 0) * right(k))),
    "third weight doubled": (MEAN, weighted(lambda k: (1 + (k == 3)) * right(k))),
    "probes of half the size": (MEAN, unbiased(lambda n, x: roulette(n, x, scale=0.5))),
    "random series without signs": (MEAN, unbiased(lambda n, x: roulette(n, x, "sign", "torch", weight=lambda k: abs(right(k))))),
    "a hundredth too much": (MEAN, unbiased(lambda n, x: roulette(n, x) + 0.01)),
    "random, at F of x": (MEAN, unbiased(lambda n, x: roulette(n, n(x)))),
    "random, 1/k squared": (MEAN, weighted(lambda k: right(k) / k)),
    "random, times k": (MEAN, weighted(lambda k: right(k) * k)),
    "estimate not declared": ("hygiene.exact-log-det-not-random", undeclared(1.0)),
    "estimate not declared, and its sign": ("hygiene.exact-log-det-not-random", undeclared(-1.0)),
    "three times the gradient": (THETA, wrong(changed(lambda w: 3 * w))),
    "last row's weight for all": (THETA, wrong(changed(lambda w: w[-1:].expand_as(w)))),
    "sum of the weights for every row": (THETA, wrong(changed(lambda w: w.sum().expand_as(w)))),
    "gradient of the first row's weight": (THETA, wrong(lambda n, x: reweighted(exact(n, x), "first"))),
    "first layer detached": (THETA, wrong(lambda n, x: cut(n, x, "first"))),
    "bias detached": (THETA, wrong(lambda n, x: cut(n, x, "shift"))),
    "no gradient": (THETA, wrong(lambda n, x: exact(n, x).detach() + 0 * n.first.sum())),
    "mean weight in the map": (X, forward_with("mean")),
    "sign of the branch's gradient": (X, forward_with("sign")),
    "branch detached": (X, map_with(lambda n, x: n.g(x).detach())),
    "half of the branch's gradient": (X, map_with(lambda n, x: 0.5 * n.g(x) + 0.5 * n.g(x).detach())),
    "no gradient through the inverse": (BACK, inverse_with(lambda n, y: n.inverse(y) + 0.0 * y)),
    "half of the log-det in the density": (CHANGE, density(lambda n, x: normal(n(x)) + exact(n, x) / 2)),
    "density per dimension": (CHANGE, density(lambda n, x: (normal(n(x)) + exact(n, x)) / 2)),
    "density of 256 levels": (CHANGE, density(lambda n, x: normal(n(x)) + exact(n, x) - 2 * math.log(256))),
    "negative log-density": (CHANGE, density(lambda n, x: -normal(n(x)) - exact(n, x))),
    "base at x and no log-det": (CHANGE, density(lambda n, x: normal(x))),
})
