"""Laws of the layers for JAX: the reference's values, gradients and trainings, compiled once, with its proofs on the host."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import iresnet_ref as ir
from iresnet_ref import bijections, rounding, training

jax = pytest.importorskip("jax")
jnp = jax.numpy
from iresnet_backends import jax_layers  # noqa: E402
from iresnet_backends.compiled_training import count  # noqa: E402

RNG = np.random.default_rng(0)
X, W = RNG.standard_normal((5, 2)), RNG.standard_normal(5)
METHODS = {
    "exact": ir.Auto(), "series": ir.Series(4), "arnoldi": ir.Arnoldi(2), "roulette": ir.Roulette(probes=ir.Probes(count=2)),
    "to a goal": ir.Series(4, standard_error=0.1),
}  # fmt: skip


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)  # of the process: JAX's host callbacks run in threads that know no context
    yield
    jax.config.update("jax_enable_x64", before)


def branch(scale: float = 1.5, seed: int = 0) -> ir.Branch:
    """A branch whose weights are above their shares."""
    g = ir.mlp((2, 5, 2), lipschitz=0.9, seed=seed)
    return g.with_parameters({key: scale * p for key, p in g.parameters().items()})


def close(a: Any, b: Any, operations: int = 512) -> None:
    """Two orders of one computation: `operations` roundings of numbers of the size of the largest."""
    a, b = np.asarray(a), np.asarray(b)
    np.testing.assert_allclose(a, b, rtol=0.0, atol=rounding.gamma(operations, 2.0**-53) * max(1.0, float(np.abs(b).max())))


def reseeded(method: Any, key: Any) -> Any:
    """The method of the reference with the draws that a layer takes from this key."""
    if isinstance(method, ir.Auto):
        return method
    return replace(method, probes=replace(method.probes, seed=jax_layers.probes_seed(key)))


@pytest.mark.parametrize("name", METHODS)
def test_values_and_gradients_are_the_references(name: str) -> None:
    method, key = METHODS[name], jax.random.key(5)
    normalised = ir.NormalisedBranch(branch(), 0.9)
    block = ir.ResidualBlock(normalised.branch, 0.9 if name == "roulette" else None)  # its lengths are drawn from what is stated
    own = reseeded(method, key)
    wanted = ir.logdet_gradient(block, X, own, weights=W, y_bar=2.0 * block(X))
    layer = jax_layers.ResidualBlock(branch(), options=ir.Options(logdet=method))

    def loss(layer: Any, x: Any, key: Any) -> Any:
        y, log_det = layer(x, key=key)
        return (y * y).sum() + (jnp.asarray(W) * log_det).sum(), (y, log_det)

    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (_, (y, log_det)), (of_layer, x_bar) = compiled(layer, jnp.asarray(X), key)
    close(y, block(X))
    close(log_det, ir.logdet(block, X, own).value)
    close(x_bar, wanted.x_bar)
    for place, gradient in normalised.pullback(wanted.parameters).items():
        close(of_layer.parameters()[place], gradient)
    (_, (_, eager)), _ = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(layer, jnp.asarray(X), key)
    close(eager, log_det)


def test_what_the_host_computes_is_the_references_bit_for_bit() -> None:
    """A roulette and an inverse are the reference's on NumPy, compiled or not."""
    options = ir.Options(logdet=ir.Roulette(probes=ir.Probes(seed=3)), rtol=1e-12)
    block = ir.ResidualBlock(ir.mlp((2, 5, 2), lipschitz=0.5), lipschitz=0.5)
    layer = jax_layers.ResidualBlock(block, None, options)
    wanted = ir.invert(block, X, rtol=1e-12).x, ir.logdet(block, X, options.logdet).value
    for run in (lambda f: f, jax.jit):
        x, log_det = run(lambda x: (layer.inverse(x, options=options)[0], layer(x, options=options)[1]))(jnp.asarray(X))
        assert (np.asarray(x) == wanted[0]).all()
        assert (np.asarray(log_det) == wanted[1]).all()


def test_gradients_of_a_stated_block_are_those_of_autodiff() -> None:
    """JAX differentiates the exact log-determinant of the reference itself: an oracle that shares no reverse pass."""
    block = ir.ResidualBlock(jax.tree.map(jnp.asarray, ir.mlp((2, 5, 2), lipschitz=0.5)), lipschitz=0.5)
    layer, x, w = jax_layers.ResidualBlock(block, None), jnp.asarray(X), jnp.asarray(W)

    def by_autodiff(block: Any, x: Any) -> Any:
        return (w * ir.logdet(block, x, "exact").value).sum() + (w * (block(x) ** 2).sum(1)).sum()

    def ours(layer: Any, x: Any) -> Any:
        y, log_det = layer(x)
        return (w * log_det).sum() + (w * (y**2).sum(1)).sum()

    wanted, got = (jax.jit(jax.grad(f, argnums=(0, 1)))(at, x) for f, at in ((by_autodiff, block), (ours, layer)))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        close(a, b, 4096)
    def value(row: Any) -> Any:
        return ours(layer, row[None] * jnp.ones((5, 1)))

    close(jax.jit(jax.hessian(value))(x[0]), jax.jit(jax.hessian(lambda row: by_autodiff(block, row[None] * jnp.ones((5, 1)))))(x[0]), 4096)
    one = jax.grad(lambda row, w: w * (layer(row[None])[1][0] + (layer(row[None])[0] ** 2).sum()))
    close(jax.jit(jax.vmap(one))(x, w), got[1], 4096)


def test_the_inverse_and_its_implicit_gradient() -> None:
    layer = jax_layers.ResidualBlock(branch(), options=ir.Options(rtol=1e-13))
    x, w = jnp.asarray(X), jnp.asarray(W)

    @jax.jit
    def there_and_back(layer: Any, x: Any) -> Any:
        y, log_det = layer(x)
        again, of_inverse = layer.inverse(y)
        return again, log_det, of_inverse

    again, log_det, of_inverse = there_and_back(layer, x)
    close(again, X, 10_000)
    close(of_inverse, -log_det, 10_000)
    # F⁻¹(F(x)) = x whatever the weights: the gradients of both ways cancel
    total, of_x = jax.jit(jax.grad(lambda layer, x: (w * there_and_back(layer, x)[0].sum(1)).sum(), argnums=(0, 1)))(layer, x)
    close(of_x, np.broadcast_to(W[:, None], X.shape), 100_000)
    for gradient in jax.tree.leaves(total):
        close(gradient, 0.0 * gradient, 100_000)


def test_second_derivatives_of_a_division_are_refused_not_wrong() -> None:
    layer, x = jax_layers.ResidualBlock(branch()), jnp.asarray(X)

    def slope(layer: Any) -> Any:
        gradient = jax.grad(lambda layer: (layer(x)[0] ** 2).sum())(layer)
        return sum((p**2).sum() for p in jax.tree.leaves(gradient))

    with pytest.raises(ValueError, match="Pure callbacks do not support JVP"):
        jax.grad(slope)(layer)


def moons(n: int) -> Any:
    angle = np.pi * RNG.random(n)
    first = np.stack([np.cos(angle), np.sin(angle)], 1)
    return np.concatenate([first, np.asarray([1.0, 0.5]) - first]) + 0.05 * RNG.standard_normal((2 * n, 2))


def test_a_training_is_that_of_the_reference_and_is_compiled_once() -> None:
    """The same losses and weights as `ir.training.fit`, to rounding that the steps of Adam have amplified."""
    data, steps = moons(32), 12
    raw = ir.Flow([bijections.ActNorm.uninitialised((2,)), *(ir.ResidualBlock(branch(1.1, seed)) for seed in range(2))]).initialise(data)
    losses: list[float] = []
    state = training.fit(
        training.start(raw, lipschitz=0.8, settings=training.Settings(learning_rate=0.02)),
        lambda flow, step: training.maximum_likelihood(flow, data), steps, callback=lambda _, loss: losses.append(loss),
    )  # fmt: skip
    flow, moments, traced = jax_layers.Flow(raw, 0.8), training.Moments.zero(raw.parameters()), []

    @jax.jit
    def loss_and_gradient(flow: Any, x: Any) -> Any:
        traced.append(1)
        return jax.value_and_grad(lambda flow: -flow.log_prob(x).mean())(flow)

    for step in range(steps):
        loss, gradient = loss_and_gradient(flow, jnp.asarray(data))
        assert abs(float(loss) - losses[step]) <= amplified(step)
        moved, moments = training.adamw(flow.parameters(), gradient.parameters(), moments, learning_rate=0.02)
        flow = flow.with_parameters(moved)
    assert len(traced) == 1
    assert losses[-1] < losses[0]
    for key, p in state.normalised.parameters().items():
        assert float(np.abs(np.asarray(flow.parameters()[key]) - p).max()) <= amplified(steps)
    certificates = flow.certificates()
    assert sorted(certificates) == ["1.", "2."]
    assert all(c.proved and c.bound <= 0.8 for c in certificates.values())
    certified = flow.reference()
    assert [step.block.certificate.bound for step in certified.steps.steps[1:]] == [c.bound for c in certificates.values()]


def amplified(step: int) -> float:
    """Rounding after so many steps: 4096 roundings a gradient; Adam divides a gradient by its own size, at least ε = 1e-8 of it early."""
    return rounding.gamma(4096, 2.0**-53) * 10.0 * (step + 1)


def test_other_draws_compile_nothing_and_are_those_of_the_key() -> None:
    method, traced = ir.Roulette(), []
    layer = jax_layers.ResidualBlock(ir.ResidualBlock(ir.mlp((2, 5, 2), lipschitz=0.5), 0.5), None, ir.Options(logdet=method))

    @jax.jit
    def log_det(layer: Any, key: Any) -> Any:
        traced.append(1)
        return layer(jnp.asarray(X), key=key)[1]

    found = [np.asarray(log_det(layer, jax.random.key(seed))) for seed in range(3)]
    assert len(traced) == 1
    assert (found[0] != found[1]).any()
    host = jax.tree.map(np.asarray, layer.reference().block)
    for seed in range(3):
        assert (found[seed] == ir.logdet(host, X, reseeded(method, jax.random.key(seed))).value).all()


def test_between_proofs_weights_are_as_they_are_and_the_host_projects() -> None:
    block = ir.ResidualBlock(branch(1.0), lipschitz=0.9)
    layer = jax_layers.ResidualBlock(block, None)
    moved = jax.tree.map(lambda p: 1.5 * p, layer)
    assert moved.certificate().bound > 0.9
    projected = moved.projected()
    assert projected.certificate().bound <= 0.9
    assert (np.asarray(projected.parameters()["0.weight"]) != np.asarray(moved.parameters()["0.weight"])).any()
    divided = jax_layers.ResidualBlock(branch(1.5), 0.9)
    assert (np.asarray(divided.projected()(jnp.asarray(X))[0]) == np.asarray(divided(jnp.asarray(X))[0])).all()
    with pytest.raises(ir.NotContractiveError, match=r"expected lipschitz=, .* or blocks that state a constant, got neither; try"):
        jax_layers.ResidualBlock(branch(), None)


def test_maps_over_parameters_are_loops() -> None:
    layers = [jax_layers.ResidualBlock(branch(1.5, seed)) for seed in range(3)]
    stacked = jax.tree.map(lambda *p: jnp.stack(p), *layers)
    x = jnp.asarray(X)
    for each in (lambda layer: layer(x), lambda layer: layer.inverse(x)):
        found = jax.vmap(each)(stacked)
        for k, layer in enumerate(layers):
            for a, b in zip(found, each(layer), strict=True):
                close(a[k], b)


def steps_of(name: str) -> list[Any]:
    if name == "context":
        return [ir.ResidualBlock(branch()), bijections.ContextShift.random((2,), 3)]
    first, second = (ir.ResidualBlock(ir.convnet(shape, channels=3, kernels=(3, 1))) for shape in ((4, 3, 3), (2, 3, 3)))
    norm = bijections.ActNorm.uninitialised((2, 3, 3))
    return [bijections.Squeeze((1, 6, 6)), first, bijections.FactorOut((4, 3, 3), [norm, second])]


@pytest.mark.parametrize("name", ["context", pytest.param("images", marks=pytest.mark.thorough)])  # images: 18 s of compilation
def test_a_flow_is_the_references(name: str) -> None:
    flow = jax_layers.Flow(ir.Flow(steps_of(name)), 0.8, ir.Options(rtol=1e-12))
    x = np.random.default_rng(1).standard_normal((4, *flow.event_shape))
    if name == "images":
        flow = flow.initialise(jnp.asarray(x))
        again = flow.initialise(jnp.asarray(x + 1.0)).parameters()
        assert all((np.asarray(p) == np.asarray(again[key])).all() for key, p in flow.parameters().items())
    context = jnp.asarray(np.random.default_rng(2).standard_normal((4, 3))) if name == "context" else None
    reference = flow.reference() if context is None else flow.reference().condition(context)
    host = jax.tree.map(np.asarray, reference)
    assert jax.tree.structure(flow.with_parameters(flow.parameters())) == jax.tree.structure(flow)
    compiled = jax.jit(lambda flow, x: (flow.log_prob(x, context), flow.inverse(flow(x, context)[0], context)[0]))
    log_prob, again = compiled(flow, jnp.asarray(x))
    close(log_prob, host.log_prob(x).value, 4096)
    undone(again, x)
    undone(flow(flow.sample(4, context, seed=3), context)[0], host.base.sample(4, seed=3))


def undone(found: Any, wanted: Any) -> None:
    """At most two blocks with L = .8 were inverted to residuals of 1e-12 of their largest norm.

    F⁻¹ multiplies an error by at most 1/(1 − L) = 5, F an error and a norm by 1.8, and 1.8⁴ · (5 + 5²) ≤ 315.
    """
    limit = 315.0 * 1e-12 * float(np.linalg.norm(np.asarray(wanted).reshape(len(wanted), -1), axis=1).max())
    assert float(np.abs(np.asarray(found) - np.asarray(wanted)).max()) <= limit


def test_one_factorisation_serves_a_block_whatever_the_batch() -> None:
    """Pieces of a batch would be factorisations that run at once, for which XLA on two cores waits for ever."""
    block = ir.ResidualBlock(ir.mlp((9, 12, 12, 9), lipschitz=0.5, like=jnp.zeros(1)), lipschitz=0.5)
    x = jnp.zeros((2000, 9))
    for function in (lambda x: ir.logdet(block, x, "exact").value, lambda x: ir.logdet_gradient(block, x, "exact").x_bar):
        assert count(jax.make_jaxpr(function)(x).jaxpr, "lu") == 1


@pytest.mark.thorough
@pytest.mark.parametrize("differentiated", [False, True])
def test_factorisations_of_several_blocks_do_not_wait_for_each_other(differentiated: bool) -> None:
    """In a process of its own: what waits for ever is ended."""
    program = f"""
import jax, jax.numpy as jnp, iresnet_ref as ir
from iresnet_backends import jax_layers
blocks = [ir.ResidualBlock(ir.mlp((18, 24, 24, 18), seed=k, like=jnp.zeros(1))) for k in range(4)]
flow, x = ir.Flow(blocks, options=ir.Options(logdet=ir.Exact())), jnp.ones((450, 18))
layer, value = jax_layers.Flow(flow), lambda layer, x: layer.log_prob(x).mean()
step = jax.jit(jax.grad(value) if {differentiated} else value)
for _ in range(20):
    jax.block_until_ready(step(layer, x))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=240)


def test_errors_say_what_was_expected_what_came_and_what_to_try() -> None:
    layer = jax_layers.ResidualBlock(branch(), options=ir.Options(logdet="roulette"))
    key, unknown = jax.random.key(0), jnp.full((5, 2), jnp.nan)
    with pytest.raises(ValueError, match=r"expected key= for a log-determinant that draws probes, got none; try key=jax.random.key\(0\)"):
        layer(jnp.asarray(X))
    with pytest.raises(ir.NonFiniteError, match="expected finite values, got NaN or infinity; look at"):
        layer.inverse(unknown, key=key)
    with pytest.raises(jax.errors.JaxRuntimeError, match="expected finite values, got NaN or infinity; look at"):
        jax.block_until_ready(jax.jit(lambda y: layer.inverse(y, key=key))(unknown))
    with pytest.raises(ir.ShapeError, match=r"expected shape \(batch, 2\), got \(5, 3\)"):
        layer(jnp.ones((5, 3)), key=key)
    with pytest.raises(ir.DTypeError, match=r"expected branches that are an ir.Branch, got SandwichBranch, whose .*; try ir.mlp"):
        jax_layers.ResidualBlock(ir.sandwich((2, 4, 2)))
    with pytest.raises(ir.DTypeError, match="expected a branch, a block or the sizes of an MLP, got Permutation; try Layer"):
        jax_layers.ResidualBlock(bijections.Permutation((2,), (1, 0)))
