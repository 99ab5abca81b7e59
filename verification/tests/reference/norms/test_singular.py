"""Above LARGE dimensions the cheap forms agree with the SVD, and the bounds are on the right side of it."""

from __future__ import annotations

import numpy as np
import pytest

from iresnet_verify.oracle import singular_values as singular


def matrices(d: int) -> np.ndarray:
    rng = np.random.default_rng(d)
    near_identity = np.eye(d) + 0.9 * rng.standard_normal((d, d)) / (2 * d**0.5)
    q, _ = np.linalg.qr(rng.standard_normal((d, d)))
    p, _ = np.linalg.qr(rng.standard_normal((d, d)))
    return np.stack([near_identity, q @ np.diag(np.geomspace(1.0, 1e-9, d)) @ p, q @ np.diag(np.linspace(2.0, 0.5, d)) @ p])


@pytest.mark.parametrize("d", [5, singular.SMALL + 1, 64, singular.LARGE + 20])
def test_singular_values_are_those_of_the_svd(d: int) -> None:
    A = matrices(d)
    sigma = np.linalg.svd(A, compute_uv=False)
    assert np.allclose(singular.values(A), sigma, rtol=1e-9, atol=1e-15)
    top, left, right = singular.largest(A)
    # a lower bound, within 1 % after 20 steps where neighbours are 1 % apart
    assert (top <= sigma[:, 0] * (1 + 1e-12)).all()
    assert (top >= 0.99 * sigma[:, 0]).all()
    assert np.allclose(np.einsum("ni,nij,nj->n", left, A, right), top)
    small, low, left, right = singular.smallest(A)
    assert (small >= sigma[:, -1] * (1 - 1e-6)).all()
    assert (small <= 1.01 * sigma[:, -1] + 1e-15).all()
    assert (low <= sigma[:, -1] * (1 + 1e-6)).all()
    assert (low > 0).all()
    assert np.allclose(np.abs(np.einsum("ni,nij,nj->n", left, A, right)), small)
    assert (singular.norm_bound(A) >= sigma[:, 0] * (1 - 1e-12)).all()
    assert (singular.norm_bound(A) <= d**0.5 * sigma[:, 0]).all()


def test_a_singular_matrix_and_an_empty_batch_have_values() -> None:
    for d in (singular.SMALL + 1, singular.LARGE + 1):
        one_of_two = np.stack([np.zeros((d, d)), 2.0 * np.eye(d)])
        small, low, _, _ = singular.smallest(one_of_two)
        assert small[0] == low[0] == 0.0
        assert np.allclose(small[1], 2.0)
        top, _, _ = singular.largest(one_of_two)
        assert np.allclose(top, [0.0, 2.0])
    assert singular.norm_bound(np.zeros((0, 3, 3))).shape == (0,)
