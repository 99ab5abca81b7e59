"""Functions of JAX that look contractive where they are traced, and are not for every call: no proof may pass."""

from __future__ import annotations

import contextlib
import itertools
import operator
import os
import random
import sys
import threading
import time
from abc import ABC
from collections.abc import Callable, Hashable, Iterator
from functools import partial, singledispatch
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pytest
from hidden_counters import MANY, Counting, count_at, count_in, count_outside, remembered_clock

from iresnet_backends import ModuleError

jax = pytest.importorskip("jax")
jnp, lax, settings = jax.numpy, jax.lax, jax.config
from jax.extend.core import Primitive, get_opaque_trace_state  # noqa: E402

from iresnet_backends.reading.jax_graph import read  # noqa: E402

LIKE = jnp.zeros((), dtype=jnp.float32)
W = 0.5 * jnp.eye(4, dtype=jnp.float32)
FAR, STEEP = 1e3, 50.0
"""Beyond every probe; how steep the map is elsewhere."""


@pytest.fixture(autouse=True)
def _float32() -> Iterator[None]:
    """JAX as it is imported: other tests set its 64 bits for the whole process."""
    with jax.enable_x64(False):
        yield


def steep(x: Any) -> Any:
    return jnp.where(jnp.abs(x) > FAR, STEEP * x, 0.5 * x)


def decided(decide: Callable[[Any], Any], x: Any) -> Any:
    return (x @ W) * (STEEP if decide(x) else 1.0)


class Steady:
    """A layer as it should be."""

    def __call__(self, x: Any) -> Any:
        return x @ W


class Overridden(Steady):
    def __call__(self, x: Any) -> Any:
        return super().__call__(x) * (STEEP if time.time() > 2e12 else 1.0)


class Keeping:
    """Weights that drift from call to call."""

    def __init__(self) -> None:
        self.weight = W

    def __call__(self, x: Any) -> Any:
        self.weight = self.weight * 1.0001
        return x @ self.weight


class Converted:
    """What becomes an array when it is asked to."""

    def __jax_array__(self) -> Any:
        return W * (STEEP if time.time() > 2e12 else 1.0)


class Sneaky:
    """What is equal to a thousand."""

    def __eq__(self, other: Any) -> Any:
        return other == 10**3 or isinstance(other, int)

    __hash__ = None  # type: ignore[assignment]


class ShapeOf:
    """What is an array of NumPy when it is asked to."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.asarray(W) * (STEEP if time.time() > 2e12 else 1.0)


SNEAKY, LOOKS, WEAK = Sneaky(), {"has": hasattr}, operator.attrgetter("weak_type")
OBJECT, CALLS, COUNT, LEFT = Counting(), [0], itertools.count(), list(range(10**6))
NUMBER, FUNCTIONS, CONTEXT, GENERATOR = np.zeros(()), {"now": time.time}, threading.local(), np.random.default_rng(0)
WEIGHTS, CONVERTED, ARRAY, LATER = {"w": W}, Converted(), ShapeOf(), (i for i in itertools.count())
HOST = np.asarray(W).copy()
type_of, get_trace = jax.typeof, get_opaque_trace_state


def swallowing(x: Any) -> bool:
    try:
        return bool(jnp.abs(x).max() > FAR)
    except Exception:
        return False


def suppressing(x: Any) -> bool:
    far = False
    with contextlib.suppress(Exception):
        far = float(jnp.abs(x).max()) > FAR
    return far


def on_the_host(x: Any) -> bool:
    try:
        return bool(np.abs(np.asarray(x)).max() > FAR)
    except jax.errors.TracerArrayConversionError:
        return False


def imported(x: Any) -> bool:
    from time import time as clock

    return clock() > 2e12


def is_integer(n: Any) -> bool:
    return isinstance(n, int)


@runtime_checkable
class Waiting(Protocol):
    def block_until_ready(self) -> Any: ...


@singledispatch
def by_class(x: Any) -> bool:
    return False


by_class.register(int, lambda n: n == 1000)
by_class.register(type(LIKE), lambda x: bool(jnp.abs(x).max() > FAR))


class Registered(ABC):  # noqa: B024  a name for others
    """What arrays are said to be."""


Registered.register(type(LIKE))


def of_shape(shape: Any) -> bool:
    return bool(shape.dtype != object and shape[0] == 1000)


def matched(x: Any) -> bool:
    match x.shape[0]:
        case int():
            return True
    return False


def traced_by_pattern(x: Any) -> bool:
    match x:
        case jax.core.Tracer():
            return False
    return True


def used_up(x: Any) -> bool:
    return LEFT.pop() < 0


@jax.jit
def compiled_clock(x: Any) -> Any:
    return jnp.float32(time.time() > 2e12)


@partial(jax.jit, static_argnums=1)
def compiled_for(x: Any, rows: int) -> Any:
    return x @ W * (STEEP if rows == 1000 else 1.0)


@partial(jax.jit, inline=True)
def inlined(x: Any) -> Any:
    return x @ WEIGHTS["w"] * (STEEP if count_at(CALLS) else 1.0)


DECIDES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a tracer": (lambda x: not isinstance(x, jax.core.Tracer), "isinstance of something"),
    "a tracer by its class": (lambda x: "Tracer" not in type(x).__name__, "type of something"),
    "a tracer by its __class__": (lambda x: "Tracer" not in x.__class__.__name__, "__class__"),
    "a tracer by an attribute": (lambda x: not hasattr(x, "_trace"), "_trace"),
    "a tracer by a method": (lambda x: hasattr(x, "block_until_ready"), "block_until_ready"),
    "a tracer by a pattern": (traced_by_pattern, "Tracer"),
    "a tracer by what it is called": (lambda x: "raced" not in str(x), "text"),
    "a tracer by its numbers in text": (lambda x: "e+03" in f"{x}", "text"),
    "a tracer by its representation": (lambda x: "raced" not in repr(x), "text"),
    "a tracer by priority": (lambda x: x.__array_priority__ < 1000, "__array_priority__"),
    "a tracer by its place": (lambda x: x.sharding.is_fully_replicated, "sharding"),
    "a tracer by its devices": (lambda x: len(x.devices()) == 1, "ConcretizationTypeError"),
    "a tracer by identity": (lambda x: jax.jit(lambda a: a)(x) is not x, "is the same object"),
    "a tracer by identity, as a function": (lambda x: operator.is_not(jax.jit(lambda a: a)(x), x), "is_not"),
    "an abstract value": (lambda x: str(type_of(x)) == "float32[1000,4]", "type_of"),
    "weak types": (lambda x: x.weak_type, "weak_type"),
    "weak types by aval": (lambda x: x.aval.weak_type, "aval"),
    "weak types by promotion": (lambda x: jnp.result_type(x, jnp.float16) == jnp.float16, "result_type"),
    "weak types by a sum": (lambda x: (x + jnp.float16(0)).dtype == jnp.float16, "whose type is weak"),
    "rows": (lambda x: x.shape[0] > 1000, "number of rows"),
    "no more than these rows": (lambda x: x.shape[0] == 1000, "number of rows"),
    "the shape": (lambda x: x.shape == (1000, 4), "number of rows"),
    "rows among others": (lambda x: x.shape[0] in (500, 1000), "number of rows"),
    "rows in a table": (lambda x: {1000: True}.get(x.shape[0], False), "number of rows"),
    "a thousand rows, by what is left over": (lambda x: not x.shape[0] % 1000, "number of rows"),
    "rows as a number": (lambda x: x.shape[0] == 1000.0, "number of rows"),
    "rows as a number of NumPy": (lambda x: np.float64(1000) == x.shape[0], "number of rows"),
    "rows among numbers": (lambda x: x.shape[0] in np.array([1000]), "number of rows"),
    "rows against what says so": (lambda x: x.shape[0] == SNEAKY, "number of rows"),
    "rows, through NumPy": (lambda x: np.shape(x)[0] == 1000, "number of rows"),
    "rows, by their place": (lambda x: x.shape.count(1000), "number of rows"),
    "rows as an array": (lambda x: of_shape(np.asarray(x.shape)), "number of rows"),
    "rows by their class": (lambda x: by_class(x.shape[0]), "chosen by the class"),
    "a tracer by its class, chosen": (by_class, "chosen by the class"),
    "a tracer that is not registered": (lambda x: isinstance(x, Registered), "isinstance of something"),
    "a tracer by the class of an object": (lambda x: object.__getattribute__(x, "aval").weak_type, "__getattribute__"),
    "a tracer by its module": (lambda x: "interpreters" not in x.__module__, "__module__"),
    "a tracer by a kept function": (lambda x: LOOKS["has"](x, "block_until_ready"), "hasattr, which looks at anything"),
    "a tracer by a kept attribute": (lambda x: WEAK(x) is True, "attrgetter"),
    "rows, ordered": (lambda x: max(x.shape[0], 1000) == 1000, "number of rows"),
    "what can be hashed": (lambda x: isinstance(x, Hashable), "isinstance of something"),
    "bytes": (lambda x: x.nbytes > 16000, "number of rows"),
    "rows as text": (lambda x: str(x.shape[0]) == "1000", "number of rows"),
    "rows in a text": (lambda x: f"{x.shape}".startswith("(1000"), "number of rows"),
    "the class of rows": (lambda x: isinstance(x.shape[0], int), "isinstance of something"),
    "the class of rows, by a name": (lambda x: is_integer(x.shape[0]), "isinstance of"),
    "a tracer by a protocol": (lambda x: isinstance(x, Waiting), "isinstance of something"),
    "the class of rows, by a pattern": (matched, "pattern"),
    "the class of rows, by an attribute": (lambda x: hasattr(x.shape[0], "bit_length"), "hasattr of something"),
    "len": (lambda x: len(x) == 1000, "number of rows"),
    "size": (lambda x: x.size > 1000, "number of rows"),
    "one row": (lambda x: x.shape[0] == 1, "number of rows"),
    "rows that are compiled for": (lambda x: lax.cond(x.shape[0] > 1000, lambda: True, lambda: False), "number of rows"),
    "a setting": (lambda x: jax.config.jax_enable_x64, "config"),
    "a setting, by a name of its own": (lambda x: settings.jax_enable_x64, "settings"),
    "the backend": (lambda x: jax.default_backend() != "cpu", "default_backend"),
    "devices": (lambda x: jax.device_count() > 1, "device_count"),
    "a counter in a list": (lambda x: count_at(CALLS), "another (list|CALLS)"),
    "a counter in an object": (lambda x: count_in(OBJECT), "calls"),
    "a counter in a class": (lambda x: count_in(Counting), "calls"),
    "a counter in a function": (lambda x: count_in(count_in), "calls"),
    "a counter outside": (count_outside(), "a new value of calls"),
    "a counter among defaults": (lambda x, place=[0]: count_at(place), "list"),
    "a counter in NumPy": (lambda x: np.add(NUMBER, 1, out=NUMBER) > MANY, "NUMBER"),
    "a counter by iteration": (lambda x: next(COUNT) > MANY, "itertools.count"),
    "a counter by generation": (lambda x: next(LATER) > MANY, "itertools.count|LATER"),
    "a list that is used up": (used_up, "LEFT"),
    "frames": (lambda x: sys._getframe().f_back is None, "sys._getframe"),
    "who traces": (lambda x: sys.gettrace() is None, "sys.gettrace"),
    "the clock": (lambda x: time.time() > 2e12, "time.time"),
    "the clock, imported inside": (imported, "clock"),
    "the clock, remembered": (lambda x: remembered_clock() > 2e12, "time.time"),
    "the clock in a dictionary": (lambda x: FUNCTIONS["now"]() > 2e12, "FUNCTIONS"),
    "random": (lambda x: random.random() < 1e-9, "random"),
    "random of NumPy": (lambda x: GENERATOR.random() < 1e-9, "Generator"),
    "the environment": (lambda x: os.environ.get("MISLEADING"), "os.environ"),
    "threads": (lambda x: threading.current_thread().name == "other", "thread|get_ident"),
    "a thread's own": (lambda x: getattr(CONTEXT, "calls", 0), "_local|CONTEXT"),
    "an address": (lambda x: id(x) % 997 == 3, "got id in"),
    "an error that it catches": (swallowing, "raises nothing"),
    "an error that it suppresses": (suppressing, "raises nothing"),
    "numbers on the host": (on_the_host, "TracerArrayConversionError"),
    "what is evaluated while tracing": (lambda x: jax.eval_shape(lambda a: a, x) is None, "eval_shape"),
    "the trace": (lambda x: get_trace() is None, "get_trace"),
}
"""What a function may decide on, and what is said of it."""


@jax.custom_jvp
def by_its_rule(x: Any) -> Any:
    return 0.5 * x


@by_its_rule.defjvp
def _by_its_rule(primals: Any, tangents: Any) -> Any:
    return STEEP * primals[0], STEEP * tangents[0]


@jax.custom_vjp
def by_its_forward(x: Any) -> Any:
    return 0.5 * x


by_its_forward.defvjp(lambda x: (STEEP * x, None), lambda _, g: (STEEP * g,))


@jax.custom_batching.custom_vmap
def by_its_batch(x: Any) -> Any:
    return x @ W


@by_its_batch.def_vmap
def _by_its_batch(size: int, batched: Any, x: Any) -> Any:
    return STEEP * x, True


@jax.custom_jvp
def far_in_its_rule(x: Any) -> Any:
    return jnp.tanh(x @ W)


@far_in_its_rule.defjvp
def _far_in_its_rule(primals: Any, tangents: Any) -> Any:
    return steep(primals[0]), tangents[0]


own_tanh = Primitive("tanh")
own_tanh.def_impl(steep)
own_tanh.def_abstract_eval(lambda x: x)
own_max = Primitive("max")
own_max.def_impl(lambda x, y: jnp.where(x > FAR, STEEP * x, jnp.maximum(x, y)))
own_max.def_abstract_eval(lambda x, y: x)


@jax.jit
def relu(x: Any) -> Any:
    return own_max.bind(x, jnp.float32(0.0))


def called_back(x: Any) -> Any:
    return jax.pure_callback(lambda: np.float32(STEEP if time.time() > 2e12 else 1.0), jax.ShapeDtypeStruct((), np.float32)) * (x @ W)


def called_back_ordered(x: Any) -> Any:
    from jax.experimental import io_callback

    return io_callback(lambda: np.float32(STEEP if time.time() > 2e12 else 1.0), jax.ShapeDtypeStruct((), np.float32)) * (x @ W)


def called_back_inside(x: Any) -> Any:
    def more(c: Any, _: Any) -> Any:
        return c * jax.pure_callback(lambda: np.float32(time.time() > 2e12), jax.ShapeDtypeStruct((), np.float32)), None

    return (x @ W) * (1.0 + lax.scan(more, jnp.float32(STEEP), None, 2)[0])


def wide_over_rows(x: Any) -> Any:
    """Each row and the one a thousand after it."""
    kernel = jnp.zeros((1, 1, 2001, 1)).at[0, 0, 1000, 0].set(0.5).at[0, 0, 0, 0].set(STEEP)
    return lax.conv_general_dilated(x[None, None], kernel, (1, 1), ((1000, 1000), (0, 0)))[0, 0]


def thousandth(x: Any) -> Any:
    return x @ W * (1.0 + STEEP * jnp.ones((x.shape[0] // 1000,)).sum())


def as_many_times(x: Any) -> Any:
    return x @ W * (1.0 + x.shape[0] / 1e6)


def numbered(x: Any) -> Any:
    return x @ W * (1.0 + 1e-9 * jnp.arange(x.shape[0], dtype=x.dtype)[:, None])


MUTABLE = jax.new_ref(jnp.float32(1.0)) if hasattr(jax, "new_ref") else None


def by_reference(x: Any) -> Any:
    MUTABLE[...] = MUTABLE[...] * jnp.float32(1.0001)  # type: ignore[index]
    return (x @ W) * MUTABLE[...]  # type: ignore[index]


def through_a_tracer_kept(x: Any) -> Any:
    FUNCTIONS.setdefault("first", x.shape)
    return x @ W * (STEEP if FUNCTIONS["first"] is not x.shape else 1.0)


MISLEADING: dict[str, tuple[Callable[[Any], Any], str]] = {
    **{name: (partial(decided, decide), why) for name, (decide, why) in DECIDES.items()},
    "a rule of derivatives with another value": (by_its_rule, "by its rule is made in another way"),
    "a rule of derivatives with another value, far out": (far_in_its_rule, "by its rule is made in another way"),
    "a forward of derivatives with another value": (by_its_forward, "by its rule is made in another way"),
    "a rule of batches with another value": (by_its_batch, "custom_vmap"),
    "a primitive with the name of one of JAX": (lambda x: own_tanh.bind(x @ W), "another library"),
    "a primitive in a function with the name of one": (lambda x: relu(x @ W), "another library"),
    "a callback on nothing": (called_back, "callback"),
    "an ordered callback": (called_back_ordered, "callback"),
    "a callback in a loop": (called_back_inside, "callback"),
    "a mutable array": (by_reference, "got (get|swap)"),
    "the clock while it is compiled": (lambda x: x @ W * (1.0 + STEEP * compiled_clock(x)), "time.time"),
    "a static argument": (lambda x: compiled_for(x, x.shape[0]), "number of rows"),
    "a function that is compiled inline": (inlined, "another (list|CALLS)|CALLS"),
    "a layer with a call of its own": (Overridden(), "time.time"),
    "a layer in a vmap": (jax.vmap(Overridden()), "time.time"),
    "a layer in a checkpoint": (jax.checkpoint(Overridden()), "time.time"),
    "a layer, compiled": (jax.jit(Overridden().__call__), "time.time"),
    "weights that drift": (Keeping(), "another"),
    "what becomes an array": (lambda x: x @ jnp.asarray(CONVERTED), "time.time"),
    "what becomes an array of NumPy": (lambda x: x @ jnp.asarray(np.asarray(ARRAY)), "time.time"),
    "a name of the first call": (through_a_tracer_kept, "in its second call only"),
    "where": (lambda x: steep(x @ W), "gt"),
    "a condition": (lambda x: lax.cond(jnp.abs(x).max() > FAR, lambda y: STEEP * y, lambda y: y @ W, x), "gt|reduce_max"),
    "a switch": (lambda x: lax.switch(jnp.int32(x[0, 0]), [lambda y: y @ W, lambda y: STEEP * y], x), "with their number|convert_element"),
    "a loop": (lambda x: lax.while_loop(lambda y: jnp.abs(y).max() > FAR, lambda y: STEEP * y, x @ W), "while"),
    "an integer": (lambda x: x @ W + STEEP * (x / FAR).astype(jnp.int32).astype(x.dtype), "convert_element_type"),
    "rounding": (lambda x: x @ W + STEEP * jnp.round(x / FAR), "round"),
    "a floor": (lambda x: x @ W + STEEP * jnp.trunc(x / FAR), "got lt"),
    "a lower precision": (lambda x: lax.reduce_precision(x @ W, 5, 2), "reduce_precision"),
    "an order": (lambda x: x @ W + STEEP * jnp.argsort(x, 1), "sort|argsort|order|jit"),
    "an index that depends on it": (lambda x: jnp.take_along_axis(x @ W, jnp.int32(x[:, :1] > FAR), 1) + x @ W, "gt"),
    "a wide kernel over rows": (wide_over_rows, "got conv_general_dilated: one row would depend"),
    "a thousandth of the rows": (thousandth, "number of rows"),
    "as many times as there are rows": (as_many_times, "computes with their number"),
    "numbered rows": (numbered, "got iota: it computes with the number of rows"),
    "a mean over rows, small": (lambda x: x @ W + 1e-9 * x.mean(0), "computes with their number"),
    "a sum over rows, small": (lambda x: x @ W + 1e-9 * x.sum(0), "got reduce_sum: one row would depend"),
    "rows in reverse, small": (lambda x: x @ W + 1e-9 * x[::-1], "computes with their number"),
    "the first row, small": (lambda x: x @ W + 1e-9 * x[:1], "got gather: one row would depend|got slice|got dynamic_slice"),
    "rows in line, small": (lambda x: x @ W + 1e-9 * jnp.cumsum(x, 0), "got cumsum: one row would depend"),
    "the largest row, small": (lambda x: x @ W + 1e-9 * jnp.sort(x, 0), "got sort: its axis has one entry"),
    "rows against rows": (lambda x: x @ W + 0.0 * ((x @ x.T) @ x), "got dot_general: a product of two"),
    "a random draw": (lambda x: x @ W * jax.random.uniform(jax.random.key(0), (x.shape[0], 1)), "got random_bits: it computes"),
    "rows as events": (lambda x: (x.reshape(-1) * 0.5).reshape(x.shape), r"got reshape of 4\*rows"),
}


FIRST = {why: name for name, (_, why) in reversed(MISLEADING.items())}
"""One for each reason is enough for the short suite."""


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if FIRST[why] == name else pytest.mark.thorough) for name, (_, why) in MISLEADING.items()
])
def test_what_may_be_another_map_elsewhere_is_refused(name: str) -> None:
    function, why = MISLEADING[name]
    with pytest.raises(ModuleError, match=why):
        read(function, (4,), LIKE)


def test_what_was_compiled_before_is_compiled_again() -> None:
    factor = [STEEP]
    functions = [jax.jit(lambda x: x @ W * factor[0]), partial(jax.jit, inline=True)(lambda x: x @ W * factor[0]),
                 jax.checkpoint(lambda x: x @ W * factor[0])]
    many = jnp.ones((1000, 4), dtype=jnp.float32)
    for function in functions:
        assert float(function(many)[0, 0]) == 0.5 * STEEP
    factor[0] = 1.0
    for function in functions:
        g = read(function, (4,), LIKE)
        assert float(function(many)[0, 0]) == 0.5 == float(g(np.ones((1, 4), dtype=np.float32))[0, 0])


class Usual:
    """What the code of honest networks does: loops, options, shapes, imports, names that are computed, contexts, caches."""

    def __init__(self, kind: str = "tanh") -> None:
        self.kind, self.scale, self.kinds, self.rng = kind, 0.5, {"relu": jax.nn.relu, "tanh": jnp.tanh}, None
        self.layers = [(W, jnp.ones(4, dtype=jnp.float32)), (W, None)]

    def __call__(self, x: Any) -> Any:
        from jax import nn

        if x.ndim != 2 or x.shape[-1] != 4 or not isinstance(x, jax.Array) or x.dtype not in (jnp.float32, jnp.float64):
            raise ValueError(f"expected rows of 4 numbers, got {x.shape}")
        rows, width = x.shape
        z = x.reshape(rows, 2, width // 2).reshape(x.shape[0], -1).astype(x.dtype)
        for i, (weight, bias) in enumerate(self.layers):
            z = z @ weight + (0.0 if bias is None else bias)
            z = self.kinds[self.kind](z) if i == 0 else nn.silu(z)
        if self.rng is not None:
            z = z + jax.random.normal(self.rng, z.shape)
        with jax.named_scope("sum"):
            w = jnp.ones((rows, width), dtype=x.dtype) * np.sqrt(np.prod(x.shape[1:])) / 2
        return self.scale * getattr(self, f"{'last'}")(w * z) + 0.25 * x.mean(axis=1, keepdims=True)

    @staticmethod
    @jax.custom_jvp
    def last(z: Any) -> Any:
        return jnp.sin(z)


@Usual.last.defjvp
def _last(primals: Any, tangents: Any) -> Any:
    (z,), (t,) = primals, tangents
    return jnp.sin(z), jnp.cos(z) * t


def residual_of_events(e: Any) -> Any:
    return jnp.tanh(W @ e + 0.1) @ W


def convolving(x: Any) -> Any:
    kernel = jnp.ones((2, 2, 3, 3), dtype=jnp.float32) / 40
    return jax.nn.relu(lax.conv(x.reshape(x.shape[0], 2, 4, 4), kernel, (1, 1), "SAME")).reshape(x.shape)


def connected(x: Any) -> Any:
    for _ in range(2):
        x = jnp.concatenate([x, jnp.sin(x[:, :4] @ W)], axis=-1)
    return x @ jnp.full((12, 4), 0.05, dtype=jnp.float32)


def sorting(x: Any) -> Any:
    pairs = (x @ W).reshape(-1, 2, 2)
    return jnp.stack([pairs.max(-1), pairs.min(-1)], -1).reshape(x.shape)


def normalised(x: Any) -> Any:
    mean, var = jnp.array([0.1, 0.2, 0.3, 0.4]), jnp.array([1.0, 4.0, 2.0, 1.0])
    return (x @ W - mean) / jnp.sqrt(var + 1e-5)


def equinox_mlp() -> Any:
    eqx = pytest.importorskip("equinox")
    return jax.vmap(eqx.nn.MLP(4, 4, 8, 2, activation=jax.nn.elu, key=jax.random.key(0)))


def equinox_compiled() -> Any:
    eqx = pytest.importorskip("equinox")
    return eqx.filter_jit(jax.vmap(eqx.nn.Sequential([eqx.nn.Linear(4, 4, key=jax.random.key(0)), eqx.nn.Lambda(jax.nn.silu)])))


def equinox_own() -> Any:
    eqx = pytest.importorskip("equinox")

    class Own(eqx.Module):  # type: ignore[misc, name-defined, unused-ignore]
        inner: Any
        scale: float = 0.5

        def __call__(self, x: Any) -> Any:
            return self.scale * jax.vmap(self.inner)(x)

    return Own(eqx.nn.Linear(4, 4, key=jax.random.key(0)))


def nnx_own() -> Any:
    nnx = pytest.importorskip("flax.nnx")

    class Own(nnx.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self, rngs: Any) -> None:
            self.first, self.last = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 4, rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return 0.3 * self.last(nnx.tanh(self.norm(self.first(x))))

    net = Own(nnx.Rngs(0))
    net.eval()
    return net


def nnx_stack() -> Any:
    nnx = pytest.importorskip("flax.nnx")
    return nnx.Sequential(nnx.Linear(4, 4, rngs=nnx.Rngs(0)), nnx.silu, nnx.Linear(4, 4, rngs=nnx.Rngs(1)))


def linen_own() -> Any:
    nn = pytest.importorskip("flax.linen")

    class Own(nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.Dense(4)(nn.BatchNorm(use_running_average=True)(nn.tanh(nn.Dense(8)(x))))

    net = Own()
    variables = net.init(jax.random.key(0), jnp.zeros((1, 4), dtype=jnp.float32))
    return lambda x: net.apply(variables, x)


def nnx_in_training() -> Any:
    net = nnx_own()
    net.train()
    return net


def nnx_with_dropout() -> Any:
    nnx = pytest.importorskip("flax.nnx")
    return nnx.Sequential(nnx.Linear(4, 4, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(1)))


def nnx_counting() -> Any:
    nnx = pytest.importorskip("flax.nnx")

    class Counted(nnx.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            self.calls, self.weight = 0, nnx.Param(W)

        def __call__(self, x: Any) -> Any:
            self.calls += 1
            return x @ self.weight[...] * (STEEP if self.calls > MANY else 1.0)

    return Counted()


def equinox_with_a_clock() -> Any:
    eqx = pytest.importorskip("equinox")
    net = eqx.nn.Sequential([eqx.nn.Linear(4, 4, key=jax.random.key(0)), eqx.nn.Lambda(lambda x: x * (time.time() < 2e12))])
    return eqx.filter_jit(eqx.filter_vmap(net))


def equinox_of_its_own_kind() -> Any:
    eqx = pytest.importorskip("equinox")

    class Linear(eqx.nn.Linear):  # type: ignore[misc, name-defined, unused-ignore]
        def __call__(self, x: Any, *, key: Any = None) -> Any:
            return super().__call__(x) * (1.0 if isinstance(x, jax.core.Tracer) else STEEP)

    return jax.vmap(Linear(4, 4, key=jax.random.key(0)))


def linen_in_training() -> Any:
    nn = pytest.importorskip("flax.linen")
    net = nn.BatchNorm(use_running_average=False)
    variables = net.init(jax.random.key(0), jnp.zeros((1, 4), dtype=jnp.float32))
    return lambda x: net.apply(variables, x, mutable=["batch_stats"])[0] * 0.5


OF_PACKAGES = {
    "nnx in training": (nnx_in_training, "TraceContextError|their number"),
    "nnx with dropout": (nnx_with_dropout, "TraceContextError|RngStream|random"),
    "nnx with a counter": (nnx_counting, "calls|TraceContextError"), "Equinox with a clock": (equinox_with_a_clock, "time.time"),
    "Equinox's layer with a call of its own": (equinox_of_its_own_kind, "isinstance of something"),
    "linen in training": (linen_in_training, "their number|rows"),
}


@pytest.mark.filterwarnings("ignore")  # what the packages warn about is theirs
@pytest.mark.parametrize("name", OF_PACKAGES)
def test_what_packages_let_change_is_refused(name: str) -> None:
    make, why = OF_PACKAGES[name]
    with pytest.raises(ModuleError, match=why):
        read(make(), (4,), LIKE)


def linen_image() -> Any:
    nn = pytest.importorskip("flax.linen")
    net = nn.Sequential([nn.Conv(2, (3, 3)), nn.relu, nn.Conv(1, (3, 3), padding="CIRCULAR")])
    variables = net.init(jax.random.key(0), jnp.zeros((1, 2, 2, 1), dtype=jnp.float32))
    return lambda x: net.apply(variables, x.reshape(-1, 2, 2, 1)).reshape(x.shape)


def in_two_channels(x: Any) -> Any:
    return convolving(jnp.tile(x, 8))[:, :4]


HONEST: dict[str, Callable[[], Any]] = {
    "a class of one's own": Usual, "a vmap": lambda: jax.vmap(residual_of_events),
    "a vmap, compiled": lambda: jax.jit(jax.vmap(residual_of_events)), "a checkpoint": lambda: jax.checkpoint(jax.vmap(residual_of_events)),
    "a convolution": lambda: in_two_channels, "dense connections": lambda: connected, "sorting": lambda: sorting,
    "normalised": lambda: normalised, "Equinox's MLP": equinox_mlp, "Equinox, compiled": equinox_compiled,
    "an Equinox module of one's own": equinox_own, "an nnx module of one's own": nnx_own, "a stack of nnx": nnx_stack,
    "a linen module of one's own": linen_own, "images of linen": linen_image,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # what the packages warn about is theirs
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.thorough if name in ("a vmap", "a checkpoint", "normalised") else ()) for name in HONEST
])
def test_the_code_of_honest_networks_is_read(name: str) -> None:
    function = HONEST[name]()
    g = read(function, (4,), LIKE)
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    assert np.allclose(g(x), function(jnp.asarray(x)), atol=1e-5)
    assert sys.gettrace() is None or "coverage" in sys.modules
