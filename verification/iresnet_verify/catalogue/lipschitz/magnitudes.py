"""The bound at all magnitudes: from 1e-6 to 1e6 times the inputs at which a network is usually looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify.catalogue.shared.comparisons import warm_up
from iresnet_verify.catalogue.shared.magnitudes import at_all_magnitudes
from iresnet_verify.catalogue.shared.map_errors import distance, norms, refreshed
from iresnet_verify.catalogue.shared.stretch_search import rounding_of_claim
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import Comparison, beyond, verdict
from iresnet_verify.measurements import maps as measures

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context


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
        return Outcome("skipped", "the promises are confined to the subject's own inputs", {"scales": 0})
    warm_up(ctx)  # layers may initialise themselves from the first batch, which must not be the origin
    refreshed(ctx)
    x = at_all_magnitudes(ctx, ctx.rows)
    zero = ctx.f.residual(np.zeros_like(x[:1]), seed=0)
    g = ctx.f.residual(x, seed=0)
    size, gap = norms(x), distance(g, np.broadcast_to(zero, g.shape))
    # g(x) and g(0) are each off by the rounding of one evaluation: its inner products at x, and the size of g.
    rounding = 64.0 * ctx.u * np.sqrt(ctx.d) * (size + np.linalg.norm(np.ravel(zero)) + gap) + 2.0 * ctx.accuracy * (size + 1.0)
    rounding = np.where(np.isfinite(rounding), rounding, 0.0)  # it is not where g is not finite, which refutes the claim
    limit = L * (1.0 + rounding_of_claim(ctx))

    def got(at: Comparison) -> str:
        where = f" at ‖x‖ = {size[at.row]:.1e}"
        ratio = gap[at.row] / size[at.row]
        return (f"a ratio of {beyond(ratio, L, 4)}" if np.isfinite(ratio) else "a residual that is not finite") + where

    return verdict(
        (gap - rounding) / size, limit,
        expected=f"‖g(x) − g(0)‖ ≤ {L:.4g}‖x‖",
        got=got,
        remedy="look for exponentials that overflow and terms that grow faster than linearly",
        passed=lambda at: f"not refuted from 1e-6 to 1e6: largest growth {at.error:.4g}",
        tolerance="L and the slack of the claim, plus rounding 64·u·√d·(‖x‖ + ‖g(0)‖ + ‖g(x) − g(0)‖)", oracle="g at x and at 0",
        evidence=lambda at: {"at_norm": float(size[at.row]), "claimed": L},
        counterexample=lambda at: Counterexample({"x": x[at.rows], "lipschitz": limit, "rounding": float(rounding[at.row])},
                                                 measures.growth_from_zero),
    )
