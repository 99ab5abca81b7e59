"""One cause, one finding: which results follow from another one.

A result that could not be decided names the check that reports why (`Outcome.because_of`). Beyond that, several checks examine one
claim by different means, and one mistake fails them together: of those that failed the first is the finding and the others
follow from it. They keep their status and their evidence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from iresnet_verify.check.result import CheckResult

SAME_CLAIM = (
    ("lipschitz.bounds-jacobian", "lipschitz.bounds-pairs", "lipschitz.bounds-stretch", "lipschitz.all-magnitudes",
     "convergence.banach-rate"),
    ("inverse.recovers-input", "inverse.keeps-tolerance", "inverse.recovers-output", "inverse.odd-inputs", "convergence.is-reported",
     "convergence.worst-input"),
    ("logdet.matches-determinant", "logdet.one-value", "logdet.adds-up", "logdet.worst-input", "logdet.all-magnitudes",
     "logdet.within-bounds", "logdet.positive-determinant", "logdet.depends-on-input", "estimator.unbiased"),
)
"""Checks of one claim, the most direct first."""


def attribute(results: Iterable[CheckResult]) -> tuple[CheckResult, ...]:
    """Return the results with `because_of` where an undeclared failure follows from another undeclared failure."""
    found = tuple(results)
    failed = {r.id for r in found if r.status == "failed" and r.expected is None}
    cause: dict[str, str] = {}
    for ids in SAME_CLAIM:
        first, *others = [id for id in ids if id in failed] or [""]
        cause |= dict.fromkeys(others, first)
    return tuple(replace(r, because_of=cause[r.id]) if r.id in cause and r.because_of is None else r for r in found)
