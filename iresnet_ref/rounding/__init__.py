"""Unit roundoff, the constants γ_n, and rounding outwards."""

from iresnet_ref.rounding.floating_point import (
    ELEMENTARY,
    FLOAT64_ROUNDOFF,
    SMALLEST_NORMAL,
    down,
    gamma,
    logdet_rounding,
    smallest_normal,
    unit_roundoff,
    up,
)

__all__ = [
    "ELEMENTARY",
    "FLOAT64_ROUNDOFF",
    "SMALLEST_NORMAL",
    "down",
    "gamma",
    "logdet_rounding",
    "smallest_normal",
    "unit_roundoff",
    "up",
]
