"""The inverse: both round trips, its promised tolerance, and the precision it answers in.

A promise ‖inverse(y) − x‖₂ ≤ tol·max(1, ‖x‖₂) is judged as stated; what an inverse cannot do better than (the rounding
floor of `map_errors`) is allowed on top. The plain round trips ask for less: κ·max(tol, u^(1/3)), so that they fail where
the inverse is wrong and not where it is merely stopped early.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.map_errors import (
    Rows,
    distance,
    floors,
    gain,
    promised,
    refreshed,
    sensitivity,
    size,
)
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.shrinking import shrink
from iresnet_verify.measurements import maps as measures

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

BANACH = "Behrmann et al. 2019 (arXiv 1811.00995), Theorem 1 and Algorithm 1"


def quantile(a: Rows, q: float) -> float:
    """Return the q-quantile, infinity included."""
    return float(np.sort(a)[min(len(a) - 1, int(q * len(a)))])


def bounds(ctx: Context, x: HostArray, back: HostArray, error: Rows, tol: float) -> tuple[Rows, Rows]:
    """Return (bound, floor) per row: tol·max(1, ‖x‖), the floor added (and computed) only for rows above that."""
    bound, floor = tol * size(x), np.zeros(len(x))
    over = np.flatnonzero(~(error <= bound))
    if len(over):
        floor[over] = floors(ctx, x[over], ctx.f.forward(x[over]), back[over])
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
    bound, floor = tol * size(x), np.zeros(len(x))
    over = np.flatnonzero(~(error <= bound))
    if len(over):
        kappa = np.maximum(1.0, sensitivity(ctx, x[over]))
        floor[over] = floors(ctx, x[over], y[over], back[over])
        bound[over] = kappa * bound[over] + floor[over]
    wrong = ~(error <= bound)
    blind = np.isinf(bound)
    worst = int(np.argmax(np.where(wrong, error / bound, error / np.maximum(bound, 1e-300))))
    evidence = {
        "rows": len(x), "largest_error": float(error.max()), "median_error": quantile(error, 0.5),
        "largest_relative_error": float((error / size(x)).max()), "rows_wrong": int(wrong.sum()),
        "rows_too_ill_conditioned": int(blind.sum()),
    }
    text = f"{tol:.2e}·max(1, ‖x‖)·κ + 4κη: the larger of the promised tolerance and u^(1/3)"
    oracle = "the planted input x"
    curves = {"round trip": {"kind": "error-bound", "x": bound.tolist(), "y": error.tolist()}}
    if wrong.any():
        allowed = float(bound[worst])

        def refuted(rows: HostArray) -> bool:
            value, limit = measures.recovered_input(ctx.f, rows, allowed, 0.0)
            return not value <= limit

        point = shrink(x[worst : worst + 1], refuted)
        point = point if refuted(point) else x[wrong]
        return Outcome(
            "failed",
            f"inverse(F(x)) should be x to {allowed:.2g}, but is {float(error[worst]):.3g} away "
            f"({int(wrong.sum())} of {len(x)} rows); check the direction, the order of blocks and the number of steps.",
            evidence, text, oracle,
            Counterexample({"x": point, "tolerance": allowed, "floor": 0.0}, measures.recovered_input), curves,
        )
    if blind.sum() * 2 > len(x):
        return Outcome("inconclusive", "The Jacobian of most rows cannot be told from a singular one, so no error of "
                       "the inverse can be judged; try inputs= where the map is better conditioned.",
                       evidence, text, oracle, curves=curves)
    return Outcome("passed", f"{len(x)} rows come back within {float(error.max()):.2g}.", evidence, text, oracle,
                   curves=curves)


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
    y = ctx.f.forward(ctx.inputs(ctx.rows))
    ctx.f.forward(ctx.inputs(ctx.rows))
    x = ctx.f.inverse(y)
    finite = np.isfinite(x.reshape(len(x), -1)).all(axis=1)
    again = np.full_like(y, np.nan)
    if finite.any():
        again[finite] = ctx.f.forward(x[finite])
    error = distance(again, y)
    bound = np.where(finite, tol * size(np.where(np.isfinite(x), x, 0.0)), 0.0)
    over = np.flatnonzero(finite & ~(error <= bound))
    if len(over):
        J = ctx.jacobian(x[over])
        kappa, stretch = np.maximum(1.0, sensitivity(ctx, x[over], J)), gain(J)
        noise = ctx.forward_tolerance(x[over], y[over])
        bound[over] = kappa * stretch * (bound[over] + 4.0 * noise) + 2.0 * noise
    wrong = ~(error <= bound)
    evidence = {"rows": len(y), "largest_error": float(error.max()), "rows_wrong": int(wrong.sum()),
                "rows_not_finite": int((~finite).sum())}
    text = f"{tol:.2e}·max(1, ‖x‖)·κ·max(1, 2‖J‖) + rounding"
    oracle = "F itself, evaluated at the answer"
    if wrong.any():
        worst = int(np.argmax(np.where(wrong, error - bound, -1.0)))
        allowed = float(bound[worst])

        def refuted(rows: HostArray) -> bool:
            value, limit = measures.recovered_output(ctx.f, rows, 0.0, allowed)
            return not value <= limit

        point = shrink(y[wrong], refuted)
        return Outcome(
            "failed",
            f"F(inverse(y)) should be y to {allowed:.2g}, but is {float(error[worst]):.3g} away "
            f"({int(wrong.sum())} of {len(y)} rows); check that the inverse uses its argument only.",
            evidence, text, oracle,
            Counterexample({"y": point if refuted(point) else y, "tolerance": 0.0, "floor": allowed},
                           measures.recovered_output),
        )
    return Outcome("passed", f"{len(y)} images come back within {float(error.max()):.2g}.", evidence, text, oracle)


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
    bound, floor = bounds(ctx, x, back, error, tol)
    wrong = ~(error <= bound)
    evidence: dict[str, Any] = {
        "rows": len(x), "promised": tol, "largest_relative_error": float((error / size(x)).max()),
        "median_relative_error": quantile(error / size(x), 0.5), "rows_over": int(wrong.sum()),
        "rows_within_floor_only": int((~wrong & (floor > 0.0)).sum()), "largest_floor": float(floor.max()),
    }
    text = f"{tol:.3g}·max(1, ‖x‖) + 4κη ({source})"
    curves = {"error against the promise": {"kind": "error-bound", "x": bound.tolist(), "y": error.tolist()}}
    if wrong.any():
        worst = int(np.argmax(np.where(wrong, error / bound, -1.0)))
        slack = float(floor[worst])

        def refuted(rows: HostArray) -> bool:
            value, limit = measures.recovered_input(ctx.f, rows, tol, slack)
            return not value <= limit

        order = np.argsort(-np.where(wrong, error / bound, -1.0))[: min(4, int(wrong.sum()))]
        point = shrink(x[order], refuted)
        return Outcome(
            "failed",
            f"The inverse promises {tol:.2g}·max(1, ‖x‖) but is off by {float((error / size(x))[worst]):.3g}·max(1, ‖x‖) "
            f"({int(wrong.sum())} of {len(x)} rows); stop on the residual, by ‖r‖/(1−L), with enough iterations.",
            evidence, text, "the planted input x",
            Counterexample({"x": point if refuted(point) else x, "tolerance": tol, "floor": slack},
                           measures.recovered_input), curves,
        )
    if np.isinf(bound).sum() * 2 > len(x):
        return Outcome("inconclusive", "The rounding floor of most rows is unbounded: the Jacobian there cannot be told "
                       "from a singular one; try inputs= where the map is better conditioned.",
                       evidence, text, "the planted input x", curves=curves)
    return Outcome("passed", f"Largest error {float((error / size(x)).max()):.2g}·max(1, ‖x‖) on {len(x)} rows, promised "
                   f"{tol:.2g}.", evidence, text, "the planted input x", curves=curves)


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
    evidence: dict[str, Any] = {"bits": bits, "entries": full}
    text = "half of the entries; by chance 2^-13 of them or fewer"
    if full < 8:
        return Outcome("inconclusive", f"only {full} entries of the inputs need more than {bits} bits of mantissa; try "
                       "inputs= that vary.", evidence, text)
    share, most = measures.wasted_precision(ctx.f, x, bits)
    evidence["share_narrow"] = share
    oracle = "the mantissas themselves"
    if share > most:
        return Outcome(
            "failed", f"{share:.0%} of the entries of inverse(F(x)) fit into {bits} bits of mantissa: the inverse computes "
            f"in a narrower dtype than {ctx.subject.dtype}; look for a cast or a default dtype inside.",
            evidence, text, oracle, Counterexample({"x": x, "bits": bits}, measures.wasted_precision),
        )
    return Outcome("passed", f"{share:.1%} of the entries fit into {bits} bits.", evidence, text, oracle)
