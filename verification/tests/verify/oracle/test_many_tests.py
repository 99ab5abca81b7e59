"""Rates and e-values of many audits: every law here is checked exactly, by enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from iresnet_verify.statistics.confidence_sequences import betting, e_value
from iresnet_verify.statistics.many_tests import clopper_pearson, closed_e_bh


def binomial(n: int, p: float) -> list[float]:
    return [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]


@pytest.mark.parametrize("n", [1, 2, 7, 30])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_interval_of_a_rate_covers_whatever_the_rate_is(n: int, level: float) -> None:
    intervals = [clopper_pearson(k, n, level) for k in range(n + 1)]
    for p in np.linspace(0.0, 1.0, 101):
        covered = sum(w for w, (low, high) in zip(binomial(n, float(p)), intervals, strict=True) if low <= p <= high)
        assert covered >= level - 1e-9  # the ends are found to 1e-12 of themselves


def test_the_ends_of_the_interval_are_where_the_tails_are_half_of_what_is_left() -> None:
    low, high = clopper_pearson(3, 20, 0.9)
    assert sum(binomial(20, low)[3:]) == pytest.approx(0.05, rel=1e-9)
    assert sum(binomial(20, high)[:4]) == pytest.approx(0.05, rel=1e-9)
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="expected 0 ≤ failures ≤ trials"):
        clopper_pearson(3, 2)


def by_definition(e: list[float], level: float) -> int:
    """The largest r such that for the r largest every set of hypotheses agrees."""
    order = sorted(range(len(e)), key=lambda i: -e[i])
    sets = [s for k in range(1, len(e) + 1) for s in itertools.combinations(range(len(e)), k)]
    fits = [r for r in range(1, len(e) + 1)
            if all(sum(e[i] for i in s) >= len(s) * len({*order[:r]} & {*s}) / (level * r) * (1 - 1e-12) for s in sets)]
    return max(fits, default=0)


def test_closed_e_bh_is_its_definition_and_finds_all_that_e_bh_finds() -> None:
    rng, more = np.random.default_rng(0), 0
    for _ in range(150):
        m = int(rng.integers(1, 8))
        e = [float(v) for v in rng.choice([0.0, 0.5, 3.0, 8.0, 12.0, 25.0, 60.0], m)]
        found = closed_e_bh(e, 0.2)
        assert len(found) == by_definition(e, 0.2)
        usual = max((r for r in range(1, m + 1) if sorted(e)[-r] >= m / (0.2 * r)), default=0)
        assert set(np.argsort(np.negative(e), kind="stable")[:usual]) <= set(found)
        more += len(found) > usual
    assert more > 5, "it must be seen to find more"


def test_the_expected_share_of_false_discoveries_is_at_most_the_level() -> None:
    """Four hypotheses, three of them true with e-values 0 or 1/p, the extreme law of expectation 1, and jointly dependent."""
    level, p = 0.25, 0.1
    for false_one in (0.0, 4.0, 40.0):
        for shared in (True, False):
            expected = 0.0
            for draws in ([(1, 1, 1), (0, 0, 0)] if shared else itertools.product((0, 1), repeat=3)):
                weight = (p if draws[0] else 1 - p) if shared else math.prod(p if d else 1 - p for d in draws)
                found = closed_e_bh([*(d / p for d in draws), false_one], level)
                expected += weight * len({0, 1, 2} & set(found)) / max(1, len(found))
            assert expected <= level + 1e-12


def test_the_expectation_of_an_e_value_is_one_at_the_mean_and_at_most_one_inside_the_hypothesis() -> None:
    n, q = 9, 0.3
    sequences = list(itertools.product((-1.0, 2.0), repeat=n))
    weights = [math.prod(q if v > 0 else 1 - q for v in s) for s in sequences]
    mean = -1.0 + 3.0 * q

    def expectation(low: float, high: float) -> float:
        return sum(w * e_value(s, -1.0, 2.0, 0.01, low, high) for w, s in zip(weights, sequences, strict=True))

    assert expectation(mean, mean) == pytest.approx(1.0, rel=1e-10)
    assert expectation(mean, mean) <= 1.0, "rounded down"
    assert expectation(mean - 0.2, mean + 0.1) < 1.0
    assert expectation(-5.0, 5.0) <= 1.0
    assert expectation(mean + 0.3, mean + 0.6) > 1.0


def test_an_e_value_is_large_where_the_band_excludes_and_refuses_what_is_no_sample() -> None:
    x = np.random.default_rng(1).uniform(0.0, 1.0, 4000)
    low, high = betting(x, 0.0, 1.0, 1e-6).last
    assert e_value(x, 0.0, 1.0, 1e-6, high + 0.02, 1.0) > 2e5
    assert e_value(x, 0.0, 1.0, 1e-6, low, high) < 20.0
    with pytest.raises(ValueError, match="expected draws in"):
        e_value(2 * x, 0.0, 1.0, 0.1, 0.0, 1.0)
    with pytest.raises(ValueError, match="low ≤ high"):
        e_value(x, 0.0, 1.0, 0.1, 1.0, 0.0)
