"""What the classifiers share: the steps of a dense i-ResNet on images as vectors, small shifts of the training images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import iresnet_ref as ir
from iresnet_ref.arrays import from_host, to_host

Images = NDArray[np.float64]


def dense(d: int, padding: int, width: int, blocks: int, *, like: Any, seed: int) -> list[Any]:
    """Injective padding of vectors, if any, then an ActNorm before every block and one at the end."""
    n = d + padding
    steps: list[Any] = [ir.bijections.ZeroPad((d,), padding)] if padding else []
    for i in range(blocks):
        branch = ir.mlp((n, width, n), seed=1000 * seed + i, like=like)
        steps += [ir.bijections.ActNorm.uninitialised((n,), like), ir.ResidualBlock(branch)]
    return [*steps, ir.bijections.ActNorm.uninitialised((n,), like)]


def vectors(x: Images, like: Any) -> Any:
    """Images as rows of numbers."""
    return from_host(x.reshape(len(x), -1), like)


def shifted(x: Images, reach: float, rng: np.random.Generator) -> Images:
    """Every image moved by a random vector of up to `reach` pixels along each axis, black moving in; bilinear in between."""
    if reach == 0.0:
        return x
    n, channels, height, width = x.shape
    pad = int(np.ceil(reach)) + 1
    wide = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    by = rng.uniform(-reach, reach, (n, 2))
    whole = np.floor(by).astype(np.int64)
    part = by - whole
    moved = np.zeros_like(x)
    for i in (0, 1):
        for j in (0, 1):
            weight = np.abs(1 - i - part[:, 0]) * np.abs(1 - j - part[:, 1])
            rows = pad + whole[:, 0, None] + i + np.arange(height)
            columns = pad + whole[:, 1, None] + j + np.arange(width)
            picked = wide[np.arange(n)[:, None, None, None], np.arange(channels)[None, :, None, None],
                          rows[:, None, :, None], columns[:, None, None, :]]  # fmt: skip
            moved += weight[:, None, None, None] * picked
    return moved


LEVELS = 17
"""Grey values of scikit-learn's digits."""


def whole(images: Images) -> Images:
    """Images in [0, 1] as rows of integers 0, …, 16."""
    return np.rint(images.reshape(len(images), -1) * (LEVELS - 1))


def dequantised(x: Images, seed: int, like: Any) -> Any:
    """Whole rows with their noise, in (0, 1)."""
    return ir.bijections.dequantise(x, seed=seed, like=like) / LEVELS


def mixture(x: Images, labels: Any, width: int, blocks: int, *, like: Any, seed: int) -> ir.Flow:
    """A flow on dequantised rows, a component of its base for each class at the mean of that class's first features.

    `labels` is −1 where a row of x has none.
    """
    rows = dequantised(x, seed, like)
    steps = dense(x.shape[1], 0, width, blocks, like=like, seed=seed)
    features = ir.bijections.Composition(tuple(steps)).initialise(rows)
    z = to_host(features.value(rows))
    means = np.stack([z[labels == y].mean(0) for y in range(int(labels.max()) + 1)])
    base = ir.densities.GaussianMixture(*(from_host(a, like) for a in (means, np.zeros(means.shape[1]), np.zeros(len(means)))))
    return ir.Flow(features, base)


def answers(flow: ir.Flow, x: Images, like: Any) -> NDArray[np.int64]:
    """The class of largest posterior for whole rows x, seen at the middle of their cells."""
    return to_host(flow.base.joint(flow(from_host((x + 0.5) / LEVELS, like)))).argmax(1)
