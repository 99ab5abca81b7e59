"""Elimination without pivoting: stable because every Schur complement of I + M is I plus a contraction, of the same constant."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
from contractive_families import rotation
from tables import backend, each_backend, exact

import iresnet_ref as ir
from iresnet_ref.arrays import to_host
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.jacobian.factors import Dense
from iresnet_ref.layers import activations
from iresnet_ref.layers.linear import Affine
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_ref.log_determinant import elimination
from iresnet_ref.log_determinant.elimination import MOST, logdet, logdet_and_inverse
from iresnet_ref.log_determinant.exact import exact_logdet
from iresnet_ref.rounding import ELEMENTARY, gamma, unit_roundoff

U = 2.0**-53


def contractions(n: int, L: float, rng: np.random.Generator, p: float = 2.0) -> np.ndarray:
    """Matrices of norm at most L: Gaussian, orthogonal, ±I, of rank one, lower triangular."""
    found = np.stack([
        rng.standard_normal((n, n)), rotation(n, rng), np.eye(n), -np.eye(n), -np.ones((n, n)), np.ones((n, n)), -np.tril(np.ones((n, n))),
    ])
    return found * (L * (1.0 - 1e-14) / np.linalg.norm(found, p, axis=(1, 2)))[:, None, None]


def bound(n: int, L: float, u: float) -> float:
    """What rounds moves the pivots by ‖ΔM‖_* ≤ κu(L + ‖ΔM‖_*), κ = Σ(r + 8√r), t = ‖ΔM‖_*/(1 − L); n logarithms are rounded and summed.

    One rounding of every entry of order r has nuclear norm ≤ ru‖M′‖₂, since ‖·‖_* ≤ √r‖·‖_F, ‖·‖_F ≤ √r‖·‖₂; three of a matrix of rank
    one and 2-norm ≤ 2‖M′‖₂ have √r·3·2u‖M′‖₂, and 8 for 6 covers what is of higher order.
    """
    kappa = u * sum(r + 8.0 * r**0.5 for r in range(1, n))
    t = kappa * L / (1.0 - kappa) / (1.0 - L)
    return -math.log1p(-t) + n * (ELEMENTARY * u + gamma(n, u)) * -(math.log1p(-L) + math.log1p(-t))


# M[u; v] = [−u; M′v] for some u: what is left of a contraction is one.
@pytest.mark.parametrize("p", [1, 2, np.inf])
@pytest.mark.parametrize("seed", range(3))
def test_a_schur_complement_is_the_identity_plus_a_contraction(p: float, seed: int) -> None:
    n, L = 6, 0.97
    for matrix in contractions(n, L, np.random.default_rng(seed), p):
        a = np.eye(n) + matrix
        for k in range(1, n):
            left = a[k:, k:] - a[k:, :k] @ np.linalg.solve(a[:k, :k], a[:k, k:]) - np.eye(n - k)
            assert np.linalg.norm(left, p) <= L + n**3 * 16 * U / (1 - L) ** 2  # n³ roundings, through a solve with κ ≤ 2/(1 − L)


@pytest.mark.parametrize("n", [1, 2, 7])
@each_backend
def test_value_alone_is_the_value_with_the_inverse_bit_for_bit(key: str, n: int) -> None:
    matrix = backend(key).asarray(contractions(n, 0.9, np.random.default_rng(n)))
    alone, (value, inverse) = logdet(matrix), logdet_and_inverse(matrix)
    # XLA rounds a quotient in one way or another by its place in the batch: then both are within the proved bound of each other
    allowed = 2.0 * bound(n, 0.9, unit_roundoff(matrix)) if key.startswith("jax") else 0.0
    assert (np.abs(to_host(alone) - to_host(value)) <= allowed).all()
    assert alone.dtype == value.dtype == inverse.dtype == matrix.dtype
    assert tuple(inverse.shape) == tuple(matrix.shape)


# Truth in 60 digits, from the same matrices.
@pytest.mark.parametrize("L", [1e-9, 0.01, 0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("n", range(1, MOST + 1))
def test_the_logarithm_is_within_the_proved_bound(n: int, L: float) -> None:
    matrices = contractions(n, L, np.random.default_rng(0))
    for value, matrix in zip(logdet(matrices), matrices, strict=True):
        with mpmath.workdps(60):
            truth = mpmath.log(mpmath.det(mpmath.eye(n) + mpmath.matrix(matrix.tolist())))
            assert abs(float(value - truth)) <= bound(n, L, U)


@pytest.mark.parametrize("n", range(1, MOST + 1))
@pytest.mark.parametrize("seed", range(3))
def test_the_inverse_is_that_of_sixty_digits(n: int, seed: int) -> None:
    L = 0.5
    matrices = contractions(n, L, np.random.default_rng(seed))
    # Each of n updates rounds entries ≤ 1/(1 − L), four times; the exchanges that follow turn E into UEV, ‖U‖ and ‖V‖ ≤ 1 + 2/(1 − L).
    allowed = n * n * 4 * U / (1 - L) * (1 + 2 / (1 - L)) ** 2
    for inverse, matrix in zip(logdet_and_inverse(matrices)[1], matrices, strict=True):
        with mpmath.workdps(60):
            truth = mpmath.inverse(mpmath.eye(n) + mpmath.matrix(matrix.tolist()))
            assert np.abs(inverse - np.asarray(truth.tolist(), dtype=float)).max() <= allowed


def test_dyadic_matrices_are_inverted_exactly() -> None:
    """Nilpotent of eighths: all pivots are 1, nothing is rounded, and (I + M)⁻¹ = I − M + M² − M³."""
    matrix = np.triu(np.random.default_rng(1).integers(-1, 2, (4, 4)) / 8.0, 1)
    value, inverse = logdet_and_inverse(matrix[None])
    assert value[0] == 0.0
    assert (inverse[0] == np.eye(4) - matrix + matrix @ matrix - matrix @ matrix @ matrix).all()


@pytest.mark.parametrize("key", ["numpy-f32", "numpy-f64", "torch-f32", "torch-f64", "jax-f32"])
def test_log1p_is_accurate_to_8u_of_itself(key: str) -> None:
    """What the proof of the logarithms assumes, next to 0 and next to −1 too."""
    b = backend(key)
    host = np.concatenate([s * 10.0 ** np.linspace(-30, -1e-3, 400) for s in (1.0, -1.0)])
    z = b.asarray(host)
    found, exactly = exact(b.xp.log1p(z)), exact(z)
    for value, point in zip(found, exactly, strict=True):
        with mpmath.workdps(60):
            truth = mpmath.log1p(mpmath.mpf(float(point)))
            assert abs(mpmath.mpf(float(value)) - truth) <= ELEMENTARY * unit_roundoff(z) * abs(truth)


def test_a_matrix_without_contraction_is_not_eliminated_without_pivoting() -> None:
    """J turns by 90° and halves; from its second layer on it is TJT⁻¹ = [[−1, 1], [−1.25, 1]]: I + M has pivot 0."""
    turn, t = np.asarray([[0.0, 0.5], [-0.5, 0.0]]), np.asarray([[1.0, 2.0], [0.0, 2.5]])
    down, up = np.pad(t, ((0, 0), (0, 1))), np.pad(turn @ np.linalg.inv(t), ((0, 1), (0, 0)))
    layers = (Affine(down, np.zeros(2)), Pointwise(activations.get("identity")), Affine(up, np.zeros(3)))
    F = ir.ResidualBlock(ir.Branch(layers, (3,)), lipschitz=0.5)
    assert (down @ up)[0, 0] == -1.0
    assert not F.contracts_from(1)
    x = np.ones((2, 3))
    for value in (ir.logdet(F, x, "exact").value, ir.Flow([F]).log_prob_and_gradient(x)[0].log_det.value):
        assert np.abs(value - math.log(1.25)).max() <= 1e-14


def test_a_stated_constant_says_nothing_of_the_rotations(monkeypatch: pytest.MonkeyPatch) -> None:
    proved = ir.ResidualBlock(ir.mlp((3, 8, 3), lipschitz=0.9))
    stated = ir.ResidualBlock(proved.branch, lipschitz=0.9)
    assert proved.contracts_from(1)
    assert not stated.contracts_from(0)
    calls: list[Any] = []
    monkeypatch.setattr(elimination, "logdet", lambda matrix: calls.append(matrix) or logdet(matrix))
    x = np.ones((2, 3))
    ir.logdet(stated, x, "exact")
    assert not calls
    ir.logdet(proved, x, "exact")
    assert len(calls) == 1
    exact_logdet(Chain((Dense(0.9 * np.eye(MOST + 1)),), 1, x), contracts=True)  # of larger order LAPACK is faster
    assert len(calls) == 1
