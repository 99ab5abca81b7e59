"""One unknown number is found from one row, and the other rows say whether the family holds."""

from __future__ import annotations

import numpy as np

from iresnet_verify.diagnosis.families import IDENTITY, JACOBIAN, of_matrix

A = 0.2 * np.random.default_rng(0).standard_normal((6, 3, 3))
RIGHT = np.linalg.slogdet(np.eye(3) + A)[1]


def holding(got: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[tuple[str, str]]:
    """(name of the cause, number) of every member of a family that gives all the numbers."""
    return [(f.cause.name, words) for f in of_matrix(A) for words, value in f.fitted(got, RIGHT) if np.abs(value - got).max() < 1e-12]


def test_the_factor_of_the_identity_and_that_of_the_jacobian_are_found() -> None:
    assert holding(np.linalg.slogdet(1.7 * np.eye(3) + A)[1]) == [(IDENTITY.name, "1.7")]
    assert holding(np.linalg.slogdet(np.eye(3) - 0.37 * A)[1]) == [(JACOBIAN.name, "-0.37")]


def test_one_row_that_differs_refutes_the_family() -> None:
    got = np.linalg.slogdet(1.7 * np.eye(3) + A)[1]
    assert holding(got + 1e-6 * (np.arange(6) == 2)) == []


def test_the_right_numbers_belong_to_no_mistake() -> None:
    assert holding(RIGHT) == []
