"""Inputs of odd structure: zeros, equal entries, integers, spikes. Hypothesis looks for one that breaks the map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.comparisons import warm_up
from iresnet_verify.catalogue.shared.map_errors import (
    Domain,
    attempt,
    distance,
    floors,
    promised,
    refreshed,
    sensitivity,
    size,
)
from iresnet_verify.check import shrinking
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.measurements import maps as measures

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

EXAMPLES = {"quick": 25, "standard": 100}


@check(
    "inverse.odd-inputs",
    claim="Inputs of odd structure (zeros, equal entries, integers, spikes) are mapped to finite y and come back.",
    reference="Behrmann et al. 2019 (arXiv 1811.00995), Theorem 1: invertible on all of ℝᵈ", kind="search", needs=("inverse",),
    cost="25 (quick) to 400 round trips, one row each", modes=False,
    catches="divisions by a norm that is zero, ties, signs of zero, comparisons with ==, underflow",
)
def odd_inputs(ctx: Context) -> Outcome:
    """Hypothesis draws the events and shrinks the one that refutes; those outside the promised inputs are left out."""
    if not shrinking.available():
        return Outcome("skipped", 'needs Hypothesis: pip install "iresnet-ref[verify]"')
    warm_up(ctx)  # layers may initialise themselves from the first batch, which must not be an odd one
    refreshed(ctx)
    tol = max(promised(ctx)[0], float(ctx.u ** (1.0 / 3.0)))
    domain = Domain.of(ctx)
    tried, largest, allowed, what = 0, 0.0, 0.0, ""

    def refuted(rows: HostArray) -> bool:
        nonlocal tried, largest, allowed, what
        if not domain.contains(rows).all():
            return False
        tried += 1
        try:
            y = ctx.f.forward(rows)
        except Exception:  # a refusal is an answer
            return False
        if not np.isfinite(y).all():
            what, allowed = "F(x) is not finite", 0.0
            return True
        back, reported, _ = attempt(ctx, y)
        if reported.any():
            return False
        error, bound = distance(back, rows), tol * size(rows)
        if (error > bound).any():
            kappa = np.maximum(1.0, sensitivity(ctx, rows))
            bound = kappa * bound + floors(ctx, rows, y, back)
        if not (error <= bound).all():
            what, allowed = f"inverse(F(x)) is {float(error[0]):.3g} away from x", float(bound[0])
            return True
        largest = max(largest, float((error / size(rows))[0]))
        return False

    found = shrinking.odd_input(ctx.subject.event_shape, ctx.inputs(1).dtype, refuted, examples=EXAMPLES.get(ctx.budget.name, 400),
                                seed=int(ctx.rng.integers(2**31)))
    evidence: dict[str, Any] = {"round_trips": tried, "largest_relative_error": largest}
    text = f"{tol:.2e}·max(1, ‖x‖)·κ + 4κη, as for inverse.recovers-input"
    if tried == 0:
        return Outcome("skipped", "none of the odd inputs drawn is among those the promises are made for", evidence)
    if found is None or not refuted(found[None]):
        return Outcome("passed", f"not refuted: {tried} odd inputs within the promised ones come back", evidence, text, "the planted x")
    shown = ", ".join(f"{v:g}" for v in found.ravel()[:6]) + (", …" if found.size > 6 else "")
    return Outcome("failed", f"expected odd inputs to be mapped and to come back; at x = ({shown}) {what}; guard divisions and "
                   "comparisons at zeros and ties", evidence, text, "the planted x",
                   Counterexample({"x": found[None], "tolerance": 0.0, "floor": allowed}, measures.recovered_input))
