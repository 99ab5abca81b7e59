"""Arnoldi's value of vᵀlog(I + J)v and the bound from what its Krylov space leaves over, against float64 quadrature with dense solves."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import iresnet_ref as ir
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.jacobian.factors import Dense, Diagonal
from iresnet_ref.layers.linear import Affine
from iresnet_ref.log_determinant.arnoldi import error, quadrature
from iresnet_ref.log_determinant.arnoldi.quadrature import arnoldi_logdet, graded_rule, is_symmetric
from iresnet_ref.log_determinant.bounds import truncation_bound
from iresnet_ref.probes import Probes

Host = np.ndarray[Any, Any]
U = 2.0**-53


def shallow(d: int, lipschitz: float, rng: np.random.Generator, layers: int = 1) -> Chain:
    """Return the Jacobian of an untrained branch with lipschitz slopes in [0, 1]: the product of the norms is `lipschitz`."""
    sizes = [d, *(2 * d,) * layers, d]
    weights = [rng.standard_normal((m, n)) for n, m in itertools.pairwise(sizes)]
    share = lipschitz ** (1.0 / len(weights))
    factors: list[Any] = []
    for w in weights:
        factors += [Dense(w * (share / np.linalg.norm(w, 2))), Diagonal(rng.uniform(0, 1, (1, w.shape[0])))]
    return Chain(tuple(factors[:-1]), 1, weights[0])


def whole(matrix: Host, lipschitz: float) -> Chain:
    return Chain((Dense(matrix * (lipschitz / np.linalg.norm(matrix, 2))),), 1, matrix)


def symmetric(d: int, rng: np.random.Generator, low: float, high: float) -> Host:
    q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    matrix: Host = (q * rng.uniform(low, high, d)) @ q.T
    return (matrix + matrix.T) / 2


def tied(d: int, lipschitz: float, rng: np.random.Generator) -> Chain:
    """Return −WᵀDW, the Jacobian of −Wᵀφ(Wx): symmetric, and recognised."""
    w = rng.standard_normal((2 * d, d))
    w *= (lipschitz**0.5) / np.linalg.norm(w, 2)
    return Chain((Dense(w), Diagonal(rng.uniform(0, 1, (1, 2 * d))), Dense(-w.T)), 1, w)


FAMILY: dict[str, Callable[[int, float, np.random.Generator], Chain]] = {
    "two layers": shallow,
    "three layers": lambda d, c, rng: shallow(d, c, rng, 2),
    "Gaussian": lambda d, c, rng: whole(rng.standard_normal((d, d)), c),
    "orthogonal": lambda d, c, rng: whole(np.linalg.qr(rng.standard_normal((d, d)))[0], c),
    "symmetric": lambda d, c, rng: whole(symmetric(d, rng, -1, 1), c),
    "negative": lambda d, c, rng: whole(symmetric(d, rng, -1, 0), c),
    "tied": tied,
    "rank two": lambda d, c, rng: whole(rng.standard_normal((d, 2)) @ rng.standard_normal((2, d)), c),
    "nilpotent": lambda d, c, rng: whole(np.eye(d, k=1), c),
}


def truth(chain: Chain, v: Host, lipschitz: float) -> tuple[Host, float]:
    """Return ∫₀¹ vᵀJ(I + tJ)⁻¹v dt per probe, and what float64 may be off by: d terms of size ‖v‖²/(1 − L), in every solve."""
    j, d = chain.dense()[0], v.shape[-1]
    nodes, weights = graded_rule(lipschitz, j)
    solved = np.linalg.solve(np.eye(d) + nodes[:, None, None] * j, v[:, 0, :].T)
    values = np.einsum("n,pi,nip->p", weights, v[:, 0, :] @ j, solved)
    return values, 8 * d * U * d / (1 - lipschitz)


def signs(count: int, d: int, rng: np.random.Generator) -> Host:
    return rng.choice([-1.0, 1.0], (count, 1, d))


def compared(kind: str, d: int, lipschitz: float, steps: int, seed: int, count: int = 16) -> tuple[Host, Host, float]:
    """Return (|value − truth|, bound, rounding of the truth)."""
    rng = np.random.default_rng(seed)
    chain, v = FAMILY[kind](d, lipschitz, rng), signs(count, d, rng)
    value, bound = arnoldi_logdet(chain, v, steps, lipschitz)
    exact, rounding = truth(chain, v, lipschitz)
    return np.abs(value[:, 0] - exact), bound[:, 0], rounding


@pytest.mark.parametrize("steps", [1, 2, 5, 12, 20])
@pytest.mark.parametrize("lipschitz", [1e-3, 0.5, 0.97, 0.999])
@pytest.mark.parametrize("kind", FAMILY)
def test_the_bound_holds(kind: str, lipschitz: float, steps: int) -> None:
    gap, bound, rounding = compared(kind, 20, lipschitz, steps, seed=steps)
    assert (gap <= bound + rounding).all()
    assert (bound < 1e3 * 20 / (1 - lipschitz)).all()


@pytest.mark.thorough
def test_the_bound_holds_for_a_hundred_thousand_values_above_rounding() -> None:
    above = 0
    for seed in range(100):
        for kind in FAMILY:
            for lipschitz in (0.3, 0.9, 0.97, 0.995):
                gap, bound, rounding = compared(kind, 24, lipschitz, 2 + (3 * seed + len(kind)) % 12, seed, 96)
                assert (gap <= bound + rounding).all(), (seed, kind, lipschitz)
                above += int((gap > 10 * rounding).sum())
    assert above >= 100_000


@pytest.mark.parametrize("lipschitz", [0.9, 0.97])
def test_the_bound_is_near_the_error_of_mlp_jacobians(lipschitz: float) -> None:
    """At most 50 times it, summed over probes above rounding; and 1e-8 nats of vᵀlog(I + J)v at ten products of 64 dimensions."""
    for kind, most in (("two layers", 50), ("three layers", 50), ("tied", 50)):
        for steps in (4, 6, 8, 10):
            gap, bound, rounding = compared(kind, 64, lipschitz, steps, seed=0)
            if np.median(gap) > 100 * rounding:
                assert bound.sum() <= most * gap.sum()
    for seed in range(3):
        g = ir.mlp((64, 128, 64), activation="lipswish", lipschitz=lipschitz, seed=seed)
        x = np.random.default_rng(seed).standard_normal((4, 64))
        chain, v = g.jacobian(x), Probes(seed=seed, count=8).draw(x)
        assert (arnoldi_logdet(chain, v, 10, lipschitz)[1] <= 1e-8).all()


@pytest.mark.parametrize("kind", ["symmetric", "negative", "tied"])
def test_of_a_symmetric_jacobian_the_residual_enters_twice(kind: str) -> None:
    chain = FAMILY[kind](32, 0.9, np.random.default_rng(0))
    assert is_symmetric(chain)
    gap, bound, rounding = compared(kind, 32, 0.9, 3 if kind == "tied" else 12, seed=0)
    assert np.median(gap) > 10 * rounding
    assert bound.sum() <= 100 * gap.sum()
    # one number moved by a roundoff, and J is not symmetric
    first = chain.factors[0]
    assert isinstance(first, Dense)
    moved = first.weight.copy()
    moved[3, 1] = np.nextafter(moved[3, 1], 2.0)
    assert not is_symmetric(replace(chain, factors=(Dense(moved), *chain.factors[1:])))


def test_the_bias_bound_is_that_of_the_probes() -> None:
    g = ir.mlp((24, 48, 24), activation="elu", lipschitz=0.9)
    block, x = ir.ResidualBlock(g), np.random.default_rng(0).standard_normal((3, 24))
    probes = Probes(count=8, seed=3)
    for q in (0, 2):
        result = ir.logdet(block, x, ir.Arnoldi(6, probes=probes, exact_traces=q))
        assert (result.bias_bound < 1e-3 * truncation_bound(48, 0.9, 6)).all()
        chain, v = g.jacobian(x), probes.draw(x)
        for row in range(3):
            exact, rounding = truth(chain.take(np.array([row])), v[:, row : row + 1], 0.9)
            if q:  # the same with tr J, tr J² in place of the terms of the probes
                j, w = chain.dense()[row], v[:, row]
                exact = exact - np.einsum("pi,ij,pj->p", w, j - j @ j / 2, w) + np.trace(j - j @ j / 2)
            assert abs(result.value[row] - exact.mean()) <= result.bias_bound[row] + 2 * rounding


def test_automatic_takes_arnoldi_where_its_bound_meets_the_request() -> None:
    x = np.random.default_rng(0).standard_normal((2, 300))
    near = ir.ResidualBlock(ir.mlp((300, 300, 300), activation="elu", lipschitz=0.97))
    method = ir.Auto(ir.Roulette(standard_error=0.05))
    found = ir.logdet(near, x, method)
    exact = ir.logdet(near, x, "exact").value
    assert found.method == "arnoldi"
    assert (found.bias_bound <= 0.05 / 8).all()
    assert (found.standard_error <= 1.3 * 0.05).all()
    assert (np.abs(found.value - exact) <= 8 * found.standard_error + found.bias_bound).all()
    # eigenvalues that fill a circle: no short Krylov space knows log(I + J)
    q = np.linalg.qr(np.random.default_rng(1).standard_normal((300, 300)))[0]
    far = ir.ResidualBlock(ir.Branch((Affine(0.97 * q, np.zeros(300)),), (300,)))
    assert ir.logdet(far, x, ir.Auto(ir.Roulette(standard_error=2.0))).method != "arnoldi"
    assert ir.logdet(near, x, ir.Auto(ir.Roulette(12.0, standard_error=1.0))).method != "arnoldi"  # lengths that were asked for


# ── broken bounds are rejected ────────────────────────────────────────────────────────────────────────────────────────


def test_what_the_space_leaves_over_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = error._pieces
    monkeypatch.setattr(error, "_pieces", lambda k, c: (pieces(k, c)[0], *(0.01 * w for w in pieces(k, c)[1:])))
    for kind in ("two layers", "tied"):
        gap, bound, rounding = compared(kind, 20, 0.9, 5, seed=5)
        assert not (gap <= bound + rounding).all()


@pytest.mark.parametrize("spoil", ["basis", "entries"])
def test_the_process_is_measured_and_not_trusted(spoil: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that went wrong by 1e-6 has a bound that says so, where what rounding leaves would be 1e-12."""
    process = quadrature.krylov

    def spoilt(chain: Chain, v: Any, steps: int) -> Any:
        space = process(chain, v, steps)
        columns = list(space.columns)
        if spoil == "entries":
            columns[2] = columns[2] * (1 + 1e-6)
            size = 1e-6 * np.sqrt((columns[2] ** 2).sum(axis=-1))
            return replace(space, columns=columns, residual=space.residual + size, moments=space.moments + size * space.length)
        return replace(space, skew=space.skew + 1e-6, residual=space.residual + 1e-6)

    monkeypatch.setattr(quadrature, "krylov", spoilt)
    gap, bound, rounding = compared("two layers", 20, 0.9, 16, seed=0)
    assert (gap <= bound + rounding).all()
    assert (bound > 1e-8).all()
    assert (bound < 1e-2).all()
    monkeypatch.setattr(error, "room", lambda c: c)  # and ‖H‖ ≤ M is asked for
    monkeypatch.setattr(quadrature, "room", lambda c: c)
    assert np.isinf(compared("orthogonal", 20, 0.97, 16, seed=0)[1]).all()
