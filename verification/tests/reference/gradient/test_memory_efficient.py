"""Gradients that store little: taken in the forward pass, or from activations rebuilt by inversion."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from autodiff_oracles import assert_close, assert_gradients
from tables import CONSTRUCTORS, backend, inputs

import iresnet_ref as ir
from iresnet_ref.arrays import to_host
from iresnet_ref.errors import ConvergenceError, ShapeError

WEIGHTS = np.asarray([-1.5, 0.0, 0.25, 2.0, 1.0])
NAMES = ["lipswish 2-16-2 L=.9", "elu 3-8-8-3 L=.5", "sine 3-7-6-5-3 L=.99"]


def case(name: str, key: str = "numpy-f64") -> tuple[ir.ResidualBlock, Any, Any, Any]:
    b = backend(key)
    g = CONSTRUCTORS[name](b.asarray(np.zeros(1)), 3)
    x = inputs(b, g.event_shape[0], 5)
    y_bar = b.asarray(np.random.default_rng(2).standard_normal(tuple(x.shape)))
    return ir.ResidualBlock(g), x, y_bar, b.asarray(WEIGHTS)


@pytest.mark.parametrize("method", [ir.Exact(), ir.Roulette(probes=ir.Probes(seed=3, count=4))])
@pytest.mark.parametrize("key", ["numpy-f64", "torch-f64", "strict-device1-f32"])
@pytest.mark.parametrize("name", NAMES)
def test_backward_in_forward_is_the_gradient_for_the_stated_weights(name: str, key: str, method: Any) -> None:
    block, x, y_bar, w = case(name, key)
    truth = ir.logdet_gradient(block, x, method, weights=-0.5 * w, y_bar=y_bar)
    y, stored = ir.backward_in_forward(block, x, w, method=method)
    assert bool(ir.arrays.namespace(x).all(y == block(x)))
    x_bar, gradients = stored.backward(y_bar, -0.5 * w)
    rtol = 2**10 * float(backend(key).xp.finfo(backend(key).dtype).eps)
    assert_gradients((x_bar, gradients), (to_host(truth.x_bar), {k: to_host(v) for k, v in truth.parameters.items()}), rtol)
    again = stored.backward(y_bar, -0.5 * w)  # nothing is used up
    assert bool(ir.arrays.namespace(x).all(again[0] == x_bar))


def test_backward_refuses_weights_that_were_not_stated() -> None:
    block, x, y_bar, w = case("elu 3-8-8-3 L=.5")
    unit = ir.backward_in_forward(block, x)[1]
    unit.backward(y_bar, np.full(5, -0.2))
    with pytest.raises(ValueError, match=r"in the proportion of the weights .* got 0 on row 1 instead of"):
        unit.backward(y_bar, w)
    with pytest.raises(ValueError, match=r"got 1 on row 0 instead of -0.75"):
        ir.backward_in_forward(block, x, w)[1].backward(y_bar, np.ones(5))
    silent = ir.backward_in_forward(block, x, np.zeros(5))[1]
    with pytest.raises(ValueError, match=r"got 1 on row 0 instead of 0"):
        silent.backward(y_bar, np.ones(5))
    truth = ir.logdet_gradient(block, x, weights=np.zeros(5), y_bar=y_bar)
    assert_gradients(silent.backward(y_bar, np.zeros(5)), (truth.x_bar, truth.parameters), 1e-13)
    with pytest.raises(ShapeError, match="logdet_bar: expected one row for each of the 5"):
        unit.backward(y_bar, np.ones(4))


def sequence(name: str, key: str, depth: int) -> list[ir.ResidualBlock]:
    like = backend(key).asarray(np.zeros(1))
    return [ir.ResidualBlock(CONSTRUCTORS[name](like, seed)) for seed in range(depth)]


def stored(blocks: list[ir.ResidualBlock], x: Any, y_bar: Any, w: Any) -> tuple[Any, list[dict[str, Any]]]:
    """The same gradient from stored activations."""
    inputs_ = [x]
    for block in blocks:
        inputs_.append(block(inputs_[-1]))
    parameters = []
    for block, h in zip(reversed(blocks), reversed(inputs_[:-1]), strict=True):
        if w is None:
            x_bar, _, gradients = block.branch.pullback(h, None, y_bar)
            y_bar = y_bar + x_bar
        else:
            found = ir.logdet_gradient(block, h, weights=w, y_bar=y_bar)
            y_bar, gradients = found.x_bar, found.parameters
        parameters.insert(0, gradients)
    return y_bar, parameters


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["lipswish 2-16-2 L=.9", "elu 3-8-8-3 L=.5"])
def test_rebuilt_activations_give_the_gradient_of_stored_ones(name: str, weighted: bool) -> None:
    _, x, y_bar, w = case(name)
    blocks, weights = sequence(name, "numpy-f64", 4), w if weighted else None
    y = x
    for block in blocks:
        y = block(y)
    found = ir.sequence_gradient(blocks, y, y_bar, weights=weights)
    truth = stored(blocks, x, y_bar, weights)
    assert_close(found.x_bar, truth[0], "x̄")
    for ours, theirs in zip(found.parameters, truth[1], strict=True):
        assert_gradients((found.x_bar, ours), (truth[0], theirs))


@pytest.mark.parametrize("key", ["numpy-f32", "numpy-f64", "torch-f64", "strict-device1-f32"])
@pytest.mark.parametrize("name", NAMES)
def test_radius_contains_every_input_of_the_forward_pass(name: str, key: str) -> None:
    _, x, y_bar, w = case(name, key)
    blocks = sequence(name, key, 3)
    activations = [x]
    for block in blocks:
        activations.append(block(activations[-1]))
    found = ir.sequence_gradient(blocks, activations[-1], y_bar, weights=w, rtol=1e-4)
    for k, (inverse, radius) in enumerate(zip(found.reconstructions, found.radius, strict=True)):
        rebuilt = ir.sequence_gradient(blocks[k:], activations[-1], y_bar, weights=w, rtol=1e-4).x  # the same steps, fewer
        error = np.linalg.norm((to_host(rebuilt).astype(np.float64) - to_host(activations[k])), axis=1)
        assert (error <= to_host(radius)).all()
        size = np.linalg.norm(to_host(activations[k]).astype(np.float64), axis=1)
        assert (error <= 1e-2 * size + 1e-2).all(), "rebuilt, not merely bounded"
        assert bool(ir.arrays.namespace(x).all(inverse.converged))
    assert (to_host(found.radius[0]) > to_host(found.reconstructions[0].error_bound)).all(), (
        "later errors are carried on"
    )


def test_radius_carries_on_the_errors_of_later_blocks() -> None:
    """Six times x − .95 tanh(x) near 0: F⁻¹ amplifies by up to 20, and the first block's own radius is far too small."""
    g = ir.mlp((1, 1, 1), activation="tanh").with_parameters(
        {"0.weight": np.ones((1, 1)), "0.bias": np.zeros(1), "2.weight": -0.95 * np.ones((1, 1)), "2.bias": np.zeros(1)}
    )
    blocks = [ir.ResidualBlock(g)] * 6
    y = x = np.linspace(-0.5, 0.5, 50)[:, None]
    for block in blocks:
        y = block(y)
    found = ir.sequence_gradient(blocks, y, np.ones_like(x), rtol=1e-4)
    error = np.abs(found.x - x)[:, 0]
    assert (error > found.reconstructions[0].error_bound).any()
    assert (error <= found.radius[0]).all()


def test_memory_is_that_of_one_block() -> None:
    """Twelve blocks more cost their gradients and five numbers for each row, and not one activation more."""
    x = np.random.default_rng(4).standard_normal((2048, 8))

    def peak(depth: int) -> int:
        blocks = [ir.ResidualBlock(ir.mlp((8, 16, 8), lipschitz=0.5, seed=k)) for k in range(depth)]
        y = x
        for block in blocks:
            y = block(y)
            assert block.branch.rounding[0] < 1e-12  # constants of a block are computed once, here
        tracemalloc.start()
        found = ir.sequence_gradient(blocks, y, y)
        gradients = sum(g.nbytes for own in found.parameters for g in own.values())
        size = tracemalloc.get_traced_memory()[1] - gradients
        tracemalloc.stop()
        return size

    assert peak(16) - peak(4) < 12 * 6 * x[:, 0].nbytes < 12 * x.nbytes


def test_bad_input_is_refused() -> None:
    block, x, y_bar, w = case("elu 3-8-8-3 L=.5")
    with pytest.raises(ValueError, match="expected at least one block, got none"):
        ir.sequence_gradient([], x, y_bar)
    other = ir.ResidualBlock(ir.mlp((3, 3), norm=1.0))
    with pytest.raises(ValueError, match=r"expected blocks in one norm, .* got norms \[1.0, 2.0\]"):
        ir.sequence_gradient([block, other], x, y_bar)
    with pytest.raises(ShapeError, match="y_bar: expected one row for each of the 5"):
        ir.sequence_gradient([block], x, y_bar[:2], weights=w)
    with pytest.raises(ConvergenceError, match="expected relative residual"):
        ir.sequence_gradient([block], x, y_bar, weights=w, rtol=1e-18)
