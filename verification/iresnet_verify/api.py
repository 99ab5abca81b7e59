"""`audit` in this process, and the report that it returns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iresnet_verify.check.audit_result import AuditResult
from iresnet_verify.check.result import CheckResult
from iresnet_verify.diagnosis.diagnose import diagnose
from iresnet_verify.report import json, junit
from iresnet_verify.report.names import folder_beside
from iresnet_verify.reproduction.attach import attach
from iresnet_verify.running.description import describe_subject, environment
from iresnet_verify.running.run import Prepared, plan_audit, run_check
from iresnet_verify.subject.subject import Subject


@dataclass(frozen=True)
class Report(AuditResult):
    """The audit of one subject, and the files it can be written to.

    `status`, `checks`, `findings` and the rest: `AuditResult`.

    >>> from iresnet_verify import Subject, audit
    >>> double = Subject(name="double", event_shape=(2,), forward=lambda x: 2 * x, inverse=lambda y: y / 2, framework="numpy")
    >>> report = audit(double, budget="quick", select=["inverse.recovers-input"])
    >>> report.status, [check.id for check in report.checks], list(report.findings)
    ('passed', ['inverse.recovers-input'], [])
    """

    def to_dict(self) -> dict[str, Any]:
        """The JSON form (schema 1)."""
        return json.as_dict(self)

    def to_json(self, path: str | Path) -> None:
        """Write the report as JSON, reproductions into `<stem>-reproduce/` next to it."""
        json.write(attach([self], folder_beside(Path(path))), path)

    def to_junit(self, path: str | Path) -> None:
        """Write the report as JUnit XML."""
        junit.write([self], path)

    def to_html(self, path: str | Path) -> None:
        """Write the report as one self-contained HTML page, reproductions into `<stem>-reproduce/` next to it."""
        from iresnet_verify.report import html

        html.write(attach([self], folder_beside(Path(path))), Path(path))


def audit(
    subject: Subject, seed: int = 0, budget: str = "standard", alpha: float = 1e-6, *,
    select: Iterable[str] | None = None, ignore: Iterable[str] | None = None,
    on_result: Callable[[CheckResult], None] | None = None,
) -> Report:
    """Audit a subject in this process and return the report.

    `budget` is "quick", "standard" or "thorough". `alpha` bounds the probability that any statistical check of the
    whole audit fails a correct subject; it is split before anything runs. `select` and `ignore` hold check ids,
    families or patterns. `on_result` is called after each check. Raises `SubjectError` where the subject itself
    does not keep its contract; whatever happens inside a check is a result, never an exception.
    What failed is attributed to causes (`AuditResult.findings`).

    >>> import torch
    >>> from iresnet_verify import Subject
    >>> flow = torch.nn.Linear(2, 2).double()
    >>> wrong = Subject(name="wrong", event_shape=(2,), forward=flow, inverse=lambda y: y, module=flow)
    >>> audit(wrong, budget="quick", select=["inverse.recovers-input"]).status
    'failed'
    """
    started = time.perf_counter()
    prepared = Prepared(subject, seed)
    planned = plan_audit(prepared, budget, alpha, select=select, ignore=ignore)
    results = []
    for item in planned:
        results.append(run_check(prepared, item, seed=seed, budget=budget))
        if on_result is not None:
            on_result(results[-1])
    attributed, findings = diagnose(prepared, results, seed=seed, budget=budget)
    return Report(
        describe_subject(subject, results), environment(subject), seed, alpha, budget, attributed,
        time.perf_counter() - started, findings, origin=subject,
    )
