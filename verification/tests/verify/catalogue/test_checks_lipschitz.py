"""The checks of a claimed Lipschitz bound accept true claims, to the last digit, and reject each false one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import correct_maps as maps
import numpy as np
import pytest
from map_cases import OF_BOUND, accepted, rejected, results, shows_violation
from seeds import each_with_seeds

from iresnet_verify import Subject
from iresnet_verify.check.budget import BUDGETS
from iresnet_verify.check.context import Context
from iresnet_verify.mutants import bounds
from iresnet_verify.running.run import Prepared

ALL = ("lipschitz.bounds-jacobian", "lipschitz.bounds-pairs", "lipschitz.bounds-stretch", "convergence.banach-rate")
WRONG: dict[str, tuple[Callable[[int], Subject], str, tuple[str, ...]]] = {
    "norm 1.2 claimed .9": (bounds.one_power_iteration, "lipschitz.bounds-jacobian", (*ALL, "inverse.is-injective")),
    "norm .90001 claimed .9": (lambda s: bounds.attained(1.00001, s), "lipschitz.bounds-jacobian", ALL),
    "small region": (bounds.small_region, "lipschitz.bounds-jacobian", ("lipschitz.bounds-pairs",)),
    "scaled skip": (bounds.scaled_skip, "lipschitz.residual-of-forward", ("lipschitz.bounds-stretch",)),
    "jump": (bounds.jump, "lipschitz.bounds-pairs", ALL),
    "stale refresh": (bounds.stale, "lipschitz.survives-parameters", ()),
    "not always": (bounds.pretends, "lipschitz.survives-parameters", ()),
}


@each_with_seeds("name", maps.CORRECT, 2)
def test_true_claim_is_accepted(name: str, seed: int) -> None:
    accepted(maps.CORRECT[name](seed), OF_BOUND, seed)


@pytest.mark.parametrize("name", WRONG)
def test_false_claim_is_rejected_by_the_check_meant_for_it(name: str) -> None:
    make, meant, also = WRONG[name]
    rejected(make(0), OF_BOUND, meant, also)


@pytest.mark.parametrize("seed", range(3))
def test_ascent_reaches_an_attained_bound(seed: int) -> None:
    # ‖J_g‖ of a linear g is the same everywhere; of tanh(Qx) it is attained in one point only.
    found = results(bounds.attained(1.0, seed), ["lipschitz.bounds-jacobian"])["lipschitz.bounds-jacobian"]
    assert found.evidence["largest_norm"] > 0.99 * 0.9


def test_small_region_is_not_met_by_random_inputs() -> None:
    subject = bounds.small_region(0)
    assert subject.residual is not None
    import torch

    x = np.random.default_rng(5).standard_normal((400, 6)) * np.array([0.1, 1.0, 3.0])[np.arange(400) % 3, None]
    near = torch.as_tensor(x)
    step = 1e-6
    norm = [((subject.residual(near + step * e) - subject.residual(near - step * e)) / (2 * step)).norm(dim=1)
            for e in torch.eye(6, dtype=torch.float64)]
    assert float(torch.stack(norm).square().sum(dim=0).sqrt().max()) < 0.9  # g has rank one: its norm is Frobenius'


def test_layer_norms_are_shown() -> None:
    subject = maps.mlp(3, linear_maps=lambda: [("double", lambda x: 2 * x, (3,)), ("half", lambda x: x / 2 + 1, (3,))])
    evidence = results(subject, ["lipschitz.layers"])["lipschitz.layers"].evidence
    assert evidence["double"] == pytest.approx(2.0, abs=1e-14)
    assert evidence["product"] == pytest.approx(1.0, abs=1e-12)  # 2 · ½, eight roundings


def test_layers_of_a_torch_module_are_found_at_the_grid_where_they_are_used() -> None:
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, stride=2, padding=1), torch.nn.Flatten(), torch.nn.Linear(2 * 4, 36))
    net = net.double()

    def g(x: torch.Tensor) -> torch.Tensor:
        return 0.01 * net(x).reshape(x.shape) if x.shape[-1] == 6 and x.shape[-2] == 4 else 0 * x

    net[2] = torch.nn.Linear(2 * 2 * 3, 24).double()
    subject = Subject(name="strided", event_shape=(1, 4, 6), forward=lambda x: x + g(x), residual=g, lipschitz=0.9, module=net,
                      modes=("eval",))
    evidence = results(subject, ["lipschitz.layers"])["lipschitz.layers"].evidence
    basis = torch.eye(24, dtype=torch.float64).reshape(24, 1, 4, 6)
    with torch.no_grad():
        matrix = (net[0](basis) - net[0](0 * basis)).reshape(24, -1)
    assert evidence["0 at (1, 4, 6)"] == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-12)
    assert evidence["2 at (12,)"] == pytest.approx(float(torch.linalg.matrix_norm(net[2].weight.detach(), 2)), rel=1e-12)
    kernel = net[0].weight.detach().reshape(2, -1)
    assert abs(evidence["0 at (1, 4, 6)"] - float(torch.linalg.matrix_norm(kernel, 2))) > 1e-3  # the reshaped kernel's is another


def test_the_norm_of_a_large_layer_is_a_lower_bound_that_power_iteration_reaches() -> None:
    import torch

    from iresnet_verify.catalogue.lipschitz.layers import DENSE, Layer, operator_norm
    n = DENSE + 76
    diagonal = torch.linspace(1.0, 3.0, n, dtype=torch.float64)
    diagonal[5] = 4.0
    prepared = Prepared(maps.mlp(3), 0)
    ctx = Context(prepared.subject, "lipschitz.layers", "eval", 0, BUDGETS["quick"], 0.0, prepared.framework, prepared.conventions("eval"))
    norm = operator_norm(ctx, Layer("diagonal", lambda v: v * diagonal + 1.0, (n,)))
    assert not norm.exact
    assert 3.99 < norm.value <= 4.0 + 1e-12



def test_the_iteration_is_followed_where_the_claim_is_made() -> None:
    """Inputs of a narrow box: x₀ = y lies outside, so the iteration starts beside a preimage and stays among them."""

    def inputs(n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(size=(n, 3)) * np.array([1.0, 1e-3, 0.1]) + 5.0

    right = results(maps.mlp(3, inputs=inputs), ["convergence.banach-rate"])["convergence.banach-rate"]
    assert right.status == "passed"
    assert right.evidence["compared"] > 0
    wrong = replace(maps.linear(3, 0, 0.9), lipschitz=0.3, inputs=inputs)
    found = results(wrong, ["convergence.banach-rate"])["convergence.banach-rate"]
    assert found.status == "failed", found.message
    point = maps.mlp(3, inputs=lambda n, rng: np.full((n, 3), 5.0))
    found = results(point, ["convergence.banach-rate"])["convergence.banach-rate"]
    assert found.status == "skipped", found.message


FAR = {
    "sine": "lipschitz/sine-of-slope-2-between-layers", "a layer at 40": "lipschitz/activation-that-is-steep-at-40-only",
    "at 40, unseen": "lipschitz/branch-that-is-steep-at-40-only", "SELU": "lipschitz/selu-taken-for-1-lipschitz",
    "pooling": "lipschitz/max-pooling-at-stride-1",
}


@each_with_seeds("name", FAR)
def test_layers_that_are_steeper_than_assumed_are_found_wherever_they_are(name: str, seed: int) -> None:
    subject = bounds.MUTANTS[FAR[name]].make(seed)
    for found in results(subject, ["lipschitz.bounds-jacobian", "lipschitz.bounds-pairs"], seed).values():
        if found.id != "hygiene.readable":
            assert found.status == "failed", found.message
            shows_violation(subject, found)


def sine_between_random_layers() -> Subject:
    """W₂ √2 sin(W₁x + b), ‖W₁‖‖W₂‖ = .9: ‖J_g‖ is at most .8992 near the origin, above .9 in rare places from ‖x‖ ~ 10 on."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, last = torch.nn.Linear(4, 16), torch.nn.Linear(16, 4)
    for layer in (first, last):
        layer.double()
        with torch.no_grad():
            layer.weight.mul_(0.9**0.5 / torch.linalg.matrix_norm(layer.weight, 2))
    net = torch.nn.Sequential(first, bounds.Sine(), last)
    return Subject(name="sine", event_shape=(4,), forward=lambda x: x + net(x), residual=net, module=net, lipschitz=0.9)


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.thorough) for s in (1, 2))])
def test_a_bound_that_breaks_far_out_only_is_refuted_there(seed: int) -> None:
    subject = sine_between_random_layers()
    found = results(subject, ["lipschitz.bounds-jacobian", "lipschitz.bounds-pairs"], seed)
    failed = [c for c in found.values() if c.status == "failed"]
    assert failed, {i: c.message for i, c in found.items()}
    for result in failed:
        shows_violation(subject, result)
    near = replace(subject, inputs=lambda n, rng: rng.standard_normal((n, 4)))  # promised there alone, it holds
    found = results(near, ["lipschitz.bounds-jacobian", "lipschitz.bounds-pairs"], seed)
    assert {c.status for i, c in found.items() if i != "hygiene.readable"} == {"passed"}


def test_a_bound_that_counts_the_slope_of_its_activation_is_right() -> None:
    import torch

    for activation, slope in ((bounds.Sine(), 2**0.5), (bounds.SteepAt40(), 1.4), (torch.nn.SELU(), 1.7580993408473766)):
        for seed in range(2):
            subject = bounds.layered(3, 8, activation, 0.5, slope)(seed)
            found = results(subject, ["lipschitz.bounds-jacobian", "lipschitz.bounds-pairs", "lipschitz.layers"], seed)
            assert not [c.message for c in found.values() if c.status in ("failed", "error", "inconclusive")]
            shown = found["lipschitz.layers"].evidence["slope of 1"]
            assert shown == pytest.approx(slope, rel=1e-4)  # differences over 1e-5 at points .001 apart
            assert f"slope {slope:.4g}" in found["lipschitz.layers"].message


@pytest.mark.parametrize("d", [1, 9, 16, 32, 33, 64])
def test_far_starts_are_found_in_every_dimension_that_is_scanned(d: int) -> None:
    from iresnet_verify.catalogue.shared.far_starts import scan

    prepared = Prepared(maps.mlp(d), 0)
    ctx = Context(prepared.subject, "lipschitz.bounds-jacobian", "eval", 0, BUDGETS["quick"], 0.0, prepared.framework,
                  prepared.conventions("eval"))
    assert scan(ctx, 4).shape == ((4 if d <= 32 else 0), d)
