"""What is proved of somebody's branch holds for it: no false claim passes as proof, and what cannot be read is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import correct_maps as maps
import numpy as np
import pytest
import torch
from torch import nn

from iresnet_verify import Subject, adapters, audit
from iresnet_verify.check.result import CheckResult
from iresnet_verify.mutants import bounds, load
from iresnet_verify.mutants.certificates import careless
from iresnet_verify.subject.errors import SubjectError

PROOFS = ("lipschitz.proved", "inverse.contraction-proved")
ABOUT_BOUNDS = {id: mutant for id, mutant in load().items() if any(c.startswith("lipschitz.") for c in mutant.meant)}


def proofs(subject: Subject, *more: str, budget: str = "quick") -> dict[str, CheckResult]:
    return {c.id: c for c in audit(subject, seed=0, budget=budget, select=[*PROOFS, *more]).checks}  # type: ignore[arg-type]


def block(net: nn.Module, d: int = 3, lipschitz: float = 0.9, **fields: object) -> Subject:
    given = {"name": "block", "event_shape": (d,), "forward": lambda x: x + net(x), "residual": net, "module": net, "lipschitz": lipschitz}
    return Subject(**{**given, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("d", [3, 8])
def test_a_normalised_branch_is_proved_and_no_search_exceeds_its_number(d: int, dtype: str) -> None:
    subject = maps.mlp(d, 1, dtype)
    found = proofs(subject, "lipschitz.bounds-jacobian", budget="standard")
    for id in PROOFS:
        assert found[id].status == "passed", found[id].message
        assert found[id].kind == "proof"
        assert found[id].message.startswith("proved: ")
        assert found[id].evidence["proved_bound"] <= 0.9 * (1 + 1e-5)
    searched = found["lipschitz.bounds-jacobian"].evidence
    assert searched["largest_norm"] - searched["oracle_error"] <= found["lipschitz.proved"].evidence["proved_bound"] * (1 + 1e-6)


def largest_norm(function: Callable[[Any], Any], subject: Subject, less: float = 0.0) -> float:
    """Return the largest ‖J − less·I‖₂ by central differences at 0 and at 64 points of four sizes."""
    d, step = int(np.prod(subject.event_shape)), 1e-5 if subject.dtype == "float64" else 0.05
    rng = np.random.default_rng(3)
    x = np.concatenate([np.zeros((1, d)), *(size * rng.standard_normal((16, d)) for size in (0.1, 1.0, 3.0, 40.0))])

    def at(points: np.ndarray) -> np.ndarray:
        shaped = points.reshape(-1, *subject.event_shape)
        with torch.no_grad():
            y = function(torch.as_tensor(shaped, dtype=getattr(torch, subject.dtype)) if subject.framework == "torch" else shaped)
        return np.asarray(y[0] if isinstance(y, tuple) else y, dtype=np.float64).reshape(points.shape)

    columns = [(at(x + step * e) - at(x - step * e)) / (2 * step) - less * e for e in np.eye(d)]
    return float(np.linalg.norm(np.stack(columns, axis=2), 2, axis=(1, 2)).max())


@pytest.mark.parametrize("id", ABOUT_BOUNDS)
def test_no_false_claim_passes_as_proof(id: str) -> None:
    """What is proved of a mutant, no Jacobian exceeds; of a mutant whose bound is wrong now, its claim is not proved."""
    mutant = ABOUT_BOUNDS[id]
    subject = mutant.make(1)
    found = proofs(subject)
    assert all(result.status in ("passed", "skipped") for result in found.values())
    passed = {id: result for id, result in found.items() if result.status == "passed"}
    if "lipschitz.proved" in passed:
        assert id in TRUE_NOW
        function, less = (subject.forward, 1.0) if subject.residual is None else (subject.residual, 0.0)
        assert largest_norm(function, subject, less) <= passed["lipschitz.proved"].evidence["proved_bound"] * (1 + 1e-5)
    if "inverse.contraction-proved" in passed:
        about = passed["inverse.contraction-proved"].evidence
        tolerance = 1e-5 if subject.dtype == "float64" else 1e-3  # 300 roundings over the step
        if "monotone" not in about:
            assert largest_norm(subject.forward, subject, 1.0) <= about["proved_bound"] * (1 + tolerance)
        else:
            assert largest_norm(subject.forward, subject) <= about["upper_stretch"] * (1 + tolerance)


TRUE_NOW = {
    "lipschitz/scaled-skip",  # the claim holds for g, and F is not x + g(x)
    "lipschitz/stale-refresh", "lipschitz/normalised-once-claimed-always", "lifetime/norms-kept-from-before-the-optimiser-s-step",
    "layers/one-layer-above-its-own-norm-the-product-below", "batches/norm-at-the-first-image-size-met",
}
"""Mutants whose claim holds for the parameters as delivered and at their own event shape; what they break is elsewhere."""


@pytest.mark.parametrize("kind", [careless.Grows, careless.Decides, careless.Copies])
def test_a_branch_that_changes_or_decides_is_refused(kind: type[careless.Branch]) -> None:
    for result in proofs(careless.subject(kind)(0)).values():
        assert result.status == "skipped"
        assert "cannot be read" in result.message, result.message


def test_what_cannot_be_read_is_named_and_the_search_runs_as_before() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Softmax(dim=1)).double()
    found = proofs(block(net, lipschitz=0.99), "lipschitz.bounds-pairs")
    assert found["lipschitz.proved"].status == "skipped"
    assert "softmax at 1 (Softmax)" in found["lipschitz.proved"].message
    assert found["lipschitz.bounds-pairs"].evidence["compared"] > 100


def test_the_proof_is_about_the_weights_of_now() -> None:
    subject = maps.mlp(3, 0)
    assert proofs(subject)["lipschitz.proved"].status == "passed"
    with torch.no_grad():
        subject.module.last.mul_(2.0)
    after = proofs(subject)["lipschitz.proved"]
    assert after.status == "skipped"
    assert after.evidence["proved_bound"] > 0.9


def test_a_claim_between_search_and_proof_is_called_not_proved() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)).double()
    with torch.no_grad():  # diag(.5, .9) after a saturated entry: tanh′ ≤ 1 proves .9, what it reaches is .5
        net[0].weight.copy_(torch.eye(2))
        net[0].bias.copy_(torch.tensor([0.0, 0.0]))
        net[2].weight.copy_(torch.diag(torch.tensor([0.5, 0.9])))
    below = block(nn.Sequential(*net), 2, 0.6, inputs=lambda n, rng: rng.standard_normal((n, 2)) + np.array([0.0, 40.0]))
    found = proofs(below, "lipschitz.bounds-jacobian")
    assert found["lipschitz.bounds-jacobian"].status == "passed"
    assert found["lipschitz.proved"].status == "skipped"
    assert found["lipschitz.proved"].message.startswith("not proved: Lip(g) ≤ 0.9")


def test_where_the_modes_differ_the_certificate_says_which_it_is_about() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    with torch.no_grad():
        for layer in (plain[0], plain[2]):
            layer.weight.mul_(0.9 / torch.linalg.matrix_norm(layer.weight, 2))
    assert "mode" not in proofs(block(plain))["lipschitz.proved"].message
    differing = nn.Sequential(*plain, nn.Dropout(0.5)).double()
    found = proofs(block(differing, modes=("train", "eval")))["lipschitz.proved"]
    assert found.status == "passed"
    assert found.mode == "eval"
    assert "in mode 'train' it computes something else: this is about mode 'eval'" in found.message
    training = proofs(block(differing, modes=("train",)))["lipschitz.proved"]
    assert training.status == "inconclusive", "F is random there"


def test_a_convolutional_branch_is_proved_at_every_image_size() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ELU(), nn.Conv2d(4, 2, 3, padding=1)).double()
    with torch.no_grad():
        for layer in (net[0], net[2]):
            layer.weight.mul_(0.3 / layer.weight.abs().sum(dim=(2, 3)).norm())
    subject = replace(block(net), event_shape=(2, 5, 5))
    found = proofs(subject, budget="standard")["lipschitz.proved"]
    assert found.status == "passed"
    everywhere = found.evidence["on_every_image"]
    larger = proofs(replace(subject, event_shape=(2, 16, 16)))["lipschitz.proved"].evidence["proved_bound"]
    assert found.evidence["proved_bound"] <= everywhere * (1 + 1e-12)
    assert larger <= everywhere * (1 + 0.01)


def test_a_proof_of_the_residual_alone_states_what_it_assumes() -> None:
    net = bounds.Residual(3, 0.9, 0, torch.float64)
    unreadable = Subject(name="x", event_shape=(3,), forward=lambda x: torch.where(x > 1e9, x, x + net.g(x)), residual=net.g, module=net)
    found = proofs(unreadable)["inverse.contraction-proved"]
    assert found.status == "passed"
    assert found.evidence["proved"] == "F bijective if it is x + g(x)"


def test_a_map_that_is_no_residual_block_is_not_asked() -> None:
    (found,) = audit(Subject(name="x", event_shape=(2,), forward=lambda x: 3 * x), select=["inverse.contraction-proved"]).checks
    assert found.status == "skipped"
    assert found.message.startswith("needs residual or lipschitz")


def test_a_certifier_is_proved_or_refuted_at_its_own_number() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double()

    def product(module: nn.Module) -> torch.Tensor:
        return torch.linalg.matrix_norm(module[0].weight, 2) * torch.linalg.matrix_norm(module[2].weight, 2)  # type: ignore[index]

    right = adapters.certifier(product, net, (3,))
    found = proofs(right, "lipschitz.bounds-jacobian")
    assert found["lipschitz.proved"].status == "passed", found["lipschitz.proved"].message
    assert found["lipschitz.bounds-jacobian"].status == "passed"
    wrong = proofs(adapters.certifier(lambda module: 0.3 * product(module), net, (3,)), "lipschitz.bounds-jacobian")
    assert wrong["lipschitz.proved"].status == "skipped"
    assert wrong["lipschitz.bounds-jacobian"].status == "failed"
    with pytest.raises(SubjectError, match="expected a positive finite bound on"):
        adapters.certifier(lambda module: 0.0, net, (3,))
