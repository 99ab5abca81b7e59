"""Random log-dets: unbiased, of finite variance, with a series length for each row."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.log_det_truth import estimate_rows, is_deterministic, truth_at
from iresnet_verify.check.outcome import Counterexample, Outcome, Status
from iresnet_verify.check.registry import check
from iresnet_verify.expectation.bias import compare_expectation, prepare
from iresnet_verify.expectation.implied_distribution import implied_distribution
from iresnet_verify.oracle import singular_values as singular
from iresnet_verify.randomness.enumeration import Enumerator, NotEnumerableError
from iresnet_verify.randomness.injection import length_place, padded
from iresnet_verify.randomness.length_tails import series_sum, tail_ratio

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context

ROULETTE = "Chen et al. 2019 (arXiv 1906.02735), Theorem 1 and eq. 6"


@check(
    "estimator.unbiased",
    claim="E[log_det(x)] over its own randomness is log|det dF/dx| (within the declared bias b).",
    reference=ROULETTE, kind="proof", needs=("log_det",), statistical=True,
    cost="enumeration: 2^⌈log₂ d⌉ columns × the lengths until the terms vanish; else 2,000 (quick) to 400,000 draws",
    catches="signs, missing 1/k, roulette weights off by one, probes of wrong scale, mean instead of sum over dimensions",
)
def unbiased(ctx: Context) -> Outcome:
    """Exact enumeration of probes and lengths where the draws can be injected, a confidence sequence elsewhere."""
    kind, bias = ctx.log_det_claim
    if kind == "gradient-only":
        return Outcome("skipped", "the log-det is declared gradient-only: see gradient.log-det")
    rows = estimate_rows(ctx)
    if kind != "unbiased" and is_deterministic(ctx, ctx.inputs(rows)):
        return Outcome("passed", "no randomness: one value at every seed, which logdet.matches-determinant compares with the determinant",
                       {"compared": 2 * rows, "seeds": 3}, "exact equality", "the values at other seeds")
    return compare_expectation(ctx, ctx.evaluate_log_det, truth_at(ctx, ctx.inputs(rows)).claim(ctx, bias, rows))


@check(
    "estimator.variance",
    claim="The variance of the log-det estimate is finite: Σ_k ρ^{2k}/(k²·P(N ≥ k)) < ∞ for the spectral radius ρ of J_g.",
    reference=f"{ROULETTE}; Rhee and Glynn 2015, Theorem 1", kind="proof", needs=("log_det",),
    cost="the draws of a few calls and 32 Jacobians",
    catches="Poisson lengths, geometric lengths that stop too early for the Lipschitz constant",
)
def variance(ctx: Context) -> Outcome:
    """Proved from L where Σ L^{2k}/(k²P) < ∞, else at the tested rows from ρ(J_g); refuted where ρ² exceeds the tail ratio."""
    x = ctx.inputs(estimate_rows(ctx))
    try:
        plan = prepare(ctx, ctx.evaluate_log_det, x, int(ctx.rng.integers(2**31)))
    except NotEnumerableError as reason:
        values = np.stack([ctx.evaluate_log_det(x, s) for s in range(64)])
        sd = float(values.std(0, ddof=1).max())
        return Outcome("inconclusive", f"the distribution of the draws is not visible ({reason}); measured standard deviation {sd:.3g}",
                       {"measured_sd": sd, "draws": 64})
    if plan.length is None:
        return Outcome("passed", f"no series length is drawn: a {plan.kind} value of the probe has a finite variance",
                       {"compared": len(plan.draws)}, oracle="the draws themselves")
    if plan.length_distribution_unknown:
        implied = implied_distribution(ctx, plan, truth_at(ctx, x).claim(ctx, 0.0, len(x)))
        status: Status = "passed" if implied.finite else "inconclusive"
        return Outcome(status, f"{implied.reason}; {'its variance is finite at the tested rows' if implied.finite else 'nothing follows'}",
                       {"rows": len(x)}, "2 % of the last ratio of P(N ≥ k)", "the coefficients of the estimate")
    return _series_variance(ctx, plan, ctx.inputs(max(32, ctx.rows) if ctx.d <= singular.LARGE else 2))


def _series_variance(ctx: Context, plan: Enumerator, x: Any) -> Outcome:
    assert plan.length is not None
    shift = plan.start - 1

    def survival(k: int) -> float:
        return plan.survival(k + shift)  # the k-th term beyond those always taken

    radii = np.abs(np.linalg.eigvals(ctx.residual_jacobian(x).matrix)).max(1)
    rho, L = float(radii.max()), ctx.subject.lipschitz
    ratio = tail_ratio(survival)
    evidence: dict[str, Any] = {"distribution": plan.length.label, "tail_ratio": ratio, "spectral_radius": rho, "lipschitz": L}
    tolerance = "strict inequality; 2 % of ρ² is left undecided"
    oracle = "the distribution of the length as drawn, ρ(J_g) from the Jacobian oracle"
    if L is not None and 0 <= L < 1 and math.isfinite(series_sum(L**2, survival, 2)):
        return Outcome("passed", f"Σ L²ᵏ/(k²P(N ≥ k)) < ∞ at L = {L:g}: finite for every x", evidence, tolerance, oracle)
    if rho < 1 and math.isfinite(series_sum((1.02 * rho) ** 2, survival, 2)):
        return Outcome("passed", f"finite at the {len(x)} tested rows (ρ(J_g) ≤ {rho:.3g}); from L = {L} it does not follow",
                       evidence, tolerance, oracle)
    if ratio < 0.98 * rho**2:
        worst = int(np.argmax(radii))
        return Outcome("failed", f"infinite variance: ρ(J_g)² = {rho**2:.3g} exceeds lim P(N ≥ k+1)/P(N ≥ k) = {ratio:.3g} of "
                       f"{plan.length.label}; try geometric lengths with continuation above L²", evidence, tolerance, oracle,
                       Counterexample({"x": x[worst : worst + 1]}))
    return Outcome("inconclusive", f"ρ(J_g)² = {rho**2:.3g} is too close to the tail ratio {ratio:.3g}", evidence, tolerance, oracle)


@check(
    "estimator.length-per-row",
    claim="Where a series length is drawn, it is known which rows share it: errors of rows that do are not independent.",
    reference="Rhee and Glynn 2015: replicates must be independent; Chen et al. 2019, eq. 6", kind="proof", needs=("log_det",),
    cost="the draws of a few calls; 32 batches where a length is shared",
    catches="one N for the whole batch (reported with the correlation it causes; each row may still be unbiased)",
)
def length_per_row(ctx: Context) -> Outcome:
    """Seen in the shape of the draws. Sharing refutes no claim of a subject, so it is reported and fails nothing."""
    x = ctx.inputs(estimate_rows(ctx))
    try:
        plan = prepare(ctx, ctx.evaluate_log_det, x, int(ctx.rng.integers(2**31)))
    except NotEnumerableError as reason:
        return Outcome("skipped", f"the series lengths are not visible: {reason}")
    if plan.length is None:
        return Outcome("skipped", "no series length is drawn", {"compared": 0, "draws": len(plan.draws)}, oracle="the draws themselves")
    batch = padded(x[:1], ctx.subject.event_shape)
    shapes = [d.shape for d in plan.draws if d.distribution.family == "length"]
    evidence = {"length_shapes": str(shapes), "batch": batch, "rows_share_a_length": not plan.per_row_lengths}
    if all(length_place(s, batch) is not None for s in shapes):
        return Outcome("passed", f"lengths of shape {shapes[0]} for a batch of {batch}", evidence, oracle="the draws themselves")
    same = np.repeat(x[:1], 64, axis=0)
    values = np.stack([ctx.evaluate_log_det(same, s) for s in range(32)])
    total = float(values.var())
    between = float(values.mean(1).var()) if total > 0 else 0.0
    share = between / total if total > 0 else 0.0
    evidence |= {"share_of_variance_common_to_a_batch": share}
    return Outcome("passed", f"one length serves the whole batch ({100 * share:.0f} % of the variance is common to its rows): each "
                   "row's estimate keeps its expectation, but a standard error over rows is too small; draw N for each row",
                   evidence, oracle="the draws themselves")
