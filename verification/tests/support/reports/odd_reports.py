"""A report with every status, whose names and numbers are as odd as they come."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from iresnet_verify import Report
from iresnet_verify.check.result import CheckResult

NASTY = "a\x00b\x1b[31m<&\"'[bold]\ud800\u2028]]>"
EVIDENCE = {
    "nan": math.nan, "inf": math.inf, "minus": -math.inf, "float32": np.float32(0.1), "int64": np.int64(3),
    "bool": np.True_, "array": np.array([1.5, np.nan]), "nested": {"a": (1, None)}, "path": Path("x"), NASTY: NASTY,
}


def result(id: str, status: Any = "passed", **more: Any) -> CheckResult:
    fields = {"claim": "F⁻¹(F(x)) = x", "reference": "B19, eq. (1)", "kind": "search", "message": f"about {id}", **more}
    return CheckResult(id=id, family=id.split(".", maxsplit=1)[0], status=status, **fields)


RESULTS = (
    result("inverse.one"),
    result("inverse.two", "failed", message=NASTY, evidence=EVIDENCE, reproduce="r/two.py", tolerance="1e-12 = 8·u"),
    result("logdet.declared", "failed", expected="upstream"),
    result("logdet.surprise", expected="upstream"),
    result("estimator.open", "inconclusive"),
    result("gradient.none", "skipped"),
    result("hygiene.broken", "error", message="died of SIGSEGV"),
)
REPORT = Report(
    subject={"name": NASTY, "event_shape": [3], "framework": "numpy", "dtype": "float64", "device": "cpu",
             "has_log_det": True},
    environment={"python": "3.11"}, seed=5, alpha=1e-6, budget="quick", checks=RESULTS, seconds=1.5,
)
