"""Saving, loading and copying a network: the copy answers like the original."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

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
from iresnet_verify.check.verdict import difference, verdict
from iresnet_verify.subject.fresh import build_fresh
from iresnet_verify.subject.module_state import ModuleState, is_torch_module, set_mode

if TYPE_CHECKING:
    from iresnet_verify.check.context import Calls, Context
    from iresnet_verify.subject.subject import HostArray


@check(
    "state.save-and-load",
    claim="state_dict() saved and loaded into a newly built network, or into one that was used, gives the same y and log-det.",
    reference="torch: state_dict holds the whole state; an initialisation that has happened is part of it",
    kind="search",
    needs=("torch", "module", "fresh"),
    cost="two new networks, one evaluation of each",
    catches="ActNorm that initialises itself again after loading, norms kept outside buffers, weights cached through a load",
)
def save_and_load(ctx: Context) -> Outcome:
    """Use the network, move the parameters, re-normalise, use it again, save it through bytes, load it into `fresh()`, compare.

    A `fresh()` that always builds the same network would hide what is not saved: so the parameters that are trained
    move by a twentieth of their size first. It is loaded a second time into a `fresh()` that has been used before: what that
    one keeps of its own parameters must not outlive them, after a `refresh()` where the subject gives one.
    """
    import torch

    subject = ctx.subject
    if not is_torch_module(subject.module):
        return Outcome("skipped", "needs a torch.nn.Module as module")
    x = ctx.inputs(ctx.rows)
    part = x[: max(len(x) // 2, 2)]
    ctx.raw_forward(ctx.native(part))  # layers may initialise themselves from this batch, or keep what they compute
    trained_on(ctx, part)
    ctx.raw_forward(ctx.native(part))
    if not forward_deterministic(ctx, x):
        return Outcome("inconclusive", "y differs between seeds in this mode")
    stored = io.BytesIO()
    torch.save(subject.module.state_dict(), stored)
    errors, bounds = dict[Any, Rows](), dict[Any, Rows]()
    ran = list[str]()
    for where in ("a new network", "a network that was used"):
        with _watching(ran):
            loaded = build_fresh(subject)
        other = context_of(ctx, loaded)
        if where != "a new network":
            other.raw_forward(other.native(part))
        stored.seek(0)
        try:
            loaded.module.load_state_dict(torch.load(stored, weights_only=True))
        except (RuntimeError, KeyError) as error:
            what = " ".join(str(error).split())[:200]
            return Outcome(
                "failed", f"expected fresh() to load the saved state, got {type(error).__name__}: {what}; register the same "
                "parameters and buffers at construction that exist after use", {"exception": type(error).__name__},
                "names and shapes are exact", "the network that was saved", Counterexample({"x": x}),
            )
        apart, bound = _differences(ctx, x, other.f)
        if where != "a new network" and loaded.refresh is not None:
            loaded.refresh()  # the subject's own word for parameters that have changed
            apart = {name: np.minimum(rows, _differences(ctx, x, other.f)[0][name]) for name, rows in apart.items()}
        errors |= {(name, where): rows for name, rows in apart.items()}
        bounds |= {(name, where): rows for name, rows in bound.items()}
    return verdict(
        errors, bounds,
        expected="the loaded network to answer like the original",
        got=lambda at: f"{difference(at)} after loading into {at.case[1]}",
        remedy=lambda at: "register what forward needs as buffers" if at.case[1] == "a new network" else
        "forget what was computed from the old parameters when others are loaded",
        passed="the loaded network answers like the original" + (
            f"; note: fresh() runs {ran[0]}, which sets what a first call sets: what is not saved of that stays hidden" if ran else ""),
        tolerance=ROUNDING, oracle="the network that was saved",
        counterexample=lambda at: Counterexample({"x": x}),
    )


@contextmanager
def _watching(ran: list[str]) -> Iterator[None]:
    """Note the classes of torch modules that are called meanwhile."""
    import torch

    handle = torch.nn.modules.module.register_module_forward_pre_hook(lambda module, _: ran.append(type(module).__name__))
    try:
        yield
    finally:
        handle.remove()


def trained_on(ctx: Context, x: HostArray) -> None:
    """Call forward in training mode, move each trainable parameter by .05 of its root mean square, return to this mode, refresh.

    Where a parameter is 0 it moves by 5e-4: the size is .05·(rms + .01).
    """
    import torch

    module = ctx.subject.module
    set_mode(module, "train")
    if "train" in ctx.subject.modes:
        ctx.raw_forward(ctx.native(x))
    with torch.no_grad():
        for w in module.parameters():
            if w.requires_grad and w.is_floating_point() and w.numel():
                w.add_(step_of(ctx, w))
    set_mode(module, ctx.mode)
    if ctx.subject.refresh is not None:
        ctx.subject.refresh()


def step_of(ctx: Context, w: Any) -> Any:
    """Return a random step of .05·(rms(w) + .01), like w."""
    import torch

    size = 0.05 * (float(w.detach().square().mean().sqrt()) + 0.01)
    return torch.as_tensor(ctx.rng.standard_normal(tuple(w.shape)) * size, dtype=w.dtype, device=w.device)


@check(
    "state.copies",
    claim="A deep copy, and a pickled copy where pickling works, answers like the original and shares no memory with it.",
    reference="copy.deepcopy and pickle keep the state of an object",
    kind="search",
    modes=False,
    needs=("torch", "module"),
    cost="a deep copy and a pickled one",
    catches="`__deepcopy__` that returns itself, state held outside the object",
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


def _differences(ctx: Context, x: HostArray, other: Calls) -> tuple[dict[str, Rows], dict[str, Rows]]:
    """Return how far another network's y and log-det lie from those of the subject, and how far rounding lets them."""
    errors, bounds = dict[str, Rows](), dict[str, Rows]()
    for name in ("forward", "log_det"):
        f, g = getattr(ctx.f, name), getattr(other, name)
        if f is None or g is None or (name == "log_det" and not log_det_deterministic(ctx, x)):
            continue
        a, b = f(x, seed=0), g(x, seed=0)
        errors[name], bounds[name] = (gap(a, b), forward_tolerance(ctx, x, a)) if name == "forward" else log_det_gap(ctx, x, a, b)
    return errors, bounds
