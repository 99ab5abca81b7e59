"""A baseline: what failed before, so that only new findings fail. JSON, {"schema": 1, "known": {subject: [check ids]}}.

Unlike a declared failure a baseline needs no reason and is not strict: what it lists and what now passes is reported as
fixed and fails nothing, so that the entry can be removed at any time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from iresnet_verify.check.audit_result import AuditResult
from iresnet_verify.subject.errors import SubjectError

Known = Mapping[str, Sequence[str]]


def read(path: Path) -> Known:
    """Return {subject: ids}. Raises SubjectError for a file that is no baseline."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        known = data["known"]
        if data["schema"] != 1 or not all(isinstance(v, list) and all(isinstance(i, str) for i in v) for v in known.values()):
            raise ValueError("its schema is not 1")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SubjectError(
            f"{path}: expected a baseline, {{\"schema\": 1, \"known\": {{subject: [check ids]}}}}, got {type(error).__name__}: {error}; "
            "write one with --write-baseline"
        ) from error
    return dict(known)


def write(reports: Sequence[AuditResult], path: Path) -> None:
    """Write what fails now without having been declared."""
    known = {str(r.subject["name"]): sorted({c.id for c in r.checks if c.status == "failed" and c.expected is None}) for r in reports}
    text = json.dumps({"schema": 1, "known": {k: v for k, v in sorted(known.items()) if v}}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def apply(reports: Sequence[AuditResult], known: Known, name: str) -> list[AuditResult]:
    """Return the reports with each failure of the baseline marked as expected."""
    def marked(report: AuditResult) -> AuditResult:
        mine = set(known.get(str(report.subject["name"]), ()))
        checks = [
            replace(c, expected=f"known: in {name}") if c.status == "failed" and c.expected is None and c.id in mine else c
            for c in report.checks
        ]
        return replace(report, checks=checks)

    return [marked(r) for r in reports]


def fixed(reports: Sequence[AuditResult], known: Known) -> list[str]:
    """Return "subject: check" for what the baseline lists and what now passes."""
    return [
        f"{r.subject['name']}: {c.id}"
        for r in reports for c in r.checks
        if c.status == "passed" and c.id in known.get(str(r.subject["name"]), ())
    ]
