"""torchflows 1.2.1: its residual layers, and the layers of other kinds in which the audit found something.

The promises are the package's own: `Bijection.forward` and `.inverse` return "the log Jacobian determinant of the forward"
and "of the inverse transform"; the residual blocks cite i-ResNet and Residual Flows (Lip(g) < 1, here `c`, by default 0.7);
`n_power_series_iterations` says how many terms are kept, so the log-det of `InvertibleResNetBlock` may be biased by what the
theorem allows at Lip(g) = c.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from _findings import declared
from _training import seeded
from torch import nn
from torchflows.bijections.finite.autoregressive import layers
from torchflows.bijections.finite.residual import iterative
from torchflows.bijections.finite.residual.proximal import ProximalResFlowBlock

from iresnet_verify import Subject

C, TERMS = 0.7, 2


def contraction() -> nn.Module:
    """g of norm 0.6 exactly, so that what fails is not the branch."""
    g = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    for layer in (g[0], g[2]):
        layer.weight.data *= 0.6**0.5 * (1 - 1e-9) / torch.linalg.matrix_norm(layer.weight, 2)
    return g


def _both(name: str, net: Any, d: int, **fields: Any) -> Subject:
    name = f"torchflows {name}"
    return Subject(name=name, event_shape=(d,), forward=net.forward, inverse=net.inverse, module=net,
                   expected_failures=declared(name), **fields)


def truncation(L: float, terms: int, d: int) -> float:
    return -d * (math.log(1 - L) + sum(L**k / k for k in range(1, terms + 1)))


def invertible_resnet() -> Subject:
    block = seeded(lambda: iterative.InvertibleResNetBlock((3,), hidden_size=2, n_power_series_iterations=TERMS))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)  # what power iteration starts from
        weights = [layer.w.normalized() for layer in block.g.layers if isinstance(layer, iterative.SpectralLinear)]
    maps = [(f"SpectralLinear {i}", partial(nn.functional.linear, weight=w), (w.shape[1],), C) for i, w in enumerate(weights)]
    return _both("InvertibleResNetBlock, its own branch", block, 3, residual=block.g, lipschitz=C,
                 log_det_is=truncation(C, TERMS, 3), linear_maps=lambda: maps)


def resflow() -> Subject:
    block = seeded(lambda: iterative.ResFlowBlock((3,), g=contraction()))
    return _both("ResFlowBlock, a given branch", block, 3, residual=block.g, lipschitz=0.6, log_det_is="unbiased",
                 inverse_tolerance=1e-5)


def proximal() -> Subject:
    return _both("ProximalResFlowBlock", seeded(lambda: ProximalResFlowBlock((5,), gamma=0.5), noise=0.1), 5)


def deep_sigmoid() -> Subject:
    net = seeded(lambda: layers.DeepSigmoidalCoupling((4,)), noise=0.1)
    return _both("DeepSigmoidalCoupling", net, 4, inverse_tolerance=1e-5)


def autoregressive_spline() -> Subject:
    net = seeded(lambda: layers.RQSForwardMaskedAutoregressive((4,)), noise=10.0)
    return _both("RQSForwardMaskedAutoregressive", net, 4, inverse_tolerance=1e-5)
