"""Rows and batches: every row is answered by itself, whatever its company, and no batch is silently misread."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.comparisons import (
    Values,
    evaluate,
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
from iresnet_verify.subject import outputs
from iresnet_verify.subject.conventions import explain

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

ROUNDING = "2·(64u·(‖x‖+‖y‖+√d) + conditioning): two evaluations, each to rounding"
RANDOM_FORWARD = "y differs between seeds in this mode, so evaluations of different batches cannot be compared"


@check(
    "hygiene.batch-independence",
    claim="Each row's y and log-det do not depend on the other rows: F(x)[i] = F(x[S])[j] where S[j] = i.",
    reference="F is a map of single events; a log-det per row is that of a block-diagonal Jacobian",
    kind="search",
    cost="12 batches of evaluations",
    catches="batch statistics, statistics over the wrong axis, a log-det averaged over the batch",
)
def batch_independence(ctx: Context) -> Outcome:
    """Permuted and smaller batches, and one row kept while all others are replaced."""
    warm_up(ctx)
    x = ctx.inputs(max(ctx.rows, 4))
    if not steady_forward(ctx, x):
        return Outcome("inconclusive", RANDOM_FORWARD)
    return _same_rows(ctx, x, _subsets(ctx, len(x)), steady_log_det(ctx, x))


def _subsets(ctx: Context, n: int) -> list[HostArray]:
    """A permutation, the first rows, every second row, pairs; each of at least two rows."""
    pairs = [np.array([i, (i + n // 2) % n]) for i in range(min(n, 8))]
    return [ctx.rng.permutation(n), np.arange(n - 1), np.arange(0, n, 2), np.arange(n)[::-1], *pairs]


def _same_rows(ctx: Context, x: HostArray, subsets: list[HostArray], with_log_det: bool) -> Outcome:
    whole = evaluate(ctx, x, log_det=with_log_det)
    bound_y = forward_tolerance(ctx, x, whole.y)
    largest = {"forward": 0.0, "log_det": 0.0}
    for rows in subsets:
        part = evaluate(ctx, x[rows], log_det=with_log_det)
        pairs = {"forward": (gap(part.y, whole.y[rows]), bound_y[rows])}
        if part.log_det is not None and whole.log_det is not None:
            pairs["log_det"] = log_det_gap(ctx, x[rows], part.log_det, whole.log_det[rows])
        for name, (apart, bound) in pairs.items():
            at = worst(apart, bound)
            largest[name] = max(largest[name], float(apart[at] / bound[at]))
            if not (apart <= bound).all():
                what = "y" if name == "forward" else "the log-det"
                return Outcome(
                    "failed",
                    f"expected {what} of a row to be the same in every batch, got a difference of {apart[at]:.2e} for "
                    f"row {rows[at]} between batches of {len(x)} and {len(rows)}; look for statistics over the batch "
                    "axis or a sum that includes it",
                    {"gap": float(apart[at]), "row": int(rows[at]), "rows": len(rows), "what": what},
                    f"{bound[at]:.2e} = {ROUNDING}", "the same row within another batch",
                    Counterexample({"x": x, "rows": rows, "at": at, "name": name, "bound": float(bound[at])},
                                   measures.depends_on_others),
                )
    evidence: dict[str, Any] = {"batches": len(subsets), "largest_ratio_y": largest["forward"]}
    if with_log_det:
        evidence["largest_ratio_log_det"] = largest["log_det"]
    elif ctx.f.log_det is not None:
        evidence["log_det"] = "not compared: it is random or has no value in this mode"
    return Outcome("passed", f"not refuted: {len(subsets)} other batches of the same rows", evidence, ROUNDING,
                   "the same row within another batch")


@check(
    "hygiene.single-row",
    claim="A batch of one row is answered with one row, equal to the same row within a larger batch.",
    reference="the contract of Subject: (batch, *event) in, (batch, *event) out, for every batch",
    kind="search",
    cost="six evaluations of one row",
    catches="squeeze() without an axis, statistics that need two rows",
)
def single_row(ctx: Context) -> Outcome:
    """Rows one at a time."""
    warm_up(ctx)
    x = ctx.inputs(max(min(ctx.rows, 6), 2))
    with_log_det = steady_log_det(ctx, x)
    try:
        evaluate(ctx, x[:1], log_det=ctx.f.log_det is not None)
    except Exception as error:
        return Outcome("failed", f"expected an answer for a batch of one row, got: {explain('forward', error)}",
                       {"exception": type(error).__name__}, counterexample=Counterexample({"x": x[:1]}))
    if not steady_forward(ctx, x):
        return Outcome("passed", "one row is answered with one row; values not compared: " + RANDOM_FORWARD)
    return _same_rows(ctx, x, [np.array([i]) for i in range(len(x))], with_log_det)


@check(
    "hygiene.empty-batch",
    claim="An empty batch is answered with an empty batch of the same event shape, or refused by an exception.",
    reference="the contract of Subject: (0, *event) in, (0, *event) out, or an exception",
    kind="proof",
    cost="one call of each callable",
    catches="reductions over nothing that invent a row",
)
def empty_batch(ctx: Context) -> Outcome:
    """Every array of the answer has no rows; constant log-dets of size 1 are a convention, not a mistake."""
    shape = (0, *ctx.subject.event_shape)
    nothing = np.zeros(shape, dtype=ctx.inputs(1).dtype)
    answers: dict[str, Any] = {}
    for name in ("forward", "inverse", "residual", "log_det", "inverse_log_det", "log_prob"):
        if getattr(ctx.subject, name) is None or name in ctx.conventions.broken:
            continue
        try:
            value = ctx.caller.invoke(name, ctx.native(nothing))
        except Exception as error:
            answers[name] = f"refused: {type(error).__name__}"
            continue
        log_det = value
        if name in ("forward", "inverse", "residual"):
            y, log_det, _ = outputs.unpack(name, value)
            got = tuple(getattr(y, "shape", ()))
            if got != shape:
                return _wrong_shape(name, shape, got, nothing)
        got = tuple(getattr(log_det, "shape", ()))
        if log_det is not None and math.prod(got) > 1:
            return _wrong_shape(name, (0,), got, nothing)
        answers[name] = "empty"
    return Outcome("passed", "every answer to an empty batch is empty, or a refusal", answers, "shapes are exact")


def _wrong_shape(name: str, expected: tuple[int, ...], got: tuple[int, ...], x: HostArray) -> Outcome:
    return Outcome(
        "failed", f"{name}: expected shape {expected} or an exception for input of shape {x.shape}, got {got}; "
        "reshape with the batch size of the input", {"expected": str(expected), "got": str(got), "callable": name},
        "shapes are exact", counterexample=Counterexample({"x": x, "name": name}, measures.wrong_shape),
    )


@check(
    "hygiene.non-finite-rows",
    claim="A row with NaN or inf never gives a finite y and never changes other rows (an exception is an answer too).",
    reference="non-finite input is an error or stays visible: never silent garbage",
    kind="search",
    cost="five batches of evaluations",
    catches="nan_to_num, clamps that hide NaN, reductions over the batch that spread it",
)
def non_finite_rows(ctx: Context) -> Outcome:
    """One row filled with NaN, inf or −inf, and one with a single NaN entry; the others compared with a clean batch."""
    warm_up(ctx)
    n = max(ctx.rows, 4)
    x, row = ctx.inputs(n), n // 2
    others = np.delete(np.arange(n), row)
    steady = steady_forward(ctx, x)
    clean = x.copy()
    clean[row] = 0.0
    base = Values(ctx.f.forward(clean, seed=0), None)
    bound = forward_tolerance(ctx, clean, base.y)[others]
    found: dict[str, Any] = {}
    for label, fill, whole in (("nan", math.nan, True), ("inf", math.inf, True), ("-inf", -math.inf, True),
                               ("one nan", math.nan, False)):
        bad = clean.copy()
        bad[row].reshape(-1)[: None if whole else 1] = fill
        try:
            y = ctx.f.forward(bad, seed=0)
        except Exception as error:
            found[label] = f"refused: {type(error).__name__}"
            continue
        if np.isfinite(y[row]).all() and not _saturates(ctx, clean, row, y[row], fill):
            return Outcome(
                "failed", f"expected a non-finite y (or an exception) for a row with {label}, got finite numbers; "
                "remove what replaces non-finite values, or raise", {"input": label},
                counterexample=Counterexample({"x": bad, "row": row}, measures.finite_for_bad_row))
        apart = gap(y[others], base.y[others])
        at = worst(apart, bound)
        if steady and not (apart <= bound).all():
            return Outcome(
                "failed", f"expected other rows to stay as they were beside a row with {label}, got row {others[at]} "
                f"changed by {apart[at]:.2e}; look for sums, maxima or stopping rules over the whole batch",
                {"input": label, "gap": float(apart[at]), "row": int(others[at])}, f"{bound[at]:.2e} = {ROUNDING}",
                "the same rows beside a finite row",
                Counterexample({"x": bad, "row": row, "at": int(others[at]), "bound": float(bound[at])},
                               measures.spoiled_by_bad_row))
        found[label] = "visible in its row, other rows unchanged"
    return Outcome("passed", "bad rows stay visible and alone", found, ROUNDING, "the same rows beside a finite row")


def _saturates(ctx: Context, clean: HostArray, row: int, y: HostArray, fill: float) -> bool:
    """Whether a finite y at ±inf is the limit of F there (a sigmoid at the end): equal at ±1e30 and at ±√max."""
    if not math.isinf(fill):
        return False
    far = []
    for size in (math.sqrt(float(np.finfo(clean.dtype).max)), min(1e30, float(np.finfo(clean.dtype).max) / 4)):
        x = clean.copy()
        x[row] = math.copysign(size, fill)
        far.append(ctx.f.forward(x, seed=0)[row])
    return bool((far[0] == y).all() and (far[1] == y).all())


@check(
    "hygiene.wrong-event-shape",
    claim="Events of another shape are refused, or mapped to events of that shape, or one of length 1 is broadcast; never cut.",
    reference="the contract of Subject: y has the shape of x",
    kind="search", modes=False,
    cost="three calls",
    catches="slices and broadcasts that accept any width",
)
def wrong_event_shape(ctx: Context) -> Outcome:
    """One more, one less, and a single coordinate along the first event axis."""
    warm_up(ctx)
    first, *rest = ctx.subject.event_shape or (1,)
    seen: dict[str, Any] = {}
    for k in dict.fromkeys((first + 1, first - 1, 1)):
        if k < 1 or k == first:
            continue
        x = ctx.rng.standard_normal((3, k, *rest)).astype(ctx.inputs(1).dtype)
        try:
            y = outputs.unpack("forward", ctx.caller.invoke("forward", ctx.native(x)))[0]
        except Exception as error:
            seen[str(x.shape[1:])] = f"refused: {type(error).__name__}"
            continue
        got = tuple(getattr(y, "shape", ()))
        if k == 1 and got == (3, first, *rest) and _is_broadcast(ctx, x, ctx.host(y)):
            seen[str(x.shape[1:])] = "broadcast, as arrays are"
            continue
        if got != x.shape:
            return _wrong_shape("forward", x.shape, got, x)
        seen[str(x.shape[1:])] = "accepted"
    return Outcome("passed", "other event shapes are refused or kept", seen, "shapes are exact")


def _is_broadcast(ctx: Context, x: Any, y: Any) -> bool:
    """Whether y is what forward gives for x repeated along its axis of length 1: the rule of every array library."""
    full = np.ascontiguousarray(np.broadcast_to(x, (len(x), *ctx.subject.event_shape)))
    return bool((gap(y, ctx.f.forward(full)) <= forward_tolerance(ctx, full, y)).all())
