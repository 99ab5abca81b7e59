"""The promised tolerance of the inverse at inputs found by search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify.catalogue.shared import stretch_search as search
from iresnet_verify.catalogue.shared.map_errors import (
    Domain,
    Rows,
    attempt,
    distance,
    floors,
    promised,
    refreshed,
    size,
)
from iresnet_verify.check.outcome import Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import shrunk, verdict
from iresnet_verify.measurements import maps as measures

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

UNDECIDED = "the Jacobian oracle cannot tell the Jacobian from a singular one: no error of the inverse can be decided"


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
    over = np.flatnonzero(~(error <= tol * size(x)))
    slack = np.zeros(len(x))
    if len(over):
        y = ctx.f.forward(x[over])
        slack[over] = floors(ctx, x[over], y, attempt(ctx, y)[0])
    return verdict(
        error, tol * size(x) + slack,
        expected=f"an inverse right to {tol:.2g}·max(1, ‖x‖), as promised",
        got=lambda at: f"an error of {score[at.row]:.3g}·max(1, ‖x‖) at an x found by search (before the search: {history[0]:.2g})",
        remedy="report rows that have not converged",
        passed=f"not refuted: {evaluations} evaluations, largest error {score.max():.2g}·max(1, ‖x‖), promised {tol:.2g}",
        undecided=UNDECIDED, tolerance=f"{tol:.3g}·max(1, ‖x‖) + 4κη ({source})", oracle="the known preimage x",
        evidence={"compared": evaluations, "largest_relative_error": float(score.max()), "promised": tol, "before_the_search": history[0]},
        counterexample=lambda at: shrunk(ctx.f, measures.recovered_input, "x", x=x[at.wrong], tolerance=tol, floor=float(slack[at.row])),
        curves={"largest error in the search": {
            "kind": "residual", "x": list(range(len(history))), "y": history, "bound": tol, "ylabel": "error / max(1, ‖x‖)",
            "xlabel": "step of the search"}},
    )
