"""Equinox and Flax modules, and plain functions of JAX: audited with the gradients of their parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from iresnet_verify import Subject, audit
from iresnet_verify.subject.errors import SubjectError

jax = pytest.importorskip("jax")
jnp = jax.numpy
GRADIENTS = ["gradient.log-det", "gradient.log-det-input", "gradient.forward"]
D = 3


@pytest.fixture(autouse=True)
def float64() -> Any:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def weights(seed: int = 0) -> dict[str, Any]:
    """A branch of norm below 0.6, and what is no floating array: it must be passed through."""
    rng = np.random.default_rng(seed)
    W, V = rng.standard_normal((D, 8)), rng.standard_normal((8, D))
    return {"W": jnp.asarray(0.7 * W / np.linalg.norm(W, 2)), "V": jnp.asarray(0.7 * V / np.linalg.norm(V, 2)),
            "b": jnp.asarray(rng.standard_normal(8)), "layers": 2}


def branch(p: Any, x: Any) -> Any:
    return jnp.tanh(x @ p["W"] + p["b"]) @ p["V"]


def exact(g: Callable[[Any], Any], x: Any) -> Any:
    return jnp.linalg.slogdet(jax.vmap(jax.jacrev(g))(x) + jnp.eye(D))[1]


@jax.jit  # compiled once for each number of rows, not operation by operation
def right(p: Any, x: Any) -> Any:
    return exact(lambda row: branch(p, row), x)


def block(p: Any, log_det: Callable[[Any, Any], Any] | None = None, forward: Callable[[Any, Any], Any] | None = None) -> Subject:
    """x + g(x) with parameters p, its log-det or its map replaced by a broken one if asked."""

    return Subject(
        name="a function of JAX", event_shape=(D,), forward=lambda x: (forward or (lambda p, x: x + branch(p, x)))(p, x),
        log_det=lambda x: (log_det or right)(p, x), residual=lambda x: branch(p, x), lipschitz=0.5, framework="jax",
        from_parameters=lambda q: block(q, log_det, forward), parameters=p,
    )


def statuses(subject: Subject, select: list[str] = GRADIENTS) -> dict[str, str]:
    return {c.id: c.status for c in audit(subject, budget="quick", select=select).checks}


def test_the_gradients_of_a_pytree_are_right() -> None:
    assert set(statuses(block(weights())).values()) == {"passed"}


# A leaf that is cut is missing from the derivative along all leaves, of which differences of float32 say little: it is moved alone.
@pytest.mark.parametrize(("cut", "status"), [((), "passed"), (("b",), "failed"), (("W",), "failed")])
def test_a_leaf_without_a_gradient_fails_in_float32(cut: tuple[str, ...], status: str) -> None:
    single = {k: v if k == "layers" else 0.3 * jnp.asarray(v, dtype=jnp.float32) for k, v in weights().items()}

    def forward(p: Any, x: Any) -> Any:
        p = {**p, **{k: jax.lax.stop_gradient(p[k]) for k in cut}}
        return x + branch(p, x)

    subject = replace(block(single, forward=forward), dtype="float32")
    (found,) = audit(subject, budget="quick", select=["gradient.forward"]).checks
    assert found.status == status, found.message


@jax.custom_vjp
def _first_row_for_all(values: Any) -> Any:
    return values


_first_row_for_all.defvjp(lambda v: (v, None), lambda _, c: (jnp.full_like(c, c[0]),))


BROKEN_LOG_DETS = {
    "detached from its parameters": (lambda p, x: right(jax.lax.stop_gradient(p), x), {"gradient.log-det"}),
    "detached from x": (lambda p, x: right(p, jax.lax.stop_gradient(x)), {"gradient.log-det-input"}),
    "one leaf cut": (lambda p, x: right({**p, "b": jax.lax.stop_gradient(p["b"])}, x), {"gradient.log-det"}),
    "weight of the first row": (lambda p, x: _first_row_for_all(right(p, x)), {"gradient.log-det", "gradient.log-det-input"}),
}


@pytest.mark.parametrize("mistake", [
    pytest.param(name, marks=() if name == "one leaf cut" else pytest.mark.thorough) for name in BROKEN_LOG_DETS
])
def test_a_wrong_gradient_of_the_log_det_fails(mistake: str) -> None:
    log_det, failing = BROKEN_LOG_DETS[mistake]
    found = statuses(block(weights(), log_det=log_det))
    assert {id for id, status in found.items() if status == "failed"} == failing


def test_a_map_cut_off_from_its_parameters_fails() -> None:
    cut = block(weights(), forward=lambda p, x: x + branch({**p, **jax.lax.stop_gradient({k: p[k] for k in ("W", "V", "b")})}, x))
    assert statuses(cut, ["gradient.forward"]) == {"gradient.forward": "failed"}


def test_without_parameters_the_checks_say_what_is_missing() -> None:
    from dataclasses import replace

    (found,) = audit(replace(block(weights()), parameters=None), budget="quick", select=["gradient.log-det"]).checks
    assert (found.status, found.message) == ("skipped", "needs from_parameters and parameters; the subject does not give both")


def test_parameters_without_their_function_are_refused() -> None:
    from dataclasses import replace

    with pytest.raises(SubjectError, match="from_parameters: expected a callable"):
        audit(replace(block(weights()), from_parameters=None), budget="quick", select=["gradient.forward"])


def audited(make: Callable[[Any], Callable[[Any], Any]], parameters: Any) -> dict[str, str]:
    """A block whose branch is a module, x one event: inverse, log-det and gradients."""

    def at(p: Any) -> Subject:
        g = make(p)

        def inverse(y: Any) -> Any:
            return jax.lax.scan(lambda x, _: (y - jax.vmap(g)(x), None), y, None, 80)[0]

        return Subject(
            name="a module of JAX", event_shape=(D,), forward=jax.jit(lambda x: (x + jax.vmap(g)(x), exact(g, x))),
            inverse=jax.jit(inverse), residual=jax.vmap(g), framework="jax", from_parameters=at, parameters=p,
        )

    return statuses(at(parameters), [*GRADIENTS, "inverse.recovers-input", "logdet.matches-determinant", "gradient.through-inverse"])


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")  # what the packages warn about is theirs
def test_an_equinox_module_is_its_own_pytree() -> None:
    eqx = pytest.importorskip("equinox")
    net = eqx.nn.MLP(D, D, 8, 1, activation=jnp.tanh, key=jax.random.key(0))
    net = jax.tree_util.tree_map(lambda a: 0.5 * a.astype(jnp.float64) if eqx.is_inexact_array(a) else a, net)
    assert set(audited(lambda net: net, net).values()) == {"passed"}


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_a_flax_module_is_split_into_its_graph_and_its_state() -> None:
    nnx = pytest.importorskip("flax.nnx")

    class Branch(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.first = nnx.Linear(D, 8, rngs=rngs, param_dtype=jnp.float64)
            self.last = nnx.Linear(8, D, rngs=rngs, param_dtype=jnp.float64)

        def __call__(self, x: Any) -> Any:
            return 0.3 * self.last(jnp.tanh(self.first(x)))

    graph, state = nnx.split(Branch(nnx.Rngs(0)))
    assert set(audited(lambda state: nnx.merge(graph, state), state).values()) == {"passed"}
