"""The values of log-dets: measured, and explained by `log_dets`, `families` and `estimates`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from iresnet_verify.catalogue.shared.log_det_truth import truth_at
from iresnet_verify.diagnosis import families, log_dets
from iresnet_verify.diagnosis.case import SEED, Case
from iresnet_verify.diagnosis.estimates import POINT, Estimate, expectation, of_point_masses
from iresnet_verify.diagnosis.families import Family, Rows, of_matrix
from iresnet_verify.diagnosis.hypothesis import Array, Cause, Explanation, Prediction, explain
from iresnet_verify.diagnosis.parameter_parts import part_of_a_parameter
from iresnet_verify.diagnosis.parts import blocks, orders, parameters, with_parameter
from iresnet_verify.diagnosis.runs import misplaced_steps
from iresnet_verify.oracle import singular_values as singular
from iresnet_verify.subject.subject import HostArray

Values = Callable[[HostArray, int], Array]

DRAWS, SHARE, CLOSE = 64, 20, 0.1
"""Draws of a random log-det among which one in SHARE may pile up at a bound; a mean is 0 if it is known CLOSE enough."""
CHEAP, POOL = 32, 6
"""Up to d = CHEAP an explanation is confirmed at other inputs, chosen from POOL times as many."""
PER_BATCH = (log_dets.PERMUTED, log_dets.EPSILON, log_dets.BLOCK_FACTOR, log_dets.OFFSET, log_dets.FACTOR, log_dets.BATCH_FACTOR,
             log_dets.AFFINE, log_dets.CLAMPED, families.IDENTITY, families.JACOBIAN)
"""Causes whose detail is a fitted number or an order, which may be printed otherwise for another batch."""


OF_A_BATCH = (log_dets.PERMUTED, log_dets.ONE_ROW, log_dets.REDUCED, log_dets.BATCH_FACTOR, log_dets.CONSTANT)
"""Causes that two batches show, and one does not."""


def log_det(case: Case) -> Explanation | None:
    """Explain log_det(x) at the case's inputs."""
    ctx = case.ctx
    if ctx.f.log_det is None:
        return None
    return _explained(case, "log_det", ctx.evaluate_log_det, 1.0)


def is_wrong(case: Case) -> bool:
    """Whether log_det is deterministic and wrong at one of the case's inputs."""
    ctx, truth = case.ctx, case.truth
    if ctx.f.log_det is None:
        return False
    first, second = (ctx.evaluate_log_det(case.x, s) for s in (SEED, SEED + 1))
    return np.array_equal(first, second) and bool((np.abs(first - truth.value) > 8.0 * truth.slack).any())


def _of_blocks(case: Case, *, inverse: bool) -> tuple[tuple[tuple[Cause, Array, str], ...], tuple[Array, ...]]:
    """What the log-det would be of blocks that are put together wrongly, and that of each block; empty where F is no chain of blocks."""
    chain = blocks(case)
    if chain is None or case.ctx.d > singular.LARGE:
        return (), ()

    def value(block: Callable[[HostArray], HostArray], x: HostArray) -> Array:
        ctx = replace(case.ctx, subject=replace(
            case.ctx.subject, forward=lambda z: case.ctx.native(block(case.ctx.host(z))), inverse=None, residual=None, log_det=None))
        return truth_at(ctx, x).value

    def along(order: Sequence[int], x: HostArray) -> Array:
        total = np.zeros(len(x))
        for i in order:
            total, x = total + value(chain[i], x), chain[i](x)
        return total

    points = [case.x]
    for block in chain:
        points.append(block(points[-1]))
    own = [value(block, x) for block, x in zip(chain, points, strict=False)]
    found = [(log_dets.BLOCK_LEFT_OUT, sum(own) - part, f"block {i} of {len(chain)}") for i, part in enumerate(own, 1)
             if np.abs(sum(own) - part).max() > 64.0 * case.ctx.u]  # else it is 0
    if inverse:
        return tuple(found), tuple(own)
    found += [(log_dets.BLOCK_ORDER, along(order, case.x), words) for order, words in orders(len(chain))]
    found += [(log_dets.ALL_AT_X, sum((value(b, case.x) for b in chain), np.zeros(len(case.x))), "the input of the first"),
              (log_dets.ALL_AT_X, sum((value(b, x) for b, x in zip(chain, points[1:], strict=False)), np.zeros(len(case.x))),
               "its own output")]
    return tuple(found), tuple(own)


def _of_parameters(case: Case, sign: float) -> tuple[tuple[tuple[Cause, Array, str], ...], tuple[Family, ...]]:
    """The log-dets of the network with a parameter that is 0, and that is multiplied by c."""
    at = case.x if sign > 0.0 else case.y
    if sign < 0.0 or case.ctx.d > CHEAP:
        return (), ()
    A = case.truth.jacobian.residual
    without, families = [], []
    for name in parameters(case):
        def value(c: float, rows: Rows, name: str = name) -> Array:
            with with_parameter(case, name, c):
                return truth_at(case.ctx, at[rows]).value

        with with_parameter(case, name, 2.0):
            twice = truth_at(case.ctx, at).jacobian.residual
        close = 1e-9 * (1.0 + np.abs(A).max())
        if np.abs(twice - A).max() <= close or np.abs(twice - 2.0 * A).max() <= close:
            continue  # it does not matter, or J is proportional to it: see `families.JACOBIAN`
        rows = np.arange(len(at))
        without.append((log_dets.WITHOUT, value(0.0, rows), name))
        negated = value(-1.0, rows)
        if np.abs(negated + case.truth.value).max() > 1e-9:  # else it has the wrong sign itself
            without.append((log_dets.NEGATED, negated, name))
        families.append(Family(log_dets.OTHER_VALUE, value, f"{name} multiplied by {{c}}"))
    return tuple(without), tuple(families)


def inverse_log_det(case: Case) -> Explanation | None:
    """Explain inverse_log_det(F(x))."""
    call = case.ctx.f.inverse_log_det
    if call is None:
        return None
    return _explained(case, "inverse_log_det", lambda y, seed: call(y, seed=seed), -1.0)


def packed_log_det(case: Case) -> Explanation | None:
    """Explain the log-det that forward returns, where log_det is given as well."""
    ctx = case.ctx
    if ctx.subject.log_det is None or not ctx.caller.packed.get("forward", False):
        return None

    def packed(x: HostArray, seed: int) -> Array:
        with ctx.guard():
            value = ctx.raw_forward(ctx.native(x), seed=seed)[1]
            return np.asarray(ctx.host(value), dtype=np.float64).reshape(len(x))

    return _explained(case, "the log-det that forward returns", packed, 1.0)


def _elsewhere(case: Case, *, inverse: bool) -> dict[str, Array]:
    """log|det dF/dx| at other points than x, by name."""
    points = {"F(x)": case.y} if not inverse else {"y, not at x = F⁻¹(y)": case.y}
    if case.ctx.f.inverse is not None and not inverse:
        points["F⁻¹(x)"] = case.ctx.f.inverse(case.x, seed=SEED)
    points["0"] = np.zeros_like(case.x)
    return _log_dets_at(case, points)


def _further(case: Case, *, inverse: bool) -> dict[str, Array]:
    """The same at points that a slip of code may take."""
    x, f = case.x.astype(np.float64), case.ctx.f
    points = {"F(F(x))": f.forward(case.y, seed=SEED), "g(x)": case.residual(case.x), "(x + F(x))/2": (x + case.y) / 2.0, "−x": -x,
              "|x|": np.abs(x), "the components of x in reverse": np.flip(x, -1), "the components of x rolled by one": np.roll(x, 1, -1),
              "the components of x rolled back by one": np.roll(x, -1, -1), "the halves of x exchanged": np.roll(x, x.shape[-1] // 2, -1),
              "the mean of the batch": np.broadcast_to(x.mean(0), x.shape)}
    if inverse:
        points["F(y)"] = points.pop("F(F(x))")
    return _log_dets_at(case, points)


def _log_dets_at(case: Case, points: dict[str, HostArray]) -> dict[str, Array]:
    return {name: truth_at(case.ctx, p.astype(case.x.dtype)).value for name, p in points.items() if np.isfinite(p).all()}


def _of_points(case: Case, sign: float) -> tuple[Family, ...]:
    """The log-dets at c·x."""
    if case.ctx.d > CHEAP:
        return ()
    at = case.x if sign > 0.0 else case.y

    def scaled(c: float, rows: Rows) -> Array:
        return truth_at(case.ctx, (c * at[rows].astype(np.float64)).astype(at.dtype)).value

    return (Family(log_dets.AT_ANOTHER_POINT, scaled, "{c}·x" if sign > 0.0 else "{c}·y"),)


def made_of(case: Case, sign: float, *, more: bool = False) -> log_dets.Volumes:
    """What the wrong numbers may be made of; `more`: what costs many Jacobians as well."""
    truth = case.truth
    elsewhere, families = _elsewhere(case, inverse=sign < 0.0), of_matrix(truth.jacobian.residual)
    parts, own = _of_blocks(case, inverse=sign < 0.0)
    if more:
        without, stale = _of_parameters(case, sign)
        elsewhere |= _further(case, inverse=sign < 0.0)
        parts, families = parts + without, families + _of_points(case, sign) + stale
    return log_dets.Volumes(truth.jacobian.residual, truth.value, truth.slack, case.ctx.u, case.ctx.subject.event_shape, sign, elsewhere,
                            parts, own, families)


def _explained(case: Case, what: str, values: Values, sign: float) -> Explanation | None:
    truth, at = case.truth, case.x if sign > 0.0 else case.y
    known = np.isfinite(truth.slack) & np.isfinite(truth.value)
    first, second = values(at, SEED), values(at, SEED + 1)
    if not known.all():
        return None
    if not np.isfinite(first).all():
        return Explanation(log_dets.NOT_FINITE, what, "", len(first), 0.0, 0, f"It is at {int((~np.isfinite(first)).sum())} of "
                           f"{len(first)} inputs.")
    if not np.array_equal(first, second):
        return _random(case, what, values, at, made_of(case, sign, more=True))
    v = made_of(case, sign)
    found = explain(what, first, v.right, log_dets.predictions(v, first), levels=_levels(v))
    if found is not None and (case.ctx.d > CHEAP or _confirmed(case, what, values, found, sign)):
        return found
    if found is None and (np.abs(first - v.right) > 2.0 * v.slack).any():
        found = explain(what, first, None, log_dets.narrow(v, first, case.roughness(values) if sign > 0.0 else np.zeros(len(first))))
        if found is not None:
            return found
    return None if case.ctx.d > CHEAP else (part_of_a_parameter(case, what, values, sign) or _at_many(case, what, values, sign)
                                            or misplaced_steps.log_det(case, what, first, sign))


def _at_many(case: Case, what: str, values: Values, sign: float) -> Explanation | None:
    """What explains the case's own inputs together with those at the ends: the log-det has both signs there if it has them anywhere.

    What a batch has in common (one value, a sum, an order) is not asked: one batch cannot tell it from a value that it depends on.
    """
    other, slack = ends(case)
    if other is None or not np.isfinite(slack).all():
        return None
    both = case.at(np.concatenate([case.x, other.x]))
    got = values(both.x if sign > 0.0 else both.y, SEED)
    v = made_of(both, sign, more=True)
    if not (np.isfinite(v.slack).all() and np.isfinite(got).all()):
        return None
    return explain(what, got, v.right, [p for p in log_dets.predictions(v, got) if p.cause not in OF_A_BATCH],
                   levels=_levels(v))


def _levels(v: log_dets.Volumes) -> int | None:
    """The different right values, where there is more than one: of a constant any row is as good as another."""
    return v.levels if v.levels > 1 else None


def inverse_log_det_follows(case: Case) -> bool:
    """Whether inverse_log_det(y) is −log_det(inverse(y)), however wrong these are."""
    ctx, f = case.ctx, case.ctx.f
    if f.inverse is None or f.inverse_log_det is None or f.log_det is None:
        return False
    got, at = f.inverse_log_det(case.y, seed=SEED), -ctx.evaluate_log_det(f.inverse(case.y, seed=SEED), SEED)
    known = np.isfinite(case.truth.slack)
    return bool(known.any() and (np.abs(got - at) <= 8.0 * case.truth.slack)[known].all())


def ends(case: Case) -> tuple[Case | None, Array]:
    """The inputs at which the log-det is largest and smallest among many, and its slack there."""
    many = case.ctx.inputs(POOL * case.rows)
    truth = truth_at(case.ctx, many)
    known = np.flatnonzero(np.isfinite(truth.slack) & np.isfinite(truth.value))
    if len(known) < case.rows:
        return None, truth.slack
    order = known[np.argsort(truth.value[known])]
    ends = np.concatenate([order[: case.rows // 2], order[len(order) - (case.rows - case.rows // 2) :]])
    return case.at(many[ends]), truth.slack[ends]


def _confirmed(case: Case, what: str, values: Values, found: Explanation, sign: float) -> bool:
    """Whether the same cause explains other inputs, those where the log-det is largest and smallest among many."""
    other, _ = ends(case)
    if other is None:
        return True
    v = made_of(other, sign)
    got = values(other.x if sign > 0.0 else other.y, SEED)
    there = explain(what, got, None, [p for p in log_dets.predictions(v, got) if p.cause.name == found.cause.name])
    return there is not None and (bool(there.detail == found.detail) or found.cause in PER_BATCH)


def _clamped(case: Case, what: str, values: Values, sign: float) -> Explanation | None:
    """Explain draws that pile up at one value, the same for all rows, which bounds them on one side."""
    there = ends(case)[0] or case
    if np.ptp(there.truth.value) <= 8.0 * there.truth.slack.max():
        return None
    at = there.x if sign > 0.0 else there.y
    draws = np.stack([values(at, SEED + 1 + i) for i in range(DRAWS)])
    for bound, words in ((draws.min(), "below"), (draws.max(), "above")):
        share = (draws == bound).mean(0)
        if (share > 1.0 / SHARE).sum() > 1 and (share < 1.0).any():
            return Explanation(log_dets.CLAMPED, what, f"none is {words} {bound:.6g}", len(at), 0.0, 0, f"Of {DRAWS} draws at each of "
                               f"{len(at)} inputs {int((draws == bound).sum())} are that number, to the last digit.")
    return None


def _random(case: Case, what: str, values: Values, at: HostArray, v: log_dets.Volumes) -> Explanation | None:
    few = min(4, len(at))
    small = log_dets.Volumes(v.A[:few], v.t[:few], v.slack[:few], v.u, v.event, v.sign, {k: a[:few] for k, a in v.elsewhere.items()},
                             tuple((cause, a[:few], words) for cause, a, words in v.of_parts), tuple(a[:few] for a in v.of_blocks),
                             v.families)
    estimate: Estimate = expectation(case, values, at[:few], small)
    clamped = _clamped(case, what, values, v.sign)
    if clamped is not None:
        return clamped
    rounding = estimate.tolerance
    made = [Prediction(p.cause, p.numbers, p.tolerance + (log_dets.fitting(rounding) if p.fitted else rounding), p.detail, p.fitted)
            for p in log_dets.predictions(small, estimate.value) if p.cause not in (log_dets.REDUCED, log_dets.PERMUTED, log_dets.ONE_ROW)]
    if rounding.max() > CLOSE * np.abs(small.t).max():  # of 0 a mean this far off says little
        made = [p for p in made if p.cause is not log_dets.ZERO]
    points = of_point_masses(estimate, small.right)
    if points is not None:
        made.append(Prediction(POINT, points, small.tolerance(points) + rounding))
    name = f"The expectation of {what}"
    sharp = explain(name, estimate.value, small.right, [p for p in made if not p.fitted])
    return sharp or estimate.explained(name, small) or explain(name, estimate.value, small.right, made)
