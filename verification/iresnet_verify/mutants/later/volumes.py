"""Log-dets, estimates, gradients and densities with one mistake each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from iresnet_verify.mutants.afterwards.volumes import Upstream, changed, cut, eye, map_with, of_inverse, right, traces
from iresnet_verify.mutants.densities import density
from iresnet_verify.mutants.estimates import unbiased, weighted
from iresnet_verify.mutants.gradient.derivatives import inverse_with
from iresnet_verify.mutants.log_dets import jacobian, series_exact, wrong
from iresnet_verify.mutants.mutant import table
from iresnet_verify.mutants.volume import STAY, Net, exact, normal, roulette

VALUE, MEAN, INVERSE = "logdet.matches-determinant", "estimator.unbiased", "logdet.of-the-inverse"
THETA, X, PARAMETERS, BACK = "gradient.log-det", "gradient.forward-input", "gradient.forward", "gradient.through-inverse"
INPUT, CHANGE = "gradient.log-det-input", "density.change-of-variables"


def log_abs_det(A: Tensor) -> Tensor:
    """log|det A|."""
    return torch.linalg.slogdet(A)[1]


def in_map(change: Callable[[Tensor], Tensor]) -> Callable[[Net, Tensor], Tensor]:
    """The branch with these upstream gradients."""
    function: Any = Upstream
    return lambda net, x: function.apply(net.g(x), change)


MUTANTS = table("later", {
    "three times the log-det": (VALUE, wrong(lambda n, x: 3 * exact(n, x))),
    "divided by the batch": (VALUE, wrong(lambda n, x: exact(n, x) / len(x))),
    "minus half of it": (VALUE, wrong(lambda n, x: -exact(n, x) / 2)),
    "binary logarithm": (VALUE, wrong(lambda n, x: exact(n, x) / math.log(2))),
    "five terms": (VALUE, wrong(lambda n, x: series_exact(n, x, 5))),
    "eight terms": (VALUE, wrong(lambda n, x: series_exact(n, x, 8))),
    "first term left out": (VALUE, wrong(lambda n, x: traces(n, x, lambda k: (k != 1) * (-1.0) ** (k + 1) / k))),
    "one power too many": (VALUE, wrong(lambda n, x: traces(n, x, lambda k: (k > 1) * (-1.0) ** k / max(k - 1, 1)))),
    "log 2 too little": (VALUE, wrong(lambda n, x: exact(n, x) - math.log(2))),
    "a nat a dimension too much": (VALUE, wrong(lambda n, x: exact(n, x) + x.shape[1])),
    "rows rolled by one": (VALUE, wrong(lambda n, x: exact(n, x).roll(1))),
    "median over the batch": (VALUE, wrong(lambda n, x: exact(n, x).median().expand(len(x)))),
    "largest of the batch": (VALUE, wrong(lambda n, x: exact(n, x).max().expand(len(x)))),
    "second row for all": (VALUE, wrong(lambda n, x: exact(n, x)[min(1, len(x) - 1)].expand(len(x)))),
    "at twice x": (VALUE, wrong(lambda n, x: exact(n, 2 * x))),
    "at minus x": (VALUE, wrong(lambda n, x: exact(n, -x))),
    "at F of F of x": (VALUE, wrong(lambda n, x: exact(n, n(n(x))))),
    "of the symmetrised Jacobian": (VALUE, wrong(lambda n, x: log_abs_det(eye(x) + (jacobian(n, x) + jacobian(n, x).mT) / 2))),
    "of the upper triangle": (VALUE, wrong(lambda n, x: log_abs_det(eye(x) + jacobian(n, x).triu()))),
    "of J squared": (VALUE, wrong(lambda n, x: log_abs_det(eye(x) + jacobian(n, x) @ jacobian(n, x)))),
    "identity doubled": (VALUE, wrong(lambda n, x: log_abs_det(2 * eye(x) + jacobian(n, x)))),
    "logarithm of 1 plus the trace": (VALUE, wrong(lambda n, x: torch.log1p(jacobian(n, x).diagonal(dim1=1, dim2=2).sum(1).abs()))),
    "rounded to bfloat16": (VALUE, wrong(lambda n, x: exact(n, x).bfloat16().double())),
    "a millionth inside the logarithm": (VALUE, wrong(lambda n, x: torch.log(exact(n, x).exp() + 1e-6))),
    "clamped at 0": ((VALUE, "logdet.worst-input", "logdet.all-magnitudes"), wrong(
        lambda n, x: exact(n, x).clamp(max=0.0) + exact(n, x).clamp(min=0.0) * 1e-3)),
    "inverse: twice": (INVERSE, of_inverse(lambda n, y: -2 * exact(n, n.inverse(y)))),
    "inverse: half a nat too much": (INVERSE, of_inverse(lambda n, y: 0.5 - exact(n, n.inverse(y)))),
    "inverse: at the origin": (INVERSE, of_inverse(lambda n, y: -exact(n, 0 * y))),
    "weights two powers too large": (MEAN, weighted(lambda k: (-1.0) ** (k + 1) / (k * STAY ** (k + 1)))),
    "first term never drawn": (MEAN, weighted(lambda k: (k != 1) * right(k))),
    "fourth weight halved": (MEAN, weighted(lambda k: (1 - 0.5 * (k == 4)) * right(k))),
    "probes of one and a half times the size": (MEAN, unbiased(lambda n, x: roulette(n, x, scale=1.5))),
    "five probes added up": (MEAN, unbiased(lambda n, x: sum((roulette(n, x) for _ in range(5)), torch.zeros(len(x)).double()))),
    "minus the estimate": (MEAN, weighted(lambda k: -right(k))),
    "a tenth too much": (MEAN, unbiased(lambda n, x: roulette(n, x) + 0.1)),
    "estimate at the origin": (MEAN, unbiased(lambda n, x: roulette(n, 0 * x))),
    "odd terms alone, at random": (MEAN, weighted(lambda k: (k % 2 == 1) * right(k))),
    "weights forgotten after the third": (MEAN, weighted(lambda k: right(k) if k <= 3 else (-1.0) ** (k + 1) / k)),
    "a third of the gradient": (THETA, wrong(changed(lambda w: w / 3))),
    "minus the gradient": (THETA, wrong(changed(lambda w: -w))),
    "second row's weight for all": (THETA, wrong(changed(lambda w: w[min(1, len(w) - 1)].expand_as(w)))),
    "absolute weights": (THETA, wrong(changed(lambda w: w.abs()))),
    "last layer detached": (THETA, wrong(lambda n, x: cut(n, x, "last"))),
    "input detached": (INPUT, wrong(lambda n, x: exact(n, x.detach()))),
    "twice the branch's gradient": (X, map_with(lambda n, x: 2 * n.g(x) - n.g(x).detach())),
    "last row's weight in the map": (X, map_with(in_map(lambda w: w[-1:].expand_as(w)))),
    "sum of the weights in the map": (X, map_with(in_map(lambda w: w.sum(0, keepdim=True).expand_as(w)))),
    "first layer of the map detached": (PARAMETERS, map_with(lambda n, x: torch.tanh(x @ n.first.detach().T + n.shift) @ n.last.T)),
    "half of the gradient through the inverse": (
        BACK, inverse_with(lambda n, y: n.inverse(y).detach() + 0.5 * (y - n.g(n.inverse(y)) - (y - n.g(n.inverse(y))).detach()))),
    "log-det twice in the density": (CHANGE, density(lambda n, x: normal(n(x)) + 2 * exact(n, x))),
    "base at F of F of x": (CHANGE, density(lambda n, x: normal(n(n(x))) + exact(n, x))),
    "density with log d too much": (CHANGE, density(lambda n, x: normal(n(x)) + exact(n, x) + math.log(2))),
    "half of the base": (CHANGE, density(lambda n, x: normal(n(x)) / 2 + exact(n, x))),
    "base at x and the log-det subtracted": (CHANGE, density(lambda n, x: normal(x) - exact(n, x))),
})
