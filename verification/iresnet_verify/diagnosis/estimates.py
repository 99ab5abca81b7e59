"""The expectation of a random log-det, and hypotheses of the weights of its terms.

Enumerated, the increments e_n = P(N ≥ n)·(X̄(n) − X̄(n − 1)) of a right roulette are its terms (−1)^{k+1} tr Jᵏ/k. A mistaken weight
multiplies the k-th by a ratio r_k that the distribution of N gives (Chen et al. 2019, eq. 6: the weight is 1/P(N ≥ k)).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from iresnet_verify.catalogue.shared.log_det_truth import moduli
from iresnet_verify.diagnosis.case import SEED, Case
from iresnet_verify.diagnosis.hypothesis import Array, Cause, Explanation, Prediction, explain
from iresnet_verify.diagnosis.log_dets import DROPPED, FACTOR, OFF_BY_ONE, PLUS, SIGN, SQUARED, SURROGATE, Volumes
from iresnet_verify.expectation.bias import prepare
from iresnet_verify.expectation.sampling import CALLS, Claim, replicates
from iresnet_verify.randomness.enumeration import Enumerator, NotEnumerableError
from iresnet_verify.randomness.series_sums import Expectation, expect
from iresnet_verify.subject.subject import HostArray

LONGEST = 24
"""Increments that are compared."""
CLOSE, LARGE = 1e-4, 1e-8
"""A ratio of weights is known to CLOSE where its term is above LARGE times the largest: sums of float64 leave errors of 1e-13 of that."""
ERRORS = 6.0
"""Standard errors allowed to a mean of real draws: two-sided error rate 2e-9 for a normal mean."""

WEIGHTS = Cause("weights-off-by-one", "{what} weights term k by {detail}, where 1/P(N ≥ k) belongs: the weights are off by one.",
                "Divide term k by P(N ≥ k), the probability that it is computed.")
POINT = Cause("probability-of-n-for-tail", "{what} weights term k by 1/P(N = k), where 1/P(N ≥ k) belongs.", "Divide term k by P(N ≥ k).")
NO_WEIGHTS = Cause("weights-forgotten", "{what} does not weight its terms by 1/P(N ≥ k).", "Divide term k by P(N ≥ k).")
EXCHANGED = Cause("stop-for-continue", "{what} weights its terms by the probability to stop where that to continue belongs.",
                  "Divide term k by P(N ≥ k): the power of the probability to continue.")
SEVERAL = Cause("series-weights-wrong", "{what} has {detail}.", "The weight of term k is (−1)^(k+1)/(k P(N ≥ k)), from k = 1 on.")
ONE_WEIGHT = Cause("one-weight-wrong", "{what} has one wrong weight: {detail}.", "The weight of term k is 1/P(N ≥ k).")


def of_point_masses(estimate: Estimate, right: Array) -> Array | None:
    """What geometric lengths give that are weighted by 1/P(N = k): one factor; None for other lengths."""
    plan = estimate.plan
    if plan is None or plan.length is None or plan.length_distribution_unknown:
        return None
    S, n = plan.survival, plan.start
    stay = S(n + 1) / S(n)
    return right / (1.0 - stay) if 0.0 < stay < 1.0 and abs(S(n + 2) / S(n + 1) - stay) < 1e-9 else None


@dataclass(frozen=True)
class Estimate:
    """E[X] at some rows, the error allowed it, and the enumeration it comes from, if it was enumerated."""

    value: Array
    tolerance: Array
    plan: Enumerator | None = None
    found: Expectation | None = None

    def explained(self, what: str, v: Volumes) -> Explanation | None:
        """Explain the increments by mistaken weights."""
        plan, found = self.plan, self.found
        if plan is None or found is None or plan.length is None or plan.length_distribution_unknown:
            return None
        n = sorted(found.increments)[:LONGEST]
        got = np.stack([found.increments[k] for k in n], axis=1)
        noise = np.repeat((4.0 * v.slack + found.rounding)[:, None], len(n), axis=1) + 1e-9 * np.abs(got)
        made = [Prediction(p.cause, p.numbers, noise, p.detail, p.fitted) for p in self._weights(plan, n, v, got)]
        return explain(what, got, None, made, inputs=max(len(v.t), 2 + len(n) // 2))

    def _weights(self, plan: Enumerator, n: list[int], v: Volumes, got: Array) -> Iterator[Prediction]:
        terms = v.sign * v.terms.T
        longest = terms.shape[1]
        for sure in range(1, 7):
            k = [sure + i for i in range(len(n))]
            if k[-1] > longest:
                continue

            def brought(r: Callable[[int, int], float], k: list[int] = k, sure: int = sure) -> Array:
                first = sum(r(j, n[0]) * terms[:, j - 1] for j in range(1, sure + 1))
                later = [r(k[i], n[i]) * terms[:, k[i] - 1] for i in range(1, len(n))]
                return np.stack([first, *later], axis=1)

            yield from _ratios(plan, n[0], brought, terms, got, k, v.A.shape[1])
            yield from _of_ratios(plan, brought, terms, got, k, n)


def _of_ratios(
    plan: Enumerator, brought: Callable[[Callable[[int, int], float]], Array], terms: Array, got: Array, k: list[int], n: list[int]
) -> Iterator[Prediction]:
    """Predictions by the ratios that the numbers themselves give: r_k = got/term of the row where term k is largest, one a term."""
    columns, own = np.arange(len(k)), terms[:, [j - 1 for j in k]]
    rows = np.abs(own).argmax(0)
    with np.errstate(all="ignore"):
        r = got[rows, columns] / own[rows, columns]
    r = np.where(np.isfinite(r) & ((columns > 0) | (k[0] == 1)), r, 1.0)  # several sure terms are one number
    wrong = (np.abs(r - 1.0) > CLOSE) & (np.abs(own[rows, columns]) > LARGE * np.abs(own).max())
    if wrong.sum() < 2 or (np.abs(r - r[0]) <= CLOSE)[wrong].all():
        return
    kinds = {NO_WEIGHTS: np.array([plan.survival(m) for m in n]), DROPPED: np.zeros(len(k))}
    cause = next((c for c, value in kinds.items() if (np.abs(r - value) <= CLOSE)[wrong].all()), SEVERAL)
    told = ", ".join(f"{k[i]}" for i in np.flatnonzero(wrong)[:6]) + ("…" if wrong.sum() > 6 else "")
    detail = {DROPPED: f"terms {told}"}.get(cause, f"{', '.join(f'{v:.4g}' for v in r[:6])}… of the right weights of its terms")
    yield Prediction(cause, brought(lambda j, m: float(r[max(j - k[0], 0)])), np.zeros(1), detail, 1)


def _ratios(
    plan: Enumerator, start: int, brought: Callable[[Callable[[int, int], float]], Array], terms: Array, got: Array, k: list[int], d: int
) -> Iterator[Prediction]:
    """Predictions by ratios r(k, n) of a term's weight to its right one; n is the drawn length that brings term k."""
    S = plan.survival
    zero = np.zeros(1)

    def made(cause: Cause, r: Callable[[int, int], float], detail: str = "", fitted: int = 0) -> Prediction:
        with np.errstate(all="ignore"):
            return Prediction(cause, brought(r), zero, detail, fitted)

    def over(a: float, b: float) -> float:
        return a / b if b > 0.0 else np.inf

    stay = over(S(start + 1), S(start))
    yield made(SIGN, lambda k, n: -1.0)
    yield made(PLUS, lambda k, n: (-1.0) ** (k + 1))
    yield made(SURROGATE, lambda k, n: float(k))
    yield made(SQUARED, lambda k, n: 1.0 / k)
    yield made(OFF_BY_ONE, lambda k, n: k / (k + 1.0), "1/(k + 1) for 1/k")
    yield made(WEIGHTS, lambda k, n: over(S(n), S(n + 1)), "1/P(N ≥ k + 1)")
    yield made(WEIGHTS, lambda k, n: over(S(n), S(max(n - 1, start))), "1/P(N ≥ k − 1)")
    yield made(POINT, lambda k, n: over(S(n), S(n) - S(n + 1)))
    for c in (float(d), 1.0 / d):  # geometric lengths weighted by P(N = k) are a factor too
        yield made(FACTOR, partial(_all, c), f"{c:g}")
    yield made(NO_WEIGHTS, lambda k, n: S(n))
    if 0.0 < stay < 1.0 and abs(stay - 0.5) > 1e-9:
        yield made(EXCHANGED, lambda k, n: (stay / (1.0 - stay)) ** (n - start))
        yield made(EXCHANGED, lambda k, n: S(n) / (1.0 - stay) ** (n - start))
    yield made(DROPPED, lambda k, n: float(k % 2 == 1), "every even term")
    yield made(DROPPED, lambda k, n: float(k % 2 == 0), "every odd term")
    for j in k[:8]:
        yield made(DROPPED, partial(_one, j, 0.0), f"term {j}")
        i = k.index(j)
        row = int(np.argmax(np.abs(terms[:, j - 1])))
        if i and terms[row, j - 1]:
            c = float(got[row, i] / terms[row, j - 1])
            if abs(c - 1.0) > 1e-9:
                found = made(ONE_WEIGHT, partial(_one, j, c), f"term {j} has {c:.8g} of its weight", 1)
                yield found
                mended = found.numbers.copy()
                mended[:, 0] += (1.0 - c) * terms[:, j - 1]
                yield replace(found, numbers=mended, detail=f"{found.detail}, and what that changes is taken off the first again")


def _all(ratio: float, k: int, n: int) -> float:
    """One ratio for all terms."""
    del k, n
    return ratio


def _one(term: int, ratio: float, k: int, n: int) -> float:
    """One term's ratio, 1 for the others."""
    del n
    return ratio if k == term else 1.0


def expectation(case: Case, values: Callable[[HostArray, int], Array], x: HostArray, v: Volumes) -> Estimate:
    """E[values(x)], enumerated where the draws allow it, else the mean of real draws ± 6 standard errors."""
    ctx = case.ctx
    try:
        plan = prepare(ctx, values, x, SEED)
        if plan.length_distribution_unknown:
            raise NotEnumerableError("the distribution of the length is unknown")
        spectrum = moduli(v.A)
        tail = Claim(x, v.t, v.slack, 0.0, "", spectrum=spectrum).tail
        found = expect(plan, x, target=1e-12 * ctx.d, tail=tail if np.isfinite(tail(10_000)).all() else None)
        return Estimate(found.value, found.rounding + np.where(np.isfinite(found.remainder), found.remainder, np.inf), plan, found)
    except NotEnumerableError:
        copies = replicates(ctx)
        many = np.tile(x, (copies, *[1] * (x.ndim - 1)))
        means = np.stack([values(many, SEED + 1 + i).reshape(copies, len(x)).mean(0) for i in range(CALLS)])
        return Estimate(means.mean(0), ERRORS * means.std(0, ddof=1) / np.sqrt(CALLS))
