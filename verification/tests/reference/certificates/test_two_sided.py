"""Bounds on F = id + g from both sides: against what slopes reach, in balls, against another solver; inverses where Lip(g) ≥ 1 > m."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from constraint_oracles import exactly_semidefinite, reached, second_solver
from test_quadratic import adversarial, chain, problem_of, random_net

import iresnet_ref as ir
from iresnet_ref.branches.certificates.barrier import Centre
from iresnet_ref.branches.certificates.two_sided import LOWER, MONOTONE, UPPER, _proved
from iresnet_ref.errors import NotContractiveError

Host = np.ndarray[Any, Any]


def scaled(branch: ir.Branch, factor: float) -> ir.Branch:
    """The branch with its last weight times a factor."""
    parameters = branch.parameters()
    name = [key for key in parameters if key.endswith("weight")][-1]
    return branch.with_parameters({**parameters, name: factor * parameters[name]})


def hold(weights: list[Host], phi: ir.activations.Activation, rng: np.random.Generator) -> None:
    """Check one network: no figure claims more than slopes within their intervals allow, and none is worse than what Lip(g) says."""
    block = ir.ResidualBlock(chain(weights, phi))
    found, lipschitz = ir.bounds.two_sided(block), ir.certify(block).bound
    seen = reached([w.astype(np.float64) for w in weights], [phi.slope_interval] * (len(weights) - 1), rng, tries=2, rounds=8)
    assert seen["monotone"] - 1e-12 * lipschitz <= found.monotone <= lipschitz
    assert seen["upper"] * (1 - 1e-12) <= found.upper <= 1 + lipschitz * (1 + 1e-12) + 1e-12
    assert 1 - lipschitz - 1e-12 <= found.lower <= seen["lower"] * (1 + 1e-12) + 1e-12
    assert found.lower >= 1 - found.monotone - 1e-12
    assert found.rate <= lipschitz
    if found.step < 1:  # (1 − θ)I − θJ at the ends that were reached is no longer than r
        assert found.rate >= abs(1 - found.step * (1 - seen["monotone"])) - 1e-9


@pytest.mark.parametrize("seed", range(10))
def test_random_networks_from_both_sides(seed: int) -> None:
    rng = np.random.default_rng(50 + seed)
    hold(*random_net(rng, 8), rng)


NAMES = ["rank one", "orthogonal", "identity", "minus the identity", "zero rows and columns", "one unit", "float32"]


@pytest.mark.parametrize("name", NAMES)
def test_adversarial_weights_from_both_sides(name: str) -> None:
    hold(adversarial()[name], ir.activations.get("elu"), np.random.default_rng(0))


def test_the_identity_and_its_negative_are_told_apart() -> None:
    """g = φ is monotone: m ≤ 0 and μ ≥ 1; g = −φ has m = 1: nothing is invertible."""
    elu = ir.activations.get("elu")
    plus, minus = (ir.bounds.two_sided(chain([np.eye(4), s * np.eye(4)], elu)) for s in (1.0, -1.0))
    assert plus.monotone < 1e-3
    assert plus.lower > 0.999
    assert plus.invertible
    assert minus.monotone >= 1.0
    assert not minus.invertible


@pytest.mark.parametrize("form", [MONOTONE, UPPER, LOWER], ids=["monotone", "upper", "lower"])
@pytest.mark.parametrize("sizes", [(2, 12, 2), (6, 10, 10, 6)])
def test_each_side_is_proved_in_balls_and_near_the_optimum(form: Any, sizes: tuple[int, ...]) -> None:
    pytest.importorskip("clarabel")
    problem = problem_of(ir.mlp(sizes, activation="elu", lipschitz=0.9, seed=5))
    start = {MONOTONE: (0.6, 1.0), UPPER: (2.0, 4.0), LOWER: (0.2, 1.0)}[form]
    tau = start[0] * problem.start()
    rho = _proved(problem, form, Centre(tau, max(start[1], problem.least(form, tau))))
    optimum = second_solver(problem, form)
    assert optimum - 1e-5 <= rho <= optimum + 2e-3 * max(abs(optimum), 0.1)
    assert exactly_semidefinite(problem, form, tau, problem.prove_least(form, tau)) is True
    assert not problem.proves(form, tau, problem.least(form, tau) - 1e-8)


def test_the_radius_shrinks_with_what_is_proved_and_still_contains_the_preimage() -> None:
    block = ir.ResidualBlock(ir.mlp((8, 32, 8), activation="elu", lipschitz=0.9, seed=4))
    x = np.random.default_rng(0).standard_normal((50, 8))
    y = block(x)
    radii = []
    for step in (lambda: None, lambda: ir.certify(block), lambda: ir.bounds.two_sided(block)):
        step()
        inverse = ir.invert(block, y, "banach", rtol=1e-3)
        assert (np.linalg.norm(inverse.x - x, axis=1) <= inverse.error_bound).all()
        ball = ir.bounds.inverse_ball(block, x + 1e-3, y)
        assert (1e-3 * np.sqrt(8) * (1 - 1e-9) <= ball.radius).all()
        radii.append(float(ball.radius.max()))
    assert radii[2] < 0.8 * radii[1] < 0.5 * radii[0]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("method", ["auto", "banach", "newton"])
def test_a_block_of_product_nearly_two_is_inverted_where_its_negative_part_is_below_one(method: Any, dtype: Any) -> None:
    block = ir.ResidualBlock(scaled(ir.mlp((16, 32, 16), activation="elu", seed=101, like=np.zeros(1, dtype=dtype)), 2.0))
    x = np.random.default_rng(0).standard_normal((20, 16)).astype(dtype)
    assert block.branch.product.bound > 1.79
    assert ir.certify(block).bound > 1.0
    with pytest.raises(NotContractiveError, match=r"two_sided"):
        ir.invert(block, block(x))
    found = ir.bounds.two_sided(block)
    assert found.monotone < 1.0
    assert found.rate < 1.0
    rtol = 1e-10 if dtype is np.float64 else 1e-4
    inverse = ir.invert(block, block(x), method, rtol=rtol)
    assert inverse.method.startswith("damped")
    assert inverse.converged.all()
    assert (np.linalg.norm((inverse.x - x).astype(np.float64), axis=1) <= inverse.error_bound).all()
    assert np.linalg.norm(inverse.x - x, axis=1).max() < 1e3 * rtol
    residual = np.linalg.norm(block(inverse.x) - block(x), axis=1)
    largest = np.maximum(np.linalg.norm(x, axis=1), np.linalg.norm(block(x), axis=1))
    assert (residual <= 1.1 * rtol * largest + (1e-5 if dtype is np.float32 else 0.0)).all()
    assert (ir.bounds.inverse_ball(block, inverse.x, block(x)).radius < 1e4 * rtol).all()


def test_a_crop_has_no_lower_bound_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an embedded zero-padded convolution μ is 1 − m: the matrix of the torus speaks of more than the image."""
    found = ir.bounds.two_sided(ir.convnet((3, 8, 8), channels=6, activation="elu", seed=1))
    assert found.lower == pytest.approx(1 - found.monotone, rel=1e-12)
