"""The networks of the golden vectors: weights and inputs are multiples of 1/64, exact in float32 and short in print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

Layer = dict[str, Any]
GRID = 64.0


def _numbers(rng: np.random.Generator, shape: Sequence[int], size: float) -> Any:
    """Multiples of 1/64, uniform in ±size."""
    return (np.round(rng.uniform(-size, size, tuple(shape)) * GRID) / GRID).tolist()


def affine(rng: np.random.Generator, n: int, m: int) -> Layer:
    """m × n, its Frobenius norm around 1, so that ‖A‖₂ < 1."""
    return {"kind": "affine", "weight": _numbers(rng, (m, n), 1.6 / math.sqrt(m * n)), "bias": _numbers(rng, (m,), 0.75)}


def conv(rng: np.random.Generator, n: int, m: int, kernel: tuple[int, int], padding: str) -> Layer:
    """Cross-correlation of stride 1 with a bias for each channel; Σ|w| < 1 bounds the norm."""
    size = 0.9 * 2 / (math.prod(kernel) * max(n, m))
    return {"kind": "conv", "weight": _numbers(rng, (m, n, *kernel), size), "bias": _numbers(rng, (m,), 0.5), "padding": padding}


def activation(name: str) -> Layer:
    """φ of each number."""
    return {"kind": "activation", "name": name}


def _mlp(rng: np.random.Generator, widths: Sequence[int], name: str) -> list[Layer]:
    layers: list[Layer] = []
    for n, m in pairwise(widths):
        layers += [affine(rng, n, m), activation(name)]
    return layers[:-1]


def blocks() -> dict[str, tuple[tuple[int, ...], list[Layer]]]:
    """Return name → (shape of an event, layers of g)."""
    rng = np.random.default_rng(20190501)
    made: dict[str, tuple[tuple[int, ...], list[Layer]]] = {"linear 3": ((3,), [affine(rng, 3, 3)])}
    for name in ("elu", "tanh", "softplus", "sine", "lipswish", "sigmoid", "silu", "gelu", "relu"):
        made[f"mlp 3-5-3 {name}"] = ((3,), _mlp(rng, (3, 5, 3), name))
    made["mlp 2-6-4-2 elu"] = ((2,), _mlp(rng, (2, 6, 4, 2), "elu"))
    made["mlp 2-4-2 maxmin"] = ((2,), [affine(rng, 2, 4), {"kind": "maxmin"}, affine(rng, 4, 2)])
    made["mlp 2-3-2 clipswish"] = ((2,), [affine(rng, 2, 3), {"kind": "clipswish"}, affine(rng, 6, 2)])
    dense = [{"kind": "concatenation", "inner": [affine(rng, n, 3), activation("lipswish")]} for n in (2, 5)]
    made["dense connections 2"] = ((2,), [*dense, affine(rng, 8, 2)])
    for padding in ("zero", "circular"):
        made[f"convolutions 1x3x4 {padding}"] = (
            (1, 3, 4), [conv(rng, 1, 2, (3, 3), padding), activation("elu"), conv(rng, 2, 1, (1, 3), padding)])
    return made


def inputs(shape: tuple[int, ...], count: int = 3) -> Any:
    """Return `count` events, multiples of 1/64."""
    return np.asarray(_numbers(np.random.default_rng(math.prod(shape)), (count, *shape), 2.0))


POINTS = [k / 8 for k in (-320, -160, -80, -40, -25, -17, -9, -5, -3, -1, 1, 3, 5, 9, 17, 25, 40, 80, 160, 320)]
"""Where activations are given: no kink among them."""
TERMS = 5
"""Terms vᵀJᵏv that are given."""
