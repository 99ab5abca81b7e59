"""Confidence sequences: they cover, they refute what is wrong, and only what is proved may refute."""

from __future__ import annotations

import math

import numpy as np
import pytest

from iresnet_verify.statistics import confidence_sequences as sequences


def skewed(rng: np.random.Generator, n: int) -> np.ndarray:
    """Mean 0, in [-0.05, 10]: rare large values, as in Russian roulette."""
    return np.where(rng.uniform(size=n) < 0.005, 9.95, -0.05)


def test_empirical_bernstein_is_the_formula_of_theorem_2() -> None:
    x, alpha = np.random.default_rng(0).uniform(-1, 3, size=50), 0.01
    band = sequences.empirical_bernstein(x, -2.0, 4.0, alpha)
    y = [(v + 2.0) / 6.0 for v in x]
    low, high, num, den, spent = -2.0, 4.0, 0.0, 0.0, 0.0
    mean_before, variance_before, total, squares = 0.5, 0.25, 0.5, 0.25
    for t, v in enumerate(y, start=1):
        lam = min(math.sqrt(2 * math.log(2 / alpha) / (variance_before * t * math.log(1 + t))), 0.5)
        spent += 4 * (v - mean_before) ** 2 * (-math.log(1 - lam) - lam) / 4
        num, den = num + lam * v, den + lam
        radius = (math.log(2 / alpha) + spent) / den
        low, high = max(low, -2 + 6 * (num / den - radius)), min(high, -2 + 6 * (num / den + radius))
        assert band.low[t - 1] == pytest.approx(low, abs=1e-12)
        assert band.high[t - 1] == pytest.approx(high, abs=1e-12)
        total += v
        mean_before = total / (t + 1)
        squares += (v - mean_before) ** 2
        variance_before = squares / (t + 1)


def test_empirical_bernstein_covers_a_skewed_variable_at_every_time() -> None:
    rng, alarms, runs = np.random.default_rng(1), 0, 300
    for _ in range(runs):
        band = sequences.empirical_bernstein(skewed(rng, 1500), -0.05, 10.0, 0.05)
        alarms += bool(((band.low > 0) | (band.high < 0)).any())
    # P(alarm) ≤ 0.05: more than 32 of 300 has probability < 1e-4
    assert alarms <= 32


def test_empirical_bernstein_narrows_and_finds_a_bias() -> None:
    x = np.random.default_rng(2).uniform(-1, 1, size=20_000) + 0.1
    band = sequences.empirical_bernstein(x, -2.0, 2.0, 1e-6)
    low, high = band.last
    assert band.proved
    assert sequences.verdict(low, high, 0.0, 0.05) == "FAIL"
    assert bool((np.diff(band.low) >= 0).all() and (np.diff(band.high) <= 0).all())


def test_draws_outside_the_range_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"expected draws in \[-1, 1\], got"):
        sequences.empirical_bernstein([0.0, 1.5], -1, 1, 0.1)
    with pytest.raises(ValueError, match="lower < upper"):
        sequences.empirical_bernstein([0.0], 1, -1, 0.1)


def test_asymptotic_sequence_covers_normal_draws_and_may_not_refute_below_a_thousandth() -> None:
    rng, alarms, runs = np.random.default_rng(3), 0, 300
    for _ in range(runs):
        band = sequences.asymptotic(rng.normal(size=800), 0.05)
        alarms += bool(((band.low > 0) | (band.high < 0)).any())
    assert alarms <= 32
    assert not sequences.may_refute(band, 1e-6)
    assert sequences.may_refute(band, 1e-2)
    assert np.isinf(band.high[: sequences.ASYMPTOTIC_START - 1]).all()


@pytest.mark.parametrize(
    ("low", "high", "tau", "epsilon", "expected"),
    [
        (-0.1, 0.1, 0.0, 0.2, "PASS"), (0.01, 0.1, 0.0, 0.2, "FAIL"), (0.01, 0.1, 0.02, 0.2, "PASS"),
        (-0.3, 0.1, 0.0, 0.2, "INCONCLUSIVE"), (-0.5, -0.4, 0.1, 0.2, "FAIL"), (-math.inf, math.inf, 0.0, 1.0, "INCONCLUSIVE"),
        (math.nan, math.nan, 0.0, 1.0, "INCONCLUSIVE"), (0.25, 0.35, 0.2, 0.2, "FAIL"),
    ],
)
def test_verdict(low: float, high: float, tau: float, epsilon: float, expected: str) -> None:
    assert sequences.verdict(low, high, tau, epsilon) == expected


def test_curve_is_plain_data_of_finite_numbers() -> None:
    band = sequences.asymptotic(np.random.default_rng(4).normal(size=500), 1e-3)
    curve = sequences.curve(band, truth=0.0, epsilon=0.1, unit=7)
    assert curve["kind"] == "estimator"
    assert curve["x"][-1] == 3500
    assert all(math.isfinite(v) for v in (*curve["y"], *curve["low"], *curve["high"]))
