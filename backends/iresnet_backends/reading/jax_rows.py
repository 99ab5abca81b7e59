"""The number of rows of a batch as a symbol, through a jaxpr: every operation leaves the rows alone, whatever their number.

Of each value the axis that counts the rows is known. An operation that acts along that axis makes one row depend on another, or on its
place; it is refused. What is left is one and the same map of each row, which is read of the jaxpr at one row.
"""

# pyright: reportPrivateUsage=false
# Who asks for the rows is read off the call stack.

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.core
import numpy as np
from jax.extend import core

from iresnet_backends.errors import ModuleError
from iresnet_backends.reading.jax_library import JAX, Dim
from iresnet_backends.reading.observed import STANDARD

ANY_ROWS = "expected a function that does the same for any number of rows"
ENTRYWISE = frozenset([
    "abs", "acos", "acosh", "add", "add_any", "add_jaxvals", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "clamp",
    "convert_element_type", "copy", "copy_p", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1",
    "floor", "ge", "gt", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min", "mul", "name", "ne",
    "neg", "not", "optimization_barrier", "or", "pow", "reduce_precision", "rem", "round", "rsqrt", "select_n", "sign", "sin", "sinh",
    "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
])  # fmt: skip
"""Primitives whose operands and results have one shape, and one entry each of which makes one entry."""
CALLS = frozenset([
    "jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "remat", "remat2",
    "checkpoint",
])  # fmt: skip
"""Primitives that do what their jaxpr does; others (scan, reduce, kernels) have one for another purpose."""
INSIDE = ("jaxpr", "call_jaxpr", "fun_jaxpr")
Axis = int | None
"""Of a value: the axis of the rows; None where there is none, of constants."""


def inside(equation: Any) -> tuple[Any, Sequence[Any]]:
    """Return the jaxpr of a call, and its constants."""
    found = next(equation.params[key] for key in INSIDE if key in equation.params)
    return getattr(found, "jaxpr", found), getattr(found, "consts", ())


def require_rows_alone(jaxpr: Any) -> None:
    """Prove that a jaxpr of one input and one result, rows first, maps each row on its own. Raises ModuleError."""
    if _axes(jaxpr, [0]) != [0]:
        raise ModuleError(f"from_jax: {ANY_ROWS}, got a result whose first axis is not theirs")


def _axes(jaxpr: Any, axes: Sequence[Axis]) -> list[Axis]:
    """Return the axes of the rows of what a jaxpr makes. Raises ModuleError naming the primitive that acts on rows."""
    known: dict[Any, Axis] = dict(zip(jaxpr.invars, axes, strict=True))

    def of(variable: Any) -> Axis:
        return None if isinstance(variable, core.Literal) else known.get(variable)

    for equation in jaxpr.eqns:
        given = [of(v) for v in equation.invars]
        _require_plain(equation)
        if equation.primitive.name in CALLS:
            made = _axes(inside(equation)[0], given)
        elif any(axis is not None for axis in given):
            made = _made(equation, given)
        else:
            made = [_of_constant(equation, v.aval) for v in equation.outvars]
        for variable, axis in zip(equation.outvars, made, strict=True):
            if [i for i, side in enumerate(_shape(variable)) if isinstance(side, Dim)] != ([] if axis is None else [axis]):
                raise _refused(equation, "it moves the rows where they are not followed")
        known.update(zip(equation.outvars, made, strict=True))
    return [of(v) for v in jaxpr.outvars]


def at_one_row(jaxpr: Any) -> Any:
    """Return the jaxpr at one row."""
    fresh, known = core.gensym(), dict[Any, Any]()

    def of(variable: Any) -> Any:
        if isinstance(variable, core.Literal):
            return variable
        if variable not in known:
            aval = variable.aval
            if any(isinstance(side, Dim) for side in _shape(variable)):
                aval = aval.update(shape=_one(_shape(variable)))
            known[variable] = core.DropVar(aval) if isinstance(variable, core.DropVar) else fresh(aval)
        return known[variable]

    for equation in jaxpr.eqns:
        _require_plain(equation)

    def each(variables: Sequence[Any]) -> list[Any]:
        return [of(v) for v in variables]

    return jaxpr.replace(
        invars=each(jaxpr.invars), constvars=each(jaxpr.constvars), outvars=each(jaxpr.outvars),
        eqns=[e.replace(invars=each(e.invars), outvars=each(e.outvars), params=_one(e.params)) for e in jaxpr.eqns],
    )  # fmt: skip


def _one(tree: Any) -> Any:
    """Return parameters with 1 for the number of rows."""

    def put(leaf: Any) -> Any:
        if isinstance(leaf, Dim):
            return 1
        if isinstance(leaf, core.ClosedJaxpr):
            return leaf.replace(jaxpr=at_one_row(leaf.jaxpr))
        return at_one_row(leaf) if isinstance(leaf, core.Jaxpr) else leaf

    return jax.tree.map(put, tree)


def _shape(variable: Any) -> tuple[Any, ...]:
    return tuple(getattr(variable.aval, "shape", ()))


def _require_plain(equation: Any) -> None:
    """Refuse numbers made of that of the rows. Raises ModuleError."""
    for side in (*jax.tree.leaves(equation.params), *(s for v in (*equation.invars, *equation.outvars) for s in _shape(v))):
        if isinstance(side, Dim) and not str(side).isidentifier():
            raise ModuleError(f"from_jax: {ANY_ROWS}, got {equation.primitive.name} of {side} with their number; try x.shape[1:] or -1")


def _refused(equation: Any, why: str) -> ModuleError:
    return ModuleError(f"from_jax: {ANY_ROWS}, each row on its own, got {equation.primitive.name}: {why}")


def _of_constant(equation: Any, aval: Any) -> Axis:
    """Return the axis of the rows in what is the same for all of them."""
    shape, name = tuple(getattr(aval, "shape", ())), equation.primitive.name
    axis = next((i for i, side in enumerate(shape) if isinstance(side, Dim)), None)
    counts = any(isinstance(leaf, Dim) for leaf in jax.tree.leaves(equation.params)) or "rows" in str(equation.params)
    spread = name == "broadcast_in_dim" and axis not in equation.params["broadcast_dimensions"]
    if (axis is not None or counts) and not (spread or (name == "iota" and equation.params["dimension"] != axis)):
        raise _refused(equation, "it computes with the number of rows")
    return axis


def _made(equation: Any, given: list[Axis]) -> list[Axis]:
    """Return the axes of the results. Raises ModuleError."""
    name = equation.primitive.name
    if name == "optimization_barrier":
        return given
    if name in ENTRYWISE:
        return [_same(equation, given)] * len(equation.outvars)
    rule = RULES.get(name)
    if rule is None:
        raise _refused(equation, "rows are not followed through it")
    axis = rule(equation, given)
    if axis is None:
        raise _refused(equation, "one row would depend on another")
    return [axis] * len(equation.outvars)


def _same(equation: Any, given: list[Axis]) -> Axis:
    axes = {axis for axis in given if axis is not None}
    return axes.pop() if len(axes) == 1 else None


Rule = Callable[[Any, list[Axis]], Axis]


def _reshaped(equation: Any, given: list[Axis]) -> Axis:
    (before,), after = (v.aval.shape for v in equation.invars[:1]), equation.outvars[0].aval.shape
    axis = next((i for i, side in enumerate(after) if isinstance(side, Dim)), None)
    if axis is None or given[0] is None or any(isinstance(side, Dim) for side in after[axis + 1 :]):
        return None
    return axis if math.prod(before[: given[0]]) == math.prod(after[:axis]) else None


def _reduced(equation: Any, given: list[Axis]) -> Axis:
    (axis,), axes = given[:1], equation.params["axes"]
    return None if axis in axes or axis is None else axis - sum(a < axis for a in axes)


def _along(key: str) -> Rule:
    def rule(equation: Any, given: list[Axis]) -> Axis:
        axis, acts = _same(equation, given), equation.params.get(key, -1)
        return None if axis is None or acts % len(_shape(equation.invars[0])) == axis else axis

    return rule


def _joined(equation: Any, given: list[Axis]) -> Axis:
    """Of constants, too, that are the same for every row: all that has rows has them in one place."""
    axis, acts = _same(equation, given), equation.params.get("dimension", equation.params.get("axis", 0))
    if axis is None or any(a is None for a in given):
        return None
    if equation.primitive.name == "stack":
        return axis + int(acts <= axis)
    return None if acts == axis else axis


def _multiplied(equation: Any, given: list[Axis]) -> Axis:
    contracted, batched = equation.params["dimension_numbers"]
    if all(axis is not None for axis in given):
        places = [list(b).index(axis) if axis in b else -1 for b, axis in zip(batched, given, strict=True)]
        return places[0] if places[0] == places[1] >= 0 else None
    side = 0 if given[0] is not None else 1
    axis, bound = given[side], {*contracted[side], *batched[side]}
    if axis is None or axis in bound:
        return None
    free = [[i for i in range(len(_shape(v))) if i not in {*contracted[k], *batched[k]}] for k, v in enumerate(equation.invars)]
    return len(batched[0]) + (len(free[0]) if side else 0) + free[side].index(axis)


def _convolved(equation: Any, given: list[Axis]) -> Axis:
    p = equation.params
    lhs, _, out = p["dimension_numbers"]
    return int(out[0]) if given[1] is None and given[0] == lhs[0] and p["batch_group_count"] == 1 else None


def _sliced(equation: Any, given: list[Axis]) -> Axis:
    axis, p = given[0], equation.params
    if axis is None or any(other is not None for other in given[1:]):
        return None
    sizes = p.get("slice_sizes")
    if sizes is not None:  # a window as wide as the axis stays where it is
        return axis if isinstance(sizes[axis], Dim) else None
    whole = p["start_indices"][axis] == 0 and isinstance(p["limit_indices"][axis], Dim)
    return axis if whole and (p["strides"] is None or p["strides"][axis] == 1) else None


def _gathered(equation: Any, given: list[Axis]) -> Axis:
    axis, p = given[0], equation.params
    numbers = p["dimension_numbers"]
    lost = {*numbers.collapsed_slice_dims, *getattr(numbers, "operand_batching_dims", ())}
    if axis is None or given[1] is not None or axis in {*lost, *numbers.start_index_map} or not isinstance(p["slice_sizes"][axis], Dim):
        return None
    return int(numbers.offset_dims[[i for i in range(len(_shape(equation.invars[0]))) if i not in lost].index(axis)])


def _windowed(equation: Any, given: list[Axis]) -> Axis:
    axis, p = given[0], equation.params
    if axis is None:
        return None
    ones = [p[key][axis] == 1 for key in ("window_dimensions", "window_strides", "base_dilation", "window_dilation")]
    return axis if all(ones) and tuple(p["padding"][axis]) == (0, 0) else None


RULES: dict[str, Rule] = {
    "transpose": lambda e, given: list(e.params["permutation"]).index(given[0]),
    "broadcast_in_dim": lambda e, given: None if given[0] is None else e.params["broadcast_dimensions"][given[0]],
    "reshape": _reshaped, "squeeze": _reshaped, "expand_dims": _reshaped,
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin"), _reduced),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "split"), _along("axis")),
    "sort": _along("dimension"), "top_k": _along("axis"), "concatenate": _joined, "stack": _joined,
    "dot_general": _multiplied, "conv_general_dilated": _convolved, "slice": _sliced, "dynamic_slice": _sliced, "gather": _gathered,
    "pad": lambda e, given: given[0] if given[0] is not None and tuple(e.params["padding_config"][given[0]]) == (0, 0, 0) else None,
    "rev": lambda e, given: None if given[0] in e.params["dimensions"] else given[0],
    "reduce_window_sum": _windowed,
    "tile": lambda e, given: given[0] if given[0] is not None and e.params["reps"][given[0]] == 1 else None,
}  # fmt: skip
"""By primitive: the axis of the rows of its results, None where it acts along that of its operands."""


def _asking(method: Any, what: str, judge: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A method of JAX that code of the function itself may not call; `judge` answers what is the same for every number of rows."""

    def asked(self: Any, *others: Any, **how: Any) -> Any:
        frame: Any = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename.startswith(STANDARD):
            frame = frame.f_back
        if frame is None or JAX.owns(frame.f_globals):
            return method(self, *others, **how)
        answer = None if judge is None else judge(self, *others)
        if answer is None:
            raise ModuleError(f"from_jax: {what}")
        return answer

    return asked


def _equal(a: Any, b: Any) -> bool | None:
    """Whether two numbers are equal for every number of rows, or for none; else None."""
    if b is None or isinstance(b, (str, tuple, list, type)):
        return False
    if not isinstance(b, (int, Dim)):
        return None  # a float, an array, or what says itself what it is equal to
    difference = a - b
    if not isinstance(difference, Dim):
        return bool(difference == 0)
    for sign in (difference, -difference):
        try:
            if sign >= 1:
                return False
        except core.InconclusiveDimensionOperation:
            continue
    return None


def _is_some(a: Any) -> bool | None:
    """Whether a number is not 0, for every number of rows."""
    return _unequal(a, 0)


def _unequal(a: Any, b: Any) -> bool | None:
    equal = _equal(a, b)
    return None if equal is None else not equal


def _some(number: Any) -> bool:
    """What Python makes of an object that does not say whether it is true."""
    del number
    return True


def _as_object(number: Any, *how: Any, **more: Any) -> Any:
    """What NumPy makes of an object that is no array."""
    del how, more
    found: Any = np.empty((), dtype=object)
    found[()] = number
    return found


@contextmanager
def unasked() -> Iterator[None]:
    """Let code of the function ask neither for the number of rows nor for the text of a traced value."""
    number = f"{ANY_ROWS}, got one that asks for their number; try x.shape[1:] or -1"
    text = "expected a function of numbers, got one that asks for the text of a traced value"
    asked = [
        *((Dim, name, number, None) for name in ("__hash__", "__repr__", "__str__", "__format__")),
        (Dim, "__eq__", number, _equal), (Dim, "__ne__", number, _unequal), (Dim, "__bool__", number, _is_some),
        (Dim, "__array__", number, None),
        *((jax.core.Tracer, name, text, None) for name in ("__repr__", "__str__", "__format__")),
    ]  # fmt: skip
    before = [(kind, name, vars(kind).get(name)) for kind, name, _, _ in asked]
    for kind, name, what, judge in asked:
        setattr(kind, name, _asking(getattr(kind, name, _as_object if name == "__array__" else _some), what, judge))
    try:
        yield
    finally:
        for kind, name, method in before:
            if method is None:
                delattr(kind, name)
            else:
                setattr(kind, name, method)
