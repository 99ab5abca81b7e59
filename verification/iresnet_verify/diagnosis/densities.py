"""Hypotheses of a density: which log-det, or which base density, stands in log p(x) = log p₀(F(x)) + log|det dF/dx|."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from iresnet_verify.catalogue.shared.log_det_truth import truth_at
from iresnet_verify.diagnosis import log_dets
from iresnet_verify.diagnosis.case import SEED, Case
from iresnet_verify.diagnosis.hypothesis import SPARE, Array, Cause, Explanation, Prediction, explain
from iresnet_verify.diagnosis.volumes import made_of

SPREAD = 48
"""Inputs at which a cut is looked for."""
RIGHT = "Return base_log_prob(F(x)) + log|det dF/dx|."
NO_LOG_DET = Cause("log-det-missing", "{what} is the base density at F(x) alone: the log-det is missing.", "Add log|det dF/dx|.")
BASE_AT_X_ALONE = Cause("base-at-x-and-no-log-det", "{what} is the base density at x: neither F nor its log-det is in it.", RIGHT)
HALVED = Cause("log-det-halved", "{what} takes half of the log-det.", "Add all of it.")
TWICE = Cause("log-det-twice", "{what} adds the log-det twice.", "Add it once.")
BASE_AT_X = Cause("base-at-x", "{what} takes the base density at x, not at F(x).", "Evaluate the base density at F(x).")
BASE_AT_X_SIGN = Cause("base-at-x-and-sign", "{what} takes the base density at x and subtracts the log-det: it is the density of F of a "
                       "draw, asked for at F(x).", RIGHT)
OTHER_WAY = Cause("density-of-the-other-direction", "{what} is the density of F(z) at x for z from the base, where F(x) follows the base.",
                  RIGHT)
NO_BASE = Cause("base-missing", "{what} is the log-det alone.", "Add the base density at F(x).")
ELSEWHERE = Cause("base-at-another-point", "{what} takes the base density at {detail}, not at F(x).", "Evaluate the base density at F(x).")
COEFFICIENTS = Cause("density-weights", "{what} is {detail}.", "Add the base density at F(x) and the log-det, each once.")
BASE_FACTOR = Cause("base-factor", "{what} takes the base density times {detail}.", "Take the base density as it is.")
LOG_DET_FACTOR = Cause("log-det-factor", "{what} takes {detail} times the log-det.", "Take the log-det as it is.")
VALUE = Cause("base-of-another-row", "{what} takes the base density of {detail}.", "Sum over the axes of the event only.")


def log_prob(case: Case) -> Explanation | None:
    """Explain log_prob(x) by the base density and the log-det."""
    f = case.ctx.f
    if f.log_prob is None or f.base_log_prob is None:
        return None
    got, again = f.log_prob(case.x, seed=SEED), f.log_prob(case.x, seed=SEED + 1)
    if not np.array_equal(got, again) or not np.isfinite(got).all():
        return None
    base, t = f.base_log_prob(case.y, seed=SEED), case.truth.value
    slack = 8.0 * case.truth.slack + 64.0 * case.ctx.u * (np.abs(base) + np.abs(t) + case.ctx.d + case.size**2)
    found = explain("log_prob", got, base + t, _predictions(case, got, base, t, slack))
    if found is not None:
        return found
    found = _clamped(case)
    if found is not None:
        return found
    v = made_of(case, 1.0, more=True)  # the rest is a wrong log-det
    volumes = [Prediction(p.cause, p.numbers, p.tolerance + slack, p.detail, p.fitted) for p in log_dets.predictions(v, got - base)]
    return explain("The log-det in log_prob", got - base, t, volumes)


def _clamped(case: Case) -> Explanation | None:
    """Explain a density that is cut off, at inputs where it is large and where it is small."""
    f = case.ctx.f
    assert f.log_prob is not None
    assert f.base_log_prob is not None
    sizes = np.geomspace(0.01, 3.0, SPREAD).reshape(-1, *[1] * (case.x.ndim - 1))
    z = (sizes * np.resize(case.y, (SPREAD, *case.y.shape[1:]))).astype(case.x.dtype)
    there = case.at(z if f.inverse is None else f.inverse(z, seed=SEED))
    got, base, t = f.log_prob(there.x, seed=SEED), f.base_log_prob(there.y, seed=SEED), there.truth.value
    slack = 8.0 * there.truth.slack + 64.0 * case.ctx.u * (np.abs(base) + np.abs(t) + case.ctx.d + there.size**2)
    known = np.isfinite(slack) & np.isfinite(base + t)
    got, right, slack = got[known], (base + t)[known], slack[known]
    made = []
    for low, high in ((got.min(), np.inf), (-np.inf, got.max()), (got.min(), got.max())):
        bound = (got == low) | (got == high)
        if bound.sum() > SPARE and (~bound).sum() > SPARE:
            words = " or ".join(f"{side} {c:.6g}" for side, c in (("below", low), ("above", high)) if np.isfinite(c))
            made.append(Prediction(log_dets.CLAMPED, np.clip(right, low, high), slack, f"none is {words}"))
    return explain("log_prob", got, right, made)


def log_prob_follows(case: Case) -> bool:
    """Whether log_prob(x) is base_log_prob(F(x)) + log_det(x), however wrong log_det is."""
    f = case.ctx.f
    if f.log_prob is None or f.base_log_prob is None or f.log_det is None:
        return False
    got, base, log_det = f.log_prob(case.x, seed=SEED), f.base_log_prob(case.y, seed=SEED), case.ctx.evaluate_log_det(case.x, SEED)
    slack = 8.0 * case.truth.slack + 64.0 * case.ctx.u * (np.abs(base) + np.abs(log_det) + case.ctx.d + case.size**2)
    known = np.isfinite(slack)
    return bool(known.any() and (np.abs(got - base - log_det) <= slack)[known].all())


def _predictions(case: Case, got: Array, base: Array, t: Array, slack: Array) -> Iterator[Prediction]:
    right, d = base + t, case.ctx.d
    at = _bases(case)
    yield Prediction(log_dets.SIGN, base - t, slack)
    yield Prediction(NO_LOG_DET, base, slack)
    yield Prediction(BASE_AT_X, at["x"] + t, slack)
    yield Prediction(BASE_AT_X_ALONE, at["x"], slack)
    yield Prediction(BASE_AT_X_SIGN, at["x"] - t, slack)
    yield Prediction(NO_BASE, t, slack)
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
    if "F⁻¹(x)" in at and case.ctx.f.inverse is not None:
        there = truth_at(case.ctx, case.ctx.f.inverse(case.x, seed=SEED))
        yield Prediction(OTHER_WAY, at["F⁻¹(x)"] - there.value, slack + 8.0 * there.slack)
    for name, value in at.items():
        if name != "x":
            yield Prediction(ELSEWHERE, value + t, slack, name)
    for words, other in (("the mean of the batch", base.mean()), ("all rows, added up,", base.sum()), ("the first row", base[0])):
        yield Prediction(VALUE, other + t, slack, words)
    pivot = int(np.argmax(np.abs(got - right)))
    yield Prediction(log_dets.OFFSET, right + (got - right)[pivot], slack, f"{(got - right)[pivot]:.6g}", 1)
    c = float(got[pivot] / right[pivot])
    yield Prediction(log_dets.FACTOR, c * right, slack, f"{c:.6g}", 1)
    c = float((got - t)[pivot] / base[pivot])
    yield Prediction(BASE_FACTOR, c * base + t, slack, f"{c:.6g}", 1)
    c = float((got - base)[pivot] / t[pivot])
    yield Prediction(LOG_DET_FACTOR, base + c * t, slack, f"{c:.6g}", 1)
    (a, b), *_ = np.linalg.lstsq(np.stack([right, np.ones(len(t))], 1), got, rcond=None)
    yield Prediction(log_dets.AFFINE, a * right + b, slack, f"{a:.6g} times what it should be and {b:+.6g}", 2)
    for name, value in {"F(x)": base, **at}.items():
        (a, b), *_ = np.linalg.lstsq(np.stack([value, t], 1), got, rcond=None)
        words = f"{a:.6g} times the base density at {name} and {b:.6g} times the log-det"
        yield Prediction(COEFFICIENTS, a * value + b * t, slack, words, 2)
    (a, b), *_ = np.linalg.lstsq(np.stack([base, np.ones(len(t))], 1), got - t, rcond=None)
    yield Prediction(BASE_FACTOR, a * base + b + t, slack, f"{a:.6g}, and {b:+.6g}: it has another scale", 2)


def _bases(case: Case) -> dict[str, Array]:
    """The base density at other points than F(x)."""
    f = case.ctx.f
    assert f.base_log_prob is not None
    points = {"x": case.x, "F(F(x))": f.forward(case.y, seed=SEED), "g(x)": case.residual(case.x), "0": np.zeros_like(case.x)}
    if f.inverse is not None:
        points["F⁻¹(x)"] = f.inverse(case.x, seed=SEED)
    values = {name: f.base_log_prob(p.astype(case.x.dtype), seed=SEED) for name, p in points.items()}
    return {name: v for name, v in values.items() if np.isfinite(v).all() or name == "x"}
