"""FrEIA 0.2: the i-ResNet layer, and two fixed or element-wise layers.

`InvertibleModule.forward` promises "the jacobian", one log-det an event; `spectral_norm_max` (0.8) names the norm of each of
the three layers after `lipschitz_correction()`, convolutions as they pad, so Lip(g) ≤ 0.8³ with ELUs between;
`jacobian_iterations` (20) is the number of terms of the series, so its bias is what the theorem allows.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from _findings import declared
from _training import seeded
from FrEIA import modules

from iresnet_verify import Subject, adapters

L = 0.8**3


def _layer(name: str, shape: tuple[int, ...], width: int, **fields: Any) -> Subject:
    net = seeded(lambda: modules.IResNetLayer([shape], internal_size=width), noise=0.3)

    def refresh() -> None:  # it draws in the default dtype
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        net.lipschitz_correction()
        torch.set_default_dtype(before)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        refresh()
    bias = -math.prod(shape) * (math.log(1 - L) + sum(L**k / k for k in range(1, 21)))
    return adapters.inn(net, shape, name=name, residual=net.residual, lipschitz=L, lipschitz_holds="after-refresh",
                        refresh=refresh, log_det_is=bias + 1e-12, expected_failures=declared(name), **fields)


def dense() -> Subject:
    return _layer("FrEIA IResNetLayer, dense", (3,), 8)


def convolutional() -> Subject:
    subject = _layer("FrEIA IResNetLayer, convolutional", (2, 6, 6), 4)
    layers = zip(subject.module.layers, (2, 4, 4), strict=True)
    maps = [(f"convolution {i}", layer, (channels, 6, 6), 0.8) for i, (layer, channels) in enumerate(layers)]
    return replace(subject, linear_maps=lambda: maps)


def scaling() -> Subject:
    name = "FrEIA LearnedElementwiseScaling"
    net = seeded(lambda: modules.LearnedElementwiseScaling([(4,)]), noise=0.3)
    return adapters.inn(net, (4,), name=name, expected_failures=declared(name))


def haar() -> Subject:
    name = "FrEIA HaarUpsampling"
    net = seeded(lambda: modules.HaarUpsampling([(4, 1, 1)]))

    def forward(x: torch.Tensor) -> Any:
        (y,), log_det = net([x.reshape(-1, 4, 1, 1)])
        return y.reshape(-1, 4), log_det

    def inverse(y: torch.Tensor) -> Any:
        (x,), log_det = net([y.reshape(-1, 1, 2, 2)], rev=True)
        return x.reshape(-1, 4), log_det

    return Subject(name=name, event_shape=(4,), forward=forward, inverse=inverse, module=net, expected_failures=declared(name))
