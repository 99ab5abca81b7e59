"""Calls of a subject: autograd on, fresh clones, generators seeded, warnings recorded and kept from becoming errors.

`Caller` works on arrays of the framework; `HostCalls` wraps it for checks written in NumPy. Every call gets its own
seed, derived from the check's, so that no result depends on the order in which checks run. A callable with a keyword
`seed` gets that integer as well. Where calls were found to change the module's state (power iteration in
training mode, data-dependent initialisation), `HostCalls` puts the state back after each call, so that F is one
function for the length of a check; the raw calls leave it changed.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from iresnet_verify.subject import outputs
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.frameworks import HOST_DTYPE, Framework
from iresnet_verify.subject.module_state import preserved
from iresnet_verify.subject.subject import HostArray, Native, Subject

Host = Callable[..., HostArray]
LOG_DETS = ("log_det", "inverse_log_det")
watchers: list[Callable[[str], None]] = []
"""Told "in NAME" as a call begins and "after NAME" when it has ended: a worker that is stopped has then said what it was doing."""


@dataclass
class Caller:
    """Native calls of one subject, each with generators seeded."""

    subject: Subject
    framework: Framework
    seed: int
    context_row: HostArray | None = None
    """One conditioning event, repeated for every row unless a call is given its own."""
    packed: dict[str, bool] = field(default_factory=dict)
    """Whether `forward` and `inverse` return a log-det together with y; filled by `conventions`."""
    calls: int = 0
    warning_texts: tuple[str, ...] = ()
    """The texts of the warnings of the last call; none of them reaches the user or becomes an error."""
    batched_cotangents: bool = True
    """Whether backward passes take batches of cotangents, as far as it was tried."""
    rows_independent: bool | None = None
    """Whether a row has the same value in a larger batch; None before it was tried."""
    seeded: dict[str, bool] = field(default_factory=dict)
    """Which callables take a seed, as far as they were called."""

    def next_seed(self) -> int:
        """Return a fresh 31-bit seed; the sequence depends on `seed` alone."""
        self.calls += 1
        return int(np.random.SeedSequence([self.seed, self.calls]).generate_state(1)[0] >> 1)

    def invoke(self, name: str, argument: Any, seed: int | None = None, context: HostArray | None = None) -> Any:
        """Call `subject.<name>(argument)` and return exactly what it returns."""
        function = getattr(self.subject, name)
        seed = self.next_seed() if seed is None else seed
        arguments: list[Any] = [argument]
        if self.context_row is not None:
            n = argument if isinstance(argument, int) else int(argument.shape[0])
            rows = np.repeat(self.context_row[None], n, axis=0) if context is None else context
            arguments.append(self.framework.native(rows))
        if name not in self.seeded:
            self.seeded[name] = takes_seed(function)
        keywords = {"seed": seed} if self.seeded[name] else {}
        self.framework.seed(seed)
        with self.framework.call_context(), warnings.catch_warnings(record=True) as warning_texts:
            warnings.simplefilter("always")
            _notify(f"in {name}")
            try:
                return function(*arguments, **keywords)
            finally:
                _notify(f"after {name}")
                self.warning_texts = tuple(str(w.message) for w in warning_texts)

    def event(self, name: str, x: Native, **options: Any) -> tuple[Native, Native | None]:
        """Call `forward`, `inverse` or `residual`; return (event array, normalised log-det or None)."""
        value, log_det, _ = outputs.unpack(name, self.invoke(name, x, **options))
        n, shape = int(x.shape[0]), tuple(int(k) for k in x.shape[1:])
        y = outputs.event(name, value, self.framework, n, shape)
        if log_det is None:
            return y, None
        return y, outputs.log_det(f"{name}'s log-det", log_det, self.framework, n, shape=shape, like=y)[0]

    def scalar(self, name: str, x: Native, **options: Any) -> Native:
        """Call `log_det`, `inverse_log_det`, `log_prob` or `base_log_prob`; return (batch,), differentiable."""
        if name in LOG_DETS and getattr(self.subject, name) is None:
            packed = self.event("forward" if name == "log_det" else "inverse", x, **options)[1]
            if packed is None:
                raise SubjectError(f"{name}: expected a log-det together with y as in the first call, got none; "
                                   f"try giving {name}= on its own")
            return packed
        value = self.invoke(name, x, **options)
        n, shape = int(x.shape[0]), tuple(int(k) for k in x.shape[1:])
        return outputs.log_det(name, value, self.framework, n, shape=shape, like=x)[0]

    def has(self, name: str) -> bool:
        """Whether the subject provides `name`, by a callable of its own or packed together with y."""
        if getattr(self.subject, name) is not None:
            return True
        return name in LOG_DETS and self.packed.get("forward" if name == "log_det" else "inverse", False)


@dataclass(frozen=True)
class HostCalls:
    """The subject's callables on host arrays; log-dets and densities as (batch,) float64. Absent ones are None.

    Each takes the keywords `seed` (else a fresh one) and `context` (else one conditioning event for all rows).
    """

    subject: Subject
    forward: Host
    inverse: Host | None
    log_det: Host | None
    inverse_log_det: Host | None
    residual: Host | None
    log_prob: Host | None
    base_log_prob: Host | None
    sample: Callable[..., HostArray] | None
    """n -> (n, *event)."""


def _notify(what: str) -> None:
    for tell in watchers:
        tell(what)


def host_calls(caller: Caller, pure: bool) -> HostCalls:
    """Wrap `caller` for host arrays; `pure` puts the module's state back after each call."""
    subject, framework = caller.subject, caller.framework
    dtype = HOST_DTYPE[subject.dtype]

    def guarded() -> Any:
        return preserved(subject.module) if pure else nullcontext()

    def event(name: str) -> Host | None:
        def call(x: HostArray, **options: Any) -> HostArray:
            with guarded():
                return framework.host(caller.event(name, framework.native(x), **options)[0]).astype(dtype)

        return call if caller.has(name) else None

    def scalar(name: str) -> Host | None:
        def call(x: HostArray, **options: Any) -> HostArray:
            with guarded():
                return outputs.host_log_det(caller.scalar(name, framework.native(x), **options), framework)

        return call if caller.has(name) else None

    def sample(n: int, **options: Any) -> HostArray:
        with guarded():
            value, _, _ = outputs.unpack("sample", caller.invoke("sample", n, **options))
            return framework.host(outputs.event("sample", value, framework, n, subject.event_shape)).astype(dtype)

    forward = event("forward")
    if forward is None:
        raise SubjectError("forward: expected a callable, got None; try forward=lambda x: module(x)")
    return HostCalls(subject, forward, event("inverse"), scalar("log_det"), scalar("inverse_log_det"),
                     event("residual"), scalar("log_prob"), scalar("base_log_prob"),
                     None if subject.sample is None else sample)


def takes_seed(function: Callable[..., Any]) -> bool:
    """Whether `function` has a parameter named `seed` that can be passed by keyword."""
    try:
        parameter = inspect.signature(function).parameters.get("seed")
    except (TypeError, ValueError):
        return False
    return parameter is not None and parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)


def flat(a: HostArray) -> HostArray:
    """Return (batch, d) from (batch, *event), also for an empty batch."""
    return a.reshape(a.shape[0], math.prod(a.shape[1:]))
