"""What a call leaves behind: nothing. Its argument, the caller's tensors and the process stay as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.comparisons import (
    EVENT_NAMES,
    Surroundings,
    arguments,
    plural,
    steady_forward,
    warm_up,
)
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
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
    cost="one call of each callable",
    catches="in-place updates, memory-efficient layers that free their input",
)
def input_kept(ctx: Context) -> Outcome:
    """Compare the argument's bytes, and the size of its storage, before and after each call."""
    warm_up(ctx)
    x = ctx.inputs(ctx.rows)
    called = []
    for name, argument in arguments(ctx, x):
        given, before = ctx.native(argument), argument.astype(ctx.inputs(1).dtype)
        with ctx.guard():
            ctx.caller.invoke(name, given)
        called.append(name)
        storage = getattr(given, "untyped_storage", None)
        freed = storage is not None and storage().nbytes() < before.nbytes
        changed = 0 if freed else int(np.sum(ctx.host(given).view(np.uint8) != before.view(np.uint8)))
        if freed or changed:
            what = "its memory was freed" if freed else f"{changed} bytes of it changed"
            return Outcome(
                "failed",
                f"{name}: expected its argument to stay as it was, got: {what}; work on a clone",
                {"callable": name, "bytes_changed": changed, "freed": freed},
                "bitwise",
                "the argument before the call",
                Counterexample({"x": argument, "name": name}, measures.changed_entries),
            )
    return Outcome("passed", f"the argument is kept by {plural(called)}", {"called": plural(called)}, "bitwise")


@check(
    "hygiene.dtype-kept",
    claim="Arrays come back in the dtype, and on the device, of the argument.",
    reference="the contract of Subject: one dtype and one device per call",
    kind="proof",
    cost="one call of each callable",
    catches="float32 constants and buffers, default dtypes, .float(), results left on another device",
)
def dtype_kept(ctx: Context) -> Outcome:
    """The dtype and device of y, x and g; log-dets may be Python numbers and are not judged."""
    warm_up(ctx)
    x = ctx.inputs(min(ctx.rows, 4))
    seen: dict[str, Any] = {}
    for name, argument in arguments(ctx, x):
        if name not in EVENT_NAMES:
            continue
        given = ctx.native(argument)
        with ctx.guard():
            y = outputs.unpack(name, ctx.caller.invoke(name, given))[0]
        got, place = dtype_name(y), str(getattr(y, "device", "cpu"))
        if got != ctx.subject.dtype or place != str(getattr(given, "device", "cpu")):
            return Outcome(
                "failed",
                f"{name}: expected {ctx.subject.dtype} on {getattr(given, 'device', 'cpu')} like its argument, got {got} "
                f"on {place}; make constants with dtype=x.dtype, device=x.device",
                {"callable": name, "dtype": got, "device": place},
                "names are exact",
                counterexample=Counterexample(
                    {"x": argument, "name": name, "dtype": ctx.subject.dtype},
                    measures.wrong_dtype if got != ctx.subject.dtype and ctx.framework.name == "numpy" else None,
                ),
            )
        seen[name] = f"{got} on {place}"
    return Outcome("passed", "dtype and device are those of the argument", seen, "names are exact")


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
    judged = []
    for name, argument in arguments(ctx, x):
        draws = name in ("log_det", "inverse_log_det", "log_prob") and random_log_det
        draws = draws or (name in ("forward", "inverse") and ctx.conventions.packed.get(name, False) and random_log_det)
        draws = draws or (name == "forward" and not steady_forward(ctx, x))
        after = []
        for seed in (11, 12):
            ctx.framework.seed(seed)
            before = ctx.framework.snapshot_globals()
            with ctx.guard():
                ctx.caller.invoke(name, ctx.native(argument), seed=seed)
            after.append(ctx.framework.snapshot_globals())
            touched = [k for k in changed_globals(before, after[-1]) if k in GENERATORS]
            if touched and not draws:
                return Outcome(
                    "failed",
                    f"{name}: expected a deterministic call to leave the global generators alone, got {plural(touched)} "
                    "changed; draw from a generator of your own",
                    {"callable": name, "generators": plural(touched)},
                    "bitwise",
                    "the generators before the call",
                    Counterexample({"x": argument}),
                )
        moved = changed_globals(after[0], after[1])
        reset = [k for k in GENERATORS if k in after[0] and k not in moved and k != "torch.cuda.random"]
        if reset:
            return Outcome(
                "failed",
                f"{name}: expected the generators to depend on the caller's seed after the call, got the same state of "
                f"{plural(reset)} from two seeds; do not seed global generators",
                {"callable": name, "generators": plural(reset)},
                "bitwise",
                "two different seeds before the call",
                Counterexample({"x": argument}),
            )
        judged.append(name)
    return Outcome("passed", f"the generators are left alone by {plural(judged)}", {"called": plural(judged)}, "bitwise")


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
    module, called, inside = ctx.subject.module, [], list[str]()

    @contextmanager
    def watched() -> Iterator[None]:
        """Note what changes within the call: the surroundings put the gradient mode back when they end."""
        at_start = ctx.framework.snapshot_globals()
        yield
        inside[:] = changed_globals(at_start, ctx.framework.snapshot_globals())

    caller = replace(ctx.caller, framework=Surroundings(ctx.framework, watched))

    def modes() -> list[bool]:
        parts = module.modules() if hasattr(module, "modules") else ()
        return [bool(part.training) for part in parts if hasattr(part, "training")]

    with ctx.guard():
        everything = list(arguments(ctx, x))  # evaluates forward, whose traces are seen below
    for name, argument in everything:
        training = modes()
        with ctx.guard():
            caller.invoke(name, ctx.native(argument))
            switched = modes() != training
        changed = [*inside, *changed_globals(before, ctx.framework.snapshot_globals())]
        changed = [k for k in dict.fromkeys(changed) if k not in GENERATORS]
        ctx.framework.restore_globals(before)
        if switched or changed:
            what = plural([*changed, *(["the module's mode"] if switched else [])])
            return Outcome(
                "failed",
                f"{name}: expected the settings of the caller to stay, got {what} changed; restore what you change",
                {"callable": name, "changed": what},
                "exact",
                "the settings before the call",
                Counterexample({"x": argument}),
            )
        called.append(name)
    return Outcome("passed", f"settings are kept by {plural(called)}", {"called": plural(called)}, "exact")


@check(
    "hygiene.caller-tensors-kept",
    claim="Calls leave requires_grad and .grad of the caller's tensor and of the parameters as found.",
    reference="torch: autograd state of a leaf belongs to its owner",
    kind="search",
    needs=("torch",),
    cost="two calls of each callable",
    catches="x.requires_grad_() on the argument, .backward() inside forward that fills .grad",
)
def caller_tensors_kept(ctx: Context) -> Outcome:
    """One leaf without and one with requires_grad for each callable."""
    x = ctx.inputs(min(ctx.rows, 4))
    module, called = ctx.subject.module, []
    with ctx.guard():
        everything = list(arguments(ctx, x))  # evaluates forward, whose traces are put back

    def state(given: Any) -> list[tuple[str, bool, bool]]:
        leaves = [("its argument", given)]
        leaves += list(module.named_parameters()) if hasattr(module, "named_parameters") else []
        return [(n, p.requires_grad, p.grad is None) for n, p in leaves]

    for name, argument in everything:
        for wanted in (False, True):
            given = ctx.native(argument, requires_grad=wanted)
            with ctx.guard():
                before = state(given)
                try:
                    ctx.caller.invoke(name, given)
                except RuntimeError as error:
                    if not wanted:
                        raise
                    raise Undecided(f"{name} raises on a leaf that requires grad: {str(error).splitlines()[0][:120]}") from error
                changed = [a[0] for a, b in zip(before, state(given), strict=True) if a != b]
            if changed:
                return Outcome(
                    "failed",
                    f"{name}: expected requires_grad and .grad to stay as found, got them changed on {plural(changed)}; "
                    "use a detached clone and torch.autograd.grad",
                    {"callable": name, "changed": plural(changed), "argument_requires_grad": wanted},
                    "exact",
                    "the flags before the call",
                    Counterexample({"x": argument}),
                )
        called.append(name)
    return Outcome("passed", f"flags are kept by {plural(called)}", {"called": plural(called)}, "exact")
