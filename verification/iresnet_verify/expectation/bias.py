"""Is the expectation of a random log-det (or density) what it should be? Enumeration decides; else sampling.

`compare_expectation` compares E[X] with the truth on each row, for τ = rounding + declared bias + the oracle's own error, and ε fixed
by the budget before anything is drawn. Enumeration is refused where a draw varies that it does not model. A failure that it
finds is reported only if real draws confirm it: their mean agrees with the enumerated expectation, and replaying their
probes and series lengths alone reproduces each value, so that no other randomness decides it.

A `randomness` that gives series lengths without their distribution is tested against the one its coefficients imply
(`implied_distribution`): terms that no distribution can weight rightly refute; else the mean of real draws decides.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.expectation.implied_distribution import implied_distribution
from iresnet_verify.expectation.sampling import CALLS, Claim, Evaluate, draws_of, replayed, replicates, sample
from iresnet_verify.measurements import log_dets as measures
from iresnet_verify.randomness.enumeration import Enumerator, NotEnumerableError, RandomEstimate
from iresnet_verify.randomness.injection import Vector, injector, padded
from iresnet_verify.randomness.series_sums import Expectation, expect

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

CONFIRM = 6.0
"""Standard errors by which the mean of real draws may miss an enumerated expectation; a z-test that refutes nothing by itself."""


def prepare(ctx: Context, evaluate: Evaluate, x: HostArray, seed: int) -> Enumerator:
    """Return the enumeration of an estimate, or raise NotEnumerableError."""
    error = NotEnumerableError("")
    for roundoff in sorted({ctx.u, max(ctx.u, 2.0**-24)}):  # an estimate may carry float32 inside float64
        estimate = RandomEstimate(evaluate, injector(ctx.subject), ctx.subject.event_shape, roundoff, seconds=ctx.budget.seconds / 3.0)
        try:
            return Enumerator(estimate, x, seed)
        except NotEnumerableError as reason:
            error = reason
    raise error


def compare_expectation(ctx: Context, evaluate: Evaluate, claim: Claim) -> Outcome:
    """Compare E[evaluate] with the truth on each row."""
    seed = int(ctx.rng.integers(2**31))
    epsilon = ctx.budget.epsilon_per_dim * ctx.d
    try:
        plan = prepare(ctx, evaluate, claim.x, seed)
        tail = claim.tail if claim.spectrum is not None and np.isfinite(claim.tail(10_000)).all() else None
        if plan.length_distribution_unknown:
            implied = implied_distribution(ctx, plan, claim)
            return implied.refuted or sample(ctx, evaluate, claim, epsilon, implied.reason, implied.finite)
        found = expect(plan, claim.x, target=1e-12 * ctx.d, tail=tail)
    except NotEnumerableError as reason:
        return sample(ctx, evaluate, claim, epsilon, str(reason))
    return _enumerated(ctx, evaluate, claim, epsilon, plan, found)


def _enumerated(
    ctx: Context, evaluate: Evaluate, claim: Claim, epsilon: float, plan: Enumerator, found: Expectation
) -> Outcome:
    tau = claim.slack + claim.bias + found.rounding
    gap = found.value - claim.truth
    excess = np.abs(gap) - tau - found.remainder
    worst = int(np.argmax(np.where(np.isfinite(excess), excess, np.inf)))
    evidence = {
        "bias": float(gap[worst]), "expectation": float(found.value[worst]), "truth": float(claim.truth[worst]),
        "tau": float(tau[worst]), "remainder": float(found.remainder[worst]), "epsilon": epsilon,
        "rows": len(gap), "evaluations": plan.rows, "longest_series": max(found.increments, default=0),
        **claim.evidence,
    }
    tolerance = (f"{tau[worst] + found.remainder[worst]:.3g} = oracle and declared bias {claim.slack[worst] + claim.bias:.3g} "
                 f"+ rounding {found.rounding[worst]:.3g} + series left out {found.remainder[worst]:.3g}")
    oracle = f"enumeration of the draws ({found.method}) against {claim.source}"
    if not np.isfinite(gap[worst]) or not np.isfinite(tau[worst]):
        return Outcome("inconclusive", f"the enumerated expectation or the oracle is not finite in row {worst}",
                       evidence, tolerance, oracle)
    if excess[worst] > 0:
        return _confirmed(ctx, evaluate, claim, plan, found, worst,
                          Outcome("failed", "", evidence, tolerance, oracle))
    if (np.abs(gap) + found.remainder <= tau + epsilon).all():
        return Outcome("passed", f"E[{claim.what}] equals the truth to {np.abs(gap).max():.2g} nats in {len(gap)} rows, "
                                 f"by enumeration of {plan.rows} evaluations", evidence, tolerance, oracle)
    return Outcome("inconclusive", f"the series left out may add {found.remainder[worst]:.2g} nats, more than ε = {epsilon:.2g}; "
                                   "try a larger budget", evidence, tolerance, oracle)


def _confirmed(
    ctx: Context, evaluate: Evaluate, claim: Claim, plan: Enumerator, found: Expectation, worst: int, failed: Outcome
) -> Outcome:
    """Report a failure only where real draws agree with the enumerated expectation."""
    row = claim.x[worst : worst + 1]
    expected, truth = float(found.value[worst]), float(claim.truth[worst])
    random = bool(plan.probe_distributions) or plan.length is not None
    means, error, agree = _real_draws(ctx, evaluate, plan, found, claim.x, worst)
    evidence = {**failed.evidence, "real_mean": float(means.mean()), "real_standard_error": error,
                "real_draws": means.size * (replicates(ctx) if random else 1)}
    many = np.repeat(row, padded(row, ctx.subject.event_shape), axis=0)
    if not agree or not replayed(ctx, evaluate, many, modelled_only=True):
        return Outcome("inconclusive", f"enumeration gives E[{claim.what}] = {expected:.6g}, real draws give {means.mean():.6g} "
                       f"± {error:.2g}: some randomness is not enumerated, so neither is used",
                       evidence, failed.tolerance, failed.oracle)
    gap = expected - truth
    message = (f"expected E[{claim.what}] = {truth:.6g}, got {expected:.6g} by enumeration (bias {gap:+.3g} nats; real draws "
               f"agree: {means.mean():.6g} ± {error:.2g})")
    visible = abs(gap) > 4.0 * CONFIRM * error + 2.0 * float(found.rounding[worst] + claim.slack[worst] + claim.bias)
    measure = measures.mean_log_det if visible and claim.what == "log-det" else None
    inputs = {"x": row, "truth": truth, "allowed": abs(gap) / 2.0, "calls_per_mean": means.size,
              "copies": replicates(ctx) if random else 1}
    return Outcome("failed", message, evidence, failed.tolerance, failed.oracle,
                   Counterexample(inputs if measure else {"x": row}, measure))


def _real_draws(
    ctx: Context, evaluate: Evaluate, plan: Enumerator, found: Expectation, x: HostArray, row: int
) -> tuple[Vector, float, bool]:
    """(means of real draws at one row, their standard error, whether they agree with the enumerated expectation)."""
    at = x[row : row + 1]
    random = bool(plan.probe_distributions) or plan.length is not None
    means = draws_of(ctx, evaluate, at)[:, 0] if random else evaluate(np.repeat(at, 2, axis=0), plan.seed)
    error = float(means.std(ddof=1) / math.sqrt(means.size))
    allowed = CONFIRM * error + float(found.rounding[row] + found.remainder[row])
    return means, error, abs(float(means.mean()) - float(found.value[row])) <= allowed


def confirmed_total(ctx: Context, evaluate: Evaluate, plan: Enumerator, found: Expectation, x: HostArray, row: int) -> bool:
    """Whether real draws have the enumerated mean."""
    return _real_draws(ctx, evaluate, plan, found, x, row)[2]


def series_terms(J: Vector, longest: int) -> list[float]:
    """(−1)^{k+1} tr Jᵏ/k for k = 1, …, longest − 1."""
    power, terms = np.eye(len(J)), []
    for k in range(1, longest):
        power = power @ J
        terms.append((-1.0) ** (k + 1) * float(np.trace(power)) / k)
    return terms


def terms_always_taken(plan: Enumerator, found: Expectation, terms: list[float], row: int, near: float) -> int:
    """How many terms the shortest series holds: the number with which most increments are what they should be."""

    def right(taken: int) -> int:
        later = [(n, taken + n - plan.start - 1) for n in found.increments if n > plan.start]
        good = sum(abs(terms[k] - found.increments[n][row]) <= near < abs(terms[k]) for n, k in later if k < len(terms))
        return good + (abs(sum(terms[:taken]) - found.increments[plan.start][row]) <= near)

    usual = max(1, plan.start)
    return max((usual, *range(1, 30)), key=right)


__all__ = [
    "CALLS", "Claim", "compare_expectation", "confirmed_total", "prepare", "replicates", "series_terms", "terms_always_taken",
]
