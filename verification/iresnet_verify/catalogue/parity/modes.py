"""Training and evaluation mode: one map, one log-det."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iresnet_verify.catalogue.shared.comparisons import (
    ROUNDING,
    forward_deterministic,
    forward_tolerance,
    gap,
    log_det_deterministic,
    log_det_gap,
    warm_up,
)
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import verdict
from iresnet_verify.measurements import hygiene as measures
from iresnet_verify.subject.module_state import set_mode
from iresnet_verify.subject.subject import stated_claim

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context


@check(
    "parity.train-and-eval",
    claim="Training and evaluation mode give the same y, and the same log-det where both claim it exactly.",
    reference="a density is one function: what is trained is what is evaluated",
    kind="search",
    modes=False,
    needs=("module",),
    cost="two evaluations in each mode",
    catches="normalisation in one mode only, batch statistics, another number of terms in evaluation",
)
def train_and_eval(ctx: Context) -> Outcome:
    """Evaluate at the same x and seed in both modes."""
    if set(ctx.subject.modes) != {"train", "eval"} or not hasattr(ctx.subject.module, "train"):
        return Outcome("skipped", "needs both modes")
    set_mode(ctx.subject.module, "train")
    warm_up(ctx)
    x = ctx.inputs(ctx.rows)
    values: dict[str, Any] = {}
    log_dets: dict[str, Any] = {}
    for mode in ("train", "eval"):
        set_mode(ctx.subject.module, mode)
        if not forward_deterministic(ctx, x):
            return Outcome("inconclusive", f"y differs between seeds in {mode} mode")
        values[mode] = ctx.f.forward(x, seed=0)
        steady = ctx.f.log_det is not None and _claim(ctx, mode) == "exact" and log_det_deterministic(ctx, x)
        log_dets[mode] = ctx.evaluate_log_det(x, 0) if steady else None
    errors = {"forward": gap(values["train"], values["eval"])}
    bounds = {"forward": forward_tolerance(ctx, x, values["eval"])}
    if log_dets["train"] is not None and log_dets["eval"] is not None:
        errors["log_det"], bounds["log_det"] = log_det_gap(ctx, x, log_dets["eval"], log_dets["train"])
    return verdict(
        errors, bounds,
        expected="the same values in training and evaluation mode",
        remedy="declare the mode in which the claims hold (modes=), or make both compute the same",
        passed="both modes agree", tolerance=ROUNDING, oracle="the other mode",
        counterexample=lambda at: Counterexample({"x": x, "name": at.case, "bound": at.bound}, measures.modes_apart),
    )


def _claim(ctx: Context, mode: str) -> str:
    claim = stated_claim(ctx.subject, mode)
    return claim if isinstance(claim, str) else "bias"
