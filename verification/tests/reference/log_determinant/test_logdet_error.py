"""The bound on the error of the exact log-determinant, against ball arithmetic (python-flint) at 200 bits."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from ball_arithmetic import logdets
from contractive_families import FAMILIES, rotation
from flint import arb, arb_mat
from seeds import for_seeds
from tables import CONSTRUCTORS, POINTWISE, at_50_digits, backend, each_backend, exact, inputs

import iresnet_backends
import iresnet_ref as ir
from iresnet_ref.arrays import device, from_host, to_host
from iresnet_ref.error_analysis import jacobian
from iresnet_ref.error_analysis.jacobian import JacobianError, jacobian_error
from iresnet_ref.layers import activations
from iresnet_ref.layers.concatenation import Concatenation
from iresnet_ref.layers.linear import Affine
from iresnet_ref.layers.lipswish import CLipSwish, LipSwish
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_ref.layers.sorting import GroupSort
from iresnet_ref.log_determinant import factor_residuals
from iresnet_ref.log_determinant import rounding_bound as error
from iresnet_ref.log_determinant.exact import exact_logdet
from iresnet_ref.log_determinant.factor_residuals import enclosed
from iresnet_ref.rounding import unit_roundoff
from iresnet_verify.golden.balls import bits

each_constructor = pytest.mark.parametrize("name", POINTWISE)
both_precisions = pytest.mark.parametrize("key", ["numpy-f32", "numpy-f64", "torch-f32"])


def make(name: str, key: str, seed: int) -> tuple[ir.ResidualBlock, Any]:
    b = backend(key)
    g = POINTWISE[name](b.asarray(np.zeros(1)), seed)
    return ir.ResidualBlock(g), inputs(b, g.event_shape[0], seed)


def errors(block: ir.ResidualBlock, x: Any, value: Any = None) -> Any:
    """Return |value − log det(I + J)| per row, rounded up."""
    value = to_host(ir.logdet(block, x, method="exact").value if value is None else value)
    with bits(200):
        truth = logdets(block.branch, to_host(x))
        return np.array([float(abs(arb(float(v)) - t).upper()) for v, t in zip(value, truth, strict=True)])


@both_precisions
@each_constructor
@for_seeds
def test_the_bound_holds(name: str, key: str, seed: int) -> None:
    block, x = make(name, key, seed)
    bound = to_host(ir.bounds.logdet_error_bound(block, x))
    assert (errors(block, x) <= bound).all()
    # and it says something: no derivation, but what is of practical use
    assert (bound <= 2e4 * unit_roundoff(x) / (1 - block.contraction())).all()


@pytest.mark.parametrize("key", ["numpy-f32", "numpy-f64"])
@pytest.mark.parametrize("name", sorted(set(CONSTRUCTORS) - set(POINTWISE)))
@for_seeds
def test_the_bound_holds_where_ball_arithmetic_has_no_layer(name: str, key: str, seed: int) -> None:
    b = backend(key)
    g = CONSTRUCTORS[name](b.asarray(np.zeros(1)), seed)
    block, x = ir.ResidualBlock(g), inputs(b, g.event_shape[0], seed)
    truth = exact_logdet(at_50_digits(block.branch).linearize(exact(x))[1])
    gap = np.abs(to_host(exact(ir.logdet(block, x, method="exact").value) - truth))
    bound = ir.bounds.logdet_error_bound(block, x)
    assert (gap <= bound).all()
    if not name.startswith(("sort", "own")):  # at a tie, and of a layer without an error analysis, nothing can be said
        assert (bound <= 2e4 * unit_roundoff(x) / (1 - block.contraction())).all()


@pytest.mark.parametrize("padding", ["zero", "circular"])
@pytest.mark.parametrize("key", ["numpy-f32", "numpy-f64"])
def test_the_bound_holds_for_convolutions(key: str, padding: str) -> None:
    b = backend(key)
    like = b.asarray(np.zeros(1))
    block = ir.ResidualBlock(ir.convnet((2, 4, 3), channels=2, activation="tanh", padding=padding, like=like))
    x = b.asarray(np.random.default_rng(0).standard_normal((3, 2, 4, 3)))
    bound = to_host(ir.bounds.logdet_error_bound(block, x))
    assert (errors(block, x) <= bound).all()
    assert np.isfinite(bound).all()


@pytest.mark.parametrize("hidden", [4, 9])
@pytest.mark.parametrize("lipschitz", [1e-12, 1e-7, 1e-5, 1e-4, 1e-2])
def test_a_tiny_jacobian_keeps_relative_accuracy(lipschitz: float, hidden: int) -> None:
    block = ir.ResidualBlock(ir.mlp((6, hidden, 6), activation="tanh", lipschitz=lipschitz))
    x = np.random.default_rng(0).standard_normal((10, 6))
    bound = ir.bounds.logdet_error_bound(block, x)
    assert (errors(block, x) <= bound).all()
    if lipschitz < 1e-6:
        assert (bound <= 1e4 * 2.0**-53 * lipschitz).all()


def test_the_bound_holds_where_the_log_determinant_is_near_zero() -> None:
    """J of opposite eigenvalues: log det = log(1 − L²)·d/2, and a rotation by 90° gives log(1 + L²)·d/2; their mixture is near 0."""
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    mirror = np.array([[0.0, 1.0], [1.0, 0.0]])
    matrix = np.zeros((4, 4))
    matrix[:2, :2], matrix[2:, 2:] = 0.9 * quarter, 0.9 * mirror
    matrix[2:, 2:] *= math.sqrt(1 - 1 / 1.81) / 0.9  # (1 + .81)(1 − s²) = 1 up to rounding
    block = ir.ResidualBlock(ir.Branch((Affine(matrix, np.zeros(4)),), (4,)))
    x = np.ones((2, 4))
    assert abs(ir.logdet(block, x).value[0]) < 1e-15
    assert (errors(block, x) <= ir.bounds.logdet_error_bound(block, x)).all()


HARD = {
    "−LI": lambda n, rng: -np.eye(n),  # all logarithms round alike
    "LI": lambda n, rng: np.eye(n),
    "rotation": rotation,
    "triangle of −1": lambda n, rng: -np.tril(np.ones((n, n))),
    "rank one": lambda n, rng: -np.ones((n, n)),
    "graded": lambda n, rng: np.outer(2.0 ** -np.arange(n), 2.0 ** -np.arange(n)[::-1]),
}


def hard(kind: str, n: int, lipschitz: float) -> Any:
    """Return M of this norm as (1, n, n)."""
    matrix = np.asarray(HARD[kind](n, np.random.default_rng(0)))
    return (matrix / np.linalg.norm(matrix, 2) * lipschitz * (1 - 1e-14))[None]


def misses(matrix: Any, middle: Any, radius: Any) -> int:
    """Count the rows of which log|det(I + M)| is not certainly within the radius of the middle."""
    with bits(200):
        n = matrix.shape[-1]
        truths = [arb_mat([[arb(float(m[i, j])) + int(i == j) for j in range(n)] for i in range(n)]).det().log() for m in matrix]
        return sum(
            not (math.isinf(r) or abs(arb(float(m)) - t) <= arb(float(r))) for m, r, t in zip(middle, radius, truths, strict=True)
        )


@pytest.mark.parametrize("L", [1e-9, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("n", [1, 3, 16, 100])
@pytest.mark.parametrize("kind", HARD)
def test_the_determinant_is_enclosed(kind: str, n: int, L: float) -> None:
    matrix = hard(kind, n, L)
    middle, radius = enclosed(matrix)
    assert misses(matrix, middle, radius) == 0
    assert radius[0] <= 16 * (n + 1) ** 2 * 2.0**-53 * max(1.0, np.linalg.norm(np.linalg.inv(np.eye(n) + matrix[0])) / math.sqrt(n))
    if L < 1e-6:
        assert radius[0] <= 4 * (n + 1) ** 2 * 2.0**-53 * L


def spoilt(what: str, size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the factors or the inverse be off by so much, as a library may return them."""
    rng = np.random.default_rng(1)
    factors, inverse = factor_residuals._factors, factor_residuals.inverse_of_identity_plus

    def off(a: Any) -> Any:
        return a * (1 + size * rng.standard_normal(a.shape))

    def wrong(a: Any) -> Any:
        q, r, triangular = factors(a)
        if what == "length of Q":  # QR is the same
            return q * (1 + size), r / (1 + size), triangular
        return (off(q) if what == "Q" else q), (off(r) if what == "R" else r), triangular

    monkeypatch.setattr(factor_residuals, "_factors", wrong)
    monkeypatch.setattr(factor_residuals, "inverse_of_identity_plus", lambda m: off(inverse(m)) if what == "inverse" else inverse(m))


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e-2, 1.0])
@pytest.mark.parametrize("what", ["Q", "R", "length of Q", "inverse"])
def test_no_routine_is_trusted(what: str, size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a library returns as factors or as an inverse, the determinant lies in the enclosure."""
    spoilt(what, size, monkeypatch)
    for kind in HARD:
        matrix = hard(kind, 12, 0.9)
        middle, radius = enclosed(matrix)
        assert misses(matrix, middle, radius) == 0
        assert radius[0] < 1e4 * size or size == 1.0


@pytest.mark.parametrize("what", ["R", "length of Q"])
def test_every_residual_is_needed(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt(what, 1e-6, monkeypatch)
    monkeypatch.setattr(factor_residuals, "_beyond", lambda z, trace: 0 * z)
    matrix = hard("rotation", 12, 0.9)
    assert misses(matrix, *enclosed(matrix)) == 1


@pytest.mark.parametrize("kind", HARD)
def test_elimination_encloses_the_determinant_where_there_is_no_linalg(kind: str) -> None:
    matrix, before = hard(kind, 6, 0.9), mpmath.mp.dps
    try:
        middle, radius = enclosed(iresnet_backends.get("precision:50").asarray(matrix))
        rest, parts = middle[0], []
        for _ in range(4):  # 50 digits are four float64 numbers
            parts.append(float(rest))
            rest = rest - parts[-1]
    finally:
        mpmath.mp.dps = before
    assert float(radius[0]) < 1e-45
    with bits(300):
        truth = arb_mat([[arb(float(matrix[0, i, j])) + int(i == j) for j in range(6)] for i in range(6)]).det().log()
        assert abs(sum(map(arb, parts), arb(0)) - truth) <= arb(float(radius[0]))


@pytest.mark.parametrize("L", [0.1, 0.5, 0.9])
def test_equal_logarithms_round_alike(L: float) -> None:
    """(1 − L)I at n = 512: NumPy's sum of equal logarithms is off by more than 8nu/(1 − L), and by less than its proved bound."""
    n = 512
    block = ir.ResidualBlock(ir.Branch((Affine(-L * np.eye(n), np.zeros(n)),), (n,)))
    x = np.zeros((1, n))
    got = float(ir.logdet(block, x, "exact").value[0])
    with mpmath.workdps(40):
        off = abs(float(got - n * mpmath.log(mpmath.mpf(float(1.0 - L)))))
    assert off <= ir.bounds.logdet_error_bound(block, x)[0] <= 16 * n * n * 2.0**-53 / (1 - L)


@pytest.mark.parametrize("activation", ["elu", "tanh", "lipswish"])
def test_ten_layers_of_float32_have_a_bound_of_the_size_of_the_error(activation: str) -> None:
    """Float32 arithmetic bounds none of these: rounding is multiplied by ‖|W|‖/‖W‖ at every layer. Float64 evaluates what it is."""
    widths = (4, *(24,) * 9, 4)
    block = ir.ResidualBlock(ir.mlp(widths, activation=activation, lipschitz=0.9, like=np.zeros(1, dtype=np.float32)))
    x = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    found, bound = errors(block, x), ir.bounds.logdet_error_bound(block, x)
    assert (found <= bound).all()
    assert (bound <= 1.01 * found + 1e-7).all()


def test_any_value_is_compared() -> None:
    block, x = make("elu 3-8-8-3 L=.5", "numpy-f64", 0)
    value = ir.logdet(block, x, "exact").value
    assert np.array_equal(ir.bounds.logdet_error_bound(block, x, value), ir.bounds.logdet_error_bound(block, x))
    wrong = ir.bounds.logdet_error_bound(block, x, value + 0.25)
    assert (errors(block, x, value + 0.25) <= wrong).all()
    assert (wrong <= 0.25 + 1e-12).all()
    with pytest.raises(ir.ShapeError, match=r"value: expected shape \(\d+,\), one for each row of x, got \(1,\)"):
        ir.bounds.logdet_error_bound(block, x, value[:1])
    with pytest.raises(ir.NonFiniteError, match="value: expected finite"):
        ir.bounds.logdet_error_bound(block, x, value * math.nan)
    with pytest.raises(ir.DTypeError, match="value: expected dtype float64"):
        ir.bounds.logdet_error_bound(block, x, value.astype(np.float32))


@pytest.mark.thorough
def test_the_bound_holds_in_ten_thousand_rows() -> None:
    rows = 0
    for seed in range(120):
        for name in POINTWISE:
            for key in ("numpy-f32", "numpy-f64"):
                block, x = make(name, key, seed)
                assert (errors(block, x) <= to_host(ir.bounds.logdet_error_bound(block, x))).all(), (seed, name, key)
                rows += x.shape[0]
    assert rows >= 10_000


# ── kinks ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def at_a_kink(shift: float) -> tuple[ir.ResidualBlock, Any]:
    """Return J = .5·[.1x + .2 − .3·shift > 0]: at x = 1 the computed argument and the true one may differ in sign."""
    layers = (
        Affine(np.array([[0.1]]), np.array([-0.1 + shift])),
        Pointwise(activations.get("relu")),
        Affine(np.array([[5.0]]), np.zeros(1)),
    )
    return ir.ResidualBlock(ir.Branch(layers, (1,))), np.array([[1.0], [3.0], [-2.0]])


@pytest.mark.parametrize("shift", [0.0, 1e-17, -1e-17, 1e-16, 1e-3])
def test_a_kink_within_rounding_costs_the_jump(shift: float) -> None:
    block, x = at_a_kink(shift)
    bound = ir.bounds.logdet_error_bound(block, x)
    assert (errors(block, x) <= bound).all()
    assert (bound[1:] < 1e-13).all()
    # t = ‖δM‖/(1 − P) = .5/(1 − .5): nothing can be said
    assert math.isinf(bound[0]) == (abs(shift) < 5e-17)


# ── the context, and what cannot be bounded ──────────────────────────────────────────────────────────────────────


@each_backend
def test_the_bound_keeps_shape_dtype_and_device_on_every_backend(key: str) -> None:
    block, x = make("lipswish 2-16-2 L=.9", key, 0)
    bound = ir.bounds.logdet_error_bound(block, x)
    assert (bound.shape, bound.dtype, device(bound)) == (x.shape[:1], x.dtype, device(x))
    assert (to_host(bound) > 0).all()


def test_a_stated_constant_bounds_nothing() -> None:
    block, x = FAMILIES["zigzag d=2 c=.9"].build(backend("numpy-f64"))
    assert np.isinf(ir.bounds.logdet_error_bound(block, x)).all()


def test_a_tie_within_rounding_has_no_bound() -> None:
    """Sorted channels that may have changed places: another permutation, another Jacobian."""
    layers = (Affine(0.9 * np.eye(2), np.zeros(2)), GroupSort(2), Affine(np.array([[0.0, 0.9], [0.9, 0.0]]), np.zeros(2)))
    block = ir.ResidualBlock(ir.Branch(layers, (2,)))
    bound = ir.bounds.logdet_error_bound(block, np.array([[1.0, 1.0], [1.0, 1.0 + 2.0**-51], [1.0, 1.0 + 1e-12], [1.0, 2.0]]))
    assert np.isinf(bound).tolist() == [True, True, False, False]


def test_bad_input_is_refused() -> None:
    block, x = make("elu 3-8-8-3 L=.5", "numpy-f64", 0)
    with pytest.raises(ir.NonFiniteError, match="x: expected finite"):
        ir.bounds.logdet_error_bound(block, x * math.nan)
    with pytest.raises(ir.ShapeError, match="put the batch first"):
        ir.bounds.logdet_error_bound(block, x[0])
    loose = ir.ResidualBlock(ir.Branch((Affine(2 * np.eye(3), np.zeros(3)),), (3,)))
    with pytest.raises(ir.NotContractiveError, match=r"proved Lip\(g\) < 1, got 2"):
        ir.bounds.logdet_error_bound(loose, x)
    assert ir.bounds.logdet_error_bound(block, x[:0]).shape == (0,)


@pytest.mark.parametrize(
    "name", sorted(k for k, phi in activations.ACTIVATIONS.items() if math.isfinite(phi.curvature))
)
def test_curvature_and_jump_bound_the_change_of_the_slope(name: str) -> None:
    """|φ′(a) − φ′(b)| ≤ curvature·|a − b| + jump·(kinks between), and the curvature is within 1 % of the supremum."""
    phi = activations.get(name)
    z = np.concatenate([np.linspace(-12.0, 12.0, 200_001), [-1e-9, 0.0, 1e-9]])
    z.sort()
    change, step = np.abs(np.diff(phi.both(z)[1])), np.diff(z)
    crossings = sum(((z[:-1] <= kink) & (z[1:] >= kink)).astype(float) for kink in phi.kinks)
    assert (change <= phi.curvature * step + phi.jump * crossings + 8 * 2.0**-53).all()
    wide = step > 1e-5
    assert (change[wide] / step[wide]).max() >= 0.99 * phi.curvature or phi.jump


# ── broken bounds are rejected ────────────────────────────────────────────────────────────────────────────────────────


def amplified(key: str = "numpy-f64") -> tuple[ir.ResidualBlock, Any]:
    """Return a branch whose argument carries the rounding of a large bias: ĥ is off by 1e6·u, and J by as much."""
    b = backend(key)
    layers = (
        Affine(from_host(np.array([[0.3]]), b.asarray([0.0])), b.asarray([1e6])),
        Affine(b.asarray([[1.0]]), b.asarray([-1e6])),
        Pointwise(activations.get("tanh")),
        Affine(b.asarray([[1.5]]), b.asarray([0.0])),
    )
    return ir.ResidualBlock(ir.Branch(layers, (1,))), b.asarray(np.linspace(-2, 2, 41)[:, None])


@pytest.mark.parametrize("kind", [Pointwise, CLipSwish, LipSwish, Concatenation])
def test_the_error_of_the_argument_is_counted(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    block, x = amplified()
    first, second, phi, last = block.branch.layers
    if kind is CLipSwish:
        phi, last = CLipSwish(), Affine(np.array([[1.4, 0.2]]), np.zeros(1))
    elif kind is LipSwish:
        phi = LipSwish(np.array([3.0]))
    elif kind is Concatenation:
        phi, last = Concatenation((Affine(np.eye(1), np.zeros(1)), phi)), Affine(np.array([[0.1, 1.9]]), np.zeros(1))
    block = ir.ResidualBlock(ir.Branch((first, second, phi, last), (1,)))
    truth = exact_logdet(at_50_digits(block.branch).linearize(exact(x))[1])
    found = np.abs(to_host(exact(ir.logdet(block, x, method="exact").value) - truth))
    assert (found <= ir.bounds.logdet_error_bound(block, x)).all()
    monkeypatch.setattr(jacobian, "jacobian_error", lambda layer, h, e: jacobian_error(layer, h, 0 * e if isinstance(layer, kind) else e))
    assert not (found <= ir.bounds.logdet_error_bound(block, x)).all()


def test_the_rounding_of_the_product_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear layers only, as narrow as 1: J is a long inner product, rounded."""
    n = 4000
    rng = np.random.default_rng(0)
    first = rng.uniform(0.5, 1.0, (n, 1))
    last = first.T * (0.5 / float((first**2).sum())) * (1 + 1e-3 * rng.standard_normal((1, n)))
    block = ir.ResidualBlock(ir.Branch((Affine(first, np.zeros(n)), Affine(last, np.zeros(1))), (1,)))
    x = np.zeros((1, 1))
    found = errors(block, x)
    assert (found <= ir.bounds.logdet_error_bound(block, x)).all()
    monkeypatch.setattr(error, "_rounding_of_products", lambda factors, n, u, flushed: 0.0)
    monkeypatch.setattr(error, "enclosed", lambda m: (enclosed(m)[0], 0 * enclosed(m)[1]))
    assert not (found <= ir.bounds.logdet_error_bound(block, x)).all()


def test_the_rounding_of_products_is_the_formula_rounded_up() -> None:
    """nγ_K Π‖|F_i|‖, K the terms of all factors."""
    factors = [JacobianError(0.9, 3.0, 70, None), JacobianError(1.0, 1.0, 1, None), JacobianError(0.5, 2.0, 40, None)]
    wanted = 5 * Fraction(111, 2**53) / (1 - Fraction(111, 2**53)) * 6
    assert (
        wanted * (1 - Fraction(1, 10**14))
        <= error._rounding_of_products(factors, 5, 2.0**-53, 0.0)
        <= wanted * (1 + Fraction(1, 10**14))
    )


def test_the_jump_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    smooth = activations.Activation(**{**vars(activations.get("relu")), "jump": 0.0})
    monkeypatch.setitem(activations.ACTIVATIONS, "relu", smooth)
    with pytest.raises(AssertionError):
        test_a_kink_within_rounding_costs_the_jump(1e-17)


def test_another_norm_gives_a_bound_only_where_the_2_norm_contracts() -> None:
    """The bound needs the 2-norm: it is given where that is below 1 as well, and inf where it is not."""
    for norm in (1.0, math.inf):
        block = ir.ResidualBlock(ir.mlp((3, 5, 3), activation="tanh", lipschitz=0.9, norm=norm))
        x = np.random.default_rng(0).standard_normal((4, 3))
        bound = ir.bounds.logdet_error_bound(block, x)
        assert (errors(block, x) <= bound).all()
    column = np.zeros((3, 3))
    column[0] = 0.9  # ‖·‖₁ = .9, ‖·‖₂ = .9√3
    block = ir.ResidualBlock(ir.Branch((Affine(column, np.zeros(3)),), (3,), 1.0))
    assert np.isinf(ir.bounds.logdet_error_bound(block, x)).all()
