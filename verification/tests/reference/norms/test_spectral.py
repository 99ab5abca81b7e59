"""Spectral norms of matrices and of convolutions on their image: SVD, Fourier transform, power iteration, Gram bound."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from tables import backend, each_backend

import iresnet_ref as ir
from iresnet_ref.arrays import to_host
from iresnet_ref.jacobian.convolution import Convolution
from iresnet_ref.jacobian.factors import Dense, Diagonal
from iresnet_ref.rounding import gamma, unit_roundoff

SHAPES = [(3, 2, 3, 3, 5, 4), (2, 4, 1, 3, 4, 6), (1, 1, 5, 5, 5, 5), (4, 4, 1, 1, 3, 3)]
U = 2.0**-53
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_padding = pytest.mark.parametrize("padding", ["zero", "circular"])


def make(shape: tuple[int, ...], padding: Any, key: str = "numpy-f64", seed: int = 0) -> tuple[Convolution, float]:
    """The operator and its true norm, from the singular values of its matrix."""
    kernel = backend(key).asarray(np.random.default_rng(seed).standard_normal(shape[:4]))
    matrix = Convolution(to_host(kernel).astype(np.float64), (shape[4], shape[5]), padding).matrix()
    return Convolution(kernel, (shape[4], shape[5]), padding), float(np.linalg.norm(matrix, 2))


def svd_rounding(n: int, u: float) -> float:
    """Return 16nu, the relative error of the largest singular value of n columns in the model of independent roundings.

    2n Householder reflections each perturb the matrix by some 8u of its Frobenius norm, at most √n of its 2-norm (Higham, Lemma
    19.3); independent ones (Higham & Mary 2019) add up to √(2n) of one, and singular values move no further (Weyl).
    """
    return 16 * n * u


@pytest.mark.parametrize("key", ["numpy-f32", "numpy-f64"])
@each_padding
@each_shape
def test_every_way_to_the_norm_agrees(shape: tuple[int, ...], padding: Any, key: str) -> None:
    operator, truth = make(shape, padding, key)
    u, n = unit_roundoff(operator.weight), math.prod(shape[1:])
    assert abs(float(ir.spectral.spectral_norm(operator)) - truth) <= svd_rounding(n, u) * truth
    svd = ir.spectral.singular_triple(operator)
    power = ir.spectral.power_iteration(operator, operator.weight, steps=5000, rtol=u**0.5)
    values = np.linalg.svd(to_host(operator.matrix()).astype(np.float64), compute_uv=False)
    first, second = values[0], values[values < values[0] * (1 - 1e-6)].max(initial=0.0)  # equal ones count as one
    for triple in (svd, power):
        # Kato–Temple: a residual of √u in AᵀAv = σ²v is u over the gap in σ²; and products of n terms
        off = svd_rounding(n, u) + u / (1 - (second / first) ** 2) + gamma(n, u)
        assert abs(float(triple.sigma) - truth) <= off * truth
        # A v = σ u, and σ = uᵀAv is what its gradient at fixed u, v belongs to: ⟨∂σ/∂K, K⟩ = σ
        xp = ir.arrays.namespace(triple.v)
        gap = operator.apply(triple.v) - triple.sigma * triple.u
        entries = math.prod(operator.out_shape)
        assert float(xp.sqrt(xp.sum(gap * gap))) <= (u**0.5 + off + gamma(n, u)) * truth
        # the same sum over entries of u, v and K twice, in another order
        along = xp.sum(operator.weight_gradient(triple.u, triple.v) * operator.weight)
        assert abs(float(along) - float(triple.sigma)) <= (off + 2 * gamma(n + entries, u)) * truth


@each_backend
def test_norms_agree_on_every_backend(key: str) -> None:
    operator, truth = make((2, 1, 3, 1, 4, 3), "circular", key)
    u, n = unit_roundoff(operator.weight), 12
    assert abs(float(ir.spectral.spectral_norm(operator)) - truth) <= svd_rounding(n, u) * truth
    bound = float(ir.spectral.gram_bound(operator, squarings=2))
    # products of n terms, squared twice: each squaring doubles the relative error and each root halves it
    assert truth * (1 - svd_rounding(n, u)) <= bound <= truth * n ** (1 / 16) * (1 + svd_rounding(n, u))


@each_padding
@each_shape
def test_gram_bound_is_above_and_close(shape: tuple[int, ...], padding: Any) -> None:
    operator, truth = make(shape, padding)
    wide = Convolution(operator.weight, (shape[4] + shape[2] - 1, shape[5] + shape[3] - 1), "circular")
    circular = truth if padding == "circular" else float(ir.spectral.spectral_norm(wide))
    side, rounded = min(shape[:2]), svd_rounding(wide.matrix().shape[1], U)
    for s in (0, 1, 3, 6):
        bound = float(ir.spectral.gram_bound(operator, squarings=s))
        # ‖G^(2^s)‖_F ≤ √n ‖G‖₂^(2^s), and rounding may be on either side: of the truth by SVD, and less of small Gram matrices
        assert circular * (1 - rounded) <= bound <= circular * side ** (1 / 2 ** (s + 2)) * (1 + rounded)
    assert float(ir.spectral.gram_bound(operator)) >= truth * (1 - rounded)


def test_gram_bound_of_matrices_at_any_scale() -> None:
    for scale in (1e-120, 1.0, 1e120):
        w = scale * np.random.default_rng(0).standard_normal((5, 9))
        assert 1 - svd_rounding(5, U) <= float(ir.spectral.gram_bound(w, squarings=6)) / np.linalg.norm(w, 2) <= 5 ** (1 / 256)
    assert float(ir.spectral.gram_bound(np.zeros((2, 3)))) == 0.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_norms_keep_their_scale_to_the_ends_of_the_range(dtype: Any) -> None:
    """Squares of these weights leave the range: an iteration that forms them returns 0 or NaN, and says nothing."""
    u = float(np.finfo(dtype).eps) / 2
    for scale in (1e-30, 1e30) if dtype is np.float32 else (1e-300, 1e300):
        w = np.diag(np.asarray([3.0, 4.0, 1.0]) * scale).astype(dtype)
        for norm in (
            ir.spectral.power_iteration(Dense(w), w, steps=80).sigma, ir.spectral.power_iteration(Dense(w), w, steps=80, rtol=u**0.5).sigma,
            ir.spectral.singular_triple(w).sigma, ir.spectral.gram_bound(w, squarings=8),
        ):  # fmt: skip
            # sums of 3 squares, a root, a scaling and its undoing, twice; squaring G doubles its relative error, the root halves it
            assert abs(float(norm) / float(w[1, 1]) - 1.0) <= 2 * (3 + 3) * u, scale


def test_a_zero_operator_does_not_end_the_iteration_for_ever() -> None:
    """Persisted vectors: v survives weights that are zero, and a buffer of zeros is as good a start as another."""
    zero, w = Dense(np.zeros((3, 4))), Dense(np.random.default_rng(0).standard_normal((3, 4)))
    sigma, _, v = ir.spectral.power_iteration(zero, w.weight, steps=5, rtol=1e-8)
    assert float(sigma) == 0.0
    first, second = np.linalg.svd(w.weight, compute_uv=False)[:2]
    off = svd_rounding(3, U) + 1e-8**2 / (1 - (second / first) ** 2) + gamma(4, U)  # as in the first test, at a residual of 1e-8
    for start in (v, np.zeros((1, 4))):
        found = ir.spectral.power_iteration(w, w.weight, steps=500, start=start, rtol=1e-8)
        assert abs(float(found.sigma) - first) <= off * first
    with pytest.raises(ir.ShapeError, match=r"expected start of shape \(1, 4\), got \(4,\)"):
        ir.spectral.power_iteration(w, w.weight, start=np.ones(4))


def test_what_has_no_norm_is_refused() -> None:
    calls = (ir.spectral.spectral_norm, ir.spectral.gram_bound, ir.spectral.singular_triple, lambda w: ir.spectral.normalise(w, 0.9))
    for call in calls:
        with pytest.raises(ir.DTypeError, match="expected a real floating dtype, got int64"):
            call(np.ones((2, 2), dtype=np.int64))
        with pytest.raises(ir.DTypeError, match=r"expected an array of the Python Array API.*got list"):
            call([[1.0]])
        with pytest.raises(ValueError, match="expected finite weights, got NaN or infinity"):
            call(np.full((2, 2), math.inf))
    for call in calls[:3]:
        with pytest.raises(ir.ShapeError, match=r"got an array of shape \(0, 2\)"):
            call(np.zeros((0, 2)))


def test_a_slow_power_iteration_does_not_pass_for_a_converged_one() -> None:
    # σ₂/σ₁ = 1 − 1e-3: steps hardly move long before the vector is right; n = 1000 does not loosen the test
    sigma = np.concatenate([[1.0], np.full(999, 1 - 1e-3)])
    operator = Diagonal(sigma[None, :])
    with pytest.raises(ir.ConvergenceError, match=r"relative residual of 1e-07 within 200 steps") as error:
        ir.spectral.power_iteration(operator, sigma, steps=200, rtol=1e-7)
    warm: Any = error.value.result
    assert isinstance(warm, ir.spectral.SingularTriple)
    previous = warm.v - ir.spectral.power_iteration(operator, sigma, steps=1, start=warm.v).v
    assert np.linalg.norm(previous) < 1e-3  # what a test on the step would have taken for convergence
    again = ir.spectral.power_iteration(operator, sigma, steps=20_000, rtol=1e-7, start=warm.v)
    # Kato–Temple: the error of σ² is at most the squared residual over the gap of σ²
    assert abs(float(again.sigma) ** 2 - 1.0) <= 1e-7**2 / (1 - (1 - 1e-3) ** 2)


def test_persisted_vectors_follow_slowly_changing_weights() -> None:
    operator, _ = make(SHAPES[0], "zero")
    v = ir.spectral.power_iteration(operator, operator.weight, steps=400).v
    drift = np.random.default_rng(1).standard_normal(operator.weight.shape)
    before, angle = v.reshape(-1), 0.0
    for k in range(20):
        moved = Convolution(operator.weight * (1 + 0.01 * k) + 1e-3 * k * drift, operator.image, "zero")
        sigma, _, v = ir.spectral.power_iteration(moved, moved.weight, steps=1, start=v)
        values, vectors = np.linalg.svd(moved.matrix())[1:]
        # the top vector turns by some angle, and a step divides the tangent of the angle to it by (σ₁/σ₂)²
        angle += math.acos(min(1.0, abs(float(before @ vectors[0]))))
        angle, before = math.atan(math.tan(angle) * (values[1] / values[0]) ** 2), vectors[0]
        rounded = svd_rounding(vectors.shape[1], U) + gamma(vectors.shape[1], U)
        assert values[0] * (math.cos(angle) - rounded) <= float(sigma) <= values[0] * (1 + rounded)


def test_gradient_of_the_norm_is_that_of_autograd() -> None:
    torch = pytest.importorskip("torch")
    for shape, padding in ((SHAPES[0], "zero"), (SHAPES[1], "circular")):
        operator, _ = make(shape, padding, "torch-f64")
        kernel = operator.weight.clone().requires_grad_()
        norm = torch.linalg.matrix_norm(Convolution(kernel, operator.image, operator.padding).matrix(), 2)
        (truth,) = torch.autograd.grad(norm, kernel)
        triple = ir.spectral.singular_triple(operator)
        # both rest on singular vectors that turn by at most the SVD's error over the gap (Wedin), one left and one right each;
        # an entry of the gradient is a sum of products of theirs, at most 1 by Cauchy and Schwarz. The wave and its shift by a
        # quarter, which share σ₁ of a circular operator, have one gradient: equal ones count as one
        sigma, n = np.linalg.svd(to_host(operator.matrix()), compute_uv=False), operator.matrix().shape[1]
        second = sigma[sigma < sigma[0] * (1 - 1e-6)].max()
        allowed = 2 * (2 * svd_rounding(n, U) / (1 - float(second / sigma[0])) + gamma(n, U))
        assert float((operator.weight_gradient(triple.u, triple.v) - truth).abs().max()) <= allowed


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each_padding
@each_shape
def test_normalise_divides_a_layer_only_when_needed(shape: tuple[int, ...], padding: Any, dtype: Any) -> None:
    operator, truth = make(shape, padding)
    layer = ir.layers.Conv(operator.weight.astype(dtype), np.ones(shape[0], dtype=dtype), operator.image, padding)
    kept = ir.spectral.normalise(layer, 2 * truth)
    assert kept is layer
    scaled = ir.spectral.normalise(layer, 0.9)
    assert scaled.norm_bound() <= 0.9
    assert scaled.bias is layer.bias
    assert scaled.weight.dtype == dtype
    # the margin for what rounding may do, that it did the other way, the proof's own slack of n²u, and the SVD of the test
    n, columns, u = min(shape[0], math.prod(shape[1:4])), math.prod(shape[1:2] + shape[4:]), float(np.finfo(dtype).eps) / 2
    slack = (4 * (math.sqrt(n) + 1) + math.sqrt(n) + 2) * u + (n * (n + 8) + columns**2) * U + svd_rounding(columns, u)
    assert float(ir.spectral.spectral_norm(scaled)) >= 0.9 * (1 - slack)
    assert ir.spectral.normalise(scaled, 0.9) is scaled


def test_a_kernel_without_its_image_has_no_norm() -> None:
    kernel = np.ones((2, 2, 3, 3))
    for call in (ir.spectral.spectral_norm, ir.spectral.gram_bound, ir.spectral.singular_triple, lambda k: ir.spectral.normalise(k, 0.9)):
        with pytest.raises(ir.ShapeError, match=r"got an array of shape \(2, 2, 3, 3\).*Conv\(kernel, bias, image\)"):
            call(kernel)
    broken = ir.layers.Conv(np.full((1, 1, 3, 3), np.nan), np.zeros(1), (4, 4))
    with pytest.raises(ValueError, match="expected finite weights, got NaN"):
        ir.spectral.normalise(broken, 0.9)
