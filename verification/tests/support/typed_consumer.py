# pyright: strict
"""What a user with a strict type checker writes: everything here is known to it, and it runs."""

from __future__ import annotations

from typing import assert_type

import numpy as np
import numpy.typing as npt

import iresnet_ref as ir
from iresnet_ref.training import maximum_likelihood
from iresnet_verify import CheckResult, Report, Subject, audit

Array = npt.NDArray[np.float64]


def round_trip(seed: int) -> tuple[Array, float]:
    block = ir.ResidualBlock(ir.mlp((2, 16, 2), activation="elu", lipschitz=0.8, seed=seed))
    x: Array = np.random.default_rng(seed).standard_normal((4, 2))
    inverse = ir.invert(block, block(x), rtol=1e-10)
    return np.asarray(inverse.x), float(np.asarray(inverse.error_bound).max())


def log_dets(seed: int) -> Array:
    block = ir.ResidualBlock(ir.mlp((2, 16, 2), activation="elu", lipschitz=0.8, seed=seed))
    result = ir.logdet(block, np.zeros((3, 2)), method="exact")
    return np.asarray(result.value)


def what_is_known(block: ir.ResidualBlock, x: Array) -> None:
    """Every public call and every field of a result is an array of whatever package, or a number: nothing is `Any`."""
    flow = ir.Flow([block])
    assert_type(block(x), ir.arrays.Array)
    assert_type(block.branch(x), ir.arrays.Array)
    assert_type(block.pullback(x, y_bar=x), tuple[ir.arrays.Array, ir.arrays.Array | None, dict[str, ir.arrays.Array]])
    inverse = ir.invert(block, x)
    assert_type((inverse.x, inverse.residual_norm, inverse.error_bound), tuple[ir.arrays.Array, ir.arrays.Array, ir.arrays.Array])
    assert_type((inverse.evaluations, inverse.converged), tuple[ir.arrays.Array, ir.arrays.Array])
    ld = ir.logdet(block, x)
    assert_type((ld.value, ld.standard_error, ld.bias_bound), tuple[ir.arrays.Array, ir.arrays.Array, ir.arrays.Array])
    assert_type(ld.interval(), tuple[ir.arrays.Array, ir.arrays.Array])
    assert_type(ir.bounds.logdet_error_bound(block, x), ir.arrays.Array)
    back = ir.logdet_of_inverse(block, x)
    assert_type(back.value, ir.arrays.Array)
    gradient = ir.logdet_gradient(block, x)
    assert_type((gradient.parameters, gradient.x_bar), tuple[dict[str, ir.arrays.Array], ir.arrays.Array])
    assert_type(ir.inverse_gradient(block, x, x).y_bar, ir.arrays.Array)
    assert_type(flow(x), ir.arrays.Array)
    assert_type(flow.log_prob(x).value, ir.arrays.Array)
    assert_type(flow.sample(3), ir.arrays.Array)
    assert_type(flow.parameters(), dict[str, ir.arrays.Array])
    assert_type(flow.log_prob_gradient(x), tuple[ir.arrays.Array, dict[str, ir.arrays.Array]])
    assert_type(flow.inverse(x).error_bound, ir.arrays.Array)
    assert_type(flow.bits_per_dimension(x).value, ir.arrays.Array)
    assert_type(maximum_likelihood(flow, x).value, ir.arrays.Array)
    assert_type(ir.spectral.spectral_norm(x), ir.arrays.Array)
    assert_type(ir.certify(block).bound, float)


def failures(subject: Subject) -> list[str]:
    results: list[CheckResult] = []
    report: Report = audit(subject, budget="quick", select=["inverse.recovers-input"], on_result=results.append)
    return [c.id for c in report.checks if c.status == "failed"]


def doubled(x: Array) -> Array:
    return 2.0 * x


def halved(y: Array) -> Array:
    return 0.5 * y


SUBJECT = Subject(name="2x", event_shape=(2,), forward=doubled, inverse=halved, framework="numpy")
