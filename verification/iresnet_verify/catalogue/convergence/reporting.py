"""Convergence: a failure to converge is reported and not hidden, the worst input is looked for, Banach's rate holds.

A *report* is an exception, a row that is not finite, or a warning that speaks of convergence. An answer that is returned
as if it were one must keep the promise ‖x̂ − F⁻¹(y)‖ ≤ tol·max(1, ‖x̂‖), hence ‖F(x̂) − y‖ ≤ ‖J‖·tol·max(1, ‖x̂‖) + rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared import stretch_search as search
from iresnet_verify.catalogue.shared.map_errors import (
    Domain,
    Rows,
    attempt,
    distance,
    floors,
    gain,
    norms,
    onto,
    promised,
    refreshed,
    residual,
    sensitivity,
    size,
)
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.shrinking import shrink
from iresnet_verify.measurements import maps as measures

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Verdict:
    """For rows of y: the residual ‖F(x̂) − y‖, its bound, what of the bound is a multiple of the size, and who reported."""

    error: Rows
    bound: Rows
    reported: Mask
    how: str

    @property
    def wrong(self) -> Mask:
        """Rows returned as answers although they are none."""
        return ~self.reported & ~(self.error <= self.bound)


def judge(ctx: Context, y: HostArray, tol: float) -> Verdict:
    """Invert y and compare F(x̂) with y; ‖J‖ and the rounding floor are computed for the rows that need them."""
    x, reported, how = attempt(ctx, y)
    silent = np.flatnonzero(~reported)
    error, bound = np.zeros(len(y)), np.zeros(len(y))
    if len(silent):
        rows, wanted = x[silent], y[silent]
        gap, limit = distance(ctx.f.forward(rows), wanted), tol * size(rows)
        over = np.flatnonzero(~(gap <= limit))
        if len(over):
            J = ctx.jacobian(rows[over])
            stretch, kappa = gain(J), sensitivity(ctx, rows[over], J)
            noise = ctx.forward_tolerance(rows[over], wanted[over])
            limit[over] = stretch * (limit[over] + 4.0 * kappa * noise) + 2.0 * noise
        error[silent], bound[silent] = gap, limit
    return Verdict(error, bound, reported, how)


def demanding(ctx: Context, domain: Domain) -> tuple[HostArray, dict[str, int]]:
    """Return y that ask much of an iteration, and how many of each kind.

    Images of inputs where ‖J_g‖ is largest (few steps contract least there); where F is onto all of ℝᵈ by its Lipschitz
    claim also y in random directions at 10 … 10⁴ (float32: 10³) times the size of the inputs.
    """
    x = search.hardest(ctx, domain, 4)
    near = domain.clip((x + 0.1 * size(x)[0] * ctx.rng.standard_normal((4, *x.shape[1:]))).astype(x.dtype))
    planted = np.concatenate([x, near, ctx.inputs(ctx.rows)])
    parts = [ctx.f.forward(planted)]
    counts = {"images": len(planted), "far": 0}
    if onto(ctx, domain):
        exponents = np.linspace(1.0, 4.0 if ctx.u < 1e-12 else 3.0, max(4, ctx.rows))
        away = ctx.rng.standard_normal((len(exponents), *ctx.subject.event_shape))
        away *= (10.0**exponents / np.maximum(norms(away), 1e-300)).reshape(-1, *(1,) * (away.ndim - 1))
        parts.append((away * max(1.0, float(np.median(norms(planted))))).astype(planted.dtype))
        counts["far"] = len(exponents)
    return np.concatenate(parts), counts


@check(
    "convergence.is-reported",
    claim="A failure to converge is reported: inverse(y) keeps ‖F(x) − y‖ ≤ ‖J‖·tol·max(1, ‖x‖), or raises, warns or "
    "returns non-finite rows.",
    reference="Behrmann et al. 2019 (arXiv 1811.00995), Algorithm 1: the fixed-point iteration and its number of steps",
    kind="search", needs=("inverse",),
    cost="5 (quick) to 75 batches of inversions",
    catches="a fixed number of steps, a maximum of steps reached in silence, garbage for far-away y",
)
def is_reported(ctx: Context) -> Outcome:
    """Far-away and slowly converging y, then a random search that follows the largest residual."""
    refreshed(ctx)
    tol, source = promised(ctx)
    domain = Domain.of(ctx)
    y, counts = demanding(ctx, domain)
    found = judge(ctx, y, tol)
    tried = len(y)
    if not found.wrong.any() and onto(ctx, domain):
        order = np.argsort(-found.error / np.maximum(found.bound, 1e-300))[: ctx.budget.restarts]
        lead, score = y[order].copy(), (found.error / np.maximum(found.bound, 1e-300))[order]
        for _ in range(max(3, ctx.budget.steps // 4)):
            move = ctx.rng.standard_normal(lead.shape) / np.sqrt(max(ctx.d, 1))
            length = 10.0 ** ctx.rng.uniform(-2.0, 0.0, len(lead)) * np.maximum(1.0, norms(lead))
            trial = (lead + length.reshape(-1, *(1,) * (lead.ndim - 1)) * move).astype(lead.dtype)
            step = judge(ctx, trial, tol)
            tried += len(trial)
            if step.wrong.any():
                y, found = trial, step
                break
            ratio = np.where(step.reported, 0.0, step.error / np.maximum(step.bound, 1e-300))
            better = ratio > score
            lead[better], score[better] = trial[better], ratio[better]
    answered = ~found.reported
    evidence: dict[str, Any] = {
        "y_tried": tried, **{f"y_{k}": v for k, v in counts.items()}, "rows_reported": int(found.reported.sum()),
        "reported_by": found.how or "nothing to report",
        "largest_residual": float(found.error[answered].max()) if answered.any() else 0.0,
        "largest_residual_over_bound": float((found.error / np.maximum(found.bound, 1e-300)).max()),
    }
    text = f"max(1, 2‖J‖)·({tol:.3g}·max(1, ‖x‖) + 4κη) + 2η ({source})"
    oracle = "F itself, evaluated at the answer"
    if not found.wrong.any():
        return Outcome("passed", f"Not refuted: {tried} y, every answer solves F(x) = y or is reported.", evidence, text,
                       oracle)
    worst = int(np.argmax(np.where(found.wrong, found.error / np.maximum(found.bound, 1e-300), -1.0)))
    allowed = float(found.bound[worst])

    def refuted(rows: HostArray) -> bool:
        value, limit = measures.hidden_failure(ctx.f, rows, 0.0, allowed)
        return not value <= limit and not attempt(ctx, rows)[1].any()

    point = shrink(y[worst : worst + 1], refuted)
    return Outcome(
        "failed",
        f"For a y of size {float(norms(y)[worst]):.3g} the inverse returns x with ‖F(x) − y‖ = {float(found.error[worst]):.3g}"
        f" (allowed {allowed:.2g}) and says nothing; raise, warn or return NaN where the residual is not small.",
        {**evidence, "rows_hidden": int(found.wrong.sum())}, text, oracle,
        Counterexample({"y": point if refuted(point) else y[found.wrong], "tolerance": 0.0, "floor": allowed},
                       measures.hidden_failure),
    )


@check(
    "convergence.worst-input",
    claim="No input found by search makes the inverse break its promise: ‖inverse(F(x)) − x‖₂ ≤ tol·max(1, ‖x‖₂).",
    reference="inverse_tolerance of the subject", kind="search", needs=("inverse",),
    cost="20 (quick) to 300 batches of round trips",
    catches="an inverse that converges on typical inputs only",
)
def worst_input(ctx: Context) -> Outcome:
    """Ascend ‖inverse(F(x)) − x‖/max(1, ‖x‖) by random and coordinate steps from inputs and from where ‖J_g‖ is largest."""
    refreshed(ctx)
    tol, source = promised(ctx)
    domain = Domain.of(ctx)
    rng = ctx.rng
    x = np.concatenate([search.hardest(ctx, domain, 3), ctx.inputs(4 * ctx.budget.restarts)])

    def errors(points: HostArray) -> Rows:
        back, reported, _ = attempt(ctx, ctx.f.forward(points))
        return np.where(reported, 0.0, distance(back, points) / size(points))

    score = errors(x)
    history = [float(score.max())]
    order = np.argsort(-score)[: ctx.budget.restarts]
    x, score, evaluations = x[order], score[order], len(x)
    step = 0.5 * size(x)
    column = (-1, *(1,) * (x.ndim - 1))
    for k in range(ctx.budget.steps):
        move = rng.standard_normal(x.shape) / np.sqrt(max(ctx.d, 1))
        if k % 2:  # one coordinate at a time
            flat = np.zeros((len(x), ctx.d))
            flat[np.arange(len(x)), rng.integers(ctx.d, size=len(x))] = rng.choice([-1.0, 1.0], len(x))
            move = flat.reshape(x.shape)
        trial = domain.clip((x + step.reshape(column) * move).astype(x.dtype))
        found = errors(trial)
        evaluations += len(trial)
        better = found > score
        x[better], score[better] = trial[better], found[better]
        step = np.clip(np.where(better, 1.6 * step, 0.7 * step), 1e-3 * size(x), size(x))
        history.append(float(score.max()))
        if score.max() > tol and k >= 4:
            break
    error = score * size(x)
    bound = tol * size(x)
    over = np.flatnonzero(~(error <= bound))
    slack = np.zeros(len(x))
    if len(over):
        y = ctx.f.forward(x[over])
        slack[over] = floors(ctx, x[over], y, attempt(ctx, y)[0])
    wrong = ~(error <= bound + slack)
    evidence = {"evaluations": evaluations, "largest_relative_error": float(score.max()), "promised": tol,
                "before_the_search": history[0], "rows_over": int(wrong.sum())}
    text = f"{tol:.3g}·max(1, ‖x‖) + 4κη ({source})"
    curves = {"largest error in the search": {
        "kind": "residual", "x": list(range(len(history))), "y": history, "bound": tol, "ylabel": "error / max(1, ‖x‖)",
        "xlabel": "step of the search"}}
    if not wrong.any():
        return Outcome("passed", f"Not refuted: {evaluations} evaluations, largest error {float(score.max()):.2g}·max(1, "
                       f"‖x‖), promised {tol:.2g}.", evidence, text, "the planted input x", curves=curves)
    worst = int(np.argmax(np.where(wrong, score, -1.0)))
    floor = float(slack[worst])

    def refuted(rows: HostArray) -> bool:
        value, limit = measures.recovered_input(ctx.f, rows, tol, floor)
        return not value <= limit

    point = shrink(x[worst : worst + 1], refuted)
    return Outcome(
        "failed", f"A search found x whose inverse is off by {float(score[worst]):.3g}·max(1, ‖x‖), promised {tol:.2g} "
        f"(before the search: {history[0]:.2g}); report rows that have not converged.", evidence, text, "the planted input x",
        Counterexample({"x": point if refuted(point) else x[wrong], "tolerance": tol, "floor": floor},
                       measures.recovered_input), curves,
    )


@check(
    "convergence.banach-rate",
    claim="Along x ← y − g(x) every residual shrinks at least by the claimed L: ‖r_{k+1}‖ ≤ L‖r_k‖, r_k = y − x_k − g(x_k).",
    reference="Behrmann et al. 2019 (arXiv 1811.00995), Theorem 1", kind="search", needs=("lipschitz",),
    cost="20 (quick) to 300 evaluations of g",
    catches="a Lipschitz claim below the true rate, a residual that is not F − id",
)
def banach_rate(ctx: Context) -> Outcome:
    """r_{k+1} = g(x_k) − g(x_{k+1}), so one step that shrinks less refutes the claim by the pair (x_k, x_{k+1})."""
    L = ctx.subject.lipschitz
    assert L is not None
    refreshed(ctx)
    domain = Domain.of(ctx)
    slack = search.rounding_of_claim(ctx)
    y, x = _start(ctx, domain)
    series: list[Rows] = []
    worst, pair, tightest, compared = 0.0, None, 0.0, 0
    for _ in range(ctx.budget.steps):
        following = (y.astype(np.float64) - residual(ctx, x)).astype(y.dtype)
        series.append(distance(following, x))
        usable = domain.contains(x) & domain.contains(following)
        ratio, noise, _ = search.measure_pairs(ctx, x, following)
        certified = np.where(usable, ratio - noise, 0.0)
        compared += int((usable & (noise < L) & (series[-1] > 0.0)).sum())
        tightest = max(tightest, float(np.where(usable & (noise < 0.1 * max(L, 1e-3)), ratio, 0.0).max()))
        i = int(certified.argmax())
        if certified[i] > worst:
            worst, pair = float(certified[i]), (x[i : i + 1].copy(), following[i : i + 1].copy(), float(noise[i]))
        x = following
        if not np.isfinite(x).all():
            break
    evidence = {"claimed": L, "largest_certified_ratio": worst, "largest_ratio": tightest, "steps_compared": compared,
                "last_residual": float(series[-1].max())}
    text = f"L(1 + {slack:.1e}) plus the rounding of both evaluations over the step"
    shown = [float(np.nanmax(r)) for r in series]
    line = [shown[0] * L**k for k in range(len(shown))]
    curves = {"residual of the fixed-point iteration": {
        "kind": "residual", "x": list(range(len(shown))), "y": shown, "bound": line, "bound_label": "Lᵏ‖r₀‖ + rounding"}}
    if pair is not None and worst > L * (1.0 + slack):
        a, b, noise_of = pair
        gap = float(distance(a, b)[0])
        return Outcome(
            "failed", f"A step of x ← y − g(x) shrinks the residual by {worst:.4g} only, claimed {L:.4g}; the layers' norms "
            "or the activation's constant are larger than assumed.", evidence, text, "g itself at both points",
            Counterexample({"a": a, "b": b, "lipschitz": L * (1.0 + slack), "rounding": noise_of * gap},
                           measures.stretch_of_residual), curves,
        )
    if compared == 0:
        return Outcome("skipped", "every step leaves the inputs for which the claim is made, or is as small as its rounding: "
                       "none can be compared with L", evidence, text, "g itself at both points", curves=curves)
    return Outcome("passed", f"Not refuted: {compared} steps, largest ratio {tightest:.4g}, claimed {L:.4g}.", evidence,
                   text, "g itself at both points", curves=curves)


def _start(ctx: Context, domain: Domain) -> tuple[HostArray, HostArray]:
    """(y, x₀): x₀ = y on ℝᵈ. Where the promises hold on some inputs only, x₀ is near the preimage of y, deep among them.

    The iteration then stays there: ‖x_k − F⁻¹(y)‖ ≤ Lᵏ‖x₀ − F⁻¹(y)‖.
    """
    rows = ctx.inputs(ctx.rows)
    if domain.everywhere:
        y = rows if onto(ctx, domain) else ctx.f.forward(rows)
        return y, y.copy()
    deep = ((rows + domain.centre) / 2.0).astype(rows.dtype)
    return ctx.f.forward(deep), (deep + (np.roll(deep, 1, axis=0) - deep) / 256.0).astype(rows.dtype)
