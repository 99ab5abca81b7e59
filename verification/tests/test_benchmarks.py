"""The benchmarks compare equals: identical weights agree, and one round of the smallest group runs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


@pytest.mark.filterwarnings("ignore")
def test_contenders_agree_and_run() -> None:
    from bench_block import TASKS
    from contenders import SHAPES, contenders

    smallest = contenders(next(iter(SHAPES)))
    exact = [np.asarray(work()) for work in TASKS["exact log-det"](smallest).values()]
    for other in exact[1:]:
        assert np.abs(other - exact[0]).max() <= 2.0**-53 * 1e4
    for task in ("forward", "inverse"):
        assert all(np.isfinite(np.asarray(work())).all() for work in TASKS[task](smallest).values())
