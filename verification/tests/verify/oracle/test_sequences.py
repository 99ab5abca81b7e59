"""Confidence sequences: they cover, they refute what is wrong, and only what is proved may refute."""

from __future__ import annotations

import math

import numpy as np
import pytest

from iresnet_verify.statistics import confidence_sequences as sequences


def skewed(rng: np.random.Generator, n: int) -> np.ndarray:
    """Mean 0, in [-0.05, 10]: rare large values, as in Russian roulette."""
    return np.where(rng.uniform(size=n) < 0.005, 9.95, -0.05)


def capital(y: list[float], m: float, alpha: float, up: bool) -> float:
    """The largest K⁺ (or K⁻) over time of the docstring, draw by draw."""
    n, total, squares, variance, wealth, largest = len(y), 0.5, 0.25, 0.25, 1.0, 0.0
    for t, v in enumerate(y, start=1):
        bet = math.sqrt(2 * math.log(2 / alpha) / (n * variance))
        wealth *= 1 + min(bet, 0.75 / m) * (v - m) if up else 1 - min(bet, 0.75 / (1 - m)) * (v - m)
        largest = max(largest, wealth)
        total += v
        squares += (v - total / (t + 1)) ** 2
        variance = squares / (t + 1)
    return largest


def test_the_betting_interval_ends_where_a_capital_reaches_2_over_alpha() -> None:
    x, alpha = np.random.default_rng(0).uniform(-1, 3, size=200), 0.01
    low, high = sequences.betting(x, -2.0, 4.0, alpha).last
    y = [(v + 2.0) / 6.0 for v in x]
    step = 2e-3 * (high - low) / 6.0  # the bisection ends within 1e-3 of the distance to the mean
    for edge, up, inwards in ((low, True, step), (high, False, -step)):
        m = (edge + 2.0) / 6.0
        assert capital(y, m, alpha, up) >= 2 / alpha > capital(y, m + inwards, alpha, up)


@pytest.mark.parametrize("looks", [1, 2, 32, 10_000])
def test_the_last_look_is_after_all_draws_and_does_not_depend_on_the_others(looks: int) -> None:
    x = np.random.default_rng(7).uniform(size=500)
    band, other = sequences.betting(x, 0.0, 1.0, 0.05, looks=looks), sequences.betting(x, 0.0, 1.0, 0.05)
    assert band.draws[-1] == 500
    assert band.last == pytest.approx(other.last, abs=2e-3 * (band.high[-1] - band.low[-1]))  # two bisections, 1e-3 each


def test_fewer_draws_than_the_normal_limit_are_never_promised() -> None:
    """No sequence beats z·σ/√n by much; betting stays within 1.6 of it, where the empirical Bernstein band was 2 to 3 wide."""
    x, alpha = np.random.default_rng(6).uniform(-1, 1, size=20_000), 1e-6
    low, high = sequences.betting(x, -1.0, 1.0, alpha).last
    limit = 2 * 4.89 * x.std() / math.sqrt(x.size)  # z of 1e-6, two-sided
    assert limit < high - low < 1.6 * limit


def test_betting_covers_a_skewed_variable_at_every_time() -> None:
    rng, alarms, runs = np.random.default_rng(1), 0, 300
    for _ in range(runs):
        band = sequences.betting(skewed(rng, 1500), -0.05, 10.0, 0.05)
        alarms += bool(((band.low > 0) | (band.high < 0)).any())
    # P(alarm) ≤ 0.05: more than 32 of 300 has probability < 1e-4
    assert alarms <= 32


def test_betting_narrows_and_finds_a_bias() -> None:
    x = np.random.default_rng(2).uniform(-1, 1, size=20_000) + 0.1
    band = sequences.betting(x, -2.0, 2.0, 1e-6)
    low, high = band.last
    assert band.proved
    assert sequences.verdict(low, high, 0.0, 0.05) == "FAIL"
    assert bool((np.diff(band.low) >= 0).all() and (np.diff(band.high) <= 0).all())


def test_draws_outside_the_range_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"expected draws in \[-1, 1\], got"):
        sequences.betting([0.0, 1.5], -1, 1, 0.1)
    with pytest.raises(ValueError, match="lower < upper"):
        sequences.betting([0.0], 1, -1, 0.1)


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
def test_the_verdict_follows_from_the_band(low: float, high: float, tau: float, epsilon: float, expected: str) -> None:
    assert sequences.verdict(low, high, tau, epsilon) == expected


def test_curve_is_plain_data_of_finite_numbers() -> None:
    band = sequences.asymptotic(np.random.default_rng(4).normal(size=500), 1e-3)
    curve = sequences.curve(band, truth=0.0, epsilon=0.1, unit=7)
    assert curve["kind"] == "estimator"
    assert curve["x"][-1] == 3500
    assert all(math.isfinite(v) for v in (*curve["y"], *curve["low"], *curve["high"]))
