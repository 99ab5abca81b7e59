"""Constructor arguments: each that acts passes, also where it acts only once the parameters have moved; the mutants: `mutants.state`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from seeds import each_with_seeds

from iresnet_verify import Subject, audit
from iresnet_verify.check.result import CheckResult
from iresnet_verify.mutants.block import LIPSCHITZ, Block, make
from iresnet_verify.mutants.state.arguments import OTHER, subject
from iresnet_verify.subject.errors import SubjectError

ID = "state.arguments-act"


def found(made: Subject, seed: int = 0) -> CheckResult:
    (result,) = audit(made, seed=seed, budget="quick", select=[ID]).checks
    return result


@each_with_seeds("name", [n for n in OTHER if n != "probes"])
def test_an_argument_that_acts_passes(name: str, seed: int) -> None:
    result = found(subject(seed, "", (name,)), seed)
    assert result.status == "passed", result.message
    assert result.evidence["compared"] > 0


def test_a_bound_that_is_idle_as_delivered_acts_once_parameters_have_moved() -> None:
    # ‖W₁‖‖W₂‖ is far below .3 at first: both networks are the same map then
    result = found(subject(0, "", ("coefficient",)))
    assert "(moved" in str(result.evidence["coefficient"])


@pytest.mark.thorough
def test_four_probes_have_another_spread_than_one() -> None:
    # Var of a mean of four independent probes is a quarter: θ = (2/π) arctan 2 = .70 for normal draws, some less for products of them
    result = found(subject(0, "", ("probes",)))
    assert result.status == "passed", result.message


@pytest.mark.parametrize("names", [("depth", "tolerance"), ("tolerance", "depth")])
def test_one_idle_argument_among_others_is_named(names: tuple[str, ...]) -> None:
    result = found(subject(0, "tolerance", names))
    assert result.status == "failed"
    assert "tolerance changes nothing of inverse" in result.message
    assert "depth" not in result.message


class Scaled(Block):
    """A branch that is scaled in training only."""

    scale = 1.0

    def g(self, x: torch.Tensor) -> torch.Tensor:
        return super().g(x) * (self.scale if self.training else 1.0)


@pytest.mark.parametrize(("acts", "status"), [(True, "passed"), (False, "failed")])
def test_an_argument_of_training_mode_acts_there(acts: bool, status: str) -> None:
    def fresh(dtype: str | None = None, device: str | None = None, scale: float = 1.0) -> Subject:
        made = make(Scaled, 1000, dtype)
        made.module.scale = scale if acts else 1.0
        return made

    made = make(Scaled, 0, fresh=lambda block: fresh, arguments=lambda block: {"scale": (0.5, "forward")})
    result = found(made)
    assert result.status == status, result.message


def test_what_moves_by_rounding_alone_is_not_decided() -> None:
    def fresh(dtype: str | None = None, device: str | None = None, shift: float = 0.0) -> Subject:
        return make(Block, 7, dtype, residual=lambda b: None, forward=lambda b: lambda x: b(x) + shift * 2.0**-50)

    result = found(replace(fresh(), fresh=fresh, arguments={"shift": (1.0, "forward")}))
    assert result.status == "inconclusive"
    assert "rounding" in result.message


def test_parameters_that_cannot_be_moved_decide_nothing() -> None:
    def fresh(dtype: str | None = None, device: str | None = None, bound: float = 1e9) -> Subject:
        return Subject(name="clamp", event_shape=(2,), forward=lambda x: 2.0 * np.clip(x, -bound, bound), framework="numpy",
                       fresh=fresh, arguments={"bound": (1e8, "forward")})

    assert found(fresh()).status == "inconclusive"


def test_a_fresh_without_the_argument_is_an_error_that_says_what_to_try() -> None:
    made = make(Block, 0, arguments=lambda block: {"coefficient": (0.5 * LIPSCHITZ, "forward")})
    result = found(made)
    assert result.status == "error"
    assert "try fresh=lambda dtype=None, device=None, coefficient=…" in result.message


@pytest.mark.parametrize(("arguments", "says"), [
    ({"depth": 3}, "what it acts on|one of"), ({"depth": (3, "backward")}, "one of"), (["depth"], "another value"),
    ({"depth": (3, "inverse")}, "as 'depth' is said to act on it"),
])
def test_a_wrong_list_is_refused_with_a_remedy(arguments: Any, says: str) -> None:
    made = replace(make(Block, 0), inverse=None, arguments=arguments)
    with pytest.raises(SubjectError, match=f"{says}.*; try "):
        audit(made, select=[ID])


def test_arguments_need_fresh() -> None:
    with pytest.raises(SubjectError, match=r"fresh: expected a callable, .* try fresh=lambda dtype=None, device=None, depth=…"):
        audit(replace(make(Block, 0), fresh=None, arguments={"depth": (3, "forward")}))
