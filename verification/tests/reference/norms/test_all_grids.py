"""One bound for all image sizes: never below the norm on any of them, and no further above than its slack."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import iresnet_ref as ir
from iresnet_ref.errors import ShapeError
from iresnet_ref.jacobian.convolution import Convolution
from iresnet_ref.norms.convolution import symbol

Host = np.ndarray[Any, Any]


def kernel(rng: np.random.Generator, kind: int) -> Host:
    """Gaussian kernels, boxes that peak at 0, stripes that peak between the frequencies of most grids, and small scales."""
    side = [3, 5, 7][kind % 3]
    shape = (int(rng.integers(1, 4)), int(rng.integers(1, 4)), side, [3, 5, 1][int(rng.integers(3))])
    k = rng.standard_normal(shape)
    if kind % 4 == 1:
        k = np.abs(k)
    if kind % 4 == 2:
        phase = rng.uniform(0, math.pi)
        k = k * 0.1 + np.cos(phase * np.arange(side))[:, None]
    return k * 10.0 ** rng.integers(-12, 12)


def circular_norm(k: Host, rows: int, columns: int) -> float:
    return float(np.linalg.norm(symbol(k, ((rows, 0), (columns, 0))), 2, axis=(1, 2)).max())


def check(seed: int, sizes: range) -> None:
    rng = np.random.default_rng(seed)
    k = kernel(rng, seed)
    bound = ir.spectral.norm_on_every_image(k)
    norms = [circular_norm(k, n, m) for n in sizes for m in (n, int(rng.integers(3, 65)))]
    assert max(norms) <= bound * (1 + 1e-13)
    halves = [(s - 1) / 2 for s in k.shape[2:]]
    supremum = max(circular_norm(k, 128, 128), *norms)
    assert bound <= supremum / math.prod(math.cos(math.pi * p / 64) for p in halves) * (1 + 1e-9)
    n = int(rng.integers(3, 7))
    if n >= max(k.shape[2:]):
        assert np.linalg.norm(Convolution(k, (n, n), "zero").matrix(), 2) <= bound


@pytest.mark.parametrize("seed", range(12))
def test_the_bound_holds_on_every_image(seed: int) -> None:
    check(seed, range(3, 65, 7))


@pytest.mark.thorough
@pytest.mark.parametrize("block", range(10))
def test_three_hundred_kernels_on_all_sizes(block: int) -> None:
    for seed in range(30 * block, 30 * block + 30):
        check(100 + seed, range(3, 65))


def test_a_peak_between_all_points_of_the_grid_needs_the_cosine() -> None:
    """Coarse grids miss the peak of cos(ω − φ): the largest value on the grid alone is no bound."""
    k = np.asarray([[[[-math.sin(0.3), 0.0, math.sin(0.3)]]]]) + 0.0
    k[0, 0, 0, 1] = 0.2
    fine = circular_norm(k, 1, 4096)
    missed = 0
    for points in (3, 5, 6, 7, 9, 12):
        assert ir.spectral.norm_on_every_image(k, points=points) >= fine * (1 - 1e-9)
        missed += circular_norm(k, 1, points) < fine * (1 - 1e-6)
    assert missed


@pytest.mark.parametrize(("side", "slack"), [(3, 0.0025), (5, 0.01), (7, 0.023)])
def test_the_slack_is_what_is_promised(side: int, slack: float) -> None:
    box = np.ones((1, 1, side, side))
    assert side**2 <= ir.spectral.norm_on_every_image(box) <= side**2 * (1 + slack)


def test_what_is_no_kernel_is_refused() -> None:
    for bad in (np.ones((2, 2)), np.ones((1, 1, 2, 3))):
        with pytest.raises(ShapeError):
            ir.spectral.norm_on_every_image(bad)
    with pytest.raises(ShapeError):
        ir.spectral.norm_on_every_image(np.ones((1, 1, 7, 7)), points=6)
    assert ir.spectral.norm_on_every_image(np.zeros((1, 1, 3, 3))) == 0.0
    assert ir.spectral.norm_on_every_image(np.full((1, 1, 3, 3), np.nan)) == math.inf
