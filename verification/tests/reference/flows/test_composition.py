"""The inverse of a composition: its propagated bound holds, is called vacuous when it is, and the local estimate is honest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from contractive_families import FAMILIES, rotation, symmetric
from tables import BACKENDS, each_backend

import iresnet_backends
import iresnet_ref as ir
from iresnet_ref.arrays import row_norm, to_host
from iresnet_ref.bijections import ClosedForm
from iresnet_ref.inversion.composition import LANCZOS, PathInverse, amplification, propagated
from iresnet_ref.inversion.result import Inverse
from iresnet_ref.layers import activations
from iresnet_ref.layers.linear import Affine
from iresnet_ref.layers.pointwise import Pointwise


@dataclass(frozen=True)
class Scale(ClosedForm):
    """y = s x in three dimensions, a closed form with a rounding radius."""

    factor: float

    @property
    def in_shape(self) -> tuple[int, ...]:
        return (3,)

    def value(self, x: Any) -> Any:
        return self.factor * x

    def inverse_value(self, y: Any) -> Any:
        return y / self.factor

    def log_abs_det(self, x: Any, y: Any) -> Any:
        raise NotImplementedError

    def rounding(self, x: Any, y: Any) -> Any:
        return 2.0**-52 * row_norm(x, y.ndim - 1)

    def pullback(self, x: Any, y_bar: Any, weights: Any, options: ir.Options) -> Any:
        raise NotImplementedError

    @property
    def inverse_lipschitz(self) -> float:
        return 1.0 / abs(self.factor)


def inverted(steps: Any, y: Any, rtol: float) -> PathInverse:
    return ir.bijections.Composition(tuple(steps)).inverse(y, options=ir.Options(rtol=rtol), estimate=True)


def flow(lipschitz: float, depth: int, d: int = 3) -> list[ir.ResidualBlock]:
    return [ir.ResidualBlock(ir.mlp((d, 16, d), lipschitz=lipschitz, seed=k)) for k in range(depth)]


def pushed(steps: Any, x: Any) -> Any:
    for step in steps:
        x = step(x)
    return x


def planted(d: int = 3) -> Any:
    return np.random.default_rng(0).standard_normal((16, d))


@pytest.mark.parametrize("rtol", [1e-3, 1e-6, 1e-12])
def test_the_propagated_bound_contains_the_planted_point(rtol: float) -> None:
    """E_{k−1} = ε_k + Λ_k E_k; the errors of tolerance 1e-3 are far above rounding, so that a lost term shows."""
    steps = [*flow(0.7, 3), Scale(1e-3), *flow(0.7, 2)]
    x = planted()
    found = inverted(steps, pushed(steps, x), rtol)
    rounded = 2.0**-50 * 1e3 * (1 - 0.7) ** -5 * 16  # F itself was evaluated in float64
    assert (np.linalg.norm(found.x - x, axis=1) <= found.error_bound + rounded).all()
    assert found.inverse_lipschitz == pytest.approx((1 / 0.3) ** 5 * 1e3, rel=1e-9)
    assert found.method.endswith(" + closed form")
    assert found.converged.all()


def test_the_recursion_is_the_stated_one() -> None:
    """E_0 = ε_1 + Λ_1(ε_2 + Λ_2 ε_3), rounded up; the product is ΠΛ_k; inf stays inf."""
    x = np.ones((2, 3))
    one = np.ones(2)
    results = [Inverse(x, one, e * one, one, one == 1) for e in (1e-3, 1e-2, 1e-1)]
    bound, product, vacuous = propagated(results, [7.0, 5.0, 2.0])
    exact = 1e-1 + 2.0 * (1e-2 + 5.0 * 1e-3)
    assert (bound >= exact).all()
    assert (bound <= exact * (1 + 1e-14)).all()
    assert 70.0 <= product <= 70.0 * (1 + 1e-14)
    assert not vacuous.any()
    assert propagated(results, [7.0, 5.0, np.inf])[0].tolist() == [np.inf, np.inf]
    assert propagated(results, [7.0, 5.0, np.inf])[2].all()


def test_vacuous_means_not_one_digit() -> None:
    """8 blocks at L = .97: the product is 1.5e12; at float32's rounding nothing is left of the bound, and it says so."""
    x = planted()
    steps = flow(0.97, 8)
    fine = inverted(steps, pushed(steps, x), 1e-12)
    assert fine.inverse_lipschitz == pytest.approx(0.03**-8, rel=1e-6)
    single = iresnet_backends.get("numpy", dtype="float32")
    coarse_steps = [
        ir.ResidualBlock(s.branch.with_parameters({k: single.asarray(v) for k, v in s.branch.parameters().items()}))
        for s in steps
    ]
    z = x.astype(np.float32)
    coarse = inverted(coarse_steps, pushed(coarse_steps, z), 1e-5)
    assert coarse.vacuous.all()
    for found in (fine, coarse):
        assert (found.vacuous == ~(found.error_bound < np.linalg.norm(found.x.astype(np.float64), axis=1))).all()
    assert (coarse.amplification_estimate < 100).all()  # while the path itself is harmless
    assert (np.linalg.norm(coarse.x - z, axis=1) < 1e-4 * 100).all()


def test_the_estimate_is_the_norm_along_the_path() -> None:
    """Up to 24 dimensions Rayleigh–Ritz is exact: ‖(I + J)⁻¹‖₂ = 1/σ_min."""
    for d in (2, 7, LANCZOS):
        block = ir.ResidualBlock(ir.mlp((d, 32, d), lipschitz=0.9, seed=d))
        x = planted(d)
        jacobian = np.eye(d) + block.branch.linearize(x)[1].dense()
        truth = 1 / np.linalg.svd(jacobian, compute_uv=False)[:, -1]
        assert np.allclose(amplification(block, x), truth, rtol=1e-9, atol=0)
    steps = flow(0.9, 4)
    x = planted()
    found = inverted(steps, pushed(steps, x), 1e-12)
    product = np.ones(16)
    for step in steps:
        product /= np.linalg.svd(np.eye(3) + step.branch.linearize(x)[1].dense(), compute_uv=False)[:, -1]
        x = step(x)
    assert np.allclose(found.amplification_estimate, product, rtol=1e-6, atol=0)


def test_the_estimate_never_exceeds_the_truth_in_many_dimensions() -> None:
    for c, share in ((0.9, 0.9), (0.99, 0.2)):
        weights, biases = symmetric(64, 128, c, np.random.default_rng(0))
        branch = ir.Branch(
            (Affine(weights[0], biases[0]), Pointwise(activations.get("elu")), Affine(weights[1], biases[1])), (64,)
        )
        block, x = ir.ResidualBlock(branch), np.random.default_rng(1).standard_normal((8, 64))
        truth = 1 / np.linalg.svd(np.eye(64) + branch.linearize(x)[1].dense(), compute_uv=False)[:, -1]
        estimate = amplification(block, x)
        assert (estimate <= truth * (1 + 1e-9)).all()
        assert (estimate >= share * truth).all()


@pytest.mark.parametrize("c", [-0.9, 0.0, 0.5])
def test_the_estimate_where_the_krylov_space_ends_at_once(c: float) -> None:
    """J = cI: one direction is everything; 1/(1 + c) and not what the unused directions would say."""
    block = ir.ResidualBlock(ir.Branch((Affine(c * np.eye(5), np.zeros(5)),), (5,)))
    assert np.allclose(amplification(block, planted(5)), 1 / (1 + c), rtol=1e-12, atol=0)


@each_backend
def test_a_composition_keeps_dtype_and_device_on_every_backend(key: str) -> None:
    backend = iresnet_backends.get(*BACKENDS[key])
    block, y = FAMILIES["rand d=20 c=.9"].build(backend)
    found = inverted([block, block], block(y), 1e-5)
    for value in (found.error_bound, found.amplification_estimate, found.x):
        assert value.dtype == y.dtype
        assert value.device == y.device
    assert to_host(found.converged).all()
    distance = np.linalg.norm(to_host(found.x).astype(np.float64) - to_host(ir.invert(block, y, rtol=1e-5).x), axis=1)
    assert (distance <= to_host(found.error_bound).astype(np.float64) * 2).all()
    empty = inverted([block], y[:0, ...], 1e-6)
    assert empty.vacuous.shape == empty.amplification_estimate.shape == (0,)


def test_bad_compositions_are_refused() -> None:
    with pytest.raises(ir.ShapeError, match="expected at least one step, got none"):
        ir.invert([], np.ones((1, 2)))
    rng = np.random.default_rng(0)
    false = ir.ResidualBlock(ir.Branch((Affine(3.0 * rotation(3, rng), np.ones(3)),), (3,)), lipschitz=0.5)
    with pytest.raises(ir.NotContractiveError, match=r"Lip\(g\) ≤ 0.5 as stated"):
        ir.invert([*flow(0.5, 1), false], planted())
    with pytest.raises(ir.ConvergenceError, match="rounding floor"):
        ir.invert(flow(0.5, 2), planted(), rtol=1e-30)


def test_any_map_is_inverted_and_measured_as_its_own_methods_do() -> None:
    """A flow takes the methods of its options where none is given; a list is the composition, the first step first."""
    steps, x = flow(0.7, 3), planted()
    made = ir.Flow(steps, options=ir.Options(logdet=ir.Series(4, probes=ir.Probes(count=9)), inverse="newton", rtol=1e-11))
    y = made(x)
    found = ir.invert(made, y)
    assert (found.x == made.inverse(y).x).all()
    assert found.method == "newton"
    assert ir.invert(made, y, ir.Banach(), rtol=1e-3).method == "banach"
    assert (ir.invert(steps, y, "newton", rtol=1e-11).x == found.x).all()
    assert (ir.invert([made], y, "newton", rtol=1e-11).x == found.x).all()
    assert (ir.logdet(made, x).value == made.forward(x)[1].value).all()
    assert ir.logdet(made, x).method == "series"
    truth = sum(ir.logdet(f, pushed(steps[:k], x), "exact").value for k, f in enumerate(steps))
    for F in (made, steps, ir.bijections.Composition(tuple(steps))):
        assert np.abs(ir.logdet(F, x, "exact").value - truth).max() <= 1e-14
    one = ir.bijections.Residual(steps[0])
    assert (ir.logdet(one, x).value == ir.logdet(steps[0], x).value).all()
    assert (ir.invert(one, y).x == ir.invert(steps[0], y).x).all()
