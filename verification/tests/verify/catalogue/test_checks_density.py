"""The checks of densities: change of variables, total probability, samples."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from iresnet_verify import audit
from iresnet_verify.check.result import CheckResult
from iresnet_verify.mutants.volume import normal, subject
from iresnet_verify.statistics.quadrature import grid, integrate, window
from iresnet_verify.subject.subject import Subject


def one(made: Subject, id: str, *, seed: int = 0, budget: str = "quick") -> CheckResult:
    return audit(made, seed=seed, budget=budget, select=[id]).checks[0]


@pytest.mark.parametrize("kind", ["exact", "roulette, gaussian", "series"])
@pytest.mark.parametrize("d", [1, 2, 5])
def test_correct_densities_pass(kind: str, d: int) -> None:
    report = audit(subject(kind, d=d, seed=d, density="right"), seed=d, budget="quick", select=["density"])
    wrong = [(c.id, c.status, c.message) for c in report.checks if c.status != "passed"]
    assert not [w for w in wrong if "log_prob is random: " not in w[2]], wrong


@pytest.mark.parametrize("kind", ["exact", "roulette, gaussian"])
@pytest.mark.parametrize("mistake", ["sign", "missing", "constant"])
def test_change_of_variables_rejects_wrong_densities(kind: str, mistake: str) -> None:
    found = one(subject(kind, density=mistake), "density.change-of-variables")
    assert found.status == "failed", found.message


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("mistake", ["sign", "missing", "constant"])
def test_total_probability_rejects_wrong_densities(mistake: str, d: int) -> None:
    found = one(subject(d=d, density=mistake, seed=3), "density.integrates-to-one", budget="standard")
    assert found.status == "failed", found.message
    assert found.counterexample is not None
    assert found.counterexample.measure is not None


def test_a_density_far_from_the_inputs_and_of_another_scale_integrates_to_one() -> None:
    made = Subject(name="shifted", event_shape=(2,), forward=lambda x: (x - 40.0) * 20.0,
                   log_det=lambda x: torch.full((len(x),), 2 * math.log(20.0)),
                   log_prob=lambda x: normal((x - 40.0) * 20.0) + 2 * math.log(20.0), base_log_prob=normal,
                   inputs=lambda n, rng: 40.0 + 0.1 * rng.standard_normal((n, 2)))
    for budget in ("quick", "standard"):
        assert one(made, "density.integrates-to-one", budget=budget).status == "passed"


def test_samples_that_are_not_finite_or_constant_are_rejected() -> None:
    good = subject(density="right")
    assert one(good, "density.samples").status == "passed"
    assert one(replace(good, sample=lambda n: torch.full((n, 4), math.nan, dtype=torch.float64)), "density.samples").status == "failed"
    assert one(replace(good, sample=lambda n: torch.zeros(n, 4, dtype=torch.float64)), "density.samples").status == "failed"


def test_two_coarse_grids_that_agree_by_chance_end_no_quadrature() -> None:
    chance = {4: 1.0020, 8: 1.0022, 16: 1.0001, 32: 1.0}  # as a flow's eight narrow peaks had it

    def density(x: np.ndarray) -> np.ndarray:
        weights = grid(np.zeros(1), np.ones(1), len(x) // 8)[1]
        return np.full(len(x), chance[len(x) // 8]) / weights.sum()

    total, error, panels, points = integrate(density, np.zeros(1), np.ones(1), 64, 5e-4)
    assert (panels, points) == (32, 8 * (4 + 8 + 16 + 32))
    assert abs(total - 1.0) <= error <= 5e-4
    assert integrate(density, np.zeros(1), np.ones(1), 8, 5e-4)[1] == np.inf, "two grids alone give no error"


def test_quadrature_is_exact_for_known_integrals() -> None:
    def cauchy(x: np.ndarray) -> np.ndarray:
        return 1.0 / (math.pi * (1.0 + x[:, 0] ** 2))

    total, error, _, _ = integrate(cauchy, np.zeros(1), np.ones(1), 256, 1e-12)
    assert total == pytest.approx(1.0, abs=1e-12)
    assert error <= 1e-12

    def mixture(x: np.ndarray) -> np.ndarray:
        far = [np.exp(-0.5 * ((x - m) ** 2).sum(1) / s**2) / (2 * math.pi * s**2) for m, s in ((0.0, 1.0), (8.0, 0.5))]
        return 0.7 * far[0] + 0.3 * far[1]

    rng = np.random.default_rng(0)
    place = window(mixture, rng.normal(size=(64, 2)) * 4, rng)
    assert place is not None
    total, error, _, _ = integrate(mixture, *place, 64, 1e-8)
    assert abs(total - 1.0) <= 4 * error + 1e-12
    assert error < 1e-4
