"""A failure of the inverse to converge is reported and not hidden.

A *report* is an exception, a row that is not finite, or a warning that speaks of convergence. An answer that is returned
as if it were one must keep the promise ‖x̂ − F⁻¹(y)‖ ≤ tol·max(1, ‖x̂‖), hence ‖F(x̂) − y‖ ≤ ‖J‖·tol·max(1, ‖x̂‖) + rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared import singular_products as products
from iresnet_verify.catalogue.shared import stretch_search as search
from iresnet_verify.catalogue.shared.map_errors import (
    GROSS,
    Domain,
    Rows,
    attempt,
    distance,
    gain,
    gross_errors,
    norms,
    onto,
    promised,
    refreshed,
    sensitivity,
    size,
)
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.shrinking import shrink
from iresnet_verify.check.verdict import Comparison, verdict
from iresnet_verify.measurements import maps as measures
from iresnet_verify.oracle import singular_values as singular

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

Mask = np.ndarray[Any, np.dtype[np.bool_]]
UNDECIDED = "the Jacobian oracle cannot tell the Jacobian from a singular one: no error of the inverse can be decided"


@dataclass(frozen=True)
class Answers:
    """Of an inverse at rows of y: the residual ‖F(x̂) − y‖, its bound, and which rows were reported as not solved, how."""

    error: Rows
    bound: Rows
    reported: Mask
    how: str

    @property
    def wrong(self) -> Mask:
        """Rows returned as answers although they are none."""
        return ~self.reported & ~(self.error <= self.bound)

    @property
    def ratio(self) -> Rows:
        """error/bound, 0 in rows that were reported."""
        return np.where(self.reported, 0.0, self.error / np.maximum(self.bound, 1e-300))


def answers_to(ctx: Context, y: HostArray, tol: float) -> Answers:
    """Invert y and compare F(x̂) with y; ‖J‖ and the rounding floor are computed for the rows that need them."""
    x, reported, how = attempt(ctx, y)
    silent = np.flatnonzero(~reported)
    error, bound = np.zeros(len(y)), np.zeros(len(y))
    if len(silent):
        rows, wanted = x[silent], y[silent]
        gap, limit = distance(ctx.f.forward(rows), wanted), tol * size(rows)
        over = np.flatnonzero(~(gap <= limit))
        if len(over):
            noise = ctx.forward_tolerance(rows[over], wanted[over])
            far = _stretched(ctx, rows[over], limit[over])
            clear = gross_errors(ctx, gap[over], np.maximum(far / GROSS, noise), wanted[over])
            if clear.any():  # no Jacobian is needed for these, and none would acquit them
                limit[over] = np.where(clear, np.maximum(far, GROSS * noise), np.inf)
            else:
                J = ctx.jacobian(rows[over])
                stretch, kappa = gain(J), sensitivity(ctx, rows[over], J)
                limit[over] = stretch * (limit[over] + 4.0 * kappa * noise) + 2.0 * noise
        error[silent], bound[silent] = gap, limit
    return Answers(error, bound, reported, how)


def _stretched(ctx: Context, x: HostArray, limit: Rows) -> Rows:
    """How far an answer within `limit` may move its image, with a margin of four: ‖J‖ by products where there are any."""
    if ctx.d <= singular.LARGE or not products.available(ctx):
        return GROSS * limit
    return np.asarray(8.0 * (1.0 + products.largest(ctx, x)[0]) * limit)


def demanding(ctx: Context, domain: Domain) -> tuple[HostArray, dict[str, int]]:
    """Return y that are hard for an iteration, and how many of each kind.

    Images of inputs where ‖J_g‖ is largest (few steps contract least there); where F is onto all of ℝᵈ by its Lipschitz
    claim also y in random directions at 10 … 10⁴ (float32: 10³) times the size of the inputs.
    """
    x = search.hardest(ctx, domain, 4)
    near = domain.clip((x + 0.1 * size(x)[0] * ctx.rng.standard_normal((4, *x.shape[1:]))).astype(x.dtype))
    known = np.concatenate([x, near, ctx.inputs(ctx.rows)])
    parts = [ctx.f.forward(known)]
    counts = {"images": len(known), "far": 0}
    if onto(ctx, domain):
        exponents = np.linspace(1.0, 4.0 if ctx.u < 1e-12 else 3.0, max(4, ctx.rows))
        away = ctx.rng.standard_normal((len(exponents), *ctx.subject.event_shape))
        away *= (10.0**exponents / np.maximum(norms(away), 1e-300)).reshape(-1, *(1,) * (away.ndim - 1))
        parts.append((away * max(1.0, float(np.median(norms(known))))).astype(known.dtype))
        counts["far"] = len(exponents)
    return np.concatenate(parts), counts


@check(
    "convergence.is-reported",
    claim="A failure to converge is reported: inverse(y) keeps ‖F(x) − y‖ ≤ ‖J‖·tol·max(1, ‖x‖), or raises, warns or "
    "returns non-finite rows.",
    reference="Behrmann et al. 2019 (arXiv 1811.00995), Algorithm 1: the fixed-point iteration and its number of steps",
    kind="search", needs=("inverse",),
    cost="5 (quick) to 75 batches of inversions",
    catches="a fixed number of steps, a maximum of steps reached in silence, wrong answers for far-away y",
)
def is_reported(ctx: Context) -> Outcome:
    """Far-away and slowly converging y, then a random search that follows the largest residual."""
    refreshed(ctx)
    tol, source = promised(ctx)
    domain = Domain.of(ctx)
    y, counts = ctx.f.forward(ctx.inputs(ctx.rows)), {"images": ctx.rows, "far": 0}
    found = answers_to(ctx, y, tol)
    if not found.wrong.any():  # what is wrong at ordinary inputs needs no search for hard ones
        y, counts = demanding(ctx, domain)
        found = answers_to(ctx, y, tol)
    tried = len(y)
    if not found.wrong.any() and onto(ctx, domain):
        order = np.argsort(-found.ratio)[: ctx.budget.restarts]
        lead, score = y[order].copy(), found.ratio[order]
        for _ in range(max(3, ctx.budget.steps // 4)):
            move = ctx.rng.standard_normal(lead.shape) / np.sqrt(max(ctx.d, 1))
            length = 10.0 ** ctx.rng.uniform(-2.0, 0.0, len(lead)) * np.maximum(1.0, norms(lead))
            trial = (lead + length.reshape(-1, *(1,) * (lead.ndim - 1)) * move).astype(lead.dtype)
            step = answers_to(ctx, trial, tol)
            tried += len(trial)
            if step.wrong.any():
                y, found = trial, step
                break
            better = step.ratio > score
            lead[better], score[better] = trial[better], step.ratio[better]

    def counterexample(at: Comparison) -> Counterexample:
        def refuted(rows: HostArray) -> bool:
            value, limit = measures.hidden_failure(ctx.f, rows, 0.0, at.bound)
            return not value <= limit and not attempt(ctx, rows)[1].any()

        point = shrink(y[at.rows], refuted)
        return Counterexample({"y": point if refuted(point) else y[at.wrong], "tolerance": 0.0, "floor": at.bound},
                              measures.hidden_failure)

    return verdict(
        found.error, found.bound,
        expected="every answer of the inverse to solve F(x) = y, or a report that it does not",
        got=lambda at: f"an x with ‖F(x) − y‖ = {at.error:.3g} (allowed {at.bound:.2g}) for a y of size {norms(y)[at.row]:.3g}, "
        "and no report",
        remedy="raise, warn or return NaN where the residual is not small",
        passed=f"not refuted: {tried} y, every answer solves F(x) = y or is reported", undecided=UNDECIDED,
        tolerance=f"max(1, 2‖J‖)·({tol:.3g}·max(1, ‖x‖) + 4κη) + 2η ({source})", oracle="F itself, evaluated at the answer",
        evidence={"compared": tried, **{f"y_{k}": v for k, v in counts.items()}, "rows_reported": int(found.reported.sum()),
                  "reported_by": found.how or "nothing to report"},
        counterexample=counterexample,
    )
