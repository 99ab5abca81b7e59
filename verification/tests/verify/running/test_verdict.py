"""`verdict` decides for every check: each rule of it is shown on numbers, and on broken verdicts that it must not be."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.verdict import compare, shrunk, verdict

NAN, INF = float("nan"), float("inf")


def held(error: Any, bound: Any, **options: Any) -> Outcome:
    return verdict(error, bound, **{"expected": "x", "got": lambda at: f"{at.error:g} in row {at.row}", "passed": "equal",
                                    "tolerance": "64u", "oracle": "x", **options})


STATUS: list[tuple[Any, Any, str]] = [
    ([0.0, 1.0], [1.0, 1.0], "passed"),  # error ≤ bound, equality too
    ([0.0, 1.1], [1.0, 1.0], "failed"),
    ([0.0, NAN], [1.0, 1.0], "failed"),  # NaN is no number below a bound
    ([0.0, INF], [1.0, 1.0], "failed"),
    ([0.0], [0.0], "passed"),  # exact claims: bound 0
    ([1e-300], [0.0], "failed"),
    ([5.0, 0.0], [INF, 1.0], "passed"),  # a bound that is not finite decides nothing, the other row does
    ([NAN, 0.0], [INF, 1.0], "passed"),
    ([0.0, 2.0], [INF, 1.0], "failed"),
    ([0.0, 0.0], [INF, NAN], "inconclusive"),
    ([], [], "skipped"),
    ({}, 0.0, "skipped"),
    ({"a": [], "b": []}, 0.0, "skipped"),
    ({"a": [0.0], "b": [2.0]}, {"a": [1.0], "b": [1.0]}, "failed"),
    ({"a": [2.0], "b": [2.0]}, {"a": [1.0], "b": [3.0]}, "failed"),
    ({"a": 0.0, "b": 0.0}, 0.0, "passed"),
    (0.5, 1.0, "passed"),
    (-3.0, 0.0, "passed"),
]


@pytest.mark.parametrize(("error", "bound", "status"), STATUS)
def test_the_status_follows_the_rule(error: Any, bound: Any, status: str) -> None:
    assert held(error, bound).status == status


WORST: list[tuple[Any, Any, Any, int]] = [
    ([1.0, 30.0, 2.0], [1.0, 100.0, 1.0], "", 2),  # by the ratio, not by the error
    ([9.0, 1.0, NAN], [1.0, 1.0, 1.0], "", 2),  # NaN is the worst of all
    ([9.0, 0.0], [INF, 2.0], "", 1),  # what is not decided is never the worst
    ([1.0, 3.0, 2.0], [0.0, 0.0, 0.0], "", 1),  # of infinite ratios the largest error
    ({"a": [1.0, 2.0], "b": [0.5, 5.0, 1.0]}, {"a": [1.0, 1.0], "b": [1.0, 1.0, 1.0]}, "b", 1),
    ({("y", 0): [1.0], ("y", 1): [1.5]}, 1.0, ("y", 1), 0),
]


@pytest.mark.parametrize(("error", "bound", "case", "row"), WORST)
def test_the_worst_row_has_the_largest_ratio(error: Any, bound: Any, case: Any, row: int) -> None:
    at = compare(error, bound)
    assert at is not None
    assert (at.case, at.row) == (case, row)


def test_rows_that_exceed_come_worst_first_and_from_the_worst_case_only() -> None:
    at = compare({"a": [3.0, 0.0, 5.0, 2.0], "b": [4.0]}, {"a": [1.0, 1.0, INF, 0.1], "b": [1.0]})
    assert at is not None
    assert at.wrong.tolist() == [3, 0]
    assert (at.compared, at.exceeding, at.undecided) == (4, 3, 1)


def test_every_result_counts_what_it_compared() -> None:
    assert held([0.0, 1.0, 0.0], [1.0, 1.0, INF]).evidence["compared"] == 2
    assert held([0.0, 0.0], [INF, INF]).evidence["compared"] == 0
    assert held([], []).evidence["compared"] == 0
    assert held({"a": [0.0, 0.0], "b": [0.0]}, 1.0).evidence["compared"] == 3
    assert held(0.0, 1.0, evidence={"compared": 400}).evidence["compared"] == 400  # a search tried so many points
    assert isinstance(held(0.0, 1.0).evidence["compared"], int)


def test_the_evidence_says_how_near_each_case_is_to_its_bound() -> None:
    found = held({("y", 0): [0.5], ("y", 1): [0.75], "log_det": [0.1]}, 1.0).evidence
    assert (found["largest_ratio_y"], found["largest_ratio_log_det"], found["largest_error"]) == (0.75, 0.1, 0.75)
    assert held([0.5], [2.0]).evidence["largest_ratio"] == 0.25
    found = held([2.0, 0.0, 1.0], [1.0, 1.0, INF], evidence=lambda at: {"value": at.row}).evidence
    assert (found["exceeding"], found["undecided"], found["value"]) == (1, 1, 0)


def test_a_failure_says_expected_got_and_what_to_try() -> None:
    failed = held([0.1, 3.0], [1.0, 1.0], remedy="try", counterexample=lambda at: Counterexample({"row": at.row}))
    assert failed.message == "expected x, got 3 in row 1; try"
    assert failed.tolerance == "1.00e+00 = 64u"
    assert failed.counterexample is not None
    assert failed.counterexample.inputs == {"row": 1}
    assert held([0.0], [1.0], counterexample=lambda at: Counterexample({})).counterexample is None
    assert held([1.0], [0.0], tolerance="exact").tolerance == "exact"
    assert held([0.0], [INF], undecided="no row").message == "no row"
    assert held([], [], nothing="refused").message == "refused"


def test_nothing_is_written_or_measured_where_nothing_failed() -> None:
    def never(_: Any) -> Any:
        raise AssertionError

    assert held([0.0], [1.0], expected=never, got=never, counterexample=never).status == "passed"


def measure(calls: Any, x: Any, allowed: float) -> tuple[float, float]:
    return float(np.abs(x).max()) + calls, allowed


def test_the_counterexample_is_one_simple_row_that_still_refutes() -> None:
    found = shrunk(0.0, measure, "x", x=np.array([[3.14159, 0.3], [9.0, 9.0]]), allowed=3.0)
    assert found.inputs["x"].shape == (1, 2)
    assert found.inputs["x"][0, 1] == 0.0
    assert measure(0.0, **found.inputs)[0] > 3.0
    assert found.measure is measure


def test_a_fault_that_needs_its_batch_keeps_the_batch() -> None:
    def of_batches(calls: Any, x: Any) -> tuple[float, float]:
        return float(len(x)), 1.0

    assert len(shrunk(None, of_batches, "x", x=np.ones((3, 2))).inputs["x"]) == 3


BROKEN = {
    "a NaN error passes": ("~(e <= b)", "(e > b)"),
    "an infinite bound passes": ("known, exceeds = np.isfinite(b),", "known, exceeds = np.ones(len(b), dtype=bool),"),
    "an infinite bound fails": ("exceeds = np.isfinite(b), np.isfinite(b) & ~(e <= b)", "exceeds = np.isfinite(b), ~(e <= b)"),
    "nothing passes": ('Outcome("skipped", nothing', 'Outcome("passed", nothing'),
    "undecided passes": ("if not at.compared:", "if False:"),
    "the first row is the worst": ("worst = int(order[0])", "worst = 0"),
    "the largest error is the worst": ("np.lexsort((-size, -ratio))", "np.argsort(-size)"),
    "the undecided may be the worst": ("ratio = np.where(known, ratio, -np.inf)", "pass"),
    "equality fails": ("~(e <= b)", "~(e < b)"),
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_broken_verdict_breaks_a_rule(fault: str) -> None:
    """The tables above can fail: each of these verdicts, wrong in one place, does not fulfil them."""
    source = Path(inspect.getfile(verdict)).read_text(encoding="utf-8")
    right, wrong = BROKEN[fault]
    assert right in source
    broken: dict[str, Any] = {"__name__": "iresnet_verify.check.verdict"}
    exec(compile(source.replace(right, wrong), "broken verdict", "exec", dont_inherit=True), broken)
    texts = {"expected": "", "got": "", "passed": "", "tolerance": "", "oracle": ""}
    statuses = [broken["verdict"](e, b, **texts).status for e, b, _ in STATUS]
    worst = [(at.case, at.row) for at in (broken["compare"](e, b) for e, b, *_ in WORST)]
    assert statuses != [status for *_, status in STATUS] or worst != [(case, row) for *_, case, row in WORST]
