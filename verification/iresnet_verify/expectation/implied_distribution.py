"""The distribution of a series length that an estimate's own coefficients imply.

A series Σ_{k≤N} c_k vᵀJᵏv is unbiased iff c_k·P(N ≥ k) = (−1)^{k+1}/k. Where lengths can be injected but their
distribution is unknown, X̄(k) − X̄(k − 1) = c_k tr Jᵏ determines the only one that makes the estimate unbiased,
P(N ≥ k) = (−1)^{k+1} tr Jᵏ/(k·c_k tr Jᵏ). If these numbers are no distribution (not within [0, 1], or rising), none exists and
the estimate is refuted without a single draw of N. Otherwise only real draws can decide whether N follows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.randomness.enumeration import rounding_of

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.expectation.sampling import Claim
    from iresnet_verify.randomness.enumeration import Enumerator

LONGEST = 40


@dataclass(frozen=True)
class ImpliedDistribution:
    """P(N ≥ k) by k where it is determined; whether it makes the variance finite; a refutation if no distribution exists."""

    survival: dict[int, float]
    finite: bool
    reason: str
    refuted: Outcome | None = None


def implied_distribution(ctx: Context, plan: Enumerator, claim: Claim) -> ImpliedDistribution:
    """Return the implied distribution at the rows of the claim."""
    if claim.J is None or claim.spectrum is None:
        return ImpliedDistribution({}, False, "the distribution of the series length is unknown, and F is not known to be a residual block")
    power = np.broadcast_to(np.eye(ctx.d), claim.J.shape)
    before = np.zeros(len(claim.x))
    survival: dict[int, float] = {}
    for k in range(1, LONGEST + 1):
        power = power @ claim.J
        right = (-1.0) ** (k + 1) * np.trace(power, axis1=1, axis2=2) / k
        here, size = plan.means(claim.x, k)
        got, before = here - before, here
        noise = claim.slack + 2.0 * rounding_of(ctx.d, ctx.u, k) * (size + ctx.d)
        row = int(np.argmax(np.abs(right) / noise))
        if abs(right[row]) < 1e3 * noise[row]:
            break
        # P = right/got; its error is that of both sides, relative to the smaller
        error = 8.0 * noise[row] / min(abs(right[row]), max(abs(got[row]), 1e-300))
        p = float(right[row] / got[row]) if got[row] != 0.0 else np.inf
        highest = survival[k - 1] if k > 1 else 1.0
        if not -error <= p <= highest * (1.0 + error) + error or (k == 1 and p < 1.0 - error):
            found = _refuted(claim, k, row, p, highest, float(error), plan.rows)
            return ImpliedDistribution(survival, False, "the coefficients imply no distribution at all, see estimator.unbiased", found)
        survival[k] = p
    reason = f"the distribution of the series length is unknown; the coefficients imply P(N ≥ k) to k = {len(survival)}"
    last = max(survival, default=1)
    ratio = survival[last] / survival[last - 1] if last > 2 and survival[last - 1] > 0 else 0.0
    return ImpliedDistribution(survival, bool(ratio > 1.02 * float(claim.spectrum.max()) ** 2), reason)


def _refuted(claim: Claim, k: int, row: int, p: float, highest: float, error: float, rows: int) -> Outcome:
    evidence = {"term": k, "implied_probability": p, "largest_allowed": highest, "error": error, "evaluations": rows}
    return Outcome(
        "failed", f"no distribution of the series length makes E[{claim.what}] right: term {k} would need P(N ≥ {k}) = {p:.6g}, expected "
        f"{'1' if k == 1 else f'a number in [0, {highest:.6g}]'}", evidence, f"{error:.2g} = 8·(rounding + oracle) relative to the term",
        f"enumeration of the probes at each length against {claim.source}", Counterexample({"x": claim.x[row : row + 1]}))
