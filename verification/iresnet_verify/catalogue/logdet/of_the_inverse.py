"""The log-determinant of the inverse, at the right point: log|det dF⁻¹/dy|(F(x)) = −log|det dF/dx|(x)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify.catalogue.shared.log_det_truth import NO_VALUE, SLACK, Truth, decided, limit, truth_at
from iresnet_verify.catalogue.shared.map_errors import promised
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import verdict
from iresnet_verify.expectation.bias import compare_expectation
from iresnet_verify.measurements import log_dets as measures
from iresnet_verify.randomness.injection import Vector
from iresnet_verify.subject.subject import stated_claim

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray


@check(
    "logdet.of-the-inverse",
    claim="log|det dF⁻¹/dy| at y = F(x) is −log|det dF/dx| at x: the inverse's log-det is taken at the right point.",
    reference="inverse function theorem: J_{F⁻¹}(F(x)) = J_F(x)⁻¹", kind="proof", needs=("inverse_log_det",), statistical=True,
    cost="six Jacobians a row; for random values an enumeration as in estimator.unbiased",
    catches="log-det evaluated at y instead of x, missing minus sign, values of the last call",
)
def of_the_inverse(ctx: Context) -> Outcome:
    """|inverse_log_det(F(x)) + log|det J(x)|| ≤ slack + b + what the inverse's own error moves the log-det by."""
    kind, bias = ctx.log_det_claim if ctx.f.log_det is not None else _inverse_claim(ctx)
    if kind == "gradient-only":
        return Outcome("skipped", NO_VALUE)
    assert ctx.f.inverse_log_det is not None
    inverse_log_det = ctx.f.inverse_log_det
    x = ctx.inputs(ctx.rows)
    y = ctx.f.forward(x)
    truth = truth_at(ctx, x)
    moved = moved_by_inverse(ctx, truth, y)
    fixed = all(np.array_equal(inverse_log_det(y[:3], seed=11), inverse_log_det(y[:3], seed=s)) for s in (12, 13))
    if kind == "unbiased" or (kind == "bias" and not fixed):
        rows = min(2, len(x))
        claim = truth.claim(ctx, bias, rows, "inverse log-det")
        claim.x, claim.truth, claim.slack, claim.J = y[:rows], -truth.value[:rows], claim.slack + moved[:rows], None
        return compare_expectation(ctx, lambda rows, seed: inverse_log_det(rows, seed=seed), claim)
    value = inverse_log_det(y, seed=ctx.caller.next_seed())
    allowed = truth.slack + moved + bias
    known = decided(truth, limit(ctx)) & (allowed <= limit(ctx) + bias)
    bound = np.where(known, allowed, np.inf)
    return verdict(
        np.abs(value + truth.value), bound,
        expected=lambda at: f"{-truth.value[at.row]:.10g} ± {at.bound:.2g} at y = F(x)",
        got=lambda at: f"{value[at.row]:.10g}",
        passed=lambda at: f"largest gap {at.largest:.2g} nats in {at.compared} rows",
        undecided=f"oracle and inverse leave no row to decide: allowed {np.min(allowed):.2g} nats",
        tolerance=f"{SLACK} + 8·‖∇ log det‖·error of the inverse", oracle=truth.source,
        evidence={"moved_by_inverse": float(moved[known].max(initial=0.0))},
        counterexample=lambda at: Counterexample({"y": y[at.rows], "truth": truth.value[at.rows], "allowed": bound[at.rows]},
                                                 measures.inverse_log_det_against_truth),
    )


def _inverse_claim(ctx: Context) -> tuple[str, float]:
    """The claim of a subject that gives no forward log-det: read as if it gave one."""
    claim = stated_claim(ctx.subject, ctx.mode)
    return (claim, 0.0) if isinstance(claim, str) else ("bias", float(claim))


def moved_by_inverse(ctx: Context, truth: Truth, y: HostArray) -> Vector:
    """What the inverse's own error moves the log-det by: 8·‖∇ log|det J|‖·max(‖inverse(y) − x‖, tol·max(1, ‖x‖)).

    The gradient's norm is estimated from differences of the true log-det along 4 random directions (a unit direction
    sees ‖∇‖/√d); 8 stands for a direction badly met and for the layers of a flow, each of which errs on its own.
    """
    if ctx.f.inverse is None:
        return np.zeros(len(y))
    x = truth.x.astype(np.float64)
    flat = (len(x), -1)
    size = np.maximum(1.0, np.linalg.norm(x.reshape(flat), axis=1))
    missed = np.linalg.norm((ctx.f.inverse(y) - x).reshape(flat), axis=1)
    missed = np.where(missed <= 0.1 * size, missed, 0.0)  # an inverse that is plainly wrong excuses nothing
    step = ctx.u ** (1.0 / 3.0) * size
    slopes = []
    for _ in range(4):
        v = ctx.rng.standard_normal(x.shape)
        v *= (step / np.linalg.norm(v.reshape(flat), axis=1)).reshape(-1, *[1] * (x.ndim - 1))
        nearby = truth_at(ctx, (x + v).astype(truth.x.dtype))
        slopes.append((np.abs(nearby.value - truth.value) + nearby.error + truth.error) / step)
    gradient = math.sqrt(ctx.d) * np.sqrt(np.mean(np.square(slopes), axis=0))
    return 8.0 * gradient * np.maximum(missed, promised(ctx)[0] * size)
