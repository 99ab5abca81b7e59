"""Laws of the log-determinant's estimates: exact traces, Hadamard blocks, Arnoldi, variance, requested errors, the inverse."""

from __future__ import annotations

import itertools
import math
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seeds import SEEDS
from tables import (
    CONSTRUCTORS,
    POINTWISE,
    at_50_digits,
    backend,
    digits50,
    each_backend,
    exact,
    exact_preimage,
    inputs,
    product_rounding,
)

import iresnet_ref as ir
from iresnet_ref.arrays import to_host
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.jacobian.factors import Dense, Diagonal
from iresnet_ref.layers import activations
from iresnet_ref.layers.linear import Affine
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_ref.log_determinant import length_distributions
from iresnet_ref.log_determinant.arnoldi.quadrature import arnoldi_logdet, graded_rule, integrated
from iresnet_ref.log_determinant.estimator import Estimator
from iresnet_ref.log_determinant.exact import exact_logdet, log_determinant, signed_logdet
from iresnet_ref.log_determinant.inverse import jacobian_lipschitz
from iresnet_ref.log_determinant.length_distributions import geometric, near_optimal
from iresnet_ref.log_determinant.replicates import exact_in_products
from iresnet_ref.log_determinant.roulette import roulette_logdet
from iresnet_ref.log_determinant.series import exact_traces, products, series_logdet
from iresnet_ref.log_determinant.student import student_quantile
from iresnet_ref.rounding import ELEMENTARY, gamma, logdet_rounding, unit_roundoff

U = 2.0**-53
each_constructor = pytest.mark.parametrize("name", CONSTRUCTORS)
Host = np.ndarray[Any, Any]


def make(name: str, seed: int, key: str = "numpy-f64") -> tuple[ir.ResidualBlock, Any]:
    b = backend(key)
    g = CONSTRUCTORS[name](b.asarray(np.zeros(1)), seed)
    return ir.ResidualBlock(g), inputs(b, g.event_shape[0], seed)


def linear(matrix: Host) -> ir.ResidualBlock:
    return ir.ResidualBlock(ir.Branch((Affine(matrix, np.zeros(len(matrix))),), (len(matrix),)))


def powers(jacobian: Host, last: int) -> Host:
    """tr J, tr J², … per row, shape (last, batch)."""
    power, found = np.eye(jacobian.shape[-1]), []
    for _ in range(last):
        power = power @ jacobian
        found.append(np.trace(power, axis1=-2, axis2=-1))
    return np.array(found)


def all_signs(d: int, batch: int) -> Host:
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=d)))
    return np.broadcast_to(signs[:, None, :], (2**d, batch, d))


@each_constructor
@given(seed=SEEDS)
def test_exact_traces_replace_their_terms_with_weight_one(name: str, seed: int) -> None:
    block, x = make(name, seed)
    d, lipschitz = x.shape[1], block.contraction()
    chain = block.branch.linearize(x)[1]
    traces = exact_traces(chain)
    v = ir.Probes(seed=seed, count=3).draw(x)
    w, moments = v, []
    for _ in range(2):
        w = chain.rmatvec(w)
        moments.append((w * v).sum(-1))
    drawn = length_distributions.table(near_optimal(lipschitz, 1.5), lipschitz)  # P(N ≥ 2) < 1: a stale weight would show
    lengths = ir.Probes(seed=seed, count=3).lengths(len(x), drawn.thresholds, drawn.n_exact_terms)
    allowed = U * 400 * d * (1 + lipschitz / (1 - lipschitz) / min(drawn.survival(2), 1.0))
    for q in range(len(traces) + 1):
        difference = sum((-1) ** k / (k + 1) * (traces[k] - moments[k]) for k in range(q))
        for n in range(max(q, 1), 7):
            change = series_logdet(chain, v, n, traces[:q]) - series_logdet(chain, v, n)
            assert np.abs(change - difference).max() <= allowed
        replaced = sum((-1) ** k / (k + 1) * traces[k] for k in range(q)) - sum(
            (-1) ** k / (k + 1) * moments[k] * (lengths >= k + 1) / drawn.survival(k + 1) for k in range(q)
        )
        change = roulette_logdet(chain, v, lengths, drawn, traces[:q]) - roulette_logdet(chain, v, lengths, drawn)
        assert np.abs(change - replaced).max() <= allowed


@each_constructor
@given(seed=SEEDS, q=st.integers(0, 2), cost=st.sampled_from([1.5, None]))
def test_with_exact_traces_the_expectation_is_that_without(name: str, seed: int, q: int, cost: float | None) -> None:
    block, x = make(name, seed)
    x = x[:2]
    d, lipschitz = x.shape[1], block.contraction()
    chain = block.branch.linearize(x)[1]
    traces, signs = exact_traces(chain, q), all_signs(d, 2)
    assert len(traces) <= q
    drawn = length_distributions.table(near_optimal(lipschitz, cost), lipschitz)
    last = min(12, drawn.last)
    terms = (powers(chain.dense(), last).T * [(-1) ** (k + 1) / k for k in range(1, last + 1)]).T
    rounding = U * 40 * d * 12 * (1 + sum(lipschitz**k / k / drawn.survival(k) for k in range(1, last + 1)))
    # E over all sign vectors of the series at every n, an exact identity
    for n in range(max(1, q), last + 1):
        assert np.abs(series_logdet(chain, signs, n, traces).mean(axis=0) - terms[:n].sum(axis=0)).max() <= rounding
    # E over signs and N: the increments from N = n − 1 to N = n have probability P(N ≥ n); N ≤ q takes the traces alone
    expected, previous = 0.0, 0.0
    for n in range(1, last + 1):
        value = roulette_logdet(chain, signs, np.full((2**d, 2), n), drawn, traces).mean(axis=0)
        expected, previous = expected + drawn.survival(n) * (value - previous), value
    assert np.abs(expected - terms.sum(axis=0)).max() <= rounding


@each_constructor
@given(seed=SEEDS)
def test_a_full_hadamard_block_is_exact(name: str, seed: int) -> None:
    block, x = make(name, seed)
    d, lipschitz = x.shape[1], block.contraction()
    order = 1 << (d - 1).bit_length()
    probes = ir.Probes(seed=seed, stream=1, kind="hadamard", count=2, block=order)
    v = probes.draw(x).reshape(2, order, len(x), d)
    assert (np.abs(v) == 1.0).all()
    assert (np.einsum("cmbi,cmbj->cbij", v, v) == order * np.eye(d)).all()
    traces = powers(block.branch.linearize(x)[1].dense(), 9)
    for n in (1, 2, 5, 9):
        result = ir.logdet(block, x, method=ir.Series(n, probes=probes, exact_traces=0))
        partial = sum((-1) ** (k + 1) / k * traces[k - 1] for k in range(1, n + 1))
        assert np.abs(result.value - partial).max() <= U * 40 * n * d * sum(lipschitz**k / k for k in range(1, n + 1))
    with pytest.raises(ValueError, match=f"at most 2\\^⌈log₂ d⌉ = {order} columns for d = {d}, got {order + 1}"):
        replace(probes, block=order + 1).draw(x)


def test_hadamard_blocks_have_the_variance_of_the_docstring() -> None:
    # d = 3, n = 4, m = 2: all 6 column sets and all 8 signs, against one sign probe
    matrix = np.random.default_rng(0).standard_normal((3, 3))
    hadamard = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=float)[:3]
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=3)))
    single = np.array([s @ matrix @ s for s in signs])
    blocks = []
    for columns in itertools.combinations(range(4), 2):
        v = hadamard[:, columns].T[:, None, :] * signs
        blocks.append(np.einsum("msi,ij,msj->ms", v, matrix, v).mean(axis=0))
        # unbiased for every set of columns: two sums of 9 terms, and means of 8 signs and 2 columns
        assert abs(blocks[-1].mean() - np.trace(matrix)) <= gamma(2 * 9 + 8 + 2, U) * np.abs(matrix).sum()
    # squares of the same, over 6 sets of 8
    rounding = gamma(2 * (2 * 9 + 8 + 2) + 6 * 8, U) * np.abs(matrix).sum() ** 2
    assert abs(np.var(blocks) - (4 - 2) / ((4 - 1) * 2) * np.var(single)) <= rounding
    # and the sets that are drawn are these, all alike: 6000 draws, each frequency within 6.5 sd of 1/6
    drawn = np.sort(ir.Probes(kind="hadamard", count=6000, block=2).columns(4), axis=1)
    assert (drawn[:, 0] < drawn[:, 1]).all()
    for columns in itertools.combinations(range(4), 2):
        assert abs((drawn == columns).all(axis=1).mean() - 1 / 6) <= 6.5 * math.sqrt(1 / 6 * 5 / 6 / 6000)


def test_the_draws_are_columns_of_sylvester_with_signs_of_the_row() -> None:
    probes = ir.Probes(seed=9, kind="hadamard", count=3, block=5)
    v = probes.draw(np.zeros((2, 11))).reshape(3, 5, 2, 11)
    columns = probes.columns(16)
    for c, m in itertools.product(range(3), range(5)):
        sylvester = np.array([(-1.0) ** bin(r & int(columns[c, m])).count("1") for r in range(11)])
        assert (v[c, m] * sylvester == v[c, 0] * [(-1.0) ** bin(r & int(columns[c, 0])).count("1") for r in range(11)]).all()
    assert (v[:, 0, 0] != v[:, 0, 1]).any()  # each row has its own signs
    assert (columns[0] != columns[1]).any()  # each replicate its own columns


@pytest.mark.parametrize("gap", [0.5, 0.1, 1e-3, 1e-6, 1e-12])
def test_the_quadrature_takes_a_few_nodes_for_each_halving_of_the_gap(gap: float) -> None:
    """∫₀¹ σ/(1 + tσ) dt = log(1 + σ) up to σ = −L, where the pole is 1/L − 1 behind the end: rounding of t costs u/(1 − L)."""
    t, w = graded_rule(1.0 - gap, np.zeros(1))
    assert t.size <= 14 * (2 - np.log2(gap))
    for sigma in (gap - 1.0, -0.3, 0.7, 1.0 - gap):
        # t and 1 + tσ are rounded twice each: ∫ 4u|σ|/(1 + tσ)² dt ≤ 4u/(1 − L); a product, a quotient, a weight and the sum besides
        assert abs(np.sum(w * sigma / (1.0 + t * sigma)) - np.log1p(sigma)) <= 4 * U / gap + (t.size + 3) * U * abs(np.log1p(sigma))


@pytest.mark.parametrize("kind", ["rademacher", "gaussian", "hadamard"])
def test_a_part_of_the_replicates_is_a_part_of_the_draws(kind: Any) -> None:
    like, probes = np.zeros((3, 6)), ir.Probes(seed=4, stream=2, kind=kind, count=7, block=3)
    drawn = length_distributions.table(near_optimal(0.9), 0.9)
    part = probes.part(2, 6)
    assert (part.draw(like) == probes.draw(like)[6:18]).all()
    assert (part.lengths(3, drawn.thresholds, drawn.n_exact_terms) == probes.lengths(3, drawn.thresholds, drawn.n_exact_terms)[2:6]).all()


def test_a_run_in_parts_is_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    block, x = make("lipswish 2-16-2 L=.9", 1)
    probes = ir.Probes(seed=1, count=20, kind="hadamard", block=2)
    whole = ir.logdet(block, x, method=ir.Roulette(probes=probes))
    monkeypatch.setattr(sys.modules["iresnet_ref.log_determinant.estimator"], "AT_ONCE", 3 * 2 * x.size)
    parts = ir.logdet(block, x, method=ir.Roulette(probes=probes))
    assert (parts.value == whole.value).all()
    assert (parts.evaluations == whole.evaluations).all()


def test_the_probes_of_a_block_share_their_length_and_count_as_one_replicate() -> None:
    block, x = make("relu 6-6-6 L=.9", 2)
    lipschitz = block.contraction()
    probes = ir.Probes(seed=1, count=9, block=3)
    result = ir.logdet(block, x, method=ir.Roulette(probes=probes))
    drawn = length_distributions.table(near_optimal(lipschitz), lipschitz)
    lengths = probes.lengths(len(x), drawn.thresholds, drawn.n_exact_terms)
    chain = block.branch.linearize(x)[1]
    single = roulette_logdet(chain, probes.draw(x), np.repeat(lengths, 3, axis=0), drawn, exact_traces(chain))
    replicates = single.reshape(9, 3, -1).mean(axis=1)
    # the same estimates, whose 27 are added in another order; the variance squares differences that err by as much
    scale = np.abs(single).max()
    assert np.abs(result.value - replicates.mean(axis=0)).max() <= 2 * gamma(3 + 9, U) * scale
    spread = (result.standard_error * 3.0).min()
    assert np.abs(result.standard_error - replicates.std(axis=0, ddof=1) / 3).max() <= 2 * gamma(2 * (3 + 9) + 9, U) * scale**2 / spread
    assert (result.evaluations == 3 * np.where(lengths > 2, lengths, 0).sum(axis=0)).all()
    assert (result.replicates, result.exact_traces) == (9, 2)
    assert (lengths.std(axis=1) > 0).any()  # N differs from row to row


# --- Arnoldi ---------------------------------------------------------------------------------------------------------


@each_constructor
@given(seed=SEEDS)
def test_arnoldi_is_exact_in_the_full_space_and_within_its_bias_bound(name: str, seed: int) -> None:
    block, x = make(name, seed)
    d, lipschitz = x.shape[1], block.contraction()
    truth = ir.logdet(block, x, method="exact").value
    probes = ir.Probes(seed=seed, kind="hadamard", block=1 << (d - 1).bit_length())  # traces without variance
    rounding = 200 * d * logdet_rounding(d, U, lipschitz)
    for terms in range(1, d + 1):
        for q in (0, 2):
            result = ir.logdet(block, x, method=ir.Arnoldi(terms, probes=probes, exact_traces=q))
            assert (result.bias_bound > 0.0).all()
            allowed = rounding if terms == d else result.bias_bound + rounding
            assert (np.abs(result.value - truth) <= allowed).all()


@given(seed=SEEDS, steps=st.integers(1, 5))
def test_arnoldi_matches_the_series_to_its_order(seed: int, steps: int) -> None:
    # for J = εA both expansions agree through εᵏ: the difference falls by 2^{k+1} when ε halves
    rng = np.random.default_rng(seed)
    matrix, v = rng.standard_normal((6, 6)), rng.standard_normal((1, 1, 6))
    matrix /= np.linalg.norm(matrix, 2)
    gaps = []
    for epsilon in (0.04, 0.02):
        chain = Chain((Dense(epsilon * matrix),), 1, v[0])
        gaps.append(float(arnoldi_logdet(chain, v, steps, epsilon)[0][0, 0] - series_logdet(chain, v, steps)[0, 0]))
    size = float((v * v).sum())
    # rounding: `steps` products of 6 terms on both sides, Gram–Schmidt twice among at most 6 vectors, and the nodes of one piece
    rounding = gamma(steps * 6 * (2 + 2 * 6) + 14 * 6, U) * 0.04 * size
    assert abs(gaps[0]) <= 2 * size * 0.04 ** (steps + 1) / (steps + 1) / 0.96 + rounding


@pytest.mark.parametrize("matrix", [np.zeros((4, 4)), 0.8 * np.diag([1.0, 0, 0, 0]), 0.7 * np.eye(4), -0.9 * np.ones((4, 4)) / 4])
def test_arnoldi_ends_where_the_krylov_space_does(matrix: Host) -> None:
    probes = ir.Probes(kind="hadamard", block=4)
    result = ir.logdet(linear(matrix), np.ones((2, 4)), method=ir.Arnoldi(4, probes=probes, exact_traces=0))
    # 4 steps of Gram–Schmidt twice among 4 vectors of 4 entries, then 14 nodes for each halving of 1 − L ≥ .1, each of condition 10
    allowed = 4 * gamma(4 * 2 * 4 * 4 + 14 * 5, U) / 0.1
    assert np.abs(result.value - np.linalg.slogdet(np.eye(4) + matrix)[1]).max() <= allowed


def hessenberg(lipschitz: float) -> Host:
    h: Host = np.triu(np.random.default_rng(5).standard_normal((6, 6)), -1)
    return h * (lipschitz / np.linalg.norm(h, 2))


def columns_of(h: Host, asarray: Any) -> list[Any]:
    return [asarray(h[None, None, : min(j + 2, 6), j]) for j in range(6)]


@pytest.mark.parametrize("lipschitz", [0.0, 0.1, 0.9, 0.99, 0.999])
def test_the_small_logarithm_is_that_of_the_eigenvalues(lipschitz: float) -> None:
    h = hessenberg(lipschitz)
    values, vectors = np.linalg.eig(h)
    truth = float((vectors @ np.diag(np.log1p(values)) @ np.linalg.inv(vectors))[0, 0].real)
    size = np.linalg.cond(vectors) / (1.0 - lipschitz)
    # 6 rows of elimination with 3 roundings each and the sum over the nodes; on the other side a product and a solve of order 6
    nodes = graded_rule(lipschitz, np.zeros(1))[0].size
    assert abs(float(integrated(columns_of(h, np.asarray), lipschitz)[0][0, 0]) - truth) <= gamma(6 * 3 + nodes + 6**2, U) * size


@pytest.mark.parametrize("d", [1, 5])
@pytest.mark.parametrize("lipschitz", [0.3, 0.99])
def test_the_bounds_of_the_log_det_are_attained_by_multiples_of_the_identity(d: int, lipschitz: float) -> None:
    eye = np.eye(d)
    scalings = (ir.ResidualBlock(ir.Branch((Affine(sign * lipschitz * eye, np.zeros(d)),), (d,))) for sign in (-1.0, 1.0))
    attained = [float(ir.logdet(block, eye[:1], method="exact").value[0]) for block in scalings]
    assert np.allclose(ir.bounds.logdet_bounds(d, lipschitz), attained, rtol=64 * d * U, atol=0.0)


def test_the_small_logarithm_has_fifty_digits_at_fifty_digits() -> None:
    xp, h = digits50().xp, hessenberg(0.2)
    matrix = digits50().asarray(h)
    total, power = xp.zeros_like(matrix), digits50().asarray(np.eye(6))
    for k in range(1, 75):  # .2⁷⁵ < 1e-52
        power = xp.matmul(power, matrix)
        total = total + power * ((-1.0) ** (k + 1)) / k
    assert float(xp.abs(total[0, 0] - integrated(columns_of(h, digits50().asarray), 0.2)[0][0, 0])) <= 1e-46


# --- variance and laws -----------------------------------------------------------------------------------------------


def variance_by_enumeration(chain: Chain, drawn: length_distributions.Table, d: int, q: int) -> float:
    """Var over all signs and every N of the law as it is drawn."""
    last = drawn.last
    signs, traces = all_signs(d, 1), exact_traces(chain, q)
    grid = np.repeat(np.arange(1, last + 1), 2**d)[:, None]
    values = roulette_logdet(chain, np.tile(signs, (last, 1, 1)), grid, drawn, traces).reshape(last, 2**d)
    chance = np.array([drawn.survival(k) - drawn.survival(k + 1) for k in range(1, last + 1)])
    mean = float(chance @ values.mean(axis=1))
    return float(chance @ ((values - mean) ** 2).mean(axis=1))


@pytest.mark.parametrize("lipschitz", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("q", [0, 1, 2])
def test_the_variance_bound_holds_and_is_attained(lipschitz: float, q: int) -> None:
    rng = np.random.default_rng(7)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    for lengths in (near_optimal(lipschitz), geometric(max(0.5, lipschitz), n_exact_terms=2), near_optimal(lipschitz, 2.5)):
        drawn = length_distributions.table(lengths, lipschitz)
        bound = ir.roulette.roulette_variance_bound(lipschitz, 3, lengths, exact_traces=q)
        for matrix in (turn, np.eye(3), np.tri(3) / np.linalg.norm(np.tri(3), 2)):
            chain = Chain((Dense(lipschitz * matrix),), 1, np.zeros((1, 3)))
            # a square of sums of `last` products of 3 terms, each with a survival and a weight
            assert variance_by_enumeration(chain, drawn, 3, q) <= bound * (1.0 + gamma(2 * drawn.last * (3 + 2), U))
        # −L·I has no variance over the probes, and attains the rest of the bound
        of_probes = 2 * 3 * sum(lipschitz**k / k for k in range(q + 1, drawn.last + 1)) ** 2
        chain = Chain((Dense(-lipschitz * np.eye(3)),), 1, np.zeros((1, 3)))
        assert abs(variance_by_enumeration(chain, drawn, 3, q) + of_probes - bound) <= 1e-9 * bound


@pytest.mark.parametrize("kind", ["rademacher", "gaussian", "hadamard"])
@pytest.mark.parametrize(("d", "block", "q"), [(1, 1, 0), (3, 2, 1), (3, 4, 0), (5, 4, 2)])
def test_the_variance_bound_is_its_formula(kind: Literal["rademacher", "gaussian", "hadamard"], d: int, block: int, q: int) -> None:
    L, lengths = 0.6, geometric(0.5, n_exact_terms=2)
    drawn = length_distributions.table(lengths, L)
    extra = 2.0 * d / block
    of_probes = extra if kind == "gaussian" or d > 1 else 0.0  # v² = 1
    if kind == "hadamard" and d > 1:  # m of n columns, drawn without replacement
        of_probes = {(3, 2): 2.0 * 3 * (4 - 2) / ((4 - 1) * 2), (3, 4): 0.0, (5, 4): 2.0 * 5 * (8 - 4) / ((8 - 1) * 4)}[d, block]
    b = {k: math.sqrt(d**2 + extra * (kind == "gaussian")) * L**k / k for k in range(q + 1, drawn.last + 1)}
    of_length = math.fsum(
        b[k] * (b[k] + 2.0 * math.fsum(b[j] for j in b if j > k)) * (1.0 / drawn.survival(k) - 1.0) for k in b
    )
    expected = of_length + of_probes * math.fsum(L**k / k for k in b) ** 2
    bound = ir.roulette.roulette_variance_bound(L, d, lengths, kind=kind, block=block, exact_traces=q)
    assert abs(bound - expected) <= 64 * drawn.last * U * expected
    if (kind, block, q) == ("rademacher", 1, 0):
        assert bound == ir.roulette.roulette_variance_bound(L, d, lengths), "the defaults"


def test_the_variance_bound_refuses_what_is_none() -> None:
    assert ir.roulette.roulette_variance_bound(0.0, 1) == 0.0
    for bad in ({"lipschitz": 1.0}, {"lipschitz": -0.1}, {"d": 0}, {"block": 0}, {"exact_traces": -1}):
        given: dict[str, Any] = {"lipschitz": 0.5, "d": 2, "block": 1, "exact_traces": 0} | bad
        shown = re.escape(", ".join(str(v) for v in given.values()))
        with pytest.raises(ValueError, match=rf"^roulette_variance_bound: expected 0 ≤ lipschitz < 1, d ≥ 1, .* got {shown}; try"):
            ir.roulette.roulette_variance_bound(**given)


@pytest.mark.parametrize("lipschitz", [0.0, 0.1, 0.5, 0.9, 0.99, 0.999])
def test_the_default_has_finite_variance_for_every_constant(lipschitz: float) -> None:
    for q, kind in itertools.product((0, 1, 2), ("rademacher", "gaussian")):
        bound = ir.roulette.roulette_variance_bound(lipschitz, 10, exact_traces=q, kind=kind)  # type: ignore[arg-type]
        assert 0.0 <= bound < math.inf
        # per dimension² it stays of the size of log²(1 − L): the law wastes nothing as L → 1
        assert bound <= 100.0 * 4.0 * (1e-3 + math.log1p(-lipschitz) ** 2)
    mean = length_distributions.table(near_optimal(lipschitz), lipschitz).mean
    assert mean >= 1.0 / (1.0 - lipschitz) * (1 - 1e-9)
    smallest = -math.log1p(-lipschitz) / lipschitz if lipschitz else 1.0  # what P(N ≥ 1) = 1 leaves
    assert abs(length_distributions.table(near_optimal(lipschitz, 3.0), lipschitz).mean - max(3.0, smallest)) <= 1e-6


def test_a_law_without_a_tail_ratio_is_never_proved() -> None:
    slow = ir.roulette.LengthDistribution(lambda k: 1.0 / k)
    with pytest.raises(ir.InfiniteVarianceError, match=r"got 0 \(user distribution\).*near_optimal"):
        ir.roulette.roulette_variance_bound(0.5, 3, slow)
    assert ir.roulette.roulette_variance_bound(0.5, 3, ir.roulette.LengthDistribution(lambda k: 1.0 / k, 1.0)) < 10.0


# --- a requested standard error --------------------------------------------------------------------------------------


def test_auto_takes_the_cheaper_way_to_the_standard_error() -> None:
    block, x = ir.ResidualBlock(ir.mlp((200, 200, 200), lipschitz=0.5)), np.ones((2, 200))
    cost = exact_in_products(block.branch.linearize(x)[1])
    assert cost > 48  # above eight replicates of the default law
    loose, tight = (ir.logdet(block, x, method=ir.Auto(ir.Roulette(standard_error=s))) for s in (1.0, 1e-9))
    assert (loose.method, tight.method) == ("roulette", "exact")
    assert loose.replicates == 8
    assert (loose.standard_error <= 1.0).all()
    small = ir.logdet(*make("elu 3-8-8-3 L=.5", 0), method=ir.Auto(ir.Roulette(standard_error=1.0)))
    assert small.method == "exact"


@pytest.mark.parametrize("options", [{}, {"exact_traces": 0}, {"probes": ir.Probes(seed=1, kind="hadamard", block=2)}])
def test_the_number_of_replicates_meets_the_standard_error(options: dict[str, Any]) -> None:
    block, x = make("relu 6-6-6 L=.9", 3)
    for wanted in (0.1, 0.02):
        result = ir.logdet(block, x, ir.Roulette(standard_error=wanted, **options))
        # a plan from 32 skewed replicates: it may be missed by a little, and the result says by how much
        assert (result.standard_error <= 1.3 * wanted).all()
    for method in (ir.Series, ir.Arnoldi):
        result = ir.logdet(block, x, method(4, standard_error=0.05, **options))
        assert (result.standard_error <= 1.3 * 0.05).all()


def test_the_pilot_draws_from_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ir.Probes] = []
    real = Estimator.estimates

    def spy(self: Estimator, probes: ir.Probes, like: Any) -> Any:
        seen.append(probes)
        return real(self, probes, like)

    monkeypatch.setattr(Estimator, "estimates", spy)
    ir.logdet(*make("relu 6-6-6 L=.9", 3), method=ir.Roulette(standard_error=0.05, exact_traces=0))
    pilot, run = seen
    assert pilot.stream != run.stream
    assert (pilot.count, run.seed) == (32, pilot.seed)


def test_an_error_out_of_reach_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a standard error within reach.*try ir\.Exact"):
        ir.logdet(*make("relu 6-6-6 L=.9", 3), method=ir.Roulette(standard_error=1e-9, exact_traces=0))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (lambda: ir.Arnoldi(7), "at most d = 6 terms"),
        (lambda: ir.Arnoldi(0), "Arnoldi: expected terms ≥ 1"),
        (lambda: ir.Roulette(standard_error=0.0), "standard_error > 0"),
        (lambda: ir.Roulette(exact_traces=3), "exact_traces 0, 1 or 2"),
        (lambda: ir.Roulette(0.5), "E\\[N\\] ≥ 1"),
    ],
)
def test_options_that_no_method_has_are_refused(method: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ir.logdet(*make("relu 6-6-6 L=.9", 3), method())


def test_a_number_for_the_lengths_is_their_mean() -> None:
    block, x = make("relu 6-6-6 L=.9", 3)
    one, same = (ir.logdet(block, x, ir.Roulette(lengths)) for lengths in (9, near_optimal(block.contraction(), 9.0)))
    assert (one.value == same.value).all()
    assert (one.evaluations == same.evaluations).all()


def test_bad_probes_are_refused() -> None:
    for options in ({"block": 0}, {"first": -1}, {"count": 2**31, "block": 4}):
        with pytest.raises(ValueError, match="probes: expected"):
            ir.Probes(**options)  # type: ignore[arg-type]


def test_the_result_says_what_was_exact() -> None:
    for name, q in (("linear d=3 L=.9", 2), ("lipswish 2-16-2 L=.9", 2), ("elu 3-8-8-3 L=.5", 1), ("sine 3-7-6-5-3 L=.99", 0)):
        assert ir.logdet(*make(name, 0), method="roulette").exact_traces == q
    conv = ir.ResidualBlock(ir.convnet((1, 4, 4), channels=2))
    assert ir.logdet(conv, np.ones((2, 1, 4, 4)), method="roulette").exact_traces == 0
    series = ir.logdet(*make("lipswish 2-16-2 L=.9", 0), method=ir.Series(2))
    assert (series.standard_error == 0.0).all()  # nothing is left to the probes
    assert (series.evaluations == 0).all()


@each_backend
def test_every_method_keeps_dtype_and_device_and_agrees_across_backends(key: str) -> None:
    block, x = make("lipswish 2-16-2 L=.9", 5, key)
    reference, x64 = make("lipswish 2-16-2 L=.9", 5)
    u = unit_roundoff(x)
    for method in (
        ir.Roulette(probes=ir.Probes(count=9, kind="hadamard", block=2)),
        ir.Arnoldi(2, probes=ir.Probes(count=17)),
        ir.Series(4, probes=ir.Probes(count=9, kind="gaussian")),
    ):
        result, other = ir.logdet(block, x, method), ir.logdet(reference, x64, method)
        for field in ("value", "standard_error", "bias_bound", "skewness"):
            assert getattr(result, field).dtype == x.dtype
            assert ir.arrays.device(getattr(result, field)) == ir.arrays.device(x)
        # The two J differ as far as the arguments of φ″ ≤ ½ do, 16 + 2 roundings of |x| ≤ 90 through a layer of norm 1, and by
        # those of φ′; an estimate of ‖v‖² ≤ 11 moves by ‖v‖²‖δJ‖/(1 − L) = 110‖δJ‖.
        assert np.abs(to_host(result.value).astype(np.float64) - other.value).max() <= 110 * (0.5 * (16 + 2) * 90 + 8 + 16 + 2) * u
        low, high = result.interval()
        assert (to_host(low) <= to_host(high)).all()


# --- intervals -------------------------------------------------------------------------------------------------------


def test_student_quantiles_are_those_of_the_tables() -> None:
    for degrees, quantile in ((1, 12.706), (2, 4.303), (7, 2.365), (15, 2.131), (30, 2.042), (120, 1.980)):
        assert abs(student_quantile(0.975, degrees) - quantile) < 6e-4  # the tables have three decimals


@pytest.mark.parametrize("p", [0.5, 0.501, 0.6, 0.75, 0.9, 0.999])
def test_student_quantiles_of_one_and_two_degrees_are_known(p: float) -> None:
    one, two = math.tan(math.pi * (p - 0.5)), (2.0 * p - 1.0) * math.sqrt(0.5 / (p * (1.0 - p)))
    # P(T ≤ t) is an elementary function: a quantile has its rounding over the density. Bisection stops at 2⁻⁶⁰ of its interval; the
    # closed forms take a sum or product, a quotient, a root or tangent and a product.
    for degrees, quantile in ((1, one), (2, two)):
        density = (1.0 + quantile**2 / degrees) ** (-(degrees + 1) / 2) / 4.0
        assert abs(student_quantile(p, degrees) - quantile) <= ELEMENTARY * U / density + 4 * U * (1.0 + quantile)


def test_an_interval_without_randomness_is_the_bias_bound() -> None:
    block, x = make("lipswish 2-16-2 L=.9", 0)
    low, high = ir.logdet(block, x, method="exact").interval()
    assert (low == high).all()
    series = ir.logdet(block, x, method=ir.Series(2))
    low, high = series.interval()
    truth = ir.logdet(block, x, method="exact").value
    assert ((low <= truth) & (truth <= high)).all()
    few = ir.logdet(block, x, method=ir.Roulette(probes=ir.Probes(count=7)))
    assert np.isnan(few.interval()[0]).all()
    with pytest.raises(ValueError, match="0 < level < 1"):
        few.interval(1.0)


# --- the inverse -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rtol", [None, 1e-3])
@pytest.mark.parametrize("name", ["elu 3-8-8-3 L=.5", "softplus 4-9-5-4 L=.9", "relu 6-6-6 L=.9", "tanh 5-4-5 L=.97 narrow"])
@settings(max_examples=2)
@given(seed=SEEDS)
def test_logdet_of_the_inverse_belongs_to_the_preimage(name: str, seed: int, rtol: float | None) -> None:
    block, y = make(name, seed)
    d, lipschitz = y.shape[1], block.contraction()
    back = ir.logdet_of_inverse(block, y, rtol=rtol, throw=False, method="exact")
    high = at_50_digits(block.branch)
    truth = exact_logdet(high.linearize(exact_preimage(block.branch, y))[1])
    gap = np.abs(to_host(exact(back.value) + truth))
    # kinks aside, the error of the value is that of x̂ and the rounding of the exact log-determinant and of its J
    rounding = to_host(ir.bounds.logdet_error_bound(block, back.inverse.x))
    assert (gap <= to_host(back.displacement_bound) + rounding).all()
    closer = ir.invert(block, y, rtol=1e-9, throw=False)
    apart = np.linalg.norm(to_host(back.inverse.x) - to_host(closer.x), axis=-1)
    assert (apart <= to_host(back.inverse.error_bound) + to_host(closer.error_bound)).all()
    slope = 2 * d * math.log((1 + lipschitz) / (1 - lipschitz)) / 2
    assert (to_host(back.displacement_bound) <= slope * (1 + 1e-12)).all()
    if name.startswith("relu"):
        assert (to_host(back.displacement_bound) > 0.1).all()  # φ′ jumps: no bound from ε
    elif rtol is None and name in POINTWISE:
        assert (to_host(back.displacement_bound) < 1e-3 * (1 + np.linalg.norm(to_host(y), axis=-1))).all()


@each_constructor
@given(seed=SEEDS)
def test_the_jacobian_moves_no_faster_than_its_lipschitz_constant(name: str, seed: int) -> None:
    block, x = make(name, seed)
    chain = block.branch.linearize(x)[1]
    slope = jacobian_lipschitz(block, chain)
    assert math.isinf(slope) == (name.startswith("relu") or name not in POINTWISE)
    for step in (1e-3, 0.1, 3.0):
        move = step * np.random.default_rng(seed).standard_normal(x.shape)
        change = np.linalg.norm(block.branch.linearize(x + move)[1].dense() - chain.dense(), ord=2, axis=(1, 2))
        # two products of the factors, each off by its rounding and that of its slopes; the norms are sums of d squares
        rounding = 2 * product_rounding(block.branch, 1, x.shape[1], U) + 2 * ELEMENTARY * U
        assert (change <= slope * np.linalg.norm(move, axis=1) * (1 + gamma(x.shape[1] + 8, U)) + rounding).all()


@pytest.mark.parametrize("b", [0.5, 2.0])
def test_the_constant_of_the_jacobian_is_that_of_one_sine(b: float) -> None:
    # g = .2 sin(bx): g″ = −.2b² sin(bx)
    sine = Pointwise(activations.get("sine"))
    layers = (Affine(np.array([[b]]), np.zeros(1)), sine, Affine(np.array([[0.2]]), np.zeros(1)))
    block = ir.ResidualBlock(ir.Branch(layers, (1,)))
    slope = jacobian_lipschitz(block, block.branch.linearize(np.zeros((1, 1)))[1])
    # ‖W‖₂ of 1 × 1 is proved with a slack of 8·64u at most (n²u, n ≥ 8), once for each weight and each power of b
    assert 0.2 * b * b * (1 - 4 * U) <= slope <= 0.2 * b * b * (1 + 3 * 8 * 64 * U)


def test_options_reach_the_logdet_of_the_inverse() -> None:
    block, y = make("lipswish 2-16-2 L=.9", 0)
    back = ir.logdet_of_inverse(block, y, method=ir.Roulette(probes=ir.Probes(seed=3, count=16)))
    forward = ir.logdet(block, back.inverse.x, method=ir.Roulette(probes=ir.Probes(seed=3, count=16)))
    assert (back.value == -forward.value).all()
    (low, high), (low2, high2) = back.interval(), forward.interval()
    # the value and its widths, added in another order
    assert np.abs(low + high2).max() <= 4 * U * np.abs([low2, high2]).max()
    assert np.abs(high + low2).max() <= 4 * U * np.abs([low2, high2]).max()
    with pytest.raises(ir.ConvergenceError, match="rounding floor"):
        ir.logdet_of_inverse(block, y, rtol=1e-19)
    with pytest.raises(ir.ShapeError, match="expected shape"):
        ir.logdet_of_inverse(block, y[:, :1])


@pytest.mark.parametrize("rows", [3, 5])  # of 8, at a time: three chunks, two chunks
@pytest.mark.parametrize("key", ["numpy-f64", "strict-device2-f64", "torch-f64"])
def test_a_batch_that_no_chunk_divides_gives_each_row_its_value(key: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["iresnet_ref.log_determinant.exact"], "CHUNK", rows * 4 * 4)
    b = backend(key)
    block = ir.ResidualBlock(ir.mlp((4, 8, 4), lipschitz=0.9, like=b.asarray(np.zeros(1))))
    x = inputs(b, 4, 0, rows=8)
    whole = to_host(ir.logdet(block, x, method="exact").value)
    alone = [float(to_host(ir.logdet(block, x[i : i + 1, :], method="exact").value)[0]) for i in range(8)]
    # Matrices of one row or three: the same products in another order, 8·d·u/(1 − L) each.
    assert np.abs(whole - np.asarray(alone)).max() <= 2 * logdet_rounding(4, 2.0**-53, 0.9)


def test_the_sign_and_the_modulus_are_lapacks_in_whatever_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    w, slopes = rng.standard_normal((2, 4, 4)), rng.standard_normal((8, 4))
    chain = Chain((Dense(w[0]), Diagonal(slopes), Dense(w[1])), 8, slopes)
    matrices = np.eye(4) + chain.dense()
    truth = np.linalg.slogdet(matrices)
    assert set(truth[0]) == {-1.0, 1.0}
    for rows in (1, 3, 8):
        monkeypatch.setattr(sys.modules["iresnet_ref.log_determinant.exact"], "CHUNK", rows * 4 * 4)
        sign, value = signed_logdet(chain)
        assert (sign == truth[0]).all()
        # log|det| moves by d·cond times the roundings of the entries, sums of 4 with two products each
        assert (np.abs(value - truth[1]) <= 4 * np.linalg.cond(matrices) * gamma(4 * 4, U)).all()
    assert (log_determinant(chain.dense()) == truth[1]).all()


def test_one_large_entry_of_a_tiny_product_does_not_end_the_series() -> None:
    """DK = [[0, .9e-9], [.5e-9, 0]]: ‖DK‖_F is tiny, rows of D with columns of K would not be; log det is −4.5e-19."""
    d, k = np.array([[1e-9, 0.5]]), np.array([[0.0, 0.9], [1e-9, 0.0]])
    chain = Chain((Dense(k), Diagonal(d)), 1, np.ones((1, 2)))
    # two entries of DK, given to u and rounded once; their product, its double and its half; the quotient and the constant here
    assert abs(float(exact_logdet(chain)[0]) / -4.5e-19 - 1.0) <= gamma(2 * 2 + 2 + 2, U)


@pytest.mark.parametrize("pairs", [1, 2], ids=["one diagonal", "several"])
@pytest.mark.parametrize("key", ["numpy-f32", "numpy-f64", "torch-f32", "torch-f64"])
def test_the_logdet_of_a_tiny_jacobian_keeps_its_relative_accuracy(key: str, pairs: int) -> None:
    b = backend(key)
    u = unit_roundoff(b.asarray(np.zeros(1)))
    swap, one = b.asarray(np.array([[0.0, 1.0], [1.0, 0.0]])), b.asarray(np.ones((3, 2)))
    # ‖J‖_F = e√2 in three rows, all below u^(1/3). Of J = e·swap the trace is 0: log det = log(1 − e²) is the second term alone.
    e = u ** (1 / 3) * np.array([0.7, 0.3, 1e-3])
    rows = b.asarray(np.repeat(e[:, None], 2, axis=1))
    chain = Chain((Dense(swap), Diagonal(rows), *(Dense(swap @ swap), Diagonal(one)) * (pairs - 1)), 3, one)
    found, e = to_host(exact_logdet(chain)).astype(np.float64), to_host(rows[:, 0]).astype(np.float64)
    # tr J⁴/4 = e⁴/2 is left out; e is squared, doubled and halved in u.
    assert (np.abs(found - np.log1p(-e * e)) <= (0.5 * e**2 + 8 * u) * e**2).all()


@pytest.mark.parametrize("pairs", [1, 2], ids=["one diagonal", "several"])
def test_the_series_of_a_tiny_jacobian_ends_where_its_remainder_is_seen(pairs: int) -> None:
    e, one = 5e-5, np.ones((1, 2))  # tr J³/3 = 8e-14 here: the first two terms alone are no log-determinant
    chain = Chain((Dense(e * np.eye(2)), Diagonal(one), *(Dense(np.eye(2)), Diagonal(one)) * (pairs - 1)), 1, one)
    assert abs(float(exact_logdet(chain)[0]) - 2 * math.log1p(e)) <= logdet_rounding(2, U, e)


def test_what_the_exact_traces_cover_takes_no_products() -> None:
    assert products(np.array([1, 2, 3, 7]), 2).tolist() == [0, 0, 3, 7]


def test_an_empty_batch_has_an_empty_estimate() -> None:
    F = ir.ResidualBlock(ir.mlp((3, 8, 3), lipschitz=0.9, seed=0))
    assert ir.logdet(F, np.zeros((0, 3)), method="roulette").value.shape == (0,)


# ‖W‖ = 1 exactly, as spectral normalisation leaves it: −1 < cos < 1 keeps every eigenvalue of I + J off zero.
def test_a_bound_of_one_leaves_the_exact_determinant() -> None:
    turn = np.asarray([[0.6, -0.8], [0.8, 0.6]])
    F = ir.ResidualBlock(ir.Branch((Affine(turn, np.zeros(2)), Pointwise(activations.get("tanh")), Affine(turn, np.zeros(2))), (2,)))
    assert F.certificate.bound >= 1.0
    x = np.asarray([[0.3, -1.2], [0.0, 0.0]])
    result = ir.logdet(F, x, method="exact")
    jacobian = F.branch.linearize(x)[1].dense()
    assert np.allclose(result.value, np.linalg.slogdet(np.eye(2) + jacobian)[1], rtol=1e-13)
    assert result.method == "exact"
    methods: tuple[Any, ...] = (ir.Series(4), "roulette", "auto")
    for method in methods:
        with pytest.raises(ir.NotContractiveError, match=r"proved Lip\(g\) < 1, got 1"):
            ir.logdet(F, x, method=method)
    with pytest.raises(ir.NotContractiveError, match=r"proved Lip\(g\) < 1, got 1"):
        ir.invert(F, x)


@each_backend
def test_without_contraction_dtype_and_device_are_kept(key: str) -> None:
    b = backend(key)
    weight, x = b.asarray([[0.0, -2.0], [2.0, 0.0]]), b.asarray([[0.3, -1.2], [0.0, 0.0]])  # det(I + J) = 5
    block = ir.ResidualBlock(ir.Branch((Affine(weight, b.asarray([0.0, 1.0])),), (2,)))
    if not hasattr(b.xp, "linalg"):
        with pytest.raises(ir.NotContractiveError, match=r"proved Lip\(g\) < 1, got 2"):
            ir.logdet(block, x, method="exact")
        return
    found = ir.logdet(block, x, method="exact").value
    assert (found.dtype, ir.arrays.device(found)) == (x.dtype, ir.arrays.device(x))
    # one elimination of order 2: a product, a quotient, a sum; two logarithms, added
    assert np.abs(to_host(found) - math.log(5.0)).max() <= gamma(3 + 2 * 2 + 1, unit_roundoff(x)) * math.log(5.0)


def test_without_contraction_a_determinant_of_zero_is_minus_infinity_and_a_negative_one_is_refused() -> None:
    def block(scale: float) -> ir.ResidualBlock:
        return ir.ResidualBlock(ir.Branch((Affine(np.diag([scale, 0.5]), np.zeros(2)),), (2,)))

    assert ir.logdet(block(-1.0), np.ones((1, 2)), method="exact").value[0] == -np.inf
    with pytest.raises(ir.NotContractiveError, match=r"expected det\(I \+ J\) ≥ 0.*got a negative one where the proved bound is 2"):
        ir.logdet(block(-2.0), np.ones((1, 2)), method="exact")
    unproved = ir.ResidualBlock(ir.Branch((Affine(np.diag([np.nan, 0.5]), np.zeros(2)),), (2,)))
    with pytest.raises(ir.NotContractiveError, match="NaN"):
        ir.logdet(unproved, np.ones((1, 2)), method="exact")


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("shape", [(5,), (2, 4, 4)], ids=str)
def test_one_probe_is_worth_what_it_is_worth_among_others(shape: tuple[int, ...], batch: int) -> None:
    """Alone it needs no axis of its own, which a single row of images must not be taken for."""
    x = np.random.default_rng(0).normal(size=(batch, *shape))
    g = ir.mlp((5, 7, 5), like=x) if len(shape) == 1 else ir.convnet(shape, channels=(3,), kernels=(3, 1), like=x)
    chain, v, d = g.jacobian(x), ir.Probes(count=3).draw(x), x[0].size
    among = series_logdet(chain, v, 5)
    for k in range(3):
        alone = series_logdet(chain, v[k : k + 1], 5)
        assert alone.shape == (1, batch)
        # |vᵀJᵏv| ≤ d; five powers of products with at most 27 terms each
        assert (np.abs(alone[0] - among[k]) <= 5 * d * gamma(5 * 2 * 32, U)).all()
