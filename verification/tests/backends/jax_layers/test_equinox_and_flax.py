"""Layers inside of modules of Equinox and Flax, as docs/jax.md has them: its blocks run, and what JAX makes of the modules is right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import ROOT

import iresnet_ref as ir
from iresnet_ref import rounding

jax = pytest.importorskip("jax")
jnp = jax.numpy
eqx = pytest.importorskip("equinox")
serialization = pytest.importorskip("flax.serialization")
from iresnet_backends import jax_layers  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # what the packages warn about is theirs


@pytest.fixture(scope="module", params=[False, True], ids=["float32", "float64 on"])
def page(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """The names that the page defines, in a process whose arrays have 32 bits, and in one where they may have 64."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", request.param)
    names: dict[str, Any] = {"__name__": "jax"}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs/jax.md").read_text("utf-8"), re.S):
        exec(compile(code, "jax.md", "exec", dont_inherit=True), names)
    yield names
    jax.config.update("jax_enable_x64", before)


def close(a: Any, b: Any) -> None:
    """Two orders of one float32 computation, whose parts are of the size of 1: 4096 roundings."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=0.0, atol=rounding.gamma(4096, 2.0**-24) * max(1.0, float(np.abs(b).max())))


def moved(tree: Any, seed: int) -> Any:
    """The tree with other weights."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + 0.1 * jnp.asarray(rng.standard_normal(p.shape), dtype=p.dtype), tree)


def log_prob(flow: Any, log_scale: Any, x: Any) -> Any:
    """What the module of Equinox computes, of its parts."""
    return flow.log_prob(x * jnp.exp(log_scale)) + 2 * log_scale


def test_gradients_of_an_equinox_module_are_those_of_its_layer(page: dict[str, Any]) -> None:
    model, x = page["model"], page["moons"]
    for differentiated in (eqx.filter_grad, lambda f: eqx.filter_jit(eqx.filter_grad(f))):
        found = differentiated(lambda model: model(x).mean())(model)
        wanted = jax.grad(lambda flow, s: log_prob(flow, s, x).mean(), argnums=(0, 1))(model.flow, model.log_scale)
        for a, b in zip(jax.tree.leaves((found.flow, found.log_scale)), jax.tree.leaves(wanted), strict=True):
            if b.size:  # the base has a leaf without entries, for its dtype
                assert float(jnp.abs(b).max()) > 0.0
                close(a, b)
    scaled = x * jnp.exp(model.log_scale)
    of_rows = jax.grad(lambda x: model.flow.log_prob(x).mean())(scaled)
    close(found.log_scale, (of_rows * scaled).sum() + 2.0)  # d/ds log p(xeˢ) = ⟨∇log p, xeˢ⟩


def test_an_equinox_module_compiles_and_maps_over_rows_and_over_models(page: dict[str, Any]) -> None:
    model, x, traced = page["model"], page["moons"], []

    @eqx.filter_jit
    def values(model: Any, x: Any) -> Any:
        traced.append(1)
        return model(x)

    other = moved(model, 1)
    for each in (model, other):
        close(values(each, x), each(x))
    assert len(traced) == 1
    close(jax.vmap(lambda row: model(row[None])[0])(x[:9]), model(x[:9]))
    stacked = jax.tree.map(lambda *p: jnp.stack(p), model, other)
    found = eqx.filter_vmap(lambda model: model(x), in_axes=eqx.if_array(0))(stacked)
    close(found, jnp.stack([model(x), other(x)]))


def test_an_equinox_module_is_saved_and_loaded(page: dict[str, Any], tmp_path: Path) -> None:
    model, x = page["model"], page["moons"]
    eqx.tree_serialise_leaves(tmp_path / "model.eqx", model)
    loaded = eqx.tree_deserialise_leaves(tmp_path / "model.eqx", moved(model, 2))
    same(loaded, model)
    assert (np.asarray(loaded(x)) == np.asarray(model(x))).all()
    bounds = [m.flow.certificates()["0."].bound for m in (loaded, model)]
    assert bounds[0] == bounds[1] <= 0.9


def same(a: Any, b: Any) -> None:
    """The same tree, bit for bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert p.dtype == q.dtype
        assert (np.asarray(p) == np.asarray(q)).all()


def test_a_flax_module_has_the_parameters_and_gradients_of_the_layer(page: dict[str, Any]) -> None:
    density, variables, x = page["density"], page["variables"], page["moons"]
    assert variables["params"]["flow"].keys() == density.flow.parameters().keys()
    variables = moved(variables, 3)  # away from the weights that the module holds
    layer = density.flow.with_parameters(variables["params"]["flow"])
    close(density.apply(variables, x), layer.log_prob(x))
    found = jax.jit(jax.grad(lambda variables: density.apply(variables, x).mean()))(variables)["params"]["flow"]
    wanted = jax.grad(lambda layer: layer.log_prob(x).mean())(layer).parameters()
    for key, gradient in wanted.items():
        assert float(jnp.abs(gradient).max()) > 0.0
        close(found[key], gradient)


def test_a_flax_module_compiles_and_maps_over_rows_and_over_variables(page: dict[str, Any]) -> None:
    density, variables, x = page["density"], page["variables"], page["moons"]
    other, traced = moved(variables, 4), []

    @jax.jit
    def values(variables: Any, x: Any) -> Any:
        traced.append(1)
        return density.apply(variables, x)

    for each in (variables, other):
        close(values(each, x), density.apply(each, x))
    assert len(traced) == 1
    close(jax.vmap(lambda row: density.apply(variables, row[None])[0])(x[:9]), density.apply(variables, x[:9]))
    stacked = jax.tree.map(lambda *p: jnp.stack(p), variables, other)
    found = jax.vmap(lambda variables: density.apply(variables, x))(stacked)
    close(found, jnp.stack([density.apply(each, x) for each in (variables, other)]))


def test_variables_of_a_flax_module_are_saved_and_loaded(page: dict[str, Any], tmp_path: Path) -> None:
    density, variables, x = page["density"], moved(page["variables"], 5), page["moons"]
    (tmp_path / "variables").write_bytes(serialization.to_bytes(variables))
    loaded = serialization.from_bytes(density.init(jax.random.key(1), x), (tmp_path / "variables").read_bytes())
    loaded = jax.tree.map(jnp.asarray, loaded)
    same(loaded, variables)
    assert (np.asarray(density.apply(loaded, x)) == np.asarray(density.apply(variables, x))).all()


def test_a_layer_alone_is_saved_and_loaded_by_equinox(tmp_path: Path) -> None:
    layer = jax_layers.ResidualBlock(ir.mlp((2, 4, 2), seed=1, like=jnp.zeros(1)))
    eqx.tree_serialise_leaves(tmp_path / "layer.eqx", layer)
    same(eqx.tree_deserialise_leaves(tmp_path / "layer.eqx", moved(layer, 0)), layer)
