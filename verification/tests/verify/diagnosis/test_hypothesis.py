"""The rule by which a hypothesis explains numbers: at every input, to rounding, and alone."""

from __future__ import annotations

import numpy as np

from iresnet_verify.diagnosis.hypothesis import Cause, Prediction, explain

RIGHT = np.array([0.2, -0.7, 1.1, 0.4, 0.9])
TAU = np.array(1e-12)
SIGN, HALF, SHIFT = (Cause(name, "{what}: {detail}", "") for name in ("sign", "half", "shift"))


def test_one_prediction_that_holds_explains() -> None:
    found = explain("f", -RIGHT, RIGHT, [Prediction(SIGN, -RIGHT, TAU), Prediction(HALF, RIGHT / 2, TAU)])
    assert found is not None
    assert (found.cause, found.inputs, found.rivals) == (SIGN, 5, 1)


def test_one_wrong_number_is_enough_to_refute() -> None:
    got = np.where(np.arange(5) == 3, -RIGHT + 1e-9, -RIGHT)
    assert explain("f", got, RIGHT, [Prediction(SIGN, -RIGHT, TAU)]) is None


def test_what_leaves_a_tenth_of_the_error_is_no_explanation() -> None:
    wide = np.array(0.05)
    assert explain("f", RIGHT + 0.2, RIGHT, [Prediction(SHIFT, RIGHT + 0.199, wide)]) is not None
    assert explain("f", RIGHT + 0.2, RIGHT, [Prediction(SHIFT, RIGHT + 0.18, wide)]) is None


def test_two_causes_that_hold_explain_nothing() -> None:
    assert explain("f", -RIGHT, RIGHT, [Prediction(SIGN, -RIGHT, TAU), Prediction(HALF, -RIGHT, TAU)]) is None


def test_a_prediction_of_the_right_numbers_explains_nothing() -> None:
    assert explain("f", RIGHT, RIGHT, [Prediction(SIGN, RIGHT, TAU)]) is None


def test_a_fitted_number_is_asked_last_and_needs_rows_to_spare() -> None:
    fitted = Prediction(SHIFT, -RIGHT, TAU, fitted=1)
    found = explain("f", -RIGHT, RIGHT, [fitted, Prediction(SIGN, -RIGHT, TAU)])
    assert found is not None
    assert found.cause is SIGN
    assert explain("f", -RIGHT[:3], RIGHT[:3], [Prediction(SHIFT, -RIGHT[:3], TAU, fitted=1)]) is None
    assert explain("f", -RIGHT, RIGHT, [fitted]) is not None


def test_numbers_that_are_not_finite_hold_nothing() -> None:
    assert explain("f", RIGHT * np.nan, RIGHT, [Prediction(SIGN, RIGHT * np.nan, TAU)]) is None
