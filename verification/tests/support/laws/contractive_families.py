"""Contractive branches that make inversion hard, on any backend.

`ortho`: equal singular values, the eigenvalues of J fill the disc. `sym−`: g = −c Wᵀφ(Wx + b), I + J nearly singular. `rand`: a
Gaussian MLP. `fold` and `zigzag` are kinked and exactly c-Lipschitz: x ↦ |x| coordinate by coordinate between rotations,
and telescoping sums of ReLUs whose slope alternates between +c and −c; ‖J‖₂ = c everywhere, while the product of the
layers' norms proves nothing, so that their constant is stated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

import iresnet_ref as ir
from iresnet_backends import Backend
from iresnet_ref.arrays import HostArray, from_host
from iresnet_ref.layers import activations
from iresnet_ref.layers.linear import Affine, Conv
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_ref.normalisation.division import normalise

Layers = tuple[list[HostArray], list[HostArray]]
Rng = np.random.Generator


def ortho(d: int, c: float, rng: Rng) -> Layers:
    weights = [rotation(d, rng) * c ** (1 / 3) for _ in range(3)]
    return weights, [0.5 * rng.standard_normal(d) + 2.0 for _ in weights]


def symmetric(d: int, h: int, c: float, rng: Rng) -> Layers:
    weight = rng.standard_normal((h, d))
    weight /= np.linalg.norm(weight, 2)
    return [weight, -c * weight.T], [0.5 * rng.standard_normal(h) + 1.0, 0.5 * rng.standard_normal(d)]


def symmetric_convolution(image: int, channels: int, c: float, rng: Rng, like: Any) -> ir.Branch:
    """sym− with a zero-padded 3×3 convolution for W; Wᵀ is the convolution with the kernel turned round."""
    shape = (image, image)
    kernel = normalise(Conv(rng.standard_normal((channels, 3, 3, 3)), np.zeros(channels), shape), 1.0).weight
    back = -c * np.flip(kernel, axis=(2, 3)).transpose(1, 0, 2, 3)
    biases = 0.3 * rng.standard_normal(channels) + 1.0, 0.3 * rng.standard_normal(3)
    there, back_again = (
        Conv(from_host(w, like), from_host(b, like), shape) for w, b in zip((kernel, back), biases, strict=True)
    )
    return ir.Branch((there, Pointwise(activations.get("elu")), back_again), (3, *shape))


def rand(sizes: tuple[int, ...], c: float, rng: Rng) -> Layers:
    weights = [rng.standard_normal((m, n)) for n, m in pairwise(sizes)]
    share = c ** (1 / len(weights))
    return [w * (share / np.linalg.norm(w, 2)) for w in weights], [0.5 * rng.standard_normal(len(w)) for w in weights]


def fold(d: int, layers: int, c: float, rng: Rng) -> Layers:
    """|z| = relu(z) + relu(−z): layer k maps z to Q|z| + b."""
    both = np.concatenate([np.eye(d), np.eye(d)], axis=1)
    weights, biases = [], []
    for k in range(layers):
        turn = rotation(d, rng) @ (both if k else np.eye(d))
        bias = 0.3 * rng.standard_normal(d)
        weights.append(np.concatenate([turn, -turn]))
        biases.append(np.concatenate([bias, -bias]))
    return [*weights, c * rotation(d, rng) @ both], [*biases, 0.3 * rng.standard_normal(d)]


def zigzag(d: int, kinks: int, c: float, rng: Rng) -> Layers:
    """Per coordinate z − 2relu(z − k₁) + 2relu(z − k₂) − …, between two rotations; z itself as relu(z + 16) − 16."""
    places = np.sort(rng.uniform(-3.0, 3.0, (d, kinks)), axis=1)
    signs = np.tile(np.where(np.arange(kinks) % 2, 2.0, -2.0), (d, 1))
    inner = np.repeat(np.eye(d), kinks + 1, axis=0)
    bias = np.concatenate([-places, np.full((d, 1), 16.0)], axis=1).reshape(-1)
    outer = np.zeros((d, d, kinks + 1))
    outer[np.arange(d), np.arange(d)] = np.concatenate([signs, np.ones((d, 1))], axis=1)
    turn = c * rotation(d, rng)
    return [inner @ rotation(d, rng), turn @ outer.reshape(d, -1)], [bias, turn @ np.full(d, -16.0)]


def rotation(d: int, rng: Rng) -> HostArray:
    return np.linalg.qr(rng.standard_normal((d, d)))[0]


@dataclass(frozen=True)
class Family:
    """`stated`: the constant is known, not proved. `batch` rows are enough to see the family's typical cost."""

    layers: Callable[[Rng], Layers]
    activation: str
    c: float
    batch: int = 32
    stated: bool = False

    def build(self, backend: Backend, seed: int = 0) -> tuple[ir.ResidualBlock, Any]:
        """Return the block and its images y of standard normal points, in the backend's dtype."""
        rng = np.random.default_rng(seed)
        like = backend.asarray(np.zeros(1))
        layers: list[Any] = []
        for weight, bias in zip(*self.layers(rng), strict=True):
            layers += [Pointwise(activations.get(self.activation))] * bool(layers)
            layers.append(Affine(from_host(weight, like), from_host(bias, like)))
        d = layers[0].weight.shape[1]
        # Rounding the entries of a weight changes its norm by less than d·u relative: the constant stays true.
        stated = self.c * (1.0 + 4 * d * float(backend.xp.finfo(backend.dtype).eps)) if self.stated else None
        block = ir.ResidualBlock(ir.Branch(tuple(layers), (d,)), stated)
        return block, block(from_host(rng.standard_normal((self.batch, d)), like))


@dataclass(frozen=True)
class Images:
    """sym− on images of 3 channels."""

    image: int
    channels: int
    c: float
    batch: int

    def build(self, backend: Backend, seed: int = 0) -> tuple[ir.ResidualBlock, Any]:
        """Return the block and its images y of standard normal points, in the backend's dtype."""
        rng = np.random.default_rng(seed)
        like = backend.asarray(np.zeros(1))
        block = ir.ResidualBlock(symmetric_convolution(self.image, self.channels, self.c, rng, like))
        return block, block(from_host(rng.standard_normal((self.batch, 3, self.image, self.image)), like))


FAMILIES = {
    "ortho d=2 c=.9": Family(lambda rng: ortho(2, 0.9, rng), "elu", 0.9, 128),
    "ortho d=2 c=.99": Family(lambda rng: ortho(2, 0.99, rng), "elu", 0.99, 128),
    "ortho d=8 c=.97": Family(lambda rng: ortho(8, 0.97, rng), "tanh", 0.97),
    "sym− d=64 c=.9": Family(lambda rng: symmetric(64, 128, 0.9, rng), "elu", 0.9),
    "sym− d=64 c=.97": Family(lambda rng: symmetric(64, 128, 0.97, rng), "elu", 0.97),
    "sym− d=64 c=.99": Family(lambda rng: symmetric(64, 128, 0.99, rng), "elu", 0.99),
    "rand d=20 c=.9": Family(lambda rng: rand((20, 8, 20), 0.9, rng), "lipswish", 0.9),
    "relu ortho d=8 c=.9": Family(lambda rng: ortho(8, 0.9, rng), "relu", 0.9),
    "fold d=2 c=.99": Family(lambda rng: fold(2, 3, 0.99, rng), "relu", 0.99, 64, stated=True),
    "fold d=4 c=.5": Family(lambda rng: fold(4, 6, 0.5, rng), "relu", 0.5, 64, stated=True),
    "fold d=24 c=.9": Family(lambda rng: fold(24, 1, 0.9, rng), "relu", 0.9, stated=True),
    "zigzag d=2 c=.9": Family(lambda rng: zigzag(2, 20, 0.9, rng), "relu", 0.9, 64, stated=True),
    "zigzag d=6 c=.97": Family(lambda rng: zigzag(6, 20, 0.97, rng), "relu", 0.97, stated=True),
}

LARGE: dict[str, Family | Images] = {
    "sym− d=784 c=.9": Family(lambda rng: symmetric(784, 256, 0.9, rng), "elu", 0.9, 16),
    "sym− d=784 c=.99": Family(lambda rng: symmetric(784, 256, 0.99, rng), "elu", 0.99, 16),
    "conv 3×32×32 sym− c=.9": Images(32, 32, 0.9, 4),
    "conv 3×32×32 sym− c=.99": Images(32, 32, 0.99, 4),
}
"""As hard, and slower than a test of every method should be."""

MEAN_EVALUATIONS = {
    "ortho d=2 c=.9": 12, "ortho d=2 c=.99": 12,
    "sym− d=64 c=.9": 12, "sym− d=64 c=.97": 15, "sym− d=64 c=.99": 55,
    "sym− d=784 c=.9": 45, "sym− d=784 c=.99": 90,
    "conv 3×32×32 sym− c=.9": 50, "conv 3×32×32 sym− c=.99": 200,
    "moons, trained": 8,
}  # fmt: skip
"""The promise: at most so many evaluations on average, to 1e-12 in float64."""
