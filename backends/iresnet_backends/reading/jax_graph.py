"""What a function of batches of JAX does to one event, read from its jaxpr: what it computes, whatever it is made of.

The function is traced for any number of rows, by `jax_function`, and read at one. A jaxpr holds no hidden decision on numbers: `cond`,
`while`, `scan` are refused by name.
Constants are those of the jaxpr. A call (`jit`, `custom_jvp`) is an activation where its jaxpr is that of a function of jax.nn, letter by
letter; any other is read inside. What is affine and has no layer of its own becomes its matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

import iresnet_ref as ir
from iresnet_backends.errors import ModuleError
from iresnet_backends.reading import comparison
from iresnet_backends.reading.forward_graph import Value, layers_between, less, reshaped, selection
from iresnet_backends.reading.jax_function import at_one, computed, require_any_weakness, traced
from iresnet_backends.reading.jax_layers import FUNCTIONS, LARGEST, Reader
from iresnet_backends.reading.jax_rows import CALLS, INSIDE, require_rows_alone
from iresnet_backends.reading.sorting import ORDER, Sorting
from iresnet_ref.arrays import to_host
from iresnet_ref.errors import ShapeError
from iresnet_ref.layers import activations, piecewise, saturating
from iresnet_ref.layers.activations import Activation
from iresnet_ref.layers.diagonal import DiagonalAffine
from iresnet_ref.layers.layer import Layer
from iresnet_ref.layers.linear import Affine
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_ref.layers.rearrangement import Rearrangement

AFFINE = frozenset([
    "dot_general", "broadcast_in_dim", "slice", "rev", "pad", "reduce_sum", "cumsum", "gather", "dynamic_slice", "split",
    "reduce_window_sum", "conv_general_dilated", "concatenate", "stack", "tile",
])  # fmt: skip
"""Primitives that are affine in their followed operands together."""
SAME = frozenset(["copy", "copy_p", "optimization_barrier"])
RESHAPES = frozenset(["reshape", "squeeze", "expand_dims"])
ARITHMETIC = frozenset(["add", "sub", "add_any", "neg", "mul", "div", "max", "min", "clamp"])
SORTS = frozenset(["sort", "top_k", "reduce_max", "reduce_min"])
"""Of one followed operand along one axis; an order, such as argsort's, is no value."""
UNARY = {"tanh": "tanh", "logistic": "sigmoid", "sin": "sine"}


def _with_number(function: Any, x: Any) -> Any:
    """A function of jax.nn with its number given, so that its jaxpr takes it as an argument."""
    return function(x, 0.7)


FAMILIES: dict[Any, Callable[[float], Activation]] = {
    partial(_with_number, jax.nn.elu): activations.elu, partial(_with_number, jax.nn.celu): saturating.celu,
    partial(_with_number, jax.nn.leaky_relu): activations.leaky_relu,
}  # fmt: skip
"""Functions of jax.nn that pass one number on to their jaxpr."""
READ = {
    "add, sub, add_any, neg, mul and div by a constant": "sums of paths, and scales and shifts",
    "tanh, logistic, sin, abs, max with 0, clamp; every function of jax.nn listed under functions": "activations of the proofs",
    "sort of one operand, reduce_max, reduce_min along an axis, top_k without its places, max and min of two values":
        "`GroupSort` of the entries along that axis, and its ends",
    "reshape, squeeze, expand_dims, transpose": "the event in another shape or order",
    ", ".join(sorted(AFFINE)): "`Conv` where stride is 1 and the image keeps its size, else the matrix on the events, up to 4096 × 4096",
    ", ".join(sorted(CALLS)): "what is inside",
}
"""The primitives that are read, in the words of the docs."""


def read(
    function: Callable[[Any], Any], shape: tuple[int, ...], like: Any, *, less_input: bool = False, rows: int = comparison.ROWS,
    rounded: list[str] | None = None,
) -> ir.Branch:
    """Return what a function of batches does to events of this shape, or g of F(x) = x + g(x) with `less_input`; compared on probes.

    Divisions by a constant whose inverse the dtype does not have are written down in `rounded`.

    Raises: ModuleError naming the primitive that is not understood, or showing both numbers where the two differ; ShapeError.
    """
    with jax.default_matmul_precision("highest"):
        every = traced(function, shape, like.dtype)
        closed = at_one(every)
        start = Value(shape)
        batch = Value((1, *shape), (start,), lambda: [reshaped(shape, (1, *shape))])
        (end,) = _Jaxpr(like.dtype, [] if rounded is None else rounded).outputs(closed.jaxpr, closed.consts, [batch])
        if not isinstance(end, Value):
            raise ModuleError("from_jax: expected a value that depends on the input, got a constant")
        if end.event != (1, *shape):
            raise ShapeError(f"from_jax: expected a branch whose ends agree, for x + g(x), got {shape} → {end.event[1:]}")

        def branch(value: Value) -> ir.Branch:
            last = Value(shape, (value,), lambda: [reshaped((1, *shape), shape)])
            layers = layers_between(start, last)
            if not any(layer.parameters for layer in layers):
                raise ModuleError("from_jax: expected at least one layer with numbers of its own, got none")
            found = ir.Branch(layers, shape)  # on the host: JAX would compile every operation of the running error
            return found.with_parameters({k: to_host(p) for k, p in found.parameters().items()})

        require_rows_alone(every.jaxpr)
        require_any_weakness(function, shape, like.dtype)
        comparison.require_agreement(branch(end), lambda x: function(jnp.asarray(x)), "from_jax", rows)
        if not less_input:
            return branch(end)
        ones = jnp.ones((1, *shape), dtype=like.dtype)
        return branch(less(end, batch, lambda: [DiagonalAffine(-ones, 0 * ones)]))


class _Jaxpr:
    """Reads jaxprs: every variable is a constant array, or a `Value` of the shape that it has there."""

    def __init__(self, dtype: Any, rounded: list[str]) -> None:
        self.dtype, self.rounded, self.sorting = dtype, rounded, Sorting()

    def outputs(self, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
        """Return what a jaxpr makes of its arguments."""
        known: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))

        def of(variable: Any) -> Any:
            if isinstance(variable, Literal):
                return jnp.asarray(variable.val, dtype=_dtype_of(variable))
            if variable not in known:
                raise self.refused("a part of GELU", "it is used outside of it")
            return known[variable]

        passed = 0
        for i, equation in enumerate(jaxpr.eqns):
            if i < passed:
                continue
            found = next((found for run in _RUNS if (found := _run_from(jaxpr.eqns[i:], run, self.dtype)) is not None), None)
            if found is not None and isinstance(of(found[0]), Value):
                x, length, name = found
                known[jaxpr.eqns[i + length - 1].outvars[0]] = _pointwise(of(x), activations.get(name))
                passed = i + length
                continue
            operands = [of(v) for v in equation.invars]
            if any(isinstance(o, Value) for o in operands):
                made = self.made(equation, operands)
            else:
                result = computed(equation, operands)
                made = list(result) if equation.primitive.multiple_results else [result]
            known.update(zip(equation.outvars, made, strict=True))
        return [of(v) for v in jaxpr.outvars]

    def made(self, equation: Any, operands: list[Any]) -> list[Any]:
        """Return the values of one equation. Raises ModuleError by the name of its primitive."""
        name = equation.primitive.name
        if name == "convert_element_type" and equation.outvars[0].aval.dtype == self.dtype:
            return [operands[0]]
        if any(o is ORDER for o in operands):
            raise self.refused(name, "it uses the order that a sort has found, which jumps; the sorted values are read")
        for variable in () if name in CALLS else equation.outvars[: 1 if name in SORTS else None]:
            if variable.aval.dtype != self.dtype:
                raise self.refused(name, f"it makes {variable.aval.dtype} of {self.dtype}: a decision, or another precision")
        if not equation.outvars:
            raise self.refused(name, "it makes nothing of the input but shows it to Python")
        if name in CALLS:
            inner = next(equation.params[key] for key in INSIDE if key in equation.params)
            return self.call(inner, operands, equation.params.get("name", ""))
        x, out = next(o for o in operands if isinstance(o, Value)), tuple(equation.outvars[0].aval.shape)
        if name in SAME:
            return operands
        if name in ARITHMETIC:
            return [self.arithmetic(name, operands, out)]
        if name in AFFINE | SORTS:
            return self.affine(equation, operands) if name in AFFINE else self.sorted(equation, operands)
        layer = _layer(name, equation, x, out)
        if layer is None:
            raise self.refused(name, "no Lipschitz constant of it is known here")
        return [Value(out, (x,), lambda: [layer], (UNARY.get(name), x))]

    def refused(self, name: str, why: str) -> ModuleError:
        """Return the error of a primitive that is not read."""
        return ModuleError(f"from_jax: expected primitives with a known Lipschitz constant, got {name}: {why}")

    def call(self, inside: Any, operands: list[Any], called: str = "") -> list[Any]:
        """Return an activation, or what the jaxpr of a call makes of its arguments."""
        jaxpr, consts = getattr(inside, "jaxpr", inside), getattr(inside, "consts", ())
        if isinstance(operands[0], Value) and not any(isinstance(o, Value) for o in operands[1:]):
            x = operands[0]
            text = str(inside)
            for function, name in FUNCTIONS if len(operands) == 1 else ():
                if _is_text(text, function, x.event, self.dtype, called):
                    activation = piecewise.hardtanh(0.0, 6.0) if name == "relu6" else activations.get(name)
                    return [_pointwise(x, activation, note=(name, x))]
            for function, family in FAMILIES.items() if len(operands) == 2 and operands[1].ndim == 0 else ():
                if _is_text(text, function, x.event, self.dtype, called):
                    return [_pointwise(x, family(float(operands[1])))]
        return self.outputs(jaxpr, consts, operands)

    def arithmetic(self, name: str, operands: list[Any], out: tuple[int, ...]) -> Value:
        """Return sums, scales, shifts, ReLU, clamps, and z σ(z)."""
        if name == "neg":
            return self.diagonal(operands[0], -1.0, 0.0)
        if name == "clamp":
            low, z, high = operands
            if isinstance(low, Value) or isinstance(high, Value) or low.ndim or high.ndim:
                raise self.refused(name, "its ends are no two numbers")
            return _pointwise(z, piecewise.hardtanh(float(low), float(high)))
        a, b = operands
        if isinstance(a, Value) and isinstance(b, Value):
            return self.of_two(name, a, b, out)
        x, c = (a, b) if isinstance(a, Value) else (b, a)
        x = self.widened(x, out)
        if name == "max" and not np.any(np.asarray(c) != 0):
            return _pointwise(x, activations.get("relu"))
        if name in ("max", "min") or (name == "div" and x is b):
            raise self.refused(name, "its slope is unbounded" if name == "div" else "of a constant, it is read with 0 alone, as max")
        if name == "div" and np.any(np.abs(np.frexp(np.asarray(c, dtype=np.float64))[0]) != 0.5):
            self.rounded.append(name)
        left = 1.0 if x is a else -1.0  # the side of a difference
        scale, shift = {"mul": (c, 0.0), "div": (1.0 / c if name == "div" else 0.0, 0.0), "sub": (left, -left * c)}.get(name, (1.0, c))
        return self.diagonal(x, scale, shift)

    def of_two(self, name: str, a: Value, b: Value, out: tuple[int, ...]) -> Value:
        """Return a sum or a difference of two values, or z σ(z)."""
        a, b = self.widened(a, out), self.widened(b, out)
        if name in ("add", "add_any", "sub"):
            return Value(out, (a, self.diagonal(b, -1.0, 0.0) if name == "sub" else b))
        if name in ("max", "min"):
            if a.event != b.event or 2 * math.prod(out) > LARGEST:
                raise self.refused(name, f"its values have {2 * math.prod(out)} entries, or other shapes; at most {LARGEST} are read")
            return self.sorting.of_two(a, b, jnp.zeros((), self.dtype), largest=name == "max")
        for z, gate in ((a, b), (b, a)):
            if name == "mul" and isinstance(gate.note, tuple) and gate.note[0] == "sigmoid" and gate.note[1] is z:
                return _pointwise(z, activations.get("silu"))
        raise self.refused(name, "of two values that depend on the input it has no Lipschitz constant on the whole space")

    def widened(self, x: Value, out: tuple[int, ...]) -> Value:
        """Return x with its entries repeated along axes of one entry."""
        if x.event == out:
            return x
        if math.prod(out) > LARGEST:
            raise self.refused("a broadcast", f"it has {math.prod(out)} entries, at most {LARGEST} are read")
        place = np.broadcast_to(np.arange(math.prod(x.event)).reshape(x.event), out).reshape(-1)
        return Value(out, (x,), lambda: selection(x.event, place, out, jnp.zeros((), self.dtype)))

    def sorted(self, equation: Any, operands: list[Any]) -> list[Any]:
        """Return a sorted axis, the first of it, or one of its ends."""
        name, p, out = equation.primitive.name, equation.params, tuple(equation.outvars[0].aval.shape)
        x, axes = operands[0], p.get("axes", (p.get("dimension", p.get("axis", -1)),))
        if not isinstance(x, Value) or any(isinstance(o, Value) for o in operands[1:]) or p.get("num_keys", 1) != 1 or len(axes) != 1:
            raise self.refused(name, "of several lists that depend on the input, or along several axes, it is not read")
        axis = axes[0] % len(x.event)
        if x.event[axis] == 1:
            raise self.refused(name, "its axis has one entry, as that of the batch has here")
        if math.prod(x.event) > LARGEST and name != "sort":
            raise self.refused(name, f"it has {math.prod(x.event)} entries, at most {LARGEST} are read")
        if name == "sort":
            return [self.sorting.along(x, axis, descending=False), *(ORDER for _ in operands[1:])]
        like = jnp.zeros((), self.dtype)
        if name == "top_k":
            whole = self.sorting.along(x, axis, descending=True)
            place = np.take(np.arange(math.prod(x.event)).reshape(x.event), np.arange(out[axis]), axis).reshape(-1)
            return [Value(out, (whole,), lambda: selection(x.event, place, out, like)), ORDER]
        one = self.sorting.end(x, axis, like, largest=name == "reduce_max")
        return [Value(out, (one,), lambda: [reshaped(one.event, out)])]

    def diagonal(self, x: Value, scale: Any, bias: Any) -> Value:
        """Return scale∘x + bias."""
        a, b = (jnp.broadcast_to(jnp.asarray(c, dtype=self.dtype), x.event) for c in (scale, bias))
        return Value(x.event, (x,), lambda: [DiagonalAffine(a, b)])

    def convolution(self, equation: Any, x: Value, kernel: Any, out: tuple[int, ...]) -> Value:
        """Return a convolution of one image, its axes brought to (channels, *image)."""
        p = equation.params
        lhs, rhs, result = p["dimension_numbers"]
        if x.event[lhs[0]] != 1 or p["batch_group_count"] != 1 or any(d != 1 for d in p["lhs_dilation"]):
            raise self.refused("conv_general_dilated", "its operands are batched or dilated")
        inside = tuple(x.event[axis] for axis in lhs[1:])
        reader = Reader(x.event, jnp.zeros((), self.dtype), {})
        reader.add(Rearrangement(x.event, lhs, inside))
        turned = jnp.transpose(kernel, rhs)
        settings = (p["window_strides"], p["padding"], p["rhs_dilation"], p["feature_group_count"])
        reader.convolution(turned, None, *settings, "constant", "its jaxpr")
        end = (1, *reader.event)
        back = tuple(int(i) for i in np.argsort(result))
        layers = [*reader.layers, reshaped(reader.event, end), Rearrangement(end, back, out)]
        return Value(out, (x,), lambda: layers)

    def affine(self, equation: Any, operands: list[Any]) -> list[Any]:
        """Return the sum of the matrices of all followed operands, and the shift."""
        places = [i for i, o in enumerate(operands) if isinstance(o, Value)]
        if equation.primitive.name == "conv_general_dilated" and places == [0]:
            return [self.convolution(equation, operands[0], operands[1], tuple(equation.outvars[0].aval.shape))]
        if len(places) > 1 and equation.primitive.name not in ("concatenate", "stack"):
            raise self.refused(equation.primitive.name, "a product of two values that depend on the input")
        ends = [tuple(v.aval.shape) for v in equation.outvars]
        sizes = [math.prod(shape) for shape in (*(operands[i].event for i in places), *ends)]
        if max(sizes) > LARGEST:
            raise self.refused(equation.primitive.name, f"its matrix would have {max(sizes)} rows or columns, at most {LARGEST} are proved")
        zeros = [jnp.zeros(o.event, self.dtype) if isinstance(o, Value) else o for o in operands]

        def at(place: int, row: Any) -> list[Any]:
            found = computed(equation, [row if i == place else z for i, z in enumerate(zeros)])
            return list(found) if equation.primitive.multiple_results else [found]

        shifts = at(places[0], zeros[places[0]])
        images = []
        for place in places:
            n = zeros[place].size
            images.append(jax.vmap(partial(at, place))(jnp.eye(n, dtype=self.dtype).reshape(n, *zeros[place].shape)))
        made = []
        for k, (end, shift) in enumerate(zip(ends, shifts, strict=True)):
            terms = []
            for place, rows in zip(places, images, strict=True):
                event = operands[place].event
                flat = shift.reshape(-1)
                matrix = (rows[k].reshape(rows[k].shape[0], -1) - flat).T
                own = flat if place == places[0] else jnp.zeros_like(flat)
                terms.append(Value(end, (operands[place],), partial(_matrix, event, end, matrix, own)))
            made.append(terms[0] if len(terms) == 1 else Value(end, tuple(terms)))
        return made


def _layer(name: str, equation: Any, x: Value, out: tuple[int, ...]) -> Layer | None:
    """Return the layer of a primitive of one operand, or None."""
    if name in UNARY:
        return Pointwise(activations.get(UNARY[name]))
    if name == "abs":
        return Pointwise(activations.leaky_relu(-1.0))
    if name in RESHAPES:
        return reshaped(x.event, out)
    return Rearrangement(x.event, tuple(equation.params["permutation"]), out) if name == "transpose" else None


def _matrix(event: tuple[int, ...], out: tuple[int, ...], matrix: Any, shift: Any) -> list[Layer]:
    return [reshaped(event, (math.prod(event),)), Affine(matrix, shift), reshaped((math.prod(out),), out)]


def _pointwise(x: Value, activation: Activation, note: Any = None) -> Value:
    return Value(x.event, (x,), lambda: [Pointwise(activation)], note)


@lru_cache(maxsize=1024)
def _traced(function: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.make_jaxpr(function)(jax.ShapeDtypeStruct(shape, dtype)).jaxpr


@lru_cache(maxsize=1024)
def _text(function: Any, shape: tuple[int, ...], dtype: Any) -> str:
    """Return the jaxpr inside of the one call that a function of jax.nn is, as text; "" where it is no call."""
    equations = _traced(function, shape, dtype).eqns
    inside = next((equations[0].params[key] for key in INSIDE if key in equations[0].params), None) if len(equations) == 1 else None
    return "" if inside is None else str(inside)


def _is_text(text: str, function: Any, shape: tuple[int, ...], dtype: Any, called: str) -> bool:
    """Whether a text is that of a function, or of one of its name under as many vmaps as there are axes."""
    if _text(function, shape, dtype) == text:
        return True
    named = called == getattr(function, "__name__", "") or isinstance(function, partial)
    return bool(called) and named and any(_text(_mapped(function, depth), shape, dtype) == text for depth in range(1, len(shape) + 1))


@lru_cache(maxsize=256)
def _mapped(function: Any, depth: int) -> Any:
    """Return the function under vmaps of its first argument."""
    def of_first(x: Any, *numbers: Any) -> Any:
        mapped = partial(_with_numbers, function, numbers)
        for _ in range(depth):
            mapped = jax.vmap(mapped)
        return mapped(x)

    return of_first


def _with_numbers(function: Any, numbers: tuple[Any, ...], x: Any) -> Any:
    return function(x, *numbers)


_RUNS: dict[Any, str] = {jax.nn.gelu: "gelu tanh", partial(jax.nn.gelu, approximate=False): "gelu"}
"""Functions of jax.nn that are no call of their own: a run of equations."""


def _run_from(equations: Sequence[Any], function: Any, dtype: Any) -> tuple[Any, int, str] | None:
    """Return the variable that these equations begin by applying the function to, how many they are, and its name; or None."""
    for x in {v for v in equations[0].invars if not isinstance(v, Literal) and v.aval.dtype == dtype}:
        wanted = _traced(function, tuple(x.aval.shape), dtype)
        same = {wanted.invars[0]: x}
        if len(equations) >= len(wanted.eqns) and all(_alike(a, b, same) for a, b in zip(wanted.eqns, equations, strict=False)):
            return x, len(wanted.eqns), _RUNS[function]
    return None


def _dtype_of(literal: Any) -> Any:
    return literal.aval.dtype


def _alike(wanted: Any, found: Any, same: dict[Any, Any]) -> bool:
    """Whether two equations are one and the same, variables as in `same`, which learns the new ones."""
    if wanted.primitive is not found.primitive or len(wanted.invars) != len(found.invars) or str(wanted.params) != str(found.params):
        return False
    for a, b in zip(wanted.invars, found.invars, strict=True):
        if isinstance(a, Literal) != isinstance(b, Literal):
            return False
        if (a.val != b.val or _dtype_of(a) != _dtype_of(b)) if isinstance(a, Literal) else same.get(a) is not b:
            return False
    same.update(zip(wanted.outvars, found.outvars, strict=True))
    return True
