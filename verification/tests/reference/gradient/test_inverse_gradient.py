"""The gradient through the inverse: against autograd through an unrolled iteration, and differences at 50 digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from autodiff_oracles import assert_close, assert_gradients, torch_gradients, torch_logdets
from tables import CONSTRUCTORS, at_50_digits, backend, digits50, inputs

import iresnet_ref as ir
from iresnet_ref.arrays import to_host
from iresnet_ref.errors import ConvergenceError, ShapeError
from iresnet_ref.gradient import adjoint
from iresnet_ref.log_determinant.exact import exact_logdet

torch = pytest.importorskip("torch")
WEIGHTS = np.asarray([-1.5, 0.0, 0.25, 2.0, 1.0])
UNROLLED = ["linear d=3 L=.9", "lipswish 2-16-2 L=.9", "elu 3-8-8-3 L=.5", "softplus 4-9-5-4 L=.9", "tiny J d=4"]


def case(name: str, key: str = "numpy-f64") -> tuple[ir.ResidualBlock, Any, Any, Any]:
    """(F, y, x̄, weights), one row of x̄ and another row of the weights zero."""
    b = backend(key)
    g = CONSTRUCTORS[name](b.asarray(np.zeros(1)), 3)
    x_bar = np.random.default_rng(2).standard_normal((5, g.event_shape[0])) * np.arange(5)[:, None]
    return ir.ResidualBlock(g), inputs(b, g.event_shape[0], 5), b.asarray(x_bar), b.asarray(WEIGHTS)


@pytest.mark.parametrize("name", UNROLLED)
@pytest.mark.parametrize("krylov", [False, True])
def test_gradient_agrees_with_autograd_through_the_iteration(
    name: str, krylov: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adjoint, "DENSE", 0 if krylov else 32)
    block, y, x_bar, w = case(name)
    steps = int(np.ceil(-40 / np.log(block.contraction())))  # L^steps < 1e-17

    def loss(g: Any, y: Any) -> Any:
        """Σ x̄ᵀx − Σ w log det(I + J(x)) at x = F⁻¹(y), the fixed point of x ← y − g(x) unrolled."""
        x = y
        for _ in range(steps):
            x = y - g(x)
        return (torch.tensor(x_bar) * x).sum() - (torch.tensor(w) * torch_logdets(g, x)).sum()

    x = ir.invert(block, y, rtol=1e-15, throw=False).x
    ours = ir.inverse_gradient(block, x, x_bar, weights=w)
    assert ours.method == ("krylov" if krylov else "dense")
    assert_gradients((ours.y_bar, ours.parameters), torch_gradients(block.branch, y, loss))


@pytest.mark.parametrize("name", ["lipswish 2-16-2 L=.9", "sine 3-7-6-5-3 L=.99", "symmetric- d=4 L=.99"])
def test_gradient_is_the_slope_of_the_inverse_at_50_digits(name: str) -> None:
    block, y, x_bar, w = case(name)
    p = digits50()
    g, high = at_50_digits(block.branch), p.asarray(y)
    rng = np.random.default_rng(4)
    move = {k: p.asarray(rng.standard_normal(v.shape)) for k, v in g.parameters().items()}
    aside, h = p.asarray(rng.standard_normal(y.shape)), 1e-10

    def value(t: float) -> Any:
        moved = g.with_parameters({k: v + t * move[k] for k, v in g.parameters().items()})
        x = ir.invert(ir.ResidualBlock(moved, 0.995), high + t * aside, rtol=1e-30).x
        return p.xp.sum(p.asarray(x_bar) * x) - p.xp.sum(p.asarray(w) * exact_logdet(moved.linearize(x)[1]))

    # (f(h) − f(−h))/2h has an error of O(h²) + 1e-30/h = 1e-20, times third derivatives
    slope = float((value(h) - value(-h)) / (2 * h))
    x = ir.invert(block, y, rtol=1e-15, throw=False).x
    ours = ir.inverse_gradient(block, x, x_bar, weights=w)
    parts = [np.sum(to_host(move[k]) * v) for k, v in ours.parameters.items()] + [np.sum(to_host(aside) * ours.y_bar)]
    assert abs(sum(parts) - slope) <= 1e-10 * sum(map(abs, parts))


@pytest.mark.parametrize("key", ["numpy-f32", "torch-f64", "strict-device1-f32", "strict-device2-f64"])
@pytest.mark.parametrize("name", ["elu 3-8-8-3 L=.5", "symmetric- d=4 L=.99"])
@pytest.mark.parametrize("krylov", [False, True])
def test_solution_meets_its_tolerance_and_its_bound(
    name: str, key: str, krylov: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adjoint, "DENSE", 0 if krylov else 32)
    block, x, x_bar, _ = case(name, key)
    rtol = 1e-5 if key.endswith("f32") else 1e-12
    ours = ir.inverse_gradient(block, x, x_bar, rtol=rtol)
    p = digits50()
    high = at_50_digits(block.branch).linearize(p.asarray(to_host(x).astype(np.float64)))[1]
    solution = p.asarray(to_host(ours.y_bar).astype(np.float64))
    target = to_host(x_bar).astype(np.float64)
    size = np.linalg.norm(target, axis=1)
    rest = to_host(p.asarray(target) - solution - high.rmatvec(solution))
    floor = 2**6 * float(backend(key).xp.finfo(backend(key).dtype).eps)
    assert (np.linalg.norm(rest, axis=1) <= (rtol + floor) * size).all()
    jacobian = to_host(high.dense())
    truth = np.linalg.solve(np.eye(x.shape[1]) + np.swapaxes(jacobian, 1, 2), target[:, :, None])[..., 0]
    error = np.linalg.norm(to_host(ours.y_bar) - truth, axis=1)
    assert (error <= to_host(ours.error_bound) + floor * size / (1.0 - block.contraction())).all()


def test_error_bound_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coarse solution is farther from (I + J)⁻ᵀx̄ than its residual says, and within ‖residual‖/(1 − L)."""
    monkeypatch.setattr(adjoint, "DENSE", 0)
    slopes = -np.linspace(0.1, 0.99, 24)
    g = ir.mlp((24, 24)).with_parameters({"0.weight": np.diag(slopes), "0.bias": np.zeros(24)})
    ours = ir.inverse_gradient(ir.ResidualBlock(g), np.zeros((1, 24)), np.ones((1, 24)), rtol=0.1)
    error = np.linalg.norm(ours.y_bar[0] - 1.0 / (1.0 + slopes))
    assert 10.0 * ours.residual_norm[0] < error <= ours.error_bound[0]


@pytest.mark.parametrize("norm", [1.0, np.inf])
@pytest.mark.parametrize("iterated", [False, True])
def test_in_other_norms_the_dual_norm_bounds_the_error(
    norm: float, iterated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adjoint, "DENSE", 0 if iterated else 32)
    rng = np.random.default_rng(1)
    weight = 0.1 * rng.standard_normal((9, 9))
    weight[:, 4] += 1.0  # long columns and short rows
    weight = 0.95 * weight / np.linalg.norm(weight, np.inf)
    weight = weight if norm == np.inf else weight.T
    assert np.linalg.norm(weight, 2) > 1.0, "no contraction in the 2-norm"
    layers = ir.mlp((9, 9)).with_parameters({"0.weight": weight, "0.bias": np.zeros(9)}).layers
    block = ir.ResidualBlock(ir.Branch(layers, (9,), norm))
    x_bar = rng.standard_normal((4, 9))
    ours = ir.inverse_gradient(block, np.zeros((4, 9)), x_bar, rtol=1e-3)
    assert ours.method == ("neumann" if iterated else "dense")
    q = {1.0: np.inf, np.inf: 1.0}[norm]
    truth = np.linalg.solve((np.eye(9) + weight).T, x_bar.T).T
    error, rest = (np.linalg.norm(a, q, axis=1) for a in (ours.y_bar - truth, x_bar - ours.y_bar @ (np.eye(9) + weight)))
    assert (error <= ours.error_bound + 1e-13).all()
    assert np.abs(rest - ours.residual_norm).max() <= 1e-13
    assert (rest <= 1e-3 * np.linalg.norm(x_bar, q, axis=1)).all()


def test_where_gcr_would_break_down_the_neumann_series_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """‖J‖_∞ = .95, but x̄ᵀ(I + J)x̄ = 0: in the 2-norm no multiple of x̄ comes any nearer."""
    monkeypatch.setattr(adjoint, "DENSE", 0)
    weight = np.zeros((25, 25))
    weight[:, 0] = -0.95
    # x̄ = (cos θ, sin θ, …, sin θ)/…: 1 = .95 (cos²θ + √24 sin θ cos θ), that is tan²θ − .95√24 tan θ + .05 = 0
    slope = np.roots([1.0, -0.95 * 24**0.5, 0.05]).min()
    x_bar = np.concatenate([[1.0], np.full(24, slope / 24**0.5)])[None, :]
    assert abs(np.vdot(x_bar, x_bar @ (np.eye(25) + weight))) <= 1e-14
    layers = ir.mlp((25, 25)).with_parameters({"0.weight": weight, "0.bias": np.zeros(25)}).layers
    ours = ir.inverse_gradient(ir.ResidualBlock(ir.Branch(layers, (25,), np.inf)), np.zeros((1, 25)), x_bar)
    assert_close(ours.y_bar @ (np.eye(25) + weight), x_bar, "(I + J)ᵀȳ")


def test_krylov_needs_no_more_products_than_the_neumann_series(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide, with an indefinite J: m products shrink ‖r‖ by Lᵐ at least; one more product checks each cycle."""
    g = ir.mlp((90, 90, 90), lipschitz=0.9, seed=2)
    block, rng = ir.ResidualBlock(g), np.random.default_rng(0)
    x, x_bar = rng.standard_normal((2, 3, 90))
    ours = ir.inverse_gradient(block, x, x_bar, rtol=1e-9)
    assert ours.method == "krylov"
    assert int(ours.evaluations[0]) <= np.log(1e-9) / np.log(block.contraction()) + adjoint.CHECK_EVERY + 2
    monkeypatch.setattr(adjoint, "CYCLE", 3)  # restarts
    again = ir.inverse_gradient(block, x, x_bar, rtol=1e-9)
    assert_close(again.y_bar, ours.y_bar, "ȳ", 1e-7)


def test_rows_with_zero_cotangents_stay_zero() -> None:
    block, y, x_bar, _ = case("elu 3-8-8-3 L=.5")
    ours = ir.inverse_gradient(block, y, x_bar)
    assert not ours.y_bar[0].any()
    nothing = ir.inverse_gradient(block, y, np.zeros_like(y))
    assert not nothing.y_bar.any()
    assert not any(v.any() for v in nothing.parameters.values())
    empty = ir.inverse_gradient(block, y[:0], y[:0], weights=y[:0, 0])
    assert empty.y_bar.shape == (0, 3)


def test_frozen_parameters_and_repeated_calls() -> None:
    block, y, x_bar, w = case("elu 3-8-8-3 L=.5")
    whole = ir.inverse_gradient(block, y, x_bar, weights=w)
    again = ir.inverse_gradient(block, np.asfortranarray(y), x_bar, weights=w, parameters={"4.bias", "0.weight"})
    assert list(again.parameters) == ["0.weight", "4.bias"]
    assert_close(again.parameters["0.weight"], whole.parameters["0.weight"], "0.weight", 1e-13)


def test_bad_input_is_refused() -> None:
    block, y, x_bar, _ = case("elu 3-8-8-3 L=.5")
    with pytest.raises(ValueError, match="expected a cotangent, x_bar or weights, got neither"):
        ir.inverse_gradient(block, y)
    with pytest.raises(ValueError, match="expected 0 < rtol < 1, got 0"):
        ir.inverse_gradient(block, y, x_bar, rtol=0.0)
    with pytest.raises(ShapeError, match="x_bar: expected one row for each of the 5"):
        ir.inverse_gradient(block, y, x_bar[:3])
    with pytest.raises(ConvergenceError, match=r"on every row, got .* after 7 products, at the rounding floor") as caught:
        ir.inverse_gradient(block, y, x_bar, rtol=1e-18)
    # the best that rounding allows is in the result
    result = caught.value.result
    assert isinstance(result, ir.InverseGradient)
    assert (result.residual_norm <= 2**-48 * np.linalg.norm(x_bar, axis=1)).all()
    assert not ir.inverse_gradient(block, y, x_bar, rtol=1e-18, throw=False).y_bar[0].any()
