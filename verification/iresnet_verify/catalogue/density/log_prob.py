"""Densities: change of variables, total probability where quadrature can decide, and samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.log_det_truth import estimate_rows, truth_at
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import verdict
from iresnet_verify.expectation.bias import compare_expectation
from iresnet_verify.measurements import densities as density_measures
from iresnet_verify.measurements import log_dets as volume_measures
from iresnet_verify.randomness.injection import Vector
from iresnet_verify.statistics.quadrature import integrate, window
from iresnet_verify.subject.frameworks import OPERATIONS

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

CHANGE = "change of variables: log p(x) = log p₀(F(x)) + log|det dF/dx|"


@check(
    "density.change-of-variables",
    claim="log_prob(x) = base_log_prob(F(x)) + log|det dF/dx|, in expectation where the log-det is random.",
    reference=f"{CHANGE}; Behrmann et al. 2019 (arXiv 1811.00995), eq. 2", kind="proof", needs=("log_prob", "base_log_prob"),
    statistical=True,
    cost="one Jacobian a row; for random values an enumeration as in estimator.unbiased",
    catches="sign of the log-det, a forgotten block, the base density of another point, missing constants",
)
def change_of_variables(ctx: Context) -> Outcome:
    """log_prob is compared with the base density at F(x) plus the determinant of the oracle, not the subject's own log-det."""
    assert ctx.f.log_prob is not None and ctx.f.base_log_prob is not None  # noqa: PT018 - both are in `needs`
    log_prob = ctx.f.log_prob
    kind, bias = ctx.log_det_claim
    if kind == "gradient-only":
        return Outcome("skipped", "the log-det is declared gradient-only: log_prob claims no value")
    bias = bias if math.isfinite(bias) else 0.0
    random = not all(np.array_equal(log_prob(x, seed=11), log_prob(x, seed=s)) for x in [ctx.inputs(3)] for s in (12, 13))
    rows = estimate_rows(ctx) if random else ctx.rows
    x = ctx.inputs(rows)
    truth = truth_at(ctx, x)
    y = ctx.f.forward(x)
    base = ctx.f.base_log_prob(y)
    expected = base + truth.value
    slack = truth.slack + _base_slack(ctx, x, y, base)
    oracle = f"base_log_prob(F(x)) + {truth.source}"
    if random:
        claim = truth.claim(ctx, bias, rows, "log_prob")
        claim.truth, claim.slack, claim.J, claim.source = expected, slack, None, oracle
        return compare_expectation(ctx, lambda at, seed: log_prob(at, seed=seed), claim)
    value = log_prob(x, seed=ctx.caller.next_seed())
    allowed = np.where(np.isfinite(expected), slack + bias, np.inf)

    return verdict(
        np.abs(value - expected), allowed,
        expected=lambda at: f"log_prob = {expected[at.row]:.10g} ± {at.bound:.2g}",
        got=lambda at: f"{value[at.row]:.10g}",
        passed=lambda at: f"largest gap {at.largest:.2g} nats in {at.compared} rows",
        undecided="the oracle or the base density is finite in no row",
        tolerance="rounding of the log-det and of base_log_prob, 8 × its change when F(x) moves by its own rounding", oracle=oracle,
        evidence=lambda at: {"log_prob": float(value[at.row]), "expected": float(expected[at.row])},
        counterexample=lambda at: Counterexample({"x": x[at.rows], "expected": expected[at.rows], "allowed": allowed[at.rows]},
                                                 volume_measures.density_gap),
    )


def _base_slack(ctx: Context, x: HostArray, y: HostArray, base: Vector) -> Vector:
    """K·u·(|log p₀| + d) and eight times the change of log p₀ when y moves by the tolerance of one forward evaluation."""
    assert ctx.f.base_log_prob is not None
    tolerance = ctx.forward_tolerance(x, y)
    change = np.zeros(len(x))
    for sign in (1.0, -1.0):
        v = ctx.rng.standard_normal(y.shape)
        v *= (sign * tolerance / np.linalg.norm(v.reshape(len(y), -1), axis=1)).reshape(-1, *[1] * (y.ndim - 1))
        radial = y.astype(np.float64) * (1 + sign * tolerance / np.maximum(np.linalg.norm(y.reshape(len(y), -1), axis=1), 1e-30)
                                         ).reshape(-1, *[1] * (y.ndim - 1))
        for moved in (y + v, radial):
            there = ctx.f.base_log_prob(moved.astype(y.dtype))
            change = np.maximum(change, np.nan_to_num(np.abs(there - base), nan=np.inf))
    return OPERATIONS * ctx.u * (np.abs(base) + ctx.d) + 8.0 * change


@check(
    "density.integrates-to-one",
    claim="∫ exp(log_prob(x)) dx = 1.",
    reference="definition of a density", kind="proof", needs=("log_prob",),
    cost="up to 21,000 (quick) to 1,400,000 densities for d = 2, 8,000 for d = 1, 64 beyond",
    catches="missing or doubled log-dets, wrong constants, maps that are not onto",
)
def integrates_to_one(ctx: Context) -> Outcome:
    """Quadrature for d ≤ 2; beyond, a base that is the standard normal at every tested point is a density by recognition."""
    assert ctx.f.log_prob is not None
    if ctx.d > 2:
        return _recognised(ctx)
    log_prob = ctx.f.log_prob
    x = ctx.inputs(8)
    if not all(np.array_equal(log_prob(x, seed=11), log_prob(x, seed=s)) for s in (12, 13)):
        return Outcome("skipped", "log_prob is random: exp of an unbiased estimate does not integrate to 1 (Jensen)")

    def density(points: Vector) -> Vector:
        rows = points.reshape(-1, *ctx.subject.event_shape).astype(x.dtype)
        return np.exp(log_prob(rows, seed=11))

    place = window(density, ctx.inputs(64).reshape(64, -1).astype(np.float64), ctx.rng)
    if place is None:
        return Outcome("inconclusive", "no finite density was found near the inputs: there is nothing to integrate")
    most = {"quick": 16, "standard": 32}.get(ctx.budget.name, 128) if ctx.d == 2 else 512
    return _compare_integral(ctx, place, most, integrate(density, *place, most, wanted=1e-6))


def _compare_integral(ctx: Context, place: tuple[Vector, Vector], most: int, found: tuple[float, float, int, int]) -> Outcome:
    """Compare an integral with 1; between `allowed` and 16 errors of the quadrature more nothing is decided."""
    total, error, panels, points = found
    epsilon = min(0.05, ctx.budget.epsilon_per_dim)
    kind, bias = ctx.log_det_claim
    allowed = 4.0 * error + OPERATIONS * ctx.u * ctx.d * 8.0 + ctx.accuracy * ctx.d + 1e-12
    allowed += math.expm1(bias) if kind == "bias" and math.isfinite(bias) else 0.0
    converged = math.isfinite(total) and math.isfinite(error) and error <= 0.25 * epsilon
    decided = converged and not allowed < abs(total - 1.0) <= 16.0 * error + allowed
    inputs = {"centre": place[0], "scale": place[1], "panels": panels, "allowed": allowed + 12.0 * error}
    return verdict(
        abs(total - 1.0), allowed if decided else math.inf,
        expected=f"∫ p(x) dx = 1 ± {allowed:.1g}", got=f"{total:.8g}",
        passed=f"∫ p = 1 {total - 1.0:+.1e} from {points} points",
        undecided=f"{total:.8g} is off by a few quadrature errors ({error:.1g})" if converged else
        f"the quadrature has not converged: {total:.6g} ± {error:.2g} from {points} points; try a larger budget",
        tolerance="4·(error of the quadrature) + rounding + declared bias",
        oracle="composite Gauss–Legendre (8 nodes a panel) over the whole space, x = c + s·t/(1 − t²)",
        evidence={"compared": points if decided else 0, "integral": total, "quadrature_error": error, "panels": panels,
                  "most_panels": most},
        counterexample=lambda at: Counterexample(inputs, density_measures.total_probability),
    )


def _recognised(ctx: Context) -> Outcome:
    """∫ p = ∫ p₀ for every bijection with the right log-det: enough that p₀ is a known density."""
    if ctx.f.base_log_prob is None:
        return Outcome("skipped", f"d = {ctx.d}: quadrature decides up to d = 2, and no base_log_prob is given")
    z = ctx.rng.standard_normal((64, *ctx.subject.event_shape)) * np.array([0.3, 1.0, 2.0, 3.0])[np.arange(64) % 4].reshape(
        -1, *[1] * len(ctx.subject.event_shape))
    z = z.astype(ctx.inputs(1).dtype)
    normal = -0.5 * (z.reshape(64, -1).astype(np.float64) ** 2).sum(1) - 0.5 * ctx.d * math.log(2.0 * math.pi)
    gap = np.abs(ctx.f.base_log_prob(z) - normal)
    allowed = OPERATIONS * ctx.u * float(np.abs(normal).max() + ctx.d)
    if not (gap <= allowed).all():
        return Outcome("skipped", f"d = {ctx.d}: quadrature decides up to d = 2, and the base is not the standard normal",
                       {"compared": 0, "largest_gap": float(gap.max())})
    return verdict(
        gap, allowed, expected="the standard normal density",
        passed="the base is the standard normal density at 64 points, which integrates to 1; that log_prob is its pull-back is "
        "density.change-of-variables", tolerance="64·u·(|log p₀| + d)", oracle="the standard normal density",
    )


@check(
    "density.samples",
    claim="sample(n) gives n finite events, different from each other and from call to call, at which log_prob is finite.",
    reference="the promises sample and log_prob of the subject", kind="search", needs=("sample",),
    cost="two calls of sample",
    catches="wrong shapes, NaN from an inverse that does not converge, samples that ignore the generator",
)
def samples(ctx: Context) -> Outcome:
    """Shape and dtype are checked by the normalised call; finiteness, spread and density here."""
    assert ctx.f.sample is not None
    n = 4 * ctx.rows
    first, second = ctx.f.sample(n, seed=41), ctx.f.sample(n, seed=42)
    if first.shape != (n, *ctx.subject.event_shape):
        return Outcome("failed", f"expected shape {(n, *ctx.subject.event_shape)}, got {first.shape}", {"compared": 1})
    distinct = len(np.unique(first.reshape(n, -1), axis=0))
    wrong: dict[str, Any] = {"NaN or inf": ~np.isfinite(first.reshape(n, -1)).all(axis=1),
                             "one value for all rows or for two seeds": np.array([distinct < 2 or np.array_equal(first, second)])}
    if ctx.f.log_prob is not None and ctx.log_det_claim[0] != "gradient-only" and not wrong["NaN or inf"].any():
        wrong["a log_prob that is not finite"] = ~np.isfinite(ctx.f.log_prob(first, seed=43))
    return verdict(
        {what: rows.astype(float) for what, rows in wrong.items()}, 0.0,
        expected="finite samples that differ, with a finite log_prob",
        got=lambda at: f"{at.case} in {at.exceeding} of {n} samples" if len(wrong[at.case]) == n else str(at.case),
        passed=f"{n} samples, {distinct} distinct", tolerance="none: finiteness and equality", oracle="the samples themselves",
        evidence={"distinct": distinct, **{what: int(rows.sum()) for what, rows in wrong.items() if rows.any()}},
        counterexample=lambda at: Counterexample({"x": first[at.rows]}),
    )
