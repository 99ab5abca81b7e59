"""The expectation of a stochastic gradient, by the enumeration that serves the value.

∇ Σ w_i log_det(x_i) is linear in the rows: with each row repeated for the m Hadamard columns and weight w_i/m, one backward
pass gives the mean over columns. What `enumeration` tests on the value is tested here on the input gradient of each row,
r·∇_x log_det(x_i) + log_det(x_i), since a surrogate's value may be constant; the parameter gradient itself must scale alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify.catalogue.shared.log_det_truth import moduli
from iresnet_verify.catalogue.shared.parameter_gradients import Sketch, subject_gradient
from iresnet_verify.expectation.bias import prepare
from iresnet_verify.randomness.enumeration import Enumerator, NotEnumerableError
from iresnet_verify.randomness.injection import InjectedDraws
from iresnet_verify.randomness.series_sums import Expectation, accumulate
from iresnet_verify.subject.errors import backward_pass

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.randomness.injection import Vector
    from iresnet_verify.subject.subject import HostArray


def expected_gradient(ctx: Context, x: HostArray, weights: Vector, chosen: Sketch) -> Expectation:
    """Return E of the numbers of the sketch. Raises NotEnumerableError."""
    seed = int(ctx.rng.integers(2**31))
    towards = ctx.rng.standard_normal(x.shape[1:])

    def evaluate(rows: HostArray, seed: int) -> Vector:
        with ctx.guard(), ctx.framework.call_context():
            leaf = ctx.native(rows, requires_grad=True)
            log_det = ctx.raw_log_det(leaf.clone(), seed=seed)
            value = np.asarray(ctx.host(log_det), dtype=np.float64)
            if log_det.requires_grad:
                with backward_pass("the log-det"):
                    log_det.sum().backward()
            if leaf.grad is None:
                return value
            return value + (ctx.host(leaf.grad).astype(np.float64) * towards).reshape(len(rows), -1).sum(1)

    plan = prepare(ctx, evaluate, x, seed)
    if plan.length_distribution_unknown:
        raise NotEnumerableError("the distribution of the series length is unknown")
    if plan.probe_distributions and plan.kind in ("constant", "independent of the probe"):
        plan.kind, plan.even = "quadratic", False
    _scales(ctx, plan, x, weights, chosen)
    h = plan.columns()
    many, z, w = np.repeat(x, len(h), axis=0), np.tile(h, (len(x), 1)), np.repeat(weights / len(h), len(h))
    scale = float(np.abs(_gradient(ctx, plan, x, np.ones((len(x), ctx.d)), plan.start, weights, chosen)).max())

    single = ctx.subject.residual is not None or ctx.subject.lipschitz is not None
    radius = float(moduli(ctx.residual_jacobian(x).matrix).max()) if single else 0.0

    def means(n: int) -> tuple[Vector, Vector]:
        numbers = _gradient(ctx, plan, many, z, n, w, chosen)
        return numbers, np.abs(numbers)

    return accumulate(plan, means, target=1e-13 * scale, scale=scale * len(x), radius=radius)


def _gradient(ctx: Context, plan: Enumerator, x: HostArray, z: Vector, n: int, weights: Vector, chosen: Sketch) -> Vector:
    """The subject's gradient with these probes and this length (no padding: the shapes were read in `prepare`)."""
    batch = len(x)
    draws = InjectedDraws(probes=z, lengths=np.full(batch, n, dtype=np.int64), row_major=plan.row_major, variant=plan.variant)
    with plan.estimate.inject(lambda draw: draws(draw, batch, ctx.subject.event_shape)):
        plan.rows += batch
        return subject_gradient(ctx, x, weights, chosen, plan.seed).numbers


def _scales(ctx: Context, plan: Enumerator, x: HostArray, weights: Vector, chosen: Sketch) -> None:
    """The parameter gradient at 0, v, 2v, sign v scales as the kind of dependence on the probe implies."""
    if not plan.probe_distributions or plan.discrete:  # integer draws take no other values than those enumerated
        return
    n = plan.start + 1
    v = np.random.default_rng(plan.seed).normal(size=(len(x), ctx.d))

    def at(z: Vector) -> Vector:
        return (_gradient(ctx, plan, x, z, n, weights, chosen) + _gradient(ctx, plan, x, -z, n, weights, chosen)) / 2.0

    once = at(v)
    if plan.kind == "quadratic":
        zero = at(0 * v)
        gap = np.abs(at(2 * v) - zero - 4 * (once - zero))
    else:
        gap = np.abs(once - at(np.sign(v) if plan.kind == "sign" else 2 * v))
    if not float(gap.max()) <= np.sqrt(plan.estimate.roundoff) * (float(np.abs(once).max()) + 1.0):
        raise NotEnumerableError(f"the gradient is not {plan.kind} in the probe")
