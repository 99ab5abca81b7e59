"""The public boundary: arguments are what the annotations promise, and NumPy's error state changes nothing behind it.

`public` stands on what users call. It reads the annotations once and refuses, with what was expected, what came and what to try,
an argument of another kind; ranges and shapes are checked where they are known, in the function. Behind it NumPy's floating-point
warnings are off: what overflows is found by its value, under every `numpy.errstate` alike.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import operator
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import numpy as np

from iresnet_ref.arrays.namespaces import is_array, is_compiling
from iresnet_ref.arrays.types import Array
from iresnet_ref.arrays.validation import require_real
from iresnet_ref.errors import DTypeError, IResNetError

Function = TypeVar("Function", bound=Callable[..., Any])
Value = TypeVar("Value")
Rule = Callable[[str, Any], Any]
"""(what messages call it, an argument) ↦ the argument as the function takes it. Raises DTypeError."""


def public(function: Function) -> Function:
    """Return the function, or class, that refuses arguments of other kinds than annotated. Raises DTypeError.

    Integers and numbers of NumPy become Python's, sequences of integers tuples; `Any` is left to the function.

    >>> @public
    ... def power(x: float, n: int = 2) -> float:
    ...     return x**n
    >>> power(np.float32(3.0), n=np.int64(2)), power.__name__
    (9.0, 'power')
    >>> power(3.0, 2.5)
    Traceback (most recent call last):
        ...
    iresnet_ref.errors.DTypeError: power: n: expected an integer, got 2.5; try an int
    """
    target: Any = function
    if not isinstance(target, type):
        owner = target.__qualname__.rpartition(".")[0]
        return _guarded(function, owner if target.__name__ == "__call__" else target.__name__)
    target.__init__ = _guarded(target.__init__, target.__name__)  # type: ignore[misc]  # a class of the caller, which has an __init__
    return cast("Function", target)


def _guarded(function: Any, name: str) -> Any:
    parameters = inspect.signature(function).parameters
    rules = {key: _rule(_resolved(p.annotation, function)) for key, p in parameters.items() if _is_checked(p)}
    places = [(f"{name}: {key}", rules.get(key)) for key in parameters]
    named_places = dict(zip(parameters, places, strict=True))
    no_place = ("", None)
    quiet = np.errstate(all="ignore")(function)

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if _is_traced(args) or _is_traced(kwargs.values()):
            return function(*args, **kwargs)
        taken = [value if rule is None else rule(label, value) for (label, rule), value in zip(places, args, strict=False)]
        for key, value in kwargs.items():
            label, rule = named_places.get(key, no_place)
            if rule is not None:
                kwargs[key] = rule(label, value)
        return quiet(*taken, *args[len(taken) :], **kwargs)

    return run


def _is_checked(parameter: inspect.Parameter) -> bool:
    return parameter.annotation is not parameter.empty and parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}


def _is_traced(values: Iterable[Any]) -> bool:
    """Return whether a compiler traces this call: it knows neither NumPy's error state nor what is checked here.

    The first array that is none of NumPy's decides: a compiler traces all that is computed in its package.
    """
    for v in values:
        if isinstance(v, dict):
            if _is_traced(v.values()):  # pyright: ignore[reportUnknownArgumentType] - narrowed from Any
                return True
        elif type(v) is not np.ndarray and hasattr(v, "dtype") and is_array(v):
            return is_compiling(v)
    return False


def _resolved(annotation: Any, function: Any) -> Any:
    return eval(annotation, inspect.unwrap(function).__globals__) if isinstance(annotation, str) else annotation


def _rule(kind: Any) -> Rule | None:
    """Return the rule of a type, None for one that says nothing."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind in _SIMPLE or origin is None:
        return _SIMPLE[kind] if kind in _SIMPLE else _of_class(kind)
    if origin in {Union, types.UnionType}:
        return _any_of([_rule(k) for k in parts if k is not types.NoneType], types.NoneType in parts)
    if origin in {tuple, Sequence, Collection}:
        fixed = origin is tuple and ... not in parts
        return _sequence([_rule(part) for part in parts if part is not ...], len(parts) if fixed else None)
    return {
        Literal: _instance(str, f"one of {', '.join(map(repr, parts))}", repr(parts[0])),
        dict: _instance(Mapping, "a dictionary", "parameters()"),
        Mapping: _instance(Mapping, "a dictionary", "parameters()"),
        Callable: _function,
    }.get(origin)


def _of_class(kind: Any) -> Rule | None:
    """Return the rule of a class, or of a protocol whose parts can be looked for."""
    if not isinstance(kind, type) or (getattr(kind, "_is_protocol", False) and not getattr(kind, "_is_runtime_protocol", False)):
        return None
    needed = [k for k, p in inspect.signature(kind).parameters.items() if p.default is p.empty] if not hasattr(kind, "_is_protocol") else []
    return _instance(kind, f"an object of type {kind.__name__}", f"{kind.__name__}({', '.join(needed)})")


def _any_of(rules: list[Rule | None], none: bool) -> Rule | None:
    """Return the rule of a union: the first that takes the argument."""
    known = [rule for rule in rules if rule is not None]
    if len(known) < len(rules):
        return None

    def rule(name: str, value: Any) -> Any:
        if none and value is None:
            return None
        told: list[str] = []
        for each in known:
            try:
                return each(name, value)
            except IResNetError as error:
                told.append(str(error))
        # what is of the right kind and has the wrong entries, or the wrong dtype, is told that and nothing else
        nearest = [text for text in told if text.startswith(f"{name}[") or "dtype, got " in text]
        if len(told) == 1 or nearest:
            raise DTypeError((nearest or told)[0])
        wanted = " or ".join(dict.fromkeys(text.partition("expected ")[2].partition(", got")[0] for text in told))
        remedies = " or ".join(dict.fromkeys(text.partition("; try ")[2] for text in told))
        raise DTypeError(f"{name}: expected {wanted}, got {shown(value)}; try {remedies}")

    return rule


def _integer(name: str, value: Any) -> int:
    if type(value) is int or (isinstance(value, numbers.Integral) and not isinstance(value, bool)):
        return operator.index(value)
    raise DTypeError(f"{name}: expected an integer, got {shown(value)}; try an int")


def _number(name: str, value: Any) -> float:
    if type(value) is float:
        return value
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            pass
    raise DTypeError(f"{name}: expected a real number, got {shown(value)}; try a float")


def _truth(name: str, value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return bool(cast("Any", value))
    raise DTypeError(f"{name}: expected True or False, got {shown(value)}; try a bool")


def _array(name: str, value: Any) -> Any:
    require_real(value, name)
    return value


def _function(name: str, value: Any) -> Any:
    if not callable(value):
        raise DTypeError(f"{name}: expected a function, got {shown(value)}; try a lambda")
    return value


def _instance(kind: type, wanted: str, remedy: str) -> Rule:
    def rule(name: str, value: Any) -> Any:
        if not isinstance(value, kind):
            raise DTypeError(f"{name}: expected {wanted}, got {shown(value)}; try {remedy}")
        return value

    return rule


def _sequence(rules: list[Rule | None], length: int | None) -> Rule:
    """Return the rule of tuple[T, ...], Sequence[T] and tuple[T, U]."""

    def rule(name: str, value: Any) -> Any:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable) or getattr(cast("Any", value), "ndim", 1) != 1:
            raise DTypeError(f"{name}: expected a sequence, got {shown(value)}; try a tuple")
        taken: tuple[Any, ...] = tuple(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - narrowed from Any
        if length is not None and len(taken) != length:
            raise DTypeError(f"{name}: expected {length} entries, got {len(taken)}; try a tuple of {length}")
        each = rules if length is not None else [rules[0]] * len(taken)
        return tuple(entry if own is None else own(f"{name}[{i}]", entry) for i, (own, entry) in enumerate(zip(each, taken, strict=True)))

    return rule


def changed(value: Value, **fields: Any) -> Value:
    """Return a frozen dataclass with other fields, which are known to fit, without its caches: `replace` without the boundary.

    A class of a user may keep what it makes of its fields: it makes that again.
    """
    kind = type(value)
    made = object.__new__(kind)
    for name in cast("Any", value).__dataclass_fields__:
        object.__setattr__(made, name, fields[name] if name in fields else getattr(value, name))
    if not kind.__module__.startswith("iresnet_") and hasattr(made, "__post_init__"):
        cast("Any", made).__post_init__()
    return made


def shown(value: Any) -> str:
    """Return how messages show an argument: a number or name itself, of anything else the type.

    >>> shown(2.5), shown("a"), shown([1])
    ('2.5', "'a'", 'list')
    """
    if isinstance(value, bool | int | float | complex | str | bytes | type(None)):
        text = repr(value) if not isinstance(value, int) or abs(value) < 10**40 else "an integer of over 40 digits"
        return text if len(text) <= 60 else f"{text[:57]}…"
    return type(value).__name__


_SIMPLE: dict[Any, Rule | None] = {
    int: _integer, float: _number, bool: _truth, str: _instance(str, "a name", "a string"), Array: _array, Any: None,
}


def whole_number(name: str, value: int, least: int, most: float = math.inf) -> None:
    """Refuse an integer outside [least, most]. Raises ValueError."""
    if not least <= value <= most:
        upper = "" if most == math.inf else f" and ≤ {most}"
        raise ValueError(f"{name}: expected an integer ≥ {least}{upper}, got {shown(value)}; try {least}")
