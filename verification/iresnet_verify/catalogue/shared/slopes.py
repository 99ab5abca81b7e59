"""The derivative of one number along a direction of the parameters, by differences of its values alone.

Central differences (f(h) − f(−h))/2h and one-sided ones ±(f(±h) − f(0))/h at h = h₀·4⁻ᵏ are extrapolated (Richardson); the entry
with the smallest estimated error wins. The error of an entry is its distance to the entries it was made from (Ridders) plus the
rounding of f over the smallest step, doubled. That rounding is *measured*: differences of sixth order of f at seven points some
roundings apart see nothing else (Moré and Wild, Estimating computational noise, SIAM J. Sci. Comput. 33, 2011).

Numerical limits: at a kink the one-sided derivatives differ and the central one is their mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LEVELS = 8
POINTS = 7
SAFE = 8.0
"""The measured rounding is a root mean square of one difference: this many of it are allowed."""


@dataclass(frozen=True)
class Slope:
    """The derivative at 0, its error, and the derivatives from the left and from the right with theirs."""

    value: float
    error: float
    left: float
    right: float
    one_sided_error: float

    @property
    def kink(self) -> float:
        """How far the one-sided derivatives lie apart beyond their error."""
        return max(0.0, abs(self.right - self.left) - self.one_sided_error)


def rounding(f: Callable[[float], float], spacing: float) -> float:
    """Return the root mean square of the rounding of f, from differences of sixth order of values `spacing` apart."""
    values = np.array([f(spacing * (k - POINTS // 2)) for k in range(POINTS)])
    order = POINTS - 1
    (difference,) = np.diff(values, order)
    return float(abs(difference)) / math.sqrt(math.comb(2 * order, order))


def slope(f: Callable[[float], float], first: float, noise: float) -> Slope:
    """Return the derivative of f at 0 from steps `first`·4⁻ᵏ; `noise` is the rounding of one value of f."""
    middle = f(0.0)
    steps = [first * 4.0**-k for k in range(LEVELS)]
    pairs = [(f(h), f(-h)) for h in steps]
    central = _extrapolated([(up - down) / (2.0 * h) for h, (up, down) in zip(steps, pairs, strict=True)], steps, noise, 16.0)
    right = _extrapolated([(up - middle) / h for h, (up, _) in zip(steps, pairs, strict=True)], steps, 2.0 * noise, 4.0)
    left = _extrapolated([(middle - down) / h for h, (_, down) in zip(steps, pairs, strict=True)], steps, 2.0 * noise, 4.0)
    return Slope(*central, left[0], right[0], left[1] + right[1])


def _extrapolated(differences: list[float], steps: list[float], noise: float, ratio: float) -> tuple[float, float]:
    """(value, error) of Richardson's tableau in powers of h (ratio 4) or of h² (ratio 16)."""
    best, error = math.nan, math.inf
    previous: list[float] = []
    for h, difference in zip(steps, differences, strict=True):
        row = [difference]
        for m, parent in enumerate(previous, start=1):
            entry = row[-1] + (row[-1] - parent) / (ratio**m - 1.0)
            estimate = 2.0 * (max(abs(entry - row[-1]), abs(entry - parent)) + noise / h)
            if estimate < error:
                best, error = entry, estimate
            row.append(entry)
        previous = row
    return best, error
