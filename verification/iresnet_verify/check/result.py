"""The result of one check on one subject."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from iresnet_verify.check.outcome import Counterexample, Status

SCHEMA = 1


@dataclass(frozen=True)
class CheckResult:
    """One check on one subject, over all modes it ran in (the worst mode decides the status).

    >>> from iresnet_verify import Subject, audit
    >>> double = Subject(name="double", event_shape=(2,), forward=lambda x: 2 * x, inverse=lambda y: y / 2, framework="numpy")
    >>> audit(double, budget="quick", select=["inverse.recovers-input"]).checks[0].status
    'passed'
    """

    id: str
    """`family.claim`, stable once released."""
    family: str
    """The part of the id before the dot."""
    status: Status
    """"passed", "failed", "inconclusive", "skipped" or "error"."""
    claim: str
    """The statement that was tested, with its equation."""
    reference: str
    """Paper and equation, or the promise that the claim restates."""
    kind: str
    """"proof", "equivalence" or "search": what a pass means."""
    message: str = ""
    """What was found, in one sentence: expected, got, what to try."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """Numbers by name; `compared` is how many values were compared."""
    tolerance: str = ""
    """The bound and its derivation."""
    oracle: str = ""
    """Where the truth came from."""
    expected: str | None = None
    """The declared reason, where this check is an expected failure."""
    reproduce: str | None = None
    """Path of the reproduction file."""
    because_of: str | None = None
    """The check whose finding this result follows from."""
    seconds: float = 0.0
    """Of the wall clock, over all modes."""
    cpu_seconds: float = 0.0
    """Of the processor, all threads together."""
    mode: str | None = None
    """The mode in which the reported outcome was seen."""
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Plots of the HTML page: name -> {"kind": …, "x": […], "y": […]}."""
    counterexample: Counterexample | None = None

    @property
    def unexpected(self) -> bool:
        """Failed without being declared, or declared and passed."""
        return (self.status == "failed") != (self.expected is not None) if self.status in ("failed", "passed") else False
