"""Values of the reference as pytrees of JAX: arrays are leaves, nothing proved travels with them, the rest is structure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import iresnet_ref as ir
from iresnet_backends.saving import TYPES, described
from iresnet_ref import bijections, densities, training

jax = pytest.importorskip("jax")
jnp = jax.numpy
from iresnet_backends import jax_layers  # noqa: E402
from iresnet_backends.jax_layers.pytrees import LEAVES  # noqa: E402

LIKE = np.zeros(1, dtype=np.float32)
IMAGES = bijections.FactorOut((2, 2, 2), [ir.ResidualBlock(ir.convnet((1, 2, 2), channels=2, kernels=(1, 1), like=LIKE))])
VALUES: dict[str, Callable[[], Any]] = {
    "mlp": lambda: ir.mlp((2, 4, 2), like=LIKE),
    "learnt slopes": lambda: ir.densenet(3, depth=2, growth=4, activation="learnable clipswish", like=LIKE),
    "sorted": lambda: ir.mlp((2, 4, 2), activation="maxmin", like=LIKE),
    "images": lambda: ir.Flow([IMAGES, bijections.ActNorm.uninitialised((8,), like=LIKE)]),
    "context": lambda: bijections.ContextShift.random((2,), 3, like=LIKE).condition(np.ones((1, 3), dtype=LIKE.dtype)),
    "linear": lambda: bijections.PLULinear.rotation((3,), like=LIKE),
    "base": lambda: ir.Flow([bijections.Permutation((2,), (1, 0))], densities.DiagonalGaussian(np.zeros(2), np.zeros(2))),
    "mixture": lambda: densities.GaussianMixture(np.zeros((3, 2)), np.zeros(2), np.zeros(3)),
    "classifier": lambda: training.Classifier.with_zero_head([ir.ResidualBlock(ir.mlp((2, 4, 2), like=LIKE))], 3),
}


@pytest.mark.parametrize("name", VALUES)
def test_arrays_are_leaves_and_the_rest_is_structure(name: str) -> None:
    value = VALUES[name]()
    leaves, structure = jax.tree.flatten(value)
    arrays = [place for place, told in described(value).items() if told.startswith("an array")]
    assert len(leaves) == len(arrays)
    assert all(isinstance(leaf, np.ndarray) for leaf in leaves)
    assert {id(p) for p in value.parameters().values()} <= {id(leaf) for leaf in leaves}
    assert hash(structure) == hash(jax.tree.structure(jax.tree.map(lambda a: a + 1.0, value)))
    assert jax.tree.structure(jax.tree.unflatten(structure, [object()] * len(leaves))) == structure
    assert described(jax.tree.map(lambda a: 2.0 * a, value)) == described(value)


def test_every_type_that_is_saved_is_a_pytree_or_is_known_to_be_none() -> None:
    """Options, methods and settings are structure; what training and proofs go on with is no value of JAX."""
    others = {"Anderson", "Arnoldi", "Auto", "Banach", "Exact", "Hidden", "Newton", "Options", "Probes", "Roulette", "Series", "Settings",
              "Moments", "SandwichBranch", "NormalisedBranch", "NormalisedModel", "State", "Estimate", "Warm"}  # fmt: skip
    assert TYPES.keys() - {kind.__name__ for kind in LEAVES} == others


def test_results_come_out_of_compiled_functions() -> None:
    host = ir.ResidualBlock(ir.mlp((2, 4, 2), like=LIKE), lipschitz=0.9)
    x = np.ones((3, 2), dtype=LIKE.dtype)
    block = jax.tree.map(jnp.asarray, host)
    found = jax.jit(lambda block, x: (ir.logdet(block, x), ir.logdet_gradient(block, x)))(block, jnp.asarray(x))
    assert isinstance(found[0], ir.LogDet)
    assert found[0].method == "exact"
    assert found[0].value.shape == (3,)
    assert found[1].parameters.keys() == block.branch.parameters().keys()
    inverse = ir.invert(host, x)
    assert bool(jax.jit(lambda inverse: inverse.converged)(inverse).all())


def test_nothing_proved_travels_with_other_numbers() -> None:
    branch = ir.mlp((2, 4, 2), like=LIKE)
    certificate = ir.certify(branch)
    assert jax.tree.leaves(certificate) == []
    assert jax.tree.map(lambda a: a / 2.0, certificate) == certificate
    larger = jax.tree.map(lambda a: 8.0 * a, branch)
    assert larger.certificate.bound > 8.0 * certificate.bound


def test_maps_over_parameters_and_over_rows_are_loops() -> None:
    blocks = [ir.ResidualBlock(ir.mlp((2, 4, 2), seed=seed, like=LIKE), 0.9) for seed in range(3)]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *blocks)
    x = np.random.default_rng(0).standard_normal((5, 2)).astype(LIKE.dtype)
    found = jax.jit(jax.vmap(lambda block: ir.logdet(block, jnp.asarray(x)).value))(stacked)
    rows = jax.jit(jax.vmap(lambda row: ir.logdet(jax.tree.map(jnp.asarray, blocks[0]), row[None]).value[0]))(jnp.asarray(x))
    allowed = 8.0 * 2 * 2.0**-24 / (1.0 - 0.9)  # 8·d·u/(1 − L) of both
    for seed, block in enumerate(blocks):
        np.testing.assert_allclose(found[seed], ir.logdet(block, x).value, rtol=0.0, atol=2.0 * allowed)
    np.testing.assert_allclose(rows, found[0], rtol=0.0, atol=2.0 * allowed)


def test_fields_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"names of fields of Branch, layers, .* got 'weights'; try one of these"):
        jax_layers.register(ir.Branch, ("weights",))
