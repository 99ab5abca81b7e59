# pyright: strict
"""What a user with a strict type checker writes: everything here is known to it, and it runs."""

from __future__ import annotations

from typing import assert_type

import numpy as np
import numpy.typing as npt

import iresnet_ref as ir
from iresnet_ref.arrays import Array
from iresnet_ref.training import maximum_likelihood
from iresnet_verify import CheckResult, Report, Subject, audit

Floats = npt.NDArray[np.float64]


def round_trip(seed: int) -> tuple[Floats, float]:
    block = ir.ResidualBlock(ir.mlp((2, 16, 2), activation="elu", lipschitz=0.8, seed=seed))
    x: Floats = np.random.default_rng(seed).standard_normal((4, 2))
    inverse = ir.invert(block, block(x), rtol=1e-10)
    return np.asarray(inverse.x), float(np.asarray(inverse.error_bound).max())


def log_dets(seed: int) -> Floats:
    block = ir.ResidualBlock(ir.mlp((2, 16, 2), activation="elu", lipschitz=0.8, seed=seed))
    result = ir.logdet(block, np.zeros((3, 2)), method="exact")
    return np.asarray(result.value)


def what_is_known(block: ir.ResidualBlock, x: Floats) -> None:
    """Every public call and every field of a result is an array of whatever package, or a number: nothing is `Any`."""
    flow = ir.Flow([block])
    assert_type(block(x), Array)
    assert_type(block.branch(x), Array)
    assert_type(block.pullback(x, y_bar=x), tuple[Array, Array | None, dict[str, Array]])
    box = ir.certify(block, within=(x[0], x[1]))
    assert_type((ir.certify(block), box), tuple[ir.Certificate, ir.bounds.BoxCertificate])
    assert_type(ir.bounds.inverse_ball(block, x, x, within=box).radius, Array)
    inverse = ir.invert(block, x)
    assert_type((inverse.x, inverse.residual_norm, inverse.error_bound), tuple[Array, Array, Array])
    assert_type((inverse.evaluations, inverse.converged), tuple[Array, Array])
    ld = ir.logdet(block, x)
    assert_type((ld.value, ld.standard_error, ld.bias_bound), tuple[Array, Array, Array])
    assert_type(ld.interval(), tuple[Array, Array])
    assert_type(ir.bounds.logdet_error_bound(block, x), Array)
    back = ir.logdet_of_inverse(block, x)
    assert_type(back.value, Array)
    gradient = ir.logdet_gradient(block, x)
    assert_type((gradient.parameters, gradient.x_bar), tuple[dict[str, Array], Array])
    assert_type(ir.inverse_gradient(block, x, x).y_bar, Array)
    assert_type(flow(x), Array)
    assert_type(flow.log_prob(x).value, Array)
    assert_type(flow.sample(3), Array)
    assert_type(flow.parameters(), dict[str, Array])
    assert_type(flow.log_prob_gradient(x), tuple[Array, dict[str, Array]])
    assert_type(flow.inverse(x).error_bound, Array)
    assert_type(flow.bits_per_dimension(x).value, Array)
    assert_type(maximum_likelihood(flow, x).value, Array)
    assert_type(ir.spectral.spectral_norm(x), Array)
    assert_type(ir.certify(block).bound, float)


def failures(subject: Subject) -> list[str]:
    results: list[CheckResult] = []
    report: Report = audit(subject, budget="quick", select=["inverse.recovers-input"], on_result=results.append)
    return [c.id for c in report.checks if c.status == "failed"]


def doubled(x: Floats) -> Floats:
    return 2.0 * x


def halved(y: Floats) -> Floats:
    return 0.5 * y


SUBJECT = Subject(name="2x", event_shape=(2,), forward=doubled, inverse=halved, framework="numpy")
