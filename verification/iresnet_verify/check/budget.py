"""How hard an audit works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Budget:
    """How hard one audit works. `epsilon_per_dim` is fixed before any sampling, in nats per dimension."""

    name: Literal["quick", "standard", "thorough"]
    rows: int
    """Rows per batch of inputs."""
    numbers: int
    """Rows × dimension of such a batch, at most (four rows at least)."""
    restarts: int
    """Starting points of a search."""
    steps: int
    """Iterations of a search from each start."""
    samples: int
    """Most draws of a random estimate."""
    epsilon_per_dim: float
    seconds: float
    """Limit of the CPU time of one check in one mode, when isolated."""


LONGEST = 1e7
"""Seconds of a time limit at most, 115 days: the clocks of operating systems do not hold every number."""
BUDGETS: dict[str, Budget] = {
    "quick": Budget("quick", 8, 2**12, 4, 20, 2_000, 0.1, 30.0),
    "standard": Budget("standard", 24, 2**13, 8, 60, 20_000, 0.02, 60.0),
    "thorough": Budget("thorough", 96, 2**16, 32, 300, 400_000, 0.005, 600.0),
}
