"""The ball around a computed inverse: it contains the preimage, which ball arithmetic (python-flint) encloses to 40 digits."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, get_args

import numpy as np
import pytest
from ball_arithmetic import distances_to_preimage
from contractive_families import FAMILIES, Family, rotation, symmetric
from exact_norms import hadamard
from tables import BACKENDS, POINTWISE, each_backend, inputs
from tables import backend as table_backend

import iresnet_backends
import iresnet_ref as ir
from iresnet_ref import rounding
from iresnet_ref.arrays import from_host, to_host
from iresnet_ref.inversion import ball
from iresnet_ref.inversion.methods import Name
from iresnet_ref.jacobian.factors import Dense
from iresnet_ref.layers import activations
from iresnet_ref.layers.linear import Affine
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_verify.golden.balls import bits

DTYPES = {"float32": 1e-5, "float64": 1e-12}


def solved(name: str, dtype: str, rows: int, seed: int = 0) -> tuple[ir.ResidualBlock, Any, ir.Inverse]:
    block, y = FAMILIES[name].build(iresnet_backends.get("numpy", dtype=dtype), seed)
    y = y[:rows]
    return block, y, ir.invert(block, y, rtol=DTYPES[dtype], throw=False)


def outside(block: ir.ResidualBlock, x: Any, y: Any, *radii: Any, near: Any = None) -> int:
    """Count the rows whose preimage is not certainly within all the radii of x."""
    with bits(160):
        step, rest = distances_to_preimage(block.branch, block.contraction(), x, y, near)
        return sum(
            not all(s + r <= float(radius[i]) for radius in radii)
            for i, (s, r) in enumerate(zip(step, rest, strict=True))
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_balls_contain_the_preimage(name: str, dtype: str) -> None:
    block, y, inverse = solved(name, dtype, 3 if "d=64" in name else 16)
    found = ir.bounds.inverse_ball(block, inverse.x, y)
    assert outside(block, inverse.x, y, found.radius, inverse.error_bound) == 0
    if dtype == "float64":
        assert (found.radius <= 1e-9 * np.linalg.norm(inverse.x, axis=1)).all()
    # float32 gains what its own arithmetic cannot prove: the radius is the residual's, to float64 rounding
    residual = np.linalg.norm(y.astype(float) - inverse.x - widened(block).branch(inverse.x.astype(float)), axis=1)
    width = residual / (1 - block.contraction())
    assert (found.radius <= width * (1 + 1e-6) + 1e-9 * (1 + np.linalg.norm(y.astype(float), axis=1))).all()
    assert (found.radius <= inverse.error_bound).all()


def widened(block: ir.ResidualBlock) -> ir.ResidualBlock:
    p = {k: to_host(v).astype(np.float64) for k, v in block.branch.parameters().items()}
    return ir.ResidualBlock(block.branch.with_parameters(p), block.lipschitz)


@pytest.mark.parametrize("name", ["ortho d=2 c=.99", "fold d=4 c=.5", "rand d=20 c=.9"])
def test_x_may_come_from_anywhere(name: str) -> None:
    """Not converged, at random, or y itself: the ball is about x, not about how it was found."""
    block, y, inverse = solved(name, "float64", 8)
    noise = np.random.default_rng(1).standard_normal(y.shape)
    for x in (y, inverse.x + 1e-9 * noise, inverse.x + noise, 0 * y):
        assert outside(block, x, y, ir.bounds.inverse_ball(block, x, y).radius, near=inverse.x) == 0


@pytest.mark.parametrize("activation", ["lipswish", "elu", "tanh", "softplus", "sine", "relu"])
def test_the_ball_contains_the_preimage_with_every_activation(activation: str) -> None:
    for dtype, rtol in DTYPES.items():
        backend = iresnet_backends.get("numpy", dtype=dtype)
        g = ir.mlp((3, 8, 5, 3), activation=activation, lipschitz=0.9, like=backend.asarray(np.zeros(1)))
        block, y = ir.ResidualBlock(g), backend.asarray(np.random.default_rng(0).standard_normal((12, 3)) * 3)
        inverse = ir.invert(block, y, rtol=rtol)
        assert outside(block, inverse.x, y, ir.bounds.inverse_ball(block, inverse.x, y).radius, inverse.error_bound) == 0


@pytest.mark.parametrize("padding", ["zero", "circular"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_ball_contains_the_preimage_of_convolutions(dtype: str, padding: str) -> None:
    backend = iresnet_backends.get("numpy", dtype=dtype)
    like = backend.asarray(np.zeros(1))
    block = ir.ResidualBlock(ir.convnet((2, 5, 4), channels=3, activation="elu", padding=padding, like=like))
    y = backend.asarray(np.random.default_rng(0).standard_normal((4, 2, 5, 4)) * 2)
    inverse = ir.invert(block, y, rtol=DTYPES[dtype])
    assert outside(block, inverse.x, y, ir.bounds.inverse_ball(block, inverse.x, y).radius, inverse.error_bound) == 0


@pytest.mark.thorough
def test_the_bound_holds_in_ten_thousand_rows() -> None:
    rows = 0
    for seed in range(8):
        for name, family in FAMILIES.items():
            for dtype in DTYPES:
                block, y, inverse = solved(name, dtype, 8 if "d=64" in name else family.batch, seed)
                radii = (ir.bounds.inverse_ball(block, inverse.x, y).radius, inverse.error_bound)
                assert outside(block, inverse.x, y, *radii) == 0, (seed, name, dtype)
                rows += y.shape[0]
    for seed in range(40):
        for name, make in POINTWISE.items():
            for key in ("numpy-f32", "numpy-f64"):
                b = table_backend(key)
                g = make(b.asarray(np.zeros(1)), seed)
                block, y = ir.ResidualBlock(g), inputs(b, g.event_shape[0], seed, 5)
                inverse = ir.invert(block, y, rtol=1e-5 if key == "numpy-f32" else 1e-12, throw=False)
                radii = (ir.bounds.inverse_ball(block, inverse.x, y).radius, inverse.error_bound)
                assert outside(block, inverse.x, y, *radii) == 0, (seed, name, key)
                rows += y.shape[0]
    assert rows >= 10_000


@pytest.mark.thorough
@pytest.mark.parametrize("key", ["numpy-f32", "numpy-f64", "torch-f32", "torch-f64"])
def test_the_bound_holds_in_a_hundred_thousand_rows(key: str) -> None:
    """A quarter of them: every family at five scales, by every method; and what is said to have converged has."""
    backend, rows = table_backend(key), 0
    rtol = 10 * DTYPES[BACKENDS[key][1]]
    for seed, (name, family) in enumerate(FAMILIES.items()):
        block, images = family.build(backend, seed)
        same = family.build(table_backend("numpy-" + key[-3:]), seed)[0]
        wide = widened(same)
        rng = np.random.default_rng(seed)
        methods = [m for m in get_args(Name) if not (family.stated and m == "hidden")]
        for scale in (2.0**-20, 2.0**-3, 1.0, 2.0**5, 2.0**12):
            y = block(from_host(scale * rng.standard_normal((440, *images.shape[1:])), images))
            for i, method in enumerate(methods):
                mine = y[i :: len(methods), ...]
                inverse = ir.invert(block, mine, method, rtol=rtol, throw=False)
                x, target = to_host(inverse.x), to_host(mine)
                near = ir.invert(wide, target.astype(np.float64), rtol=1e-13, throw=False).x
                assert outside(same, x, target, to_host(inverse.error_bound), near=near) == 0, (name, scale, method)
                x, target = x.astype(np.float64), target.astype(np.float64)
                left, *sizes = (np.linalg.norm(v, axis=1) for v in (target - wide(x), x, target, target - x))
                # the computed residual is within rtol, and its rounding, far below rtol, is given as much again
                assert (left <= 2 * rtol * np.max(sizes, axis=0))[to_host(inverse.converged)].all(), (name, scale, method)
                rows += mine.shape[0]
    assert rows >= 25_000


@pytest.mark.thorough
def test_the_ball_contains_the_preimage_in_784_dimensions() -> None:
    family = Family(lambda rng: symmetric(784, 64, 0.99, rng), "elu", 0.99, 2)
    block, y = family.build(iresnet_backends.get("numpy", dtype="float64"))
    inverse = ir.invert(block, y, rtol=1e-12)
    found = ir.bounds.inverse_ball(block, inverse.x, y)
    assert outside(block, inverse.x, y, found.radius) == 0
    assert (found.radius <= 1e-9 * np.linalg.norm(inverse.x, axis=1)).all()


# ── the context ──────────────────────────────────────────────────────────────────────────────────────────────────


@each_backend
def test_the_ball_holds_on_every_backend(key: str) -> None:
    b = table_backend(key)
    block, y = FAMILIES["rand d=20 c=.9"].build(b)
    inverse = ir.invert(block, y, rtol=DTYPES[BACKENDS[key][1]])
    found = ir.bounds.inverse_ball(block, inverse.x, y)
    narrow = key in ("strict-no_float64-f32", "strict-no_x64-f32", "jax-f32")  # no float64 there
    assert ("float32" if narrow else "float64") in str(found.radius.dtype)
    assert ir.arrays.device(found.radius) == ir.arrays.device(y)
    assert found.roundoff == (2.0**-24 if narrow else 2.0**-53)
    assert (to_host(found.radius) <= to_host(inverse.error_bound)).all()
    assert "μ = 0.1 and Lip(g) ≤ 0.9" in found.reason


def test_it_costs_two_products_a_dense_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    block, y, inverse = solved("sym− d=64 c=.9", "float64", 4)
    products, apply = [0], Dense.apply

    def counted(self: Dense, v: Any) -> Any:
        products[0] += 1
        return apply(self, v)

    monkeypatch.setattr(Dense, "apply", counted)
    ir.bounds.inverse_ball(block, inverse.x, y)
    assert products[0] == 2 * 2


def rotated(lipschitz: float = 0.9999) -> tuple[ir.ResidualBlock, Any]:
    """Return a rotation in 300 dimensions of float32, and two y: 1 − L − a ≤ 0, the bound on replayed points is lost."""
    rng = np.random.default_rng(0)
    layer = Affine((lipschitz * rotation(300, rng)).astype(np.float32), np.ones(300, dtype=np.float32))
    block = ir.ResidualBlock(ir.Branch((layer,), (300,)))
    assert block.branch.rounding[1] > 1 - block.contraction()
    return block, rng.standard_normal((2, 300)).astype(np.float32)


def test_where_replays_have_no_bound_the_preimage_has_that_of_float64() -> None:
    block, y = rotated()
    inverse = ir.invert(block, y, rtol=1e-5, max_evaluations=4, throw=False)
    layer: Any = block.branch.layers[0]
    exact = np.linalg.solve(np.eye(300) + layer.weight.astype(float), (y - layer.bias).astype(float).T).T
    radius = ir.bounds.inverse_ball(block, inverse.x, y).radius
    assert (np.linalg.norm(inverse.x - exact, axis=1) <= radius).all()
    assert (radius <= inverse.error_bound).all()
    assert (inverse.error_bound <= radius * (1 + 1e-6)).all()
    assert not inverse.covers_computed.any()


def test_a_chain_of_replays_takes_no_bound_that_is_about_the_preimage_alone() -> None:
    block, y = rotated()
    assert np.isinf(ir.sequence_gradient([block, block], y, y, rtol=1e-3).radius).all()
    # and where 1 − L − a > 0, row by row
    block = ir.ResidualBlock(ir.mlp((8, 32, 8), lipschitz=0.999, like=np.zeros(1, dtype=np.float32)))
    assert block.branch.rounding[1] < 1 - block.contraction()
    y = block(np.float32([[1e-3], [1e4]]) * np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32))
    covers = ir.invert(block, y, rtol=1e-5).covers_computed
    assert covers.tolist() == [False, True]
    assert np.isinf(ir.sequence_gradient([block], y, y, rtol=1e-5).radius[0]).tolist() == [True, False]


@pytest.mark.parametrize("lipschitz", [0.99, 0.999, 0.99999])
def test_near_one_a_radius_of_float32_is_as_wide_as_its_residual(lipschitz: float) -> None:
    """Float32 arithmetic proves no digit of 10, 62 and 100 % of such rows; the residual is evaluated in float64 then, and there only."""
    covered = []
    for sizes, activation in (((2, 16, 16, 2), "elu"), ((8, 32, 8), "lipswish"), ((4, 24, 4), "sine")):
        block = ir.ResidualBlock(ir.mlp(sizes, activation=activation, lipschitz=lipschitz, like=np.zeros(1, dtype=np.float32)))
        y = np.random.default_rng(0).standard_normal((4, sizes[0])).astype(np.float32) * np.float32([[0.1], [1], [1], [10]])
        inverse = ir.invert(block, y, throw=False)
        assert outside(block, inverse.x, y, inverse.error_bound) == 0
        residual = np.linalg.norm(y.astype(float) - inverse.x - widened(block).branch(inverse.x.astype(float)), axis=1)
        size, slack = np.linalg.norm(inverse.x, axis=1), 1e-12 * np.linalg.norm(y, axis=1) / (1 - lipschitz)
        loose = inverse.error_bound > 0.1 * size * (1 + 1e-6)
        assert (inverse.error_bound <= residual / (1 - block.contraction()) * (1 + 1e-6) + slack)[loose | ~inverse.covers_computed].all()
        covered += inverse.covers_computed.tolist()
    assert any(covered) == (lipschitz < 0.99999)


def test_what_has_no_radius_says_why() -> None:
    block = ir.ResidualBlock(ir.mlp((3, 8, 3), lipschitz=0.9))
    y = np.full((2, 3), 1.7e308) * [[1.0], [1e-300]]
    with np.errstate(over="ignore", invalid="ignore"):
        found = ir.bounds.inverse_ball(block, -y, y)
    assert math.isinf(found.radius[0])
    assert math.isfinite(found.radius[1])
    assert "no radius for row 0 (1 rows in all)" in found.reason
    assert "smaller inputs" in found.reason


def test_rows_that_do_not_fit_are_refused() -> None:
    block = ir.ResidualBlock(ir.mlp((3, 8, 3), lipschitz=0.9))
    y = np.ones((4, 3))
    with pytest.raises(ir.ShapeError, match="x: expected 4 rows like y, got 2"):
        ir.bounds.inverse_ball(block, y[:2], y)
    with pytest.raises(ir.ShapeError, match="put the batch first"):
        ir.bounds.inverse_ball(block, y[0], y)
    with pytest.raises(ir.DTypeError, match="x: expected dtype float64"):
        ir.bounds.inverse_ball(block, y.astype(np.float32), y)
    with pytest.raises(ir.NonFiniteError, match="x: expected finite"):
        ir.bounds.inverse_ball(block, y * math.nan, y)
    loose = ir.ResidualBlock(ir.Branch((Affine(2 * np.eye(3), np.zeros(3)),), (3,)))
    with pytest.raises(ir.NotContractiveError, match=r"proved Lip\(g\) < 1, got 2"):
        ir.bounds.inverse_ball(loose, y, y)
    assert ir.bounds.inverse_ball(block, y[:0], y[:0]).radius.shape == (0,)


# ── broken balls are rejected ─────────────────────────────────────────────────────────────────────────────────────────


def rejected(law: Callable[..., None], *arguments: Any) -> None:
    with pytest.raises(AssertionError):
        law(*arguments)


def test_a_radius_without_the_rounding_of_the_residual_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """r̂ is often exactly 0 at convergence: ‖r̂‖/(1 − L) is then no radius."""
    block, y, _ = solved("zigzag d=2 c=.9", "float64", 64)
    x = ir.invert(block, y, rtol=1e-17, throw=False).x
    assert outside(block, x, y, ir.bounds.inverse_ball(block, x, y).radius) == 0
    whole = ir.Branch.running_error

    def exact(self: ir.Branch, x: Any, flushed: float) -> Any:
        g, error, growth, drift = whole(self, x, flushed)
        return g, 0 * error, growth, drift

    monkeypatch.setattr(ir.Branch, "running_error", exact)
    assert outside(block, x, y, ir.bounds.inverse_ball(block, x, y).radius) > 0


def test_a_radius_not_divided_by_the_contraction_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ir.ResidualBlock, "least_stretch", lambda self: 1.0)
    rejected(test_x_may_come_from_anywhere, "ortho d=2 c=.99")


def test_a_radius_in_float32_with_the_roundoff_of_float64_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """r̂ and ρ in float32, with u = 2⁻⁵³: no ball."""
    monkeypatch.setattr(ball, "in_float64", lambda block, *arrays: (block, arrays))
    monkeypatch.setattr(rounding, "unit_roundoff", lambda x: 2.0**-53)
    rejected(test_the_balls_contain_the_preimage, "ortho d=2 c=.9", "float32")


# ── growth and drift of the running error, in exact arithmetic ────────────────────────────────────────────────────────


def scalar_branch(bias: float, middle: str = "") -> ir.Branch:
    first, last = Affine(np.array([[0.7]]), np.array([bias])), Affine(np.array([[0.9]]), np.array([0.0]))
    phi = [Pointwise(activations.get(middle))] if middle else []
    return ir.Branch((first, *phi, last), (1,))


def exact_running_error(branch: ir.Branch, x: float) -> Fraction:
    """e = |W|e + γ₂(|W||ĥ| + |b|), and (e + c(|ŷ| + 1))/(1 − c), from the computed ĥ in rational arithmetic."""
    u = Fraction(2) ** -53
    h, error = np.array([[x]]), Fraction(0)
    for layer in branch.layers:
        y = layer(h)
        if isinstance(layer, Affine):
            w, b = (abs(Fraction(float(v.ravel()[0]))) for v in (layer.weight, layer.bias))
            error = w * error + 2 * u / (1 - 2 * u) * (w * abs(Fraction(float(h[0, 0]))) + b)
        else:
            error = (error + 8 * u * (abs(Fraction(float(y[0, 0]))) + 1)) / (1 - 8 * u)
        h = y
    return error


def moves_within(branch: ir.Branch, use_growth: int = 1, use_drift: int = 1) -> bool:
    """‖e(x′) − e(x)‖ ≤ a‖x − x′‖ + b for neighbours in float64 and for points far away."""
    good = True
    for x in np.linspace(-2.0, 2.0, 81):
        _, _, growth, drift = branch.running_error(np.array([[x]]))
        for other in (np.nextafter(x, 9.0), x + 1e-15, x + 1e-12, -x, x + 3.0, x * 1e6):
            change = abs(exact_running_error(branch, float(other)) - exact_running_error(branch, float(x)))
            moved = abs(Fraction(float(other)) - Fraction(float(x)))
            good &= change <= use_growth * Fraction(growth) * moved + use_drift * Fraction(float(drift[0]))
    return good


@pytest.mark.parametrize("middle", ["", "tanh", "lipswish", "softplus"])
@pytest.mark.parametrize("bias", [0.0, 0.3, 1e6])
def test_the_running_error_moves_within_growth_and_drift(bias: float, middle: str) -> None:
    branch = scalar_branch(bias, middle)
    assert moves_within(branch)
    assert moves_within(ir.Branch(branch.layers[:2], (1,)))  # and where it ends with the activation


def test_growth_and_drift_are_both_needed() -> None:
    """A neighbour of x moves ĥ by a whole roundoff of the large bias: without the drift the law fails; far away, without growth."""
    assert not moves_within(scalar_branch(1e6), use_drift=0)
    assert not moves_within(scalar_branch(0.3), use_growth=0)


def test_the_running_error_is_the_formula_rounded_up() -> None:
    """γ_{n+1}, not γ_n: one product and the bias."""
    for middle in ("", "tanh"):
        branch = scalar_branch(0.3, middle)
        for x in (0.1, -1.7, 30.0):
            wanted = exact_running_error(branch, x)
            got = Fraction(float(branch.running_error(np.array([[x]]))[1][0]))
            assert wanted <= got <= wanted * (1 + Fraction(1, 10**12)) + Fraction(1, 10**300)


def test_a_growth_off_by_one_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "gamma", lambda n, u: (n - 1) * u / (1 - (n - 1) * u))
    rejected(test_the_running_error_is_the_formula_rounded_up)


def test_the_radius_is_the_formula_rounded_up() -> None:
    """(r̂(1 + u) + e + u|y − x|)/(1 − L), from the parts in rational arithmetic."""
    u = Fraction(2) ** -53
    block = ir.ResidualBlock(scalar_branch(0.3, "tanh"))
    x = np.array([[0.37], [-2.5], [1e-9]])
    y = x + block.branch(x)
    g, e, _, _ = block.branch.running_error(x)
    found = ir.bounds.inverse_ball(block, x, y)
    for i in range(3):
        d = y[i, 0] - x[i, 0]
        total = abs(Fraction(float(d - g[i, 0]))) * (1 + u) + Fraction(float(e[i])) + u * abs(Fraction(float(d)))
        total /= 1 - Fraction(found.lipschitz)
        assert total <= Fraction(float(found.radius[i])) <= total * (1 + 60 * u)


def test_norms_are_carried_from_layer_to_layer() -> None:
    """s′ = ‖W‖s + γ‖|W||ĥ| + |b|‖ and a′ = ‖W‖a + γ‖|W|‖(Λ + a): ‖W‖ of what came before, 8 times ‖|W|‖/8 of one's own."""
    w, u, x = hadamard(64) / 10, 2.0**-53, np.linspace(-1.0, 2.0, 64)[None]
    branch = ir.Branch((Affine(w, np.ones(64)), Affine(w, np.zeros(64))), (64,))
    gamma, h = 65 * u / (1 - 65 * u), x @ w.T + 1
    first, second = (gamma * np.linalg.norm(np.abs(v) @ np.abs(w) + b) for v, b in ((x, 1.0), (h, 0.0)))
    _, error, growth, drift = branch.running_error(x)
    absolute = 64 / 10
    for wanted, got in (
        (0.8 * first + second, error[0]),
        (0.8 * gamma * absolute + gamma * absolute * (0.8 + gamma * absolute), growth),
        (gamma * absolute * 2 * first, drift[0]),
    ):
        assert wanted * (1 - 1e-12) <= got <= wanted * (1 + 1e-11)


def test_growth_counts_the_rounding_at_every_layer() -> None:
    """a and b at 0 of ones of width 600: a ≥ (‖|W₃|‖γ₆₀₁ + …)Λ, the sum over the layers."""
    n, u = 600, 2.0**-24
    ones, zero = np.ones((n, 1), dtype=np.float32), np.zeros(n, dtype=np.float32)
    middle = Affine(np.full((n, n), 1 / n, dtype=np.float32), zero)
    branch = ir.Branch((Affine(ones, zero), middle, Affine(ones.T / np.float32(2 * n), zero[:1])), (1,))
    _, _, growth, _ = branch.running_error(np.zeros((1, 1), dtype=np.float32))
    wanted = 0.5 * (2 + 2 * (n + 1)) * u  # γ₂ + γ₆₀₁ + γ₆₀₁, each at the Lipschitz constant ½
    assert wanted <= growth <= 1.01 * wanted
