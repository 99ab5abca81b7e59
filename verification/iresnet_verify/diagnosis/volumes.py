"""The values of log-dets and densities: measured, and explained by `log_dets`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from iresnet_verify.catalogue.shared.log_det_truth import truth_at
from iresnet_verify.diagnosis import log_dets
from iresnet_verify.diagnosis.case import SEED, Case
from iresnet_verify.diagnosis.estimates import POINT, Estimate, expectation, of_point_masses
from iresnet_verify.diagnosis.hypothesis import Array, Cause, Explanation, Prediction, explain
from iresnet_verify.diagnosis.parts import blocks
from iresnet_verify.oracle import singular_values as singular
from iresnet_verify.subject.subject import HostArray

Values = Callable[[HostArray, int], Array]

CHEAP, POOL = 32, 6
"""Up to d = CHEAP an explanation is confirmed at other inputs, chosen from POOL times as many."""
PER_BATCH = (log_dets.PERMUTED, log_dets.EPSILON, log_dets.OFFSET, log_dets.FACTOR)
"""Causes whose detail is a fitted number or an order, which may be printed otherwise for another batch."""

NO_LOG_DET = Cause("log-det-missing", "{what} is the base density at F(x) alone: the log-det is missing.", "Add log|det dF/dx|.")
BASE_AT_X_ALONE = Cause("base-at-x-and-no-log-det", "{what} is the base density at x: neither F nor its log-det is in it.",
                        "Return base_log_prob(F(x)) + log|det dF/dx|.")
HALVED = Cause("log-det-halved", "{what} takes half of the log-det.", "Add all of it.")
TWICE = Cause("log-det-twice", "{what} adds the log-det twice.", "Add it once.")
BASE_AT_X = Cause("base-at-x", "{what} takes the base density at x, not at F(x).", "Evaluate the base density at F(x).")


def log_det(case: Case) -> Explanation | None:
    """Explain log_det(x) at the case's inputs."""
    ctx = case.ctx
    if ctx.f.log_det is None:
        return None
    return _explained(case, "log_det", ctx.evaluate_log_det, case.x, 1.0, _elsewhere(case, inverse=False), _of_blocks(case))


def _of_blocks(case: Case) -> tuple[tuple[Cause, Array, str], ...]:
    """What the log-det would be of blocks that are put together wrongly; () where F is no chain of blocks."""
    chain = blocks(case)
    if chain is None or case.ctx.d > singular.LARGE:
        return ()

    def value(block: Callable[[HostArray], HostArray], x: HostArray) -> Array:
        ctx = replace(case.ctx, subject=replace(
            case.ctx.subject, forward=lambda z: case.ctx.native(block(case.ctx.host(z))), inverse=None, residual=None, log_det=None))
        return truth_at(ctx, x).value

    def along(order: list[Callable[[HostArray], HostArray]], x: HostArray) -> Array:
        total = np.zeros(len(x))
        for block in order:
            total, x = total + value(block, x), block(x)
        return total

    points = [case.x]
    for block in chain:
        points.append(block(points[-1]))
    own = [value(block, x) for block, x in zip(chain, points, strict=False)]
    found = [(log_dets.BLOCK_ORDER, along(chain[::-1], case.x), ""),
             (log_dets.ALL_AT_X, sum((value(b, case.x) for b in chain), np.zeros(len(case.x))), "the input of the first"),
             (log_dets.ALL_AT_X, sum((value(b, x) for b, x in zip(chain, points[1:], strict=False)), np.zeros(len(case.x))),
              "its own output")]
    found += [(log_dets.BLOCK_LEFT_OUT, sum(own) - part, f"block {i} of {len(chain)}") for i, part in enumerate(own, 1)]
    return tuple(found)


def inverse_log_det(case: Case) -> Explanation | None:
    """Explain inverse_log_det(F(x))."""
    call = case.ctx.f.inverse_log_det
    if call is None:
        return None
    return _explained(case, "inverse_log_det", lambda y, seed: call(y, seed=seed), case.y, -1.0, _elsewhere(case, inverse=True))


def packed_log_det(case: Case) -> Explanation | None:
    """Explain the log-det that forward returns, where log_det is given as well."""
    ctx = case.ctx
    if ctx.subject.log_det is None or not ctx.caller.packed.get("forward", False):
        return None

    def packed(x: HostArray, seed: int) -> Array:
        with ctx.guard():
            value = ctx.raw_forward(ctx.native(x), seed=seed)[1]
            return np.asarray(ctx.host(value), dtype=np.float64).reshape(len(x))

    return _explained(case, "the log-det that forward returns", packed, case.x, 1.0, _elsewhere(case, inverse=False))


def _elsewhere(case: Case, *, inverse: bool) -> dict[str, Array]:
    """log|det dF/dx| at other points than x, by name."""
    points = {"F(x)": case.y} if not inverse else {"y, not at x = F⁻¹(y)": case.y}
    if case.ctx.f.inverse is not None and not inverse:
        points["F⁻¹(x)"] = case.ctx.f.inverse(case.x, seed=SEED)
    points["0"] = np.zeros_like(case.x)
    return {name: truth_at(case.ctx, p).value for name, p in points.items() if np.isfinite(p).all()}


def _explained(
    case: Case, what: str, values: Values, at: HostArray, sign: float, elsewhere: dict[str, Array],
    of_blocks: tuple[tuple[Cause, Array, str], ...] = (),
) -> Explanation | None:
    truth = case.truth
    known = np.isfinite(truth.slack) & np.isfinite(truth.value)
    first, second = values(at, SEED), values(at, SEED + 1)
    v = log_dets.Volumes(truth.jacobian.residual, truth.value, truth.slack, case.ctx.u, case.ctx.subject.event_shape, sign, elsewhere,
                         of_blocks)
    if not known.all():
        return None
    if not np.isfinite(first).all():
        return Explanation(log_dets.NOT_FINITE, what, "", len(first), 0.0, 0)
    if not np.array_equal(first, second):
        return _random(case, what, values, at, v)
    found = explain(what, first, v.right, log_dets.predictions(v, first))
    if found is not None and case.ctx.d <= CHEAP:
        return found if _confirmed(case, what, values, found, sign) else None
    if found is None:
        rough = case.roughness(values) if at is case.x else np.zeros(len(first))
        if (np.abs(first - v.right) > 2.0 * v.slack).any():
            found = explain(what, first, None, log_dets.narrow(v, first, rough))
    return found


def _confirmed(case: Case, what: str, values: Values, found: Explanation, sign: float) -> bool:
    """Whether the same cause explains other inputs, those where the log-det is largest and smallest among many."""
    many = case.ctx.inputs(POOL * case.rows)
    truth = truth_at(case.ctx, many)
    known = np.flatnonzero(np.isfinite(truth.slack) & np.isfinite(truth.value))
    if len(known) < case.rows:
        return True
    order = known[np.argsort(truth.value[known])]
    ends = np.concatenate([order[: case.rows // 2], order[len(order) - (case.rows - case.rows // 2) :]])
    other, slack = case.at(many[ends]), truth.slack[ends]
    v = log_dets.Volumes(truth.jacobian.residual[ends], truth.value[ends], slack, case.ctx.u, case.ctx.subject.event_shape, sign,
                         _elsewhere(other, inverse=sign < 0.0), _of_blocks(other) if sign > 0.0 else ())
    got = values(other.x if sign > 0.0 else other.y, SEED)
    there = explain(what, got, None, [p for p in log_dets.predictions(v, got) if p.cause.name == found.cause.name])
    return there is not None and (bool(there.detail == found.detail) or found.cause in PER_BATCH)


def _random(case: Case, what: str, values: Values, at: HostArray, v: log_dets.Volumes) -> Explanation | None:
    few = min(4, len(at))
    small = log_dets.Volumes(v.A[:few], v.t[:few], v.slack[:few], v.u, v.event, v.sign, {k: a[:few] for k, a in v.elsewhere.items()})
    estimate: Estimate = expectation(case, values, at[:few], small)
    rounding = estimate.tolerance
    made = [Prediction(p.cause, p.numbers, p.tolerance + rounding, p.detail, p.fitted)
            for p in log_dets.predictions(small, estimate.value) if p.cause not in (log_dets.REDUCED, log_dets.PERMUTED, log_dets.ONE_ROW)]
    points = of_point_masses(estimate, small.right)
    if points is not None:
        made.append(Prediction(POINT, points, small.tolerance(points) + rounding))
    name = f"The expectation of {what}"
    sharp = explain(name, estimate.value, small.right, [p for p in made if not p.fitted])
    return sharp or estimate.explained(name, small) or explain(name, estimate.value, small.right, made)


def log_prob(case: Case) -> Explanation | None:
    """Explain log_prob(x) by the base density and the log-det."""
    f = case.ctx.f
    if f.log_prob is None or f.base_log_prob is None:
        return None
    got, again = f.log_prob(case.x, seed=SEED), f.log_prob(case.x, seed=SEED + 1)
    if not np.array_equal(got, again):
        return None
    base, at_x, t = f.base_log_prob(case.y, seed=SEED), f.base_log_prob(case.x, seed=SEED), case.truth.value
    right = base + t
    slack = 8.0 * case.truth.slack + 64.0 * case.ctx.u * (np.abs(base) + np.abs(t) + case.ctx.d + case.size**2)

    def made() -> Iterator[Prediction]:
        d = case.ctx.d
        yield Prediction(log_dets.SIGN, base - t, slack)
        yield Prediction(NO_LOG_DET, base, slack)
        yield Prediction(BASE_AT_X, at_x + t, slack)
        yield Prediction(BASE_AT_X_ALONE, at_x, slack)
        yield Prediction(HALVED, base + t / 2.0, slack)
        yield Prediction(TWICE, base + 2.0 * t, slack)
        named = {0.5 * math.log(2 * math.pi): "½·log 2π (one dimension of the base)", 0.5 * d * math.log(2 * math.pi): "d/2·log 2π",
                 d * math.log(2.0): "d·log 2", d * math.log(256.0): "d·log 256"}
        for c, words in named.items():
            for sign in (1.0, -1.0):
                yield Prediction(log_dets.OFFSET, right + sign * c, slack, ("" if sign > 0 else "−") + words)
        for c, words in ((1 / math.log(2.0), "1/log 2 (it is in bits)"), (1.0 / d, "1/d"), (1 / (d * math.log(2.0)), "1/(d·log 2)"),
                         (-1.0, "−1")):
            yield Prediction(log_dets.FACTOR, right * c, slack, words)
        c = float(np.median(got - right))
        yield Prediction(log_dets.OFFSET, right + c, slack, f"{c:.6g}", 1)
        c = float(got[0] / right[0])
        yield Prediction(log_dets.FACTOR, c * right, slack, f"{c:.6g}", 1)

    return explain("log_prob", got, right, made())
