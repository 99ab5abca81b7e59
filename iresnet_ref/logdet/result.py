"""What a log-determinant evaluation returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LogDet:
    """log|det dF/dx| in nats, one entry per row, with its guarantees.

    `value`; `standard_error` from independent replicates (0 for deterministic methods, NaN with fewer than 8 replicates);
    `bias_bound` ≥ |E[value] − truth| of the method in exact arithmetic; `evaluations`: products with J_g or its transpose.
    """

    value: Any
    standard_error: Any
    bias_bound: Any
    evaluations: Any
    method: str
