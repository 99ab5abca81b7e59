"""Saving, loading and copying a network: the copy answers like the original."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from iresnet_verify.catalogue.shared.comparisons import (
    ROUNDING,
    Rows,
    context_of,
    forward_deterministic,
    forward_tolerance,
    gap,
    log_det_deterministic,
    log_det_gap,
)
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import verdict
from iresnet_verify.subject.module_state import ModuleState, is_torch_module

if TYPE_CHECKING:
    from iresnet_verify.check.context import Calls, Context
    from iresnet_verify.subject.subject import HostArray


@check(
    "state.save-and-load",
    claim="state_dict() saved and loaded into a newly built network gives the same y and log-det.",
    reference="torch: state_dict holds the whole state; an initialisation that has happened is part of it",
    kind="search",
    needs=("torch", "module", "fresh"),
    cost="a new network, one evaluation of each",
    catches="ActNorm that initialises itself again after loading, norms and statistics kept outside buffers",
)
def save_and_load(ctx: Context) -> Outcome:
    """Move the parameters, re-normalise, use the network once, save it through bytes, load it into `fresh()`, compare.

    A `fresh()` that always builds the same network would hide what is not saved: so the parameters that are trained
    move by a twentieth of their size first.
    """
    import torch

    subject = ctx.subject
    if not is_torch_module(subject.module):
        return Outcome("skipped", "needs a torch.nn.Module as module")
    assert subject.fresh is not None
    x = ctx.inputs(ctx.rows)
    _trained_on(ctx)
    ctx.raw_forward(ctx.native(x[: max(len(x) // 2, 2)]))  # layers may initialise themselves from this batch
    if not forward_deterministic(ctx, x):
        return Outcome("inconclusive", "y differs between seeds in this mode")
    stored = io.BytesIO()
    torch.save(subject.module.state_dict(), stored)
    stored.seek(0)
    loaded = subject.fresh(dtype=subject.dtype, device=subject.device)
    try:
        loaded.module.load_state_dict(torch.load(stored, weights_only=True))
    except (RuntimeError, KeyError) as error:
        what = " ".join(str(error).split())[:200]
        return Outcome(
            "failed", f"expected fresh() to load the saved state, got {type(error).__name__}: {what}; register the same "
            "parameters and buffers at construction that exist after use", {"exception": type(error).__name__},
            "names and shapes are exact", "the network that was saved", Counterexample({"x": x}),
        )
    return _same_answers(ctx, x, context_of(ctx, loaded).f)


def _trained_on(ctx: Context) -> None:
    """Move each trainable parameter by .05 of its root mean square (and of .01 where it is 0), then refresh."""
    import torch

    with torch.no_grad():
        for w in ctx.subject.module.parameters():
            if w.requires_grad and w.is_floating_point() and w.numel():
                size = 0.05 * (float(w.square().mean().sqrt()) + 0.01)
                w.add_(torch.as_tensor(ctx.rng.standard_normal(tuple(w.shape)) * size, dtype=w.dtype, device=w.device))
    if ctx.subject.refresh is not None:
        ctx.subject.refresh()


@check(
    "state.copies",
    claim="A deep copy, and a pickled copy where pickling works, answers like the original and shares no memory with it.",
    reference="copy.deepcopy and pickle keep the state of an object",
    kind="search",
    modes=False,
    needs=("torch", "module"),
    cost="a deep copy and a pickled one",
    catches="__deepcopy__ that returns itself, state held outside the object",
)
def copies(ctx: Context) -> Outcome:
    """Compare parameters and buffers, change one in the copy, and look at the original."""
    import torch

    module = ctx.subject.module
    if not is_torch_module(module):
        return Outcome("skipped", "needs a torch.nn.Module as module")
    wrong, notes = dict[str, str](), dict[str, str]()
    makers: dict[str, Callable[[Any], Any]] = {"deepcopy": copy.deepcopy, "pickle": lambda m: pickle.loads(pickle.dumps(m))}
    for how, make in makers.items():
        try:
            made = make(module)
        except Exception as error:
            notes[how] = f"refused: {type(error).__name__}"
            continue
        pairs = list(zip(module.state_dict().items(), made.state_dict().items(), strict=False))
        lost = [a[0] for a, b in pairs if a[0] != b[0] or not bool(torch.equal(a[1], b[1]) | (a[1].isnan().any() & b[1].isnan().any()))]
        if lost or len(module.state_dict()) != len(made.state_dict()):
            wrong[how] = f"{', '.join(lost) or 'some state'} differs in the copy"
            continue
        before = ModuleState(module)
        with torch.no_grad():
            for tensor in (*made.parameters(), *made.buffers()):
                tensor.add_(1) if tensor.dtype != torch.bool else tensor.logical_not_()
        changed = before.changes()
        before.restore()
        wrong[how] = f"changing the copy changed {', '.join(changed[:4])} of the original" if changed else ""
        notes[how] = f"{len(pairs)} tensors compared"
    return verdict(
        {how: float(bool(what)) for how, what in wrong.items()}, 0.0,
        expected="an equal and separate copy",
        got=lambda at: f"by {at.case}: {wrong[at.case]}",
        remedy="leave __deepcopy__ and __getstate__ to torch",
        passed="copies are equal and separate", nothing="the module can neither be copied nor pickled",
        tolerance="bitwise", oracle="the original", evidence=notes, counterexample=lambda at: Counterexample({"x": ctx.inputs(1)}),
    )


def _same_answers(ctx: Context, x: HostArray, other: Calls) -> Outcome:
    errors, bounds = dict[str, Rows](), dict[str, Rows]()
    for name in ("forward", "log_det"):
        f, g = getattr(ctx.f, name), getattr(other, name)
        if f is None or g is None or (name == "log_det" and not log_det_deterministic(ctx, x)):
            continue
        a, b = f(x, seed=0), g(x, seed=0)
        errors[name], bounds[name] = (gap(a, b), forward_tolerance(ctx, x, a)) if name == "forward" else log_det_gap(ctx, x, a, b)
    return verdict(
        errors, bounds,
        expected="the loaded network to answer like the original",
        remedy="register what forward needs as buffers",
        passed="the loaded network answers like the original", tolerance=ROUNDING, oracle="the network that was saved",
        counterexample=lambda at: Counterexample({"x": x}),
    )
