"""The examination of the suite: a correct network with every field supplied is accepted, whole catalogue, many seeds."""

from __future__ import annotations

import pytest
from correct_subjects import complete
from seeds import each_with_seeds

from iresnet_verify import Report, audit
from iresnet_verify.mutants import batches, lifetime, load
from iresnet_verify.mutants.state import arguments

OF_OTHER_NETWORKS = {
    "inverse.other-shapes": lifetime.images(), "lipschitz.other-shapes": lifetime.images(), "logdet.other-shapes": lifetime.images(),
    "estimator.coefficients": lifetime.standard_error("right"), "estimator.length-per-row": lifetime.standard_error("right"),
    "hygiene.context-of-each-row": batches.conditional(), "estimator.standard-error": lifetime.standard_error("right"),
    "state.arguments-act": arguments.subject,
}
"""Checks of what a network in ℝ³ with an exact log-det cannot have, and a correct network that has it."""


def not_passed(report: Report) -> list[tuple[str, str, str]]:
    return [(c.id, c.status, c.message) for c in report.checks if c.status != "passed" and c.id not in OF_OTHER_NETWORKS]


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.thorough) for s in range(1, 20))])
def test_a_correct_network_passes_every_check(seed: int) -> None:
    report = audit(complete(seed), seed=seed, budget="quick")
    assert not not_passed(report)
    assert report.status == "passed"


@each_with_seeds("id", OF_OTHER_NETWORKS)
def test_a_correct_network_passes_what_only_it_can_be_asked(id: str, seed: int) -> None:
    (found,) = audit(OF_OTHER_NETWORKS[id](seed), seed=seed, budget="quick", select=[id]).checks
    assert found.status == "passed", found.message


def test_the_catalogue_covers_all_families_and_says_what_each_check_claims() -> None:
    from iresnet_verify.catalogue import load
    from iresnet_verify.check.registry import FAMILIES

    catalogue = load()
    assert {c.family for c in catalogue.values()} == set(FAMILIES)
    for c in catalogue.values():
        assert c.claim.endswith((".", ")")), c.id
        assert c.reference, c.id
        assert c.catches, c.id
        assert c.cost, c.id


@pytest.mark.parametrize("mistake", ["hygiene/input-mutated", "hygiene/nan-hidden", "state/actnorm-flag-lost", "state/packed-sign"])
def test_one_mistake_fails_no_unrelated_family(mistake: str) -> None:
    """The whole catalogue on a broken network: the check meant for it fails, and inverse checks of a sound inverse pass."""
    mutant = load()[mistake]
    (meant,) = mutant.meant
    report = audit(mutant.make(2), seed=0, budget="quick")
    failed = {c.id for c in report.checks if c.status == "failed"}
    assert meant in failed
    assert report.status == "failed"
    if mistake == "state/actnorm-flag-lost":
        assert failed <= {meant}
