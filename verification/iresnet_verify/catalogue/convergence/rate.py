"""The rate of Banach's iteration: every step shrinks the residual by the claimed Lipschitz constant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify.catalogue.shared import stretch_search as search
from iresnet_verify.catalogue.shared.map_errors import (
    Domain,
    Rows,
    distance,
    onto,
    refreshed,
    residual,
)
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import Comparison, beyond, verdict
from iresnet_verify.measurements import maps as measures

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray


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
    limit = L * (1.0 + slack)
    y, x = _start(ctx, domain)
    series: list[Rows] = []
    worst, pair, tightest, compared = 0.0, (x[:1], x[:1], 0.0), 0.0, 0
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
    shown = [float(np.nanmax(r)) for r in series]

    def counterexample(at: Comparison) -> Counterexample:
        a, b, rounding = pair
        return Counterexample({"a": a, "b": b, "lipschitz": limit, "rounding": rounding * float(distance(a, b)[0])},
                              measures.stretch_of_residual)

    return verdict(
        worst if compared or worst > limit else (), limit,
        expected=f"every step of x ← y − g(x) to shrink the residual by the claimed {L:.4g}",
        got=lambda at: f"a step that shrinks it by {beyond(at.error, L, 4)}",
        remedy="the layers' norms or the activation's constant are larger than assumed",
        passed=f"not refuted: {compared} steps, largest ratio {tightest:.4g}, claimed {L:.4g}",
        nothing="every step leaves the inputs for which the claim is made, or is as small as its rounding: none can be compared with L",
        tolerance=f"L(1 + {slack:.1e}) plus the rounding of both evaluations over the step", oracle="g itself at both points",
        evidence={"claimed": L, "largest_certified_ratio": worst, "largest_step_ratio": tightest, "compared": compared,
                  "last_residual": float(series[-1].max())},
        counterexample=counterexample,
        curves={"residual of the fixed-point iteration": {
            "kind": "residual", "x": list(range(len(shown))), "y": shown, "bound": [shown[0] * L**k for k in range(len(shown))],
            "bound_label": "Lᵏ‖r₀‖ + rounding"}},
    )


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
