"""Every way of drawing that a published layer uses is seen, read, replaced, and put back."""

# ruff: noqa: NPY002 - the legacy generators are what packages draw from

from __future__ import annotations

import random
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import default_rng, geometric, standard_normal
from torch import randint, randn, randn_like

import iresnet_ref as ir
from iresnet_verify.randomness.distributions import Distribution, poisson
from iresnet_verify.randomness.interception import Interception
from iresnet_verify.randomness.length_tails import series_sum, tail_ratio
from iresnet_verify.randomness.recorder import Draw, keep_draw

X = torch.zeros(3, 2, dtype=torch.float64)
GENERATOR = np.random.default_rng(5)
DISTRIBUTIONS: Any = torch.distributions

# name -> (what draws, family, mean, standard deviation of its distribution)
DRAWS: dict[str, tuple[Any, str, float, float]] = {
    "torch.randn": (lambda: torch.randn(3, 2), "normal", 0, 1),
    "randn bound at import": (lambda: randn(3, 2, dtype=torch.float64), "normal", 0, 1),
    "randn_like bound at import": (lambda: randn_like(X), "normal", 0, 1),
    "torch.normal": (lambda: torch.normal(2.0, 3.0, (3, 2)), "normal", 2, 3),
    "normal_": (lambda: torch.empty(3, 2).normal_(), "normal", 0, 1),
    "rand": (lambda: torch.rand(3, 2), "uniform", 0.5, 12**-0.5),
    "rand_like": (lambda: torch.rand_like(X), "uniform", 0.5, 12**-0.5),
    "uniform_": (lambda: torch.empty(3, 2).uniform_(-1, 1), "uniform", 0, 3**-0.5),
    "randint": (lambda: randint(0, 2, (3, 2)), "two-point", 0.5, 0.5),
    "randint, many values": (lambda: torch.randint(0, 5, (3, 2)), "other", 0, 1),
    "randint_like": (lambda: torch.randint_like(X, 2), "two-point", 0.5, 0.5),
    "bernoulli": (lambda: torch.bernoulli(torch.full((3, 2), 0.5)), "two-point", 0.5, 0.5),
    "bernoulli_": (lambda: torch.empty(3, 2).bernoulli_(0.25), "two-point", 0.25, 0.1875**0.5),
    "random_": (lambda: torch.empty(3, 2).random_(0, 2), "two-point", 0.5, 0.5),
    "Normal": (lambda: DISTRIBUTIONS.Normal(0.0, 1.0).sample((3, 2)), "normal", 0, 1),
    "Bernoulli": (lambda: DISTRIBUTIONS.Bernoulli(0.5).sample((3, 2)), "two-point", 0.5, 0.5),
    "dropout": (lambda: torch.nn.functional.dropout(X + 1), "other", 0, 1),
    "torch Geometric": (lambda: DISTRIBUTIONS.Geometric(0.5).sample((3,)), "length", 0, 1),
    "torch Poisson": (lambda: DISTRIBUTIONS.Poisson(2.0).sample((3,)), "length", 0, 1),
    "np.random.randn": (lambda: np.random.randn(3, 2), "normal", 0, 1),
    "np.random.normal": (lambda: np.random.normal(1.0, 2.0, (3, 2)), "normal", 1, 2),
    "np.random.choice": (lambda: np.random.choice([-1, 1], (3, 2)), "two-point", 0, 1),
    "np.random.choice, skewed": (lambda: np.random.choice([-1, 1], (3, 2), p=[0.2, 0.8]), "other", 0, 1),
    "np.random.randint": (lambda: np.random.randint(0, 2, (3, 2)), "two-point", 0.5, 0.5),
    "np.random.binomial": (lambda: np.random.binomial(1, 0.5, (3, 2)), "two-point", 0.5, 0.5),
    "np.random.geometric": (lambda: np.random.geometric(0.5, 3), "length", 0, 1),
    "np.random.poisson": (lambda: np.random.poisson(2.0, 3), "length", 0, 1),
    "np.random.permutation": (lambda: np.random.permutation(3), "other", 0, 1),
    "default_rng": (lambda: np.random.default_rng(0).standard_normal((3, 2)), "normal", 0, 1),
    "default_rng.integers": (lambda: np.random.default_rng(0).integers(0, 1, (3, 2), endpoint=True), "two-point", 0.5, 0.5),
    "random.random": (lambda: [random.random()], "other", 0, 1),
    "random.gauss": (lambda: random.gauss(0, 1), "other", 0, 1),
    "Probes": (lambda: ir.Probes(seed=1).draw(np.zeros((3, 2))), "two-point", 0, 1),
    "Gaussian Probes": (lambda: ir.Probes(seed=1, kind="gaussian").draw(np.zeros((3, 2))), "normal", 0, 1),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_is_seen_once_with_its_distribution(name: str) -> None:
    draw, family, mean, standard_deviation = DRAWS[name]
    with Interception(keep_draw, SimpleNamespace(f=draw)) as watch:
        draw()
    assert [d.distribution.family for d in watch.draws] == [family]
    distribution = watch.draws[0].distribution
    assert (distribution.mean, distribution.standard_deviation) == pytest.approx((mean, standard_deviation), rel=1e-15)


@pytest.mark.parametrize("name", [n for n, d in DRAWS.items() if d[1] in ("normal", "uniform", "two-point", "length")])
def test_a_draw_is_replaced(name: str) -> None:
    draw = DRAWS[name][0]
    with Interception(lambda d: np.ones(d.shape), SimpleNamespace(f=draw)):
        value = np.asarray(draw())
    assert bool((value == 1).all())


@pytest.mark.parametrize("name", [n for n in DRAWS if "random.random" not in n and "gauss" not in n])
def test_a_draw_that_is_kept_is_the_one_its_seed_gives_and_nothing_stays_patched(name: str) -> None:
    draw = DRAWS[name][0]

    def seeded() -> np.ndarray:
        torch.manual_seed(3)
        np.random.seed(3)
        return np.asarray(draw())

    before = seeded()
    with Interception(keep_draw, SimpleNamespace(f=draw)):
        assert np.array_equal(seeded(), before)
    assert np.array_equal(seeded(), before)
    assert getattr(np.random.randn, "__self__", None) is np.random.mtrand._rand
    assert np.random.default_rng is default_rng


class Holder:
    """Generators held the ways objects hold them."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)
        self.old = np.random.RandomState(1)
        self.make: Any = None

    def attribute(self) -> float:
        return float(self.rng.standard_normal())

    def old_state(self) -> float:
        return float(self.old.randn())

    def at_module_level(self) -> float:
        return float(GENERATOR.standard_normal())

    def bound_at_import(self) -> float:
        return float(standard_normal())

    def length_bound_at_import(self) -> float:
        return float(geometric(0.5))

    def made_inside(self) -> float:
        return float(default_rng(0).standard_normal())


@pytest.mark.parametrize("name", [n for n in vars(Holder) if not n.startswith("_")])
def test_generators_that_a_subject_holds_are_exchanged_and_put_back(name: str) -> None:
    held = Holder()
    rng, old, module_rng = held.rng, held.old, GENERATOR
    with Interception(lambda d: np.ones(d.shape), SimpleNamespace(forward=getattr(held, name))) as watch:
        assert getattr(held, name)() == 1.0
    assert len(watch.draws) == 1
    assert held.rng is rng
    assert held.old is old
    assert GENERATOR is module_rng
    assert getattr(held, name)() != 1.0 or name == "length_bound_at_import"


def test_generators_in_closures_and_partials_are_recorded() -> None:
    rng = np.random.default_rng(2)

    def draw(scale: float) -> float:
        return scale * float(rng.normal())

    with Interception(lambda d: np.ones(d.shape), SimpleNamespace(forward=partial(draw, 2.0))) as watch:
        assert draw(2.0) == 2.0
    assert watch.draws[0].name == "numpy.random.normal"
    assert type(rng) is np.random.Generator


def test_a_subject_may_hold_the_maker_of_generators() -> None:
    """Also an object that is walked after the name which it holds was exchanged: as the backends do."""
    held = Holder()
    held.make = np.random.default_rng

    def draw() -> float:
        return float(held.make(1).standard_normal())

    with Interception(lambda d: np.ones(d.shape), SimpleNamespace(forward=draw)) as watch:
        assert draw() == 1.0
        assert len(watch.draws) == 1
        assert np.random.default_rng(1).standard_normal() == 1.0
    assert held.make is np.random.default_rng
    assert draw() != 1.0


def test_draws_made_while_answering_are_the_answers_own() -> None:
    def answer(draw: Draw) -> Any:
        return np.random.default_rng(3).standard_normal(draw.shape)

    with Interception(answer) as watch:
        got = np.random.default_rng(1).standard_normal(4)
    assert len(watch.draws) == 1
    assert got.tolist() == np.random.default_rng(3).standard_normal(4).tolist()


def test_a_watched_generator_goes_on_where_the_old_one_was() -> None:
    held, plain = Holder(), Holder()
    expected = [plain.attribute() for _ in range(4)]
    got = [held.attribute()]
    with Interception(keep_draw, SimpleNamespace(forward=held.attribute)):
        got += [held.attribute(), held.attribute()]
    assert [*got, held.attribute()] == expected


def test_everything_is_put_back_after_an_error() -> None:
    with pytest.raises(RuntimeError, match="inside"), Interception():
        raise RuntimeError("inside")
    with Interception() as watch:
        torch.randn(1)
    assert len(watch.draws) == 1


def lengths_of(draw: Any) -> Distribution:
    seen: list[Draw] = []

    with Interception(seen.append):
        draw()
    return seen[-1].distribution


@pytest.mark.parametrize(
    ("draw", "pmf"),
    [
        (lambda: np.random.geometric(0.3, 2), lambda k: 0.0 if k < 1 else 0.3 * 0.7 ** (k - 1)),
        (lambda: DISTRIBUTIONS.Geometric(0.3).sample((2,)), lambda k: 0.3 * 0.7**k),
        (lambda: np.random.poisson(1.0, 2), lambda k: float(np.exp(-1.0) / np.prod(np.arange(1.0, k + 1)))),
    ],
)
def test_survival_functions_are_tail_sums_of_the_probabilities(draw: Any, pmf: Any) -> None:
    survival = lengths_of(draw).survival
    assert survival is not None
    for k in range(12):
        assert survival(k) - survival(k + 1) == pytest.approx(pmf(k), rel=1e-6)


def test_the_reference_tells_its_own_distribution() -> None:
    F = ir.ResidualBlock(ir.mlp((3, 6, 3), lipschitz=0.8))
    lengths = ir.roulette.geometric(0.75, n_exact_terms=2)
    distribution = lengths_of(lambda: ir.logdet(F, np.zeros((4, 3)), method=ir.Roulette(lengths)))
    assert distribution.start == 2
    assert distribution.survival is not None
    assert distribution.survival(5) == pytest.approx(0.75**3, rel=1e-15)


def test_tail_ratio_and_series_sum_know_infinite_variance() -> None:
    assert tail_ratio(lambda k: 0.3 ** (k - 1)) == pytest.approx(0.3)
    assert tail_ratio(poisson(3.0).survival or (lambda k: 1.0)) == 0.0
    assert series_sum(0.5, lambda k: 0.6 ** (k - 1), 2) < np.inf
    assert series_sum(0.5, lambda k: 0.4 ** (k - 1), 2) == np.inf
    assert series_sum(0.01, poisson(3.0).survival or (lambda k: 1.0), 2) == np.inf
    # Σ (1/2)^k/k = log 2
    assert series_sum(0.5, lambda k: float(k < 200), 1) == pytest.approx(np.log(2.0), rel=1e-12)
