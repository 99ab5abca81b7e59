"""A random series term by term, and the standard error that is given with it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.log_det_truth import estimate_rows, truth_at
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import verdict
from iresnet_verify.expectation.bias import confirmed_total, prepare, series_terms, terms_always_taken
from iresnet_verify.randomness.enumeration import NotEnumerableError
from iresnet_verify.randomness.series_sums import expect

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.expectation.sampling import Claim
    from iresnet_verify.randomness.enumeration import Enumerator
    from iresnet_verify.randomness.series_sums import Expectation
    from iresnet_verify.subject.subject import HostArray

LONGEST = 60
FLOOR = 0.8
"""The least coverage of ± 2 standard errors that a standard error may have: Student's t with 7 degrees of freedom has .914,
skewed estimates from 16 replicates were measured at .88; errors taken within a block of probes at .13 to .49."""


@check(
    "estimator.coefficients",
    claim="Every term of a randomly cut series has the right weight: E[coef_k] = 1 for every k, coef_k the multiple of "
    "(−1)^{k+1} tr Jᵏ/k that the estimate contains.",
    reference="Chen et al. 2019 (arXiv 1906.02735), Theorem 1 and eq. 6: weights 1/P(N ≥ k)", kind="proof", needs=("log_det",),
    statistical=True, cost="enumeration: 2^⌈log₂ d⌉ columns × the lengths until the terms vanish",
    catches="a wrong weight at one k whose term happens to be small, weights that are right in sum only, infinite variance or not",
)
def coefficients(ctx: Context) -> Outcome:
    """P(N ≥ k)·(X̄(k) − X̄(k − 1)) against (−1)^{k+1} tr Jᵏ/k, the exact trace of the oracle's Jacobian, k by k."""
    x = ctx.inputs(estimate_rows(ctx))
    claim = truth_at(ctx, x).claim(ctx, 0.0, len(x))
    if ctx.log_det_claim[0] != "unbiased" or claim.spectrum is None:
        return Outcome("skipped", "needs a log-det declared unbiased, of one residual block: else no coefficients are known")
    try:
        plan = prepare(ctx, ctx.evaluate_log_det, x, int(ctx.rng.integers(2**31)))
        if plan.length is None or plan.length_distribution_unknown:
            raise NotEnumerableError("no series length with a visible distribution is drawn")
    except NotEnumerableError as reason:
        return Outcome("skipped", f"the draws cannot be enumerated: {reason}; see estimator.unbiased")
    found = expect(plan, claim.x, target=1e-12 * ctx.d, tail=claim.tail if np.isfinite(claim.tail(10_000)).all() else None)
    worst, seen = _worst(claim, plan, found)
    oracle = f"enumeration of the draws ({found.method}) against traces of the powers of J"
    if not seen:
        return Outcome("skipped", "nothing to refute: every term is smaller than a thousand roundings at the tested rows", {"compared": 0},
                       oracle=oracle)
    decided = worst["error"] <= worst["allowed"] or confirmed_total(ctx, ctx.evaluate_log_det, plan, found, x, worst["row"])
    return verdict(
        worst["error"], worst["allowed"] if decided else math.inf,
        expected=lambda at: f"E[coef_{worst['k']}] = 1 ± {at.bound:.1g}", got=f"{worst['coefficient']:.8g}",
        remedy="the weight of term k is 1/P(N ≥ k)",
        passed=lambda at: f"E[coef_k] = 1 to {at.error:.1g} for {seen} terms in {len(x)} rows",
        undecided="real draws do not have the enumerated mean: not all randomness is seen",
        tolerance="4·(oracle's error + rounding of the enumeration) relative to the term", oracle=oracle,
        evidence={"compared": seen, "terms_seen": seen, "term": worst["k"], "coefficient": worst["coefficient"],
                  "evaluations": plan.rows, "distribution": plan.length.label},
        counterexample=lambda at: Counterexample({"x": x[worst["row"] : worst["row"] + 1]}),
    )


def _worst(claim: Claim, plan: Enumerator, found: Expectation) -> tuple[dict[str, Any], int]:
    """(the term whose coefficient is furthest from 1 for what is allowed, how many terms are large enough to be seen).

    Length n either brings the next term behind those always taken, or term n, of which exact traces may have replaced the first
    ones; an estimate that is right in one of the two readings is right.
    """
    readings = [_worst_of(claim, plan, found, replaced) for replaced in (False, True)]
    return min(readings, key=lambda reading: reading[0]["error"] / reading[0]["allowed"])


def _worst_of(claim: Claim, plan: Enumerator, found: Expectation, replaced: bool) -> tuple[dict[str, Any], int]:
    """The same in one reading."""
    worst: dict[str, Any] = {"row": 0, "k": 0, "error": 0.0, "allowed": 1.0, "coefficient": 1.0}
    seen = 0
    assert claim.J is not None
    for row, J in enumerate(claim.J):
        terms = series_terms(J, LONGEST)
        near = 4.0 * float(claim.slack[row] + found.rounding[row])
        first = float(found.increments[plan.start][row])
        sure = _terms_of(first, terms) if replaced else terms_always_taken(plan, found, terms, row, near)
        shift = 0 if replaced else sure - plan.start
        for n in range(plan.start, min(max(found.increments), len(terms) - shift) + 1):
            k, brought = n + shift, float(found.increments[n][row])
            right = sum(terms[:sure]) if n == plan.start else terms[k - 1]
            if abs(right) <= 1e3 * near:
                continue
            seen += 1
            already = 1.0 if plan.start < n and k <= sure else 0.0
            coefficient, allowed = already + brought / right, near / abs(right)
            if abs(coefficient - 1.0) / allowed > worst["error"] / worst["allowed"]:
                worst = {"row": row, "k": k, "error": abs(coefficient - 1.0), "allowed": allowed, "coefficient": coefficient}
    return worst, seen


def _terms_of(value: float, terms: list[float]) -> int:
    """How many terms add up to the value most nearly."""
    return 1 + int(np.argmin(np.abs(np.cumsum(terms) - value)))


@check(
    "estimator.standard-error",
    claim="The standard error given with the log-det is right: value ± 2 standard errors covers the true log-det in at least "
    "80 % of the draws.",
    reference="Student 1908; independent replicates, each with its own series length and probes (Rhee and Glynn 2015)",
    kind="equivalence", needs=("standard_error",), statistical=True, cost="400 draws (quick) to 4,000 (thorough)",
    catches="errors from probes that share a series length or a block, the error of one draw for that of a mean, the variance returned",
)
def standard_error(ctx: Context) -> Outcome:
    """The fraction of covering intervals in independent draws, bounded by Hoeffding at this check's share of α."""
    draws = {"quick": 400, "standard": 1000}.get(ctx.budget.name, 4000)
    x = ctx.inputs(1)
    truth = truth_at(ctx, x)
    covered, errors = 0, []
    for _ in range(draws):
        value, error = _one_draw(ctx, x)
        errors.append(error)
        covered += abs(value - float(truth.value[0])) <= 2.0 * error + float(truth.slack[0])
    rate, half = covered / draws, math.sqrt(math.log(1.0 / ctx.alpha) / (2.0 * draws))
    epsilon = 0.1 if ctx.budget.name == "quick" else 0.05
    text = f"√(ln(1/α)/(2n)), Hoeffding at α = {ctx.alpha:.1e}; ε = {epsilon:g}, both fixed beforehand"
    if not np.isfinite(errors).all():
        return Outcome("skipped", "the standard error is not finite: none is claimed (too few replicates)", {"compared": 0}, text,
                       truth.source)
    decided = rate + half < FLOOR or rate - half >= FLOOR - epsilon
    return verdict(
        FLOOR - rate, half if decided else math.inf,
        expected=f"± 2 standard errors to cover the log-det in at least {FLOOR:.0%} of the draws", got=f"{rate:.1%} ± {half:.1%}",
        remedy="take the spread of independent replicates, each with its own length",
        passed=f"covers in {rate:.1%} of {draws} draws: at least {rate - half:.0%} at error rate {ctx.alpha:.0e}",
        undecided=f"covers in {rate:.1%} ± {half:.1%} of {draws} draws; try a larger budget",
        tolerance=text, oracle=truth.source,
        evidence={"compared": draws, "coverage": rate, "half_width": half, "epsilon": epsilon,
                  "mean_standard_error": float(np.mean(errors))},
        counterexample=lambda at: Counterexample({"x": x}),
    )


def _one_draw(ctx: Context, x: HostArray) -> tuple[float, float]:
    """(log-det, standard error) of one row."""
    found = ctx.caller.invoke("standard_error", ctx.native(x), seed=int(ctx.rng.integers(2**31)))
    value, error = (float(np.sum(ctx.host(a))) if ctx.framework.is_array(a) else float(a) for a in found)
    return value, error
