"""Bounds on log det(I + J) from L = Lip(g) < 1 and d, in nats."""

from __future__ import annotations

import math


def logdet_bounds(d: int, lipschitz: float) -> tuple[float, float]:
    """Return (d·log(1 − L), d·log(1 + L)), which enclose log det(I + J): every eigenvalue of J has modulus ≤ L.

    Reference: [B19], Lipschitz bounds on the log-determinant.

    >>> [round(bound, 4) for bound in logdet_bounds(3, 0.5)]
    [-2.0794, 1.2164]
    """
    return d * math.log1p(-lipschitz), d * math.log1p(lipschitz)


def truncation_bound(d: int, lipschitz: float, n: int) -> float:
    """Return −d(log(1 − L) + Σ_{k≤n} Lᵏ/k) ≥ |Σ_{k>n} (−1)^{k+1} tr(Jᵏ)/k| ([B19] Thm 4).

    Summed from the tail, Σ_{k>n} Lᵏ/k, so that nothing cancels; the remainder past the last term is bounded
    geometrically and added.

    >>> abs(truncation_bound(2, 0.5, 0) - 2 * math.log(2)) < 1e-15
    True
    """
    if lipschitz <= 0.0:
        return 0.0
    terms: list[float] = []
    k = n + 1
    term = lipschitz**k / k
    while term > 1e-20 * lipschitz ** (n + 1) / (n + 1) * (1.0 - lipschitz) and term > 0.0 and len(terms) < 10**6:
        terms.append(term)
        k += 1
        term = lipschitz**k / k
    return d * (math.fsum(terms) + term / (1.0 - lipschitz))
