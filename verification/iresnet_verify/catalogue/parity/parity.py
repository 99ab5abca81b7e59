"""Two ways to the same number: training and evaluation mode, two precisions, packed and separate log-dets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.comparisons import (
    context_of,
    forward_tolerance,
    gap,
    log_det_gap,
    steady_forward,
    steady_log_det,
    warm_up,
    worst,
)
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.measurements import hygiene as measures
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.module_state import set_mode

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context

ROUNDING = "twice the rounding of one evaluation"


@check(
    "parity.train-and-eval",
    claim="Training and evaluation mode give the same y, and the same log-det where both claim it exactly.",
    reference="a density is one function: what is trained is what is evaluated",
    kind="search",
    modes=False,
    needs=("module",),
    cost="two evaluations in each mode",
    catches="normalisation in one mode only, batch statistics, another number of terms in evaluation",
)
def train_and_eval(ctx: Context) -> Outcome:
    """Evaluate at the same x and seed in both modes."""
    if set(ctx.subject.modes) != {"train", "eval"} or not hasattr(ctx.subject.module, "train"):
        return Outcome("skipped", "needs both modes")
    module = ctx.subject.module
    set_mode(module, "train")
    warm_up(ctx)
    x = ctx.inputs(ctx.rows)
    values: dict[str, Any] = {}
    log_dets: dict[str, Any] = {}
    for mode in ("train", "eval"):
        set_mode(module, mode)
        if not steady_forward(ctx, x):
            return Outcome("inconclusive", f"y differs between seeds in {mode} mode")
        values[mode] = ctx.f.forward(x, seed=0)
        steady = ctx.f.log_det is not None and _claim(ctx, mode) == "exact" and steady_log_det(ctx, x)
        log_dets[mode] = ctx.evaluate_log_det(x, 0) if steady else None
    compared = {"forward": (gap(values["train"], values["eval"]), forward_tolerance(ctx, x, values["eval"]))}
    a, b = log_dets["train"], log_dets["eval"]
    if a is not None and b is not None:
        compared["log_det"] = log_det_gap(ctx, x, b, a)
    for name, (apart, bound) in compared.items():
        at = worst(apart, bound)
        if not (apart <= bound).all():
            return Outcome(
                "failed",
                f"{name}: expected the same values in training and evaluation mode, got a difference of {apart[at]:.2e}; "
                "declare the mode in which the claims hold (modes=), or make both compute the same",
                {"gap": float(apart[at]), "callable": name},
                f"{bound[at]:.2e} = {ROUNDING}",
                "the other mode",
                Counterexample({"x": x, "name": name, "bound": float(bound[at])}, measures.modes_apart),
            )
    evidence = {f"largest_ratio_{n}": float((apart / bound).max()) for n, (apart, bound) in compared.items()}
    return Outcome("passed", "both modes agree", evidence, ROUNDING, "the other mode")


def _claim(ctx: Context, mode: str) -> str:
    claim = ctx.subject.log_det_is
    claim = claim if isinstance(claim, str | int | float) else claim.get(mode, "none")
    return claim if isinstance(claim, str) else "bias"


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
        return Outcome("passed", "nothing narrower than the subject's dtype is tried", {"dtype": ctx.subject.dtype})
    warm_up(ctx)
    x = ctx.inputs(max(ctx.rows, 32))
    if not steady_forward(ctx, x) or ctx.accuracy > 2.0**-30:
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
    ratio, largest = float(np.quantile(second / bounds, 0.75)), float(np.quantile(second, 0.75))
    evidence = {"upper_quartile_ratio": ratio, "upper_quartile_second_difference": largest}
    tolerance = "2⁻³⁷·(‖x‖+‖F‖+√d) + 64·u·‖DF·x‖ for conditioning + 64‖h‖² for curvature"
    if ratio <= 1.0:
        return Outcome("passed", "second differences are rounding of float64", evidence, tolerance, "a smooth map")
    return Outcome(
        "failed",
        f"expected float64 rounding in second differences, got {largest:.2e} in the upper quartile of rows, {ratio:.1f} times what float64 "
        "and curvature explain; look for .float(), float32 constants or TF32",
        evidence,
        tolerance,
        "a smooth map",
        Counterexample({"x": x, "step": h, "bounds": bounds}, measures.second_difference),
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
    if not steady_forward(narrow, x):
        return Outcome("inconclusive", "y differs between seeds in this mode")
    y, exact = narrow.f.forward(x, seed=0), wide.f.forward(x.astype(np.float64), seed=0)
    compared = {"forward": (gap(exact, y), forward_tolerance(narrow, x, y))}
    if steady_log_det(narrow, x):
        log_det = narrow.evaluate_log_det(x, 0)
        compared["log_det"] = log_det_gap(narrow, x, log_det, wide.evaluate_log_det(x.astype(np.float64), 0))
    rounding = "twice the rounding of one float32 evaluation"
    for name, (apart, bound) in compared.items():
        at = worst(apart, bound)
        if not (apart <= bound).all():
            return Outcome(
                "failed",
                f"{name}: expected float32 and float64 networks with the same weights to agree to {bound[at]:.2e}, got a "
                f"difference of {apart[at]:.2e}; look for what depends on the dtype",
                {"gap": float(apart[at]), "callable": name},
                f"{bound[at]:.2e} = {rounding}",
                "the float64 network",
                Counterexample({"x": x}),
            )
    evidence = {f"largest_ratio_{n}": float((apart / bound).max()) for n, (apart, bound) in compared.items()}
    return Outcome("passed", "both precisions agree", evidence, rounding, "the float64 network")


def _built(ctx: Context, dtype: str, source: Any) -> Context:
    """A newly built network of that dtype with the state of `source`."""
    assert ctx.subject.fresh is not None
    made = ctx.subject.fresh(dtype=dtype, device=ctx.subject.device)
    if made.dtype != dtype:
        raise SubjectError(f"fresh(dtype={dtype!r}): expected a Subject with dtype={dtype!r}, got {made.dtype!r}; "
                           "pass the dtype on to the network and to Subject(dtype=…)")
    made.module.load_state_dict(source.state_dict())
    return context_of(ctx, made)


@check(
    "parity.packed-log-det",
    claim="The log-det that forward returns is the one that log_det returns.",
    reference="both are log|det dF/dx|",
    kind="search",
    needs=("log_det",),
    cost="one evaluation",
    catches="a sign convention in one of them, the log-det of the inverse, a sum over the batch",
)
def packed_log_det(ctx: Context) -> Outcome:
    """Compare the two at the same x."""
    if not ctx.conventions.packed.get("forward", False):
        return Outcome("skipped", "forward returns y alone")
    warm_up(ctx)
    x = ctx.inputs(ctx.rows)
    if not steady_log_det(ctx, x):
        return Outcome("skipped", "the log-det is random, or has no value, in this mode")
    with ctx.guard():
        packed = ctx.host(ctx.raw_forward(ctx.native(x), seed=0)[1]).astype(np.float64)
    separate = ctx.evaluate_log_det(x, 0)
    apart, bound = log_det_gap(ctx, x, separate, packed)
    at = worst(apart, bound)
    evidence = {"gap": float(apart[at]), "largest_ratio": float(apart[at] / bound[at])}
    if (apart <= bound).all():
        return Outcome("passed", "both agree", evidence, f"{bound[at]:.2e} = {ROUNDING}", "the separate log_det")
    return Outcome(
        "failed",
        f"expected the packed log-det to equal log_det(x), got {packed[at]:.6g} and {separate[at]:.6g} on row {at}; look at the sign",
        evidence,
        f"{bound[at]:.2e} = {ROUNDING}",
        "the separate log_det",
        Counterexample(
            {"x": x, "row": int(at), "bound": float(bound[at])}, measures.log_det_disagreement if ctx.framework.name == "torch" else None
        ),
    )
