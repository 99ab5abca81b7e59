"""The bound through the life of a network: newly built, before anything has been updated; and after an optimiser's step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify.catalogue.lipschitz.bound import norm_verdict, pair_counterexample, refuses, search_norm
from iresnet_verify.catalogue.shared.comparisons import context_of
from iresnet_verify.catalogue.shared.map_errors import refreshed
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.subject.errors import backward_pass
from iresnet_verify.subject.fresh import build_fresh
from iresnet_verify.subject.module_state import set_mode

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context

SEARCH = "a quarter of the search of lipschitz.bounds-jacobian"


def _bounded(ctx: Context, when: str, remedy: str, *, here: bool = True) -> Outcome:
    """Search the largest ‖J_g‖ as it is now; `here`: the subject in memory is the one that is searched."""
    worst, pair, tolerance = search_norm(ctx, max(2, ctx.budget.restarts // 2), max(5, ctx.budget.steps // 4))

    def counterexample() -> Counterexample:
        found = pair_counterexample(ctx, pair.a, pair.b) if here else None
        return found or Counterexample({"x": worst.x, "a": pair.a, "b": pair.b})

    return norm_verdict(ctx, worst, pair, tolerance, when=f" {when}", remedy=remedy, counterexample=counterexample)


@check(
    "lipschitz.newly-built",
    claim="A newly built network keeps its bound before any update: ‖J_g(x)‖₂ ≤ L for what fresh() returns.",
    reference="lipschitz and lipschitz_holds of the subject that fresh() returns", kind="search",
    needs=("lipschitz", "fresh"), modes=False, cost=SEARCH,
    catches="a norm that is right only after the first training step, power-iteration vectors that start at random",
)
def newly_built(ctx: Context) -> Outcome:
    """`fresh()`, put into the mode at once; its refresh is called only where the claim is made for the state after it."""
    made = build_fresh(ctx.subject)
    if made.lipschitz is None:
        return Outcome("skipped", "the subject that fresh() returns claims no Lipschitz bound")
    built = context_of(ctx, made)
    built.rng = ctx.rng
    refreshed(built)
    return _bounded(built, "when newly built", "normalise at construction, or compute the norm at the first use in either mode",
                    here=False)


@check(
    "lipschitz.after-optimiser-step",
    claim="Where the bound is claimed always or after a refresh, an optimiser's step does not break it: ‖J_g(x)‖₂ ≤ L.",
    reference="lipschitz_holds of the subject", kind="search", needs=("lipschitz", "module", "torch"),
    modes=False, cost=f"one training step, and {SEARCH}",
    catches="effective weights cached in one mode, norms that lag one step behind, a refresh that does not see the new weights",
)
def after_optimiser_step(ctx: Context) -> Outcome:
    """The first step of Adam (each weight by the learning rate against its sign) in training mode, then this mode again.

    The learning rate is the median size of the weights. (`torch.optim` would do the same and import a compiler first.)
    """
    import torch

    if ctx.subject.lipschitz_holds == "now":
        return Outcome("skipped", "lipschitz_holds is \"now\": the claim is about the parameters as delivered only.")
    moving = [p for p in ctx.subject.module.parameters() if p.requires_grad and p.is_floating_point() and p.numel()]
    if not moving:
        return Outcome("skipped", "the module has no trainable parameters")
    x = ctx.inputs(ctx.rows)
    ctx.raw_forward(ctx.native(x))  # in this mode first: what is cached here must not survive the step
    set_mode(ctx.subject.module, "train")
    rate = max(float(np.median([float(p.detach().square().mean().sqrt()) for p in moving])), 1e-2)
    with torch.enable_grad():
        y = ctx.raw_forward(ctx.native(x))[0]
        if not y.requires_grad:
            return Outcome("skipped", "forward carries no gradient: no optimiser can step")
        for p in moving:
            p.grad = None
        with backward_pass("forward"):
            (-y.square().mean()).backward()  # a loss that wants larger weights
    with torch.no_grad():
        for p in moving:
            if p.grad is not None:
                p.sub_(rate * p.grad.sign())
    set_mode(ctx.subject.module, ctx.mode)
    trouble = refuses(ctx)
    if trouble:
        return Outcome("inconclusive", f"the step leads to parameters at which nothing can be asked: {trouble}")
    return _bounded(ctx, "after a step of Adam", "normalise the weights that are used, at every use or at every refresh")
