"""Enumeration gives the exact expectation of what it accepts, and refuses what it cannot enumerate."""

# ruff: noqa: NPY002 - the legacy generators are what packages draw from

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import iresnet_ref as ir
from iresnet_verify.randomness.enumeration import Enumerator, NotEnumerableError, RandomEstimate, hadamard
from iresnet_verify.randomness.injection import injector, length_place, next_prime, probe_place
from iresnet_verify.randomness.series_sums import expect, extrapolated

STAY = 0.7
THRESHOLDS = np.asarray([round(STAY**k * 2.0**64) for k in range(1, 120)], dtype=np.uint64)
GEOMETRIC: Any = torch.distributions.Geometric(torch.tensor(1 - STAY, dtype=torch.float64))


def contraction(d: int, seed: int = 0) -> np.ndarray:
    a = np.random.default_rng(seed).normal(size=(d, d))
    return 0.5 * a / np.linalg.norm(a, 2)


def log_det(d: int) -> float:
    return float(np.linalg.slogdet(np.eye(d) + contraction(d))[1])


def estimate(draw: Callable[[np.ndarray], np.ndarray], d: int, given: Any = None) -> RandomEstimate:
    """A box whose estimate is `draw(x)`, all generators seeded."""

    def evaluate(x: np.ndarray, seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        np.random.seed(seed)
        return draw(x)

    subject: Any = SimpleNamespace(randomness=given, forward=draw)
    return RandomEstimate(evaluate, injector(subject), (d,), 2.0**-53)


def expectation(made: RandomEstimate, d: int) -> float:
    plan = Enumerator(made, np.zeros((2, d)), 1)
    return float(expect(plan, np.zeros((2, d)), target=1e-15).value[0])


def roulette(x: np.ndarray, v: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Σ_{k≤N} (−1)^{k+1} vᵀJᵏv/(k·P(N ≥ k)), v (batch, d), n (batch,) from 1 on."""
    J, w, total = contraction(x.shape[1]), v, np.zeros(len(x))
    for k in range(1, int(np.max(n)) + 1):
        w = w @ J
        total = total + (-1.0) ** (k + 1) / (k * STAY ** (k - 1)) * np.where(n >= k, (w * v).sum(1), 0.0)
    return total


def numpy_lengths(b: int) -> np.ndarray:
    return np.random.geometric(1 - STAY, size=b)


CORRECT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "randn": lambda x: roulette(x, torch.randn(x.shape, dtype=torch.float64).numpy(), numpy_lengths(len(x))),
    "sign(randn)": lambda x: roulette(x, torch.randn_like(torch.tensor(x)).sign().numpy(), numpy_lengths(len(x))),
    "randint": lambda x: roulette(x, 2.0 * torch.randint(0, 2, x.shape).numpy() - 1.0, numpy_lengths(len(x))),
    "rand > ½": lambda x: roulette(x, np.where(torch.rand(x.shape).numpy() > 0.5, 1.0, -1.0), numpy_lengths(len(x))),
    "bernoulli": lambda x: roulette(x, 2 * torch.bernoulli(torch.full(x.shape, 0.5)).numpy() - 1, numpy_lengths(len(x))),
    "numpy choice": lambda x: roulette(x, np.random.choice([-1, 1], size=x.shape), numpy_lengths(len(x))),
    "uniform of variance 1": lambda x: roulette(x, np.random.uniform(-(3**0.5), 3**0.5, size=x.shape), numpy_lengths(len(x))),
    "on the sphere": lambda x: roulette(x, on_sphere(np.random.randn(*x.shape)), numpy_lengths(len(x))),
    "transposed": lambda x: roulette(x, np.random.randn(x.shape[1], len(x)).T, numpy_lengths(len(x))),
    "torch Geometric": lambda x: roulette(
        x, np.random.randn(*x.shape), GEOMETRIC.sample((len(x),)).numpy() + 1),
    "one length per call": lambda x: roulette(x, np.random.randn(*x.shape), np.full(len(x), np.random.geometric(1 - STAY))),
    "three probes, axis first": lambda x: np.mean(
        [roulette(x, v, n) for v, n in zip(np.random.randn(3, *x.shape), np.random.geometric(1 - STAY, (3, len(x))), strict=True)], 0),
    "three probes, axis last": lambda x: np.mean(
        [roulette(x, v, numpy_lengths(len(x))) for v in np.moveaxis(np.random.randn(*x.shape, 3), 2, 0)], 0),
    "three probes, probe-major rows": lambda x: np.mean(
        [roulette(x, v, numpy_lengths(len(x))) for v in np.random.randn(3 * len(x), x.shape[1]).reshape(3, *x.shape)], 0),
    "three probes, row-major rows": lambda x: np.mean(
        [roulette(x, v, numpy_lengths(len(x))) for v in np.moveaxis(np.random.randn(3 * len(x), x.shape[1]).reshape(
            len(x), 3, -1), 1, 0)], 0),
    "two blocks": lambda x: 0.5 * roulette(x, np.random.randn(*x.shape), numpy_lengths(len(x))) + 0.5 * roulette(
        x, np.random.choice([-1.0, 1.0], size=x.shape), numpy_lengths(len(x))),
    "draws that are constants": lambda x: roulette(
        x, np.random.randn(*x.shape), numpy_lengths(len(x))) + 0 * np.random.default_rng(3).uniform(),
}


def on_sphere(v: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return v / np.linalg.norm(v, axis=1, keepdims=True) * v.shape[1] ** 0.5


@pytest.mark.parametrize("name", CORRECT)
@pytest.mark.parametrize("d", [3, 5])
def test_expectation_of_an_unbiased_estimate_is_the_log_det(name: str, d: int) -> None:
    # rounding of some 60 chained terms: a few hundred u
    assert expectation(estimate(CORRECT[name], d), d) == pytest.approx(log_det(d), abs=1e-12)


def test_a_wait_for_the_machine_ends_no_enumeration() -> None:
    def slow(x: np.ndarray) -> np.ndarray:
        time.sleep(0.03)
        return CORRECT["randn"](x)

    made = estimate(slow, 3)
    made.seconds = 1.5  # a tenth of it is spent; the eighty calls wait for 2.4
    started = time.monotonic()
    assert expectation(made, 3) == pytest.approx(log_det(3), abs=1e-12)
    assert time.monotonic() - started > made.seconds


@pytest.mark.parametrize("d", [1, 2, 10, 33, 64])
def test_expectation_is_exact_to_the_published_figure(d: int) -> None:
    """|E − log det(I + J)| ≤ 1e-12·d·Σ|terms|, the terms (−1)^{k+1} tr Jᵏ/k: what docs/calibration.md states for d ≤ 64."""
    J, power, terms = contraction(d), np.eye(d), 0.0
    for k in range(1, 80):
        power = power @ J
        terms += abs(np.trace(power)) / k
    assert abs(expectation(estimate(CORRECT["randn"], d), d) - log_det(d)) <= 1e-12 * d * terms


def test_odd_terms_vanish_and_skewed_signs_are_standardised() -> None:
    J = contraction(4)

    def odd(x: np.ndarray) -> np.ndarray:
        v = np.random.randn(*x.shape)
        return ((v @ J) * v).sum(1) + 3 * v[:, 0] + v[:, 1] ** 3

    assert expectation(estimate(odd, 4), 4) == pytest.approx(np.trace(J), abs=1e-12)

    def skewed(x: np.ndarray) -> np.ndarray:
        v = np.random.binomial(1, 0.25, size=x.shape).astype(float)
        return ((v @ J) * v).sum(1)

    # E[v vᵀ] = p²·11ᵀ + p(1−p)·I: integer draws cannot be standardised, so it is refused and never wrong
    with pytest.raises(NotEnumerableError):
        expectation(estimate(skewed, 4), 4)


def test_the_seed_of_a_recorded_generator_is_no_draw_of_its_own() -> None:
    assert expectation(estimate(probes_of_a_seed, 5), 5) == pytest.approx(log_det(5), abs=1e-13)


def test_a_wrong_weight_moves_the_expectation_by_its_own_term() -> None:
    J = contraction(4)

    def wrong(x: np.ndarray) -> np.ndarray:
        v, n = np.random.randn(*x.shape), numpy_lengths(len(x))
        return roulette(x, v, n) + 1e-6 * np.where(n >= 3, ((v @ J @ J @ J) * v).sum(1), 0.0)

    plan = Enumerator(estimate(wrong, 4), np.zeros((1, 4)), 1)
    found = expect(plan, np.zeros((1, 4)), target=1e-15)
    power = np.trace(np.linalg.matrix_power(J, 3))
    assert found.value[0] - log_det(4) == pytest.approx(1e-6 * STAY**2 * power, rel=1e-5)
    assert found.increments[2][0] == pytest.approx(-np.trace(J @ J) / 2, abs=1e-13)
    assert found.increments[3][0] == pytest.approx(power / 3 + 1e-6 * STAY**2 * power, abs=1e-13)


def qr_probes(x: np.ndarray) -> np.ndarray:
    q = np.linalg.qr(np.random.randn(len(x), x.shape[1], 2))[0]
    return ((contraction(x.shape[1]) @ q) * q).sum((1, 2)) * x.shape[1] / 2


def with_dropout(x: np.ndarray) -> np.ndarray:
    return roulette(x, np.random.randn(*x.shape), numpy_lengths(len(x))) * torch.nn.functional.dropout(torch.ones(1)).item()


def quartic(x: np.ndarray) -> np.ndarray:
    return (np.random.randn(*x.shape) ** 2).sum(1) ** 2


def quartic_in_signs(x: np.ndarray) -> np.ndarray:
    v = np.random.choice([-1.0, 1.0], size=x.shape)
    return ((v @ contraction(x.shape[1])) * v).sum(1) ** 2


def lengths_from_uniforms(x: np.ndarray) -> np.ndarray:
    n = 1 + np.floor(np.log(np.random.rand(len(x))) / np.log(STAY))
    return roulette(x, np.random.randn(*x.shape), n)


def probes_of_other_rows(x: np.ndarray) -> np.ndarray:
    v = np.random.randn(*x.shape)
    return roulette(x, v - v.mean(0), numpy_lengths(len(x)))


def two_distributions(x: np.ndarray) -> np.ndarray:
    return roulette(x, np.random.randn(*x.shape), numpy_lengths(len(x))) + 0 * np.random.poisson(2.0, size=len(x))


def unseen(x: np.ndarray) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(int(torch.initial_seed()))).standard_normal(len(x))


def probes_of_a_seed(x: np.ndarray) -> np.ndarray:
    """The reference's estimate, whose counter-based draws torch's generator seeds: all that comes of the seed is seen."""
    probes = ir.Probes(seed=int(torch.randint(2**62, ())))
    v, n = probes.draw(x)[0], probes.lengths(len(x), THRESHOLDS, 1)[0]
    return roulette(x, v, n)


def probes_of_a_seed_and_more(x: np.ndarray) -> np.ndarray:
    return probes_of_a_seed(x) + float(torch.randint(2**62, ()) < 2**40)


def seeded_by_a_draw(x: np.ndarray) -> np.ndarray:
    return roulette(x, np.random.default_rng(np.random.randint(100)).standard_normal(x.shape), numpy_lengths(len(x)))


def one_uniform_length(uniform: Callable[[], float]) -> Callable[[np.ndarray], np.ndarray]:
    """A right roulette: one length for the call, two in three of which are alike under two seeds."""

    def draw(x: np.ndarray) -> np.ndarray:
        n = 1 + math.floor(math.log(max(uniform(), 1e-300)) / math.log(STAY))
        return roulette(x, np.random.randn(*x.shape), np.full(len(x), n))

    return draw


def coins(x: np.ndarray) -> np.ndarray:
    n = 1
    while random.getrandbits(2):  # three in four
        n += 1
    return roulette(x, np.random.randn(*x.shape), np.full(len(x), n))


def product_of_lengths(x: np.ndarray) -> np.ndarray:
    return roulette(x, np.random.randn(*x.shape), np.maximum(numpy_lengths(len(x)), numpy_lengths(len(x))))


def terms_after_its_length(x: np.ndarray) -> np.ndarray:
    """Σ_{k≥N} up to the largest length of the batch: of a row alone, its last term."""
    n, v = numpy_lengths(len(x)), np.random.randn(*x.shape)
    w, total = v, np.zeros(len(x))
    for k in range(1, int(np.max(n)) + 1):
        w = w @ contraction(x.shape[1])
        total = total + np.where(n <= k, (w * v).sum(1), 0.0) / k
    return total


@pytest.mark.parametrize(
    ("draw", "reason"),
    [
        (terms_after_its_length, "lengths of other rows"),
        (qr_probes, "multiply each other|neither quadratic"), (with_dropout, "draws besides probes"), (quartic, "neither quadratic"),
        (quartic_in_signs, "neither quadratic"), (lengths_from_uniforms, "draws besides probes"),
        (probes_of_other_rows, "other rows"), (two_distributions, "different distributions"), (unseen, "draws besides probes"),
        (product_of_lengths, "additively"), (probes_of_a_seed_and_more, "neither probes nor series lengths vary"),
        (seeded_by_a_draw, "neither probes nor series lengths vary"),
        (one_uniform_length(lambda: torch.rand(()).item()), "vary|change the value"),
        (one_uniform_length(random.random), "vary|change the value"),
        (one_uniform_length(lambda: math.exp(-torch.empty(()).exponential_().item())), "vary|change the value"),
        (one_uniform_length(lambda: int.from_bytes(os.urandom(4)) / 2**32), "change the value"), (coins, "vary|change the value"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_what_cannot_be_enumerated_is_refused_with_its_reason(draw: Callable[[np.ndarray], np.ndarray], reason: str) -> None:
    with pytest.raises(NotEnumerableError, match=reason):
        expectation(estimate(draw, 5), 5)


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8, 10, 64])
def test_hadamard_columns_have_the_identity_as_second_moment(d: int) -> None:
    h = hadamard(d)
    assert np.array_equal(h.T @ h, len(h) * np.eye(d))
    assert len(h) == 2 ** int(np.ceil(np.log2(d)))


def test_the_batch_axis_of_a_draw_is_found() -> None:
    assert probe_place((7, 3), 7, (3,)) is not None
    assert probe_place((2, 7, 3), 7, (3,)) is not None
    assert probe_place((3,), 7, (3,)) is None          # a power iteration's vector
    assert probe_place((1, 3), 7, (3,)) is None        # … of a convolution
    assert probe_place((7, 1, 4, 4), 7, (1, 4, 4)) is not None
    assert probe_place((7, 16), 7, (1, 4, 4)) is not None
    assert length_place((), 7) is None
    assert length_place((7,), 7) is not None
    assert [next_prime(n) for n in (1, 5, 6, 8, 90)] == [5, 5, 7, 11, 97]


def test_extrapolation_bounds_what_is_left_of_a_geometric_series_and_of_its_derivative() -> None:
    for rate in (0.3, 0.7, 0.9):
        for terms in (20, 40):
            for power in (-1, 0, 1):
                sizes = [k**power * rate**k for k in range(1, terms + 1)]
                left = sum(k**power * rate**k for k in range(terms + 1, 2000))
                assert left <= extrapolated(sizes, rate)
    assert extrapolated([1.0] * 10, 0.5) == np.inf
    assert extrapolated([1.0] * 30, 0.5) == np.inf
    assert extrapolated([1.0] + [0.0] * 30, 0.5) == 0.0
