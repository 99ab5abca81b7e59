"""Rows of a batch: each mistake is found by the check meant for it, and rows that stop by themselves are right whatever their promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from map_cases import results, shows_violation
from seeds import each_with_seeds
from torch import Tensor

from iresnet_verify import Subject
from iresnet_verify.mutants.batches import MUTANTS, conditional
from iresnet_verify.mutants.block import Block, make
from iresnet_verify.mutants.lifetime import images

D = torch.float64
INVERSE = ["inverse.rows-are-independent"]


def by_row(rule: str, rtol: float = 1e-5, promised: float = 1e-4) -> Callable[[int], Subject]:
    """y = x + tanh(Wx), ‖W‖ = .9; rows stop "alone", with the "slowest", or after a "number" of steps."""

    def build(seed: int) -> Subject:
        q = torch.linalg.qr(torch.randn(4, 4, dtype=D, generator=torch.Generator().manual_seed(seed)))[0]
        w = q @ torch.diag(torch.tensor([-0.9, 0.5, 0.2, 0.1], dtype=D)) @ q.T

        def inverse(y: Tensor) -> Tensor:
            x, going = y, torch.ones(len(y), dtype=torch.bool)
            for _ in range(150):
                new = y - torch.tanh(x @ w.T)
                step = (new - x).norm(dim=1)
                x = torch.where(going[:, None], new, x)
                if rule == "alone":
                    going = going & (step >= rtol)
                elif rule == "slowest" and bool((step < rtol).all()):
                    break
            return x

        return Subject(name=rule, event_shape=(4,), forward=lambda x: x + torch.tanh(x @ w.T), inverse=inverse,
                       inverse_tolerance=promised, lipschitz=0.9)

    return build


RIGHT = {
    "each row by its own step": by_row("alone"),
    "all rows until the slowest has arrived": by_row("slowest"),
    "a number of steps": by_row("number", promised=1e-5),
}


@each_with_seeds("name", RIGHT)
def test_rows_that_keep_their_promise_in_every_batch_are_right(name: str, seed: int) -> None:
    found = results(RIGHT[name](seed), INVERSE, seed)[INVERSE[0]]
    assert found.status == "passed", found.message
    assert found.evidence["compared"] >= 16


@each_with_seeds("id", MUTANTS)
def test_each_mistake_of_batches_is_found_by_the_check_meant_for_it(id: str, seed: int) -> None:
    subject, meant = MUTANTS[id].make(seed), list(MUTANTS[id].meant)
    found = results(subject, meant, seed)[meant[0]]
    assert found.status == "failed", found.message
    if found.id in INVERSE:
        shows_violation(subject, found)


def test_answers_apart_within_twice_the_promise_are_right() -> None:
    """Two right answers lie within 2·tol: rows moved by ± tol in turn, another sign alone, are as promised."""

    def jittering(size: float) -> Callable[[Tensor], Tensor]:
        return lambda y: y + size * (1.0 if len(y) > 1 else -1.0) * torch.tensor([1.0, 0.0, 0.0], dtype=y.dtype)

    def status(size: float) -> str:
        subject = Subject(name="jitter", event_shape=(3,), forward=lambda x: 1.0 * x, inverse=jittering(size), inverse_tolerance=1e-4)
        return results(subject, INVERSE)[INVERSE[0]].status

    assert status(0.99e-4) == "passed"
    assert status(1.0e-2) == "failed"


def test_a_conditional_map_with_a_context_for_each_row_is_right() -> None:
    for seed in range(3):
        found = results(conditional()(seed), ["hygiene.context-of-each-row", "hygiene.single-row"], seed)
        assert {c.status for i, c in found.items() if i != "hygiene.readable"} == {"passed"}


@pytest.mark.parametrize("constant", [False, True])
def test_log_dets_that_are_one_number_at_every_size_of_batch_are_right(constant: bool) -> None:
    """() at one row and at five is a convention, as are (B, 1) and the element-wise form."""

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        value = torch.tensor(3 * 0.6931471805599453, dtype=x.dtype)
        return 2 * x, value if constant else value.expand(len(x), 1)

    found = results(Subject(name="doubles", event_shape=(3,), forward=forward), ["hygiene.single-row"])["hygiene.single-row"]
    assert found.status == "passed", found.message


def test_a_residual_of_its_own_rows_is_right() -> None:
    found = results(make(Block, 1), ["hygiene.batch-independence"])["hygiene.batch-independence"]
    assert found.status == "passed"
    assert found.evidence["largest_ratio_residual"] <= 1.0


def test_image_sizes_with_one_norm_of_them_all_are_right() -> None:
    subject = replace(images(grid=9)(0), name="all sizes")
    ids = ["lipschitz.other-shapes", "inverse.other-shapes", "logdet.other-shapes"]
    assert {c.status for i, c in results(subject, ids).items() if i in ids} == {"passed"}
