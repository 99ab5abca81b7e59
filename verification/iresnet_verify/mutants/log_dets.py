"""Mistakes of a deterministic log-determinant, and of that of the inverse."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.mutants.volume import LogDet, Net, exact, leaf_of, powers, series, subject
from iresnet_verify.subject.subject import Subject


def jacobian(net: Net, x: Tensor) -> Tensor:
    """J_g(x) by autograd, (batch, d, d), differentiable."""
    x = leaf_of(x)
    g = net.g(x)
    return torch.stack([torch.autograd.grad(c.sum(), x, create_graph=True)[0] for c in g.T], 1)


def surrogate(net: Net, x: Tensor) -> Tensor:
    """tr(J(I+J)⁻¹): the value of the Neumann surrogate, whose gradient alone is right."""
    J = jacobian(net, x)
    return torch.linalg.solve(torch.eye(x.shape[1], dtype=x.dtype) + J, J).diagonal(dim1=1, dim2=2).sum(1)


def series_exact(net: Net, x: Tensor, terms: int, first_sign: float = 1.0) -> Tensor:
    """The truncated series with exact traces: deterministic."""
    total = torch.zeros(len(x), dtype=x.dtype)
    for e in torch.eye(x.shape[1], dtype=x.dtype):
        for k, t in enumerate(powers(net, x, e.expand_as(x), terms)):
            total = total + first_sign * (-1.0) ** k / (k + 1) * t
    return total


def without_skip(net: Net, x: Tensor) -> Tensor:
    """log|det J_g|: the identity is forgotten."""
    return torch.linalg.slogdet(jacobian(net, x))[1]


def diagonal_only(net: Net, x: Tensor) -> Tensor:
    """Σ log|1 + J_ii|, as for an element-wise map."""
    return torch.log1p(jacobian(net, x).diagonal(dim1=1, dim2=2)).sum(1)


def one_layer(net: Net, x: Tensor) -> Tensor:
    """The slopes of the activation are left out: J = W₂W₁."""
    J = net.last @ net.first
    return torch.linalg.slogdet(torch.eye(x.shape[1], dtype=x.dtype) + J)[1] + 0 * x.sum(1)


def wrong(log_det: LogDet, claim: object = "exact") -> Factory:
    """The factory of a network with this log-det."""
    return lambda seed: subject(seed=seed, d=3 + seed % 2, log_det=log_det, claim=claim)


def of_inverse_without_minus(seed: int) -> Subject:
    """log det F⁻¹ with the sign of log det F."""
    net = Net(4, seed)
    return replace(subject(seed=seed), inverse_log_det=lambda y: exact(net, net.inverse(y)))


MUTANTS = table("logdet", {
    "series claimed exact": ("logdet.matches-determinant", wrong(lambda n, x: series_exact(n, x, 6))),
    "first term only": ("logdet.matches-determinant", wrong(lambda n, x: series_exact(n, x, 1))),
    "wrong sign": ("logdet.matches-determinant", wrong(lambda n, x: -exact(n, x))),
    "every sign of the series flipped": ("logdet.matches-determinant", wrong(lambda n, x: series_exact(n, x, 60, -1.0))),
    "bias larger than declared": ("logdet.matches-determinant", wrong(lambda n, x: series_exact(n, x, 2), 1e-6)),
    "float32 inside float64": ("logdet.matches-determinant", wrong(lambda n, x: exact(n, x).float().double())),
    "surrogate under the log-det's name": ("logdet.matches-determinant", wrong(surrogate)),
    "in bits, not in nats": ("logdet.matches-determinant", wrong(lambda n, x: exact(n, x) / math.log(2))),
    "per dimension": ("logdet.matches-determinant", wrong(lambda n, x: exact(n, x) / x.shape[1])),
    "evaluated at y": ("logdet.matches-determinant", wrong(lambda n, x: exact(n, n(x)))),
    "identity forgotten": ("logdet.matches-determinant", wrong(without_skip)),
    "diagonal only": ("logdet.matches-determinant", wrong(diagonal_only)),
    "activation slopes forgotten": (("logdet.matches-determinant", "logdet.depends-on-input"), wrong(one_layer)),
    "rows shifted by one": ("logdet.matches-determinant", wrong(lambda n, x: exact(n, x).roll(1))),
    "summed over the batch": (
        ("logdet.one-value", "logdet.matches-determinant"), wrong(lambda n, x: exact(n, x).sum().expand(len(x)))),
    "constant": ("logdet.depends-on-input", wrong(lambda n, x: exact(n, x)[:1].expand(len(x)))),
    "scaled beyond the bounds": ("logdet.within-bounds", wrong(lambda n, x: 60 * exact(n, x))),
    "not a number": ("logdet.finite", wrong(lambda n, x: exact(n, x).log())),
    "of the inverse, at y": ("logdet.of-the-inverse", lambda s: subject(seed=s, inverse_at="y")),
    "of the inverse, random, at y": ("logdet.of-the-inverse", lambda s: subject("roulette, gaussian", seed=s, inverse_at="y")),
    "of the inverse, without the minus sign": ("logdet.of-the-inverse", of_inverse_without_minus),
    "a random series claimed exact": (("hygiene.exact-log-det-not-random", "logdet.matches-determinant"), wrong(series)),
})
