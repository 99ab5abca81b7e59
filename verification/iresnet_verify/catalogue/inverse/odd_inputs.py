"""Inputs of odd structure: zeros, equal entries, integers, spikes. Hypothesis looks for one that breaks the map."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from iresnet_verify.check.verdict import verdict
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
    tried = 0

    def round_trip(row: HostArray) -> tuple[float, float]:
        """The error of one round trip and its bound; no error where the map is refused or a failure is reported."""
        nonlocal tried
        if not domain.contains(row).all():
            return 0.0, 0.0
        tried += 1
        try:
            y = ctx.f.forward(row)
        except Exception:  # a refusal is an answer
            return 0.0, 0.0
        if not np.isfinite(y).all():
            return np.inf, 0.0
        back, reported, _ = attempt(ctx, y)
        if reported.any():
            return 0.0, 0.0
        error, bound = distance(back, row), tol * size(row)
        if (error > bound).any():
            bound = np.maximum(1.0, sensitivity(ctx, row)) * bound + floors(ctx, row, y, back)
        return float(error[0]), float(bound[0])

    def refuted(row: HostArray) -> bool:
        error, bound = round_trip(row)
        return not error <= bound

    found = shrinking.odd_input(ctx.subject.event_shape, ctx.inputs(1).dtype, refuted, examples=EXAMPLES.get(ctx.budget.name, 400),
                                seed=int(ctx.rng.integers(2**31)))
    if tried == 0:
        return Outcome("skipped", "none of the odd inputs drawn is among those the promises are made for", {"compared": 0})
    error, bound = (0.0, 0.0) if found is None else round_trip(found[None])
    shown = "" if found is None else ", ".join(f"{v:g}" for v in found.ravel()[:6]) + (", …" if found.size > 6 else "")
    return verdict(
        error, bound,
        expected="odd inputs to be mapped and to come back",
        got=lambda at: f"at x = ({shown}) " + (f"inverse(F(x)) {at.error:.3g} away from x" if np.isfinite(at.error) else "F(x) not finite"),
        remedy="guard divisions and comparisons at zeros and ties",
        passed=f"not refuted: {tried} odd inputs within the promised ones come back",
        tolerance=f"{tol:.2e}·max(1, ‖x‖)·κ + 4κη, as for inverse.recovers-input", oracle="the known preimage x",
        evidence={"compared": tried},
        counterexample=lambda at: Counterexample({"x": np.asarray(found)[None], "tolerance": 0.0, "floor": at.bound},
                                                 measures.recovered_input),
    )
