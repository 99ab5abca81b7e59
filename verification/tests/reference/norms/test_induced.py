"""Induced norms: closed forms against the vertices they come from, proved bounds never below the truth, branches in ‖·‖₁ and ‖·‖_∞."""

from __future__ import annotations

import itertools
import math
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seeds import SEEDS, for_seeds
from tables import at_50_digits, backend, exact, exact_preimage, inputs

import iresnet_ref as ir
from iresnet_ref.arrays import to_host
from iresnet_ref.norms.induced import induced_norm_bound

EXPONENTS = [1.0, 1.3, 2.0, 3.0, 40.0, math.inf]
PAIRS = sorted({(1.0, q) for q in EXPONENTS} | {(p, math.inf) for p in EXPONENTS} | {(2.0, 2.0)})


def size(x: Any, p: float) -> Any:
    """‖x‖_p in mpmath."""
    entries = [abs(mpmath.mpf(v)) for v in (x if isinstance(x, mpmath.matrix) else np.ravel(x).tolist())]
    if p == math.inf:
        return max(entries)
    return mpmath.fsum(v**p for v in entries) ** (1 / mpmath.mpf(p))


def maximiser(w: Any, p: float, q: float) -> Any:
    """A point of the p-unit ball where ‖Wx‖_q is the norm: a vertex for 1→q, Hölder's equality for p→∞, v₁ for 2→2."""
    if p == 1.0:
        return np.eye(w.shape[1])[max(range(w.shape[1]), key=lambda j: size(w[:, j], q))]
    if q != math.inf:
        return np.linalg.svd(w)[2][0]
    dual = 1.0 if p == math.inf else p / (p - 1.0)
    row = w[max(range(w.shape[0]), key=lambda i: size(w[i], dual))]
    x = np.sign(row) * (np.abs(row) / np.abs(row).max()) ** (dual - 1.0)
    return x / float(size(x, p))


@pytest.mark.parametrize(("p", "q"), PAIRS)
@given(seed=SEEDS, shape=st.sampled_from([(1, 1), (3, 5), (5, 3), (1, 6), (6, 1), (4, 4)]), scale=st.integers(-90, 90))
def test_the_bound_is_attained_and_never_exceeded(p: float, q: float, seed: int, shape: tuple[int, int], scale: int) -> None:
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(shape) * 10.0**scale
    bound = induced_norm_bound(w, p, q)
    with mpmath.workdps(40):
        x = maximiser(w, p, q)
        reached = size(mpmath.matrix(w.tolist()) * mpmath.matrix(x.tolist()), q) / size(x, p)
        assert reached <= bound * (1 + mpmath.mpf(10) ** -38)  # the rounding of `reached`
        assert bound <= reached * (1 + 1e-12)
        for _ in range(5):
            x = rng.standard_normal(shape[1]) * 10.0 ** rng.uniform(-2, 2, shape[1])
            assert size(mpmath.matrix(w.tolist()) * mpmath.matrix(x.tolist()), q) <= bound * size(x, p) * (1 + mpmath.mpf(10) ** -38)


@given(seed=SEEDS, p=st.sampled_from([1.3, 3.0, 40.0]))
def test_the_bound_is_above_the_exact_column_norm(seed: int, p: float) -> None:
    w = np.random.default_rng(seed).standard_normal((5, 4))
    with mpmath.workdps(40):
        assert induced_norm_bound(w, 1.0, p) >= max(size(w[:, j], p) for j in range(4))
        assert induced_norm_bound(w, mpmath.mpf(p), math.inf) >= max(size(w[i], p / (p - mpmath.mpf(1))) for i in range(5))


@pytest.mark.parametrize(("p", "q"), [(2.0, 1.0), (math.inf, 1.0), (math.inf, 2.0), (2.0, 1.5), (3.0, 3.0), (1.5, 2.0)])
def test_what_has_no_closed_form_is_refused(p: float, q: float) -> None:
    with pytest.raises(ValueError, match=r"1→q, p→∞ or 2→2, got .*NP-hard.*try norm=1, 2 or inf"):
        induced_norm_bound(np.eye(2), p, q)


def test_closed_chains_of_proved_norms_are_constant() -> None:
    def proved(p: float, q: float) -> bool:
        try:
            return induced_norm_bound(np.eye(2), p, q) > 0
        except ValueError:
            return False

    for length in (1, 2, 3):
        for chain in itertools.product(EXPONENTS, repeat=length):
            closed = all(proved(p, q) for p, q in zip(chain, (*chain[1:], chain[0]), strict=True))
            assert closed == (len(set(chain)) == 1 and chain[0] in (1.0, 2.0, math.inf))


def test_other_norms_of_events_are_refused() -> None:
    for norm in (0.5, 3.0, math.nan):
        with pytest.raises(ValueError, match=r"norm: expected 1, 2 or inf.*try norm=2"):
            ir.mlp((2, 4, 2), norm=norm)
    with pytest.raises(ValueError, match=r"expected p ≥ 1 and q ≥ 1"):
        induced_norm_bound(np.eye(2), 0.5, 1.0)
    assert induced_norm_bound(np.array([[math.nan]]), 1.0, 1.0) == math.inf
    assert induced_norm_bound(np.zeros((2, 3)), math.inf, math.inf) == 0.0


def steep(norm: float, seed: int, key: str = "numpy-f64") -> ir.Branch:
    """Every row (∞) or column (1) attains the norm, up to a thousandth."""
    b = backend(key)
    d = 5
    g = ir.mlp((d, 8, d), activation="relu", lipschitz=0.9, norm=norm, seed=seed, like=b.asarray(np.zeros(1)))
    p = {k: to_host(v).astype(np.float64) for k, v in g.parameters().items()}
    rng = np.random.default_rng(seed)
    for k in ("0.weight", "2.weight"):
        w = rng.choice([-1.0, 1.0], p[k].shape) + 1e-3 * rng.standard_normal(p[k].shape)
        p[k] = w * (0.94 / induced_norm_bound(w, norm, norm))
    p["0.bias"] = np.abs(p["0.bias"]) + 2.0
    return g.with_parameters({k: b.asarray(v) for k, v in p.items()})


def one_sided(norm: float) -> ir.Branch:
    """g(x) = .9·1x₁ (∞) or .9·e₁(Σxᵢ) (1): Lip .9 in its norm, 1.8 in the 2-norm at d = 4."""
    column = np.zeros((4, 4))
    column[:, 0] = 0.9
    g = ir.mlp((4, 4), norm=norm)
    return g.with_parameters({"0.weight": column if norm == math.inf else column.T.copy(), "0.bias": np.ones(4)})


@pytest.mark.parametrize("norm", [1.0, math.inf])
@pytest.mark.parametrize("method", ["auto", "banach", "anderson", "newton"])
def test_a_branch_that_contracts_in_its_norm_only_is_inverted(norm: float, method: Any) -> None:
    block = ir.ResidualBlock(one_sided(norm))
    assert 0.9 <= block.contraction() < 0.9 * (1 + 1e-14)
    weight = block.branch.parameters()["0.weight"]
    assert np.linalg.norm(weight, 2) > 1.7  # the certificate in the 2-norm proves nothing
    y = inputs(backend("numpy-f64"), 4, 3)
    inverse = ir.invert(block, y, method=method, rtol=1e-12)
    truth = np.linalg.solve(np.eye(4) + weight, (y - 1.0).T).T
    assert (np.linalg.norm(inverse.x - truth, ord=norm, axis=1) <= inverse.error_bound + 1e-13).all()
    assert (inverse.error_bound <= 1e-10 * (1 + np.linalg.norm(truth, ord=norm, axis=1))).all()
    value = ir.logdet(block, y, method="exact").value
    assert np.abs(value - np.linalg.slogdet(np.eye(4) + weight)[1]).max() <= 1e-14


@pytest.mark.parametrize("key", ["numpy-f64", "strict-device1-f32"])
@pytest.mark.parametrize("norm", [1.0, math.inf])
@for_seeds
def test_ball_in_its_norm_contains_the_50_digit_preimage(norm: float, key: str, seed: int) -> None:
    g = steep(norm, seed, key)
    block = ir.ResidualBlock(g)
    y = inputs(backend(key), 5, seed)
    inverse = ir.invert(block, y, rtol=1e-5 if key.endswith("f32") else 1e-12, throw=False)
    gap = np.abs(to_host(exact(inverse.x) - exact_preimage(g, y)))
    assert (np.linalg.norm(gap, ord=norm, axis=1) <= to_host(inverse.error_bound)).all()
    # and Lip(g) in that norm bounds pairs and Jacobians
    x, other = exact(y), exact(y) + exact(inverse.x)
    high = at_50_digits(g)
    moved, change = np.abs(to_host(x - other)), np.abs(to_host(high(x) - high(other)))
    bound = block.certificate.bound
    assert (np.linalg.norm(change, norm, axis=1) <= bound * np.linalg.norm(moved, norm, axis=1) * (1 + 1e-14)).all()
    dense = to_host(high.linearize(x)[1].dense())
    assert (np.linalg.norm(dense, norm, axis=(1, 2)) <= bound * (1 + 1e-14)).all()


@pytest.mark.parametrize("norm", [1.0, math.inf])
@given(seed=SEEDS)
def test_running_error_elsewhere_is_bounded_in_its_norm(norm: float, seed: int) -> None:
    g = steep(norm, seed)
    x = inputs(backend("numpy-f64"), 5, seed)
    other = x * 1.5 - 0.25
    value, e0, growth, drift = g.running_error(x)
    e1 = g.running_error(other)[1]
    assert (np.abs(e1 - e0) <= growth * np.linalg.norm(x - other, norm, axis=1) + drift).all()
    assert (np.linalg.norm(to_host(exact(value) - at_50_digits(g)(exact(x))), norm, axis=1) <= e0).all()
