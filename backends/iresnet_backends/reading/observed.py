"""What the Python code of a forward pass looks at besides its input, while it runs.

Two runs of the same code part at the first thing that they see differently, and that thing was looked at in both. So one run, recorded,
stands for all of them if everything that it looked at is the same in all: its input is seen by the recorder alone; what it remembers is
compared (`remembered`); and whatever else tells one run from another (clocks, random numbers, modes, frames, threads, files) must be
loaded by a name before it can be asked. Every instruction that loads a name is looked at as it is executed; of libraries, what they own
is known: only functions of their arguments may be loaded.
"""

from __future__ import annotations

import builtins
import dis
import gc
import inspect
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from types import (
    BuiltinFunctionType,
    CodeType,
    FrameType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

from iresnet_backends.errors import ModuleError

PURE = frozenset([
    "math", "cmath", "operator", "_operator", "itertools", "functools", "_functools", "collections", "_collections", "collections.abc",
    "_collections_abc", "abc", "_abc", "typing", "typing_extensions",
    "contextlib", "copy", "copyreg", "types", "enum", "dataclasses", "numbers", "fractions",
])  # fmt: skip
"""Modules of Python of which every function but the `REFLECTING` ones is a function of its arguments."""
ANSWERS = frozenset([
    "abs", "all", "any", "bool", "bytearray", "bytes", "callable", "chr", "classmethod", "complex", "delattr", "dict", "divmod",
    "enumerate", "filter", "float", "format", "frozenset", "getattr", "hasattr", "int", "isinstance", "issubclass", "iter", "len", "list",
    "map", "max", "min", "next", "object", "ord", "pow", "print", "property", "range", "repr", "reversed", "round", "set", "setattr",
    "slice", "sorted", "staticmethod", "str", "sum", "super", "tuple", "type", "zip",
])  # fmt: skip
"""Builtins that are functions of their arguments."""
REFLECTING = frozenset(["getattr", "hasattr", "setattr", "delattr", "type", "attrgetter", "methodcaller"])
"""Functions that look at what they are given by a name that may be computed, or at its class."""
TELLING = frozenset([
    "requires_grad", "grad", "grad_fn", "is_leaf", "_version", "is_inference", "data_ptr", "untyped_storage", "storage", "_base",
    "_cdata", "prev", "__getattribute__", "needs_input_grad",
    "__globals__", "__builtins__", "__traceback__", "__context__", "__subclasses__", "__closure__",
    "__loader__", "__spec__", "tb_frame", "f_back", "f_globals", "f_locals", "gi_frame", "cr_frame", "ag_frame",
])  # fmt: skip
"""Attributes that tell in which mode or by whom the code is run."""

NUMPY = frozenset([
    "prod", "sum", "array", "asarray", "arange", "zeros", "ones", "full", "eye", "linspace", "cumsum", "dtype", "ndarray", "finfo",
    "iinfo", "generic", "number", "float64", "float32", "int64", "int32", "bool_", "ndim", "shape", "concatenate", "split", "array_split",
])  # fmt: skip
"""Functions of NumPy that are functions of their arguments; ufuncs are as well."""
IDENTITY = frozenset(["is_", "is_not"])
"""Functions that compare objects, not what they are."""

STANDARD = sysconfig.get_path("stdlib") + os.sep
"""Where Python's own library is."""


@dataclass(frozen=True)
class Library:
    """A framework: `names` of the packages whose code is taken at its word, and which of their objects may be loaded."""

    names: tuple[str, ...]
    admits: Callable[[Any], bool]
    content: Callable[[Any], Any]
    """What an array or a value of the framework holds, to be compared; None for all else."""
    telling: frozenset[str] = frozenset()
    """Further attributes that tell how the code is run."""
    values: tuple[type, ...] = ()
    """Classes of what is followed, where another run has another class in its place: neither class nor identity
    may be asked; the last is that of a number of rows."""
    inside: Callable[[Any], Iterable[tuple[str, Any]]] = lambda value: ()
    """What else an object is made of, by the way to it."""

    def has(self, module: str) -> bool:
        """Whether a module is one of the library's."""
        return any(f"{module}.".startswith(f"{name}.") for name in self.names)

    def owns(self, space: dict[str, Any]) -> bool:
        """Whether globals are those of a module of the library itself, or of the pure part of Python."""
        name = space.get("__name__", "")
        module = sys.modules.get(name)
        stands_for_it = type(module) is not ModuleType  # as torch._VF does
        return module is not None and (vars(module) is space or stands_for_it) and (name in PURE or self.has(name))


@dataclass
class Observed:
    """What one run looked at."""

    library: Library
    places: dict[tuple[int, str], tuple[dict[str, Any], str]] = field(default_factory=dict)
    """Names of globals, with the dictionary that holds them."""
    objects: dict[int, Any] = field(default_factory=dict)
    """What came by arguments and closures, by identity."""
    names: set[str] = field(default_factory=set)
    """Attributes."""
    trouble: list[ModuleError] = field(default_factory=list)
    caught: set[str] = field(default_factory=set)
    """Classes of the exceptions that it met."""

    def refuse(self, got: str, why: str, frame: FrameType) -> None:
        """Write down what cannot be the same in every run."""
        place = f"{frame.f_code.co_qualname} line {frame.f_lineno}"
        who = f"from_{self.library.names[0]}"
        self.trouble.append(ModuleError(f"{who}: expected a forward that is the same in every run, got {got} in {place}: {why}"))

    def require_nothing(self) -> None:
        """Raise the first trouble. Raises ModuleError."""
        if self.trouble:
            raise self.trouble[0]
        if self.caught:
            raise ModuleError(
                f"from_{self.library.names[0]}: expected a forward that raises nothing, got {', '.join(sorted(self.caught))} on the way: "
                "where it is not raised, another map is computed"
            )

    def enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Follow a frame, unless it is one of the library, or of Python's own library called from there."""
        del event, arg
        caller = frame.f_back
        code = frame.f_code
        called_by_it = caller is not None and caller.f_trace is None and code.co_filename.startswith((STANDARD, "<frozen "))
        if self.library.values and code.co_qualname.startswith("singledispatch") and caller is not None and caller.f_trace is not None:
            self.refuse("a function that is chosen by the class of its argument", "it has another class in another run", caller)
        dies = frame.f_globals.get("__name__") == "weakref" and code.co_name == "remove"  # of something that was weakly kept
        makes_a_tuple = code.co_names == ("_tuple_new",) and frame.f_globals.get("_tuple_new") == tuple.__new__  # of names
        if called_by_it or dies or makes_a_tuple or code.co_filename.startswith("<frozen importlib") or self.library.owns(frame.f_globals):
            return None
        for value in frame.f_locals.values():
            if not isinstance(value, ModuleType):  # which by itself is looked at where it is loaded
                self.objects.setdefault(id(value), value)
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self.look

    def look(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Look at the instruction that is about to be executed."""
        if event == "exception" and not issubclass(arg[0], StopIteration | GeneratorExit):
            self.caught.add(arg[0].__name__)
        if event == "opcode" and (action := _actions(frame.f_code).get(frame.f_lasti)) is not None:
            kind, name, attributes, literal = action
            if kind == "attribute":
                self.attribute(name, frame, literal)
            elif kind in ("is", "match"):
                self.compare(frame, kind, literal)
            elif kind == "store":
                self.refuse(f"a new value of {name}", "it outlives the call, so that the next one may be another map", frame)
            else:
                for one in (name,) if isinstance(name, str) else name:  # two locals are one instruction from Python 3.13 on
                    self.load(frame, kind, one, attributes, literal)
        return self.look

    def attribute(self, name: str, frame: FrameType, owner: Any = None) -> None:
        """Take note of an attribute."""
        self.names.add(name)
        if name in TELLING or (name in self.library.telling and not self.apart(_followed(frame, owner, self.library.values))):
            self.refuse(f".{name}", "it tells in which mode, or by whom, the code is run", frame)

    def apart(self, x: Any) -> bool:
        """Whether x is known, and neither what is followed nor a class of the library."""
        return x is not UNKNOWN and not isinstance(x, self.library.values) and not (isinstance(x, type) and self.library.has(x.__module__))

    def load(
        self, frame: FrameType, kind: str, name: str, attributes: tuple[str, ...], literal: Any
    ) -> None:
        """Take note of a name, and of what it leads to."""
        value = _value(frame, kind, name)
        if kind == "global":
            self.places[id(frame.f_globals), name] = (frame.f_globals, name)
        path, module = name, None
        while isinstance(value, ModuleType) and attributes:
            module, path = value, f"{path}.{attributes[0]}"
            if not self.library.has(module.__name__):
                self.places[id(vars(module)), attributes[0]] = (vars(module), attributes[0])
            value, attributes = getattr(module, attributes[0], None), attributes[1:]
        if isinstance(value, ModuleType):
            self.refuse(f"the module {path} as a value", "what is asked of it is not seen", frame)
        elif not self.admits(value) or (module is not None and not callable(value) and not self.fixed(value, module)):
            self.refuse(path, "it may tell one run from another", frame)
        elif getattr(value, "__name__", "") == "isinstance" and self.library.values:
            self.reflected(path, literal, frame, classes=True)
        elif getattr(value, "__name__", "") in REFLECTING and not isinstance(value, FunctionType):
            attribute = literal[1]
            subject = self.reflected(path, literal, frame)
            if attribute is not None and value is not type:
                self.attribute(attribute, frame)
            elif not self.own(subject):
                self.refuse(f"{path} of something", "what it looks at is not known; name the attribute", frame)
            elif value is not type:
                self.names.add("*")

    def reflected(self, path: str, literal: Any, frame: FrameType, classes: bool = False) -> Any:
        """Return what is looked at, None where it is not known; what has another class in another run is refused."""
        owner, _, plain, others = literal
        values = self.library.values
        subject = _followed(frame, owner, values)
        kinds = [_followed(frame, other, values) for other in others] if isinstance(subject, values) and classes else []
        told = not all(map(self.of_library, kinds))
        told = told or isinstance(subject, values[-1:]) or (isinstance(subject, tuple | list | dict) and not plain)
        if values and (subject is UNKNOWN or told or not plain):
            self.refuse(f"{path} of something", "what it looks at is not known, or has another class in another run", frame)
        return None if subject is UNKNOWN else subject

    def of_library(self, kind: Any) -> bool:
        """Whether a class is one of Python or of the library, which nobody else's class is said to be one of."""
        kinds = kind if isinstance(kind, tuple) else (kind,)
        return all(isinstance(one, type) and (one.__module__ == "builtins" or self.library.admits(one)) for one in kinds)

    def compare(self, frame: FrameType, kind: str, other: Any) -> None:
        """Take note of a comparison of identities or classes, where those tell one run from another."""
        if not self.library.values:
            return
        subject = UNKNOWN if kind == "match" else _followed(frame, other, self.library.values)
        if subject is UNKNOWN or isinstance(subject, self.library.values):
            what = "a class pattern" if kind == "match" else "the question whether something is the same object"
            self.refuse(what, "the answer is another one in another run", frame)

    def fixed(self, value: Any, module: ModuleType) -> bool:
        """Whether a value in a module is no setting of a library: pi, a dtype, or anything in a module of the code itself."""
        ours = not standard(module) and not self.library.has(module.__name__)
        number = isinstance(value, float) or value is None  # np.newaxis
        return ours or number or (not isinstance(value, bool) and self.library.content(value) is not None)

    def own(self, x: Any) -> bool:
        """Whether x is an instance of a class that is written in Python and no library's, or a module of torch."""
        if isinstance(x, self.library.values):
            return False
        classes = type(x).__mro__
        return any(c.__module__ == "torch.nn.modules.module" for c in classes) or (
            not isinstance(x, type | BaseException) and all(c is object or written_in_python(c) for c in classes)
        )

    def admits(self, value: Any) -> bool:  # noqa: PLR0911, PLR0912  a case for each kind of callable
        """Whether what was loaded cannot tell one run from another by itself; Python code and objects are looked at elsewhere."""
        if getattr(value, "__name__", "") in TELLING or (isinstance(value, BuiltinFunctionType) and value.__name__ in IDENTITY):
            return False
        if self.library.values and getattr(getattr(value, "__origin__", None), "__module__", "") == "collections.abc":
            return False
        if isinstance(value, FunctionType):
            space = value.__globals__
            return not self.library.owns(space) or space.get("__name__") in PURE or self.library.admits(value)
        if isinstance(value, MethodType):
            return self.admits(value.__func__)
        if isinstance(value, MethodDescriptorType | WrapperDescriptorType):
            return self.library.admits(value) or self.admits(value.__objclass__)
        if isinstance(value, type):
            if self.library.values and (getattr(value, "_is_protocol", False) or value.__module__ == "collections.abc"):
                return False  # whose instances are told by their attributes
            if value.__module__ == "builtins":
                return value.__name__ in ANSWERS or issubclass(value, BaseException)
            of_code = written_in_python(value) and not self.library.has(value.__module__)
            return of_code or value.__module__ in PURE or self.library.admits(value)
        if isinstance(value, BuiltinFunctionType):
            owner = value.__self__
            if owner is builtins:
                return value.__name__ in ANSWERS
            if isinstance(owner, ModuleType) or owner is None:
                return (value.__module__ or getattr(owner, "__name__", "")) in PURE or self.library.admits(value)
            return self.library.admits(value) or self.admits(owner if isinstance(owner, type) else type(owner))
        if isinstance(value, Cached):
            value.cache_clear()  # what it remembers is computed again, and seen
            return self.admits(value.__wrapped__)
        kind = type(value)
        if not callable(value) or self.library.admits(value) or kind.__module__ in PURE:
            return True
        if self.library.has(kind.__module__):
            return self.admits(kind)
        return isinstance(inspect.getattr_static(kind, "__call__", None), FunctionType)  # else compiled code of an unknown library


Cached = type(lru_cache(maxsize=1)(len))
"""The class of functions that remember."""


@contextmanager
def observed(library: Library) -> Iterator[Observed]:
    """Observe what runs inside of the block, in this thread; debuggers and coverage see nothing of it, and no garbage is collected.

    A collection comes when memory says so, in the middle of any call, and runs finalisers and callbacks that are not of the forward pass.
    """
    seen, before, collects = Observed(library), sys.gettrace(), gc.isenabled()
    gc.disable()
    sys.settrace(seen.enter)
    try:
        yield seen
    finally:
        sys.settrace(before)
        if collects:
            gc.enable()


@contextmanager
def unobserved() -> Iterator[None]:
    """Leave out what runs inside of the block."""
    before = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(before)


def standard(module: ModuleType) -> bool:
    """Whether a module is one of Python's own library."""
    return module.__name__.partition(".")[0] in sys.stdlib_module_names


def written_in_python(kind: type) -> bool:
    """Whether a class was made by a statement of Python: on the heap (1 << 9), not immutable (1 << 8), and of no compiled module."""
    module = sys.modules.get(kind.__module__)
    source = getattr(module, "__file__", None) or ""
    compiled = kind.__module__ in sys.builtin_module_names or source.endswith((".so", ".pyd", ".dylib"))
    return bool(kind.__flags__ & 1 << 9) and not kind.__flags__ & 1 << 8 and not compiled


def _value(frame: FrameType, kind: str, name: str) -> Any:
    if kind == "global":
        return frame.f_globals.get(name, frame.f_builtins.get(name))
    return frame.f_locals.get(name, frame.f_globals.get(name, frame.f_builtins.get(name)) if kind == "name" else None)


def _stored(x: Any, name: str) -> Any:
    """Return an attribute without running any code of the class."""
    tables = (vars(x), *(vars(x).get(t, {}) for t in ("_modules", "_parameters", "_buffers"))) if hasattr(x, "__dict__") else ()
    return next((table[name] for table in tables if name in table), inspect.getattr_static(x, name, None))


def _followed(frame: FrameType, owner: Any, values: tuple[type, ...]) -> Any:
    """Return what a name with attributes stands for, without running any code but that of the framework."""
    if owner is None or not isinstance(owner[1], str):
        return UNKNOWN
    subject = _value(frame, *owner[:2])
    for step in owner[2]:
        subject = getattr(subject, step) if isinstance(subject, (*values, ModuleType)) else _stored(subject, step)
        if hasattr(type(subject), "__get__") and not callable(subject):
            return UNKNOWN  # a property, which may be anything
    return subject


UNKNOWN = object()
Action = tuple[str, Any, tuple[str, ...], Any]
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR", "LOAD_SUPER_ATTR", "LOAD_SUPER_METHOD")


@lru_cache(maxsize=4096)
def _actions(code: CodeType) -> dict[int, Action]:
    """Return, by offset, what an instruction loads: its kind, its name, the attributes that follow, and for a call its first arguments."""
    found: dict[int, Action] = {}
    plain = [i for i in dis.get_instructions(code) if i.opname not in ("CACHE", "PUSH_NULL", "EXTENDED_ARG", "PRECALL", "NOP")]
    for at, instruction in enumerate(plain):
        name, kind = instruction.argval, _kind(instruction, code)
        if instruction.opname == "MATCH_CLASS":
            found[instruction.offset] = ("match", "", (), None)
        elif instruction.opname == "IS_OP" and plain[at - 1].opname != "LOAD_CONST":
            found[instruction.offset] = ("is", "", (), _last(plain, at - 1, code))
        elif kind in ("attribute", "store"):
            found[instruction.offset] = (kind, name, (), _last(plain, at - 1, code))
        elif kind:
            chain, after = _chain(plain, at + 1)
            found[instruction.offset] = (kind, name, chain, _arguments(plain, after, code))
    return found


def _kind(instruction: Any, code: CodeType) -> str:  # noqa: PLR0911  a case for each kind of instruction
    name = instruction.opname
    if name in _ATTRIBUTES:
        return "attribute"
    if name in ("STORE_GLOBAL", "DELETE_GLOBAL") or (name in ("STORE_DEREF", "DELETE_DEREF") and instruction.argval in code.co_freevars):
        return "store"
    if "LOAD_FAST_LOAD_FAST" in name or name == "STORE_FAST_LOAD_FAST":
        return "local"
    if not name.startswith("LOAD_") or not isinstance(instruction.argval, str) or name == "LOAD_CONST":
        return ""
    if name == "LOAD_GLOBAL":
        return "global"
    if name.startswith("LOAD_NAME"):
        return "name"
    return "local" if instruction.argval in (*code.co_freevars, *code.co_varnames, *code.co_cellvars) else ""


def _chain(plain: list[Any], at: int) -> tuple[tuple[str, ...], int]:
    chain = []
    while at < len(plain) and plain[at].opname in ("LOAD_ATTR", "LOAD_METHOD"):
        chain.append(plain[at].argval)
        at += 1
    return tuple(chain), at


def _last(plain: list[Any], at: int, code: CodeType) -> Any:
    """Return the name with attributes that ends at this instruction, if one does."""
    chain: list[str] = []
    while at > 0 and plain[at].opname in ("LOAD_ATTR", "LOAD_METHOD"):
        chain.insert(0, plain[at].argval)
        at -= 1
    kind = _kind(plain[at], code)
    return None if kind in ("", "attribute", "store") else (kind, plain[at].argval, tuple(chain))


def _arguments(plain: list[Any], at: int, code: CodeType) -> tuple[Any, str | None, bool, list[Any]]:
    """Return the first argument of a call, if it is a name with attributes, the second, if a literal string, and whether they are all; and
    the others that are names.

    They are all where the first is followed by one other, or none, of names and literals alone, and then by the call.
    """
    if at >= len(plain) or _kind(plain[at], code) in ("", "attribute", "store"):
        return None, None, False, []
    chain, after = _chain(plain, at + 1)
    literal = plain[after].argval if after < len(plain) and plain[after].opname == "LOAD_CONST" else None
    height, step, others = 1, after, list[Any]()
    while step < len(plain) and not plain[step].opname.startswith("CALL"):
        name = plain[step].opname
        if name in ("BUILD_TUPLE", "BUILD_STRING", "BINARY_OP"):
            height -= 1 if name == "BINARY_OP" else plain[step].argval - 1
        elif name == "LOAD_CONST" or (kind := _kind(plain[step], code)) not in ("", "attribute", "store"):
            height += 1
            if name != "LOAD_CONST":
                others.append((kind, plain[step].argval, _chain(plain, step + 1)[0]))
        elif name not in ("LOAD_ATTR", "LOAD_METHOD", "FORMAT_VALUE", "FORMAT_SIMPLE"):
            height = -1
            break
        step += 1
    plainly = step < len(plain) and height == plain[step].argval and height in (1, 2, 3)
    return (_kind(plain[at], code), plain[at].argval, chain), literal if isinstance(literal, str) else None, plainly, others
