"""A flow of flowjax or distrax with a block of ours inside trains and samples, and its density integrates to one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import iresnet_ref as ir
from iresnet_verify import Subject, adapters, audit

jax = pytest.importorskip("jax")
jnp = jax.numpy
from iresnet_backends import BackendUnavailableError, jax_layers  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # what the packages warn about is theirs


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@dataclass
class Model:
    """A tree of weights, log p(x) and samples of it, and one wrapped block."""

    weights: Any
    log_prob: Callable[[Any, Any], Any]
    sample: Callable[[Any, int], Any]
    wrapped: Any


def block(seed: int) -> Any:
    """A block away from σ = c, where fresh weights stand and the gradient of σ/c has two sides."""
    g = ir.mlp((2, 8, 2), seed=seed)
    noise = np.random.default_rng(seed)
    return jax_layers.ResidualBlock(g.with_parameters({k: p + 0.1 * noise.standard_normal(p.shape) for k, p in g.parameters().items()}))


def of_flowjax() -> Model:
    pytest.importorskip("flowjax")
    import equinox
    from flowjax.bijections import Chain, Invert
    from flowjax.distributions import StandardNormal, Transformed

    density = Transformed(StandardNormal((2,)), Invert(Chain([jax_layers.as_flowjax(block(k)) for k in (0, 1)])))
    weights, static = equinox.partition(density, equinox.is_inexact_array)

    def at(weights: Any) -> Any:
        return equinox.combine(weights, static)

    def sample(weights: Any, n: int) -> Any:
        return at(weights).sample(jax.random.key(0), (n,))

    return Model(weights, lambda weights, x: at(weights).log_prob(x), sample, jax_layers.as_flowjax(block(0)))


def of_distrax() -> Model:
    distrax = pytest.importorskip("distrax")

    def density(weights: Any) -> Any:
        normal = distrax.MultivariateNormalDiag(jnp.zeros(2, dtype=jnp.float64), jnp.ones(2, dtype=jnp.float64))
        return distrax.Transformed(normal, distrax.Inverse(distrax.Chain([jax_layers.as_distrax(layer) for layer in reversed(weights)])))

    def sample(weights: Any, n: int) -> Any:
        return density(weights).sample(seed=jax.random.key(0), sample_shape=(n,))

    return Model([block(0), block(1)], lambda w, x: density(w).log_prob(x), sample, jax_layers.as_distrax(block(0)))


MODELS = {"flowjax": of_flowjax, "distrax": of_distrax}


@pytest.mark.parametrize("name", MODELS)
def test_it_trains_and_samples(name: str) -> None:
    model = MODELS[name]()
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((64, 2)) @ np.asarray([[1.5, 0.5], [0.0, 0.4]]) + 0.5)

    @jax.jit
    def step(weights: Any) -> Any:
        loss, gradient = jax.value_and_grad(lambda weights: -model.log_prob(weights, x).mean())(weights)
        return jax.tree.map(lambda p, g: p - 0.1 * g, weights, gradient), loss

    weights, losses = model.weights, []
    for _ in range(10):
        weights, loss = step(weights)
        losses.append(float(loss))
    assert losses[-1] < losses[0] - 0.05
    layers = [part for part in jax.tree.leaves(weights, is_leaf=is_layer) if is_layer(part)]
    assert len(layers) == 2
    assert all(layer.certificate().bound <= 0.9 for layer in layers)
    drawn = model.sample(weights, 3)
    assert drawn.shape == (3, 2)
    assert bool(jnp.isfinite(drawn).all())


def is_layer(part: Any) -> bool:
    return isinstance(part, jax_layers.Layer)


@pytest.mark.parametrize("name", MODELS)
def test_its_density_integrates_to_one(name: str) -> None:
    model = MODELS[name]()
    log_prob = jax.jit(lambda x: model.log_prob(model.weights, x))
    subject = Subject(name=name, event_shape=(2,), forward=lambda x: x, log_prob=log_prob, framework="jax")
    report = audit(subject, seed=0, budget="quick", select=["density.integrates-to-one"])
    assert [c.status for c in report.checks] == ["passed"]


@pytest.mark.thorough
@pytest.mark.parametrize("name", MODELS)
def test_the_audit_finds_nothing_in_a_wrapped_block(name: str) -> None:
    report = audit(adapters.recognise(MODELS[name]().wrapped, (2,)), seed=0, budget="quick")
    assert not [(c.id, c.status, c.message) for c in report.checks if c.status not in ("passed", "skipped")]


@pytest.mark.parametrize("name", MODELS)
def test_without_the_package_it_says_what_to_try(name: str) -> None:
    try:
        __import__(name)
    except ImportError:
        with pytest.raises(BackendUnavailableError, match=f"the package .* cannot be imported; try pip install {name}"):
            getattr(jax_layers, f"as_{name}")(block(0))
