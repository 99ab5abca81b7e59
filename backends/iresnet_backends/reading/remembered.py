"""What the code of a forward pass remembers from call to call: all that it looks at and that outlives the call, compared before and after.

Walked are globals, closures and arguments that were looked at, containers, and of objects the attributes that were asked for by name. A
state that Python does not show (iterators, generators of random numbers, locks, files) is refused by its class.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import weakref
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from iresnet_backends.errors import ModuleError
from iresnet_backends.reading.observed import PURE, REFLECTING, Cached, Observed, written_in_python

LARGEST = 100_000
"""Objects that are walked at most."""
_FIXED = (
    bool, int, float, complex, str, bytes, type(None), type(Ellipsis), type(NotImplemented), range, slice, re.Pattern, np.dtype, np.generic,
    types.CodeType, types.GetSetDescriptorType, types.MemberDescriptorType, types.GenericAlias, types.UnionType, property, staticmethod,
    classmethod, inspect.Signature,
)  # fmt: skip
_CALLABLE = (
    type, types.BuiltinFunctionType, types.FunctionType, types.MethodDescriptorType, types.WrapperDescriptorType,
    types.MethodWrapperType, np.ufunc, Cached,
)  # fmt: skip
_CONTAINERS = (list, tuple, deque, set, frozenset, dict, types.MappingProxyType)
_PARTS = (dict, list, tuple)
_TABLES = ("_modules", "_parameters", "_buffers", "_forward_hooks", "_forward_pre_hooks", "training")
"""What torch looks at in each module."""


class _Content(tuple[Any, ...]):
    """All that there is to compare of a value."""


class Remembered:
    """The state that the run `seen` could see, as it is now."""

    def __init__(self, seen: Observed) -> None:
        self.seen = seen
        self.before = {place: found for place, _, found in self._walk(seen.objects)}

    def require_same(self, again: Observed) -> None:
        """Compare with now, after another run. Raises ModuleError: what is another, or has a state that cannot be compared."""
        name = self.seen.library.names[0]
        if not (again.names <= self.seen.names and again.places.keys() <= self.seen.places.keys()):
            more = [*(again.names - self.seen.names), *(n for _, n in again.places.keys() - self.seen.places.keys())]
            raise ModuleError(
                f"from_{name}: expected a forward that is the same in every run, got one that looks at {', '.join(sorted(more)[:3])} "
                "in its second call only"
            )
        kept = {key: value for key, value in self.seen.objects.items() if key in again.objects}  # what lives on
        for place, shown, found in self._walk(kept):
            if isinstance(found, ModuleError):
                raise found
            if self.before.get(place) != found:
                raise ModuleError(
                    f"from_{name}: expected a forward that leaves what it looks at as it is, got another {shown}, so that the next call is "
                    "another map"
                )

    def _walk(self, objects: dict[int, Any]) -> Iterator[tuple[tuple[int, str], str, Any]]:
        """Yield ((an object, the way from it), the whole way, what is there): a value, a length of containers, the identity of others.

        Lists, tuples and dictionaries are parts of the objects that hold them: another one with the same content is the same.
        """
        waiting = [(key, name, name, space[name]) for (key, name), (space, _) in self.seen.places.items() if name in space]
        waiting += [(key, "", type(value).__name__, value) for key, value in objects.items()]
        met, steps = set[int](), 0
        while waiting:
            owner, edge, shown, value = waiting.pop()
            entry = id(value) if edge == shown and isinstance(value, types.ModuleType) else self._entry(value, shown)
            yield (owner, edge), shown, entry
            steps += 1
            if steps > LARGEST:
                yield (owner, edge), shown, self._refused(shown, f"more than {LARGEST} objects behind")
                return
            if id(value) in met or isinstance(entry, ModuleError | _Content) or isinstance(value, types.ModuleType):
                continue
            part = type(value) in _PARTS
            if not part:
                met.add(id(value))
            for step, inner in self._edges(value):
                waiting.append((owner, f"{edge}{step}", f"{shown}{step}", inner) if part else (id(value), step, f"{shown}{step}", inner))

    def _refused(self, edge: str, got: str) -> ModuleError:
        return ModuleError(
            f"from_{self.seen.library.names[0]}: expected a forward that remembers nothing but what can be compared, got {got} {edge}"
        )

    def _entry(self, value: Any, edge: str) -> Any:  # noqa: PLR0911  a case for each kind of value
        library = self.seen.library
        if (content := library.content(value)) is not None:
            return _Content((content,))
        if isinstance(value, types.ModuleType):
            return self._refused(edge, f"the module {value.__name__} as")
        if isinstance(value, np.ndarray):
            return value.shape, value.dtype.str, value.tobytes()
        if isinstance(value, _FIXED):
            return type(value).__name__, repr(value) if isinstance(value, float | complex | np.generic) else value  # NaN is itself
        if value is type or (isinstance(value, types.BuiltinFunctionType) and value.__name__ in {*REFLECTING, "isinstance"}):
            return self._refused(edge, f"{value.__name__}, which looks at anything, as")
        if isinstance(value, _CALLABLE):
            return id(value) if self.seen.admits(value) else self._refused(edge, f"{getattr(value, '__qualname__', value)} as")
        if type(value) in _PARTS:
            return type(value), len(value)
        if isinstance(value, _CONTAINERS):
            return id(value), len(value)
        if library.values and library.admits(value):
            return id(value)
        if isinstance(value, types.GeneratorType):
            return id(value), None if value.gi_frame is None else value.gi_frame.f_lasti
        if isinstance(value, types.MethodType):
            return id(value.__self__), id(value.__func__)
        classes = [c for c in type(value).__mro__ if c not in (object, partial, weakref.ref, types.SimpleNamespace, *_CONTAINERS)]
        known = (c.__module__ in PURE or c.__module__.partition(".")[0] not in sys.stdlib_module_names for c in classes)
        if not all(known) or not all(map(written_in_python, classes)):
            return self._refused(edge, f"{type(value).__module__}.{type(value).__qualname__}, whose state is not seen, as")
        return id(value)

    def _edges(self, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict | types.MappingProxyType):
            yield from ((f"[{key!r}]" if isinstance(key, _FIXED) else f"[{id(key)}]", inner) for key, inner in list(value.items()))
        elif isinstance(value, list | tuple | deque):
            yield from ((f"[{i}]", inner) for i, inner in enumerate(list(value)))
        elif isinstance(value, set | frozenset):
            yield from ((f"[{inner!r}]" if isinstance(inner, _FIXED) else f"[{id(inner)}]", inner) for inner in list(value))
        elif isinstance(value, types.GeneratorType) and value.gi_frame is not None:
            yield from ((f"'s {name}", inner) for name, inner in value.gi_frame.f_locals.items())
        elif isinstance(value, types.BuiltinFunctionType) and not isinstance(value.__self__, types.ModuleType | type | None):
            yield ".__self__", value.__self__
        elif isinstance(value, types.MethodType):
            yield from ((".__self__", value.__self__), (".__func__", value.__func__))
        elif isinstance(value, partial):
            yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
        elif isinstance(value, weakref.ref):
            yield ("()", value())
        if isinstance(value, np.ndarray) and value.dtype == object:
            yield ("", value.tolist())
        if inside := list(self.seen.library.inside(value)):
            yield from inside
        elif not isinstance(value, _FIXED):
            yield from self._attributes(value)

    def _attributes(self, value: Any) -> Iterator[tuple[str, Any]]:
        """Yield the attributes that were asked for; of objects of the framework, whose code was not followed, all."""
        names, library = self.seen.names, self.seen.library
        everything = "*" in names or (library.has(type(value).__module__) and not isinstance(value, type))
        for name, inner in list(getattr(value, "__dict__", {}).items()):
            if everything or name in names or name in _TABLES:
                yield f".{name}", inner
        for kind in value.__mro__[1:] if isinstance(value, type) else type(value).__mro__:
            for name, inner in list(vars(kind).items()) if written_in_python(kind) and not library.has(kind.__module__) else ():
                if name in names and isinstance(inner, types.MemberDescriptorType) and not isinstance(value, type):
                    yield f".{name}", getattr(value, name, None)
                elif name in names and not isinstance(inner, types.FunctionType):
                    yield f".{name} of {kind.__name__}", inner
