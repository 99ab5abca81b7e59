"""The log-determinant of a composition: log-dets of its parts add up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify.catalogue.shared.log_det_truth import NO_VALUE, SLACK, decided, is_deterministic, limit, truth_at
from iresnet_verify.catalogue.shared.map_errors import refreshed
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import verdict

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context


@check(
    "logdet.adds-up",
    claim="Log-dets of a composition add up: log_det(x) + log_det(F(x)) is the log-det of F∘F, two calls in one graph.",
    reference="chain rule: det d(F∘F)/dx = det J(F(x))·det J(x); Chen et al. 2019 (arXiv 1906.02735), eq. 2", kind="proof",
    needs=("log_det",), modes=False, cost="8 Jacobians (quick) of the map and of its square",
    catches="log-dets kept on the layer and overwritten by the next call, layers that cannot be used twice",
)
def adds_up(ctx: Context) -> Outcome:
    """Both log-dets are read after both calls have been made; J of x ↦ F(F(x)) is the product of the oracle's at x and F(x)."""
    kind, bias = ctx.log_det_claim
    if kind == "gradient-only":
        return Outcome("skipped", NO_VALUE)
    refreshed(ctx)
    x = ctx.inputs(ctx.rows)
    if not is_deterministic(ctx, x[:3]):
        return Outcome("skipped", "random values: each is compared with the determinant by estimator.unbiased", {"rows": 0})
    with ctx.guard(), ctx.framework.call_context():
        y, first = ctx.raw_forward(ctx.native(x), seed=3)
        second = ctx.raw_forward(y, seed=3)[1]
        if first is None or second is None:
            first, second = ctx.raw_log_det(ctx.native(x), seed=3), ctx.raw_log_det(y, seed=3)
        image = ctx.host(y)
        values = np.stack([np.asarray(ctx.host(v), dtype=np.float64).reshape(len(x)) for v in (first, second)])
    one, two = truth_at(ctx, x), truth_at(ctx, image)
    known = decided(one, limit(ctx)) & decided(two, limit(ctx))
    total, truth = values.sum(0), one.value + two.value
    return verdict(
        np.abs(total - truth), np.where(known, one.slack + two.slack + 2.0 * bias, np.inf),
        expected=lambda at: f"log_det(x) + log_det(F(x)) = {truth[at.row]:.10g} ± {at.bound:.2g}",
        got=lambda at: f"{total[at.row]:.10g}",
        passed=lambda at: f"largest gap {at.largest:.2g} nats in {at.compared} rows",
        undecided="the Jacobian oracle decides no row",
        tolerance=f"the sum over both points of {SLACK}", oracle=one.source,
        evidence=lambda at: {"first": float(values[0, at.row]), "second": float(values[1, at.row]), "truth": float(truth[at.row])},
        counterexample=lambda at: Counterexample({"x": x[at.rows]}),
    )
