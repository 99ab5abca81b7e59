"""torch.autocast: a network inside it is refused or stays right to the narrow dtype; it does not become NaN or zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.comparisons import (
    CallContext,
    Rows,
    context_of,
    forward_deterministic,
    gap,
    log_det_deterministic,
    warm_up,
)
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import verdict, with_refusals
from iresnet_verify.subject.calls import Caller, host_calls
from iresnet_verify.subject.conventions import explain
from iresnet_verify.subject.frameworks import OPERATIONS
from iresnet_verify.subject.fresh import build_fresh

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context

NARROW = 2.0**-8
"""Unit roundoff of bfloat16."""


@check(
    "hygiene.autocast",
    claim="Under torch.autocast to bfloat16 y and a deterministic log-det stay finite and within the rounding of bfloat16, or the "
    "call is refused.",
    reference="torch.autocast changes the precision of some operations, not what is computed", kind="search", needs=("torch",),
    modes=False, cost="four evaluations",
    catches="thresholds and eps below bfloat16's, sums of log-dets that overflow or vanish, mixed dtypes",
)
def autocast(ctx: Context) -> Outcome:
    """Autocast leaves float64 alone, so a float64 subject is tried as a float32 one where `fresh(dtype=)` gives it."""
    import torch

    if ctx.subject.dtype == "float64":
        if ctx.subject.fresh is None:
            return Outcome("skipped", "torch.autocast leaves float64 alone, and there is no fresh(dtype=) to give a float32 network")
        ctx = context_of(ctx, build_fresh(ctx.subject, "float32"))
    warm_up(ctx)
    x = ctx.inputs(ctx.rows)
    if not forward_deterministic(ctx, x):
        return Outcome("skipped", "y differs between seeds in this mode")

    def narrow() -> Any:
        return torch.autocast(ctx.subject.device.partition(":")[0], dtype=torch.bfloat16)

    around: Any = CallContext(ctx.framework, narrow)
    inside = host_calls(Caller(ctx.subject, around, ctx.seed, ctx.conventions.context_row, dict(ctx.conventions.packed)), pure=True)
    errors, bounds, refusals = dict[str, Rows](), dict[str, Rows](), dict[str, str]()
    for name in ("forward", "log_det"):
        outside, within = getattr(ctx.f, name), getattr(inside, name)
        if outside is None or (name == "log_det" and not log_det_deterministic(ctx, x)):
            continue
        a = outside(x, seed=0)
        try:
            b = within(x, seed=0)
        except Exception as error:
            refusals[name] = explain(name, error)
            continue
        size = np.linalg.norm(np.asarray(a, np.float64).reshape(len(x), -1), axis=1)
        size = size + np.linalg.norm(x.reshape(len(x), -1).astype(np.float64), axis=1) + np.sqrt(ctx.d)
        vanished = name == "log_det" and not b.any() and np.abs(a).max() > 0  # lost, though 0 may be within the bound
        errors[name], bounds[name] = gap(a, b), np.zeros(len(x)) if vanished else OPERATIONS * NARROW * size
    return with_refusals(verdict(
        errors, bounds,
        expected="the same values under torch.autocast to the rounding of bfloat16",
        remedy="compute what needs precision under torch.autocast(enabled=False), or raise",
        passed="torch.autocast changes rounding only",
        tolerance="64·2⁻⁸·(‖value‖ + ‖x‖ + √d)", oracle="the same call without autocast",
        counterexample=lambda at: Counterexample({"x": x}),
    ), refusals)
