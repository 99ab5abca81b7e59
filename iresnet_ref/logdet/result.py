"""What a log-determinant evaluation returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from iresnet_ref.logdet.student import student_quantile


@dataclass(frozen=True)
class LogDet:
    """log|det dF/dx| in nats, one entry per row, with its guarantees.

    `value`; `standard_error` from independent replicates (0 for deterministic methods, NaN with fewer than 8 replicates);
    `bias_bound` ≥ |E[value] − truth| of the method in exact arithmetic; `evaluations`: products with J_g or its transpose;
    `method` as it was carried out; `replicates` (0 where nothing is random); `exact_traces`: how many terms of the series
    are exact traces rather than estimates.
    """

    value: Any
    standard_error: Any
    bias_bound: Any
    evaluations: Any
    method: str
    replicates: int = 0
    exact_traces: int = 0

    def interval(self, level: float = 0.95) -> tuple[Any, Any]:
        """Return (low, high): value ∓ (bias_bound + t·standard_error), t the Student quantile for replicates − 1.

        Asymptotic in the number of replicates: roulette estimates are skewed. NaN where there is no standard error.
        The coverage measured from 16 replicates is published in docs/estimators.md.

        >>> import numpy as np, iresnet_ref as ir
        >>> F = ir.ResidualBlock(ir.mlp((4, 8, 4), lipschitz=0.5))
        >>> result = ir.logdet(F, np.zeros((1, 4)), method="roulette", probes=ir.Probes(count=16))
        >>> low, high = result.interval(0.999)
        >>> bool(low[0] <= ir.logdet(F, np.zeros((1, 4)), method="exact").value[0] <= high[0])
        True
        """
        if not 0.0 < level < 1.0:
            raise ValueError(f"interval: expected 0 < level < 1, got {level}; try 0.95")
        t = student_quantile(0.5 + 0.5 * level, self.replicates - 1) if self.replicates > 1 else 1.0
        half = self.bias_bound + t * self.standard_error
        return self.value - half, self.value + half
