"""What a log-det must be whatever its exact value: finite, and within the bounds that a Lipschitz claim implies.

With Lip(g) ≤ L < 1 every eigenvalue of J_g lies in the disc of radius L, so det(I + J_g) > 0 and

    d·log(1 − L) ≤ log det(I + J_g) ≤ d·log(1 + L).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify.catalogue.shared.log_det_truth import NO_VALUE, SLACK, truth_at
from iresnet_verify.catalogue.shared.map_errors import refreshed
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import Comparison, verdict
from iresnet_verify.measurements import log_dets as measures
from iresnet_verify.oracle import singular_values as singular

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.randomness.injection import Vector
    from iresnet_verify.subject.subject import HostArray

THEOREM = "Behrmann et al. 2019 (arXiv 1811.00995), Theorem 3 and its proof (eigenvalues of J_g in the disc of radius L)"
NO_CONTRACTION = "no Lipschitz bound below 1 is claimed, which alone implies bounds"


def finiteness(x: HostArray, value: Vector) -> Outcome:
    """Compare with IEEE arithmetic: log-dets (draws, rows) at finite rows of x are finite."""
    bad = ~np.isfinite(value).reshape(-1, len(x)).all(0)
    norm = np.linalg.norm(x.reshape(len(x), -1).astype(np.float64), axis=1)
    return verdict(
        bad.astype(float), 0.0,
        expected="finite log-dets on finite inputs",
        got=lambda at: f"NaN or inf in {at.exceeding} of {len(x)} rows, one at ‖x‖ = {norm[at.row]:.1e}",
        passed=f"all {value.size} values are finite", tolerance="none: finiteness", oracle="IEEE arithmetic",
        evidence={"compared": value.size},
        counterexample=lambda at: Counterexample({"x": x[at.rows], "low": -1e300, "high": 1e300}, measures.log_det_outside_bounds),
    )


def _draws(ctx: Context, x: HostArray) -> Vector:
    """(1, rows) where the log-det is deterministic, else three draws (3, rows)."""
    first = ctx.evaluate_log_det(x, 21)
    again = [ctx.evaluate_log_det(x[: ctx.rows], s) for s in (22, 23)]
    if all(np.array_equal(first[: ctx.rows], a, equal_nan=True) for a in again):
        return first[None]
    return np.stack([first, *(ctx.evaluate_log_det(x, s) for s in (22, 23))])


@check(
    "logdet.finite",
    claim="Log-dets of finite inputs are finite.",
    reference="Behrmann et al. 2019 (arXiv 1811.00995), Theorem 3: |log det(I + J_g)| < ∞", kind="search", needs=("log_det",),
    cost="two batches of log-dets (four where they are random)",
    catches="logarithms of negative numbers and of zero, overflow",
)
def is_finite(ctx: Context) -> Outcome:
    """Every value, and of a random log-det every draw."""
    if ctx.log_det_claim[0] == "gradient-only":
        return Outcome("skipped", NO_VALUE)
    refreshed(ctx)
    x = ctx.inputs(4 * ctx.rows)
    return finiteness(x, _draws(ctx, x))


@check(
    "logdet.within-bounds",
    claim="Where Lip(g) ≤ L < 1 is claimed, d·log(1 − L) ≤ log det(I + J_g) ≤ d·log(1 + L).",
    reference=THEOREM, kind="search", needs=("log_det", "lipschitz"),
    cost="two batches of log-dets, one Jacobian a row",
    catches="wrong sign or scale, log-dets that contradict the Lipschitz claim",
)
def within_bounds(ctx: Context) -> Outcome:
    """A deterministic log-det is compared with the bounds; where it is random (draws may leave them) the true one is."""
    L = ctx.subject.lipschitz
    if ctx.log_det_claim[0] == "gradient-only":
        return Outcome("skipped", NO_VALUE)
    if L is None or not 0.0 <= L < 1.0:
        return Outcome("skipped", NO_CONTRACTION)
    refreshed(ctx)
    x = ctx.inputs(4 * ctx.rows)
    values = _draws(ctx, x)
    truth = truth_at(ctx, x[: ctx.rows])
    deterministic = len(values) == 1
    value = values[0] if deterministic else truth.value
    bias = ctx.log_det_claim[1] if math.isfinite(ctx.log_det_claim[1]) else 0.0
    slack = 2.0 * float(np.max(truth.slack)) + bias
    low, high = ctx.d * math.log1p(-L), ctx.d * math.log1p(L)

    def counterexample(at: Comparison) -> Counterexample:
        if not deterministic:
            return Counterexample({"x": x[at.rows]})
        return Counterexample({"x": x[at.rows], "low": low - slack, "high": high + slack}, measures.log_det_outside_bounds)

    return verdict(
        np.maximum(low - value, value - high), slack,
        expected=f"a log-det in [{low:.6g}, {high:.6g}] at L = {L:g}",
        got=lambda at: f"{value[at.row]:.6g}",
        passed=f"{len(value)} {'values' if deterministic else 'true values (draws may leave the bounds)'} in [{low:.4g}, {high:.4g}]",
        undecided="the Jacobian oracle does not bound the rounding of the log-det",
        tolerance=f"2·({SLACK})", oracle=f"the bounds themselves; random values: {truth.source}",
        evidence={"lower_bound": low, "upper_bound": high, "lowest": float(np.min(value)), "highest": float(np.max(value))},
        counterexample=counterexample,
    )


@check(
    "logdet.positive-determinant",
    claim="Where Lip(g) ≤ L < 1 is claimed, det dF/dx > 0.",
    reference=THEOREM, kind="search", needs=("log_det", "lipschitz"),
    cost="one Jacobian a row",
    catches="a reflection, an odd permutation or a negated branch in a network that is claimed to be id plus a contraction",
)
def positive_determinant(ctx: Context) -> Outcome:
    """The sign of det J by the oracle, in the rows where its error cannot change that sign: error < σ_min/2."""
    L = ctx.subject.lipschitz
    if L is None or not 0.0 <= L < 1.0:
        return Outcome("skipped", NO_CONTRACTION)
    refreshed(ctx)
    x = ctx.inputs(ctx.rows)
    J = ctx.jacobian(x)
    sign, value = np.linalg.slogdet(J.matrix)
    certain = J.error < 0.5 * singular.smallest(J.matrix)[1]
    return verdict(
        (sign < 0).astype(float), np.where(certain, 0.0, np.inf),
        expected=f"det dF/dx > 0, as Lip(g) ≤ {L:g} < 1 implies",
        got=lambda at: f"a negative determinant with log|det| = {value[at.row]:.6g}",
        remedy="look for a reflection or a permutation, or claim no Lipschitz bound",
        passed="all determinants are positive",
        undecided="the Jacobian oracle cannot tell the sign of any determinant",
        tolerance="none: a sign, where the oracle's error is below half the smallest singular value", oracle=J.source,
        counterexample=lambda at: Counterexample({"x": x[at.rows]}),
    )
