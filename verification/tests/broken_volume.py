"""Small residual networks for the tests of the checks of volume: correct log-dets of each kind, and each mistake once.

F = id + W₂ tanh(W₁x + b₁) with ‖W₂‖‖W₁‖ = L set by an SVD. `subject(kind, mistake)` gives one log-det (exact, series,
roulette, neumann) with at most one mistake; `MISTAKES` says which check must reject it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from iresnet_verify import Subject

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


class Reweighted(torch.autograd.Function):
    """The identity whose backward pass uses wrong upstream weights."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, how: str) -> Tensor:
        ctx.how = how
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        w = upstream[0]
        return (w[:1].expand_as(w) if ctx.how == "first" else w / len(w)), None


def reweighted(value: Tensor, how: str) -> Tensor:
    function: Any = Reweighted
    return function.apply(value, how)


def half_cut(net: Net, x: Tensor) -> Tensor:
    """The exact value with the gradient of W₂ cut."""
    x = leaf_of(x)
    g = torch.tanh(x @ net.first.T + net.shift) @ net.last.detach().T
    rows = [torch.autograd.grad(c.sum(), x, create_graph=True)[0] for c in g.T]
    return torch.linalg.slogdet(torch.eye(x.shape[1], dtype=x.dtype) + torch.stack(rows, 1))[1]


def surrogate(net: Net, x: Tensor) -> Tensor:
    x = leaf_of(x)
    g = net.g(x)
    J = torch.stack([torch.autograd.grad(c.sum(), x, create_graph=True)[0] for c in g.T], 1)
    return torch.linalg.solve(torch.eye(x.shape[1], dtype=x.dtype) + J, J).diagonal(dim1=1, dim2=2).sum(1)


def bound(d: int, terms: int = TERMS) -> float:
    return -d * (math.log(1 - L) + sum(L**k / k for k in range(1, terms + 1)))


def series_exact(net: Net, x: Tensor, terms: int) -> Tensor:
    """The truncated series with exact traces: deterministic."""
    d = x.shape[1]
    total = torch.zeros(len(x), dtype=x.dtype)
    for e in torch.eye(d, dtype=x.dtype):
        for k, t in enumerate(powers(net, x, e.expand_as(x), terms)):
            total = total + (-1.0) ** k / (k + 1) * t
    return total


def neumann_off(net: Net, x: Tensor) -> Tensor:
    x, n = leaf_of(x), lengths(len(x), "numpy")
    v, g = torch.randn_like(x), net.g(x)
    w = total = v
    for k in range(1, int(n.max()) + 1):
        w = torch.autograd.grad(g, x, w, retain_graph=True)[0]
        total = total + (-1.0) ** k / STAY**k * torch.where(n[:, None] >= k, w, torch.zeros_like(w))
    return (torch.autograd.grad(g, x, total.detach(), create_graph=True)[0] * v).sum(1)


def poisson(net: Net, x: Tensor, rate: float = 3.0) -> Tensor:
    n = torch.tensor(np.random.poisson(rate, size=len(x))) + 1  # noqa: NPY002
    tail = [1.0]
    for i in range(60):
        tail.append(tail[-1] - math.exp(-rate) * rate**i / math.factorial(i))
    total = torch.zeros(len(x), dtype=x.dtype)
    for k, t in enumerate(powers(net, x, torch.randn_like(x), int(n.max())), start=1):
        total = total + (-1.0) ** (k + 1) / (k * max(tail[k - 1], 1e-12)) * torch.where(n >= k, t, torch.zeros_like(t))
    return total


LOG_DETS: dict[str, tuple[Callable[[Net, Tensor], Tensor], Any]] = {
    "exact": (exact, "exact"),
    "series": (series, bound(4)),
    "roulette, gaussian": (roulette, "unbiased"),
    "roulette, sign": (lambda n, x: roulette(n, x, "sign", "torch"), "unbiased"),
    "roulette, randint": (lambda n, x: roulette(n, x, "randint"), "unbiased"),
    "roulette, numpy signs": (lambda n, x: roulette(n, x, "numpy"), "unbiased"),
    "roulette, shared length": (lambda n, x: roulette(n, x, "gaussian", "shared"), "unbiased"),
    "neumann": (neumann, "gradient-only"),
}

MISTAKES: dict[str, tuple[Callable[[Net, Tensor], Tensor], Any, str]] = {
    "all terms with sign +": (lambda n, x: roulette(n, x, weight=lambda k: 1 / (k * STAY ** (k - 1))), "unbiased", "estimator.unbiased"),
    "missing 1/k": (lambda n, x: roulette(n, x, weight=lambda k: (-1.0) ** (k + 1) / STAY ** (k - 1)), "unbiased", "estimator.unbiased"),
    "weights off by one": (
        lambda n, x: roulette(n, x, weight=lambda k: (-1.0) ** (k + 1) / (k * STAY**k)), "unbiased", "estimator.unbiased"),
    "weights forgotten": (lambda n, x: roulette(n, x, weight=lambda k: (-1.0) ** (k + 1) / k), "unbiased", "estimator.unbiased"),
    "one length per batch, wrong weight": (
        lambda n, x: roulette(n, x, draw="shared", weight=lambda k: (-1.0) ** (k + 1) / (k * STAY ** max(k - 2, 0))),
        "unbiased", "estimator.unbiased"),
    "mean over d": (lambda n, x: roulette(n, x) / x.shape[1], "unbiased", "estimator.unbiased"),
    "probes not normalised": (lambda n, x: roulette(n, x, scale=1.1), "unbiased", "estimator.unbiased"),
    "uniform probes": (
        lambda n, x: sum(((-1.0) ** k / (k + 1) * t for k, t in enumerate(powers(n, x, torch.rand_like(x), 40))), torch.zeros(len(x))),
        "unbiased", "estimator.unbiased"),
    "bias of 1e-3": (lambda n, x: roulette(n, x) + 1e-3, "unbiased", "estimator.unbiased"),
    "series claimed unbiased": (series, "unbiased", "estimator.unbiased"),
    "series claimed exact": (lambda n, x: series_exact(n, x, 6), "exact", "logdet.matches-determinant"),
    "bias larger than declared": (lambda n, x: series_exact(n, x, 2), 1e-6, "logdet.matches-determinant"),
    "float32 inside float64": (lambda n, x: exact(n, x).float().double(), "exact", "logdet.matches-determinant"),
    "surrogate under the log-det's name": (surrogate, "exact", "logdet.matches-determinant"),
    "constant log-det": (lambda n, x: exact(n, x)[:1].expand(len(x)), "exact", "logdet.depends-on-input"),
    "scaled beyond the bounds": (lambda n, x: 60 * exact(n, x), "exact", "logdet.within-bounds"),
    "not a number": (lambda n, x: exact(n, x).log(), "exact", "logdet.within-bounds"),
    "detached": (lambda n, x: exact(n, x).detach() + 0 * n.shift.sum(), "exact", "gradient.log-det"),
    "gradient cut in one layer": (half_cut, "exact", "gradient.log-det"),
    "first row's weight for all": (lambda n, x: reweighted(exact(n, x), "first"), "exact", "gradient.log-det"),
    "divided by the batch": (lambda n, x: reweighted(exact(n, x), "batch"), "exact", "gradient.log-det"),
    "x detached": (lambda n, x: exact(n, x.detach()), "exact", "gradient.log-det-input"),
    "random, first row's weight": (lambda n, x: reweighted(roulette(n, x), "first"), "unbiased", "gradient.log-det"),
    "neumann, weights off by one": (neumann_off, "gradient-only", "gradient.log-det"),
    "Poisson lengths": (poisson, "unbiased", "estimator.variance"),
}


def normal(z: Tensor) -> Tensor:
    return -0.5 * (z * z).sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)


def subject(
    kind: str = "exact", mistake: str | None = None, *, d: int = 4, seed: int = 0, density: str | None = None,
    inverse_at: str = "x",
) -> Subject:
    """One subject. `density`: None, "right", "sign", "missing", "constant"; `inverse_at`: "x", or "y" for that mistake."""
    net = Net(d, seed)
    log_det, claim = LOG_DETS[kind] if mistake is None else MISTAKES[mistake][:2]
    if kind == "series" and mistake is None:
        claim = bound(d)
    claimed = {"sign": -1.0, "missing": 0.0}.get(density or "", 1.0)
    extra: dict[str, Any] = {}
    if density is not None:
        shift = 0.25 if density == "constant" else 0.0
        extra = {"log_prob": lambda x: normal(net(x)) + claimed * log_det(net, x) + shift, "base_log_prob": normal,
                 "sample": lambda n: net.inverse(torch.randn(n, d, dtype=torch.float64))}
    return Subject(
        name=mistake or kind, event_shape=(d,), forward=net, inverse=net.inverse, residual=net.g, module=net, lipschitz=L,
        log_det=lambda x: log_det(net, x), log_det_is=claim, inverse_tolerance=1e-12,
        inverse_log_det=lambda y: -log_det(net, net.inverse(y) if inverse_at == "x" else y), modes=("train",), **extra,
    )
