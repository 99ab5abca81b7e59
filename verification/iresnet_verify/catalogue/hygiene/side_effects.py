"""What a call leaves behind: nothing. Its argument, the caller's tensors and the process stay as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.comparisons import (
    EVENT_NAMES,
    CallContext,
    arguments,
    forward_deterministic,
    plural,
    warm_up,
)
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import Comparison, verdict
from iresnet_verify.measurements import hygiene as measures
from iresnet_verify.subject import outputs
from iresnet_verify.subject.errors import Undecided
from iresnet_verify.subject.frameworks import changed_globals, dtype_name

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context

GENERATORS = ("random", "numpy.random", "torch.random", "torch.cuda.random")


@check(
    "hygiene.input-kept",
    claim="A call changes no bit of its argument and does not free its memory.",
    reference="functions of arrays are functions: callers use x again",
    kind="search",
    cost="one call of each callable", compares_values=False,
    catches="in-place updates, memory-efficient layers that free their input",
)
def input_kept(ctx: Context) -> Outcome:
    """Compare the argument's bytes, and the size of its storage, before and after each call."""
    warm_up(ctx)
    x = ctx.inputs(ctx.rows)
    changed, given_to = dict[str, float](), dict[str, Any]()
    for name, argument in arguments(ctx, x):
        given, before = ctx.native(argument), np.ascontiguousarray(argument, dtype=ctx.inputs(1).dtype)
        with ctx.guard():
            ctx.caller.invoke(name, given)
        storage = getattr(given, "untyped_storage", None)
        freed = storage is not None and storage().nbytes() < before.nbytes
        changed[name] = np.inf if freed else float(np.sum(np.ascontiguousarray(ctx.host(given)).view(np.uint8) != before.view(np.uint8)))
        given_to[name] = argument
    return verdict(
        changed, 0.0,
        expected=lambda at: f"{at.case} to keep its argument as it was",
        got=lambda at: "its memory freed" if np.isinf(at.error) else f"{at.error:.0f} bytes of it changed",
        remedy="work on a clone",
        passed=f"the argument is kept by {plural([*changed])}", tolerance="bitwise", oracle="the argument before the call",
        counterexample=lambda at: Counterexample({"x": given_to[at.case], "name": at.case}, measures.changed_entries),
    )


@check(
    "hygiene.dtype-kept",
    claim="Arrays come back in the dtype, and on the device, of the argument.",
    reference="the contract of Subject: one dtype and one device per call",
    kind="proof",
    cost="one call of each callable",
    catches="float32 constants and buffers, default dtypes, .float(), results left on another device",
)
def dtype_kept(ctx: Context) -> Outcome:
    """The dtype and device of y, x and g; log-dets may be Python numbers and are not compared."""
    warm_up(ctx)
    x = ctx.inputs(min(ctx.rows, 4))
    seen, given_to, places = dict[str, tuple[str, str]](), dict[str, Any](), dict[str, str]()
    for name, argument in arguments(ctx, x):
        if name not in EVENT_NAMES:
            continue
        given = ctx.native(argument)
        with ctx.guard():
            y = outputs.unpack(name, ctx.caller.invoke(name, given))[0]
        seen[name] = dtype_name(y), str(getattr(y, "device", "cpu"))
        given_to[name], places[name] = argument, str(getattr(given, "device", "cpu"))
    dtype = ctx.subject.dtype

    def counterexample(at: Comparison) -> Counterexample:
        visible = seen[at.case][0] != dtype and ctx.framework.name == "numpy"
        return Counterexample({"x": given_to[at.case], "name": at.case, "dtype": dtype}, measures.wrong_dtype if visible else None)

    return verdict(
        {name: float(got != (dtype, places[name])) for name, got in seen.items()}, 0.0,
        expected=lambda at: f"{at.case} to return {dtype} on {places[at.case]} like its argument",
        got=lambda at: "{} on {}".format(*seen[at.case]),
        remedy="make constants with dtype=x.dtype, device=x.device",
        passed="dtype and device are those of the argument", tolerance="names are exact", oracle="the argument",
        evidence={name: f"{got} on {place}" for name, (got, place) in seen.items()}, counterexample=counterexample,
    )


@check(
    "hygiene.global-randomness-kept",
    claim="Deterministic calls leave the global random generators alone, and no call resets them.",
    reference="reproducibility of the caller's program",
    kind="search",
    cost="two calls of each callable",
    catches="manual_seed inside forward, draws for power iteration from the global generator in evaluation",
)
def global_randomness_kept(ctx: Context) -> Outcome:
    """Generator states after a call: unchanged for deterministic callables, different for different states before."""
    warm_up(ctx)
    x = ctx.inputs(min(ctx.rows, 4))
    random_log_det = ctx.log_det_claim[0] in ("unbiased", "gradient-only", "bias")
    found, given_to = dict[Any, list[str]](), dict[str, Any]()
    for name, argument in arguments(ctx, x):
        draws = name in ("log_det", "inverse_log_det", "log_prob") and random_log_det
        draws = draws or (name in ("forward", "inverse") and ctx.conventions.packed.get(name, False) and random_log_det)
        draws = draws or (name == "forward" and not forward_deterministic(ctx, x))
        given_to[name] = argument
        after = []
        for seed in (11, 12):
            ctx.framework.seed(seed)
            before = ctx.framework.snapshot_globals()
            with ctx.guard():
                ctx.caller.invoke(name, ctx.native(argument), seed=seed)
            after.append(ctx.framework.snapshot_globals())
            touched = [k for k in changed_globals(before, after[-1]) if k in GENERATORS]
            found[name, "changed", seed] = [] if draws else touched
        moved = changed_globals(after[0], after[1])
        found[name, "reset"] = [k for k in GENERATORS if k in after[0] and k not in moved and k != "torch.cuda.random"]

    def got(at: Comparison) -> str:
        name, how, *_ = at.case
        what = "changed by" if how == "changed" else "in one state, whatever the caller's seed, after"
        return f"{plural(found[at.case])} {what} {name}"

    return verdict(
        {case: len(generators) for case, generators in found.items()}, 0.0,
        expected="the global generators untouched by a deterministic call, and reset by none",
        got=got,
        remedy="draw from a generator of your own, and do not seed global ones",
        passed=f"the generators are left alone by {plural([*given_to])}", tolerance="bitwise",
        oracle="the generators before the call, and two seeds", evidence=lambda at: {"generators": plural(found[at.case])},
        counterexample=lambda at: Counterexample({"x": given_to[at.case[0]]}),
    )


@check(
    "hygiene.global-settings-kept",
    claim="Calls leave the default dtype, the gradient mode, determinism switches and the module's mode as found.",
    reference="settings of the process and of the module belong to the caller",
    kind="search",
    cost="one call of each callable",
    catches="set_default_dtype, set_grad_enabled(False), set_num_threads, self.eval() inside inverse",
)
def global_settings_kept(ctx: Context) -> Outcome:
    """Compare the settings before and after each call."""
    before = ctx.framework.snapshot_globals()  # of the caller, before the first call of all
    x = ctx.inputs(min(ctx.rows, 4))
    module, inside = ctx.subject.module, list[str]()

    @contextmanager
    def watched() -> Iterator[None]:
        """Note what changes within the call: the context of a call puts the gradient mode back when it ends."""
        at_start = ctx.framework.snapshot_globals()
        yield
        inside[:] = changed_globals(at_start, ctx.framework.snapshot_globals())

    caller = replace(ctx.caller, framework=CallContext(ctx.framework, watched))

    def modes() -> list[bool]:
        parts = module.modules() if hasattr(module, "modules") else ()
        return [bool(part.training) for part in parts if hasattr(part, "training")]

    with ctx.guard():
        everything = dict(arguments(ctx, x))  # evaluates forward, whose traces are seen below
    found = dict[str, list[str]]()
    for name, argument in everything.items():
        training = modes()
        with ctx.guard():
            caller.invoke(name, ctx.native(argument))
            switched = modes() != training
        changed = [*inside, *changed_globals(before, ctx.framework.snapshot_globals())]
        ctx.framework.restore_globals(before)
        found[name] = [k for k in dict.fromkeys(changed) if k not in GENERATORS] + ["the module's mode"] * switched
    return verdict(
        {name: len(changed) for name, changed in found.items()}, 0.0,
        expected=lambda at: f"{at.case} to leave the settings of the caller as they are",
        got=lambda at: f"{plural(found[at.case])} changed",
        remedy="restore what you change",
        passed=f"settings are kept by {plural([*found])}", tolerance="exact", oracle="the settings before the call",
        counterexample=lambda at: Counterexample({"x": everything[at.case]}),
    )


@check(
    "hygiene.caller-tensors-kept",
    claim="Calls leave requires_grad and .grad of the caller's tensor and of the parameters as found, and values of trained ones.",
    reference="torch: a leaf belongs to its owner; who changes what the optimiser trains, behind autograd, trains something else",
    kind="search",
    needs=("torch",),
    cost="four calls of each callable", compares_values=False,
    catches="x.requires_grad_() on the argument, .backward() inside forward that fills .grad, a weight normalised in place",
)
def caller_tensors_kept(ctx: Context) -> Outcome:
    """One leaf without and one with requires_grad for each callable."""
    x = ctx.inputs(min(ctx.rows, 4))
    module = ctx.subject.module
    with ctx.guard():
        everything = dict(arguments(ctx, x))  # evaluates forward, whose traces are put back

    def state(given: Any) -> list[tuple[str, bool, bool]]:
        leaves = [("its argument", given)]
        leaves += list(module.named_parameters()) if hasattr(module, "named_parameters") else []
        return [(n, p.requires_grad, p.grad is None) for n, p in leaves]

    found = dict[Any, list[str]]()
    for name, argument in everything.items():
        for wanted in (False, True):
            given = ctx.native(argument, requires_grad=wanted)
            with ctx.guard():
                before = state(given)
                try:
                    ctx.caller.invoke(name, given)
                except Exception as error:  # packages raise what they like
                    if not wanted:
                        raise
                    if any(found.values()):
                        continue  # what it did to the other leaf refutes the claim already
                    raise Undecided(f"{name} raises on a leaf that requires grad: {str(error).splitlines()[0][:120]}") from error
                found[name, wanted] = [a[0] for a, b in zip(before, state(given), strict=True) if a != b]
        found[name, VALUES] = _written(ctx, name, argument)

    def got(at: Comparison) -> str:
        if at.case[1] == VALUES:
            return f"the values of {plural(found[at.case])} changed"
        return f"them changed on {plural(found[at.case])} where its argument {'requires' if at.case[1] else 'does not require'} a gradient"

    return verdict(
        {case: len(changed) for case, changed in found.items()}, 0.0,
        expected=lambda at: f"{at.case[0]} to leave {'parameters' if at.case[1] == VALUES else 'requires_grad and .grad'} as found",
        got=got,
        remedy="use a detached clone and torch.autograd.grad",
        passed=f"flags and parameters are kept by {plural([*everything])}", tolerance="exact", oracle="both before the call",
        counterexample=lambda at: Counterexample({"x": everything[at.case[0]]}),
    )


VALUES = "values"
SMALLER = 0.75
"""What parameters are multiplied by after the first call: it may set them by its data, and a normalisation that is done shows nothing."""


def _written(ctx: Context, name: str, argument: Any) -> list[str]:
    """Names of the trainable parameters whose values a second call changes; none where it does not answer with smaller ones."""
    import torch

    module = ctx.subject.module
    trained = [(n, p) for n, p in module.named_parameters() if p.requires_grad] if hasattr(module, "named_parameters") else []
    with ctx.guard(), suppress(Exception):
        ctx.caller.invoke(name, ctx.native(argument))
        with torch.no_grad():
            for _, p in trained:
                p.mul_(SMALLER)
        before = [p.detach().clone() for _, p in trained]
        ctx.caller.invoke(name, ctx.native(argument))
        return [n for (n, p), value in zip(trained, before, strict=True) if not torch.equal(p.detach().nan_to_num(), value.nan_to_num())]
    return []
