"""The claimed Lipschitz bound: against the Jacobian, against pairs, as two-sided stretch, and when parameters change.

Lip(g) is the supremum of ‖J_g(x)‖₂ over x (on a convex domain), so a search over x refutes a claim and never proves it:
a pass says "not refuted", with the number of evaluations and the largest value met. `lipschitz_holds` says when the
claim is made: "now" for the parameters as delivered; "after-refresh" once `refresh()` has been called, also after the
parameters have changed; "always" whatever the parameters are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared import stretch_search as search
from iresnet_verify.catalogue.shared.map_errors import Domain, distance, refreshed
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.shrinking import shrink
from iresnet_verify.measurements import maps as measures
from iresnet_verify.oracle import singular_values as singular

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

THEOREM = "Behrmann et al. 2019 (arXiv 1811.00995), Theorem 1: F = id + g is invertible where Lip(g) < 1"


def pair_counterexample(ctx: Context, a: HostArray, b: HostArray, limit: float) -> Counterexample | None:
    """Return the pair, shrunk to few digits, as a counterexample to ‖g(a) − g(b)‖ ≤ limit·‖a − b‖; None if it is none."""

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


def judged(ctx: Context, L: float, restarts: int, steps: int) -> tuple[search.Worst, search.Pair, bool, str]:
    """Search; return the worst Jacobian, the best pair along it, whether L is refuted, and the tolerance in words."""
    domain = Domain.of(ctx)
    worst = search.ascend(ctx, domain, restarts=restarts, steps=steps)
    pair = search.best_pair(ctx, *search.along(ctx, domain, worst.x, worst.direction))
    slack = search.rounding_of_claim(ctx)
    refuted = max(worst.value - worst.error, pair.certified) > L * (1.0 + slack)
    return worst, pair, refuted, f"L(1 + {slack:.1e}) = L(1 + 8·max(d, 256)·u), plus the oracle's error {worst.error:.1e}"


@check(
    "lipschitz.bounds-jacobian",
    claim="The claimed bound holds for the Jacobian of g everywhere: ‖J_g(x)‖₂ ≤ L.",
    reference=THEOREM, kind="search", needs=("lipschitz",),
    cost="4 (quick) to 32 starts × 20 to 300 steps, two Jacobians each; above d = 32 fewer, above d = 128 products with J",
    catches="too few power iterations, norms of reshaped kernels, an activation steeper than assumed",
)
def bounds_jacobian(ctx: Context) -> Outcome:
    """Multi-start ascent of ‖J_g(x)‖₂; the counterexample is a pair along the top singular vector."""
    L = ctx.subject.lipschitz
    assert L is not None
    refreshed(ctx)
    worst, pair, refuted, text = judged(ctx, L, ctx.budget.restarts, ctx.budget.steps)
    evidence = {"claimed": L, "largest_norm": worst.value, "oracle_error": worst.error, "evaluations": worst.evaluations,
                "best_certified_pair": pair.certified}
    oracle = f"largest singular value of the Jacobian by {worst.source}"
    if refuted:
        limit = L * (1.0 + search.rounding_of_claim(ctx))
        return Outcome(
            "failed", f"‖J_g‖ should be at most {L:.6g} but is {worst.value:.6g} at a point found by ascent; use more power "
            "iterations (or an exact norm) and check the activation's constant.", evidence, text, oracle,
            pair_counterexample(ctx, pair.a, pair.b, limit) or Counterexample({"x": worst.x}),
        )
    return Outcome("passed", f"Not refuted: {worst.evaluations} points, largest norm {worst.value:.6g}, claimed {L:.6g}.",
                   evidence, text, oracle)


@check(
    "lipschitz.bounds-pairs",
    claim="The claimed bound holds for pairs: ‖g(x) − g(x')‖₂ ≤ L‖x − x'‖₂.",
    reference=THEOREM, kind="search", needs=("lipschitz",),
    cost="16 (quick) to 128 pairs × 40 to 600 steps, and half of lipschitz.bounds-jacobian",
    catches="a bound that derivatives do not show: jumps, kinks, a wrong backward pass",
)
def bounds_pairs(ctx: Context) -> Outcome:
    """Pairs of inputs improved by local search, and pairs along the worst direction of a shorter ascent."""
    L = ctx.subject.lipschitz
    assert L is not None
    refreshed(ctx)
    domain = Domain.of(ctx)
    pair, tried = search.climb_pairs(ctx, domain, restarts=4 * ctx.budget.restarts, steps=2 * ctx.budget.steps)
    worst = search.ascend(ctx, domain, restarts=max(2, ctx.budget.restarts // 2), steps=max(5, ctx.budget.steps // 2))
    refined = search.best_pair(ctx, *search.along(ctx, domain, worst.x, worst.direction))
    best = max(pair, refined, key=lambda p: p.certified)
    slack = search.rounding_of_claim(ctx)
    evidence = {"claimed": L, "largest_ratio": best.ratio, "certified_ratio": best.certified,
                "by_local_search": pair.certified, "pairs": tried + len(search.LENGTHS)}
    text = f"L(1 + {slack:.1e}) + (η(x) + η(x'))/‖x − x'‖, here {best.ratio - best.certified:.1e}"
    oracle = "g itself at both points"
    if best.certified > L * (1.0 + slack):
        return Outcome(
            "failed", f"A pair is stretched by {best.ratio:.6g}, claimed {L:.6g}; use more power iterations (or an exact "
            "norm) and check the activation's constant.", evidence, text, oracle,
            pair_counterexample(ctx, best.a, best.b, L * (1.0 + slack)) or Counterexample({"a": best.a, "b": best.b}),
        )
    return Outcome("passed", f"Not refuted: {evidence['pairs']} pairs, largest ratio {best.ratio:.6g}, claimed {L:.6g}.",
                   evidence, text, oracle)


@check(
    "lipschitz.bounds-stretch",
    claim="The map stretches within (1 − L)‖x − x'‖ ≤ ‖F(x) − F(x')‖ ≤ (1 + L)‖x − x'‖.",
    reference="Behrmann et al. 2019 (arXiv 1811.00995), Lemma 2", kind="search", needs=("lipschitz",),
    cost="4 Jacobians a row, 20 pairs each",
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
    oracle = ctx.jacobian(x)
    sides: list[tuple[HostArray, HostArray]] = [(x, np.roll(x, 1, axis=0))] if most > 1 else []
    for i in range(most):
        if np.isfinite(oracle.matrix[i]).all():
            top, bottom = singular.largest(oracle.matrix[i : i + 1])[2][0], singular.smallest(oracle.matrix[i : i + 1])[3][0]
            sides += [search.along(ctx, domain, x[i : i + 1], w) for w in (top, bottom, ctx.rng.standard_normal(ctx.d))]
    a, b = np.concatenate([s[0] for s in sides]), np.concatenate([s[1] for s in sides])
    ratio, noise, gap = search.measure_pairs(ctx, a, b, whole=True)
    used = gap > 0.0
    above, below = np.where(used, ratio - noise, 0.0), np.where(used, ratio + noise, np.inf)
    slack = search.rounding_of_claim(ctx)
    clear = used & (noise < 1e-3)
    evidence = {"claimed": L, "pairs": int(used.sum()), "largest_stretch": float(ratio[clear].max(initial=0.0)),
                "smallest_stretch": float(ratio[clear].min(initial=np.inf))}
    text = f"1 ± L(1 + {slack:.1e}), plus (η(x) + η(x'))/‖x − x'‖ per pair"
    limit = L * (1.0 + slack)
    high, low = int(above.argmax()), int(below.argmin())
    for i, measure, wrong in ((high, measures.stretch_above, above[high] > 1.0 + limit),
                              (low, measures.stretch_below, below[low] < 1.0 - limit)):
        if wrong:
            rounding = float(noise[i] * gap[i])

            def refuted(rows: HostArray, measure: Any = measure, rounding: float = rounding) -> bool:
                value, bound = measure(ctx.f, rows[:, 0], rows[:, 1], limit, rounding)
                return not value <= bound

            both = shrink(np.stack([a[i : i + 1], b[i : i + 1]], axis=1), refuted)
            return Outcome(
                "failed", f"A pair is stretched by {ratio[i]:.6g}, but L = {L:.6g} allows {1 - L:.6g} to {1 + L:.6g}; check "
                "that forward is x + g(x) and that g's norm is what is claimed.", evidence, text, "F at both points",
                Counterexample({"a": both[:, 0], "b": both[:, 1], "lipschitz": limit, "rounding": rounding}, measure),
            )
    return Outcome("passed", f"Not refuted: {int(used.sum())} pairs, stretch {evidence['smallest_stretch']:.4g} to "
                   f"{evidence['largest_stretch']:.4g}.", evidence, text, "F at both points")


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
    gap = distance(y.astype(np.float64) - x, ctx.f.residual(x))
    bound = 4.0 * ctx.forward_tolerance(x, y)
    wrong = ~(gap <= bound)
    evidence = {"rows": len(x), "largest_gap": float(gap.max()), "rows_wrong": int(wrong.sum())}
    text = f"4η = {float(bound.max()):.1e} at the largest row"
    if wrong.any():
        worst = int(np.argmax(np.where(wrong, gap / bound, -1.0)))
        allowed = float(bound[worst])

        def refuted(rows: HostArray) -> bool:
            value, limit = measures.residual_gap(ctx.f, rows, allowed)
            return not value <= limit

        point = shrink(x[worst : worst + 1], refuted)
        return Outcome("failed", f"F(x) and x + g(x) differ by {float(gap[worst]):.3g} (rounding {allowed:.1g}); give the g "
                       "of this very map.", evidence, text, "F(x) − x in float64",
                       Counterexample({"x": point, "rounding": allowed}, measures.residual_gap))
    return Outcome("passed", f"They agree to {float(gap.max()):.1e} on {len(x)} rows.", evidence, text, "F(x) − x in float64")


@check(
    "lipschitz.survives-parameters",
    claim="Where the bound is claimed always or after a refresh, it holds for other parameters too: ‖J_g(x)‖₂ ≤ L.",
    reference="lipschitz_holds of the subject", kind="search", needs=("lipschitz", "module", "torch"), modes=True,
    cost="half of lipschitz.bounds-jacobian, twice",
    catches="a normalisation done once at construction, power iterations that lag behind the weights",
)
def survives_parameters(ctx: Context) -> Outcome:
    """Trainable parameters × 100, then re-drawn as p + ‖p‖_rms·n; refresh where the claim says so; a shorter ascent each."""
    L = ctx.subject.lipschitz
    assert L is not None
    if ctx.subject.lipschitz_holds == "now":
        return Outcome("skipped", "lipschitz_holds is \"now\": the claim is about the parameters as delivered only.")
    import torch

    slack = search.rounding_of_claim(ctx)
    evidence: dict[str, Any] = {"claimed": L}
    text = ""
    for change in ("× 100", "re-drawn"):
        with torch.no_grad():
            for p in ctx.subject.module.parameters():
                if p.requires_grad and p.is_floating_point() and p.numel():
                    if change == "× 100":
                        p.mul_(100.0)
                    else:
                        noise = torch.as_tensor(ctx.rng.standard_normal(tuple(p.shape)), dtype=p.dtype, device=p.device)
                        p.add_(p.square().mean().sqrt() * noise)
        refreshed(ctx)
        worst, pair, refuted, text = judged(ctx, L, max(2, ctx.budget.restarts // 2), max(5, ctx.budget.steps // 4))
        evidence[f"largest_norm_{change}"] = worst.value
        if refuted:
            return Outcome(
                "failed", f"With parameters {change} ‖J_g‖ is {worst.value:.6g}, claimed {L:.6g} "
                f"({ctx.subject.lipschitz_holds}); normalise the weights that are used, at every use or at every refresh.",
                evidence, f"{text}; L(1 + {slack:.1e})", f"largest singular value of the Jacobian by {worst.source}",
                Counterexample({"x": worst.x, "change": change, "a": pair.a, "b": pair.b}),
            )
    return Outcome("passed", "Not refuted with the parameters × 100 and re-drawn.", evidence, text,
                   "largest singular value of the Jacobian")
