"""enflows 0.0.1: the invertible residual block over a Lipschitz DenseNet, and two layers in which the audit found something.

`iResBlock`: "Returns g(x) and logdet|d(x+g(x))/dx|", "unbiased_estimator: If true, uses an unbiased estimator for the logdet";
in evaluation the determinant is computed exactly. `DenseNet`: "Lipschitz contiuous network g(x) with a fixed lipschitz
constant", lip_coeff = 0.98 a layer. `_inverse_fixed_point` names atol = rtol = 1e-5.
"""

from __future__ import annotations

from _findings import declared
from _training import seeded
from enflows.nn.nets.invertible_densenet import DenseNet
from enflows.transforms.autoregressive import MaskedShiftAutoregressiveTransform
from enflows.transforms.lipschitz.iresblock import iResBlock
from enflows.transforms.nonlinearities import LeakyReLU

from iresnet_verify import Subject, adapters

L = 0.98**3


def block() -> Subject:
    name = "enflows iResBlock"
    net = seeded(lambda: iResBlock(DenseNet(dimension=3, densenet_depth=2, densenet_growth=8, n_lipschitz_iters=50)), noise=0.3)
    return adapters.pair(
        net, (3,), name=name, residual=net.nnet, lipschitz=L, log_det_is={"train": "unbiased", "eval": "exact"},
        inverse_tolerance=1e-5 * (3**0.5 + 2 + L), expected_failures=declared(name),
    )


def shift() -> Subject:
    name = "enflows MaskedShiftAutoregressiveTransform"
    net = seeded(lambda: MaskedShiftAutoregressiveTransform(4, 8), noise=0.3)
    return adapters.pair(net, (4,), name=name, expected_failures=declared(name))


def leaky_relu() -> Subject:
    name = "enflows LeakyReLU"
    net = seeded(lambda: LeakyReLU(negative_slope=0.5), noise=0.3)
    return adapters.pair(net, (3,), name=name, expected_failures=declared(name))
