"""Reproductions for the failed results of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from iresnet_verify.check.audit_result import AuditResult
from iresnet_verify.check.result import CheckResult
from iresnet_verify.report.names import slug
from iresnet_verify.reproduction.reproduce import Audited, write
from iresnet_verify.running.run import Prepared, plan_audit
from iresnet_verify.subject.subject import Subject


def attach(reports: Sequence[AuditResult], folder: Path) -> list[AuditResult]:
    """The reports with a reproduction for every failed result that has none yet and whose subject is at hand."""
    labels: list[str] = []
    for report in reports:
        label = slug(str(report.subject.get("name", "subject")))
        labels.append(label if label not in labels else f"{label}-{len(labels)}")
    return [_attach(report, folder, label) for report, label in zip(reports, labels, strict=True)]


def _attach(report: AuditResult, folder: Path, label: str) -> AuditResult:
    missing = {c.id for c in report.checks if c.status == "failed" and c.reproduce is None}
    if not missing or not isinstance(report.origin, Subject):
        return report
    prepared = Prepared(report.origin, report.seed)
    share = {p.check.id: p.alpha for p in plan_audit(prepared, report.budget, report.alpha)}

    def path(check: CheckResult) -> str:
        audited = Audited(prepared, None, 0, report.seed, report.budget, share.get(check.id, report.alpha), label)
        return str(write(check, audited, folder))

    return replace(report, checks=[replace(c, reproduce=path(c)) if c.id in missing else c for c in report.checks])
