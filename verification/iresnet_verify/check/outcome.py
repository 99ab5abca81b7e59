"""What a check found: an outcome, with a counterexample where it failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["passed", "failed", "inconclusive", "skipped", "error"]


Kind = Literal["proof", "equivalence", "search"]

REFUSED = "refused"
"""The piece of evidence that says what the subject refused and why: reports list it on their first screen."""


@dataclass(frozen=True)
class Counterexample:
    """What refutes the claim, and how to see it again without this library.

    `measure(calls, **inputs) -> (value, bound)` is a self-contained function: its source is copied into the
    reproduction file, so it may use only its arguments and the names `np`, `math` and (for torch subjects) `torch`.
    `calls` has the attributes `forward`, `inverse`, `log_det`, `inverse_log_det`, `residual`, `log_prob` (host arrays
    in and out, absent ones None) and `subject` (the raw `Subject`). The claim is violated where not value <= bound.
    Where no such function can be written, `measure` is None and the reproduction re-runs the one check.
    """

    inputs: Mapping[str, Any]
    measure: Callable[..., tuple[float, float]] | None = None


@dataclass(frozen=True)
class Outcome:
    """What a check found. `message` is one sentence for a person; `evidence` holds numbers, never arrays of data."""

    status: Status
    message: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    tolerance: str = ""
    """The number and its derivation, e.g. "1.2e-12 = 8·d·u/(1−L) at d=8"."""
    oracle: str = ""
    """Where the truth came from, e.g. "float64 slogdet of the Jacobian by rows of g"."""
    counterexample: Counterexample | None = None
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Plots for the report: name -> {"kind": "residual"|"error-bound"|"estimator", "x": [...], "y": [...], ...}."""
    because_of: str | None = None
    """The check whose finding makes this one undecidable."""
