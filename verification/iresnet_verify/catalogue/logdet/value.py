"""The value of the log-determinant: against the determinant of the Jacobian, against the other log-dets given, and as x varies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.logdet.of_the_inverse import moved_by_inverse
from iresnet_verify.catalogue.shared.log_det_truth import (
    NO_VALUE,
    SLACK,
    Truth,
    decided,
    is_deterministic,
    limit,
    truth_at,
)
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import Comparison, verdict
from iresnet_verify.expectation.bias import compare_expectation
from iresnet_verify.measurements import log_dets as measures
from iresnet_verify.randomness.injection import Vector

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray


@check(
    "logdet.matches-determinant",
    claim="log_det(x) is log|det dF/dx| as claimed: to rounding (exact), within b nats, or in expectation (unbiased).",
    reference="Behrmann et al. 2019 (arXiv 1811.00995), eq. 3; the promise log_det_is", kind="proof", needs=("log_det",),
    statistical=True,
    cost="one Jacobian a row; for random values an enumeration as in estimator.unbiased",
    catches="wrong terms of the series, a truncated series claimed exact, float32 inside float64, a surrogate under the name",
)
def matches_determinant(ctx: Context) -> Outcome:
    """|log_det(x) − log|det J(x)|| ≤ slack + b on every row, J from the oracle."""
    kind, bias = ctx.log_det_claim
    if kind == "gradient-only":
        return Outcome("skipped", NO_VALUE)
    x = ctx.inputs(ctx.rows)
    truth = truth_at(ctx, x)
    if kind == "unbiased" or (kind == "bias" and not is_deterministic(ctx, x[:3])):
        return compare_expectation(ctx, ctx.evaluate_log_det, truth.claim(ctx, bias, min(2, len(x))))
    value = ctx.evaluate_log_det(x, ctx.caller.next_seed())
    return compare_with_determinant(ctx, truth, value, bias)


def compare_with_determinant(
    ctx: Context, truth: Truth, value: Vector, bias: float, evidence: Mapping[str, Any] | None = None
) -> Outcome:
    """Compare log-dets with the truth row by row."""
    allowed = np.where(decided(truth, limit(ctx)), truth.slack + bias, np.inf)

    def counterexample(at: Comparison) -> Counterexample:
        row = truth.x[at.rows]
        if not at.error <= 100.0 * math.sqrt(ctx.u) * ctx.d + 2.0 * at.bound:
            most = max(at.bound, at.error / 2.0) if math.isfinite(at.error) else at.bound
            return Counterexample({"x": row, "allowed": most}, measures.log_det_by_differences)
        return Counterexample({"x": row, "truth": truth.value[at.rows], "allowed": allowed[at.rows]}, measures.log_det_against_truth)

    return verdict(
        np.abs(value - truth.value), allowed,
        expected=lambda at: f"log_det = {truth.value[at.row]:.12g} ± {at.bound:.2g}",
        got=lambda at: f"{value[at.row]:.12g}",
        passed=lambda at: f"largest gap {at.largest:.2g} nats in {at.compared} rows",
        undecided=f"the Jacobian oracle ({truth.source}) decides no row: its error is {np.min(truth.error):.2g} nats",
        tolerance=SLACK + (f" + b = {bias:g}" if bias else ""), oracle=truth.source,
        evidence=lambda at: {"value": float(value[at.row]), "truth": float(truth.value[at.row]), **(evidence or {})},
        counterexample=counterexample,
    )


@check(
    "logdet.one-value",
    claim="The log-det that forward returns, log_det(x) and −inverse_log_det(F(x)) are one number wherever several are given.",
    reference="the promises forward, log_det and inverse_log_det of the subject", kind="proof", needs=("log_det",),
    statistical=True,
    cost="one Jacobian a row; for random values an enumeration as in estimator.unbiased",
    catches="two code paths that disagree, a packed log-det with another sign or of another batch",
)
def one_value(ctx: Context) -> Outcome:
    """Deterministic values agree to twice the slack; random ones each have the right expectation."""
    kind, bias = ctx.log_det_claim
    if kind == "gradient-only":
        return Outcome("skipped", NO_VALUE)
    x = ctx.inputs(ctx.rows)

    def packed(rows: HostArray, seed: int) -> Vector:
        returned = ctx.raw_forward(ctx.native(rows), seed=seed)[1]
        return np.asarray(ctx.host(returned), dtype=np.float64).reshape(len(rows))

    has_packed = ctx.subject.log_det is not None and ctx.caller.packed.get("forward", False)
    if not has_packed and ctx.f.inverse_log_det is None:
        return Outcome("skipped", "one log-det is given: there is nothing to compare it with", {"compared": 0})
    with ctx.guard():
        if kind == "unbiased" or not is_deterministic(ctx, x[:3]):
            if not has_packed:
                return Outcome("skipped", "random values: each is compared with the determinant by its own check", {"rows": 0})
            return compare_expectation(ctx, packed, truth_at(ctx, x[:2]).claim(ctx, bias, 2, "log-det returned by forward"))
        value, seed = ctx.evaluate_log_det(x, 31), 31
        truth = truth_at(ctx, x)
        others: dict[str, Vector] = {}
        moved = np.zeros(len(x))
        if has_packed:
            others["forward(x)[1]"] = packed(x, seed)
        if ctx.f.inverse_log_det is not None:
            y = ctx.f.forward(x)
            others["−inverse_log_det(F(x))"] = -ctx.f.inverse_log_det(y, seed=seed)
            moved = moved_by_inverse(ctx, truth, y)
    allowed = 2.0 * (truth.slack + bias) + moved
    return verdict(
        {name: np.abs(v - value) for name, v in others.items()}, dict.fromkeys(others, allowed),
        expected=lambda at: f"{at.case} = log_det(x) = {value[at.row]:.10g} ± {at.bound:.2g}",
        got=lambda at: f"{others[at.case][at.row]:.10g}",
        passed=lambda at: f"{1 + len(others)} sources agree to {at.largest:.2g} nats",
        tolerance=f"2·({SLACK})", oracle="each other", evidence={"sources": 1 + len(others)},
        counterexample=lambda at: Counterexample({"x": x[at.rows]}),
    )


@check(
    "logdet.depends-on-input",
    claim="Where the determinant varies with x, so does the log-det.",
    reference="Chen et al. 2019 (arXiv 1906.02735), eq. 2: the log-det is a function of x", kind="proof", needs=("log_det",),
    cost="one Jacobian a row, 2 or 64 evaluations of the log-det",
    catches="constant or cached log-dets, log-dets of the first row for all rows",
)
def depends_on_input(ctx: Context) -> Outcome:
    """Rows whose true log-dets differ by more than 2b + slack do not all get one value, at some seed."""
    kind, bias = ctx.log_det_claim
    x = ctx.inputs(max(4, ctx.rows))
    truth = truth_at(ctx, x)
    spread = float(np.ptp(truth.value))
    needed = 2.0 * (bias if math.isfinite(bias) else 0.0) + 4.0 * float(np.max(truth.slack))
    evidence = {"rows": len(x), "true_spread": spread, "needed_spread": needed}
    if not spread > needed:
        return Outcome("skipped", f"nothing to refute: the determinants themselves differ by {spread:.2g} nats at most",
                       evidence, "", truth.source)
    seeds = 64 if kind != "exact" else 2
    constant = sum(bool(np.ptp(ctx.evaluate_log_det(x, s)) == 0.0) for s in range(seeds))
    return verdict(
        constant, seeds - 1,
        expected=f"log-dets that differ by up to {spread:.4g} nats",
        got=f"one value for all {len(x)} rows at each of {seeds} seeds",
        passed=f"values differ between rows ({spread:.3g} nats between the determinants)",
        tolerance="exact equality of all rows at every seed", oracle=truth.source,
        evidence={**evidence, "compared": seeds, "seeds_with_one_value": constant},
        counterexample=lambda at: Counterexample({"x": x, "seeds": seeds}, measures.constant_log_det),
    )
