"""A missing part of the log-det is named by the parameter or the step that makes it; an answer that is kept, by the call it is of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from iresnet_verify import audit, mutants
from iresnet_verify.mutants.unseen.networks import Both, Network, Pixels, of

VALUE, BACK, ROWS = ("logdet.matches-determinant",), ("inverse.recovers-input", "inverse.recovers-output"), ("hygiene.batch-independence",)


def pixels(scale: float, weight: float) -> Callable[[Pixels], Callable[[Tensor], Tensor]]:
    def made(net: Pixels) -> Callable[[Tensor], Tensor]:
        return lambda x: (scale * net.log_scale.sum() + weight * torch.linalg.slogdet(net.weight)[1]).expand(len(x))

    return made


def steps(first: float, second: float) -> Callable[[Both], Callable[[Tensor], Tensor]]:
    def made(net: Both) -> Callable[[Tensor], Tensor]:
        def log_det(x: Tensor) -> Tensor:
            a, b = x.chunk(2, 1)
            r, t = net.one(b).chunk(2, 1)
            q, _ = net.two(a * torch.exp(torch.tanh(r)) + t).chunk(2, 1)
            return first * torch.tanh(r).sum(1) + second * torch.tanh(q).sum(1)

        return log_det

    return made


def mean(net: Both) -> Callable[[Tensor], Tensor]:
    return lambda x: net.log_det(x).mean().expand(len(x))


@pytest.mark.parametrize(("kind", "log_det", "checks", "cause", "words"), [
    (Pixels, pixels(1.0, 9.0), VALUE, "block-factor", "`log_scale` makes times 1/(H·W) = 1/9"),
    pytest.param(Pixels, pixels(9.0, 0.0), VALUE, "block-left-out", "`weight`", marks=pytest.mark.thorough),
    pytest.param(Pixels, pixels(9.0, 4.7), VALUE, "unexplained", "", marks=pytest.mark.thorough),
    (Both, steps(0.0, 1.0), VALUE, "block-left-out", "the first half"),
    pytest.param(Both, steps(1.0, -1.0), VALUE, "block-factor", "−1", marks=pytest.mark.thorough),
    pytest.param(Both, steps(1.0, 2.0), VALUE, "block-factor", "2", marks=pytest.mark.thorough),
    pytest.param(Both, steps(1.1, 0.7), VALUE, "unexplained", "", marks=pytest.mark.thorough),
    pytest.param(Both, mean, ROWS, "hygiene.batch-independence", "", marks=pytest.mark.thorough),
])
def test_the_part_that_is_wrong(kind: type[Network], log_det: object, checks: tuple[str, ...], cause: str, words: str) -> None:
    (found,) = audit(of(kind, log_det=log_det, inverse_log_det=None, log_prob=None)(1), 0, "quick", select=checks).findings
    assert found.cause == cause
    assert words.replace("−1", "-1") in found.wrong.replace("−1", "-1")


@pytest.mark.parametrize(("id", "cause"), [
    ("log-det-of-the-last-call-of-forward", "cached"),
    ("the-inverse-is-not-given-its-context", "hygiene.context-of-each-row"),
    pytest.param("plus-the-shift-of-a-channel", "shift-sign", marks=pytest.mark.thorough),
    pytest.param("divided-by-the-inverse-scale-of-a-channel", "scale-applied-again", marks=pytest.mark.thorough),
    pytest.param("the-weight-of-the-day-it-was-built-in-evaluation-mode", "state.after-optimiser-step", marks=pytest.mark.thorough),
])
def test_what_is_kept_or_not_passed_on(id: str, cause: str) -> None:
    mutant = mutants.load()[f"unseen/{id}"]
    report = audit(mutant.make(1), 0, "quick", select=(*mutant.meant, "state.save-and-load"))
    assert [f.cause for f in report.findings][:1] == [cause]
    assert len(report.findings) == 1
