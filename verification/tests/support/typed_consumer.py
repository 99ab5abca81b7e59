# pyright: strict
"""What a user with a strict type checker writes: everything here is known to it, and it runs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import iresnet_ref as ir
from iresnet_verify import CheckResult, Report, Subject, audit

Array = npt.NDArray[np.float64]


def round_trip(seed: int) -> tuple[Array, float]:
    block = ir.ResidualBlock(ir.mlp((2, 16, 2), activation="elu", lipschitz=0.8, seed=seed))
    x: Array = np.random.default_rng(seed).standard_normal((4, 2))
    inverse = ir.invert(block, block(x), rtol=1e-10)
    error: Array = inverse.error_bound
    return inverse.x, float(error.max())


def log_dets(seed: int) -> Array:
    block = ir.ResidualBlock(ir.mlp((2, 16, 2), activation="elu", lipschitz=0.8, seed=seed))
    result = ir.logdet(block, np.zeros((3, 2)), method="exact")
    value: Array = result.value
    return value


def failures(subject: Subject) -> list[str]:
    results: list[CheckResult] = []
    report: Report = audit(subject, budget="quick", select=["inverse.recovers-input"], on_result=results.append)
    return [c.id for c in report.checks if c.status == "failed"]


def doubled(x: Array) -> Array:
    return 2.0 * x


def halved(y: Array) -> Array:
    return 0.5 * y


SUBJECT = Subject(name="2x", event_shape=(2,), forward=doubled, inverse=halved, framework="numpy")
