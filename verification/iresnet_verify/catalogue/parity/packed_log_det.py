"""The log-det returned by forward and the one returned by log_det are the same number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify.catalogue.shared.comparisons import ROUNDING, log_det_deterministic, log_det_gap, warm_up
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import verdict
from iresnet_verify.measurements import hygiene as measures

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context


@check(
    "parity.packed-log-det",
    claim="The log-det that forward returns is the one that log_det returns.",
    reference="both are log|det dF/dx|",
    kind="search",
    needs=("log_det",),
    cost="one evaluation",
    catches="a sign convention in one of them, the log-det of the inverse, a sum over the batch",
)
def packed_log_det(ctx: Context) -> Outcome:
    """Compare the two at the same x."""
    if not ctx.conventions.packed.get("forward", False):
        return Outcome("skipped", "forward returns y alone")
    warm_up(ctx)
    x = ctx.inputs(ctx.rows)
    if not log_det_deterministic(ctx, x):
        return Outcome("skipped", "the log-det is random, or has no value, in this mode")
    with ctx.guard():
        packed = ctx.host(ctx.raw_forward(ctx.native(x), seed=0)[1]).astype(np.float64)
    separate = ctx.evaluate_log_det(x, 0)
    measure = measures.log_det_disagreement if ctx.framework.name == "torch" else None
    return verdict(
        *log_det_gap(ctx, x, separate, packed),
        expected="the log-det returned by forward to equal log_det(x)",
        got=lambda at: f"{packed[at.row]:.6g} and {separate[at.row]:.6g} in row {at.row}",
        remedy="look at the sign",
        passed="both agree", tolerance=ROUNDING, oracle="the separate log_det",
        counterexample=lambda at: Counterexample({"x": x, "row": at.row, "bound": at.bound}, measure),
    )
