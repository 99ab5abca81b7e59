"""Sandwich branches: the constant holds whatever the parameters are, is attained, and is what everything downstream rests on."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from tables import backend, digits50

import iresnet_ref as ir
from iresnet_backends import load, save
from iresnet_ref.arrays import to_host
from iresnet_ref.branches.certificates.bidiagonal import proves_lipschitz, scaled_blocks
from iresnet_ref.training import Settings, fit, maximum_likelihood, start

U = 2.0**-53
SIZES = [(2, 2), (1, 1, 1), (2, 8, 2), (2, 9, 7, 2), (4, 3, 4), (3, 5, 4, 6, 3)]
WEIGHTS: dict[str, Any] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "zero": lambda rng, shape: np.zeros(shape),
    "tiny": lambda rng, shape: 1e-160 * rng.standard_normal(shape),
    "subnormal": lambda rng, shape: np.full(shape, 5e-324),
    "large": lambda rng, shape: 1e10 * rng.standard_normal(shape),
    "huge": lambda rng, shape: 1e160 * rng.standard_normal(shape),
    "rank one": lambda rng, shape: 1e3 * np.outer(*(rng.standard_normal(n) for n in shape)),
    "huge rank one": lambda rng, shape: 1e20 * np.outer(*(rng.standard_normal(n) for n in shape)),
    "identity": lambda rng, shape: np.eye(*shape),
    "of all magnitudes": lambda rng, shape: rng.standard_normal(shape) * np.exp(rng.uniform(-60.0, 60.0, shape)),
    "beyond the range": lambda rng, shape: np.full(shape, 1.7e308),
}
SCALES: dict[str, Any] = {
    "one": lambda rng, n: np.zeros(n),
    "normal": lambda rng, n: rng.standard_normal(n),
    "wide": lambda rng, n: 30.0 * rng.standard_normal(n),
    "wider": lambda rng, n: 200.0 * rng.standard_normal(n),
    "beyond the range": lambda rng, n: 1000.0 * rng.standard_normal(n),
}


def drawn(rng: np.random.Generator, dtype: str) -> tuple[ir.SandwichBranch, set[str]]:
    """Return a branch of hostile parameters, and what they are."""
    sizes = SIZES[rng.integers(len(SIZES))]
    kinds = [str(rng.choice(list(WEIGHTS))) for _ in sizes[1:]]
    scales = [str(rng.choice(list(SCALES), p=[0.3, 0.3, 0.2, 0.1, 0.1])) for _ in sizes[1:-1]]
    lipschitz = float(rng.choice([0.97, 0.5, 1e-7, 1.0 - 1e-12]))
    phi = ir.activations.get(str(rng.choice(["relu", "elu", "rising sine", "softplus"])))
    with np.errstate(over="ignore", under="ignore"):
        x = tuple(WEIGHTS[kind](rng, (m, n)).astype(dtype) for kind, (n, m) in zip(kinds, pairwise(sizes), strict=True))
        s = tuple(SCALES[kind](rng, n).astype(dtype) for kind, n in zip(scales, sizes[1:-1], strict=True))
    return ir.SandwichBranch(x, tuple(np.zeros(m, dtype) for m in sizes[1:]), s, phi, lipschitz), {*kinds, *scales}


def exactly_above(g: ir.Branch, slopes: list[Any], bound: float) -> bool:
    """Return whether ‖Jv‖ > bound‖v‖ in rational arithmetic, at a v where float64 finds the largest quotient; slopes are 0 and 1."""
    weights = [to_host(layer.weight).astype(np.float64) for layer in g.layers[::2]]
    product = weights[0]
    for w, on in zip(weights[1:], slopes, strict=True):
        product = w @ (on[:, None] * product)
    v = np.linalg.svd(product)[2][0] if np.isfinite(product).all() else np.ones(product.shape[1])
    start = x = [Fraction(float(e)) for e in v]
    for i, w in enumerate(weights):
        x = [sum((Fraction(float(a)) * b for a, b in zip(row, x, strict=True)), Fraction(0)) for row in w]
        x = x if i == len(slopes) else [b * int(on) for b, on in zip(x, slopes[i], strict=True)]
    return sum(b * b for b in x) > Fraction(bound) ** 2 * sum(b * b for b in start)


def attacked(seeds: range) -> int:
    """Look for slopes that exceed what is proved; and return of how many branches the constant was proved."""
    proved = 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        g, kinds = drawn(rng, "float32" if seed % 2 else "float64")
        found = g.certificate
        if found.bound != g.lipschitz:  # not proved: the product stands, and only at the ends of the range
            assert found.bound == g.product.bound
            assert kinds & {"beyond the range", "wide", "wider"} or (seed % 2 and kinds & {"huge", "huge rank one", "of all magnitudes"})
            continue
        proved += 1
        widths = [len(s) for s in g.scales]
        for share in (1.0, 0.7, 0.4):
            assert not exactly_above(g, [rng.random(n) < share for n in widths], found.bound)
    return proved


def test_no_slopes_exceed_what_is_proved_of_hostile_parameters() -> None:
    assert attacked(range(120)) >= 50


@pytest.mark.thorough
def test_no_slopes_exceed_what_is_proved_of_many_hostile_parameters() -> None:
    assert attacked(range(120, 6000)) >= 2500


def attained(n: int, layers: int, lipschitz: float) -> ir.SandwichBranch:
    """A_k = B_k = I/√2 of X = I, and B = I of a large last X: with all slopes 1 the Jacobian is L·I."""
    x = (*(np.eye(n) for _ in range(layers - 1)), 1e9 * np.eye(n))
    biases = tuple(np.full(n, 100.0) for _ in x)
    return ir.SandwichBranch(x, biases, tuple(np.zeros(n) for _ in x[1:]), ir.activations.get("relu"), lipschitz)


@pytest.mark.parametrize(("n", "layers"), [(2, 1), (3, 2), (8, 3), (16, 4)])
def test_the_constant_is_attained_to_1e_12(n: int, layers: int) -> None:
    g = attained(n, layers, 0.97)
    steepest = np.linalg.norm(g.linearize(np.zeros((1, n)))[1].dense()[0], 2)
    assert g.certificate.bound == 0.97
    assert 0.97 * (1.0 - 1e-12) <= steepest <= 0.97
    weights = [to_host(layer.weight) for layer in g.layers[::2]]
    for k in range(layers):  # and what is beyond it is not proved
        grown = [w * (1.0 + 1e-11) if i == k else w for i, w in enumerate(weights)]
        assert proves_lipschitz(weights, g.made.scales, 0.97)
        assert not proves_lipschitz(grown, g.made.scales, 0.97)


def test_the_norm_that_is_proved_is_that_of_the_quadratic_constraint() -> None:
    """λ_max(J) of the whole symmetric matrix with P_k = D_kW_kD_{k−1}⁻¹/c_k beside its diagonal, and ‖K‖."""
    g = drawn_normal((3, 5, 4, 6, 3))
    weights, scales = [to_host(layer.weight) for layer in g.layers[::2]], [np.ones(3), *g.made.scales, np.full(3, 1.0 / g.lipschitz)]
    starts = np.cumsum([0, *(len(d) for d in scales)])
    whole = np.zeros((starts[-1], starts[-1]))
    for k, w in enumerate(weights, 1):
        block = scales[k][:, None] * w / scales[k - 1] / (2.0 if 1 < k < len(weights) else math.sqrt(2.0))
        whole[starts[k] : starts[k + 1], starts[k - 1] : starts[k]] = block
    whole = whole + whole.T
    k = scaled_blocks(weights, g.made.scales, g.lipschitz)
    assert k is not None
    assert abs(np.linalg.eigvalsh(whole)[-1] - np.linalg.norm(k, 2)) <= 64 * U
    assert 0.9 < np.linalg.norm(k, 2) < 1.0


@pytest.mark.parametrize("multiplier", [0.0, -1.0, math.nan, math.inf, 1e200, 1e-200])
def test_multipliers_from_anywhere_prove_nothing_false(multiplier: float) -> None:
    weights = [np.eye(2), np.eye(2)]
    assert proves_lipschitz(weights, [np.ones(2)], 1.1)
    assert not proves_lipschitz(weights, [np.asarray([1.0, multiplier])], 1.1)
    assert not proves_lipschitz([np.full((2, 2), multiplier), np.full((2, 2), 1e-320)], [np.ones(2)], 0.0)


def test_quotients_of_multipliers_that_may_be_subnormal_are_refused() -> None:
    """1e-123/1.5e200 is rounded by a quarter: not even weights of zero are taken."""
    weights = [np.zeros((1, 1))] * 3
    assert proves_lipschitz(weights, [np.asarray([1e100]), np.asarray([1e-50])], 0.5)
    assert not proves_lipschitz(weights, [np.asarray([1.5e200]), np.asarray([1e-123])], 0.5)


def test_weights_that_are_stored_as_subnormal_numbers_are_shrunk_until_it_holds() -> None:
    """W₁ = √2/e^s with P₁ = 1: rounded up by as much as 1e-2 in float32."""
    phi, shrunk = ir.activations.get("relu"), []
    x, zero = (np.full((1, 1), 1e8, np.float32), np.ones((1, 1), np.float32)), np.zeros(1, np.float32)
    for s in range(90, 101):
        g = ir.SandwichBranch(x, (zero, zero), (np.full(1, s, np.float32),), phi, 0.9)
        assert g.certificate.bound == 0.9
        shrunk.append(g.made.shrunk)
    assert 0.9 < min(shrunk) < 1.0 - 1e-5


def drawn_normal(sizes: tuple[int, ...], like: Any = None) -> ir.SandwichBranch:
    rng = np.random.default_rng(3)
    g = ir.sandwich(sizes, lipschitz=0.97, seed=4, like=np.zeros(1) if like is None else like)
    moved = {k: to_host(p) * 1.5 + 0.5 * rng.standard_normal(tuple(p.shape)) for k, p in g.parameters().items()}
    return g.with_parameters({k: ir.arrays.from_host(p, g.like) for k, p in moved.items()})


@pytest.mark.parametrize("key", ["numpy-f64", "torch-f64", "numpy-f32", "strict-device1-f32"])
def test_gradients_agree_with_differences_of_another_construction_at_50_digits(key: str) -> None:
    """W by the Cholesky factor of I + XXᵀ in mpmath; (f(h) − f(−h))/2h of a linear function f of the weights errs by O(h²) = 1e-40."""
    b, sizes = backend(key), (2, 4, 3, 2)
    g = drawn_normal(sizes, b.asarray(np.zeros(1)))
    rng = np.random.default_rng(0)
    bars = {f"{2 * k}.weight": rng.standard_normal((m, n)) for k, (n, m) in enumerate(pairwise(sizes))}
    biases = {f"{2 * k}.bias": rng.standard_normal(m) for k, m in enumerate(sizes[1:])}
    ours = g.pulled({k: b.asarray(v) for k, v in (bars | biases).items()})
    digits50()
    at = {k: to_host(p).astype(np.float64) for k, p in g.parameters().items()}

    def value(parameters: dict[str, Any]) -> Any:
        total, before, scale = mpmath.mpf(0), None, None
        for k in range(3):
            x = mpmath.matrix(parameters[f"{2 * k}.weight"].tolist())
            inverse = mpmath.inverse(mpmath.cholesky(mpmath.eye(x.rows) + x * x.T))
            w = inverse * x if before is None else mpmath.sqrt(2) * inverse * x * before.T * mpmath.diag(scale)
            if k < 2:
                scale = [mpmath.exp(s) for s in parameters[f"{2 * k + 1}.scale"]]
                w = mpmath.sqrt(2) * mpmath.diag([1 / s for s in scale]) * w
            w, before = w * (1 if k < 2 else mpmath.mpf(g.lipschitz)), inverse
            total += sum(mpmath.mpf(float(c)) * w[i] for c, i in zip(bars[f"{2 * k}.weight"].ravel(), places(w), strict=True))
        return total

    def places(w: Any) -> list[tuple[int, int]]:
        return [(i, j) for i in range(w.rows) for j in range(w.cols)]

    h = mpmath.mpf(10) ** -20
    for name, p in at.items():
        if name.endswith("bias"):
            assert np.array_equal(to_host(ours[name]), to_host(b.asarray(biases[name])))
            continue
        move = rng.standard_normal(p.shape)
        there, back = (value({**at, name: p + (sign * h) * np.vectorize(mpmath.mpf)(move)}) for sign in (1, -1))
        slope = float((there - back) / (2 * h))
        inner = to_host(ours[name]).astype(np.float64) * move
        # ‖A‖, ‖B‖ ≤ 1: three products of inner dimension ≤ 4 of numbers of the size of the scaled W̄, whose entries reach e^2 here, and what
        # W is shrunk by, 2√n u + …
        assert abs(inner.sum() - slope) <= 2**10 * float(b.xp.finfo(b.dtype).eps) * (abs(slope) + np.abs(inner).sum() + 1.0)


def test_training_moves_the_parameters_freely_and_the_constant_stays() -> None:
    flow = ir.Flow([ir.ResidualBlock(ir.sandwich((2, 8, 8, 2), lipschitz=0.97, seed=k)) for k in range(2)])
    x = np.random.default_rng(0).normal(1.0, 2.0, (64, 2))
    losses: list[float] = []
    state = start(flow, lipschitz=0.97, settings=Settings(learning_rate=0.3))
    state = fit(state, lambda flow, step: maximum_likelihood(flow, x), 12, callback=lambda s, loss: losses.append(loss))
    blocks = [step.block for step in state.model.steps.steps]
    assert losses[-1] < losses[0]
    assert all(block.certificate.bound == 0.97 < block.branch.product.bound for block in blocks)
    assert state.model.parameters().keys() == flow.parameters().keys()
    own = state.normalised.parameters()
    assert all(np.array_equal(p, own[name]) for name, p in state.model.parameters().items())  # nothing is divided
    between = start(flow, lipschitz=0.97, settings=Settings(certify_every=4))
    between = fit(between, lambda flow, step: maximum_likelihood(flow, x), 6)
    assert all(step.block.certificate.proved for step in between.model.steps.steps)
    with pytest.raises(ir.NotContractiveError, match=r"expected proved Lip\(g\) ≤ 0.9 .* got 0.97"):
        start(flow, lipschitz=0.9)


def test_a_training_is_saved_bit_for_bit(tmp_path: Path) -> None:
    flow = ir.Flow([ir.ResidualBlock(ir.sandwich((2, 4, 2), lipschitz=0.9))])
    state = fit(start(flow), lambda flow, step: maximum_likelihood(flow, np.ones((3, 2))), 2)
    save(tmp_path / "state", state)
    again = load(tmp_path / "state")
    assert all(np.array_equal(p, again.model.parameters()[k]) for k, p in state.model.parameters().items())
    assert again.model.steps.steps[0].block.certificate == state.model.steps.steps[0].block.certificate


def test_inverse_and_roulette_rest_on_the_whole_branch() -> None:
    """Rows that only L < 1 can prove: the product of norms is above 1."""
    F = ir.ResidualBlock(drawn_normal((2, 8, 8, 2)))
    x = np.random.default_rng(1).standard_normal((50, 2))
    assert F.contraction() == 0.97
    assert F.branch.product.bound > 1.0
    back = ir.invert(F, F(x), rtol=1e-12)
    assert (np.linalg.norm(back.x - x, axis=1) <= back.error_bound).all()
    assert (back.error_bound < 1e-8).all()
    exact = ir.logdet(F, x, "exact").value
    found = ir.logdet(F, x, ir.Roulette(probes=ir.Probes(seed=0, count=64)))
    assert (np.abs(found.value - exact) <= 6.0 * found.standard_error).all()  # 50 rows at 6σ
    assert np.isfinite(ir.bounds.logdet_error_bound(F, x)).all()


def test_certify_may_find_less_and_never_more() -> None:
    F = ir.ResidualBlock(ir.sandwich((2, 6, 2), activation="elu", lipschitz=0.97))
    assert F.certificate.bound == 0.97
    assert 0.0 < ir.certify(F).bound <= 0.97
    assert ir.bounds.two_sided(F).lower >= 1.0 - 0.97


def test_parameters_are_taken_by_name_not_by_order() -> None:
    g = ir.sandwich((2, 2, 2, 2, 2, 2, 2, 2), lipschitz=0.9)
    for order in (sorted, reversed):
        again = g.with_parameters({k: g.parameters()[k] for k in order(list(g.parameters()))})
        assert all(p is again.parameters()[k] for k, p in g.parameters().items())


def test_a_bias_that_is_not_finite_is_not_proved() -> None:
    g = ir.sandwich((2, 4, 2))
    broken = g.with_parameters({**g.parameters(), "0.bias": np.asarray([0.0, math.nan, 0.0, 0.0])})
    assert not broken.certificate.proved


@pytest.mark.parametrize("activation", ["sine", "lipswish", "maxmin", "gelu", "selu", "clipswish"])
def test_other_slopes_are_refused(activation: str) -> None:
    with pytest.raises(ValueError, match=r"expected an activation .*slopes in \[0, 1\], got .*; try"):
        ir.sandwich((2, 4, 2), activation=activation)


@pytest.mark.parametrize("lipschitz", [0.0, 1.0, 1.5, -0.1, math.nan])
def test_a_constant_outside_of_0_and_1_is_refused(lipschitz: float) -> None:
    with pytest.raises(ir.NotContractiveError, match=r"expected 0 < Lip.*got .*try 0.9"):
        ir.sandwich((2, 4, 2), lipschitz=lipschitz)


def test_widths_that_do_not_fit_are_refused() -> None:
    for sizes in ((2,), (2, 0, 2), (2, 4, 3)):
        with pytest.raises(ir.ShapeError, match="expected sizes"):
            ir.sandwich(sizes)
    phi = ir.activations.get("elu")
    whole = (np.zeros((4, 2)), np.zeros((2, 4))), (np.zeros(4), np.zeros(2)), (np.zeros(4),)
    ir.SandwichBranch(*whole, phi)
    for k, wrong in ((0, (np.zeros((4, 2)), np.zeros((2, 3)))), (0, ()), (1, (np.zeros(4),)), (2, ()), (2, (np.zeros(3),)),
                     (0, (np.zeros((4, 2)), np.zeros((3, 4))))):
        with pytest.raises(ir.ShapeError, match=r"expected weights .*; try"):
            ir.SandwichBranch(*(wrong if i == k else a for i, a in enumerate(whole)), phi)  # type: ignore[arg-type]
    with pytest.raises(ir.DTypeError, match="whose parameters are free"):
        ir.NormalisedBranch(ir.sandwich((2, 4, 2)))
