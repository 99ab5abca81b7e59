"""Quantiles of Student's t, for intervals from independent replicates."""

from __future__ import annotations

import math


def student_cdf(t: float, degrees: int) -> float:
    """Return P(T ≤ t) for n degrees of freedom, with θ = arctan(t/√n) (Abramowitz & Stegun 26.7.3, 26.7.4).

    n odd: A = (2/π)(θ + sin θ(cos θ + (2/3)cos³θ + (2·4)/(3·5)cos⁵θ + …)); n even: A = sin θ(1 + (1/2)cos²θ + (1·3)/(2·4)cos⁴θ + …).

    >>> student_cdf(1.0, 1)
    0.75
    """
    theta = math.atan2(t, math.sqrt(degrees))
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = degrees % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, degrees, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    area = 2.0 / math.pi * (theta + sine * total) if odd else sine * total
    return 0.5 + 0.5 * area


def student_quantile(p: float, degrees: int) -> float:
    """Return t with P(T ≤ t) = p for 1/2 ≤ p < 1, by bisection.

    >>> round(student_quantile(0.975, 15), 3)
    2.131
    """
    low, high = 0.0, 1.0
    while student_cdf(high, degrees) < p:
        low, high = high, 2.0 * high
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if student_cdf(middle, degrees) < p else (low, middle)
    return high
