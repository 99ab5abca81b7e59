"""What the constructors of branches begin with: an array that says where they live, and weights drawn from a seed alone."""

from __future__ import annotations

import math

import numpy as np

from iresnet_ref.arrays import Array, from_host, size
from iresnet_ref.arrays.validation import require_real
from iresnet_ref.probes import Probes


def array_like(like: Array | None) -> Array:
    """Return `like`, by default of NumPy in float64. Raises DTypeError."""
    like = np.zeros(1) if like is None else like
    require_real(like, "like")
    return like


def drawn(shape: tuple[int, ...], like: Array, seed: int, stream: int) -> tuple[Array, Array]:
    """Return a weight of this shape (out, …) and a bias (out,), entries N(0, 1/fan-in), from one draw for each output."""
    rows, fan_in = shape[0], size(shape[1:])
    draw = Probes(seed=seed, stream=stream, kind="gaussian").gaussians(1, rows * (fan_in + 1)).reshape(rows, fan_in + 1)
    draw = draw / math.sqrt(fan_in)
    return from_host(draw[:, :fan_in].reshape(shape), like), from_host(draw[:, fan_in], like)
