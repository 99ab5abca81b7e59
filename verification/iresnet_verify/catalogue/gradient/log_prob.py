"""The gradient of the density, which is what training descends: that of log_prob as it is returned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.comparisons import warm_up
from iresnet_verify.catalogue.shared.parameter_directions import along_directions, compare_directions
from iresnet_verify.catalogue.shared.parameter_gradients import rows_of
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.subject.errors import BackwardError, Refused, backward_pass

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context


@check(
    "gradient.log-prob",
    claim="∇_θ Σ w_i log_prob(x_i) is the derivative of the values that log_prob returns, for unequal weights w_i.",
    reference="maximum likelihood: the gradient of log p₀(F(x)) + log|det dF/dx| has both terms", kind="proof",
    needs=("log_prob", "module", "torch"),
    cost="one backward pass, 24 evaluations for each of 3 (quick) to 7 directions",
    catches="a log-det or a base density that is detached in log_prob, weights lost on the way, a mean for a sum",
)
def log_prob_gradient(ctx: Context) -> Outcome:
    """One backward pass against differences along random directions of the parameters and along the gradient itself."""
    warm_up(ctx)
    named = [(n, p) for n, p in ctx.subject.module.named_parameters() if p.requires_grad and p.numel()]
    if not named:
        return Outcome("skipped", "the module has no trainable parameters", {"compared": 0})
    if ctx.log_det_claim[0] not in ("exact", "none"):
        return Outcome("skipped", f"its log-det claims {ctx.log_det_claim[0]!r}, whose gradient may be another estimate than its value's",
                       {"compared": 0})
    assert ctx.f.log_prob is not None
    log_prob = ctx.f.log_prob
    x, seed = ctx.inputs(rows_of(ctx)), ctx.caller.next_seed()
    value = log_prob(x, seed=seed)
    finite = np.isfinite(value)
    x, value = x[finite], value[finite]
    if not len(x) or not np.array_equal(value, log_prob(x, seed=seed + 1)):
        return Outcome("skipped", "log_prob is random, or finite in no row", {"compared": 0})
    weights = np.where(np.arange(len(x)) % 2, -1.0, 1.0) * (1.0 + 0.7 * np.arange(len(x)))
    try:
        gradients = _backward(ctx, x, weights, seed)
    except BackwardError as error:
        return Outcome("failed", f"expected a log_prob that carries a graph to be differentiable, got: {error}", {"compared": len(x)},
                       "existence", "autograd", Counterexample({"x": x}))
    if gradients is None and ctx.mode == "eval":
        raise Refused("log_prob carries no gradient in evaluation mode")

    def number() -> float:
        return float(weights @ log_prob(x, seed=seed))

    floor = (2.0 * ctx.u + ctx.accuracy) * float(np.abs(weights) @ (np.abs(value) + ctx.d))
    return compare_directions(
        along_directions(ctx, named, gradients or [None] * len(named), number, floor), what="Σ w·log_prob",
        moves_by_itself=next(iter(ctx.subject.module.buffers()), None) is not None,
        counterexample=lambda at: Counterexample({"x": x}),
    )


def _backward(ctx: Context, x: Any, weights: Any, seed: int) -> list[Any] | None:
    """The gradients of the trainable parameters; None where log_prob carries no graph."""
    import torch

    with ctx.guard(), ctx.framework.call_context():
        parameters = [p for p in ctx.subject.module.parameters() if p.requires_grad and p.numel()]
        for p in ctx.subject.module.parameters():
            p.grad = None
        value = ctx.caller.scalar("log_prob", ctx.native(x), seed=seed)
        if not value.requires_grad:
            return None
        with backward_pass("log_prob"):
            value.backward(torch.tensor(weights).to(value))
        return [None if p.grad is None else p.grad.clone() for p in parameters]
