"""One change of a function: another operator, number, name or variable, an operand left out, or an elementary function put in.

A change is made in the bytecode of the function, which is put back afterwards: methods, closures and code without a source are changed
alike. Only what leaves the other instructions where they are is changed, but for a call that is put in.
"""

from __future__ import annotations

import dis
import gc
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType, FunctionType
from typing import Any

OTHERS = frozenset(sys.stdlib_module_names) | {
    "torch", "numpy", "scipy", "jax", "jaxlib", "iresnet_verify", "array_api_compat", "hypothesis", "pytest", "_pytest", "coverage",
    "distributed", "dask", "tornado"}
"""Packages whose code is not the subject's."""
OWN = "iresnet_verify.mutants"
OUTSIDE = frozenset({
    "open", "save", "dump", "write", "write_text", "write_bytes", "remove", "unlink", "rmtree", "rename", "mkdir", "makedirs", "touch",
    "system", "popen", "subprocess", "shutil", "socket", "connect", "send", "sendall", "urlopen", "urlretrieve", "requests", "exec", "eval",
    "exit", "_exit", "abort", "kill"})
"""Names of what acts outside the process: functions that have one are left as they are."""
INSTEAD: dict[str, tuple[str, ...]] = {
    "+": ("-", "*", "/"), "-": ("+", "*", "/"), "*": ("/", "+", "-", "@", "**"), "/": ("*", "+", "-"), "**": ("*", "/"), "//": ("/", "*"),
    "@": ("*", "+")}
"""Operators that are tried for each, the likeliest first."""
OPERATORS = {sign: dis.Bytecode(compile(f"a {sign} b", "", "eval")) for sign in INSTEAD}
SIGNS = {next(i.arg or 0 for i in code if i.opname == "BINARY_OP"): sign for sign, code in OPERATORS.items()}
COMPARED = {sign: next(i.arg or 0 for i in dis.Bytecode(compile(f"a {sign} b", "", "eval")) if i.opname == "COMPARE_OP")
            for sign in ("<", "<=", ">", ">=")}
REDUCTIONS = ("sum", "mean", "prod", "amax", "amin")
NAMES = (
    ("exp", "expm1", "log", "log1p", "tanh", "atanh", "sigmoid", "logit", "softplus", "abs", "neg", "square", "sqrt", "reciprocal", "sin",
     "cos", "positive"),
    REDUCTIONS, ("triu", "tril"), ("min", "max"), ("minimum", "maximum"), ("argmin", "argmax"),
    ("T", "real"), ("mT", "real"), ("inv", "pinv", "positive"), ("zeros_like", "ones_like"), ("floor", "ceil", "round"),
    ("detach", "positive"), ("data", "real"), ("no_grad", "enable_grad"), ("inference_mode", "enable_grad"),
)
CUTS = ("detach", "data", "no_grad", "inference_mode")
"""Names by which gradients are cut off; values are the same without."""
"""Names that stand for each other; `positive` and `real` change nothing."""
LEFT_OUT = ("positive", "real")
LARGE = 100
"""Numbers above are not squared: a loop or an array of so many would not end."""
NUMBERS: tuple[Callable[[Any], Any], ...] = (
    lambda c: -c, lambda c: c + 1, lambda c: c - 1, lambda c: 2 * c, lambda c: c / 2, lambda c: 1 / c, lambda c: 0 * c + 1, lambda c: 0 * c,
    lambda c: c * c if abs(c) <= LARGE else c)
VARIABLE = "LOAD_FAST"
GIVES = ("BINARY_OP", "CALL", "UNARY_NEGATIVE", "BINARY_SUBSCR", "LOAD_ATTR", VARIABLE)
"""Instructions behind whose value a function is put in."""
CHECKED = dis.opmap.get("LOAD_FAST_CHECK", dis.opmap[VARIABLE])
"""Raises where the variable has no value yet; in 3.11 each LOAD_FAST does."""
NOP, POP, SWAP, CONST, BINARY = (dis.opmap[n] for n in ("NOP", "POP_TOP", "SWAP", "LOAD_CONST", "BINARY_OP"))


class Applied:
    """A function that is called by `self >> value`: what is put in takes four instructions on any version."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __rshift__(self, value: Any) -> Any:
        if isinstance(value, tuple | list | str):
            raise TypeError(f"expected a number or an array, got {type(value).__name__}")  # twice a tuple is longer, not larger
        return self.function(value)


PUT_IN: dict[str, Callable[[Any], Any]] = {
    "−": lambda v: -v, "exp": lambda v: v.exp(), "log": lambda v: v.log(), "tanh": lambda v: v.tanh(), "| |": abs,
    "1/": lambda v: 1 / v, "( )²": lambda v: v * v, "√": lambda v: v**0.5, "transpose": lambda v: v.swapaxes(-1, -2),
    "flip": lambda v: v[..., list(range(v.shape[-1] - 1, -1, -1))], "2·": lambda v: 2 * v, "1/2·": lambda v: v / 2,
    "sum over the events of": lambda v: v.sum(-1), "1 −": lambda v: 1 - v, "sigmoid": lambda v: 1 / (1 + (-v).exp()),
}


@dataclass(frozen=True)
class Change:
    """Another code for one function."""

    function: FunctionType
    code: CodeType
    line: int | None
    words: str
    rank: int
    """How large it is: 0 a sign, 1 a number or a name, 2 an operator, 3 a variable, 4 a function that is put in."""
    cut: str | None = None
    """The name by which gradients are cut off that the change takes away, if it is one."""

    @property
    def place(self) -> str:
        """Where it is."""
        return f"{self.function.__qualname__}, line {self.line}"

    @contextmanager
    def made(self) -> Iterator[None]:
        """The change, for the length of the block."""
        function: Any = self.function  # of which pyright takes __code__ for that of a method
        before = function.__code__
        function.__code__ = self.code
        try:
            yield
        finally:
            function.__code__ = before


def functions_of(call: Callable[[], object]) -> list[FunctionType]:
    """The subject's own functions that the call runs, in the order of their first use, but for those that act outside the process."""
    seen: dict[CodeType, None] = {}

    def look(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and is_own(frame):
            seen.setdefault(frame.f_code)

    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(None)
    holders = gc.get_referrers(*seen) if seen else []
    functions = {f.__code__: f for f in holders if isinstance(f, FunctionType) and OUTSIDE.isdisjoint(f.__code__.co_names)}
    return [functions[code] for code in seen if code in functions]


def is_own(frame: FrameType) -> bool:
    """Whether a frame runs the subject's code."""
    return is_own_name(str(frame.f_globals.get("__name__", "")))


def is_own_name(module: str | None) -> bool:
    """Whether a module of this name is the subject's; one without a name is not."""
    return module is not None and (module.startswith(OWN) or module.partition(".")[0] not in OTHERS)


def changes_of(function: FunctionType, attributes: Collection[str] = ()) -> Iterator[Change]:
    """All changes of a function; one of `attributes` may stand for another."""
    code, line = function.__code__, None
    steps = [i for i in dis.get_instructions(code) if i.opname != "CACHE"]
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        if step.positions is not None and step.positions.lineno is not None:
            line = step.positions.lineno
        for rank, changed, words in _of(code, step, attributes) if (step.arg or 0) <= 255 else ():
            cut = step.argval if step.argval in CUTS and words.startswith(("without", "`enable_grad`")) else None
            yield Change(function, changed, line, words, rank, cut)
        if following is not None and step.opname in GIVES:
            for words, put in PUT_IN.items():
                longer = _put_in(code, following.offset, put)
                if longer is not None:
                    yield Change(function, longer, line, f"{words} before {_shown(step)}", 4)


Changed = Iterator[tuple[int, CodeType, str]]
"""(rank, changed code, words)."""


def _of(code: CodeType, step: dis.Instruction, attributes: Collection[str]) -> Changed:
    """The changes of one instruction."""
    name, at, arg = step.opname, step.offset, step.arg or 0
    if name == "BINARY_OP" and arg in SIGNS:
        yield from _operators(code, at, SIGNS[arg])
    elif name == "UNARY_NEGATIVE":
        yield 0, _with(code, at, (NOP, 0)), "without the minus"
    elif name == "COMPARE_OP" and step.argval in COMPARED:
        for sign, number in COMPARED.items():
            if sign != step.argval:
                yield 1, _with(code, at, (step.opcode, number)), f"`{sign}` for `{step.argval}`"
    elif name == "LOAD_CONST" and isinstance(step.argval, bool | int | float):
        yield from _numbers(code, step)
    elif name in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_GLOBAL"):
        yield from _names(code, step, attributes)
    elif name == VARIABLE:
        for i, other in enumerate(code.co_varnames[:256]):
            if i != arg:
                yield 3, _with(code, at, (CHECKED, i)), f"`{other}` for `{step.argval}`"


def _operators(code: CodeType, at: int, was: str) -> Changed:
    for i, sign in enumerate(INSTEAD[was]):
        other = next(a for a, s in SIGNS.items() if s == sign)
        yield (2 if i else 0), _with(code, at, (BINARY, other)), f"`{sign}` for `{was}`"
    yield 2, _with(code, at, (POP, 0), (NOP, 0)), f"without `{was}` and what is behind it"
    yield 2, _with(code, at, (SWAP, 2), (POP, 0)), f"without `{was}` and what is before it"


def _shown(step: dis.Instruction) -> str:
    """What an instruction computes, in words."""
    if step.opname in (VARIABLE, "LOAD_ATTR"):
        return f"`{step.argval}`"
    return "the result of " + (f"`{SIGNS[step.arg or 0]}`" if step.opname == "BINARY_OP" and step.arg in SIGNS else
                               "a minus" if step.opname == "UNARY_NEGATIVE" else "an index" if step.opname == "BINARY_SUBSCR" else "a call")


def _numbers(code: CodeType, step: dis.Instruction) -> Changed:
    c = step.argval
    made: list[Any] = [not c] if isinstance(c, bool) else []
    for change in () if made else NUMBERS:
        try:
            value = change(c)
        except ZeroDivisionError:
            continue
        value = int(value) if isinstance(c, int) and value == int(value) else value
        if value not in made and value != c:
            made.append(value)
    for value in made:
        if len(code.co_consts) < 255:
            other = code.replace(co_consts=(*code.co_consts, value))
            yield 1, _with(other, step.offset, (step.opcode, len(code.co_consts))), f"{value:.6g} for {c:.6g}"


def _names(code: CodeType, step: dis.Instruction, attributes: Collection[str]) -> Changed:
    shift = 1 if step.opname == "LOAD_GLOBAL" or (step.opname == "LOAD_ATTR" and sys.version_info >= (3, 12)) else 0
    own = [n for n in code.co_names if n != step.argval] if step.opname != "LOAD_GLOBAL" else []
    own += [n for n in attributes if n not in (*own, step.argval)] if step.argval in attributes else []
    others = [(1, n) for group in NAMES if step.argval in group for n in group] + [(3, n) for n in own]
    for rank, name in others:
        index = code.co_names.index(name) if name in code.co_names else len(code.co_names)
        if name == step.argval or index << shift > 255:
            continue
        other = code if index < len(code.co_names) else code.replace(co_names=(*code.co_names, name))
        arg = (index << shift) | ((step.arg or 0) & ((1 << shift) - 1))
        words = f"without `{step.argval}`" if name in LEFT_OUT else f"`{name}` for `{step.argval}`"
        yield rank, _with(other, step.offset, (step.opcode, arg)), words


def _with(code: CodeType, at: int, *steps: tuple[int, int]) -> CodeType:
    """The code with these instructions at the offset."""
    bytecode = bytearray(code.co_code)
    for i, pair in enumerate(steps):
        bytecode[at + 2 * i : at + 2 * i + 2] = bytes(pair)
    return code.replace(co_code=bytes(bytecode))


def _put_in(code: CodeType, at: int, function: Callable[[Any], Any]) -> CodeType | None:
    """The code with a call put in before the offset; None where a jump would have to be longer than a byte."""
    steps = [(CONST, len(code.co_consts)), (SWAP, 2), (BINARY, _RIGHT_SHIFT), (0, 0)]
    if len(code.co_consts) > 255 or code.co_exceptiontable:
        return None
    bytecode = bytearray(code.co_code)
    for jump in dis.get_instructions(code):
        if jump.opcode not in dis.hasjrel:
            continue
        low, high = sorted((jump.offset, jump.argval))
        if at == jump.argval:
            return None
        if low < at <= high:
            if (jump.arg or 0) + len(steps) > 255:
                return None
            bytecode[jump.offset + 1] = (jump.arg or 0) + len(steps)
    for i, pair in enumerate(steps):
        bytecode[at + 2 * i : at + 2 * i] = bytes(pair)
    return code.replace(co_code=bytes(bytecode), co_consts=(*code.co_consts, Applied(function)), co_stacksize=code.co_stacksize + 2)


_RIGHT_SHIFT = next(i.arg or 0 for i in dis.Bytecode(compile("a >> b", "", "eval")) if i.opname == "BINARY_OP")
