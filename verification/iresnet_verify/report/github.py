"""Annotations for GitHub's log: one workflow command a finding, shown next to the change that caused it.

The form is `::error title=…::message`, with %, CR, LF, and in properties also : and , escaped as the runner expects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from iresnet_verify.check.audit_result import AuditResult
from iresnet_verify.report.text import findings, legal, state

LEVELS = {"failed": "error", "unexpected": "error", "error": "warning", "inconclusive": "notice"}


def lines(reports: Sequence[AuditResult]) -> Iterator[str]:
    """One line for each result that someone should look at."""
    for report in reports:
        said_of = {f.check: f.sentences for f in findings(report)}
        for c in report.checks:
            level = LEVELS.get(state(c).key)
            if level is not None and c.because_of is None:
                said = c.message or c.claim if c.status != "passed" else f"declared to fail ({c.expected}), but passed"
                said = said_of.get(c.id, said)
                yield f"::{level} title={_property(str(report.subject.get('name', '')) + ' ' + c.id)}::{_data(said)}"


def _data(text: str) -> str:
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return legal(escaped)


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
