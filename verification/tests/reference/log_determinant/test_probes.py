"""Probes: the known answer of Philox, exact first and second moments of the construction, laws of the series length."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import mpmath
import numpy as np
import pytest

import iresnet_ref as ir
from iresnet_ref.log_determinant import length_distributions
from iresnet_ref.log_determinant.length_distributions import LengthDistribution, geometric, near_optimal, poisson
from iresnet_ref.probes import philox


def test_philox_known_answers() -> None:
    # Random123's published known answers for philox4x32-10
    assert [int(w) for w in philox((0, 0, 0, 0), 0)] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = 0xFFFFFFFF
    assert [int(w) for w in philox((ones, ones, ones, ones), 2**64 - 1)] == [
        0x408F276D,
        0x41C83B0E,
        0xA20BC7C6,
        0x6D5451FD,
    ]


def test_signs_are_signs_and_uniforms_never_reach_0_or_1() -> None:
    probes = ir.Probes(seed=1, count=3)
    signs = probes.signs(50, 37)
    assert signs.shape == (3, 50, 37)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    # 5550 fair signs: |mean| > 6.5 sd has probability < 1e-10
    assert abs(signs.mean()) < 6.5 / math.sqrt(signs.size)
    uniforms = probes.uniforms(50, 37)
    assert (uniforms * 2.0**24 == 2 * (probes.words(50, 37) >> 9) + 1).all(), "the 23 highest bits, in the middle of their cell"
    assert uniforms.min() > 0.0
    assert uniforms.max() < 1.0
    assert (uniforms.astype(np.float32) == uniforms).all()


@pytest.mark.parametrize("n", [1, 31, 32, 33, 64, 65])
def test_signs_are_the_bits_of_the_words_lowest_first(n: int) -> None:
    probes = ir.Probes(seed=6, count=2)
    words = probes.words(3, 3)  # 96 bits a row, more than any n here
    bits = [[[int(words[p, row, j // 32]) >> (j % 32) & 1 for j in range(n)] for row in range(3)] for p in range(2)]
    assert probes.signs(3, n).tolist() == (1.0 - 2.0 * np.array(bits)).tolist()


def test_words_are_the_generators_at_row_probe_stream_and_block() -> None:
    probes = ir.Probes(seed=2**40 + 7, stream=9, count=2, block=2, first=3)
    found = probes.words(3, 6).tolist()
    for p, row in itertools.product(range(4), range(3)):
        blocks = [philox((row, 6 + p, 9, block), 2**40 + 7) for block in range(2)]
        assert found[p][row] == [int(word) for block in blocks for word in block][:6]


def test_gaussians_are_box_and_mullers_of_the_words() -> None:
    probes = ir.Probes(seed=8, kind="gaussian", count=2)
    found, words = probes.gaussians(3, 5), probes.words(3, 12).tolist()
    for p, row, j in np.ndindex(found.shape):
        w = words[p][row][4 * (j // 2) :]
        radius, angle = (w[0] * 2**32 + w[1] + 0.5) / 2**64, math.tau * ((w[2] * 2**32 + w[3]) / 2**64)
        wave = math.sin(angle) if j % 2 else math.cos(angle)
        # A radius near 1 loses its logarithm's digits, an angle up to 2π some of the wave's: 8 u of the largest each.
        r = math.sqrt(-2 * math.log(radius))
        assert abs(found[p, row, j] - r * wave) <= 2.0**-50 * (r + 1 / r)


def test_lengths_count_the_thresholds_above_a_64_bit_draw() -> None:
    probes = ir.Probes(seed=4, stream=2, count=2, first=5)
    for replicate, row in itertools.product(range(2), range(3)):
        high, low, _, _ = (int(word) for word in philox((row, 5 + replicate, 2, 2**32 - 1), 4))
        draw = high << 32 | low
        thresholds = np.array([2**64 - 1, draw + 1, draw, draw - 1, 0], dtype=np.uint64)  # two above the draw
        assert probes.lengths(3, thresholds, 4)[replicate, row] == 4 + 2


def test_probes_that_the_counter_cannot_number_are_refused() -> None:
    for good in ({"seed": 2**64 - 1}, {"stream": 2**32 - 1}, {"first": 2**32 - 6, "count": 6}, {"first": 2**30 - 1, "block": 4}):
        assert ir.Probes(**good)
    for bad in ({"seed": 2**64}, {"seed": -1}, {"stream": 2**32}, {"stream": -1}, {"count": 0}, {"block": 0}):
        with pytest.raises(ValueError, match=r"^probes: expected count ≥ 1, block ≥ 1, 0 ≤ seed < 2\*\*64 and 0 ≤ stream < 2\*\*32, got"):
            ir.Probes(**bad)
    for bad in ({"first": -1}, {"first": 2**32 - 5, "count": 6}, {"first": 2**30, "block": 4}):
        with pytest.raises(ValueError, match=r"at most 2\*\*32 probes of a stream, got .*; try another stream$"):
            ir.Probes(**bad)


def test_another_stream_is_refused_and_taken_as_at_the_start() -> None:
    @dataclass(frozen=True, slots=True)
    class Slotted(ir.Probes):
        pass

    assert Slotted(seed=1).on_stream(3).stream == 3
    assert ir.Series(2, probes=Slotted(seed=1)).after_streams(3).probes.stream == 3
    for stream in ("3", 1.5, True):
        with pytest.raises(ir.DTypeError, match="on_stream: stream: expected an integer"):
            ir.Probes().on_stream(stream)  # type: ignore[arg-type]


def test_streams_rows_and_probes_differ() -> None:
    a = ir.Probes(seed=1, count=2).signs(3, 200)
    assert (a[0] != a[1]).any()
    assert (a[0, 0] != a[0, 1]).any()
    assert (a != ir.Probes(seed=1, count=2).on_stream(1).signs(3, 200)).any()
    assert (a != ir.Probes(seed=2, count=2).signs(3, 200)).any()


def test_global_random_state_is_untouched() -> None:
    before = np.random.get_state()[1].tolist()  # noqa: NPY002  the legacy state is what must stay
    ir.Probes(kind="gaussian").gaussians(4, 5)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_columns_are_ordered_by_64_bits_of_the_generator() -> None:
    probes = ir.Probes(seed=11, stream=5, kind="hadamard", count=3, block=4, first=2)
    for i, row in enumerate(probes.columns(8)):
        keys = []
        for block in range(4):  # two keys from the four words of a counter
            w = [int(word) for word in philox((np.uint32(2**32 - 1), np.uint32(2 + i), np.uint32(5), np.uint32(block)), 11)]
            keys += [w[0] << 32 | w[1], w[2] << 32 | w[3]]
        assert row.tolist() == sorted(range(8), key=keys.__getitem__)[:4]


def test_gaussians_have_the_moments_of_the_normal_law() -> None:
    z = ir.Probes(seed=5, kind="gaussian", count=4).gaussians(500, 25).reshape(-1)
    n = z.size  # 50,000: each bound is 6.5 standard deviations of the moment, false alarm < 1e-10
    for power, moment, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        assert abs((z**power).mean() - moment) < 6.5 * math.sqrt(variance / n)


@pytest.mark.parametrize(
    "distribution", [near_optimal(0.9), geometric(0.85, n_exact_terms=3), poisson(2.0)], ids=lambda d: d.name
)
def test_lengths_follow_the_table(distribution: LengthDistribution) -> None:
    table = length_distributions.table(distribution, 0.9)
    lengths = ir.Probes(seed=3, count=20).lengths(1000, table.thresholds, table.n_exact_terms).reshape(-1)
    for k in range(1, 20):
        p = table.survival(k)
        assert abs(p - distribution.survival(k)) <= 2.0**-60
        # binomial, 20,000 draws: 6.5 sd plus one count
        assert abs((lengths >= k).mean() - p) <= 6.5 * math.sqrt(p * (1 - p) / lengths.size) + 1 / lengths.size
    assert lengths.min() >= table.n_exact_terms


@pytest.mark.parametrize("mean", [0.3, 1.0, 7.5, 40.0])
@pytest.mark.parametrize("n_exact_terms", [1, 3])
def test_poissons_survival_is_the_sum_of_its_tail(mean: float, n_exact_terms: int) -> None:
    lengths = poisson(mean, n_exact_terms=n_exact_terms)
    with mpmath.workdps(40):
        terms = [mpmath.exp(-mean) * mpmath.mpf(mean) ** i / mpmath.factorial(i) for i in range(400)]
        tails = list(itertools.accumulate(reversed(terms)))[::-1]
    for k in range(1, 120):  # the logarithm of a term is below 700 with an error of 2u of that, and 400 terms are added
        assert math.isclose(lengths.survival(k), float(tails[max(k - n_exact_terms, 0)]), rel_tol=1e-12), k
    assert not lengths.has_finite_variance(0.01)
    assert lengths.has_finite_variance(0.0)  # every term is 0
    assert not lengths.has_finite_variance(1.0)
    assert math.isclose(poisson(mean).survival(2), -math.expm1(-mean), rel_tol=1e-12)


def test_geometrics_survival_and_what_laws_refuse() -> None:
    assert [geometric(0.5, n_exact_terms=2).survival(k) for k in (1, 2, 3, 5)] == [1.0, 1.0, 0.5, 0.125]
    assert [geometric(0.5).survival(k) for k in (1, 2)] == [1.0, 0.5]
    assert (geometric(0.5).tail_ratio, poisson(1.0).tail_ratio, near_optimal(0.7).tail_ratio) == (0.5, 0.0, 0.7)
    assert [lengths.name for lengths in (geometric(0.5, 2), poisson(1.5), near_optimal(0.5), LengthDistribution(lambda k: 0.5**k))] == [
        "geometric(0.5, n_exact_terms=2)", "poisson(1.5, n_exact_terms=1)", "near-optimal(L=0.5, E[N]≥6)", "user distribution",
    ]  # fmt: skip
    for arguments in ((0.0,), (1.0,), (0.5, 0)):
        with pytest.raises(ValueError, match=rf"geometric: expected 0 < q < 1 and n_exact_terms ≥ 1, got q={arguments[0]}"):
            geometric(*arguments)
    for arguments in ((0.0,), (-1.0,), (2.0, 0)):
        with pytest.raises(ValueError, match=rf"poisson: expected mean > 0, at most 200000, and n_exact_terms ≥ 1, got {arguments[0]}"):
            poisson(*arguments)
    with pytest.raises(ValueError, match="poisson: expected mean > 0, at most 200000"):
        poisson(200_001.0)
    assert 0.49 < poisson(200_000.0).survival(200_001) < 0.51  # the longest that is drawn: its median is its mean
    assert near_optimal(0.5, 1.0).survival(1) == 1.0
    with pytest.raises(ValueError, match=r"near_optimal: expected cost = E\[N\] ≥ 1 and at most 100000, got 0.5"):
        near_optimal(0.5, 0.5)


@pytest.mark.parametrize(
    ("lipschitz", "cost"), [(0.5, 200.0), (0.05, 1e4), (0.9, 700.0), (0.0, 50.0), (1.0 - 1e-5, 1e5), (1.0 - 1e-12, 9e4)]
)
def test_any_mean_length_is_reached(lipschitz: float, cost: float) -> None:
    """Also where s = 20¹⁰⁰⁰⁰ leaves the range, and where the longest series ends the sum."""
    lengths = near_optimal(lipschitz, cost)
    drawn = length_distributions.table(lengths, lipschitz)
    assert abs(drawn.mean - cost) <= 1e-9 * cost
    assert drawn.last < length_distributions.LONGEST


@pytest.mark.parametrize(
    "arguments", [(0.9, math.inf), (0.9, math.nan), (0.9, 2e5), (1.0 - 1e-7,), (1.5,), (1.0,), (-0.1,), (math.nan,)]
)
def test_lengths_that_nobody_can_draw_are_refused_at_once(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"near_optimal: expected .* try"):
        near_optimal(*arguments)


def test_a_long_poisson_is_tabulated_once() -> None:
    assert abs(length_distributions.table(poisson(1e5), 0.999999).mean - 1e5 - 1) < 1e-3
    with pytest.raises(ValueError, match="poisson: expected mean > 0, at most"):
        poisson(1e6)


@pytest.mark.parametrize("gap", [1e-4, 1e-7, 1e-12])
@pytest.mark.parametrize("n", [0, 7, 10**6, 10**8])
def test_the_truncation_bound_is_near_the_tail_also_at_one(gap: float, n: int) -> None:
    """Σ_{k>n} Lᵏ/k = −log(1 − L) − Σ_{k≤n} Lᵏ/k = L^{n+1} Φ(L, 1, n + 1); beyond 1e6 terms E₁ bounds the rest, within a fifth."""
    with mpmath.workdps(60):
        L = mpmath.mpf(1.0 - gap)
        m = max(n, 1)  # the terms fall: the tail behind m lies between the integrals from m + 1 and from m
        low, high = (mpmath.e1(-mpmath.log(L) * start) for start in (m + 1, m))
        first = L if n == 0 else mpmath.mpf(0)
        bound = ir.bounds.truncation_bound(1, 1.0 - gap, n)
        assert low + first <= bound * (1 + 1e-12) + 1e-300
        assert bound <= 1.2 * (high + first)


@pytest.mark.parametrize("lipschitz", [0.1, 0.5, 0.9, 0.99])
def test_default_law_has_finite_variance_and_its_cost(lipschitz: float) -> None:
    lengths = near_optimal(lipschitz)
    cost = math.fsum(lengths.survival(k) for k in range(1, 20_000))
    assert cost >= 1 / (1 - lipschitz) * (1 - 1e-6)
    assert lengths.has_finite_variance(lipschitz)
    assert lengths.has_finite_variance(lipschitz, gradient=True)
    # Σ L²ᵏ/(k²P) and Σ L²ᵏ/P converge: the last half of the terms adds nothing
    for power in (2, 0):
        terms = [lipschitz ** (2 * k) / k**power / lengths.survival(k) for k in range(1, 8000) if lengths.survival(k) > 1e-290]
        assert math.fsum(terms[len(terms) // 2 :]) <= 1e-3 * math.fsum(terms)


def test_infinite_variance_is_refused_and_the_remedy_named() -> None:
    block, x = ir.ResidualBlock(ir.mlp((4, 4, 4), lipschitz=0.9, like=np.zeros(1))), np.ones((2, 4))
    lip = block.contraction()
    for lengths in (geometric(0.5), poisson(2.0), ir.roulette.LengthDistribution(lambda k: 0.81 ** (k - 1), lip**2)):
        with pytest.raises(ir.InfiniteVarianceError, match=r"not proved from L = 0\.\d+; try near_optimal"):
            ir.logdet(block, x, method=ir.Roulette(lengths))
        assert np.isfinite(ir.logdet(block, x, method=ir.Roulette(lengths, allow_infinite_variance=True)).value).all()
    at_ratio = geometric(lip**2)
    assert at_ratio.has_finite_variance(lip)
    assert not at_ratio.has_finite_variance(lip, gradient=True)


def test_the_refusal_says_what_was_expected_and_of_what() -> None:
    near = (
        "lengths: expected a tail ratio above L² = 0.36, got 0.3 (geometric(0.3, n_exact_terms=1)): finite variance {}is not proved from "
        "L = 0.6; try near_optimal(0.6) or geometric(0.6), or pass allow_infinite_variance=True"
    )
    for gradient, of_what in ((False, ""), (True, "of the gradient ")):
        with pytest.raises(ir.InfiniteVarianceError) as refused:
            length_distributions.require_finite_variance(geometric(0.3), 0.6, gradient=gradient)
        assert str(refused.value) == near.format(of_what)
    at_ratio = geometric(0.25)
    length_distributions.require_finite_variance(at_ratio, 0.5)
    with pytest.raises(ir.InfiniteVarianceError, match="of the gradient"):
        length_distributions.require_finite_variance(at_ratio, 0.5, gradient=True)
    length_distributions.require_finite_variance(poisson(1.0), 0.0, gradient=True)  # no term at all
    with pytest.raises(ir.DTypeError, match=r"^lengths: expected an ir\.roulette\.LengthDistribution, got float; try ir"):
        length_distributions.require_length_distribution(0.9)


@pytest.mark.parametrize("lipschitz", [0.05, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("n", [0, 1, 10, 200])
def test_the_truncation_bound_is_the_tail_to_rounding(lipschitz: float, n: int) -> None:
    with mpmath.workdps(320):  # .05²⁰¹ is 3e-262
        head = mpmath.fsum(mpmath.mpf(lipschitz) ** k / k for k in range(1, n + 1))
        tail = -mpmath.log1p(-mpmath.mpf(lipschitz)) - head
    # Lᵏ errs by k·u relatively, a sum of positive terms no more than its terms
    assert abs(ir.bounds.truncation_bound(3, lipschitz, n) / (3 * tail) - 1) <= (n + 2 / (1 - lipschitz)) * 2.0**-52
    assert ir.bounds.truncation_bound(3, 0.0, n) == 0.0


def test_standard_error_covers_from_sixteen_replicates() -> None:
    block, x = ir.ResidualBlock(ir.mlp((6, 6, 6), activation="elu", lipschitz=0.9, like=np.zeros(1))), np.ones((1, 6))
    truth = ir.logdet(block, x, method="exact").value[0]
    hits, trials = 0, 400
    x = np.repeat(x, trials, axis=0)  # every row has its own draws: independent trials
    result = ir.logdet(block, x, method=ir.Roulette(probes=ir.Probes(seed=11, count=16)))
    # Student's t with 15 degrees of freedom, 97.5 %: 2.131
    hits = int((np.abs(result.value - truth) <= 2.131 * result.standard_error).sum())
    # nominal .95; if the coverage were .90 or more, fewer than .90 − 6·.015 has probability < 1e-8
    assert hits / trials >= 0.81
    assert np.isnan(ir.logdet(block, x[:2], method=ir.Roulette(probes=ir.Probes(count=7))).standard_error).all()


def test_what_is_no_length_distribution_is_refused() -> None:
    with pytest.raises(ValueError, match="P\\(N ≥ 1\\) = 1"):
        length_distributions.table(LengthDistribution(lambda k: 0.5**k, 0.5), 0.5)
    with pytest.raises(ValueError, match="decrease"):
        length_distributions.table(LengthDistribution(lambda k: 1.0 if k != 2 else 0.5, 0.5), 0.5)
    with pytest.raises(ValueError, match="kind 'rademacher', 'gaussian' or 'hadamard'"):
        ir.Probes(kind="cauchy")  # type: ignore[arg-type]
