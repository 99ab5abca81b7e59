"""A layer of one's own: the page that makes one runs, what it says works, and what nobody has proved is inf, never NaN.

The laws of all branches hold of it too: it is a line in the table of constructors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np
import pytest
from seeds import for_seeds
from tables import at_50_digits, backend, distance, exact, inputs, own_layer, page_of_layers

import iresnet_backends
import iresnet_ref as ir
from iresnet_ref.error_analysis.jacobian import jacobian_error
from iresnet_ref.error_analysis.variance import rounding_variance
from iresnet_ref.layers import Affine, Concatenation, Layer, Parallel, Pointwise


def block_and_points(rows: int = 4) -> tuple[ir.ResidualBlock, Any]:
    return ir.ResidualBlock(own_layer(0.9, 0, np.zeros(1))), np.random.default_rng(0).standard_normal((rows, 3))


def test_the_page_runs() -> None:
    assert page_of_layers(2)["printed"].splitlines() == [
        "True (4,) ['0.weight', '0.bias', '1.omega', '2.weight', '2.bias']", "True",
    ]  # fmt: skip


def test_a_layer_is_five_methods() -> None:
    assert Layer.__abstractmethods__ == {"out_shape", "__call__", "linearize", "pullback", "norm_bound"}


@pytest.mark.parametrize("method", ["auto", "newton", ir.Banach(), ir.Anderson(2), ir.Hidden()])
def test_its_inverse_is_found_and_no_radius_is_proved(method: Any) -> None:
    block, x = block_and_points()
    found = ir.invert(block, block(x), method, rtol=1e-12)
    assert found.converged.all()
    assert np.abs(found.x - x).max() <= 1e-10  # 1e-12 relative, times 1/(1 − .9)
    assert (found.error_bound == math.inf).all()
    ball = ir.bounds.inverse_ball(block, found.x, block(x))
    assert (ball.radius == math.inf).all()
    assert (ball.residual_norm <= 1e-11).all()
    assert "no radius for row 0" in ball.reason


def test_its_log_determinants_have_values_and_no_bound_on_rounding() -> None:
    block, x = block_and_points()
    value = ir.logdet(block, x, "exact").value
    truth = np.linalg.slogdet(np.eye(3) + block.branch.linearize(x)[1].dense())[1]
    assert np.abs(value - truth).max() <= 1e-13
    every = ir.Probes(kind="hadamard", block=4)  # the mean over the block is the trace
    for method in (ir.Series(8, probes=every), ir.Arnoldi(3, probes=every)):
        found = ir.logdet(block, x, method)
        assert (np.abs(found.value - value) <= found.bias_bound + 1e-13).all()
    roulette = ir.logdet(block, x, ir.Roulette(probes=ir.Probes(seed=0, count=400)))
    assert (np.abs(roulette.value - value) <= 8 * roulette.standard_error).all()
    assert (ir.bounds.logdet_error_bound(block, x) == math.inf).all()
    displacement = ir.logdet_of_inverse(block, block(x)).displacement_bound
    assert np.abs(displacement - 3 * math.log(1.9 / 0.1)).max() <= 1e-12


def test_what_rests_on_its_lipschitz_bound_alone_is_as_for_any_layer() -> None:
    block, x = block_and_points()
    certificate = ir.certify(block)
    assert certificate.proved
    assert "Wave ≤ 1" in certificate.reason
    assert certificate.bound <= 0.9
    raw = block.branch.with_parameters({k: 3.0 * p for k, p in block.branch.parameters().items()})
    assert ir.NormalisedBranch(raw, 0.8).branch.certificate.bound <= 0.8
    assert (ir.bounds.rounding_floor(block, x, block(x)) < 1e-14).all()
    gradient = ir.sequence_gradient([block, block], block(block(x)), y_bar=x)
    assert all(np.isfinite(p).all() for parameters in gradient.parameters for p in parameters.values())
    assert all((radius == math.inf).all() for radius in gradient.radius)


def test_a_stated_constant_that_is_wrong_is_not_refuted() -> None:
    block, x = block_and_points()
    ir.invert(ir.ResidualBlock(block.branch, lipschitz=0.01), x, throw=False)
    first, _, last = block.branch.layers
    known = ir.Branch((first, ir.layers.Pointwise(ir.activations.get("sine")), last), (3,))
    with pytest.raises(ir.NotContractiveError):  # the control: the rounding of a sine between the same layers is known
        ir.invert(ir.ResidualBlock(known, lipschitz=0.01), x, throw=False)


def test_it_cannot_be_saved(tmp_path: Any) -> None:
    with pytest.raises(ir.DTypeError, match="Wave"):
        iresnet_backends.save(tmp_path / "own.safetensors", block_and_points()[0])


@pytest.mark.parametrize("inside", ["alone", "in a concatenation", "in a path"])
def test_no_bound_is_nan_behind_a_zero_weight(inside: str) -> None:
    """0·∞ is NaN, of which every comparison is false. Behind a weight of 0 the value is the bias, whatever came before."""
    wave = own_layer(0.9, 0, np.zeros(1)).layers[1]
    layer = {"alone": wave, "in a concatenation": Concatenation((wave,)), "in a path": Parallel(((), (wave,)))}[inside]
    g = ir.Branch((layer, Affine(np.zeros((3, *layer.out_shape((3,)))), np.ones(3))), (3,))
    block, x = ir.ResidualBlock(g), np.ones((2, 3))
    _, error, growth, drift = g.running_error(x)
    assert (error <= 1e-14).all()
    assert (drift == math.inf).all()  # what a flush loses of a subnormal weight, times ∞
    assert g.rounding[0] == math.inf
    assert math.isfinite(growth)
    inverse = ir.invert(block, x)  # nothing is known of replays, and all of the exact preimage
    assert not inverse.covers_computed.any()
    assert (inverse.error_bound <= 1e-13).all()
    assert (ir.bounds.inverse_ball(block, x, x).radius <= 4).all()
    assert (ir.bounds.logdet_error_bound(block, x) == math.inf).all()


def test_nothing_is_known_of_it_unless_it_is_registered() -> None:
    wave, h = own_layer(0.9, 0, np.zeros(1)).layers[1], np.ones((2, 3))
    assert (jacobian_error(wave, h, np.zeros(2)).nuclear == math.inf).all()
    y, variance = wave(h), np.full((2, 3), 4.0)
    assert (rounding_variance(wave, h, y, variance, np.ones(2)) >= variance).all()  # Lip = 1: what came before, and one rounding
    assert (rounding_variance(wave, h, y, variance, np.ones(2)) <= variance + 2.0**-104).all()


@pytest.mark.parametrize("key", ["numpy-f32", "numpy-f64"])
@for_seeds
def test_the_error_analysis_on_the_page_holds(key: str, seed: int) -> None:
    b = backend(key)
    first, _, last = ir.mlp((3, 6, 3), lipschitz=0.9, seed=seed, like=b.asarray(np.zeros(1))).layers
    g = ir.Branch((first, page_of_layers(2)["Wave"](b.asarray(np.asarray([2.0]))), last), (3,))
    x = inputs(b, 3, seed)
    value, error, growth, drift = g.running_error(x)
    assert (distance(value, at_50_digits(g)(exact(x))) <= error).all()
    assert np.isfinite(error).all()
    elsewhere = g.running_error(1.5 * x)[1]
    assert (elsewhere <= (error + growth * np.linalg.norm(0.5 * x, axis=1) + drift) * (1 + 1e-3)).all()


Unit = TypeVar("Unit")


@dataclass(frozen=True)
class Masked(Affine):
    """A dense layer that says `with_parameters` and `pullback` anew, and keeps what is made of its weight."""

    mask: Any
    total: float = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "total", float(self.weight.sum()))

    def with_parameters(self, parameters: Mapping[str, Any]) -> Masked:
        return super().with_parameters({**parameters, "weight": parameters["weight"] * self.mask})

    def pullback(self, x: Any, v: Any, y_bar: Any, t_bar: Any) -> Any:
        x_bar, v_bar, gradients = super().pullback(x, v, y_bar, t_bar)
        return x_bar, v_bar, {**gradients, "weight": gradients["weight"] * self.mask}


class Halved:
    """A mixin that says `linearize` anew."""

    def __call__(self, x: Any) -> Any:
        return 0.5 * super().__call__(x)  # type: ignore[misc]

    def linearize(self, x: Any) -> Any:
        factor = super().linearize(x)[1]  # type: ignore[misc]
        return self(x), replace(factor, entries=0.5 * factor.entries)


@dataclass(frozen=True)
class HalvedPointwise(Halved, Pointwise, Generic[Unit]):
    """A pointwise layer of half the value, in a unit."""


def test_what_a_subclass_says_anew_is_what_every_pass_does() -> None:
    rng = np.random.default_rng(0)
    mask, x = np.tril(np.ones((3, 2))), rng.standard_normal((4, 2))
    first = Masked(0.3 * mask, np.zeros(3), mask)
    g = ir.Branch((first, HalvedPointwise[int](ir.activations.get("lipswish")), Affine(rng.standard_normal((2, 3)), np.zeros(2))), (2,))
    moved = g.with_parameters({**g.parameters(), "0.weight": np.ones((3, 2))})
    assert (moved.parameters()["0.weight"] == mask).all()
    layer = moved.layers[0]
    assert isinstance(layer, Masked)
    assert layer.total == mask.sum()
    for linearize in (False, True):
        tape = moved.record(x, linearize=linearize)
        assert (tape.value == moved(x)).all()
        assert (tape.pullback(np.ones((4, 2)))[2]["0.weight"][mask == 0.0] == 0.0).all()
    gradient = ir.logdet_gradient(ir.ResidualBlock(moved, lipschitz=0.99), x, "exact").parameters["0.weight"]
    assert (gradient[mask == 0.0] == 0.0).all()
