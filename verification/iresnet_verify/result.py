"""The results of an audit: one `CheckResult` per check, one `Report` per subject. Plain data; writers live in `report_*`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iresnet_verify.check import Counterexample, Status

SCHEMA = 1


@dataclass(frozen=True)
class CheckResult:
    """One check on one subject, over all modes it ran in (the worst mode decides the status)."""

    id: str
    family: str
    status: Status
    claim: str
    reference: str
    kind: str
    message: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    tolerance: str = ""
    oracle: str = ""
    expected: str | None = None
    """The declared reason, where this check is an expected failure."""
    reproduce: str | None = None
    """Path of the reproduction file."""
    seconds: float = 0.0
    mode: str | None = None
    """The mode in which the reported outcome was seen."""
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    counterexample: Counterexample | None = None

    @property
    def unexpected(self) -> bool:
        """Failed without being declared, or declared and passed."""
        return (self.status == "failed") != (self.expected is not None) if self.status in ("failed", "passed") else False


@dataclass(frozen=True)
class Report:
    """The audit of one subject."""

    subject: Mapping[str, Any]
    """Name, event_shape, framework, dtype, device, claims, origin, and the conventions the suite read."""
    environment: Mapping[str, str]
    seed: int
    alpha: float
    budget: str
    checks: Sequence[CheckResult]
    seconds: float = 0.0
    origin: object = field(default=None, compare=False, repr=False)
    """The audited `Subject` where it was audited in this process: what reproductions load. In no written report."""

    @property
    def status(self) -> Status:
        """failed > error > inconclusive > passed.

        An expected failure counts as passed, an expected failure that passes as failed. *Passed* needs at least one
        inverse check, and one log-det check where a log-det was given, to have run.
        """
        found = {c.status for c in self.checks if not (c.status == "failed" and c.expected is not None)}
        if "failed" in found or any(c.unexpected for c in self.checks):
            return "failed"
        if "error" in found:
            return "error"
        ran = {c.family for c in self.checks if c.status in ("passed", "failed")}
        missing = "inverse" not in ran or (bool(self.subject.get("has_log_det")) and "logdet" not in ran)
        return "inconclusive" if missing or "inconclusive" in found else "passed"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form (schema 1)."""
        from iresnet_verify.report_json import as_dict

        return as_dict(self)

    def to_json(self, path: str | Path) -> None:
        """Write the report as JSON, reproductions into `<stem>-reproduce/` beside it."""
        from iresnet_verify.report_json import write

        write([self], Path(path))

    def to_junit(self, path: str | Path) -> None:
        """Write the report as JUnit XML."""
        from iresnet_verify.report_junit import write

        write([self], Path(path))

    def to_html(self, path: str | Path) -> None:
        """Write the report as one self-contained HTML page."""
        from iresnet_verify.report_html import write

        write([self], Path(path))
