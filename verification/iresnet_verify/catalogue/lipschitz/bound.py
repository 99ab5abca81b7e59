"""The claimed Lipschitz bound: against the Jacobian, against pairs, as two-sided stretch, and when parameters change.

Lip(g) is the supremum of ‖J_g(x)‖₂ over x (on a convex domain), so a search over x refutes a claim and never proves it:
a pass says "not refuted", with the number of evaluations and the largest value met. `lipschitz_holds` says when the
claim is made: "now" for the parameters as delivered; "after-refresh" once `refresh()` has been called, also after the
parameters have changed; "always" whatever the parameters are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared import singular_products as products
from iresnet_verify.catalogue.shared import stretch_search as search
from iresnet_verify.catalogue.shared.map_errors import Domain, distance, refreshed, residual
from iresnet_verify.check.outcome import REFUSED, Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.shrinking import shrink
from iresnet_verify.check.verdict import Comparison, above_claim, beyond, shrunk, verdict
from iresnet_verify.measurements import maps as measures
from iresnet_verify.oracle import singular_values as singular
from iresnet_verify.subject.errors import Refused

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

THEOREM = "Behrmann et al. 2019 (arXiv 1811.00995), Theorem 1: F = id + g is invertible where Lip(g) < 1"


def pair_counterexample(ctx: Context, a: HostArray, b: HostArray) -> Counterexample | None:
    """Return the pair, shrunk to few digits, as a counterexample to ‖g(a) − g(b)‖ ≤ L·‖a − b‖; None if it is none."""
    assert ctx.subject.lipschitz is not None
    limit = ctx.subject.lipschitz * (1.0 + search.rounding_of_claim(ctx))

    def noise(rows: HostArray) -> float:
        _, relative, gap = search.measure_pairs(ctx, rows[:, 0], rows[:, 1])
        return float((relative * gap)[0])

    def refuted(rows: HostArray) -> bool:
        value, bound = measures.stretch_of_residual(ctx.f, rows[:, 0], rows[:, 1], limit, noise(rows))
        return bool(np.isfinite(value)) and not value <= bound

    both = np.stack([a, b], axis=1)
    if not refuted(both):
        return None
    both = shrink(both, refuted)
    return Counterexample({"a": both[:, 0], "b": both[:, 1], "lipschitz": limit, "rounding": noise(both)},
                          measures.stretch_of_residual)


def search_norm(ctx: Context, restarts: int, steps: int, *, as_delivered: bool = False) -> tuple[search.Worst, search.Pair, str]:
    """Search the largest ‖J_g‖₂; return where it is, the best pair along it, and the tolerance of the claim in words."""
    domain = Domain.of(ctx)
    worst = (search.worst_stretch(ctx, domain, restarts=restarts, steps=steps, far=True) if as_delivered else
             search.ascend(ctx, domain, restarts=restarts, steps=steps))
    pair = search.best_pair(ctx, *search.along(ctx, domain, worst.x, worst.direction))
    slack = search.rounding_of_claim(ctx)
    return worst, pair, f"L(1 + {slack:.1e}), 4nu for each layer, plus the oracle's error {worst.error:.1e}"


def norm_verdict(
    ctx: Context, worst: search.Worst, pair: search.Pair, tolerance: str, *, when: str, remedy: str,
    counterexample: Callable[[], Counterexample], evidence: Mapping[str, Any] | None = None,
) -> Outcome:
    """Compare what a search for the largest ‖J_g‖₂ has certified, by the oracle or by a pair, with the claimed L."""
    L = ctx.subject.lipschitz
    assert L is not None
    return verdict(
        max(worst.value - worst.error, pair.certified), L * (1.0 + search.rounding_of_claim(ctx)),
        expected=f"‖J_g‖ ≤ {L:.6g}{when}",
        got=f"{beyond(max(worst.value, pair.certified), L)} at a point found by ascent",
        remedy=remedy,
        passed=f"not refuted{when}: {worst.evaluations} points, largest norm {worst.value:.6g}, claimed {L:.6g}"
        f"{above_claim(max(worst.value - worst.error, pair.certified), L)}",
        tolerance=tolerance, oracle=f"largest singular value of the Jacobian by {worst.source}",
        evidence={"compared": worst.evaluations, "claimed": L, "largest_norm": worst.value, "oracle_error": worst.error,
                  "best_certified_pair": pair.certified, **(evidence or {})},
        counterexample=lambda at: counterexample(),
    )


@check(
    "lipschitz.bounds-jacobian",
    claim="The claimed bound holds for the Jacobian of g everywhere: ‖J_g(x)‖₂ ≤ L.",
    reference=THEOREM, kind="search", needs=("lipschitz",),
    cost="4 (quick) to 32 starts × 20 to 300 steps, two Jacobians each; above d = 32 fewer, above d = 128 products with J, once for all "
    "checks; up to 120,000 "
    "rows of g where no inputs are declared",
    catches="too few power iterations, norms of reshaped kernels, an activation or a pooling steeper than assumed, if only far out",
)
def bounds_jacobian(ctx: Context) -> Outcome:
    """Multi-start ascent of ‖J_g(x)‖₂; the counterexample is a pair along the top singular vector.

    Without `inputs` the claim is made on all of ℝᵈ: starts then come from up to 4,096 points of norms up to 300·√d too (d ≤ 32), and
    from inputs that bring a layer without parameters to where it is steepest on the line.
    """
    refreshed(ctx)
    worst, pair, tolerance = search_norm(ctx, ctx.budget.restarts, ctx.budget.steps, as_delivered=True)
    return norm_verdict(
        ctx, worst, pair, tolerance, when="",
        remedy="use more power iterations (or an exact norm) and check the activation's constant",
        counterexample=lambda: pair_counterexample(ctx, pair.a, pair.b) or Counterexample({"x": worst.x}),
    )


@check(
    "lipschitz.bounds-pairs",
    claim="The claimed bound holds for pairs: ‖g(x) − g(x')‖₂ ≤ L‖x − x'‖₂.",
    reference=THEOREM, kind="search", needs=("lipschitz",),
    cost="16 (quick) to 128 pairs × 40 to 600 steps, in many dimensions fewer pairs; and half of lipschitz.bounds-jacobian",
    catches="a bound that derivatives do not show: jumps, kinks, a wrong backward pass",
)
def bounds_pairs(ctx: Context) -> Outcome:
    """Pairs of inputs improved by local search, and pairs along the worst direction of a shorter ascent."""
    L = ctx.subject.lipschitz
    assert L is not None
    refreshed(ctx)
    domain = Domain.of(ctx)
    starts = 4 * ctx.budget.restarts
    if ctx.d > singular.LARGE:
        starts = min(starts, max(4, 4 * ctx.budget.numbers // ctx.d))
    pair, tried = search.climb_pairs(ctx, domain, restarts=starts, steps=2 * ctx.budget.steps)
    worst = search.worst_stretch(ctx, domain, restarts=max(2, ctx.budget.restarts // 2), steps=max(5, ctx.budget.steps // 2), far=True)
    refined = search.best_pair(ctx, *search.along(ctx, domain, worst.x, worst.direction))
    best = max(pair, refined, key=lambda p: p.certified)
    slack, pairs = search.rounding_of_claim(ctx), tried + len(search.LENGTHS)
    return verdict(
        best.certified, L * (1.0 + slack),
        expected=f"‖g(x) − g(x')‖ ≤ {L:.6g}‖x − x'‖",
        got=f"a pair that g stretches by {beyond(best.ratio, L)}",
        remedy="use more power iterations (or an exact norm) and check the activation's constant",
        passed=f"not refuted: {pairs} pairs, largest ratio {best.ratio:.6g}, claimed {L:.6g}{above_claim(best.certified, L)}",
        tolerance=f"L(1 + {slack:.1e}) + (η(x) + η(x'))/‖x − x'‖, here {best.ratio - best.certified:.1e}",
        oracle="g itself at both points",
        evidence={"compared": pairs, "claimed": L, "largest_stretch": best.ratio, "certified_stretch": best.certified,
                  "by_local_search": pair.certified},
        counterexample=lambda at: pair_counterexample(ctx, best.a, best.b) or Counterexample({"a": best.a, "b": best.b}),
    )


@check(
    "lipschitz.bounds-stretch",
    claim="The map stretches within (1 − L)‖x − x'‖ ≤ ‖F(x) − F(x')‖ ≤ (1 + L)‖x − x'‖.",
    reference="Behrmann et al. 2019 (arXiv 1811.00995), Lemma 2", kind="search", needs=("lipschitz",),
    cost="4 Jacobians a row, 20 pairs each; above d = 128 30 products with J and its transpose in place of each",
    catches="a forward that is not id + g for the g whose bound is claimed, a scaled skip connection",
)
def bounds_stretch(ctx: Context) -> Outcome:
    """Pairs of inputs, pairs in random directions, and pairs along the extreme singular vectors of J_F, all lengths."""
    L = ctx.subject.lipschitz
    assert L is not None
    refreshed(ctx)
    domain = Domain.of(ctx)
    most = max(1, min(4 * ctx.rows, search.WORK // max(ctx.d, 1)))
    x = ctx.inputs(most)
    sides: list[tuple[HostArray, HostArray]] = [(x, np.roll(x, 1, axis=0))] if most > 1 else []
    for i, (top, bottom) in enumerate(_extremes(ctx, x)):
        if np.isfinite(top).all():
            sides += [search.along(ctx, domain, x[i : i + 1], w) for w in (top, bottom, ctx.rng.standard_normal(ctx.d))]
    a, b = np.concatenate([s[0] for s in sides]), np.concatenate([s[1] for s in sides])
    ratio, noise, gap = search.measure_pairs(ctx, a, b, whole=True)
    used = gap > 0.0
    a, b, ratio, noise, gap = a[used], b[used], ratio[used], noise[used], gap[used]
    slack = search.rounding_of_claim(ctx)
    limit = L * (1.0 + slack)
    clear = noise < 1e-3

    def counterexample(at: Comparison) -> Counterexample:
        measure = measures.stretch_above if at.case == "above" else measures.stretch_below
        rounding = float(noise[at.row] * gap[at.row])

        def refuted(rows: HostArray) -> bool:
            value, bound = measure(ctx.f, rows[:, 0], rows[:, 1], limit, rounding)
            return not value <= bound

        both = shrink(np.stack([a[at.rows], b[at.rows]], axis=1), refuted)
        return Counterexample({"a": both[:, 0], "b": both[:, 1], "lipschitz": limit, "rounding": rounding}, measure)

    return verdict(
        {"above": ratio - noise - 1.0, "below": 1.0 - ratio - noise}, limit,
        expected=f"F to stretch every pair by {1 - L:.6g} to {1 + L:.6g}, as L = {L:.6g} implies",
        got=lambda at: f"a pair stretched by {beyond(ratio[at.row], 1 + L) if at.case == 'above' else f'{ratio[at.row]:.6g}'}",
        remedy="check that forward is x + g(x) and that g's norm is what is claimed",
        passed=f"not refuted: {len(gap)} pairs, stretch {ratio[clear].min(initial=np.inf):.4g} to {ratio[clear].max(initial=0.0):.4g}",
        tolerance=f"1 ± L(1 + {slack:.1e}), plus (η(x) + η(x'))/‖x − x'‖ per pair", oracle="F at both points",
        evidence={"claimed": L, "largest_stretch": float(ratio[clear].max(initial=0.0)),
                  "smallest_stretch": float(ratio[clear].min(initial=np.inf))},
        counterexample=counterexample,
    )


def _extremes(ctx: Context, x: HostArray) -> list[tuple[HostArray, HostArray]]:
    """The singular vectors of J_F at every row that belong to its largest and its smallest value, NaN where J is not finite."""
    if products.available(ctx):
        return list(zip(*products.extremes(ctx, x), strict=True))
    J, none = ctx.jacobian(x).matrix, np.full(ctx.d, np.nan)
    return [(singular.largest(m[None])[2][0], singular.smallest(m[None])[3][0]) if np.isfinite(m).all() else (none, none) for m in J]


@check(
    "lipschitz.residual-of-forward",
    claim="The residual given is the one of the map: F(x) = x + g(x).",
    reference="Behrmann et al. 2019 (arXiv 1811.00995), eq. 1", kind="search", needs=("residual",),
    cost="four batches of evaluations",
    catches="a bound claimed for another g than the one in the map, a scaled skip connection",
)
def residual_of_forward(ctx: Context) -> Outcome:
    """‖F(x) − x − g(x)‖₂ ≤ 4η(x): the roundings of F, of g, and of two additions."""
    assert ctx.f.residual is not None
    refreshed(ctx)
    x = ctx.inputs(4 * ctx.rows)
    y = ctx.f.forward(x)
    return verdict(
        distance(y.astype(np.float64) - x, ctx.f.residual(x)), 4.0 * ctx.forward_tolerance(x, y),
        expected=lambda at: f"F(x) = x + g(x) to {at.bound:.1g}",
        got=lambda at: f"a difference of {at.error:.3g}",
        remedy="give the g of this very map",
        passed=lambda at: f"they agree to {at.largest:.1e} in {at.compared} rows",
        tolerance="4η, η the rounding of one evaluation", oracle="F(x) − x in float64",
        counterexample=lambda at: shrunk(ctx.f, measures.residual_gap, "x", x=x[at.wrong], rounding=at.bound),
    )


@check(
    "lipschitz.survives-parameters",
    claim="Where the bound is claimed always or after a refresh, it holds for other parameters too: ‖J_g(x)‖₂ ≤ L.",
    reference="lipschitz_holds of the subject", kind="search", needs=("lipschitz", "module", "torch"), modes=True,
    cost="half of lipschitz.bounds-jacobian, twice",
    catches="a normalisation done once at construction, power iterations that lag behind the weights",
)
def survives_parameters(ctx: Context) -> Outcome:
    """Trainable parameters × 100, then re-drawn as p + ‖p‖_rms·n; `refresh()` where the claim needs it; a shorter ascent each."""
    if ctx.subject.lipschitz_holds == "now":
        return Outcome("skipped", "lipschitz_holds is \"now\": the claim is about the parameters as delivered only.")
    import torch

    norms: dict[str, float] = {}
    refused: dict[str, str] = {}
    found: Outcome | None = None
    for change in ("× 100", "re-drawn"):
        kept = [(p, p.detach().clone()) for p in ctx.subject.module.parameters()
                if p.requires_grad and p.is_floating_point() and p.numel()]
        with torch.no_grad():
            for p, _ in kept:
                if change == "× 100":
                    p.mul_(100.0)
                else:
                    noise = torch.as_tensor(ctx.rng.standard_normal(tuple(p.shape)), dtype=p.dtype, device=p.device)
                    p.add_(p.square().mean().sqrt() * noise)
        trouble = refuses(ctx)
        if trouble:  # a rate, a probability or a scale that is no longer one
            refused[change] = trouble
            with torch.no_grad():
                for p, value in kept:
                    p.copy_(value)
            continue
        worst, pair, tolerance = search_norm(ctx, max(2, ctx.budget.restarts // 2), max(5, ctx.budget.steps // 4))
        norms[f"largest_norm_{change}"] = worst.value
        point = {"x": worst.x, "change": change, "a": pair.a, "b": pair.b}
        found = norm_verdict(
            ctx, worst, pair, tolerance, when=f" with the parameters {change}", evidence=norms,
            remedy="normalise the weights that are used, at every use or at every refresh",
            counterexample=partial(Counterexample, point),
        )
        if found.status != "passed":
            return found
    reasons = "; ".join(f"parameters {change}: {why}" for change, why in refused.items())
    if found is None:
        raise Refused(reasons)
    return replace(found, evidence={**found.evidence, REFUSED: reasons}) if refused else found


def refuses(ctx: Context) -> str:
    """Why nothing can be asked of the network with its parameters as they are now: an exception, or values that are not finite."""
    try:
        refreshed(ctx)
        finite = np.isfinite(residual(ctx, ctx.inputs(ctx.rows))).all()
    except Exception as error:
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:120]}"
    return "" if finite else "the residual is not finite"
