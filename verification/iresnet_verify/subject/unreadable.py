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
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Remedy:
    """What makes a callable readable."""

    changes: Mapping[str, Any]
    """Fields of the subject."""
    text: str
    """The same as in an adapter."""
    picked: str
    """What is to be returned of the answer `out`; "" where that is the answer itself."""


def remedy(subject: Subject, name: str = "forward") -> Remedy | None:
    """The first guess with which the callable `name` is readable; one without changes where it is so already."""
    until = time.process_time() + SECONDS
    with preserved(subject.module if is_torch_module(subject.module) else None):
        for changes, text in _guesses(subject, name):
            if time.process_time() > until:
                break
            picked = _read(replace(subject, **changes), name)
            if picked is not None:
                return Remedy(changes, text, picked)
    return None


def advice(subject: Subject, name: str = "forward") -> str | None:
    """What makes the callable `name` readable, as the end of "try …"; None where no guess works."""
    found = remedy(subject, name)
    if found is None:
        return _needs(subject, name)
    wrapper = f"`def {name}(x): out = {expression(getattr(subject, name), subject)}(x); return {found.picked}`" if found.picked else ""
    return " and ".join(part for part in (found.text, wrapper) if part) or None


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
    elif len(required_arguments(subject.forward)) > 1:
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
    words = required_arguments(function, of=(inspect.Parameter.KEYWORD_ONLY,))
    for value in (False, True) if words else ():
        given = ", ".join(f"{w}={value}" for w in words)
        wrapped = _with(function, dict.fromkeys(words, value))
        yield {name: wrapped}, f"{name}=lambda x: {expression(function, subject)}(x, {given})"


def _with(function: Callable[..., Any], keywords: dict[str, bool]) -> Callable[..., Any]:
    return lambda *x: function(*x, **keywords)


def event_shapes(subject: Subject) -> list[tuple[int, ...]]:
    """Event shapes that the weights of the module suggest, the first layers first, and short vectors."""
    found: list[tuple[int, ...]] = []
    for weight in weights(subject.module)[:16]:
        shape = tuple(int(k) for k in weight.shape)
        found += [(shape[1],)] if len(shape) == 2 else [(shape[1], *IMAGE)] if len(shape) == 4 else [shape] if len(shape) == 1 else []
    found += [(k,) for k in (2, 3, 4, 1, 5, 6, 8)]
    return [s for s in dict.fromkeys(found) if s != subject.event_shape and math.prod(s) > 0]


def weights(network: Any) -> list[Any]:
    """The parameters of a torch module, or the arrays among the leaves of a JAX pytree; of anything else none."""
    if is_torch_module(network):
        return list(network.parameters())
    jax = sys.modules.get("jax")
    leaves = jax.tree_util.tree_leaves(network) if jax is not None and network is not None else []
    return [leaf for leaf in leaves if hasattr(leaf, "shape") and hasattr(leaf, "dtype")]


def required_arguments(function: Callable[..., Any], of: tuple[Any, ...] = (
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
    further = required_arguments(function)[1:] + required_arguments(function, of=(inspect.Parameter.KEYWORD_ONLY,))
    if further and (subject.context_shape is None or len(further) > 1):
        given = ", ".join(f"{w}=…" for w in further)
        return (f"{name}=lambda x: {expression(function, subject)}(x, {given}), or context_shape=(k,) where it is conditioned on k numbers "
                "a row")
    return None


def _read(subject: Subject, name: str) -> str | None:
    """What to return of the answer of one call: "" all of it as it is, parts of it, or None where it cannot be read."""
    rng = np.random.default_rng(0)
    try:
        framework = framework_of(subject)
        taken = {*subject.event_shape, math.prod(subject.event_shape)}
        x = subject_inputs(subject, next(k for k in (5, 7, 4, 6) if k not in taken), rng)
        row = None if subject.context_shape is None else rng.standard_normal(subject.context_shape)
        answer = Caller(subject, framework, 0, row).invoke(name, framework.native(x))
    except (Exception, SystemExit):
        return None
    try:
        _well_formed(answer, name, x, framework, subject)
    except Exception:
        return _picked(answer, name, x, framework, subject)
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


def _picked(answer: Any, name: str, x: HostArray, framework: Framework, subject: Subject) -> str | None:
    """The arrays of a dictionary, an object with named fields or a longer tuple: the event, and the log-det if there is one."""
    ways, n, shape, like = entries(answer), len(x), subject.event_shape, framework.native(x)
    event = next((way for way, value in ways if _fits(outputs.event, name, value, framework, n, shape)), None)
    if event is None:
        return None
    others = [(way, value) for way, value in ways if way != event and framework.is_array(value) and tuple(value.shape) != x.shape]
    scalars = [way for way, value in others if _fits(outputs.log_det, name, value, framework, n, shape=shape, like=like)]
    named = [way for way in scalars if any(word in way.lower() for word in WORDS)] or (scalars if event.startswith("[") else [])
    return ", ".join(f"out{way}" for way in [event, *named[:1]])


def entries(answer: Any) -> list[tuple[str, Any]]:
    """What a compound answer consists of: how it is written after the answer's name, and the value."""
    if isinstance(answer, Mapping):
        return [(f"[{key!r}]", value) for key, value in answer.items()]
    if dataclasses.is_dataclass(answer) and not isinstance(answer, type):
        return [(f".{f.name}", getattr(answer, f.name)) for f in dataclasses.fields(answer)]
    if isinstance(answer, tuple) and hasattr(answer, "_fields"):
        return [(f".{key}", value) for key, value in zip(getattr(answer, "_fields"), answer, strict=True)]  # noqa: B009
    if isinstance(answer, tuple | list):
        return [(f"[{i}]", value) for i, value in enumerate(answer)]
    return [(f".{key}", value) for key, value in getattr(answer, "__dict__", {}).items()]


def _fits(read: Callable[..., Any], *arguments: Any, **keywords: Any) -> bool:
    try:
        read(*arguments, **keywords)
    except (SubjectError, TypeError, ValueError, AttributeError):
        return False
    return True
