"""The result of one check on one subject."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from iresnet_verify.check.outcome import Counterexample, Status

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
    because_of: str | None = None
    """The check whose finding this result follows from."""
    seconds: float = 0.0
    """Of the wall clock."""
    cpu_seconds: float = 0.0
    """Of the processor, all threads together."""
    mode: str | None = None
    """The mode in which the reported outcome was seen."""
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    counterexample: Counterexample | None = None

    @property
    def unexpected(self) -> bool:
        """Failed without being declared, or declared and passed."""
        return (self.status == "failed") != (self.expected is not None) if self.status in ("failed", "passed") else False
