"""Rows that a loss leaves out: weight 0 means that a row adds nothing, whatever is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify.catalogue.shared.comparisons import forward_deterministic, log_det_deterministic, warm_up
from iresnet_verify.catalogue.shared.parameter_gradients import rows_of
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import verdict
from iresnet_verify.subject.errors import backward_pass
from iresnet_verify.subject.frameworks import OPERATIONS

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.randomness.injection import Vector
    from iresnet_verify.subject.subject import HostArray


@check(
    "gradient.masked-rows",
    claim="A row of weight 0 adds nothing to a gradient: ∇ Σ w_i(c·F(x_i) + log_det(x_i)) is that of the batch without it.",
    reference="linearity of the gradient; importance weights and masks are weights", kind="proof", needs=("module", "torch"),
    cost="three backward passes",
    catches="the sum or mean of the upstream gradient used for every row, weights dropped in a custom backward",
)
def masked_rows(ctx: Context) -> Outcome:
    """Every second row has weight 0, the others unequal ones, against a backward pass over the others alone."""
    warm_up(ctx)
    x = ctx.inputs(2 * max(4, rows_of(ctx)))
    if not forward_deterministic(ctx, x):
        return Outcome("skipped", "y is random in this mode: two batches cannot be compared")
    with_log_det = log_det_deterministic(ctx, x)
    kept = np.arange(0, len(x), 2)
    weights = np.where(np.arange(len(x)) % 2, 0.0, 1.0 + 0.7 * np.arange(len(x)))
    c = ctx.rng.standard_normal(x.shape)
    whole, size = _gradient(ctx, x, weights, c, with_log_det)
    part, _ = _gradient(ctx, x[kept], weights[kept], c[kept], with_log_det)
    third, _ = _gradient(ctx, x[kept], weights[kept] / 3.0, c[kept], with_log_det)
    if whole is None or part is None or third is None:
        return Outcome("skipped", "nothing here carries a gradient")
    allowed = {n: OPERATIONS * ctx.u * np.sqrt(ctx.d) * len(x) * (s + 1.0) + 8.0 * _largest(3.0 * third[n] - part[n])
               for n, s in size.items()}
    return verdict(
        {n: _difference(whole[n], part[n], n, kept) for n in whole},
        {n: bound * (1.0 + ctx.accuracy / ctx.u) for n, bound in allowed.items()},
        expected="rows of weight 0 to change no gradient", got=lambda at: f"one that differs by {at.error:.3g} for {at.case}",
        remedy="use each row's own upstream gradient",
        passed=f"{len(whole)} gradients are those of the other rows alone",
        tolerance="64·u·√d·rows·(Σ|∂| + 1) for each tensor, and 8 times what a loss scaled by 1/3 and back changes",
        oracle="the batch without these rows", evidence={"masked": len(x) - len(kept), "log_det": with_log_det},
        counterexample=lambda at: Counterexample({"x": x}),
    )


def _largest(change: Vector) -> float:
    return float(np.abs(change).max(initial=0.0))


def _difference(whole: Vector, part: Vector, name: str, kept: HostArray) -> float:
    """Largest difference; of the gradient of x on the rows kept, and on the others to 0."""
    if name != "x":
        return _largest(whole - part)
    return max(_largest(whole[kept] - part), _largest(np.delete(whole, kept, axis=0)))


def _gradient(
    ctx: Context, x: HostArray, weights: Vector, c: Vector, with_log_det: bool
) -> tuple[dict[str, Vector] | None, dict[str, float]]:
    """(gradients by name, sum of their sizes) of one backward pass; None where there is no graph."""
    import torch

    with ctx.guard(), ctx.framework.call_context():
        for p in ctx.subject.module.parameters():
            p.grad = None
        leaf = ctx.native(x, requires_grad=True)
        y, log_det = ctx.raw_forward(leaf.clone(), seed=7)
        if log_det is None and with_log_det:
            log_det = ctx.raw_log_det(leaf.clone(), seed=7)
        rows = (y * torch.tensor(c).to(y)).reshape(len(x), -1).sum(1)
        if with_log_det and log_det is not None and log_det.requires_grad:
            rows = rows + log_det
        if not rows.requires_grad:
            return None, {}
        with backward_pass("forward and the log-det"):
            rows.backward(torch.tensor(weights).to(rows))
        named = {"x": leaf, **{n: p for n, p in ctx.subject.module.named_parameters() if p.requires_grad}}
        found = {n: np.zeros(tuple(p.shape)) if p.grad is None else p.grad.detach().cpu().double().numpy() for n, p in named.items()}
    return found, {n: float(np.abs(g).sum()) for n, g in found.items()}
