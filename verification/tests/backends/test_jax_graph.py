"""A function of JAX is read as its jaxpr says: taken and equal to rounding, or refused by the name of a primitive."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import iresnet_ref as ir
from iresnet_backends import ModuleError
from iresnet_verify import Subject, audit

jax = pytest.importorskip("jax")
jnp = jax.numpy
from iresnet_backends.reading.jax_graph import read  # noqa: E402

RNG = np.random.default_rng(0)
W, V, B = (jnp.asarray(0.3 * RNG.standard_normal(s), dtype=jnp.float32) for s in ((8, 3), (3, 8), (8,)))
K, K2 = (jnp.asarray(0.1 * RNG.standard_normal(s), dtype=jnp.float32) for s in ((4, 2, 3, 3), (2, 4, 3, 3)))
LIKE = jnp.zeros((), dtype=jnp.float32)


def between(activation: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: activation(x @ W.T + B) @ V.T


@jax.jit
def relu(x: Any) -> Any:
    """Three times what its name says."""
    return 3 * jnp.maximum(x, 0)


def own_swish(h: Any) -> Any:
    return h * jax.nn.sigmoid(h)


def maxmin(h: Any) -> Any:
    a, b = jnp.split(h, 2, axis=1)
    return jnp.concatenate([jnp.maximum(a, b), jnp.minimum(a, b)], axis=1)


def maxmin_of_neighbours(h: Any) -> Any:
    h = h.reshape(-1, 4, 2)
    return jnp.stack([h.max(-1), h.min(-1)], -1).reshape(-1, 8)


TAKEN: dict[str, tuple[Callable[[Any], Any], float]] = {
    "elu": (between(jax.nn.elu), 1.0),
    "elu 2": (between(lambda h: jax.nn.elu(h, 2.0)), 2.0),
    "gelu by tanh": (between(jax.nn.gelu), 1.129),
    "gelu exact": (between(functools.partial(jax.nn.gelu, approximate=False)), 1.129),
    "silu": (between(jax.nn.silu), 1.1),
    "swish by hand": (between(own_swish), 1.1),
    "sine, compiled": (jax.jit(between(jnp.sin)), 1.0),
    "a skip connection": (between(lambda h: h + jnp.tanh(h)), 2.0),
    "a function that is named relu": (between(relu), 3.0),
    "sorted, the largest first": (between(lambda h: jnp.sort(h, axis=1, descending=True, stable=False)), 1.0),
    "sorted in groups, pixels apart": (between(lambda h: jnp.sort(h.reshape(-1, 2, 4), axis=1).reshape(-1, 8)), 1.0),
    "MaxMin of halves": (between(maxmin), 1.0),
    "MaxMin of neighbours": (between(maxmin_of_neighbours), 1.0),
    "the three largest": (between(lambda h: jnp.pad(jax.lax.top_k(h, 3)[0], ((0, 0), (0, 5)))), 1.0),
    "a difference": (between(lambda h: 1.0 - (2.0 - jnp.abs(h) / 2.0)), 0.5),
}


@pytest.mark.parametrize("name", TAKEN)
def test_taken_and_proved_by_what_it_computes(name: str) -> None:
    function, slope = TAKEN[name]
    g = read(function, (3,), LIKE)
    x = RNG.standard_normal((5, 3)).astype(np.float32)
    y, rounding, *_ = g.running_error(x)
    assert (np.linalg.norm(y - np.asarray(function(jnp.asarray(x))), axis=1) <= 2 * np.asarray(rounding)).all()
    J = np.asarray(jax.vmap(jax.jacrev(lambda e: function(e[None])[0]))(jnp.asarray(np.concatenate([x, 10 * x]))))
    bound = ir.certify(g).bound
    assert np.linalg.norm(J, 2, axis=(1, 2)).max() <= bound * (1 + 1e-5)
    assert bound <= slope * 1.001 * np.linalg.norm(W, 2) * np.linalg.norm(V, 2)


@pytest.mark.parametrize("last", [False, True])
def test_convolutions_are_layers_of_their_own(last: bool) -> None:
    names = ("NHWC", "HWIO", "NHWC") if last else ("NCHW", "OIHW", "NCHW")

    def convolve(x: Any, kernel: Any) -> Any:
        kernel = jnp.transpose(kernel, (2, 3, 1, 0)) if last else kernel
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=names)

    g = read(lambda x: convolve(jax.nn.relu(convolve(x, K)), K2), (6, 6, 2) if last else (2, 6, 6), LIKE)
    assert [layer.name for layer in g.layers if "conv" in layer.name] == ["conv 3×3 2→4 on 6×6", "conv 3×3 4→2 on 6×6"]


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "where": (lambda x: jnp.where(x > 0, x, 2 * x), "got gt: it makes bool"),
    "cond": (lambda x: jax.lax.cond(x.sum() > 0, lambda y: y * W[0, 0], lambda y: 2 * y, x), "got gt: it makes bool"),
    "scan": (lambda x: jax.lax.scan(lambda c, _: (c * W[0, 0], None), x, None, 3)[0], "got scan"),
    "exp": (lambda x: jnp.exp(x) * W[0, 0], "got exp"),
    "a callback": (lambda x: (jax.debug.callback(lambda _: None, x), x * W[0, 0])[1], "got debug_callback: it calls back to Python"),
    "a gather by argsort": (lambda x: jnp.take_along_axis(x, jnp.argsort(x, 1), 1) * W[0, 0], "it uses the order that a sort has found"),
    "the order of the largest": (lambda x: x * W[0, 0] + jax.lax.top_k(x, 3)[1], "it uses the order that a sort has found, which jumps"),
    "sorted by another list": (lambda x: jax.lax.sort((x, x[:, ::-1]), num_keys=1)[1] * W[0, 0], "got sort: of several lists"),
    "sorted across the batch": (lambda x: jnp.sort(x, 0) * W[0, 0], "got sort: its axis has one entry, as that of the batch"),
    "the largest of the batch": (lambda x: x * W[0, 0] + x.max(0), "got reduce_max: its axis has one entry, as that of the batch"),
    "sorted with the batch": (lambda x: jnp.sort(x.reshape(-1)).reshape(x.shape) * W[0, 0], r"got reshape of 3\*rows with their number"),
    "a product": (lambda x: x * jnp.tanh(x), "got mul: of two values"),
    "another precision": (lambda x: x.astype(jnp.float16).astype(jnp.float32) * W[0, 0], "got convert_element_type: it makes float16"),
    "rows whose dependence is rounded away": (lambda x: jnp.cumsum(x * W[0, 0], 0) + 1e12 - 1e12, "got cumsum: one row would depend"),
    "rows that depend on each other": (lambda x: x * W[0, 0] - x.mean(0), "computes with their number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    function, why = REFUSED[name]
    with pytest.raises(ModuleError, match=why):
        read(function, (3,), LIKE)


def test_the_audit_proves_a_block_of_jax_and_no_false_claim() -> None:
    g = between(jnp.sin)
    norm = float(np.linalg.norm(np.asarray(W, dtype=np.float64), 2) * np.linalg.norm(np.asarray(V, dtype=np.float64), 2))

    def subject(size: float) -> Subject:
        return Subject(name="jax", event_shape=(3,), forward=lambda x: x + size * g(x), residual=lambda x: size * g(x), lipschitz=0.5,
                       framework="jax", dtype="float32")

    select = ["lipschitz.proved", "inverse.contraction-proved"]
    true = {c.id: c for c in audit(subject(0.49 / norm), budget="quick", select=select).checks}
    assert [c.status for c in true.values()] == ["passed", "passed"], [c.message for c in true.values()]
    assert true["lipschitz.proved"].evidence["proved_bound"] <= 0.5
    false = {c.id: c for c in audit(subject(2.0 / norm), budget="quick", select=["lipschitz.proved"]).checks}
    assert false["lipschitz.proved"].status == "skipped"
    assert false["lipschitz.proved"].message.startswith("not proved: ")


def test_a_division_that_is_rounded_makes_no_singular_map_a_bijection() -> None:
    subject = Subject(name="singular", event_shape=(3,), forward=lambda x: x - x / 41.0 * 41.0, lipschitz=0.99999997, framework="jax",
                      dtype="float32")
    with jax.enable_x64(False):
        (found,) = audit(subject, budget="quick", select=["inverse.contraction-proved"]).checks
    assert found.status == "skipped"
    assert found.evidence["proved_bound"] >= 1.0
