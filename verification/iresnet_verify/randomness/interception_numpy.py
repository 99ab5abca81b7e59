"""Interception of NumPy's draws: functions of `numpy.random`, generators made meanwhile, and generators that a subject holds."""

from __future__ import annotations

import random as _python_random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import cache, partial
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from iresnet_verify.randomness import distributions
from iresnet_verify.randomness.distributions import Distribution
from iresnet_verify.randomness.recorder import DrawRecorder, patch

Reader = Callable[..., Distribution]


def _integers(low: Any, high: Any = None, *_: Any, endpoint: bool = False, **__: Any) -> Distribution:
    a, b = (0, low) if high is None else (low, high)
    return distributions.integers(a, b + 1 if endpoint else b)


_READERS: dict[str, Reader] = {
    "randn": lambda *a: distributions.normal(),
    "standard_normal": lambda *a, **k: distributions.normal(),
    "normal": lambda loc=0.0, scale=1.0, *a, **k: distributions.normal(loc, scale),
    "rand": lambda *a: distributions.uniform(),
    "random": lambda *a, **k: distributions.uniform(),
    "random_sample": lambda *a, **k: distributions.uniform(),
    "uniform": lambda low=0.0, high=1.0, *a, **k: distributions.uniform(low, high),
    "randint": _integers,
    "integers": _integers,
    "binomial": lambda n, p, *a, **k: distributions.two_point(0.0, 1.0, p) if np.all(np.asarray(n) == 1) else distributions.OTHER,
    "choice": lambda a, size=None, replace=True, p=None, *r, **k: distributions.choice(a, p) if replace else distributions.OTHER,
    "geometric": lambda p, *a, **k: distributions.geometric(p, 1),
    "poisson": lambda lam=1.0, *a, **k: distributions.poisson(lam),
}
_UNREADABLE = (
    "exponential", "standard_exponential", "permutation", "permuted", "multivariate_normal", "negative_binomial",
    "multinomial", "logistic", "laplace", "gamma", "beta", "standard_t", "zipf", "logseries", "lognormal", "bytes",
)
_NAMES = (*_READERS, *_UNREADABLE)


def _distribution(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Distribution:
    reader = _READERS.get(name)
    return distributions.OTHER if reader is None else reader(*args, **{k: v for k, v in kwargs.items() if k not in ("dtype", "out")})


def _recorded(recorder: DrawRecorder, name: str, real: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    out = recorder.unrecorded(real, *args, **kwargs)
    seen = np.frombuffer(out, dtype=np.uint8) if isinstance(out, bytes) else np.asarray(out)
    given = recorder.record(f"numpy.random.{name}", _distribution(name, args, kwargs), seen.copy(), "numpy")
    if given is None:
        return out
    value = np.asarray(given).astype(seen.dtype).reshape(seen.shape)
    if isinstance(out, np.ndarray):
        out[...] = value
        return out
    return type(out)(value[()])


@cache
def _class(base: type) -> type:
    """`base` with every drawing method recorded; instances carry `recorder`."""

    def method(name: str) -> Callable[..., Any]:
        real = getattr(base, name)

        def draw(self: Any, *args: Any, **kwargs: Any) -> Any:
            return _recorded(self.recorder, name, partial(real, self), args, kwargs)

        return draw

    return type(f"Recorded{base.__name__}", (base,), {n: method(n) for n in _NAMES if hasattr(base, n)})


def _recording(recorder: DrawRecorder, generator: Any) -> Any:
    """A recording generator on the same bit generator."""
    if isinstance(generator, np.random.Generator):
        new = _class(np.random.Generator)(generator.bit_generator)
    else:
        new = _class(np.random.RandomState)(generator._bit_generator)
    new.recorder = recorder
    return new


def install(recorder: DrawRecorder, stack: ExitStack) -> None:
    """Record NumPy's generators, and what the subject holds of `random`, until the stack is closed."""
    random: Any = np.random
    shared: Any = random.mtrand._rand
    exchanged: dict[str, Any] = {}
    for name in _NAMES:
        if not hasattr(random, name):
            continue
        real = getattr(random, name)

        def recorded(*args: Any, _name: str = name, _real: Callable[..., Any] = real, **kwargs: Any) -> Any:
            return _recorded(recorder, _name, _real, args, kwargs)

        exchanged[name] = recorded
        patch(stack, random, name, recorded)
    make = random.default_rng

    def default_rng(seed: Any = None) -> Any:
        return _recording(recorder, make(seed))

    patch(stack, random, "default_rng", default_rng)
    if recorder.subject is not None:
        _replace_held_generators(recorder, stack, shared, exchanged, {id(make): default_rng})


def _replace_held_generators(
    recorder: DrawRecorder, stack: ExitStack, shared: Any, functions: dict[str, Any], makers: dict[int, Any]
) -> None:
    """Replace generators and names bound at import, wherever the subject's modules, objects and closures hold them."""
    plain = (np.random.Generator, np.random.RandomState)
    kinds = (*plain, BuiltinFunctionType, MethodType)

    def new(value: Any) -> Any:
        if isinstance(value, plain) and not hasattr(value, "recorder"):
            return _recording(recorder, value)
        if isinstance(value, BuiltinFunctionType | MethodType):
            owner, name = getattr(value, "__self__", None), getattr(value, "__name__", "")
            if owner is shared and name in functions:
                return functions[name]
            if isinstance(owner, plain) and not hasattr(owner, "recorder") and name in _NAMES and owner is not shared:
                return getattr(_recording(recorder, owner), name)
            if isinstance(owner, _python_random.Random) and hasattr(_python_random, name):
                return getattr(_python_random, name)
        return makers.get(id(value))

    for holder, key, value in list(_slots(recorder.subject)):  # all of them first: what is replaced must not be walked into
        replacement = new(value) if isinstance(value, kinds) or id(value) in makers else None
        if replacement is not None:
            _put(holder, key, replacement)
            stack.callback(_put, holder, key, value)


def _put(holder: dict[str, Any] | CellType, key: str, value: Any) -> None:
    if isinstance(holder, CellType):
        holder.cell_contents = value
    else:
        holder[key] = value


_FOREIGN = frozenset({"numpy", "torch", "scipy", "jax", "jaxlib", "builtins", "iresnet_verify", *sys.stdlib_module_names})
_NOT_WALKED = _FOREIGN | {"iresnet_ref"}
_LEAVES = (str, bytes, int, float, type(None))
_MOST = 4000


def _slots(subject: Any) -> Iterator[tuple[dict[str, Any] | CellType, str, Any]]:
    """(holder, name, value) of every name in the subject's modules, attribute of its objects and cell of its closures."""
    queue: list[Any] = [value for value in vars(subject).values() if callable(value) or hasattr(value, "__dict__")]
    seen: set[int] = set()
    modules: set[str] = set()
    while queue and len(seen) < _MOST:
        item = queue.pop()
        if id(item) in seen or isinstance(item, (ModuleType, *_LEAVES)):
            continue
        seen.add(id(item))
        kind = type(item)
        modules.add(getattr(item, "__module__", None) or "")
        modules.add(kind.__module__)
        if isinstance(item, MethodType):
            queue += [item.__self__, item.__func__]
        elif isinstance(item, partial):
            queue += [item.func, *item.args, *item.keywords.values()]
        elif isinstance(item, FunctionType):
            held = [(cell, "", cell.cell_contents) for cell in _filled(item.__closure__ or ())]
            queue += [content for _, _, content in held]
            yield from held
        elif isinstance(item, list | tuple | set | dict):
            queue += item.values() if isinstance(item, dict) else item
        elif not isinstance(item, np.ndarray) and kind.__module__.split(".")[0] not in _NOT_WALKED:
            names = getattr(item, "__dict__", {})
            queue += names.values()
            yield from [(names, k, v) for k, v in names.items()]
        elif hasattr(item, "_modules"):  # a torch container
            queue += vars(item)["_modules"].values()
    for name in modules:
        if name.split(".")[0] not in _FOREIGN and name in sys.modules:
            names = sys.modules[name].__dict__
            yield from [(names, k, v) for k, v in names.items()]


def _filled(cells: tuple[CellType, ...]) -> Iterator[CellType]:
    for cell in cells:
        with suppress(ValueError):  # a cell not filled yet
            cell.cell_contents  # noqa: B018 - reading it is the test
            yield cell
