"""The reference itself on each backend: certified inverse and Lipschitz bound, exact or unbiased log-determinant."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

import iresnet_backends
import iresnet_ref as ir
from iresnet_verify import Subject

L = 0.9
DTYPES = {"array-api-strict:device1": "float32"}  # elsewhere float64


def subject(backend: str = "numpy:cpu", method: Literal["exact", "roulette"] = "exact") -> Subject:
    dtype = DTYPES.get(backend, "float64")
    be = iresnet_backends.get(backend, dtype)
    F = ir.ResidualBlock(ir.mlp((8, 16, 8), activation="elu", lipschitz=L, seed=1, like=be.asarray([0.0])))
    rtol = {"float64": 1e-12, "float32": 1e-5}[dtype]
    offset = float(np.linalg.norm(be.to_numpy(F(be.asarray(np.zeros((1, 8)))))))

    def inverse(y: Any) -> Any:
        return ir.invert(F, y, rtol=rtol).x

    def log_det(x: Any, seed: int = 0) -> Any:
        return ir.logdet(F, x, ir.Exact() if method == "exact" else ir.Roulette(probes=ir.Probes(seed=seed))).value

    def base_log_prob(z: Any) -> Any:
        return -0.5 * be.xp.sum(z * z, axis=-1) - 4 * math.log(2 * math.pi)

    name, _, device = backend.partition(":")
    return Subject(
        name=f"iresnet-ref, {backend} {dtype}, {method}", event_shape=(8,), forward=F, residual=F.branch,
        inverse=inverse, log_det=log_det, inverse_log_det=lambda y, seed=0: -log_det(inverse(y), seed),
        lipschitz=ir.certify(F).bound, log_det_is="exact" if method == "exact" else "unbiased",
        inverse_tolerance=rtol * (1 + L + offset) / (1 - L), base_log_prob=base_log_prob,
        log_prob=lambda x, seed=0: base_log_prob(F(x)) + log_det(x, seed),
        sample=lambda n, seed=0: inverse(be.asarray(np.random.default_rng(seed).normal(size=(n, 8)))),
        framework=name, device=device or "cpu", dtype=dtype,
    )


def roulette(backend: str = "numpy:cpu") -> Subject:
    return subject(backend, "roulette")
