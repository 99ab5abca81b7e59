"""A baseline: what failed before, and by how much, so that only new or larger findings fail.

JSON, {"schema": 2, "known": {subject: {check id: size}}}. The size of a failure is the largest error of the check, in the check's own
units, or how far it exceeds its bound where no error is reported; null where the check reports neither, and infinity as the text
"Infinity". A known failure is expected up to `GROWTH` times its size: other seeds and searches find other points. Beyond that
it fails, and says what was known. Schema 1, {subject: [check ids]}, knows no sizes and is still read.

Unlike a declared failure a baseline needs no reason and is not strict: what it lists and what now passes is reported as
fixed and fails nothing, so that the entry can be removed at any time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

from iresnet_verify.check.audit_result import AuditResult
from iresnet_verify.check.result import CheckResult
from iresnet_verify.report.text import number
from iresnet_verify.subject.errors import SubjectError

GROWTH = 2.0
"""A known failure may be this much larger before it fails again."""
SIZES = ("largest_error", "bias", "largest_gap", "largest_ratio")
"""The pieces of evidence that say how large a failure is, best first."""

Known = Mapping[str, Mapping[str, float | None]]


def size(result: CheckResult) -> float | None:
    """How large a failure is; None where its evidence does not say."""
    return size_in(result.evidence)


def size_in(evidence: Mapping[str, Any]) -> float | None:
    """How large the failure is that this evidence is of; None where it does not say."""
    for name in SIZES:
        found = evidence.get(name)
        values = list(found.values()) if isinstance(found, Mapping) else found if isinstance(found, list | tuple) else [found]
        numbers = [abs(float(v)) for v in values if isinstance(v, Real) and not isinstance(v, bool)]
        if numbers:
            return max(math.inf if math.isnan(n) else n for n in numbers)
    return None


def read(path: Path) -> Known:
    """Return {subject: {id: size}}. Raises SubjectError for a file that is no baseline."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        known = {str(name): _entries(entries, data["schema"]) for name, entries in data["known"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SubjectError(
            f"{path}: expected a baseline, {{\"schema\": 2, \"known\": {{subject: {{check id: size}}}}}}, got {type(error).__name__}: "
            f"{error}; write one with --write-baseline"
        ) from error
    return known


def _entries(entries: Any, schema: int) -> dict[str, float | None]:
    if schema == 1 and isinstance(entries, list) and all(isinstance(i, str) for i in entries):
        return dict.fromkeys(entries)
    if schema == 2 and isinstance(entries, dict):
        return {str(id): None if value is None else float(value) for id, value in entries.items()}
    raise ValueError("its schema is neither 1 nor 2" if schema not in (1, 2) else "an entry is not of its schema")


def write(reports: Sequence[AuditResult], path: Path) -> None:
    """Write what fails now without having been declared, the larger size where several subjects share a name."""
    known: dict[str, dict[str, float | None]] = {}
    for report in reports:
        mine = known.setdefault(str(report.subject["name"]), {})
        for c in report.checks:
            if c.status == "failed" and c.expected is None:
                mine[c.id] = max((s for s in (mine.get(c.id), size(c)) if s is not None), default=None)
    plain = {n: {i: s if s is None or math.isfinite(s) else "Infinity" for i, s in sorted(v.items())}
             for n, v in sorted(known.items()) if v}
    path.write_text(json.dumps({"schema": 2, "known": plain}, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def apply(reports: Sequence[AuditResult], known: Known, name: str) -> list[AuditResult]:
    """Return the reports with each failure of the baseline marked as expected, unless it has grown."""

    def marked(report: AuditResult) -> AuditResult:
        mine = known.get(str(report.subject["name"]), {})
        return replace(report, checks=[_marked(c, mine, name) for c in report.checks])

    return [marked(r) for r in reports]


def _marked(result: CheckResult, known: Mapping[str, float | None], name: str) -> CheckResult:
    if result.status != "failed" or result.expected is not None or result.id not in known:
        return result
    before, now = known[result.id], size(result)
    if before is not None and now is not None and now > GROWTH * before:
        return replace(result, message=f"{result.message}; {name} knows it at {number(before)}, it is {number(now)} now")
    return replace(result, expected=f"known: in {name}")


def fixed(reports: Sequence[AuditResult], known: Known) -> list[str]:
    """Return "subject: check" for what the baseline lists and what now passes."""
    return [
        f"{r.subject['name']}: {c.id}"
        for r in reports for c in r.checks
        if c.status == "passed" and c.id in known.get(str(r.subject["name"]), {})
    ]
