"""The log-det where it is hardest: at inputs found by search, and at all magnitudes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify.catalogue.logdet.bounds import finiteness
from iresnet_verify.catalogue.logdet.value import compare_with_determinant
from iresnet_verify.catalogue.shared import stretch_search as search
from iresnet_verify.catalogue.shared.comparisons import warm_up
from iresnet_verify.catalogue.shared.log_det_truth import (
    NO_VALUE,
    Truth,
    decided,
    is_deterministic,
    limit,
    truth_at,
)
from iresnet_verify.catalogue.shared.magnitudes import SCALES, at_all_magnitudes
from iresnet_verify.catalogue.shared.map_errors import Domain, refreshed, size
from iresnet_verify.check.outcome import Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.expectation.bias import compare_expectation
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
        return replace(found, evidence={**found.evidence, **_terms_of_the_theorem(ctx, bias)})
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
    evaluations = len(x) * (steps + 2)
    return compare_with_determinant(ctx, truth, value, bias, {
        "compared": evaluations, "before_the_search": first, "largest_gap_over_allowed": float(ratio.max()),
        "evaluations": evaluations, **_terms_of_the_theorem(ctx, bias)})


def _ratio(ctx: Context, x: HostArray, bias: float) -> tuple[Vector, Truth, Vector]:
    """(|log_det − truth|/allowed, the truth, the values); 0 where the oracle decides nothing."""
    truth = truth_at(ctx, x)
    value = ctx.evaluate_log_det(x, 17)
    gap = np.where(np.isfinite(value), np.abs(value - truth.value), np.inf)
    with np.errstate(invalid="ignore"):
        return np.where(decided(truth, limit(ctx)), gap / (truth.slack + bias), 0.0), truth, value


def _terms_of_the_theorem(ctx: Context, bias: float) -> dict[str, int]:
    """How many terms the theorem asks for at the declared bias, where L and a bias are claimed."""
    L = ctx.subject.lipschitz
    if L is None or not 0.0 < L < 1.0 or not 0.0 < bias < math.inf:
        return {}
    n, rest = 0, -math.log1p(-L)
    while ctx.d * rest > bias and n < 100_000:
        n += 1
        rest -= L**n / n
    return {"terms_that_prove_the_bias": n}


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
        return Outcome("skipped", "the promises are confined to the subject's own inputs", {"scales": 0})
    warm_up(ctx)
    refreshed(ctx)
    x = at_all_magnitudes(ctx, 2 if ctx.d <= 128 else 1)
    value = ctx.evaluate_log_det(x, 17)
    found = finiteness(x, value)
    if found.status == "failed":
        return found
    if kind == "unbiased" or not is_deterministic(ctx, x[:3]):
        return replace(found, message=f"{len(x)} random values from 1e-6 to 1e6 are finite; their expectation is estimator.unbiased")
    return compare_with_determinant(ctx, truth_at(ctx, x), value, bias, {"smallest": SCALES[0], "largest": SCALES[-1]})
