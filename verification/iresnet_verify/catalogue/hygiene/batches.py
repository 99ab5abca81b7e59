"""Rows and batches: the answer for a row does not depend on the other rows, and no batch is silently read as another shape."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.comparisons import (
    ROUNDING,
    evaluate,
    forward_deterministic,
    forward_tolerance,
    gap,
    log_det_deterministic,
    log_det_gap,
    warm_up,
)
from iresnet_verify.catalogue.shared.map_errors import promised, size
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import Comparison, verdict
from iresnet_verify.measurements import hygiene as measures
from iresnet_verify.subject import outputs
from iresnet_verify.subject.conventions import explain

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

RANDOM_FORWARD = "y differs between seeds in this mode, so evaluations of different batches cannot be compared"


@check(
    "hygiene.batch-independence",
    claim="Each row's y, residual and log-det do not depend on the other rows: F(x)[i] = F(x[S])[j] where S[j] = i.",
    reference="F is a map of single events; a log-det per row is that of a block-diagonal Jacobian",
    kind="search",
    cost="12 batches of evaluations",
    catches="batch statistics, statistics over the wrong axis, a log-det averaged over the batch",
)
def batch_independence(ctx: Context) -> Outcome:
    """Permuted and smaller batches, and one row kept while all others are replaced."""
    warm_up(ctx)
    x = ctx.inputs(max(ctx.rows, 4))
    if not forward_deterministic(ctx, x):
        return Outcome("inconclusive", RANDOM_FORWARD)
    return _same_rows(ctx, x, _subsets(ctx, len(x)), log_det_deterministic(ctx, x))


def _subsets(ctx: Context, n: int) -> list[HostArray]:
    """A permutation, the first rows, every second row, pairs; each of at least two rows."""
    pairs = [np.array([i, (i + n // 2) % n]) for i in range(min(n, 8))]
    return [ctx.rng.permutation(n), np.arange(n - 1), np.arange(0, n, 2), np.arange(n)[::-1], *pairs]


def _same_rows(ctx: Context, x: HostArray, subsets: list[HostArray], with_log_det: bool) -> Outcome:
    whole = evaluate(ctx, x, log_det=with_log_det)
    g = None if ctx.f.residual is None else ctx.f.residual(x, seed=0)
    bound = forward_tolerance(ctx, x, whole.y)
    errors, bounds = dict[Any, Any](), dict[Any, Any]()
    for k, rows in enumerate(subsets):
        part = evaluate(ctx, x[rows], log_det=with_log_det)
        errors["forward", k], bounds["forward", k] = gap(part.y, whole.y[rows]), bound[rows]
        if g is not None and ctx.f.residual is not None:
            errors["residual", k], bounds["residual", k] = gap(ctx.f.residual(x[rows], seed=0), g[rows]), bound[rows]
        if part.log_det is not None and whole.log_det is not None:
            errors["log_det", k], bounds["log_det", k] = log_det_gap(ctx, x[rows], part.log_det, whole.log_det[rows])
    random = {} if with_log_det or ctx.f.log_det is None else {"log_det": "not compared: it is random or has no value in this mode"}

    def counterexample(at: Comparison) -> Counterexample:
        name, k = at.case
        return Counterexample({"x": x, "rows": subsets[k], "at": at.row, "name": name, "bound": at.bound}, measures.depends_on_others)

    return verdict(
        errors, bounds,
        expected="y, the residual and the log-det of a row to be the same in every batch",
        got=lambda at: f"a difference of {at.error:.2e} in {at.case[0]} for row {subsets[at.case[1]][at.row]} between batches of "
        f"{len(x)} and {len(subsets[at.case[1]])}",
        remedy="look for statistics over the batch axis or a sum that includes it",
        passed=f"not refuted: {len(subsets)} other batches of the same rows", tolerance=ROUNDING,
        oracle="the same row within another batch", evidence={"batches": len(subsets), **random}, counterexample=counterexample,
    )


@check(
    "hygiene.single-row",
    claim="A batch of one row is answered with one row, equal to the same row within a larger batch.",
    reference="the contract of Subject: (batch, *event) in, (batch, *event) out, for every batch",
    kind="search",
    cost="six evaluations of one row",
    catches="squeeze() without an axis, of y or of the log-det; statistics that need two rows",
)
def single_row(ctx: Context) -> Outcome:
    """Rows one at a time."""
    warm_up(ctx)
    x = ctx.inputs(max(min(ctx.rows, 6), 2))
    with_log_det = log_det_deterministic(ctx, x)
    try:
        evaluate(ctx, x[:1], log_det=ctx.f.log_det is not None)
    except Exception as error:
        return Outcome("failed", f"expected an answer for a batch of one row, got: {explain('forward', error)}",
                       {"exception": type(error).__name__}, counterexample=Counterexample({"x": x[:1]}))
    for name, axes in _without_batch_axis(ctx, x[:1]).items():
        return Outcome("failed", f"expected {name} to return shape (1,) at one row as it returns {axes} at more, got (); reshape with the "
                       "batch size of the input", {"compared": 1}, "shapes are exact", "the shape at several rows",
                       Counterexample({"x": x[:1]}))
    if not forward_deterministic(ctx, x):
        return Outcome("skipped", "one row is answered with one row; values not compared: " + RANDOM_FORWARD, {"compared": 0})
    return _same_rows(ctx, x, [np.array([i]) for i in range(len(x))], with_log_det)


def _without_batch_axis(ctx: Context, x: HostArray) -> dict[str, str]:
    """Callables with a number for each row of a batch, (B,) or (B, 1), that have no axis at all at one row: their form at more."""
    found = {}
    for name in ("forward", "log_det", "log_prob"):
        key = "forward's log-det" if name == "forward" else name
        axes = ctx.conventions.formats.get(key, "")
        if not axes.startswith("(B"):
            continue
        value = ctx.caller.invoke(name, ctx.native(x))
        value = outputs.unpack(name, value)[1] if name == "forward" else value
        if tuple(getattr(value, "shape", ())) == ():
            found[key] = axes
    return found


@check(
    "hygiene.context-of-each-row",
    claim="Each row is mapped by its own conditioning event: F(x; c)[i] = F(x_i; c_i), for the inverse and the log-det too.",
    reference="the contract of Subject: (batch, *context_shape) beside (batch, *event)", kind="search", needs=("context_shape",),
    cost="a batch and its rows one by one, of each callable",
    catches="the first row's context for all rows, contexts averaged over the batch or in another order than the rows",
)
def context_of_each_row(ctx: Context) -> Outcome:
    """Another context for each of six rows, against the same row alone with the same context."""
    warm_up(ctx)
    assert ctx.subject.context_shape is not None
    x = ctx.inputs(6)
    c = ctx.rng.standard_normal((len(x), *ctx.subject.context_shape))
    with_log_det = log_det_deterministic(ctx, x)
    y = ctx.f.forward(x, seed=0, context=c)
    together = {"forward": y}
    if ctx.f.residual is not None:
        together["residual"] = ctx.f.residual(x, seed=0, context=c)
    if ctx.f.log_det is not None and with_log_det:
        together["log_det"] = ctx.f.log_det(x, seed=0, context=c)
    if ctx.f.inverse is not None:
        together["inverse"] = ctx.f.inverse(y, seed=0, context=c)
    errors, bounds = dict[Any, Any](), dict[Any, Any]()
    for i in range(len(x)):
        alone = replace(ctx, conventions=replace(ctx.conventions, context_row=c[i]))
        row, image = x[i : i + 1], y[i : i + 1]
        for name, values in together.items():
            own = getattr(alone.f, name)(image if name == "inverse" else row, seed=0)
            if name == "log_det":
                errors[name, i], bounds[name, i] = log_det_gap(alone, row, own, values[i : i + 1])
                continue
            errors[name, i], bounds[name, i] = gap(own, values[i : i + 1]), forward_tolerance(alone, row, image)
            if name == "inverse":
                bounds[name, i] = bounds[name, i] + 2.0 * promised(ctx)[0] * size(row)
    return verdict(
        errors, bounds,
        expected="each row to be mapped by its own context",
        got=lambda at: f"a difference of {at.error:.2e} in {at.case[0]} for row {at.case[1]} between six contexts and its own alone",
        remedy="give every row its own row of the context",
        passed="six rows with six contexts are as they are alone", tolerance=ROUNDING, oracle="the same row alone",
        counterexample=lambda at: Counterexample({"x": x, "context": c}),
    )


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
    empty = np.zeros(shape, dtype=ctx.inputs(1).dtype)
    answers, notes = list[Answer](), dict[str, str]()
    for name in ("forward", "inverse", "residual", "log_det", "inverse_log_det", "log_prob"):
        if getattr(ctx.subject, name) is None or name in ctx.conventions.broken:
            continue
        try:
            value = ctx.caller.invoke(name, ctx.native(empty))
        except Exception as error:
            notes[name] = f"refused: {type(error).__name__}"
            answers.append(Answer(name, empty, shape, None))
            continue
        log_det = value
        if name in ("forward", "inverse", "residual"):
            y, log_det, _ = outputs.unpack(name, value)
            answers.append(Answer(name, empty, shape, tuple(getattr(y, "shape", ()))))
        got = tuple(getattr(log_det, "shape", ()))
        if log_det is not None:
            answers.append(Answer(name, empty, (0,), got if math.prod(got) > 1 else None))
    return _right_shapes(answers, "every answer to an empty batch is empty, or a refusal", notes)


@dataclass(frozen=True)
class Answer:
    """The shape that a call should answer x with, and the one it answers with; None where it refuses or any size is right."""

    name: str
    x: HostArray
    expected: tuple[int, ...]
    got: tuple[int, ...] | None


def _right_shapes(answers: list[Answer], passed: str, notes: dict[str, str]) -> Outcome:
    def counterexample(at: Comparison) -> Counterexample:
        return Counterexample({"x": answers[at.row].x, "name": answers[at.row].name}, measures.wrong_shape)

    return verdict(
        [float(a.got is not None and a.got != a.expected) for a in answers], 0.0,
        expected=lambda at: f"{answers[at.row].name} to return shape {answers[at.row].expected} or to raise for input of shape "
        f"{answers[at.row].x.shape}",
        got=lambda at: str(answers[at.row].got),
        remedy="reshape with the batch size of the input",
        passed=passed, tolerance="shapes are exact", oracle="the shape of the argument", evidence=notes, counterexample=counterexample,
    )


@check(
    "hygiene.non-finite-rows",
    claim="A row with NaN or inf never gives a finite y and never changes other rows (an exception is an answer too).",
    reference="non-finite input is an error or stays visible: never a finite number of no meaning",
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
    clean = x.copy()
    clean[row] = 0.0
    base = ctx.f.forward(clean, seed=0)
    steady, bound = forward_deterministic(ctx, x), forward_tolerance(ctx, clean, base)[others]
    errors, bounds, inputs, notes = dict[Any, Any](), dict[Any, Any](), dict[str, Any](), dict[str, str]()
    for label, fill, whole in (("nan", math.nan, True), ("inf", math.inf, True), ("-inf", -math.inf, True),
                               ("one nan", math.nan, False)):
        bad = inputs[label] = clean.copy()
        bad[row].reshape(-1)[: None if whole else 1] = fill
        try:
            y = ctx.f.forward(bad, seed=0)
        except Exception as error:
            notes[label] = f"refused: {type(error).__name__}"
            errors["finite", label], bounds["finite", label] = 0.0, 0.0
            continue
        hidden = np.isfinite(y[row]).all() and not _saturates(ctx, clean, row, y[row], fill)
        errors["finite", label], bounds["finite", label] = float(hidden), 0.0
        if steady:
            errors["others", label], bounds["others", label] = gap(y[others], base[others]), bound

    def got(at: Comparison) -> str:
        kind, label = at.case
        if kind == "finite":
            return f"finite numbers for a row with {label}"
        return f"row {others[at.row]} changed by {at.error:.2e} in a batch where another row has {label}"

    def counterexample(at: Comparison) -> Counterexample:
        kind, label = at.case
        if kind == "finite":
            return Counterexample({"x": inputs[label], "row": row}, measures.finite_for_bad_row)
        return Counterexample({"x": inputs[label], "row": row, "at": int(others[at.row]), "bound": at.bound}, measures.changed_by_bad_row)

    return verdict(
        errors, bounds,
        expected="a non-finite y (or an exception) for a row with NaN or inf, and other rows as they are in a finite batch",
        got=got,
        remedy="remove what replaces non-finite values, and sums, maxima or stopping rules over the whole batch",
        passed="non-finite rows stay visible and change no other row", tolerance=ROUNDING,
        oracle="the same rows in a batch without non-finite numbers", evidence=notes, counterexample=counterexample,
    )


def _saturates(ctx: Context, clean: HostArray, row: int, y: HostArray, fill: float) -> bool:
    """Whether a finite y at ±inf is the limit of F there (a sigmoid at the end): equal at ±1e30 and at ±√max."""
    if not math.isinf(fill):
        return False
    far = []
    for magnitude in (math.sqrt(float(np.finfo(clean.dtype).max)), min(1e30, float(np.finfo(clean.dtype).max) / 4)):
        x = clean.copy()
        x[row] = math.copysign(magnitude, fill)
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
    answers, notes = list[Answer](), dict[str, str]()
    for k in dict.fromkeys((first + 1, first - 1, 1)):
        if k < 1 or k == first:
            continue
        x = ctx.rng.standard_normal((3, k, *rest)).astype(ctx.inputs(1).dtype)
        event = str(x.shape[1:])
        try:
            y = outputs.unpack("forward", ctx.caller.invoke("forward", ctx.native(x)))[0]
        except Exception as error:
            notes[event] = f"refused: {type(error).__name__}"
            answers.append(Answer("forward", x, x.shape, None))
            continue
        got = tuple(getattr(y, "shape", ()))
        broadcast = k == 1 and got == (3, first, *rest) and _is_broadcast(ctx, x, ctx.host(y))
        notes[event] = "broadcast, as arrays are" if broadcast else "accepted" if got == x.shape else f"mapped to {got[1:]}"
        answers.append(Answer("forward", x, x.shape, None if broadcast else got))
    return _right_shapes(answers, "other event shapes are refused or kept", notes)


def _is_broadcast(ctx: Context, x: Any, y: Any) -> bool:
    """Whether y is what forward gives for x repeated along its axis of length 1: the rule of every array library."""
    full = np.ascontiguousarray(np.broadcast_to(x, (len(x), *ctx.subject.event_shape)))
    return bool((gap(y, ctx.f.forward(full)) <= forward_tolerance(ctx, full, y)).all())
