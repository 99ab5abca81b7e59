"""The expectation of a random log-det by sampling, where it cannot be enumerated.

Where the distribution of the length is visible, the probes are signs and Σ Lᵏ/(k·P(N ≥ k)) < ∞, the estimate is bounded,
|X| ≤ d·Σ Lᵏ/(k·P(N ≥ k)), and the betting sequence may refute. Else the asymptotic sequence may confirm, where
the variance is proved finite, or suspect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.randomness.injection import PROBES, Vector, injector, is_modelled, probe_place
from iresnet_verify.randomness.length_tails import series_sum
from iresnet_verify.randomness.recorder import Draw
from iresnet_verify.statistics import confidence_sequences as sequences

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

Evaluate = Callable[["HostArray", int], Vector]
CALLS = 128
"""Calls of a sampling run; each holds as many copies of the rows as the budget allows."""


@dataclass
class Claim:
    """What E[X] should be on the rows x: `truth` up to `slack` (rounding of the oracle) and `bias` (declared)."""

    x: HostArray
    truth: Vector
    slack: Vector
    bias: float
    source: str
    what: str = "log-det"
    spectrum: Vector | None = None
    """|eigenvalues| of J_g per row, where F is one residual block: bounds the terms of a correct series."""
    J: Vector | None = None
    """J_g per row, where a wrong value is to be recognised."""
    evidence: dict[str, Any] = field(default_factory=dict)

    def tail(self, k: int) -> Vector:
        """Σ_{j>k} Σ_i |λ_i|ʲ/j per row: what the terms after the k-th add at most in a correct series."""
        assert self.spectrum is not None
        r = np.minimum(self.spectrum, 1.0)
        with np.errstate(divide="ignore"):
            return np.sum(np.where(r < 1.0, r ** (k + 1) / ((k + 1) * (1.0 - r)), np.inf), axis=1)


def replicates(ctx: Context) -> int:
    """Copies of each row in one call."""
    return max(1, math.ceil(ctx.budget.samples / CALLS))


def draws_of(ctx: Context, evaluate: Evaluate, x: HostArray, each: bool = False) -> Vector:
    """Return means of CALLS calls, (CALLS, rows); or, with `each`, every draw, (CALLS·copies, rows).

    Means of calls are independent even where a call shares one series length among its rows.
    """
    copies, rows = replicates(ctx), len(x)
    many = np.tile(x, (copies, *[1] * (x.ndim - 1)))
    values = np.stack([evaluate(many, int(ctx.rng.integers(2**31))).reshape(copies, rows) for _ in range(CALLS)])
    return values.reshape(-1, rows) if each else values.mean(1)


def seen_draws(ctx: Context, evaluate: Evaluate, x: HostArray) -> list[Draw]:
    """The draws of one call."""
    seen: list[Draw] = []

    def note(draw: Draw) -> None:
        seen.append(draw)

    with injector(ctx.subject)(note):
        evaluate(x, 0)
    return seen


REPLAYS = 32
"""Real calls that are repeated with their own draws under another seed."""


def replayed(ctx: Context, evaluate: Evaluate, x: HostArray, *, modelled_only: bool = False) -> bool:
    """Whether the recorded draws decide the value: in `REPLAYS` calls, replayed under other seeds, they give the same one.

    With `modelled_only`, of the draws only probes and series lengths are replayed. Randomness that changes the value in more
    than a share q of the calls escapes with probability (1 − q)³²: q = .35 at 1e-6.
    """
    inject, batch = injector(ctx.subject), len(x)
    for seed in range(0, 2 * REPLAYS, 2):
        seen: list[Draw] = []
        with inject(lambda draw, seen=seen: seen.append(draw)):  # type: ignore[misc]  # a lambda whose default is its loop variable
            first = evaluate(x, seed)
        waiting = iter(seen)

        def again(draw: Draw, waiting: Iterator[Draw] = waiting) -> Any:
            recorded = next(waiting, None)
            known = is_modelled(draw, batch, ctx.subject.event_shape) if modelled_only else draw.distribution.family != "other"
            return recorded.value if recorded is not None and recorded.shape == draw.shape and known else None

        with inject(again):
            second = evaluate(x, seed + 1)
        if not np.allclose(first, second, rtol=1e6 * ctx.u, atol=1e6 * ctx.u):
            return False
    return True


def sample(
    ctx: Context, evaluate: Evaluate, claim: Claim, epsilon: float, reason: str, known_finite: bool = False
) -> Outcome:
    """Compare the mean of real draws on each row with the claim; `known_finite`: the variance is known to be finite otherwise."""
    alpha = ctx.alpha / len(claim.x)
    draws = seen_draws(ctx, evaluate, claim.x)
    complete = replayed(ctx, evaluate, claim.x)
    finite, why = proved_finite(ctx, claim, draws) if complete else (False, "not all draws are seen")
    finite = finite or known_finite
    bound = almost_sure_bound(ctx, draws, len(claim.x)) if complete else None
    values = draws_of(ctx, evaluate, claim.x, each=bound is not None)
    tau, worst, bands, e_values = claim.slack + claim.bias, 0, [], []
    verdicts = []
    for i in range(len(claim.x)):
        column = values[:, i]
        inside = bound is not None and bool((np.abs(column) <= bound).all())
        band = (sequences.betting(column, -bound, bound, alpha) if inside and bound is not None
                else sequences.asymptotic(column, alpha))
        bands.append(band)
        if inside and bound is not None:
            ends = (float(claim.truth[i] - tau[i]), float(claim.truth[i] + tau[i]))
            e_values.append(sequences.e_value(column, -bound, bound, alpha, *ends) if np.isfinite(ends).all() else 0.0)
        low, high = band.last
        verdicts.append(sequences.verdict(low - claim.truth[i], high - claim.truth[i], float(tau[i]), epsilon))
        if verdicts[-1] != "PASS" and verdicts[worst] != "FAIL":
            worst = i
    band = bands[worst]
    low, high = (float(v - claim.truth[worst]) for v in band.last)
    evidence = {
        "bias_low": low, "bias_high": high, "mean": float(band.mean[-1]), "truth": float(claim.truth[worst]), "tau": float(tau[worst]),
        "epsilon": epsilon, "alpha_per_row": alpha, "draws_per_row": CALLS * replicates(ctx),
        "rows": len(claim.x), "not_enumerated": reason, **claim.evidence,
    }
    if e_values:
        evidence["e_value"] = sum(e_values) / len(claim.x)  # a mean of e-values is one, whatever their dependence; a row without counts 0
    tolerance = f"τ = {tau[worst]:.3g} (oracle and declared bias), ε = {epsilon:.3g} nats, fixed before sampling"
    oracle = f"{'betting' if band.proved else 'asymptotic'} confidence sequence against {claim.source}"
    unit = 1 if bound is not None else replicates(ctx)
    curves = {f"mean {claim.what}": sequences.curve(band, truth=float(claim.truth[worst]), epsilon=epsilon, unit=unit)}
    span = f"the bias lies in [{low:.3g}, {high:.3g}] at error rate {alpha:.1e}"
    if "FAIL" in verdicts:
        if sequences.may_refute(band, alpha):
            return Outcome("failed", f"expected E[{claim.what}] = truth within {tau[worst]:.2g}, got: {span}", evidence, tolerance,
                           oracle, Counterexample({"x": claim.x[worst : worst + 1]}), curves)
        return Outcome("inconclusive", f"suspected: {span}, but an asymptotic band proves nothing at this error rate ({reason})",
                       evidence, tolerance, oracle, curves=curves)
    if set(verdicts) == {"PASS"} and finite:
        return Outcome("passed", f"|bias| ≤ {epsilon + float(tau.max()):.3g} nats at error rate {ctx.alpha:.1e}: {span} ({reason})",
                       evidence, tolerance, oracle, curves=curves)
    if set(verdicts) == {"PASS"}:
        return Outcome("inconclusive", f"{span} only if the variance is finite, which is not proved: {why} ({reason})",
                       evidence, tolerance, oracle, curves=curves)
    return Outcome("inconclusive", f"{span}: too wide for ε = {epsilon:.2g}; try a larger budget ({reason})",
                   evidence, tolerance, oracle, curves=curves)


def proved_finite(ctx: Context, claim: Claim, draws: list[Draw]) -> tuple[bool, str]:
    """Whether the variance is proved finite at the tested rows, and why not."""
    lengths = [d.distribution for d in draws if d.distribution.family == "length"]
    if any(d.distribution.family == "other" for d in draws) or not draws:
        return False, "a distribution of the draws is not visible"
    if any(d.distribution.family == "uniform" and ctx.d not in (d.shape or (0,)) for d in draws):
        return False, "a series length may be made from uniforms"
    if not lengths:
        return True, ""
    radius = ctx.subject.lipschitz if claim.spectrum is None else float(claim.spectrum.max(initial=0.0))
    if radius is None or radius >= 1.0:
        return False, "neither a Lipschitz bound nor the spectrum of J_g is known"
    finite = all(w.survival is not None and math.isfinite(series_sum(radius**2, w.survival, 2)) for w in lengths)
    return finite, "" if finite else f"Σ L²ᵏ/(k²P(N ≥ k)) diverges at L = {radius:.3g}"


def almost_sure_bound(ctx: Context, draws: list[Draw], rows: int) -> float | None:
    """d·Σ Lᵏ/(k·P(N ≥ k)) where probes are fair signs, lengths are seen and drawn for each row, and the sum is finite.

    It is the bound of a correct roulette, the hypothesis to be refuted; a draw outside it takes the bound away.
    """
    L = ctx.subject.lipschitz
    event = ctx.subject.event_shape
    probes = [d for d in draws if d.distribution.family in PROBES and probe_place(d.shape, rows, event) is not None]
    lengths = [d for d in draws if d.distribution.family == "length"]
    drawn = [d.distribution for d in probes]
    signs = all(p.family == "two-point" and (p.mean, abs(p.standard_deviation)) == (0.0, 1.0) for p in drawn)
    if L is None or not 0 < L < 1 or not probes or not signs or len(lengths) != 1 or rows not in lengths[0].shape:
        return None
    survival = lengths[0].distribution.survival
    total = math.inf if survival is None else series_sum(L, survival, 1)
    return ctx.d * total if math.isfinite(total) else None
