"""The plots of the HTML report: small, named, without colours of their own, and honest about what no axis can hold."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
from sample_reports import error_bound_curve, estimator_curve, residual_curve

from iresnet_verify.report.plots import MOST, Scale, draw


@pytest.mark.parametrize("curve", [residual_curve(), error_bound_curve(), estimator_curve()], ids=lambda c: str(c["kind"]))
def test_a_plot_is_small_named_and_needs_no_colour_of_its_own(curve: dict[str, Any]) -> None:
    figure = draw("A <plot>", curve, "p0")
    root = ET.fromstring(figure.svg)  # well-formed
    assert len(figure.svg) < 60_000
    assert root.findtext("title") == "A <plot>"
    assert len(root.findtext("desc") or "") > 40
    assert not re.search(r"#[0-9a-f]{3}|rgb|<image|nan|inf\b", figure.svg.replace("A &lt;plot", ""), re.I)


def test_values_no_axis_can_hold_are_counted_not_dropped() -> None:
    assert draw("r", residual_curve(), "p").notes == [
        "4 of 78 values exactly 0, drawn on the lower edge.", "1 of 78 values NaN, not drawn.",
    ]
    worst = {"kind": "error-bound", "x": [math.nan, 0, math.inf, 1], "y": [1, -1, math.inf, None]}
    assert [n.split(",")[0] for n in draw("e", worst, "p").notes] == [
        "1 of 8 values exactly 0", "1 of 8 values negative", "2 of 8 values infinite", "2 of 8 values NaN",
    ]
    same = {"kind": "estimator", "x": [1], "y": [2.0], "low": [-math.inf], "high": [math.inf], "truth": 2.0}
    assert "After 1 samples the mean is 2, with confidence band −∞ to ∞" in draw("m", same, "p").svg


@pytest.mark.parametrize("kind", ["residual", "error-bound", "estimator"])
@pytest.mark.parametrize("values", [[], [0.0, 0.0], [math.nan], [math.inf] * 3, [5e-324, 1.7e308], ["a"], 3, [1.0, 1.0]])
def test_no_curve_is_too_odd_to_print_a_report(kind: str, values: Any) -> None:
    figure = draw("odd", {"kind": kind, "x": values, "y": values, "low": values, "high": values}, "p")
    assert figure.svg or "could not be drawn" in figure.notes[0]


def test_rows_beyond_their_bound_are_drawn_apart_and_never_thinned_away() -> None:
    n = 5 * MOST
    y = np.full(n, 0.1)
    y[[7, 900]] = 3.0
    figure = draw("e", {"kind": "error-bound", "x": np.ones(n), "y": y}, "p")
    assert ("dots bad", "2 beyond it") in figure.legend
    assert f"{n - 2 - MOST} rows far within the bound are not drawn." in figure.notes
    assert "2 of 1500 rows lie above the diagonal" in figure.svg


def test_axes_are_labelled_apart() -> None:
    for scale in (Scale(1.3702, 1.3709, 0, 1, log=False), Scale(-2e9, 3e9, 0, 1, log=False), Scale(1e-300, 1e300, 0, 1, log=True)):
        labels = [text for _, text in scale.ticks()]
        assert 3 <= len(labels) <= 8
        assert len(labels) == len(set(labels))
