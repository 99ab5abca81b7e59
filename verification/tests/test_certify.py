"""The proofs: ‖W‖₂ ≤ c against ball arithmetic's older sister, 60-digit singular values, on random and adversarial weights."""

from __future__ import annotations

import importlib
import math
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import iresnet_ref as ir
from iresnet_ref.certify import absolute_norm_bound, norm_bound, proves_norm_at_most

SHAPES = [(1, 1), (2, 2), (3, 5), (5, 3), (8, 8), (1, 6), (12, 4)]


def weight(kind: str, shape: tuple[int, int], seed: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(shape)
    if kind == "gaussian":
        return w
    if kind == "orthogonal":  # every singular value is the largest
        return np.linalg.qr(rng.standard_normal((max(shape), max(shape))))[0][: shape[0], : shape[1]]
    if kind == "rank one":
        return np.outer(w[:, 0], rng.standard_normal(shape[1]))
    if kind == "graded":
        return w * 10.0 ** -np.arange(shape[1])
    if kind == "ones":  # |W| = W: the rounding of the Gram matrix is at its largest
        return np.ones(shape) * 0.1
    return w * 1e-140 if kind == "tiny" else w * 1e140


KINDS = ["gaussian", "orthogonal", "rank one", "graded", "ones", "tiny", "huge"]


def true_norm(w: np.ndarray[Any, Any]) -> Any:
    with mpmath.workdps(60):
        values = mpmath.svd_r(mpmath.matrix(w.tolist()), compute_uv=False)
        return max(values)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**20), shape=st.sampled_from(SHAPES))
def test_norm_bound_is_never_below_the_norm_and_barely_above(kind: str, seed: int, shape: tuple[int, int]) -> None:
    w = weight(kind, shape, seed)
    truth, bound = true_norm(w), norm_bound(w)
    assert bound >= truth
    if kind not in ("tiny", "huge"):  # outside 1e±100 only a coarse bound is claimed
        assert bound <= truth * (1 + max(1e-12, 16 * min(shape) * max(shape) * 2.0**-53))


@pytest.mark.parametrize("kind", ["gaussian", "orthogonal", "rank one", "graded", "ones"])
@given(seed=st.integers(0, 2**20), shape=st.sampled_from(SHAPES), exponent=st.floats(-16, -1))
def test_nothing_false_is_proved(kind: str, seed: int, shape: tuple[int, int], exponent: float) -> None:
    w = weight(kind, shape, seed)
    truth = true_norm(w)
    for c in (float(truth) * (1 - 10.0**exponent), math.nextafter(float(truth), 0.0), float(truth)):
        assert not (proves_norm_at_most(w, c) and c < truth)


def test_a_proof_without_the_shift_would_prove_something_false(monkeypatch: pytest.MonkeyPatch) -> None:
    certify = importlib.import_module("iresnet_ref.certify")  # ir.certify is the function
    monkeypatch.setattr(certify, "gamma", lambda n, u: 0.0)
    monkeypatch.setattr(certify, "_U", 0.0)
    false_proofs = 0
    for seed in range(200):
        w = weight("ones" if seed % 2 else "gaussian", (12, 4), seed) * (1 + seed / 7)
        truth = true_norm(w)
        below = float(truth) if float(truth) < truth else math.nextafter(float(truth), 0.0)
        false_proofs += certify.proves_norm_at_most(w, below) and below < truth
    assert false_proofs > 0  # so the test above can fail


def test_what_cannot_be_proved_says_so() -> None:
    assert norm_bound(np.array([[math.nan]])) == math.inf
    assert norm_bound(np.zeros((3, 2))) == 0.0
    assert not proves_norm_at_most(np.array([[math.inf]]), 1.0)
    g = ir.mlp((2, 4, 2))
    broken = g.with_parameters({**g.parameters(), "0.weight": np.full((4, 2), math.nan)})
    certificate = ir.certify(broken)
    assert not certificate.proved
    assert certificate.bound == math.inf
    assert "dense 2→4" in certificate.reason
    with pytest.raises(ir.NotContractiveError, match=r"proved Lip\(g\) < 1, got inf"):
        ir.invert(ir.ResidualBlock(broken), np.zeros((1, 2)))


@given(seed=st.integers(0, 2**20), shape=st.sampled_from(SHAPES))
def test_absolute_norm_bound(seed: int, shape: tuple[int, int]) -> None:
    w = weight("gaussian", shape, seed)
    assert absolute_norm_bound(w) >= true_norm(np.abs(w)) * (1 - mpmath.mpf(10) ** -40)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(seed=st.integers(0, 2**20), shape=st.sampled_from(SHAPES), c=st.sampled_from([0.3, 0.9, 0.999]))
def test_normalise_is_certified_and_divides_only_when_needed(
    dtype: Any, seed: int, shape: tuple[int, int], c: float
) -> None:
    w = weight("gaussian", shape, seed).astype(dtype)
    scaled = ir.normalise(w, c)
    assert scaled.dtype == w.dtype
    assert norm_bound(scaled) <= c
    if true_norm(w) > c * (1 + 1e-6):
        # it reaches c to the weights' own rounding
        assert true_norm(scaled) >= c * (1 - 64 * min(shape) * np.finfo(dtype).eps)
    assert ir.normalise(scaled, c) is scaled


def test_power_iteration_underestimates_and_converges() -> None:
    from iresnet_ref.operators import Dense

    w = weight("gaussian", (64, 32), 0)
    truth = np.linalg.norm(w, 2)
    estimates = [float(ir.power_iteration(Dense(w), w, steps=k)[0]) for k in (1, 5, 400)]
    assert estimates[0] < estimates[1] <= truth * (1 + 64 * 2.0**-53 * 64)
    assert abs(float(ir.spectral_norm(w)) - truth) <= 2.0**-53 * 64 * truth
    assert estimates[1] < truth * (1 - 1e-4)  # five steps are no bound: what certify is for
    assert estimates[2] >= truth * (1 - 1e-6)
