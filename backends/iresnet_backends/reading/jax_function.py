"""The jaxpr of a function of batches, for any number of rows and for every call of it: traced twice, and everything it looks at observed.

A trace stands for a call that is not traced, since the function cannot tell one from the other: it may load nothing that does. It stands
for later calls, since what it remembers is the same after one. Functions with a rule for derivatives compute by that rule where they are
differentiated; it must compute the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.core
from jax.extend import core

from iresnet_backends.errors import ModuleError
from iresnet_backends.reading.jax_library import JAX
from iresnet_backends.reading.jax_rows import ANY_ROWS, CALLS, at_one_row, inside, unasked
from iresnet_backends.reading.observed import observed
from iresnet_backends.reading.remembered import Remembered

IMPURE = frozenset([
    "infeed", "outfeed", "rng_uniform", "axis_index", "create_token", "after_all", "get", "swap", "empty2", "custom_lin", "call",
])  # fmt: skip
"""Primitives of JAX that are no functions of their operands."""
OWN = str(Path(jax.__file__).parent)
PURE: dict[Any, None] = dict.fromkeys(
    getattr(place, name) for place in (core.primitives, jax.lax) for name in dir(place) if name.endswith("_p") and name[:-2] not in IMPURE
)
"""The others: what is of another library, or calls back to Python, is none."""


def traced(function: Callable[[Any], Any], shape: tuple[int, ...], dtype: Any) -> Any:
    """Return the closed jaxpr of a function of batches whose number of rows is a symbol.

    Raises: ModuleError naming what it looks at, what changes, or the primitive that may be anything.
    """
    with observed(JAX) as first:
        once = _trace(function, shape, dtype)
    if any(map(_is_remembered, _equations(once.jaxpr))):
        jax.clear_caches()  # of calls with other shapes, whose traces may be another map
        with observed(JAX) as first:
            once = _trace(function, shape, dtype)
    first.objects[id(function)] = function
    before = Remembered(first)
    with observed(JAX) as again:
        again.objects[id(function)] = function
        twice = _trace(function, shape, dtype)
    again.require_nothing()
    before.require_same(again)
    if str(once) != str(twice) or list(map(JAX.content, once.consts)) != list(map(JAX.content, twice.consts)):
        raise ModuleError("from_jax: expected a function that is the same in every run, got another jaxpr when it is traced again")
    return twice


def require_any_weakness(function: Callable[[Any], Any], shape: tuple[int, ...], dtype: Any) -> None:
    """Refuse another map of arrays whose type is weak, such as those made of Python's numbers. Raises ModuleError."""
    (rows,) = jax.export.symbolic_shape("rows")
    avals = [jax.ShapeDtypeStruct((rows, *shape), dtype, weak_type=weak) for weak in (False, True)]
    with unasked():
        strong, weak = (_flat(function, [aval]) for aval in avals)
    if strong != weak:
        raise ModuleError("from_jax: expected a function that does the same to arrays whose type is weak, got another jaxpr of them")


def at_one(closed: Any) -> Any:
    """Return the closed jaxpr at one row."""
    return closed.replace(jaxpr=at_one_row(closed.jaxpr))


def _trace(function: Callable[[Any], Any], shape: tuple[int, ...], dtype: Any) -> Any:
    (rows,) = jax.export.symbolic_shape("rows")
    with unasked():
        try:
            closed = jax.make_jaxpr(lambda x: function(x))(jax.ShapeDtypeStruct((rows, *shape), dtype))  # noqa: PLW0108  it may have no name
        except ModuleError:
            raise
        except Exception as error:
            text = (str(error).splitlines() or [""])[0]
            symbol = isinstance(error, core.InconclusiveDimensionOperation) or "_DimExpr" in text or "symbolic" in text
            what = ANY_ROWS if symbol else "expected a function that can be traced"
            raise ModuleError(f"from_jax: {what}, got {type(error).__name__}: {text}") from error
        for equation in _equations(closed.jaxpr):
            _require_known(equation)
            if equation.primitive.name.startswith(("custom_jvp_call", "custom_vjp_call")):
                _require_same_rule(equation)
    return closed


def _equations(jaxpr: Any) -> Iterator[Any]:
    """Yield all equations, those inside of others included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from _equations(inner)


def _is_remembered(equation: Any) -> bool:
    """Whether JAX keeps the trace of code that is not its own from call to call."""
    sources = (str(getattr(inner.debug_info, "func_src_info", "")) for inner in core.jaxprs_in_params(equation.params))
    return any(OWN not in source for source in sources)


def _require_known(equation: Any) -> None:
    """Refuse primitives that may be anything. Raises ModuleError."""
    name = equation.primitive.name
    if equation.primitive not in PURE:
        if name.startswith("dim"):
            raise ModuleError(f"from_jax: {ANY_ROWS}, got one that computes with their number; try x.shape[1:] or -1")
        why = "it calls back to Python" if "callback" in name else "it is of another library, or no function of its operands alone"
        raise ModuleError(f"from_jax: expected primitives of JAX with a known Lipschitz constant, got {name}: {why}")
    if equation.effects:
        raise ModuleError(f"from_jax: expected primitives without an effect, got {name} with {', '.join(map(str, equation.effects))}")


def _require_same_rule(equation: Any) -> None:
    """Refuse a function that computes something else where it is differentiated. Raises ModuleError."""
    floats = [i for i, v in enumerate(equation.invars) if jax.numpy.issubdtype(v.aval.dtype, jax.numpy.floating)]

    def by_its_rule(*operands: Any) -> Any:
        def of_floats(*given: Any) -> Any:
            whole = list(operands)
            for place, value in zip(floats, given, strict=True):
                whole[place] = value
            return computed(equation, whole)

        return jax.vjp(of_floats, *(operands[i] for i in floats))[0]

    jaxpr, consts = inside(equation)
    avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype, weak_type=v.aval.weak_type) for v in equation.invars]
    try:
        plain, ruled = _flat(lambda *a: jax.core.eval_jaxpr(jaxpr, consts, *a), avals), _flat(by_its_rule, avals)
    except ModuleError:
        raise
    except Exception as error:
        raise ModuleError(
            f"from_jax: expected a function that can be differentiated by its rule, got {type(error).__name__} in {equation.primitive.name}"
        ) from error
    if plain != ruled:
        raise ModuleError(
            f"from_jax: expected a function that computes the same where it is differentiated, got {equation.primitive.name} whose value "
            "by its rule is made in another way"
        )


def _flat(function: Callable[..., Any], avals: Sequence[Any]) -> tuple[str, list[Any]]:
    """Return the text of a function's jaxpr, calls replaced by what is inside and what is not used left out, and its constants."""
    closed = jax.make_jaxpr(lambda *a: function(*a))(*avals)  # noqa: PLW0108  it may have no name
    flat = jax.make_jaxpr(lambda *a: _inlined(closed.jaxpr, closed.consts, a))(*avals)
    needed = {v for v in flat.jaxpr.outvars if not isinstance(v, core.Literal)}
    kept: list[Any] = []
    for equation in reversed(flat.jaxpr.eqns):
        if needed & set(equation.outvars):
            kept.insert(0, equation)
            needed.update(v for v in equation.invars if not isinstance(v, core.Literal))
    used = [(v, c) for v, c in zip(flat.jaxpr.constvars, flat.consts, strict=True) if v in needed]
    short = flat.jaxpr.replace(eqns=kept, constvars=[v for v, _ in used])
    return str(short).replace('*', ''), [JAX.content(c) for _, c in used]


def _inlined(jaxpr: Any, consts: Sequence[Any], operands: Sequence[Any]) -> list[Any]:
    known: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *operands), strict=True))
    for equation in jaxpr.eqns:
        given = [v.val if isinstance(v, core.Literal) else known[v] for v in equation.invars]
        if equation.primitive.name in CALLS:
            made = _inlined(*inside(equation), given)
        elif equation.primitive.name == "convert_element_type" and given[0].dtype == equation.params["new_dtype"]:
            made = given  # of another weakness
        else:
            found = computed(equation, given)
            made = list(found) if equation.primitive.multiple_results else [found]
        known.update(zip(equation.outvars, made, strict=True))
    return [v.val if isinstance(v, core.Literal) else known[v] for v in jaxpr.outvars]


def computed(equation: Any, operands: Sequence[Any]) -> Any:
    """Return what an equation makes of arrays; calls take their functions first, by versions of JAX in the one way or the other."""
    bound = equation.primitive.get_bind_params(dict(equation.params))
    functions, params = bound if isinstance(bound, tuple) else ((), bound)
    return equation.primitive.bind(*functions, *operands, **params)
