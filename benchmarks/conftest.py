"""Print the ratios of one run: each contender over the reference on NumPy, group by group."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    """Ratios of median times, measured side by side in this run, one thread."""
    session = getattr(config, "_benchmarksession", None)
    groups: dict[str, dict[str, float]] = {}
    for bench in session.benchmarks if session else ():
        groups.setdefault(bench.group, {})[bench.params["contender"]] = bench.stats.median
    if not groups:  # nothing was timed
        return
    terminalreporter.section("median time over that of the reference on NumPy (one thread, float64, this run)")
    for group, times in groups.items():
        base = times.get("reference on NumPy")
        if base is None:
            continue
        row = "  ".join(f"{name} {t / base:.2f}" for name, t in times.items())
        terminalreporter.write_line(f"{group:48s} {row}")
