"""What an inversion returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Inverse:
    """The computed preimage and its guarantees, one entry per row.

    `x` (batch, *event); `residual_norm` = ‖y − x − g(x)‖₂ as computed, or a proved bound on it where x is a last Banach
    step that was not evaluated again (`inversion.last_step`); `error_bound` ≥ the distance from x to the exact preimage of y and
    to every x′ whose computed F(x′) equals y (inf where rounding leaves nothing proved); `evaluations` of g plus
    products with J_g, all of them; `converged`: residual_norm ≤ rtol·max(‖x‖, ‖y‖, ‖g(x)‖).
    """

    x: Any
    residual_norm: Any
    error_bound: Any
    evaluations: Any
    converged: Any
    method: str = "banach"
