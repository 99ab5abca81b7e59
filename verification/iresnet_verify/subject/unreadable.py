"""Why a callable cannot be read: the declaration, or the wrapper, with which it answers, found by trying.

Each guess changes a field of the subject or wraps the call, and is tried on a few rows; only a guess that works here is given as advice.
The guesses are tried in the order in which people make the mistake, for at most `SECONDS` of CPU time.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from iresnet_verify.subject import outputs
from iresnet_verify.subject.calls import Caller
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.frameworks import Framework, framework_of
from iresnet_verify.subject.inputs import subject_inputs
from iresnet_verify.subject.module_state import is_torch_module, preserved
from iresnet_verify.subject.subject import HostArray, Subject

SECONDS = 20.0
DTYPES = ("float32", "float64", "bfloat16", "float16")
LARGEST_CONTEXT = 32
IMAGE = (8, 8)
"""Height and width at which a convolution is tried."""
WORDS = ("log", "det", "ldj", "lad")
"""In the names of log-dets."""

Guess = tuple[dict[str, Any], str]
"""Changed fields of the subject, and how they are written in an adapter."""


def advice(subject: Subject, name: str = "forward", at: HostArray | None = None) -> str | None:
    """What makes the callable `name` readable, as the end of "try …"; None where no guess works. `at`: rows to call it with."""
    until = time.process_time() + SECONDS
    with preserved(subject.module if is_torch_module(subject.module) else None):
        for changes, text in _guesses(subject, name):
            if time.process_time() > until:
                return None
            found = _read(replace(subject, **changes), name, at)
            if found is not None:
                return " and ".join(part for part in (text, found) if part) or None
    return _needs(subject, name)


def expression(function: Callable[..., Any], subject: Subject) -> str:
    """How an adapter may write `function`."""
    called = getattr(function, "__name__", "")
    if function is subject.module or not called.isidentifier():
        return "network"
    return called if not inspect.ismethod(function) else f"network.{called}"


def _guesses(subject: Subject, name: str) -> Iterator[Guess]:
    yield {}, ""
    yield from _keywords(subject, name)
    if name != "forward":
        return
    frameworks = [f for f in ("numpy", "torch", "jax") if f != subject.framework.partition(":")[0] and (f == "numpy" or f in sys.modules)]
    dtypes = [d for d in DTYPES if d != subject.dtype]
    yield from (({"dtype": d}, f"dtype={d!r}") for d in dtypes)
    for f in frameworks:
        yield {"framework": f, "device": "cpu"}, f"framework={f!r}"
        yield from (({"framework": f, "device": "cpu", "dtype": d}, f"framework={f!r}, dtype={d!r}") for d in dtypes[:2])
    if subject.context_shape is not None:
        yield {"context_shape": None}, "leaving context_shape out"
    elif len(_required(subject.forward)) > 1:
        for k in range(1, LARGEST_CONTEXT + 1):
            yield {"context_shape": (k,)}, f"context_shape={(k,)}"
    for shape in event_shapes(subject):
        yield {"event_shape": shape, "inputs": None}, f"event_shape={shape}"
        yield from (({"event_shape": shape, "inputs": None, "dtype": d}, f"event_shape={shape}, dtype={d!r}") for d in dtypes[:2])
    if subject.inputs is None:
        def inputs(n: int, rng: np.random.Generator) -> HostArray:
            return rng.uniform(0.05, 0.95, (n, *subject.event_shape))

        yield {"inputs": inputs}, f"inputs=lambda n, rng: rng.uniform(0.05, 0.95, (n, {', '.join(map(str, subject.event_shape))}))"


def _keywords(subject: Subject, name: str) -> Iterator[Guess]:
    """Keyword arguments without a default, as switches: all off, all on."""
    function = getattr(subject, name)
    words = _required(function, of=(inspect.Parameter.KEYWORD_ONLY,))
    for value in (False, True) if words else ():
        given = ", ".join(f"{w}={value}" for w in words)
        wrapped = _with(function, dict.fromkeys(words, value))
        yield {name: wrapped}, f"{name}=lambda x: {expression(function, subject)}(x, {given})"


def _with(function: Callable[..., Any], keywords: dict[str, bool]) -> Callable[..., Any]:
    return lambda *x: function(*x, **keywords)


def event_shapes(subject: Subject) -> list[tuple[int, ...]]:
    """Event shapes that the weights of a torch module suggest, the first layers first; of anything else short vectors."""
    found: list[tuple[int, ...]] = []
    if is_torch_module(subject.module):
        for parameter in list(subject.module.parameters())[:16]:
            shape = tuple(int(k) for k in parameter.shape)
            found += [(shape[1],)] if len(shape) == 2 else [(shape[1], *IMAGE)] if len(shape) == 4 else [shape] if len(shape) == 1 else []
    found += [(k,) for k in (2, 3, 4, 1, 5, 6, 8)]
    return [s for s in dict.fromkeys(found) if s != subject.event_shape and math.prod(s) > 0]


def _required(function: Callable[..., Any], of: tuple[Any, ...] = (
    inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD,
)) -> list[str]:
    """Names of the arguments without a default."""
    try:
        parameters = inspect.signature(getattr(function, "forward") if is_torch_module(function) else function).parameters  # noqa: B009
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters.values() if p.kind in of and p.default is p.empty and p.name != "seed"]


def _needs(subject: Subject, name: str) -> str | None:
    """What the signature asks for and no guess could supply."""
    function = getattr(subject, name)
    further = _required(function)[1:] + _required(function, of=(inspect.Parameter.KEYWORD_ONLY,))
    if further and (subject.context_shape is None or len(further) > 1):
        given = ", ".join(f"{w}=…" for w in further)
        return (f"{name}=lambda x: {expression(function, subject)}(x, {given}), or context_shape=(k,) where it is conditioned on k numbers "
                "a row")
    return None


def _read(subject: Subject, name: str, at: HostArray | None) -> str | None:
    """How the answer of one call is to be read: "" as it is, a wrapper, or None where it cannot be."""
    rng = np.random.default_rng(0)
    try:
        framework = framework_of(subject)
        taken = {*subject.event_shape, math.prod(subject.event_shape)}
        x = subject_inputs(subject, next(k for k in (5, 7, 4, 6) if k not in taken), rng) if at is None else at
        row = None if subject.context_shape is None else rng.standard_normal(subject.context_shape)
        answer = Caller(subject, framework, 0, row).invoke(name, framework.native(x))
    except (Exception, SystemExit):
        return None
    try:
        _well_formed(answer, name, x, framework, subject)
    except Exception:
        return _wrapper(answer, name, x, framework, subject)
    return ""


def _well_formed(answer: Any, name: str, x: HostArray, framework: Framework, subject: Subject) -> None:
    """Raise an error unless `answer` is what `Subject` promises."""
    if name in ("forward", "inverse", "residual", "sample"):
        value, log_det, _ = outputs.unpack(name, answer)
        outputs.event(name, value, framework, len(x), subject.event_shape)
        if log_det is None or name not in ("forward", "inverse"):
            return
        answer = log_det
    outputs.log_det(name, answer, framework, len(x), shape=subject.event_shape, like=framework.native(x))


def _wrapper(answer: Any, name: str, x: HostArray, framework: Framework, subject: Subject) -> str | None:
    """A function that picks the arrays out of a dictionary, an object with named fields or a longer tuple."""
    ways, n, shape, like = entries(answer), len(x), subject.event_shape, framework.native(x)
    event = next((way for way, value in ways if _fits(outputs.event, name, value, framework, n, shape)), None)
    if event is None:
        return None
    others = [(way, value) for way, value in ways if way != event and framework.is_array(value) and tuple(value.shape) != x.shape]
    scalars = [way for way, value in others if _fits(outputs.log_det, name, value, framework, n, shape=shape, like=like)]
    named = [way for way in scalars if any(word in way.lower() for word in WORDS)] or (scalars if event.startswith("[") else [])
    picked = ", ".join(f"out{way}" for way in [event, *named[:1]] if way)
    return f"`def {name}(x): out = {expression(getattr(subject, name), subject)}(x); return {picked}`"


def entries(answer: Any) -> list[tuple[str, Any]]:
    """What a compound answer consists of: how it is written after the answer's name, and the value."""
    if isinstance(answer, Mapping):
        return [(f"[{key!r}]", value) for key, value in answer.items()]
    if dataclasses.is_dataclass(answer) and not isinstance(answer, type):
        return [(f".{f.name}", getattr(answer, f.name)) for f in dataclasses.fields(answer)]
    if isinstance(answer, tuple) and hasattr(answer, "_fields"):
        return [(f".{key}", value) for key, value in zip(answer._fields, answer, strict=True)]
    if isinstance(answer, tuple | list):
        return [(f"[{i}]", value) for i, value in enumerate(answer)]
    return [(f".{key}", value) for key, value in getattr(answer, "__dict__", {}).items()]


def _fits(read: Callable[..., Any], *arguments: Any, **keywords: Any) -> bool:
    try:
        read(*arguments, **keywords)
    except (SubjectError, TypeError, ValueError, AttributeError):
        return False
    return True
