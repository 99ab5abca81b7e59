"""The checks of random log-dets: enumeration decides where draws are seen, sampling elsewhere, and both say what they know."""

from __future__ import annotations

import contextlib
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from seeds import each_with_seeds
from torch import Tensor

import iresnet_ref as ir
from iresnet_verify import audit
from iresnet_verify.check.result import CheckResult
from iresnet_verify.mutants.estimates import MUTANTS
from iresnet_verify.mutants.volume import LOG_DETS, STAY, L, Net, powers, subject
from iresnet_verify.subject.subject import Subject


def one(made: Subject, id: str = "estimator.unbiased", *, seed: int = 0, budget: str = "quick") -> CheckResult:
    return audit(made, seed=seed, budget=budget, select=[id]).checks[0]


@each_with_seeds("kind", LOG_DETS)
def test_correct_estimates_pass(kind: str, seed: int) -> None:
    report = audit(subject(kind, d=3 + 2 * seed, seed=seed), seed=seed, budget="quick", select=["estimator"])
    wrong = [(c.id, c.status, c.message) for c in report.checks if c.status != "passed"]
    reasons = "no series length is drawn|gradient-only|needs standard_error|needs a log-det declared unbiased"
    assert not [w for w in wrong if not re.search(reasons, w[2])], wrong
    coefficients = next(c for c in report.checks if c.id == "estimator.coefficients")
    assert (coefficients.status == "passed") == ("roulette" in kind)
    assert coefficients.status == "skipped" or coefficients.evidence["terms_seen"] >= 8


def test_the_expectation_is_enumerated_to_rounding() -> None:
    found = one(subject("roulette, gaussian", d=6), budget="standard")
    assert found.status == "passed"
    assert abs(found.evidence["bias"]) < 1e-13
    assert "enumeration" in found.oracle


def test_a_bias_of_a_thousandth_is_found_although_no_sample_could() -> None:
    found = one(MUTANTS["estimator/bias-of-a-thousandth"].make(1))
    assert found.evidence["bias"] == pytest.approx(1e-3, rel=1e-6)
    assert found.evidence["real_standard_error"] > 1e-3


def test_a_length_shared_by_the_batch_is_reported() -> None:
    found = one(subject("roulette, shared length"), "estimator.length-per-row")
    assert found.evidence["rows_share_a_length"]
    assert 0 < found.evidence["share_of_variance_common_to_a_batch"] < 1
    assert not one(subject("roulette, gaussian"), "estimator.length-per-row").evidence["rows_share_a_length"]


def reference(law: ir.roulette.LengthDistribution | None, kind: Any = "rademacher", factor: float = 1.0) -> Subject:
    F = ir.ResidualBlock(ir.mlp((5, 9, 5), activation="elu", lipschitz=0.85, seed=3))

    def log_det(x: Any, seed: int = 0) -> Any:
        probes = ir.Probes(seed=seed, kind=kind, count=2)
        return factor * ir.logdet(F, x, method=ir.Roulette(law, probes=probes)).value

    return Subject(name="reference", event_shape=(5,), forward=F, residual=F.branch, inverse=lambda y: ir.invert(F, y, rtol=1e-12).x,
                   log_det=log_det, log_det_is="unbiased", lipschitz=ir.certify(F).bound, framework="numpy")


@pytest.mark.parametrize("law", [None, ir.roulette.geometric(0.9), ir.roulette.geometric(0.8, n_exact_terms=4)])
@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_the_reference_is_decided_by_enumeration_of_its_counter_based_draws(law: ir.roulette.LengthDistribution | None, kind: str) -> None:
    report = audit(reference(law, kind), budget="quick", select=["logdet", "estimator"])
    assert {c.status for c in report.checks} <= {"passed", "skipped"}, [(c.id, c.message) for c in report.checks]
    found = next(c for c in report.checks if c.id == "estimator.unbiased")
    assert "enumeration" in found.oracle
    assert one(reference(law, kind, factor=1.0001)).status == "failed"


# -- randomness given by the subject, with and without the law of the length

Weight = Callable[[int], float]


def right(k: int) -> float:
    return (-1.0) ** (k + 1) / (k * STAY ** (k - 1))


def injected(weight: Weight = right, *, told: bool) -> Subject:
    """Draws come from generators that nothing can watch; `randomness` hands out others, with their law if `told`."""
    net, handed = Net(4, 0), dict[str, Any]()

    def log_det(x: Tensor, seed: int = 0) -> Tensor:
        own = np.random.Generator(np.random.Philox(seed))
        draw = handed.get("draw")
        if draw is None:
            probes, lengths = own.choice([-1.0, 1.0], size=tuple(x.shape)), own.geometric(1 - STAY, size=len(x))
        else:
            law = ((lambda k: STAY ** (k - 1)),) if told else ()
            probes, lengths = draw("probe", tuple(x.shape)), draw("length", (len(x),), *law)
        v, n = torch.as_tensor(probes), torch.as_tensor(lengths)
        total = torch.zeros(len(x), dtype=x.dtype)
        for k, t in enumerate(powers(net, x, v, int(n.max())), start=1):
            total = total + weight(k) * torch.where(n >= k, t, torch.zeros_like(t))
        return total

    @contextlib.contextmanager
    def randomness(draw: Any) -> Iterator[None]:
        handed["draw"] = draw
        try:
            yield
        finally:
            handed.clear()

    return replace(subject(), log_det=log_det, log_det_is="unbiased", randomness=randomness, inverse_log_det=None)


def test_given_randomness_with_its_law_is_enumerated() -> None:
    assert "enumeration" in one(injected(told=True)).oracle
    assert one(injected(told=True)).status == "passed"
    assert one(injected(lambda k: right(k) * (1.001 if k == 3 else 1.0), told=True)).status == "failed"


def test_given_randomness_without_its_law_is_judged_by_the_law_its_coefficients_imply() -> None:
    for id in ("estimator.unbiased", "estimator.variance"):
        found = one(injected(told=False), id)
        assert found.status == "passed", found.message
        assert "the coefficients imply" in found.message


@pytest.mark.parametrize("weight", [lambda k: abs(right(k)), lambda k: right(k) / STAY, lambda k: right(k) * (2.0 if k == 2 else 1.0) / 4])
def test_coefficients_that_no_law_makes_right_are_refuted(weight: Weight) -> None:
    found = one(injected(weight, told=False))
    assert found.status == "failed"
    assert "no distribution of the series length" in found.message


# -- sampling

def test_draws_that_are_not_seen_are_sampled_and_refute_nothing() -> None:
    def hidden(bias: float) -> Subject:
        plain: Any = injected(told=False).log_det
        return replace(subject(), log_det=lambda x, seed=0: plain(x, seed) + bias, log_det_is="unbiased", inverse_log_det=None)

    right_one, wrong = one(hidden(0.0)), one(hidden(2.0))
    assert right_one.status == "inconclusive"
    assert "variance is finite, which is not proved" in right_one.message
    assert wrong.status == "inconclusive"
    assert "suspected" in wrong.message
    assert right_one.curves


def test_noise_of_known_law_is_sampled_and_confirmed() -> None:
    net = Net(4, 0)

    def log_det(x: Tensor) -> Tensor:  # quartic in the probe: not enumerable, of finite variance
        from iresnet_verify.mutants.volume import exact

        v = torch.randn_like(x)
        return exact(net, x) + 0.01 * ((v**2).sum(1) ** 2 - 24.0)

    made = replace(subject(), log_det=log_det, log_det_is="unbiased", inverse_log_det=None)
    found = one(made, budget="standard")
    assert found.status == "passed", found.message
    assert "confidence sequence" in found.oracle


def test_a_bounded_estimate_is_refuted_by_sampling() -> None:
    net, stay = Net(4, 0), 0.9

    def log_det(x: Tensor) -> Tensor:  # signs, lengths, and a noise that forbids enumeration; the bound is that of the roulette
        v = torch.tensor(np.random.choice([-1.0, 1.0], size=tuple(x.shape)))  # noqa: NPY002 - as packages draw
        n = torch.tensor(np.random.geometric(1 - stay, size=len(x)))  # noqa: NPY002
        total = torch.zeros(len(x), dtype=x.dtype)
        for k, t in enumerate(powers(net, x, v, int(n.max())), start=1):
            total = total + (-1.0) ** (k + 1) / (k * stay ** (k - 1)) * torch.where(n >= k, t, torch.zeros_like(t))
        return total + 2.0 + 0.2 * (torch.rand(len(x), dtype=x.dtype) - 0.5)

    assert stay > L
    found = one(replace(subject(), log_det=log_det, log_det_is="unbiased", inverse_log_det=None), budget="standard")
    assert found.status == "failed", found.message
    assert "betting" in found.oracle
    assert 1.9 < found.evidence["mean"] - found.evidence["truth"] < 2.1


def roulette_with_length(length: Callable[[float], int], coefficient: Callable[[int], float]) -> Subject:
    """F = id + tanh net, Σ_{k≤N} coefficient(k)·vᵀJᵏv/(k·P(N ≥ k)) with P(N ≥ k) = 2^{1−k}, N from `length`."""
    torch.manual_seed(0)
    g = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
    with torch.no_grad():
        for layer in (g[0], g[2]):
            layer.weight *= 0.95 / torch.linalg.matrix_norm(layer.weight, 2)

    def log_det(x: torch.Tensor) -> torch.Tensor:
        x = x.detach().requires_grad_()
        y, v = g(x), torch.randn_like(x)
        w, total = v, torch.zeros(len(x), dtype=x.dtype)
        for k in range(1, length(0.5) + 1):
            (w,) = torch.autograd.grad(y, x, w, create_graph=True)
            total = total + coefficient(k) * 2.0 ** (k - 1) / k * (w * v).sum(1)
        return total

    return Subject(name="roulette", event_shape=(3,), forward=lambda x: x + g(x), log_det=log_det, residual=g, module=g, lipschitz=0.9025,
                   log_det_is="unbiased")


def coin_flips(p: float) -> int:
    n = 1
    while random.random() > p:
        n += 1
    return n


SAMPLERS: dict[str, Callable[[float], int]] = {
    "torch.rand": lambda p: math.floor(math.log(torch.rand(()).item()) / math.log(1 - p)) + 1,
    "random.random": lambda p: math.floor(math.log(random.random()) / math.log(1 - p)) + 1,
    "exponential_": lambda p: math.floor(-torch.empty(()).exponential_().item() / math.log(1 - p)) + 1,
    "coin flips": coin_flips,
}


@pytest.mark.parametrize(("sampler", "seed"), [("torch.rand", 2), ("random.random", 0), ("exponential_", 1), ("coin flips", 1)])
def test_a_right_roulette_is_not_failed_however_its_length_is_drawn(sampler: str, seed: int) -> None:
    subject = roulette_with_length(SAMPLERS[sampler], lambda k: (-1.0) ** (k + 1))
    report = audit(subject, seed, "quick", select=["estimator", "logdet.matches-determinant"])
    assert [c.id for c in report.checks if c.status == "failed"] == []


@pytest.mark.parametrize("sampler", ["torch.rand", "coin flips"])
def test_a_wrong_roulette_does_not_pass_by_an_enumeration_of_one_length(sampler: str) -> None:
    subject = roulette_with_length(SAMPLERS[sampler], lambda k: -1.0 if k > 1 else 1.0)
    report = audit(subject, 0, "quick", select=["estimator.unbiased", "logdet.matches-determinant"])
    assert "passed" not in [c.status for c in report.checks]
