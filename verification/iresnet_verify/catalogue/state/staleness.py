"""Evaluation after an optimiser's step: what is kept from before the step must not outlive it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.comparisons import (
    Rows,
    forward_deterministic,
    forward_tolerance,
    gap,
    log_det_deterministic,
    log_det_tolerance,
    warm_up,
)
from iresnet_verify.catalogue.shared.map_errors import promised, size
from iresnet_verify.catalogue.state.checkpoints import step_of
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import Comparison, verdict
from iresnet_verify.subject.module_state import ModuleState, is_torch_module, set_mode

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

PARAMETERS = 16
"""Parameters that are moved one by one, at most: evenly spaced ones of all."""


@check(
    "state.after-optimiser-step",
    claim="Where training and evaluation agree as delivered, every parameter that moves an answer in training moves it in evaluation.",
    reference="a density is one function: what is trained is what is evaluated", kind="search", modes=False,
    needs=("torch", "module"), cost="two calls of each callable a parameter, of at most 16 parameters",
    catches="effective weights, inverses and log-dets cached from before the step",
)
def after_optimiser_step(ctx: Context) -> Outcome:
    """Move one parameter after the other as an optimiser does, then all: in training mode, between two calls in evaluation.

    An answer that no parameter reaches is compared bit by bit: normalisation by a stale power iteration, running statistics
    and the like still see every parameter. All parameters at once are compared mode against mode, where a call in training
    changes no state: then nothing in evaluation may wait for one.
    """
    module = ctx.subject.module
    if set(ctx.subject.modes) != {"train", "eval"} or not is_torch_module(module):
        return Outcome("skipped", "needs both modes of a torch.nn.Module")
    moving = {n: p for n, p in module.named_parameters() if p.requires_grad and p.is_floating_point() and p.numel()}
    if not moving:
        return Outcome("skipped", "the module has no trainable parameters")
    set_mode(module, "train")
    warm_up(ctx)
    x = ctx.inputs(ctx.rows)
    set_mode(module, "eval")
    y = ctx.host(ctx.raw_forward(ctx.native(x))[0]).astype(x.dtype)  # what evaluation keeps is kept now
    if ctx.f.log_det is not None:
        ctx.raw_log_det(ctx.native(x))
    if ctx.f.inverse is not None:
        ctx.raw_inverse(ctx.native(y))
    names = _steady(ctx, x)
    before = {mode: _answers(ctx, mode, names, x, y) for mode in ("train", "eval")}
    bounds = {name: _tolerance(ctx, name, x, y, before["eval"][name]) for name in names}
    names = [n for n in names if bool((gap(before["train"][n], before["eval"][n]) <= bounds[n]).all())]
    if not names:
        return Outcome("skipped", "training and evaluation mode differ as delivered, or are random: nothing is claimed of one by the other")
    errors, allowed = dict[Any, Rows](), dict[Any, Rows]()
    chosen = [*moving][:: -(-len(moving) // PARAMETERS)]
    for which in chosen:
        after = {mode: _answers(ctx, mode, names, x, y, {which: moving[which]}) for mode in ("train", "eval")}
        for name in names:
            stuck = np.array_equal(after["eval"][name], before["eval"][name], equal_nan=True)
            moved = gap(after["train"][name], before["train"][name])
            errors[name, which], allowed[name, which] = moved * stuck, bounds[name]
    if not _changes_state(ctx, x, moving):
        after = {mode: _answers(ctx, mode, names, x, y, moving) for mode in ("train", "eval")}
        for name in names:
            errors[name, ""] = gap(after["train"][name], after["eval"][name])
            allowed[name, ""] = 2.0 * _tolerance(ctx, name, x, y, after["train"][name])

    def got(at: Comparison) -> str:
        name, which = at.case
        if not which:
            return f"a difference of {at.error:.2e} between the modes in {name} after a step of all parameters"
        return f"{name} of row {at.row} moved by {at.error:.2e} in training and not at all in evaluation after a step of {which}"

    return verdict(
        errors, allowed,
        expected="evaluation to follow the parameters as training does",
        got=got,
        remedy="forget what was computed from the old parameters when training begins",
        passed=f"{', '.join(names)} in evaluation follow a step of {len(chosen)} parameters", tolerance="two evaluations, each to rounding",
        oracle="training mode", evidence={"parameters": len(chosen)}, counterexample=lambda at: Counterexample({"x": x}),
    )


def _steady(ctx: Context, x: HostArray) -> list[str]:
    """The callables whose answers are not random in evaluation and, as far as one seed tells, in training mode."""
    given = {"forward": True, "log_det": ctx.f.log_det is not None, "inverse": ctx.f.inverse is not None}
    for mode in ("train", "eval"):
        with ctx.guard():
            set_mode(ctx.subject.module, mode)
            given["forward"] &= forward_deterministic(ctx, x)
            given["log_det"] = given["log_det"] and log_det_deterministic(ctx, x)
    return [name for name, steady in given.items() if steady and given["forward"]]


def _answers(
    ctx: Context, mode: str, names: list[str], x: HostArray, y: HostArray, moved: dict[str, Any] | None = None
) -> dict[str, HostArray]:
    """The answers in a mode after a step of some parameters."""
    with _step(ctx, mode, moved or {}):
        return {name: getattr(ctx.f, name)(y if name == "inverse" else x, seed=0) for name in names}


@contextmanager
def _step(ctx: Context, mode: str, moved: dict[str, Any]) -> Iterator[None]:
    """Move some parameters in training mode, the same way every time, go on in a mode, and put everything back."""
    import torch

    kept = {n: p.detach().clone() for n, p in moved.items()}
    ctx.rng = np.random.default_rng(ctx.seed)
    with ctx.guard():
        set_mode(ctx.subject.module, "train")
        try:
            with torch.no_grad():
                for p in moved.values():
                    p.add_(step_of(ctx, p))
            set_mode(ctx.subject.module, mode)
            if moved and ctx.subject.refresh is not None:
                ctx.subject.refresh()
            yield
        finally:
            with torch.no_grad():  # in place: what is keyed by the version of a tensor must see it
                for n, p in moved.items():
                    p.copy_(kept[n])


def _tolerance(ctx: Context, name: str, x: HostArray, y: HostArray, value: HostArray) -> Rows:
    """How far two right answers may lie apart."""
    if name == "forward":
        return forward_tolerance(ctx, x, value)
    if name == "inverse":
        return 2.0 * promised(ctx)[0] * size(x) + forward_tolerance(ctx, x, y)
    return log_det_tolerance(ctx, x, value, np.full(len(x), np.inf))


def _changes_state(ctx: Context, x: HostArray, moving: dict[str, Any]) -> bool:
    """Whether a call in training mode changes anything on the module, after a step: a converged power iteration does only then."""
    with _step(ctx, "train", moving):
        state = ModuleState(ctx.subject.module)
        ctx.raw_forward(ctx.native(x))
        return bool(state.changes())
