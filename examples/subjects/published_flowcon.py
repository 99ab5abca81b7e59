"""flowcon 0.0.4: the invertible residual block over a Lipschitz DenseNet, and two layers in which the audit found something."""

from __future__ import annotations

import _dense_block
from _findings import declared
from _training import seeded
from flowcon.nn.nets.invertible_densenet import DenseNet
from flowcon.transforms.autoregressive import MaskedShiftAutoregressiveTransform
from flowcon.transforms.lipschitz.iresblock import iResBlock
from flowcon.transforms.nonlinearities import LeakyReLU

from iresnet_verify import Subject, adapters


def block() -> Subject:
    return _dense_block.block("flowcon iResBlock", iResBlock, DenseNet, densenet_growth=8)


def shift() -> Subject:
    name = "flowcon MaskedShiftAutoregressiveTransform"
    net = seeded(lambda: MaskedShiftAutoregressiveTransform(4, 8), noise=0.3)
    return adapters.pair(net, (4,), name=name, expected_failures=declared(name))


def leaky_relu() -> Subject:
    name = "flowcon LeakyReLU"
    net = seeded(lambda: LeakyReLU(negative_slope=0.5), noise=0.3)
    return adapters.pair(net, (3,), name=name, expected_failures=declared(name))
