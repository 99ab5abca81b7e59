"""Bijections between residual blocks, and batches of their domain: a new one is tested by adding one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tables import backend

import iresnet_ref as ir
from iresnet_ref.arrays import from_host

SHAPE = (3, 4, 2)


def actnorm(shape: tuple[int, ...], like: Any) -> ir.bijections.ActNorm:
    draws = np.random.default_rng(1).standard_normal((2, shape[0]))
    return ir.bijections.ActNorm(from_host(draws[0], like), from_host(3.0 * draws[1], like), shape)


def mixing(shape: tuple[int, ...], like: Any) -> ir.bijections.PLULinear:
    m = ir.bijections.PLULinear.rotation(shape, seed=2, like=like)
    noise = np.random.default_rng(3).standard_normal((2 * shape[0] + 1, shape[0]))
    p = m.parameters()
    n = shape[0]
    parts = {"lower": noise[:n], "upper": noise[n : 2 * n], "log_scale": noise[-1]}
    return m.with_parameters({k: p[k] + 0.3 * from_host(a, like) for k, a in parts.items()})


def context(shape: tuple[int, ...], like: Any) -> ir.bijections.ContextShift:
    h = from_host(np.random.default_rng(7).standard_normal((1, 2)), like)
    return ir.bijections.ContextShift.random(shape, 2, seed=5, like=like).condition(h)


def residual(d: int, like: Any) -> ir.ResidualBlock:
    return ir.ResidualBlock(ir.mlp((d, 8, d), activation="tanh", lipschitz=0.8, seed=4, like=like))


def multiscale(like: Any) -> ir.bijections.Composition:
    inner = [actnorm((2, 2, 1), like), mixing((2, 2, 1), like)]
    return ir.bijections.Composition(
        (
            actnorm((1, 4, 2), like), ir.bijections.Squeeze((1, 4, 2)), mixing((4, 2, 1), like),
            ir.bijections.FactorOut((4, 2, 1), inner), residual(8, like),
        )
    )


TABLE: dict[str, Callable[[Any], Any]] = {
    "actnorm vector": lambda like: actnorm((5,), like),
    "actnorm image": lambda like: actnorm(SHAPE, like),
    "squeeze": lambda _: ir.bijections.Squeeze((2, 4, 6)),
    "permutation": lambda _: ir.bijections.Permutation(SHAPE, (2, 0, 1)),
    "mixing vector": lambda like: mixing((5,), like),
    "mixing image": lambda like: mixing(SHAPE, like),
    "rotation": lambda like: ir.bijections.PLULinear.rotation((7,), seed=5, like=like),
    "one channel": lambda like: mixing((1,), like),
    "logit": lambda _: ir.bijections.Logit((4,), alpha=0.02, levels=256),
    "logit unit": lambda _: ir.bijections.Logit((2, 1, 2), alpha=1e-3, levels=1),
    "context vector": lambda like: context((5,), like),
    "context image": lambda like: context(SHAPE, like),
    "factor out odd": lambda like: ir.bijections.FactorOut((3, 2), [actnorm((2, 2), like), ir.bijections.Permutation((2, 2), (1, 0))]),
    "composition": lambda like: ir.bijections.Composition((actnorm((3,), like), residual(3, like), mixing((3,), like), residual(3, like))),
    "1-norm": lambda like: ir.bijections.Composition((ir.ResidualBlock(ir.mlp((3, 6, 3), norm=1.0, seed=5, like=like)),)),
    "∞-norm": lambda like: ir.bijections.Composition((ir.ResidualBlock(ir.mlp((3, 6, 3), norm=math.inf, seed=6, like=like)),)),
    "multiscale": multiscale,
}


def batch(f: Any, key: str, rows: int = 4) -> Any:
    b = backend(key)
    rng = np.random.default_rng(6)
    if isinstance(f, ir.bijections.Logit):
        return b.asarray(rng.uniform(0.0, f.levels, (rows, *f.in_shape)))
    return b.asarray(rng.standard_normal((rows, *f.in_shape)) * np.resize([0.1, 1.0, 3.0], rows).reshape(-1, *(1,) * len(f.in_shape)))
