"""flowcon 0.0.4: two layers in which the audit found something; both are named for the map they should be."""

from __future__ import annotations

from _findings import declared
from _training import seeded
from flowcon.transforms.autoregressive import MaskedShiftAutoregressiveTransform
from flowcon.transforms.nonlinearities import LeakyReLU

from iresnet_verify import Subject, adapters


def shift() -> Subject:
    name = "flowcon MaskedShiftAutoregressiveTransform"
    net = seeded(lambda: MaskedShiftAutoregressiveTransform(4, 8), noise=0.3)
    return adapters.pair(net, (4,), name=name, expected_failures=declared(name))


def leaky_relu() -> Subject:
    name = "flowcon LeakyReLU"
    net = seeded(lambda: LeakyReLU(negative_slope=0.5), noise=0.3)
    return adapters.pair(net, (3,), name=name, expected_failures=declared(name))
