"""The log-det where it is hardest: at inputs found by search, at all magnitudes, and through a composition of two calls."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.lipschitz.magnitudes import SCALES
from iresnet_verify.catalogue.logdet.of_the_inverse import NO_VALUE, SLACK, limit
from iresnet_verify.catalogue.logdet.value import compared
from iresnet_verify.catalogue.shared import stretch_search as search
from iresnet_verify.catalogue.shared.comparisons import warm_up
from iresnet_verify.catalogue.shared.log_det_truth import Truth, decided, is_deterministic, truth_at
from iresnet_verify.catalogue.shared.map_errors import Domain, refreshed, size
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.expectation.bias import compare_expectation
from iresnet_verify.measurements import log_dets as measures
from iresnet_verify.randomness.injection import Vector

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray


@check(
    "logdet.worst-input",
    claim="The log-det keeps its promise where the series converges slowest: |E[log_det(x)] − log|det J(x)|| ≤ b at inputs found "
    "by search; a series cut after n terms errs by at most −d(log(1 − L) + Σ_{k≤n} Lᵏ/k).",
    reference="Behrmann et al. 2019 (arXiv 1811.00995), Theorem 4: the bias of the truncated series; the promise log_det_is",
    kind="search", needs=("log_det",), statistical=True, modes=False,
    cost="a quarter of lipschitz.bounds-jacobian, and 4 points × 5 (quick) to 75 Jacobians",
    catches="a number of terms that is enough for typical inputs only, a declared bias measured on average",
)
def worst_input(ctx: Context) -> Outcome:
    """From where ‖J_g‖ is largest and from inputs, random steps that follow |log_det − truth| over what is allowed."""
    kind, bias = ctx.log_det_claim
    if kind == "gradient-only":
        return Outcome("skipped", NO_VALUE)
    refreshed(ctx)
    domain = Domain.of(ctx)
    series = ctx.subject.lipschitz is not None or ctx.subject.residual is not None
    lead = search.hardest(ctx, domain, 4) if series else ctx.inputs(1)
    if kind == "unbiased" or (kind == "bias" and not is_deterministic(ctx, lead)):
        found = compare_expectation(ctx, ctx.evaluate_log_det, truth_at(ctx, lead).claim(ctx, bias, 1))
        return _with_theorem(ctx, found, bias)
    count = max(1, min(4, search.WORK // (4 * max(ctx.d, 1))))
    x = np.concatenate([lead, ctx.inputs(count - 1)]) if count > 1 else lead
    steps = max(3, min(ctx.budget.steps // 4, 12 * 32 // max(ctx.d, 1)))
    ratio, truth, value = _ratio(ctx, x, bias)
    step, first = 0.5 * size(x), float(ratio.max())
    for _ in range(steps):
        if (ratio > 1.0).any():
            break
        move = ctx.rng.standard_normal(x.shape) / math.sqrt(ctx.d)
        trial = domain.clip((x + step.reshape(-1, *(1,) * (x.ndim - 1)) * move).astype(x.dtype))
        there, _, _ = _ratio(ctx, trial, bias)
        better = there > ratio
        x[better], ratio[better] = trial[better], there[better]
        step = np.where(better, 1.5 * step, 0.7 * step)
    ratio, truth, value = _ratio(ctx, x, bias)
    found = compared(ctx, truth, value, bias)
    evidence = {**found.evidence, "before_the_search": first, "largest_gap_over_allowed": float(ratio.max()),
                "evaluations": len(x) * (steps + 2)}
    return _with_theorem(ctx, Outcome(found.status, found.message, evidence, found.tolerance, found.oracle, found.counterexample), bias)


def _ratio(ctx: Context, x: HostArray, bias: float) -> tuple[Vector, Truth, Vector]:
    """(|log_det − truth|/allowed, the truth, the values); 0 where the oracle decides nothing."""
    truth = truth_at(ctx, x)
    value = ctx.evaluate_log_det(x, 17)
    gap = np.where(np.isfinite(value), np.abs(value - truth.value), np.inf)
    with np.errstate(invalid="ignore"):
        return np.where(decided(truth, limit(ctx)), gap / (truth.slack + bias), 0.0), truth, value


def _with_theorem(ctx: Context, found: Outcome, bias: float) -> Outcome:
    """Add how many terms the theorem asks for at the declared bias, where L and a bias are claimed."""
    L = ctx.subject.lipschitz
    if L is None or not 0.0 < L < 1.0 or not 0.0 < bias < math.inf:
        return found
    n, rest = 0, -math.log1p(-L)
    while ctx.d * rest > bias and n < 100_000:
        n += 1
        rest -= L**n / n
    return Outcome(found.status, found.message, {**found.evidence, "terms_that_prove_the_bias": n}, found.tolerance, found.oracle,
                   found.counterexample, found.curves)


@check(
    "logdet.all-magnitudes",
    claim="log_det(x) is log|det dF/dx| at any magnitude: ‖x‖/√d from 1e-6 to 1e6.",
    reference="Behrmann et al. 2019 (arXiv 1811.00995), eq. 3, on all of ℝᵈ", kind="search", needs=("log_det", "lipschitz"),
    modes=False, cost="10 Jacobians", catches="log-dets that overflow, eps and clamps that matter far from the data or at the origin",
)
def all_magnitudes(ctx: Context) -> Outcome:
    """Two random directions at five scales, where the subject does not confine its promises to inputs of its own."""
    kind, bias = ctx.log_det_claim
    if kind == "gradient-only":
        return Outcome("skipped", NO_VALUE)
    if ctx.subject.inputs is not None:
        return Outcome("passed", "the promises are confined to the subject's own inputs", {"scales": 0})
    warm_up(ctx)
    refreshed(ctx)
    direction = ctx.rng.standard_normal((2 if ctx.d <= 128 else 1, len(SCALES), *ctx.subject.event_shape))
    x = direction * np.reshape(SCALES, (-1, *[1] * len(ctx.subject.event_shape)))
    x = x.reshape(-1, *ctx.subject.event_shape).astype(ctx.inputs(1).dtype)
    value = ctx.evaluate_log_det(x, 17)
    evidence: dict[str, Any] = {"rows": len(x), "smallest": SCALES[0], "largest": SCALES[-1]}
    if not np.isfinite(value).all():
        bad = x[~np.isfinite(value)][:1]
        return Outcome("failed", f"expected a finite log-det at ‖x‖ = {np.linalg.norm(bad):.1e}, got NaN or inf", evidence,
                       "none: finiteness", "IEEE arithmetic",
                       Counterexample({"x": bad, "low": -1e300, "high": 1e300}, measures.log_det_outside_bounds))
    if kind == "unbiased" or not is_deterministic(ctx, x[:3]):
        return Outcome("passed", f"{len(x)} random values from 1e-6 to 1e6 are finite; their expectation is estimator.unbiased",
                       evidence, "none: finiteness", "IEEE arithmetic")
    found = compared(ctx, truth_at(ctx, x), value, bias)
    return Outcome(found.status, found.message, {**found.evidence, **evidence}, found.tolerance, found.oracle, found.counterexample)


@check(
    "logdet.adds-up",
    claim="Log-dets of a composition add up: log_det(x) + log_det(F(x)) is the log-det of F∘F, two calls in one graph.",
    reference="chain rule: det d(F∘F)/dx = det J(F(x))·det J(x); Chen et al. 2019 (arXiv 1906.02735), eq. 2", kind="proof",
    needs=("log_det",), modes=False, cost="8 Jacobians (quick) of the map and of its square",
    catches="log-dets kept on the layer and overwritten by the next call, layers that cannot be used twice",
)
def adds_up(ctx: Context) -> Outcome:
    """Both log-dets are read after both calls have been made; J of x ↦ F(F(x)) is the product of the oracle's at x and F(x)."""
    kind, bias = ctx.log_det_claim
    if kind == "gradient-only":
        return Outcome("skipped", NO_VALUE)
    refreshed(ctx)
    x = ctx.inputs(ctx.rows)
    if not is_deterministic(ctx, x[:3]):
        return Outcome("passed", "random values: each is held against the determinant by estimator.unbiased", {"rows": 0})
    with ctx.guard(), ctx.framework.call_context():
        y, first = ctx.raw_forward(ctx.native(x), seed=3)
        z, second = ctx.raw_forward(y, seed=3)
        if first is None or second is None:
            first, second = ctx.raw_log_det(ctx.native(x), seed=3), ctx.raw_log_det(y, seed=3)
        there = ctx.host(y)
        values = np.stack([np.asarray(ctx.host(v), dtype=np.float64).reshape(len(x)) for v in (first, second)])
        del z
    one, two = truth_at(ctx, x), truth_at(ctx, there)
    allowed = one.slack + two.slack + 2.0 * bias
    gap = np.abs(values.sum(0) - one.value - two.value)
    known = decided(one, limit(ctx)) & decided(two, limit(ctx))
    if not known.any():
        return Outcome("inconclusive", "the Jacobian oracle decides no row", oracle=one.source)
    ratio = np.where(known, np.where(np.isfinite(gap), gap, np.inf) / allowed, -1.0)
    worst = int(np.argmax(ratio))
    evidence = {"rows": int(known.sum()), "largest_gap": float(gap[known].max()), "first": float(values[0][worst]),
                "second": float(values[1][worst]), "truth": float(one.value[worst] + two.value[worst])}
    text = f"{allowed[worst]:.2e} = the sum over both points of {SLACK}"
    if ratio[worst] <= 1.0:
        return Outcome("passed", f"largest gap {gap[known].max():.2g} nats in {int(known.sum())} rows", evidence, text, one.source)
    hint = "; both calls give one number: the second overwrites the first" if np.array_equal(values[0], values[1]) else ""
    return Outcome("failed", f"expected log_det(x) + log_det(F(x)) = {evidence['truth']:.10g} ± {allowed[worst]:.2g}, got "
                   f"{values.sum(0)[worst]:.10g}{hint}", evidence, text, one.source, Counterexample({"x": x[worst : worst + 1]}))
