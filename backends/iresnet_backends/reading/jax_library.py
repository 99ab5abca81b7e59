"""Which objects of JAX, Equinox and Flax a function may load: those that are functions of their arguments, traced or not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import lru_cache
from types import FunctionType, ModuleType
from typing import Any, cast

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from iresnet_backends.reading.observed import NUMPY, Library

Dim: Any = type(jax.export.symbolic_shape("b")[0])
"""A number of rows that is a symbol."""
Jitted: Any = type(jax.jit(len))
NAMES = (
    "jax", "jaxlib", "numpy", "equinox", "flax", "jaxtyping", "wadler_lindig", "ml_dtypes", "array_api_compat", "iresnet_ref",
    "iresnet_backends.reading", "iresnet_backends.jax_modules",
)  # fmt: skip
PLACES = (
    "jax.numpy", "jax.numpy.linalg", "jax.numpy.fft", "jax.lax", "jax.lax.linalg", "jax.nn", "jax.nn.initializers", "jax.random",
    "jax.tree", "jax.tree_util", "jax.scipy.special",
)  # fmt: skip
"""Modules whose functions and classes are functions of their arguments, the `ASKING` ones excepted."""
ASKING = frozenset([
    "save", "savez", "load", "fromfile", "set_printoptions", "get_printoptions", "printoptions", "array_repr", "array_str", "array2string",
    "result_type", "can_cast", "platform_dependent", "rng_uniform", "create_token",
])  # fmt: skip
"""What looks at more than its arguments, or at what they are made of."""
TRANSFORMATIONS = {
    "jax": ("Array", "vmap", "jit", "checkpoint", "remat", "named_call", "named_scope", "jvp", "vjp", "jacfwd", "jacrev", "grad",
            "ShapeDtypeStruct"),
    "equinox": ("Module", "filter_vmap", "filter_jit", "filter_checkpoint", "is_array", "is_inexact_array", "partition", "combine",
                "tree_at"),
    "flax.nnx": ("vmap", "jit", "remat", "merge", "split", "clone"), "flax.linen": ("compact", "vmap", "jit", "remat"),
}  # fmt: skip
OPERATORS = frozenset(
    f"__{side}{name}__" for side in ("", "r")
    for name in ("add", "sub", "mul", "truediv", "matmul", "pow", "neg", "abs", "pos", "getitem", "mod", "floordiv")
)  # fmt: skip
METHODS = frozenset([
    "T", "mT", "all", "any", "argmax", "argmin", "argsort", "astype", "at", "clip", "compress", "conj", "copy", "cumprod", "cumsum",
    "diagonal", "dot", "dtype", "flatten", "imag", "max", "mean", "min", "ndim", "prod", "ptp", "ravel", "real", "repeat", "reshape",
    "round", "shape", "size", "sort", "squeeze", "std", "sum", "swapaxes", "take", "trace", "transpose", "var",
])  # fmt: skip
"""What may be asked of an array: the same traced or not."""


def _tracer() -> Any:
    found: list[Any] = []

    def function(x: Any) -> Any:
        found.append(type(x))
        return x

    jax.make_jaxpr(function)(1.0)
    return found[0]


VALUES: tuple[Any, ...] = (jax.core.Tracer, type(jnp.zeros(())), Dim)
KINDS = tuple(type(value) for name, value in vars(jax.random.key(0)).items() if name == "_impl")
"""Kinds of random keys, which Flax's keys show as an attribute."""
TELLING = frozenset(
    name for name in (*dir(_tracer()), *dir(VALUES[1]), *(set(dir(Dim)) ^ set(dir(int))))
    if name not in METHODS | OPERATORS | {"__init__", "__new__", "__init_subclass__", "__setattr__", "__eq__", "__ne__"}
)  # fmt: skip
"""Attributes that tell a tracer from an array, and a symbol from a number."""


@lru_cache(maxsize=8)
def _functions(loaded: frozenset[str]) -> dict[int, Any]:
    """Return all that may be loaded, by identity, where these modules are."""
    del loaded  # the key: other modules have other functions
    found: list[Any] = []
    for place in PLACES:
        module = sys.modules.get(place)
        if module is not None:
            found += [getattr(module, n, None) for n in dir(module) if n not in ASKING and not n.startswith("_")]
    for place, names in TRANSFORMATIONS.items():
        found += [getattr(sys.modules.get(place), n, None) for n in names]
    return {id(f): f for f in found if callable(f) and not isinstance(f, ModuleType)}


def _known(value: Any) -> bool:
    return id(value) in _functions(frozenset(sys.modules.keys() & {*PLACES, *TRANSFORMATIONS}))


def _admits(value: Any) -> bool:
    """Whether what is JAX's, or made by it, is a function of its arguments, the functions in it looked at elsewhere."""
    if _known(value) or isinstance(value, np.ufunc):
        return True
    if getattr(value, "__module__", "") == "numpy" and getattr(value, "__name__", "") in NUMPY:
        return True
    if isinstance(value, FunctionType) and value.__globals__.get("__name__", "").startswith("iresnet_ref."):
        return True  # a formula
    if isinstance(value, jax.custom_jvp | jax.custom_vjp | jax.custom_batching.custom_vmap):
        return True  # their rules are read where they are called
    if isinstance(value, Jitted | FunctionType) and _made(value):
        if isinstance(value, Jitted):
            cast(Any, value).clear_cache()  # what it remembers is traced again, and seen
        return True
    return isinstance(value, type) and issubclass(value, _layers())


def _made(value: Any) -> bool:
    """Whether a function is what one of JAX has made, such as jit and vmap, and none that JAX itself has under a name."""
    inner: Any = value
    while isinstance(inner, Jitted):
        inner = inner.__wrapped__
    if not isinstance(inner, FunctionType):
        return True
    if not _JAX.owns(inner.__globals__):
        return True
    places = (sys.modules.get(str(name)) for name in (inner.__module__, inner.__globals__.get("__name__")))
    return not any(inner is found or value is found for place in places if place is not None for found in vars(place).values())


def _layers() -> tuple[type, ...]:
    places = (("equinox", "Module"), ("flax.linen", "Module"), ("flax.nnx", "Module"), ("flax.nnx", "Variable"))
    return tuple(getattr(sys.modules[place], name) for place, name in places if place in sys.modules)


def _content(value: Any) -> Any:  # noqa: PLR0911  a case for each kind of value
    if isinstance(value, jax.core.Tracer):
        return "a traced value"
    if isinstance(value, jax.Array):
        if value.is_deleted():
            return "deleted"
        numbers = jax.random.key_data(value) if jnp.issubdtype(value.dtype, jax.dtypes.prng_key) else value
        host = np.asarray(numbers)
        return host.shape, str(value.dtype), hash(host.tobytes())
    if isinstance(value, Dim):
        return "a number of rows"
    if isinstance(value, KINDS) or (callable(value) and _known(value)):
        return id(value)
    if isinstance(value, jax.ShapeDtypeStruct | jnp.finfo | jnp.iinfo | jax.lax.Precision):
        return repr(value)
    return None


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an object is made of, where code of the libraries, which is not followed, looks at it."""
    if isinstance(value, _layers()):
        theirs = _JAX.has(type(value).__module__)
        for name, inner in list(vars(value).items()):
            if not (theirs and isinstance(inner, FunctionType) and _JAX.owns(inner.__globals__)):
                yield f".{name}", inner
    if isinstance(value, Jitted):
        yield ".__wrapped__", value.__wrapped__
    if isinstance(value, jax.custom_jvp | jax.custom_vjp | jax.custom_batching.custom_vmap):
        yield from ((f".{name}", inner) for name, inner in vars(value).items() if callable(inner))
    if isinstance(value, FunctionType) and _JAX.owns(value.__globals__):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            if not isinstance(cell.cell_contents, ModuleType):
                yield f"'s {name}", cell.cell_contents


_JAX = Library(NAMES, _admits, _content, TELLING, VALUES, _inside)
JAX = _JAX
"""JAX, as code may use it."""
