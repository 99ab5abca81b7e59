"""Counterexamples are shrunk to simple rows that still refute, within a budget, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iresnet_verify.check import shrinking
from iresnet_verify.check.shrinking import odd_input, shrink


def test_a_row_of_few_digits_is_left_and_what_does_not_matter_is_zero() -> None:
    rows = np.array([[0.0, 0.0, 0.0], [1.23456, 3.98765, 2.34567], [2.0, 7.0, 1.0]])
    assert shrink(rows, lambda r: bool((r[:, 1] > 3.5).any())).tolist() == [[0.0, 4.0, 0.0]]
    # 1.2 + 3.9 < 5.15 ≤ 1.23 + 3.99: two decimals are needed somewhere, none for the third entry
    found = shrink(rows, lambda r: bool(((r[:, 0] + r[:, 1] >= 5.15) & (r[:, 0] < 1.5)).any()))
    assert found[0, 2] == 0.0
    assert found[0, 0] + found[0, 1] >= 5.15
    assert np.array_equal(found, np.round(found, 2))


def test_what_needs_every_digit_keeps_it() -> None:
    row = np.random.default_rng(0).normal(size=(1, 5))
    assert np.array_equal(shrink(row, lambda r: bool(np.array_equal(r, row))), row)


def test_a_fault_at_minus_zero_keeps_its_sign() -> None:
    def refuted(r: np.ndarray) -> bool:
        return bool((np.signbit(r[:, 0]) & (r[:, 0] == 0.0)).any())

    assert refuted(shrink(np.array([[-0.0, 3.7]]), refuted))


def test_a_fault_that_needs_its_batch_keeps_it() -> None:
    assert len(shrink(np.ones((3, 2)), lambda r: len(r) == 3)) == 3


def test_pairs_and_images_keep_their_shape_and_dtype() -> None:
    pair = np.random.default_rng(1).normal(size=(1, 2, 3, 4, 4)).astype(np.float32)
    found = shrink(pair, lambda r: bool(r[0, 0, 0, 0, 0] != r[0, 1, 0, 0, 0]))
    assert found.shape == pair.shape
    assert found.dtype == np.float32
    assert np.count_nonzero(found) < 20


def test_the_budget_is_kept_and_exceptions_refute_nothing() -> None:
    calls = 0

    def hard(r: np.ndarray) -> bool:
        nonlocal calls
        calls += 1
        if not r.all():
            raise FloatingPointError("zero")
        return bool(np.abs(r).sum() > 12.0)

    found = shrink(np.random.default_rng(2).uniform(1, 2, size=(1, 12)), hard)
    assert calls <= shrinking.EVALUATIONS + 2
    assert hard(found)


def test_odd_inputs_reach_zeros_ties_and_spikes_and_are_shrunk() -> None:
    def found(refuted: object) -> list[float]:
        x = odd_input((4,), np.float64, refuted, examples=200, seed=0)  # type: ignore[arg-type]
        assert x is not None
        return [float(v) for v in x]

    assert found(lambda r: not r.any()) == [0.0] * 4
    tie = found(lambda r: r[0, 0] == r[0, 3] != 0)
    assert tie[0] == tie[3] != 0
    assert tie[1:3] == [0.0, 0.0]
    spike = found(lambda r: np.count_nonzero(r) == 1)
    assert sorted(map(abs, spike))[:3] == [0.0] * 3
    assert odd_input((4,), np.float64, lambda r: False, examples=20, seed=0) is None


def test_nothing_is_written_and_the_home_of_hypothesis_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hypothesis import configuration

    monkeypatch.chdir(tmp_path)
    before = vars(configuration).get("__hypothesis_home_directory")
    odd_input((3,), np.float32, lambda r: bool(r.any()), examples=10, seed=1)
    assert list(tmp_path.iterdir()) == []
    assert vars(configuration).get("__hypothesis_home_directory") == before
