"""The proofs of ‖W‖₂ ≤ c and Lip(g) ≤ L: against exact integer arithmetic and 60 digits, on random and adversarial weights."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from exact_norms import KNOWN, exceeds_norm, hadamard, lost_sum
from hypothesis import given
from hypothesis import strategies as st

import iresnet_backends
import iresnet_ref as ir
from iresnet_ref.errors import HostArithmeticError
from iresnet_ref.layers import activations
from iresnet_ref.layers.linear import Affine, Conv
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_ref.norms.dense import absolute_norm_bound, norm_bound, proves_norm_at_most

certify = importlib.import_module("iresnet_ref.norms.dense")  # ir.certify is the function
SHAPES = [(1, 1), (2, 2), (3, 5), (5, 3), (8, 8), (1, 6), (12, 4), (200, 3)]
U = 2.0**-53


def weight(kind: str, shape: tuple[int, int], seed: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(shape)
    if kind == "orthogonal":  # every singular value is the largest
        return np.linalg.qr(rng.standard_normal((max(shape), max(shape))))[0][: shape[0], : shape[1]]
    if kind == "rank one":
        return np.outer(w[:, 0], rng.standard_normal(shape[1]))
    if kind == "clustered":  # singular values a few u apart
        m, n = max(shape), min(shape)
        q = np.linalg.qr(rng.standard_normal((m, n)))[0] * (1 + 4 * U * rng.standard_normal(n))
        q = q @ np.linalg.qr(rng.standard_normal((n, n)))[0]
        return q if shape[0] >= shape[1] else q.T
    scales = {"graded": 10.0 ** -np.arange(shape[1]), "tiny": 1e-140, "huge": 1e140, "subnormal": 1e-310}
    if kind in scales:
        return w * scales[kind]
    # |W| = W: the rounding of the Gram matrix is at its largest
    return np.ones(shape) * rng.uniform(0.1, 1.0) if kind == "ones" else w


KINDS = ["gaussian", "orthogonal", "rank one", "clustered", "graded", "ones", "tiny", "huge", "subnormal"]


def allowed_slack(shape: tuple[int, ...]) -> float:
    return max(1e-12, min(shape) ** 2 * U)


def true_norm(w: np.ndarray[Any, Any]) -> Any:
    with mpmath.workdps(60):
        values = mpmath.svd_r(mpmath.matrix(w.tolist()), compute_uv=False)
        return max(values)


@contextmanager
def flushing() -> Iterator[None]:
    torch = pytest.importorskip("torch")
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def subnormal_times_huge() -> ir.Branch:
    """Lip(g) = .9, the product of a subnormal weight and a huge one: 0 where the first is flushed."""
    return ir.Branch(tuple(Affine(np.full((3, 3), w), np.zeros(3)) for w in (2e-309, 5e307)), (3,))


def test_nothing_is_proved_in_arithmetic_that_flushes() -> None:
    """The product of the norms of subnormal and huge weights was 0 there, "proved", for a Lipschitz constant of .9."""
    w, kernel = np.full((3, 3), 1.5e-309), np.full((2, 2, 3, 3), 1e-309)
    proofs = [
        lambda: ir.certify(subnormal_times_huge()),
        lambda: norm_bound(w),
        lambda: proves_norm_at_most(w, 1.0),
        lambda: absolute_norm_bound(w),
        lambda: ir.spectral.normalise(w, 0.5, norm=1.0),
        lambda: ir.certify(ir.Branch((Conv(kernel, np.zeros(2), (4, 4)),), (2, 4, 4))),
    ]
    for proof in proofs:
        proof()
        with flushing(), pytest.raises(HostArithmeticError, match=r"flushed to zero; try torch.set_flush_denormal\(False\)"):
            proof()
    assert 0.1 < ir.certify(subnormal_times_huge()).bound < 1.0


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**20), shape=st.sampled_from(SHAPES))
def test_norm_bound_exceeds_the_norm(kind: str, seed: int, shape: tuple[int, int]) -> None:
    w = weight(kind, shape, seed)
    assert exceeds_norm(norm_bound(w), w)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**20), shape=st.sampled_from(SHAPES[:-1]))
def test_norm_bound_is_barely_above_the_norm(kind: str, seed: int, shape: tuple[int, int]) -> None:
    w = weight(kind, shape, seed)
    truth, bound = true_norm(w), norm_bound(w)
    # where float64 is sparse, one number above
    assert truth <= bound <= truth * (1 + allowed_slack(shape)) + 2 * 5e-324


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "subnormal"])
@given(seed=st.integers(0, 2**20), shape=st.sampled_from(SHAPES), exponent=st.floats(-16, -1))
def test_nothing_false_is_proved(kind: str, seed: int, shape: tuple[int, int], exponent: float) -> None:
    w = weight(kind, shape, seed)
    truth = float(np.linalg.norm(w / np.abs(w).max(), 2) * np.abs(w).max())
    for c in (truth * (1 - 10.0**exponent), math.nextafter(truth, 0.0), truth, truth * (1 + 4 * U)):
        assert not proves_norm_at_most(w, c) or exceeds_norm(c, w)


@pytest.mark.parametrize("name", KNOWN)
def test_norms_known_in_closed_form_are_reached(name: str) -> None:
    w, norm = KNOWN[name]
    for v in (w, w.T):
        assert norm <= norm_bound(v) <= norm * (1 + allowed_slack(v.shape)) + 2 * 5e-324
        assert not proves_norm_at_most(v, math.nextafter(norm, 0.0))
        assert proves_norm_at_most(v, norm * (1 + 2 * allowed_slack(v.shape)) + 8 * U * np.abs(v).max() + 3e-323)
        for c in (0.0, -norm, math.nan):
            assert not proves_norm_at_most(v, c)


@pytest.mark.thorough
def test_the_bound_is_never_below_the_norm_of_two_thousand_operators() -> None:
    rng = np.random.default_rng(0)
    for seed in range(2000):
        w = weight(KINDS[seed % len(KINDS)], (int(rng.integers(1, 25)), int(rng.integers(1, 25))), seed)
        assert exceeds_norm(norm_bound(w), w), seed


@pytest.mark.parametrize("n", [64, 256])
@pytest.mark.parametrize("m", [64, 256, 4096])
def test_the_slack_of_a_proved_norm_grows_with_the_size_as_stated(m: int, n: int) -> None:
    """‖W‖₂ by an SVD, which is far more accurate than the slack: p(n)·u against n²u."""
    rng = np.random.default_rng(0)
    gaussian = rng.standard_normal((m, n))
    for w in (
        gaussian,
        np.linalg.qr(gaussian if m >= n else gaussian.T)[0],
        hadamard(max(m, n))[:m, :n],
        np.ones((m, n)),
    ):
        truth = np.linalg.svd(w, compute_uv=False)[0]
        assert norm_bound(w) <= truth * (1 + allowed_slack(w.shape) + 8 * U * math.sqrt(n))


# ── what the shift is made of, and proofs that lack a part of it ──────────────────────────────────────────────────────


def exact_shift(w: np.ndarray[Any, Any], c: float) -> Fraction:
    """κ tr Ã + γ_t max_i(|W|ᵀ|W|1)_i + 4u(c₂ + max ĝ) of docs/proofs.md, from the computed diagonal, in rational arithmetic."""

    def gamma(k: int) -> Fraction:
        return k * Fraction(U) / (1 - k * Fraction(U))

    gram = certify.Gram.of(w)
    w = w.T if w.shape[0] == w.shape[1] else w
    m, n = w.shape
    block = max(64, n // 4, math.isqrt(m))
    terms = block + math.ceil(m / block) - 1 if m > block else m
    absolute = [[Fraction(float(abs(v))) for v in row] for row in w]
    total = [sum(row) for row in absolute]
    rows = [sum(absolute[k][i] * total[k] for k in range(m)) for i in range(n)]
    diagonal = [Fraction(c * c * (1 - 2 * U) - float(g)) for g in np.diag(gram.matrix)]
    kappa = gamma(n + 1) / (1 - gamma(n + 1))
    last = 4 * Fraction(U) * (Fraction(c * c * (1 - 2 * U)) + Fraction(float(np.diag(gram.matrix).max())))
    return kappa * sum(abs(g) for g in diagonal) + gamma(terms) * max(rows) + last


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (12, 3), (70, 6), (150, 2)])
def test_the_shift_is_the_formula_rounded_up(shape: tuple[int, int]) -> None:
    for seed in range(5):
        w = np.random.default_rng(seed).uniform(-1.0, 1.0, shape)
        c = float(np.linalg.norm(w, 2)) * (1 + 1e-12)
        wanted, got = exact_shift(w, c), Fraction(certify.Gram.of(w).shift(c)[1])
        assert wanted * (1 + (shape[0] + 2 * shape[1]) * Fraction(U)) <= got <= wanted * (1 + Fraction(10) ** -12)


def test_the_square_of_c_is_rounded_down() -> None:
    for c in np.random.default_rng(0).uniform(0.5, 1.0, 200):
        diagonal, _ = certify.Gram.of(np.diag([0.5, 0.0])).shift(float(c))
        assert Fraction(float(diagonal[1])) <= Fraction(float(c)) ** 2


def test_the_gram_matrix_is_within_its_error() -> None:
    for w in (lost_sum(16384), weight("gaussian", (3000, 1), 0)):
        gram = certify.Gram.of(w)
        truth = sum(Fraction(float(v)) ** 2 for v in w[:, 0])
        assert abs(Fraction(float(gram.matrix[0, 0])) - truth) <= Fraction(gram.error)


def false_proofs() -> int:
    """Count false proofs near the norm of forty constant matrices."""
    count = 0
    for seed in range(40):
        w = weight("ones", (16, 16) if seed % 2 else (40, 6), seed)
        truth = float(np.linalg.norm(w, 2))
        tried = (truth * (1 + k * U) for k in range(-8, 9, 2))
        count += any(proves_norm_at_most(w, c) and not exceeds_norm(c, w) for c in tried)
    return count


def test_a_proof_without_the_shift_proves_something_false(monkeypatch: pytest.MonkeyPatch) -> None:
    assert false_proofs() == 0
    whole = certify.Gram.shift
    monkeypatch.setattr(certify.Gram, "shift", lambda gram, c: (whole(gram, c)[0], 0.0))
    assert false_proofs() > 0


def test_a_proof_that_forgets_the_rounding_of_the_gram_matrix_proves_something_false(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    w = lost_sum(16384)
    assert norm_bound(w) ** 2 * (1 - 4 * U) > 1 + float((w[1:] ** 2).sum())
    whole = certify.Gram.of

    def forgetful(w: Any) -> Any:
        gram = whole(w)
        return certify.Gram(gram.matrix, 0.0, gram.rows)

    monkeypatch.setattr(certify.Gram, "of", staticmethod(forgetful))
    assert not exceeds_norm(norm_bound(w), w)


def test_a_stack_is_proved_where_every_matrix_of_it_is() -> None:
    rng = np.random.default_rng(7)
    stack = rng.standard_normal((5, 6, 9))
    stack = stack / np.linalg.norm(stack, 2, axis=(1, 2))[:, None, None]
    assert proves_norm_at_most(stack, 1.0 + 1e-12)
    for i in range(5):
        one_above = np.concatenate([stack[:i], stack[i : i + 1] * (1.0 + 1e-9), stack[i + 1 :]])
        assert not proves_norm_at_most(one_above, 1.0 + 1e-12)
    assert not proves_norm_at_most(np.where(np.arange(5)[:, None, None] == 3, np.nan, stack), 2.0)


# ── certificates that cannot be given ─────────────────────────────────────────────────────────────────────────────────


def broken(**changes: Any) -> ir.Branch:
    g = ir.mlp((2, 4, 2))
    return g.with_parameters({**g.parameters(), **{k.replace("_", "."): v for k, v in changes.items()}})


def unknown_activation(constant: float) -> ir.Branch:
    g = ir.mlp((2, 4, 2))
    tanh = activations.get("tanh")
    phi = activations.Activation("square", lambda z: z * z, tanh.both, tanh.second, constant)
    return ir.Branch((g.layers[0], Pointwise(phi), g.layers[2]), (2,))


REFUSED = {
    "nan": (lambda: broken(**{"0_weight": np.full((4, 2), math.nan)}), r"dense 2→4 .* its weight holds NaN"),
    "infinite": (
        lambda: broken(**{"2_weight": np.full((2, 4), -math.inf)}),
        r"dense 4→2 .* its weight holds NaN or infinity",
    ),
    "overflow": (lambda: broken(**{"0_weight": np.full((4, 2), 1.7e308)}), r"dense 2→4 .* beyond the range of float64"),
    "overflowing product": (
        lambda: broken(**{"0_weight": np.full((4, 2), 1e200), "2_weight": np.full((2, 4), 1e200)}),
        r"product of the layers' norms overflows",
    ),
    "no constant": (
        lambda: unknown_activation(math.inf),
        r"square is proved: its activation states no finite Lipschitz",
    ),
    "nan constant": (
        lambda: unknown_activation(math.nan),
        r"square is proved: its activation states no finite Lipschitz",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_proved_says_why(name: str) -> None:
    make, words = REFUSED[name]
    certificate = ir.certify(make())
    assert (certificate.bound, certificate.proved) == (math.inf, False)
    with pytest.raises(ir.NotContractiveError, match=words):
        raise ir.NotContractiveError(certificate.reason)
    with pytest.raises(ir.NotContractiveError, match=r"proved Lip\(g\) < 1, got inf \(.*" + words):
        ir.invert(ir.ResidualBlock(make()), np.zeros((1, 2)))


def test_an_expansion_is_certified_and_named() -> None:
    block = ir.ResidualBlock(broken(**{"0_weight": 3.0 * np.eye(4, 2), "2_weight": np.eye(2, 4)}))
    assert block.certificate.proved
    assert 3.0 <= block.certificate.bound <= 3.0 * (1 + 1e-12)
    for use in (ir.invert, ir.logdet):
        with pytest.raises(ir.NotContractiveError, match=r"got 3 \(product of dense 2→4 ≤ 3, .*normalise its weights"):
            use(block, np.zeros((1, 2)))  # type: ignore[operator]


def test_norms_of_zero_empty_and_nan_matrices_are_exact() -> None:
    assert norm_bound(np.array([[math.nan]])) == math.inf
    assert norm_bound(np.zeros((3, 2))) == norm_bound(np.zeros((0, 4))) == 0.0
    assert proves_norm_at_most(np.zeros((3, 2)), 0.0)
    assert not proves_norm_at_most(np.zeros((3, 2)), -1.0)
    assert not proves_norm_at_most(np.array([[math.inf]]), 1.0)
    assert not proves_norm_at_most(np.array([[1.0]]), math.inf)


@pytest.mark.parametrize("sizes", [(1e-200, 1e-200), (5e-324, 0.5), (1e-170, 1e-150)])
def test_a_product_is_rounded_up_where_it_underflows(sizes: tuple[float, float]) -> None:
    certificate = ir.Branch(tuple(Affine(np.eye(2) * s, np.zeros(2)) for s in sizes), (2,)).certificate
    assert Fraction(certificate.bound) >= Fraction(sizes[0]) * Fraction(sizes[1])
    assert ir.Branch((Affine(np.zeros((2, 2)), np.zeros(2)),), (2,)).certificate.bound == 0.0


def test_weights_beyond_float64_get_a_bound_that_covers_their_digits() -> None:
    fifty = iresnet_backends.get("precision:50")
    third = fifty.xp.ones((1, 1), dtype=fifty.dtype) / 3
    for w in (third, third * 3 + fifty.xp.ones((1, 1), dtype=fifty.dtype) / 10**30, third / 10**400):
        bound = Affine(w, fifty.xp.zeros((1,), dtype=fifty.dtype)).norm_bound()
        assert bool(fifty.xp.all(fifty.xp.abs(w) <= fifty.xp.asarray([[bound]], dtype=fifty.dtype)))
        assert bound <= float(w[0, 0]) * (1 + 1e-14) + 1e-300


@given(seed=st.integers(0, 2**20), shape=st.sampled_from(SHAPES))
def test_the_bound_on_the_norm_of_moduli_is_never_below_it(seed: int, shape: tuple[int, int]) -> None:
    w = weight("gaussian", shape, seed)
    assert absolute_norm_bound(w) >= true_norm(np.abs(w)) * (1 - mpmath.mpf(10) ** -40)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(seed=st.integers(0, 2**20), shape=st.sampled_from(SHAPES), c=st.sampled_from([0.3, 0.9, 0.999]))
def test_normalise_is_certified_and_divides_only_when_needed(
    dtype: Any, seed: int, shape: tuple[int, int], c: float
) -> None:
    w = weight("gaussian", shape, seed).astype(dtype)
    scaled = ir.spectral.normalise(w, c)
    assert scaled.dtype == w.dtype
    assert norm_bound(scaled) <= c
    if true_norm(w) > c * (1 + 1e-6):
        # the margin for what rounding of the entries may do, that it did the other way, and the proof's own slack
        n, u = min(shape), float(np.finfo(dtype).eps) / 2
        margin = 4 * u * (math.sqrt(n) + 1) + n * (n + 8) * U
        assert true_norm(scaled) >= c * (1 - margin - (math.sqrt(n) + 2) * u - allowed_slack(w.shape) - 8 * U * math.sqrt(n))
    assert ir.spectral.normalise(scaled, c) is scaled


def test_power_iteration_underestimates_and_converges() -> None:
    from iresnet_ref.jacobian.factors import Dense

    w = weight("gaussian", (64, 32), 0)
    truth = np.linalg.norm(w, 2)
    estimates = [float(ir.spectral.power_iteration(Dense(w), w, steps=k)[0]) for k in (1, 5, 400)]
    # a product of 32 terms, a norm of 64 squares; LAPACK's SVD errs by a small multiple of the size, here one
    assert estimates[0] < estimates[1] <= truth * (1 + (32 + 64) * 2.0**-53)
    assert abs(float(ir.spectral.spectral_norm(w)) - truth) <= 2 * 64 * 2.0**-53 * truth
    assert estimates[1] < truth * (1 - 1e-4)  # five steps are no bound: what certify is for
    assert estimates[2] >= truth * (1 - 1e-6)
