"""A small residual network with a correct log-det of each kind: what the mutants of volume start from.

F = id + W₂ tanh(W₁x + b₁) with ‖W₂‖‖W₁‖ = L set by an SVD; the log-det is exact, a series, a roulette or a Neumann
surrogate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from iresnet_verify.subject.subject import Subject

L = 0.8
STAY = 0.75
"""Continuation probability of the geometric lengths: above L², so that the variance is finite for every x."""
TERMS = 12


class Net(nn.Module):
    """x + g(x)."""

    def __init__(self, d: int, seed: int, hidden: int = 12) -> None:
        super().__init__()
        made = torch.Generator().manual_seed(seed)
        first, last = (torch.randn(s, generator=made, dtype=torch.float64) for s in ((hidden, d), (d, hidden)))
        self.first = nn.Parameter(first * (L**0.5 / torch.linalg.matrix_norm(first, 2)))
        self.last = nn.Parameter(last * (L**0.5 / torch.linalg.matrix_norm(last, 2)))
        self.shift = nn.Parameter(0.5 * torch.randn(hidden, generator=made, dtype=torch.float64))

    def g(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.first.T + self.shift) @ self.last.T

    def forward(self, x: Tensor) -> Tensor:
        return x + self.g(x)

    def inverse(self, y: Tensor) -> Tensor:
        x = y.clone()
        with torch.no_grad():
            for _ in range(250):
                x = y - self.g(x)
        return x


def leaf_of(x: Tensor) -> Tensor:
    return x if x.requires_grad else x.detach().clone().requires_grad_(True)


def exact(net: Net, x: Tensor) -> Tensor:
    x = leaf_of(x)
    g = net.g(x)
    rows = [torch.autograd.grad(c.sum(), x, create_graph=True)[0] for c in g.T]
    return torch.linalg.slogdet(torch.eye(x.shape[1], dtype=x.dtype) + torch.stack(rows, 1))[1]


def powers(net: Net, x: Tensor, v: Tensor, terms: int) -> list[Tensor]:
    """vᵀJᵏv for k = 1..terms, differentiable."""
    x = leaf_of(x)
    g, w, found = net.g(x), v, []
    for _ in range(terms):
        w = torch.autograd.grad(g, x, w, create_graph=True)[0]
        found.append((w * v).sum(1))
    return found


def probe(x: Tensor, how: str) -> Tensor:
    if how == "gaussian":
        return torch.randn_like(x)
    if how == "sign":
        return torch.randn(x.shape, dtype=x.dtype).sign()
    if how == "randint":
        return torch.randint(0, 2, x.shape).to(x) * 2 - 1
    return torch.tensor(np.random.choice([-1.0, 1.0], size=tuple(x.shape)))  # noqa: NPY002 - as packages draw


def lengths(batch: int, how: str) -> Tensor:
    if how == "torch":
        law: Any = torch.distributions.Geometric(probs=1 - STAY)
        return law.sample((batch,)) + 1
    if how == "shared":
        return torch.full((batch,), float(np.random.geometric(1 - STAY)))  # noqa: NPY002
    return torch.tensor(np.random.geometric(1 - STAY, size=batch))  # noqa: NPY002


def series(net: Net, x: Tensor, how: str = "gaussian") -> Tensor:
    terms = powers(net, x, probe(x, how), TERMS)
    return sum(((-1.0) ** k / (k + 1) * t for k, t in enumerate(terms)), torch.zeros(len(x), dtype=x.dtype))


def roulette(
    net: Net, x: Tensor, how: str = "gaussian", draw: str = "numpy",
    weight: Callable[[int], float] = lambda k: (-1.0) ** (k + 1) / (k * STAY ** (k - 1)), scale: float = 1.0,
) -> Tensor:
    """Σ_{k≤N} weight(k) vᵀJᵏv."""
    n, v = lengths(len(x), draw), scale * probe(x, how)
    total = torch.zeros(len(x), dtype=x.dtype)
    for k, t in enumerate(powers(net, x, v, int(n.max())), start=1):
        total = total + weight(k) * torch.where(n >= k, t, torch.zeros_like(t))
    return total


def neumann(net: Net, x: Tensor) -> Tensor:
    """A value whose gradient in expectation is the log-det's: tr(J(I+J)⁻¹) with the Neumann series detached."""
    x, n = leaf_of(x), lengths(len(x), "numpy")
    v, g = torch.randn_like(x), net.g(x)
    w = total = v
    for k in range(1, int(n.max()) + 1):
        w = torch.autograd.grad(g, x, w, retain_graph=True)[0]
        total = total + (-1.0) ** k / STAY ** (k - 1) * torch.where(n[:, None] >= k, w, torch.zeros_like(w))
    return (torch.autograd.grad(g, x, total.detach(), create_graph=True)[0] * v).sum(1)


def bound(d: int, terms: int = TERMS) -> float:
    return -d * (math.log(1 - L) + sum(L**k / k for k in range(1, terms + 1)))


LogDet = Callable[[Net, Tensor], Tensor]
LOG_DETS: dict[str, tuple[LogDet, Any]] = {
    "exact": (exact, "exact"),
    "series": (series, bound(4)),
    "roulette, gaussian": (roulette, "unbiased"),
    "roulette, sign": (lambda n, x: roulette(n, x, "sign", "torch"), "unbiased"),
    "roulette, randint": (lambda n, x: roulette(n, x, "randint"), "unbiased"),
    "roulette, numpy signs": (lambda n, x: roulette(n, x, "numpy"), "unbiased"),
    "roulette, shared length": (lambda n, x: roulette(n, x, "gaussian", "shared"), "unbiased"),
    "neumann": (neumann, "gradient-only"),
}


def normal(z: Tensor) -> Tensor:
    return -0.5 * (z * z).sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)


def subject(
    kind: str = "exact", *, d: int = 4, seed: int = 0, density: str | None = None, inverse_at: str = "x",
    log_det: LogDet | None = None, claim: Any = None,
) -> Subject:
    """One subject of a kind of `LOG_DETS`, or with that log-det and claim.

    `density`: None, "right", or a mistake of "sign", "missing", "constant"; `inverse_at`: "x", or "y" for that mistake.
    """
    net = Net(d, seed)
    value, claimed = LOG_DETS[kind]
    if log_det is not None:
        value, claimed = log_det, claim
    elif kind == "series":
        claimed = bound(d)
    factor = {"sign": -1.0, "missing": 0.0}.get(density or "", 1.0)
    extra: dict[str, Any] = {}
    if density is not None:
        shift = 0.25 if density == "constant" else 0.0
        extra = {"log_prob": lambda x: normal(net(x)) + factor * value(net, x) + shift, "base_log_prob": normal,
                 "sample": lambda n: net.inverse(torch.randn(n, d, dtype=torch.float64))}
    return Subject(
        name=kind, event_shape=(d,), forward=net, inverse=net.inverse, residual=net.g, module=net, lipschitz=L,
        log_det=lambda x: value(net, x), log_det_is=claimed, inverse_tolerance=1e-12,
        inverse_log_det=lambda y: -value(net, net.inverse(y) if inverse_at == "x" else y), modes=("train",), **extra,
    )
