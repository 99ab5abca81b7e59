"""The results of an audit of one subject. Plain data: writers live in `report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from iresnet_verify.check.finding import Finding
from iresnet_verify.check.outcome import Status
from iresnet_verify.check.result import CheckResult


@dataclass(frozen=True)
class AuditResult:
    """The audit of one subject."""

    subject: Mapping[str, Any]
    """Name, event_shape, framework, dtype, device, claims, origin, and the conventions that were found."""
    environment: Mapping[str, str]
    """Versions and machine, as far as they may change a result."""
    seed: int
    """Equal seeds, equal audits."""
    alpha: float
    """The probability that any statistical check fails a correct subject."""
    budget: str
    """"quick", "standard" or "thorough"."""
    checks: Sequence[CheckResult]
    """One result for each check that was planned, in the order of the catalogue."""
    seconds: float = 0.0
    """What the audit took, in seconds of the wall clock."""
    findings: Sequence[Finding] = ()
    """The causes of what failed, the first one first."""
    origin: object = field(default=None, compare=False, repr=False)
    """The audited `Subject` where it was audited in this process: what reproductions load. In no written report."""

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the checks; loading the subject is not in it."""
        return sum(c.cpu_seconds for c in self.checks)

    @property
    def status(self) -> Status:
        """failed > error > inconclusive > passed.

        An expected failure counts as passed, an expected failure that passes as failed. *Passed* needs a check of the
        inverse, and one of the log-det where one was given, to have compared something (`missing_families`).
        """
        found = {c.status for c in self.checks if not (c.status == "failed" and c.expected is not None)}
        if "failed" in found or any(c.unexpected for c in self.checks):
            return "failed"
        if "error" in found:
            return "error"
        return "inconclusive" if self.missing_families or "inconclusive" in found else "passed"

    @property
    def missing_families(self) -> tuple[str, ...]:
        """The families without which nothing is established and of which no check compared anything.

        The inverse, and the log-det where one was given; of a selection those that it holds, and some comparison at least.
        """
        compared = {c.family for c in self.checks if c.status in ("passed", "failed") and c.evidence.get("compared", 1)}
        planned = {c.family for c in self.checks}
        wanted = ["inverse", *(["logdet"] if self.subject.get("has_log_det") else [])]
        missing = [f for f in wanted if f in planned and f not in compared]
        return tuple(missing or ([] if compared - {"hygiene"} or planned == {"hygiene"} else wanted))
