"""The bound at all magnitudes: from 1e-6 to 1e6 times the inputs at which a network is usually looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify.catalogue.shared.comparisons import warm_up
from iresnet_verify.catalogue.shared.map_errors import distance
from iresnet_verify.catalogue.shared.stretch_search import rounding_of_claim
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.measurements import maps as measures

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context

SCALES = (1e-6, 1e-3, 1e2, 1e4, 1e6)


@check(
    "lipschitz.all-magnitudes",
    claim="The residual grows no faster than L at any magnitude: ‖g(x) − g(0)‖₂ ≤ L‖x‖₂ for ‖x‖ from 1e-6 to 1e6.",
    reference="Lip(g) ≤ L at the pair (x, 0)", kind="search", needs=("lipschitz", "residual"),
    cost="5 batches of evaluations of g",
    catches="overflow of exponentials, bounds that were measured near the data only, polynomial tails",
)
def all_magnitudes(ctx: Context) -> Outcome:
    """Random directions at five scales, where the subject does not confine its promises to inputs of its own."""
    assert ctx.f.residual is not None
    L = ctx.subject.lipschitz
    assert L is not None
    if ctx.subject.inputs is not None:
        return Outcome("passed", "the promises are confined to the subject's own inputs", {"scales": 0})
    warm_up(ctx)  # layers may initialise themselves from the first batch, which must not be the origin
    if ctx.subject.refresh is not None and ctx.subject.lipschitz_holds == "after-refresh":
        ctx.subject.refresh()
    n = ctx.rows
    direction = ctx.rng.standard_normal((len(SCALES), n, *ctx.subject.event_shape))
    x = (direction * np.reshape(SCALES, (-1, 1, *[1] * len(ctx.subject.event_shape)))).reshape(-1, *ctx.subject.event_shape)
    x = x.astype(ctx.inputs(1).dtype)
    origin = np.zeros_like(x[:1])
    size = np.linalg.norm(x.reshape(len(x), -1).astype(np.float64), axis=1)
    zero = ctx.f.residual(origin, seed=0)
    g = ctx.f.residual(x, seed=0)
    gap = distance(g, np.broadcast_to(zero, g.shape))
    # g(x) and g(0) are each off by the rounding of one evaluation: its inner products at x, and the size of g.
    rounding = 64.0 * ctx.u * np.sqrt(ctx.d) * (size + np.linalg.norm(np.ravel(zero)) + gap) + 2.0 * ctx.accuracy * (size + 1.0)
    limit = L * (1.0 + rounding_of_claim(ctx))
    ratio = np.where(np.isfinite(gap), (gap - np.where(np.isfinite(rounding), rounding, 0.0)) / size, np.inf)
    worst = int(np.argmax(ratio))
    evidence = {"rows": len(x), "largest_ratio": float(ratio[worst]), "at_norm": float(size[worst]), "claimed": L}
    tolerance = "rounding 64·u·√d·(‖x‖ + ‖g(0)‖ + ‖g(x) − g(0)‖) and the slack of the claim"
    if ratio[worst] <= limit:
        return Outcome("passed", f"not refuted from 1e-6 to 1e6: largest ratio {ratio[worst]:.4g}", evidence, tolerance, "g at x and at 0")
    what = f"a ratio of {gap[worst] / size[worst]:.4g}" if np.isfinite(gap[worst]) else "a residual that is not finite"
    return Outcome(
        "failed", f"expected ‖g(x) − g(0)‖ ≤ {L:.4g}‖x‖ at ‖x‖ = {size[worst]:.1e}, got {what}; look for exponentials that overflow "
        "and terms that grow faster than linearly", evidence, tolerance, "g at x and at 0",
        Counterexample({"x": x[worst : worst + 1], "lipschitz": limit, "rounding": float(np.nan_to_num(rounding[worst], posinf=0.0))},
                       measures.growth_from_zero),
    )
