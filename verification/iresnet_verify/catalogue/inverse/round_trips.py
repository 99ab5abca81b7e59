"""The inverse: both round trips, its promised tolerance, and the precision of its answers.

A promise ‖inverse(y) − x‖₂ ≤ tol·max(1, ‖x‖₂) is compared as stated; what an inverse cannot do better than (the rounding
floor of `map_errors`) is allowed on top. The plain round trips ask for less: κ·max(tol, u^(1/3)), so that they fail where
the inverse is wrong and not where it is merely stopped early.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify.catalogue.shared.map_errors import (
    Rows,
    distance,
    floors,
    gain,
    promised,
    refreshed,
    refuted,
    sensitivity,
    size,
)
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import shrunk, verdict
from iresnet_verify.measurements import maps as measures

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

KNOWN = "the known preimage x"
SINGULAR = ("the Jacobian of most rows cannot be told from a singular one, so no error of the inverse can be decided; try inputs= where "
            "the map is better conditioned")
BANACH = "Behrmann et al. 2019 (arXiv 1811.00995), Theorem 1 and Algorithm 1"


def quantile(a: Rows, q: float) -> float:
    """Return the q-quantile, infinity included."""
    return float(np.sort(a)[min(len(a) - 1, int(q * len(a)))])


def bounds(ctx: Context, x: HostArray, back: HostArray, error: Rows, tol: float) -> tuple[Rows, Rows]:
    """Return (bound, floor) per row: tol·max(1, ‖x‖), the floor added (and computed) only for rows above that."""
    bound, floor = tol * size(x), np.zeros(len(x))
    over = np.flatnonzero(~(error <= bound))
    if len(over):
        y = ctx.f.forward(x[over])
        clear = refuted(ctx, x[over], y, back[over], bound[over])
        floor[over] = np.where(clear, 0.0, np.inf) if clear.any() else floors(ctx, x[over], y, back[over])
    return bound + floor, floor


@check(
    "inverse.recovers-input",
    claim="The inverse undoes the map: inverse(F(x)) = x up to the conditioning of x.",
    reference=BANACH, kind="search", needs=("inverse",),
    cost="one round trip of a batch; a Jacobian for each row over its tolerance",
    catches="wrong direction or order of blocks, wrong sign, stale caches, too few iterations, NaN",
)
def recovers_input(ctx: Context) -> Outcome:
    """‖inverse(F(x)) − x‖₂ ≤ κ·max(tol, u^(1/3))·max(1, ‖x‖₂) + floor(x)."""
    assert ctx.f.inverse is not None
    refreshed(ctx)
    tol = max(promised(ctx)[0], float(ctx.u ** (1.0 / 3.0)))
    x = ctx.inputs(ctx.rows)
    y = ctx.f.forward(x)
    back = ctx.f.inverse(y)
    error = distance(back, x)
    bound = tol * size(x)
    over = np.flatnonzero(~(error <= bound))
    clear = refuted(ctx, x[over], y[over], back[over], bound[over])
    if clear.any():  # these refute the claim; the Jacobians of the others would change nothing
        bound[over[~clear]] = np.inf
    elif len(over):
        kappa = np.maximum(1.0, sensitivity(ctx, x[over]))
        bound[over] = kappa * bound[over] + floors(ctx, x[over], y[over], back[over])
    return _mostly_decided(bound, verdict(
        error, bound,
        expected=lambda at: f"inverse(F(x)) = x to {at.bound:.2g}",
        got=lambda at: f"a point {at.error:.3g} away ({at.exceeding} of {len(x)} rows)",
        remedy="check the direction, the order of blocks and the number of steps",
        passed=lambda at: f"{at.compared} rows come back within {at.largest:.2g}", undecided=SINGULAR,
        tolerance=f"{tol:.2e}·max(1, ‖x‖)·κ + 4κη: the larger of the promised tolerance and u^(1/3)", oracle=KNOWN,
        evidence={"median_error": quantile(error, 0.5), "largest_relative_error": float((error / size(x)).max())},
        counterexample=lambda at: shrunk(ctx.f, measures.recovered_input, "x", x=x[at.wrong], tolerance=at.bound, floor=0.0),
        curves={"round trip": {"kind": "error-bound", "x": bound.tolist(), "y": error.tolist()}},
    ))


def _mostly_decided(bound: Rows, found: Outcome) -> Outcome:
    """A pass needs a finite bound in at least half of the rows."""
    if found.status == "passed" and np.isinf(bound).sum() * 2 > len(bound):
        return replace(found, status="inconclusive", message=SINGULAR)
    return found


@check(
    "inverse.recovers-output",
    claim="The inverse is a right inverse too: F(inverse(y)) = y up to the conditioning of y.",
    reference=BANACH, kind="search", needs=("inverse",),
    cost="one round trip of a batch; a Jacobian for each row over its tolerance",
    catches="an inverse that answers from the last forward call, a left inverse only, values outside the domain",
)
def recovers_output(ctx: Context) -> Outcome:
    """‖F(inverse(y)) − y‖₂ ≤ c(κ)·max(tol, u^(1/3))·max(1, ‖inverse(y)‖₂) + rounding; y are images in a new order.

    An x off by e moves F(x) by at most ‖J‖e, so c = κ·max(1, 2‖J‖) and the rounding is (1 + 2‖J‖)·floor. Between making y
    and inverting it the map is called elsewhere, so a cached x is a wrong one.
    """
    assert ctx.f.inverse is not None
    refreshed(ctx)
    tol = max(promised(ctx)[0], float(ctx.u ** (1.0 / 3.0)))
    known = ctx.inputs(ctx.rows)
    y = ctx.f.forward(known)
    ctx.f.forward(ctx.inputs(ctx.rows))
    x = ctx.f.inverse(y)
    finite = np.isfinite(x.reshape(len(x), -1)).all(axis=1)
    again = np.full_like(y, np.nan)
    if finite.any():
        again[finite] = ctx.f.forward(x[finite])
    error = distance(again, y)
    bound = np.where(finite, tol * size(np.where(np.isfinite(x), x, 0.0)), 0.0)
    over = np.flatnonzero(finite & ~(error <= bound))
    clear = refuted(ctx, known[over], y[over], x[over], bound[over])
    if clear.any():
        bound[over[~clear]] = np.inf
    elif len(over):
        J = ctx.jacobian(x[over])
        kappa, stretch = np.maximum(1.0, sensitivity(ctx, x[over], J)), gain(J)
        noise = ctx.forward_tolerance(x[over], y[over])
        bound[over] = kappa * stretch * (bound[over] + 4.0 * noise) + 2.0 * noise
    return verdict(
        error, bound,
        expected=lambda at: f"F(inverse(y)) = y to {at.bound:.2g}",
        got=lambda at: f"a point {at.error:.3g} away ({at.exceeding} of {len(y)} rows)",
        remedy="check that the inverse uses its argument only",
        passed=lambda at: f"{at.compared} images come back within {at.largest:.2g}", undecided=SINGULAR,
        tolerance=f"{tol:.2e}·max(1, ‖x‖)·κ·max(1, 2‖J‖) + rounding", oracle="F itself, evaluated at the answer",
        evidence={"rows_not_finite": int((~finite).sum())},
        counterexample=lambda at: shrunk(ctx.f, measures.recovered_output, "y", y=y[at.wrong], tolerance=0.0, floor=at.bound),
    )


@check(
    "inverse.keeps-tolerance",
    claim="The inverse keeps its promised tolerance: ‖inverse(F(x)) − x‖₂ ≤ tol·max(1, ‖x‖₂) on every row.",
    reference="inverse_tolerance of the subject", kind="search", needs=("inverse",),
    cost="four round trips of a batch; a Jacobian for each row over its tolerance",
    catches="stopping on the squared step or on the step alone, a fixed number of iterations, lower precision inside",
)
def keeps_tolerance(ctx: Context) -> Outcome:
    """As stated, with the rounding floor 4κη allowed on top; no conditioning excuses more."""
    assert ctx.f.inverse is not None
    refreshed(ctx)
    tol, source = promised(ctx)
    x = np.concatenate([ctx.inputs(ctx.rows) for _ in range(4)])
    back = ctx.f.inverse(ctx.f.forward(x))
    error = distance(back, x)
    relative = error / size(x)
    bound, floor = bounds(ctx, x, back, error, tol)
    return _mostly_decided(bound, verdict(
        error, bound,
        expected=f"an inverse right to {tol:.2g}·max(1, ‖x‖), as promised",
        got=lambda at: f"an error of {relative[at.row]:.3g}·max(1, ‖x‖) ({at.exceeding} of {len(x)} rows)",
        remedy="stop on the residual, by ‖r‖/(1−L), with enough iterations",
        passed=f"largest error {relative.max():.2g}·max(1, ‖x‖) in {len(x)} rows, promised {tol:.2g}", undecided=SINGULAR,
        tolerance=f"{tol:.3g}·max(1, ‖x‖) + 4κη ({source})", oracle=KNOWN,
        evidence={"promised": tol, "largest_relative_error": float(relative.max()), "median_relative_error": quantile(relative, 0.5),
                  "rows_within_floor_only": int(((error <= bound) & (floor > 0.0)).sum()), "largest_floor": float(floor.max())},
        counterexample=lambda at: shrunk(ctx.f, measures.recovered_input, "x", x=x[at.wrong], tolerance=tol, floor=float(floor[at.row])),
        curves={"error against the promise": {"kind": "error-bound", "x": bound.tolist(), "y": error.tolist()}},
    ))


@check(
    "inverse.keeps-precision",
    claim="The inverse works in the precision of its argument: its values are not all numbers of a narrower dtype.",
    reference="the dtype the subject declares", kind="proof", needs=("inverse",),
    cost="one round trip",
    catches="a float32 (or TF32, float16) computation inside a float64 (float32) inverse",
)
def keeps_precision(ctx: Context) -> Outcome:
    """The share of entries of inverse(F(x)) that fit into the narrower mantissa, among those where x's own do not.

    By chance an entry fits with probability 2⁻²⁹ (float64) or 2⁻¹³ (float32). x is drawn a little inside the promised
    inputs, so that data with few bits (images) does not hide the fault or look like one.
    """
    assert ctx.f.inverse is not None
    refreshed(ctx)
    bits = {2.0**-53: 24, 2.0**-24: 11}.get(ctx.u)
    if bits is None:
        return Outcome("skipped", f"no narrower dtype is known below unit roundoff {ctx.u:.1e}.")
    x = ctx.inputs(max(8, ctx.rows))
    centre = x.mean(axis=0, dtype=np.float64)
    x = (x + ctx.rng.uniform(1e-4, 1e-3, x.shape) * (centre - x)).astype(x.dtype)
    scaled = np.ldexp(np.frexp(x.astype(np.float64))[0], bits)
    full = int((scaled != np.round(scaled)).sum())
    if full < 8:
        return Outcome("inconclusive", f"only {full} entries of the inputs need more than {bits} bits of mantissa; try "
                       "inputs= that vary.", {"bits": bits, "compared": full})
    share, most = measures.wasted_precision(ctx.f, x, bits)
    if not share <= most and not np.isfinite(sensitivity(ctx, x[:4])).any():
        return Outcome("skipped", "the Jacobian is singular to the oracle's error: the inverse has no precision to lose "
                       "[see inverse.separates-inputs]", {"bits": bits, "compared": 0})
    return verdict(
        share, most,
        expected=f"entries of inverse(F(x)) in the precision of {ctx.subject.dtype}",
        got=lambda at: f"{at.error:.0%} of them in {bits} bits of mantissa: the inverse computes in a narrower dtype",
        remedy="look for a cast or a default dtype inside",
        passed=lambda at: f"{at.error:.1%} of the entries fit into {bits} bits",
        tolerance="half of the entries; by chance 2^-13 of them or fewer", oracle="the mantissas themselves",
        evidence={"bits": bits, "compared": full},
        counterexample=lambda at: Counterexample({"x": x, "bits": bits}, measures.wasted_precision),
    )
