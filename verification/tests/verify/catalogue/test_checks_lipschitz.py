"""The checks of a claimed Lipschitz bound accept true claims, to the last digit, and reject each false one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import correct_maps as maps
import numpy as np
import pytest
from map_cases import OF_BOUND, accepted, rejected, results

from iresnet_verify import Subject
from iresnet_verify.mutants import bounds

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


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", maps.CORRECT)
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
    from iresnet_verify.check.budget import BUDGETS
    from iresnet_verify.check.context import Context
    from iresnet_verify.running.run import Prepared

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
