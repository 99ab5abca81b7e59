"""The rows of an inverse: what comes back for y_i does not depend on the other rows of its batch.

Two right answers lie within 2·tol·max(1, ‖x‖) of each other, whatever the batch. An iteration that stops when a norm over the whole
batch is small may leave one slow row √n times as far from its preimage as its promise, if the n − 1 others have long arrived. So slow
rows are put among quick ones, slow and quick by the error that 30 steps of x ← y − g(x), from x = y, leave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify.catalogue.shared.map_errors import (
    Domain,
    Rows,
    attempt,
    distance,
    floors,
    promised,
    refreshed,
    residual,
    size,
)
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import Comparison, verdict
from iresnet_verify.measurements import maps as measures

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

STEPS = 30
LARGEST = 256
"""Rows of the largest batch."""


@check(
    "inverse.rows-are-independent",
    claim="A row's preimage does not depend on the other rows: alone and in every batch it is the same to 2·tol·max(1, ‖x‖₂).",
    reference="inverse_tolerance of the subject is promised for every row", kind="search", needs=("inverse",),
    cost="7 inversions of up to 256 rows, 8 of one row, 30 evaluations of the residual",
    catches="stopping rules by a mean or norm over the batch, or by its first row; statistics over the batch axis",
)
def rows_are_independent(ctx: Context) -> Outcome:
    """The slowest, the quickest and some other rows: alone, with each other, and one slow row among many quick ones."""
    refreshed(ctx)
    tol, source = promised(ctx)
    x, y, quick = _by_speed(ctx)
    answers = [attempt(ctx, y[i : i + 1]) for i in range(len(y))]
    alone, reported = np.concatenate([a[0] for a in answers]), np.concatenate([a[1] for a in answers])
    most = max(2, min(LARGEST, ctx.budget.numbers // max(ctx.d, 1)))
    batches: list[tuple[HostArray, HostArray]] = [(y, np.arange(len(y))), (y[::-1], np.arange(len(y))[::-1])]
    for n in dict.fromkeys((2, most)):
        for row in range(min(2, len(y))):
            batches.append((np.concatenate([np.repeat(quick, n - 1, axis=0), y[row : row + 1]]), np.array([row])))
    errors, bounds = dict[int, Rows](), dict[int, Rows]()
    for k, (batch, rows) in enumerate(batches):
        back, lost, _ = attempt(ctx, batch)
        back, lost = back[len(batch) - len(rows) :], lost[len(batch) - len(rows) :]
        errors[k] = np.where(lost | reported[rows], 0.0, distance(back, alone[rows]))
        bounds[k] = 2.0 * tol * size(x[rows])
        over = np.flatnonzero(~(errors[k] <= bounds[k]))
        if len(over):
            bounds[k][over] += 2.0 * floors(ctx, x[rows[over]], y[rows[over]], back[over])

    def counterexample(at: Comparison) -> Counterexample:
        batch, rows = batches[at.case]
        return Counterexample({"y": batch, "at": len(batch) - len(rows) + at.row, "bound": at.bound}, measures.preimage_depends_on_others)

    return verdict(
        errors, bounds,
        expected="a row's preimage to be the same alone and in every batch",
        got=lambda at: f"answers {at.error:.2e} apart, alone and in a batch of {len(batches[at.case][0])}",
        remedy="stop each row by its own residual",
        passed=lambda at: f"not refuted: {len(batches)} batches of 2 to {most} rows, largest difference {at.largest:.1e}",
        tolerance=f"2·{tol:.3g}·max(1, ‖x‖) + 8κη ({source})", oracle="the same row alone",
        evidence={"batches": len(batches), "largest_batch": most}, counterexample=counterexample,
    )


def _by_speed(ctx: Context) -> tuple[HostArray, HostArray, HostArray]:
    """Return x, y (8 rows, the slowest first) and the image of the quickest, (1, *event)."""
    domain = Domain.of(ctx)
    x = ctx.inputs(4 * ctx.rows)
    if ctx.subject.inputs is None:
        x = np.concatenate([x, *(domain.clip((x[: ctx.rows] * s).astype(x.dtype)) for s in (0.1, 10.0, 100.0))])
    y = ctx.f.forward(x)
    finite = np.isfinite(y.reshape(len(y), -1)).all(axis=1)
    x, y = x[finite], y[finite]
    at = y.copy()
    for _ in range(STEPS):
        step = y - residual(ctx, at)
        at = np.where(np.abs(step) < 1e6 * (1.0 + np.abs(y)), step, at).astype(y.dtype)  # where nothing contracts, no further
    order = np.argsort(-distance(at, x) / size(x), kind="stable")
    kept = np.concatenate([order[:4], order[4:][:: max(1, (len(order) - 4) // 4)][:4]])
    return x[kept], y[kept], y[order[-1:]]

