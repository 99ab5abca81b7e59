"""The conventions of a subject in one mode: call everything it offers once on a small batch, record formats and failures.

The batch has 5 rows (or a size that no event axis has), so that a log-det summed over the batch, or transposed, is
noticed. Only the contract of `Subject` is tested here: shapes, array types, dtypes. A callable that raises or
breaks the contract is *broken*, with a message that names the cause, the place and the remedy.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from iresnet_verify.subject import outputs
from iresnet_verify.subject.calls import Caller
from iresnet_verify.subject.errors import SubjectError, raised_at
from iresnet_verify.subject.frameworks import OPERATIONS, UNIT_ROUNDOFF, Framework, dtype_name
from iresnet_verify.subject.inputs import subject_inputs
from iresnet_verify.subject.module_state import ModuleState, is_torch_module
from iresnet_verify.subject.subject import HostArray, Subject

REMEDIES = {
    "forward": "try calling forward yourself on a batch of this shape",
    "inverse": "try declaring modes=('eval',) if it works only there, or leave inverse out",
}
NAMES = ("forward", "inverse", "log_det", "inverse_log_det", "residual", "log_prob", "base_log_prob", "sample")


@dataclass(frozen=True)
class Conventions:
    """The conventions of one subject in one mode."""

    formats: Mapping[str, str] = field(default_factory=dict)
    """Callable -> the form of what it returns, e.g. {"forward": "(y, log_det)", "log_det": "(B, 1)"}."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """Callable -> one message, where it raised or does not keep the contract."""
    packed: Mapping[str, bool] = field(default_factory=dict)
    changes_state: tuple[str, ...] = ()
    """Tensors, flags and attributes of the module that a call changes."""
    context_row: HostArray | None = None
    random_forward: bool = False
    """Whether F(x) differs between seeds, or between two calls with one seed, by more than rounding."""
    infinite_forward: bool = False
    """Whether F has values that are not finite at the subject's own inputs."""
    random_log_det: bool = False
    """Whether the log-det differs between seeds by more than rounding, though F does not."""
    seconds_a_row: float = 0.0
    """CPU time of forward on these rows, over their number."""


def read_conventions(subject: Subject, framework: Framework, seed: int) -> Conventions:
    """Call each callable once on a small batch. The module's state is put back."""
    rng = np.random.default_rng(seed)
    row = None if subject.context_shape is None else rng.standard_normal(subject.context_shape)
    caller = Caller(subject, framework, seed, row)
    state = ModuleState(subject.module) if is_torch_module(subject.module) else None
    formats, broken = dict[str, str](), dict[str, str]()
    try:
        x = _inputs(subject, broken, rng)
        if x is None:
            return Conventions(broken=broken, context_row=row)
        _call_all(caller, x, formats, broken)
        changed = tuple(sorted(set(state.changes()))) if state is not None else ()
        random, infinite, random_log_det, seconds = False, False, False, 0.0
        if "forward" not in broken:
            with suppress(Exception):  # a map may refuse so many rows: then nothing is known of it here, and the checks decide
                random, infinite, seconds = _forward_facts(caller, x, state)
            with suppress(Exception):
                random_log_det = not random and _is_random_log_det(caller, x, state)
    finally:
        if state is not None:
            state.restore()
    return Conventions(formats, broken, caller.packed, changed, row, random, infinite, random_log_det, seconds)


def _forward_facts(caller: Caller, x: HostArray, state: ModuleState | None) -> tuple[bool, bool, float]:
    """Return whether F(x) is random, whether it is not finite, and its seconds a row, each call from the same state of the module.

    The rows are repeated to some 4,096 numbers: a mask that drops one entry in a thousand escapes four seeds with probability < 1e-7.
    """
    x = np.tile(x, (max(1, 4096 // max(x.size, 1)), *[1] * (x.ndim - 1)))
    outcomes, seeds, started = [], (1, 2, 3, 4, 1), time.process_time()
    for seed in seeds:
        if state is not None:
            state.restore()
        outcomes.append(caller.framework.host(caller.event("forward", caller.framework.native(x), seed=seed)[0]).astype(np.float64))
    seconds = (time.process_time() - started) / (len(seeds) * len(x))
    first, *others = outcomes
    finite = np.isfinite(first)
    size = np.linalg.norm(x.astype(np.float64)) + np.linalg.norm(first[finite]) + math.sqrt(x.size)
    rounding = (OPERATIONS * UNIT_ROUNDOFF[caller.subject.dtype] + (caller.subject.accuracy or 0.0)) * size
    random = any(bool((np.abs(first[b] - other[b]) > rounding).any()) for other in others for b in [finite & np.isfinite(other)])
    return random, not bool(finite.all()), seconds


def _is_random_log_det(caller: Caller, x: HostArray, state: ModuleState | None) -> bool:
    """Whether the log-det differs between seeds and not between two calls with one seed, each from the same state of the module."""
    if not caller.has("log_det"):
        return False
    values = []
    for seed in (1, 1, 2, 3):
        if state is not None:
            state.restore()
        values.append(outputs.host_log_det(caller.scalar("log_det", caller.framework.native(x), seed=seed), caller.framework))
    first, again, *others = values
    rounding = OPERATIONS * UNIT_ROUNDOFF[caller.subject.dtype] + (caller.subject.accuracy or 0.0)
    bound = 16.0 * rounding * (np.abs(first) + math.prod(x.shape[1:]))
    return bool((np.abs(first - again) <= bound).all()) and any(bool((np.abs(first - other) > bound).any()) for other in others)


def _inputs(subject: Subject, broken: dict[str, str], rng: np.random.Generator) -> HostArray | None:
    taken = {*subject.event_shape, math.prod(subject.event_shape)}
    n = next(k for k in (5, 7, 4, 6, 9, 10, 11) if k not in taken)
    try:
        return subject_inputs(subject, n, rng)
    except Exception as error:
        broken["forward"] = broken["inputs"] = explain("inputs", error)
        return None


def _call_all(caller: Caller, x: HostArray, formats: dict[str, str], broken: dict[str, str]) -> None:
    framework, subject = caller.framework, caller.subject
    y = x
    for name in NAMES:
        if getattr(subject, name) is None:
            continue
        at = y if name in ("inverse", "inverse_log_det", "base_log_prob") else x
        try:
            result = caller.invoke(name, len(x) if name == "sample" else framework.native(at))
            if name in ("forward", "inverse", "residual", "sample"):
                out = _event(caller, name, result, at, formats)
                y = out if name == "forward" else y
            else:
                like = framework.native(at)
                kind = outputs.log_det(name, result, framework, len(at), shape=subject.event_shape, like=like)[1]
                formats[name] = kind
        except (Exception, SystemExit) as error:
            broken[name] = explain(name, error)


def _event(caller: Caller, name: str, result: Any, at: HostArray, formats: dict[str, str]) -> HostArray:
    framework, subject = caller.framework, caller.subject
    value, log_det, packing = outputs.unpack(name, result)
    out = outputs.event(name, value, framework, len(at), subject.event_shape)
    formats[name] = packing
    if dtype_name(out) != subject.dtype:
        formats[f"{name} dtype"] = f"{dtype_name(out)}, converted to {subject.dtype}"
    if log_det is not None and name in ("forward", "inverse"):
        kind = outputs.log_det(f"{name}'s log-det", log_det, framework, len(at), shape=subject.event_shape, like=out)[1]
        formats[f"{name}'s log-det"] = kind
        caller.packed[name] = True
    return framework.host(out)


def explain(name: str, error: BaseException) -> str:
    """Return one line: what `name` raised, where, and what to try."""
    if isinstance(error, SubjectError):
        return str(error)
    text = str(error).strip().split("\n")[0][:200]
    place = raised_at(error)
    return f"{name}: expected a return value, got {type(error).__name__}: {text}{place}; " \
           f"{REMEDIES.get(name, f'try calling {name} yourself, or leave it out')}"
