"""nflows 0.14: affine and rational-quadratic spline couplings. Positive controls: nothing is wrong here."""

from __future__ import annotations

from _training import seeded
from nflows import transforms
from nflows.nn.nets import ResidualNet

from iresnet_verify import Subject


def affine() -> Subject:
    return _subject("nflows affine coupling, d=5", transforms.AffineCouplingTransform)


def spline() -> Subject:
    coupling = transforms.PiecewiseRationalQuadraticCouplingTransform
    return _subject("nflows spline coupling, d=5", coupling, tails="linear")


def _subject(name: str, coupling: type, **options: str) -> Subject:
    def build() -> transforms.CompositeTransform:
        masks = ([1, 1, 0, 0, 0], [0, 0, 1, 1, 1])
        layers = [coupling(mask, lambda i, o: ResidualNet(i, o, 16), **options) for mask in masks]
        return transforms.CompositeTransform([layers[0], transforms.ReversePermutation(5), layers[1]])

    net = seeded(build, noise=0.1)
    return Subject(name=name, event_shape=(5,), forward=net, inverse=net.inverse, module=net)
