"""The results of an audit of one subject. Plain data: writers live in `report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from iresnet_verify.check.outcome import Status
from iresnet_verify.check.result import CheckResult


@dataclass(frozen=True)
class AuditResult:
    """The audit of one subject."""

    subject: Mapping[str, Any]
    """Name, event_shape, framework, dtype, device, claims, origin, and the conventions that were found."""
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
