"""The precision of forward: it computes in the dtype of its argument, and its dtype changes nothing but the rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.comparisons import (
    context_of,
    forward_deterministic,
    forward_tolerance,
    gap,
    log_det_deterministic,
    log_det_gap,
    warm_up,
)
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import verdict
from iresnet_verify.measurements import hygiene as measures
from iresnet_verify.subject.fresh import build_fresh

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context


@check(
    "parity.precision",
    claim="Forward computes in the precision of its argument: second differences ‖F(x+h) − 2F(x) + F(x−h)‖ over a step h of "
    "2⁻²³·(1 + |x|) are rounding of that precision, not of a narrower one.",
    reference="the dtype of the subject",
    kind="search",
    cost="three evaluations",
    catches="a float32 (TF32, float16) computation inside a float64 network",
)
def precision(ctx: Context) -> Outcome:
    """The step moves x by about one spacing of float32, so that most rows round differently at the three points, and is
    short enough for curvature to stay out of sight; the upper quartile over rows ignores the rare kink."""
    if ctx.subject.dtype != "float64":
        return Outcome("skipped", "nothing narrower than the subject's dtype is tried", {"dtype": ctx.subject.dtype})
    warm_up(ctx)
    x = ctx.inputs(max(ctx.rows, 32))
    if not forward_deterministic(ctx, x) or ctx.accuracy > 2.0**-30:
        return Outcome("inconclusive", "forward is random in this mode, or declares a lower accuracy")
    h = 2.0**-23 * (1 + np.abs(x)) * ctx.rng.choice([-1.0, 1.0], size=x.shape)
    a, b, c = (ctx.f.forward(v, seed=0) for v in (x + h, x, x - h))
    second = np.linalg.norm((a - 2 * b + c).reshape(len(x), -1), axis=1)
    size = np.linalg.norm(b.reshape(len(x), -1), axis=1) + np.linalg.norm(x.reshape(len(x), -1), axis=1) + np.sqrt(ctx.d)
    # Float32 inside leaves about 2⁻²⁴ of the part computed in it; float64 and curvature leave about 2⁻⁵⁰. Halfway: 2⁻³⁷.
    # (`forward_tolerance` would excuse what is sought here: it reads second differences as rounding.)
    first = np.linalg.norm((a - c).reshape(len(x), -1), axis=1)
    bounds = (2.0**-37 + 2 * ctx.accuracy) * size + 64 * (
        2.0**-30 * first + np.linalg.norm(h.reshape(len(x), -1), axis=1) ** 2
    )
    return verdict(
        np.quantile(second / bounds, 0.75), 1.0,
        expected="second differences no larger than float64 rounding and curvature explain",
        got=lambda at: f"{at.error:.1f} times as much in the upper quartile of rows",
        remedy="look for .float(), float32 constants or TF32",
        passed="second differences are rounding of float64",
        tolerance="the ratio to 2⁻³⁷·(‖x‖+‖F‖+√d) + 64·u·‖DF·x‖ for conditioning + 64‖h‖² for curvature", oracle="a smooth map",
        evidence={"compared": len(x), "upper_quartile_second_difference": float(np.quantile(second, 0.75))},
        counterexample=lambda at: Counterexample({"x": x, "step": h, "bounds": bounds}, measures.second_difference),
    )


@check(
    "parity.across-precisions",
    claim="The same state in float32 and in float64 gives the same y and log-det, to the rounding of float32.",
    reference="fresh(dtype=): a dtype changes the rounding of a map, not the map",
    kind="search",
    modes=False,
    needs=("torch", "module", "fresh"),
    cost="two new networks, one evaluation of each",
    catches="branches and constants that depend on the dtype, eps and clamps that act in one precision only",
)
def across_precisions(ctx: Context) -> Outcome:
    """The state goes to float32 first and from there, exactly, to float64: both networks have the same weights."""
    warm_up(ctx)
    narrow = _built(ctx, "float32", ctx.subject.module)
    wide = _built(ctx, "float64", narrow.subject.module)
    x = ctx.inputs(ctx.rows).astype(np.float32)
    if not forward_deterministic(narrow, x):
        return Outcome("inconclusive", "y differs between seeds in this mode")
    y, exact = narrow.f.forward(x, seed=0), wide.f.forward(x.astype(np.float64), seed=0)
    errors, bounds = {"forward": gap(exact, y)}, {"forward": forward_tolerance(narrow, x, y)}
    if log_det_deterministic(narrow, x):
        log_det = narrow.evaluate_log_det(x, 0)
        errors["log_det"], bounds["log_det"] = log_det_gap(narrow, x, log_det, wide.evaluate_log_det(x.astype(np.float64), 0))
    return verdict(
        errors, bounds,
        expected="float32 and float64 networks with the same weights to agree",
        remedy="look for what depends on the dtype",
        passed="both precisions agree", tolerance="twice the rounding of one float32 evaluation", oracle="the float64 network",
        counterexample=lambda at: Counterexample({"x": x}),
    )


def _built(ctx: Context, dtype: str, source: Any) -> Context:
    """A newly built network of that dtype with the state of `source`."""
    made = build_fresh(ctx.subject, dtype)
    made.module.load_state_dict(source.state_dict())
    return context_of(ctx, made)
