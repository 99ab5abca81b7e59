"""enflows 0.0.1: the invertible residual block over a Lipschitz DenseNet, and two layers in which the audit found something."""

from __future__ import annotations

import _dense_block
from _findings import declared
from _training import seeded
from enflows.nn.nets.invertible_densenet import DenseNet
from enflows.transforms.autoregressive import MaskedShiftAutoregressiveTransform
from enflows.transforms.lipschitz.iresblock import iResBlock
from enflows.transforms.nonlinearities import LeakyReLU

from iresnet_verify import Subject, adapters


def block() -> Subject:
    return _dense_block.block("enflows iResBlock", iResBlock, DenseNet, densenet_growth=8)


def csin() -> Subject:
    """One layer of sines: where the weights after them have opposite signs it attains what its activation stretches."""
    return _dense_block.block("enflows DenseNet, csin", iResBlock, DenseNet, d=1, depth=1, noise=3.0, densenet_growth=2,
                              activation_function="csin")


def shift() -> Subject:
    name = "enflows MaskedShiftAutoregressiveTransform"
    net = seeded(lambda: MaskedShiftAutoregressiveTransform(4, 8), noise=0.3)
    return adapters.pair(net, (4,), name=name, expected_failures=declared(name))


def leaky_relu() -> Subject:
    name = "enflows LeakyReLU"
    net = seeded(lambda: LeakyReLU(negative_slope=0.5), noise=0.3)
    return adapters.pair(net, (3,), name=name, expected_failures=declared(name))
