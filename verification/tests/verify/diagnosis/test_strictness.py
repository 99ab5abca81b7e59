"""An explanation has to hold at other inputs too, and one that a rival gives as well is none; what blocks make together is recognised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iresnet_verify import Report, Subject, audit, mutants
from iresnet_verify.mutants.afterwards.maps import with_parameters
from iresnet_verify.mutants.causes.names import CAUSES
from iresnet_verify.mutants.inverse.round_trips import with_inverse
from iresnet_verify.mutants.log_dets import jacobian
from iresnet_verify.mutants.networks import Residual
from iresnet_verify.mutants.volume import exact, subject

VALUE = ("logdet.matches-determinant",)


def causes(report: Report) -> list[str]:
    return [f.cause for f in report.findings]


def with_log_det(value: Callable[[Any, Tensor], Tensor]) -> Subject:
    made = subject(seed=1)
    return replace(made, log_det=lambda x: value(made.module, x), inverse_log_det=None)


# At the audit's own inputs every log-det of this network is negative: there −t and |t| are one, and elsewhere they are not.
def test_minus_the_log_det_is_not_claimed_where_it_is_its_absolute_value() -> None:
    assert causes(audit(with_log_det(lambda n, x: exact(n, x).abs()), 0, "quick", select=VALUE)) == ["absolute-value"]
    mended = with_log_det(lambda n, x: exact(n, x).abs() + 1e-3 * (exact(n, x) > 0))
    assert causes(audit(mended, 0, "quick", select=VALUE)) == ["unexplained"]
    assert causes(audit(with_log_det(lambda n, x: -exact(n, x)), 0, "quick", select=VALUE)) == ["sign"]


# One row's value for all does not depend on x within a batch, and does from batch to batch.
def test_a_constant_is_one_in_every_batch() -> None:
    for value in (lambda t: t[min(1, len(t) - 1)], torch.median, torch.max):
        of_the_batch = with_log_det(lambda n, x, value=value: value(exact(n, x)).expand(len(x)))
        assert causes(audit(of_the_batch, 0, "quick", select=VALUE)) == ["unexplained"]
    assert causes(audit(with_log_det(lambda n, x: 0.0 * exact(n, x) + 0.7), 0, "quick", select=VALUE)) == ["constant"]


# A counterexample is shrunk to one component, along which a scale applied twice is one factor of the matrix; elsewhere it is not.
def test_neighbours_of_one_shrunk_input_do_not_outvote_the_other_inputs() -> None:
    made = torch.Generator().manual_seed(1)
    net = nn.Linear(3, 3, bias=False).double()
    scale = (0.3 * torch.randn(3, generator=made, dtype=torch.float64)).exp()
    with torch.no_grad():
        net.weight.copy_(torch.eye(3) + 0.3 * torch.randn(3, 3, generator=made, dtype=torch.float64))
    subject = Subject(name="scaled", event_shape=(3,), forward=lambda x: net(x) * scale + 1.0, module=net, modes=("eval",),
                      inverse=lambda y: torch.linalg.solve(net.weight, ((y - 1.0) * scale).T).T + 0.1)
    assert causes(audit(subject, 0, "quick", select=["inverse.recovers-input", "inverse.recovers-output"])) == ["unexplained"]


def test_an_answer_in_another_dtype_is_named_by_the_check_of_dtypes() -> None:
    mutant = mutants.load()["later/the-inverse-answers-in-float32"]
    report = audit(mutant.make(1), 0, "quick", select=[*mutant.meant, "inverse.recovers-input", "inverse.keeps-precision"])
    assert causes(report)[0] == "hygiene.dtype-kept"


# Where −t and |t| are one they are asked at other inputs; where two points give one log-det no point is named.
@pytest.mark.parametrize(("value", "cause", "words"), [
    (lambda n, x: exact(n, 2.0 * x), "at-another-point", "2·x"),
    (lambda n, x: torch.linalg.slogdet(torch.eye(4).double() + 0.9 * jacobian(n, x))[1], "jacobian-scaled", "0.9·J"),
    (lambda n, x: exact(n, x) * 0.9 + 0.25, "factor-and-constant", "0.9 times what it should be and +0.25"),
    (lambda n, x: torch.log1p(jacobian(n, x).sum(1)).sum(1), "another-matrix", "column sums"),
])
def test_a_log_det_with_unknown_numbers(value: Callable[[Any, Tensor], Tensor], cause: str, words: str) -> None:
    (found,) = audit(with_log_det(value), 0, "quick", select=VALUE).findings
    assert found.cause == cause
    assert words in found.wrong


NEW = ("afterwards/divided-by-k-squared", "afterwards/one-block-left-out", "afterwards/a-shift-in-the-inverse",
       "afterwards/last-row-s-weight-for-all", "afterwards/half-of-the-log-det-in-the-density", "afterwards/largest-entry-of-the-kernel",
       "gradient/backward-raises-attributeerror", "lipschitz/larger-constant-for-a-sum", "later/two-blocks-exchanged",
       "later/twice-the-bias", "later/the-preimage-negated", "later/half-of-the-base", "later/absolute-weights",
       "later/weights-forgotten-after-the-third", "afterwards/y-itself")


@pytest.mark.parametrize("id", NEW)
def test_the_first_cause_is_the_seeded_one(id: str) -> None:
    mutant = mutants.load()[id]
    assert causes(audit(mutant.make(2), 0, "quick", select=mutant.meant)) == [CAUSES[id]]


# A rival that is merely near, a batch whose first row is quick, a value that is infinite far away alone, a mask that shows a gradient.
@pytest.mark.parametrize("id", ["inverse/first-row-decides-for-all", "extremes/a-log-det-that-overflows-far-away",
                                "extremes/a-wrong-second-weight-made-up-for", "lifetime/the-mean-upstream-gradient-for-every-row"])
def test_what_was_once_taken_for_another_cause(id: str) -> None:
    mutant = mutants.load()[id]
    assert causes(audit(mutant.make(3), 1, "quick", select=mutant.meant)) == [CAUSES[id]]


def test_a_parameter_with_the_other_sign_is_told_from_a_branch_with_it() -> None:
    back = ("inverse.recovers-input",)
    (found,) = audit(with_inverse(with_parameters(shift=-1.0))(1), 0, "quick", select=back).findings
    assert (found.cause, "−`shift`" in found.wrong) == ("parameter-sign", True)
    assert causes(audit(with_inverse(with_parameters(last=-1.0))(1), 0, "quick", select=back)) == ["inverse-sign"]


# 1 − tanh² is even: with the other sign of its bias it is that at −x, and the numbers cannot tell these two.
def test_of_two_mistakes_with_the_same_numbers_the_line_is_named_and_no_formula() -> None:
    def other_bias(n: Any, x: Tensor) -> Tensor:
        slope = 1 - torch.tanh(x @ n.first.T - n.shift) ** 2
        return torch.linalg.slogdet(torch.eye(4).double() + n.last @ (slope[:, :, None] * n.first))[1]

    (found,) = audit(with_log_det(other_bias), 0, "quick", select=VALUE).findings
    assert found.cause == "one-change"
    assert "`+` for `-` in " in found.wrong
    assert "other_bias, line " in found.wrong


def test_what_differs_in_one_mode_alone_follows_from_the_modes() -> None:
    mutant = mutants.load()["afterwards/another-scale-in-evaluation"]
    report = audit(mutant.make(1), 0, "quick", select=[*mutant.meant, "logdet.matches-determinant", "logdet.adds-up"])
    (found,) = report.findings
    assert found.cause == "parity.train-and-eval"
    assert "logdet.matches-determinant" in found.follows


def chain(put_together: Callable[[list[Residual], Tensor], Tensor]) -> Subject:
    """Three blocks with the log-det that `put_together` makes of theirs."""
    net = nn.Sequential(*[Residual(3, 0.6, k, torch.float64) for k in range(3)])
    return Subject(name="three blocks", event_shape=(3,), forward=net, module=net, modes=("eval",),
                   log_det=lambda x: put_together(list(net), x))  # type: ignore[arg-type]


def own(block: Residual, x: Tensor) -> Tensor:
    """log|det I + J_g| of one block."""
    rows = [torch.func.jacrev(lambda z: block(z[None])[0])(row) for row in x]
    return torch.linalg.slogdet(torch.stack(rows))[1]


def along(order: list[Residual], x: Tensor, left_out: int = -1) -> Tensor:
    total = torch.zeros(len(x), dtype=x.dtype)
    for i, block in enumerate(order):
        total = total + (i != left_out) * own(block, x)
        x = block(x)
    return total


@pytest.mark.parametrize(("put_together", "cause", "words"), [
    (lambda b, x: along(b[::-1], x), "order-of-blocks", "reverse order"),
    (lambda b, x: sum(own(block, x) for block in b), "blocks-at-one-point", "the input of the first"),
    (lambda b, x: along(b, x, left_out=1), "block-left-out", "block 2 of 3"),
    (lambda b, x: own(b[0], x), "block-left-out", "every block but number 1"),
    (lambda b, x: along(b, x) - 2 * own(b[0], x), "block-factor", "block 1 of 3 times −1"),
    (lambda b, x: along(b, x) - 0.7 * own(b[0], x), "block-factor", "block 1 of 3 times 0.3"),
])
def test_log_dets_of_blocks_that_are_put_together_wrongly(
    put_together: Callable[[list[Residual], Tensor], Tensor], cause: str, words: str
) -> None:
    report = audit(chain(put_together), 0, "quick", select=VALUE)
    assert causes(report) == [cause]
    assert words in report.findings[0].wrong


def test_a_right_chain_has_no_finding() -> None:
    assert causes(audit(chain(along), 0, "quick", select=VALUE)) == []
