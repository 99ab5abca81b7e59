"""Bounds on log det(I + J) from L = Lip(g) < 1 and d, in nats."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from iresnet_ref.arrays import public, whole_number
from iresnet_ref.arrays.validation import require_lipschitz


@public
def logdet_bounds(d: int, lipschitz: float) -> tuple[float, float]:
    """Return (d·log(1 − L), d·log(1 + L)), which enclose log det(I + J): every eigenvalue of J has modulus ≤ L.

    Limits: both are rounded to nearest, each within 4u of itself, and not outwards.
    Reference: [B19], Lipschitz bounds on the log-determinant.
    Units: nats. Raises: NotContractiveError for L outside [0, 1).

    >>> [round(bound, 4) for bound in logdet_bounds(3, 0.5)]
    [-2.0794, 1.2164]
    """
    require_lipschitz("logdet_bounds", lipschitz)
    whole_number("logdet_bounds: d", d, 0)
    return d * math.log1p(-lipschitz), d * math.log1p(lipschitz)


@public
def truncation_bound(d: int, lipschitz: float, n: int) -> float:
    """Return −d(log(1 − L) + Σ_{k≤n} Lᵏ/k) ≥ |Σ_{k>n} (−1)^{k+1} tr(Jᵏ)/k| ([B19] Thm 4).

    Summed from the tail, Σ_{k>n} Lᵏ/k, so that nothing cancels. The remainder past the last term m is added: it is at most
    L^{m+1}/((m + 1)(1 − L)), and, near L = 1 far less, E₁(mλ) ≤ Lᵐ log(1 + 1/(mλ)), λ = −log L (Abramowitz & Stegun 5.1.20).
    Units: nats. Raises: NotContractiveError for L outside [0, 1).

    >>> abs(truncation_bound(2, 0.5, 0) - 2 * math.log(2)) < 1e-15
    True
    """
    require_lipschitz("truncation_bound", lipschitz)
    whole_number("truncation_bound: d", d, 0)
    whole_number("truncation_bound: n", n, 0)
    return d * _cut_off(lipschitz, n) if lipschitz else 0.0


@lru_cache(maxsize=256)
def _cut_off(lipschitz: float, n: int) -> float:
    """Return Σ_{k>n} Lᵏ/k, rounded up by less than 1e-20 of itself: a series is evaluated again and again for one L."""
    slope = -math.log(lipschitz)
    m = n + min(10**6, math.ceil((46.1 - math.log1p(-lipschitz)) / slope))  # the rest is below 1e-20 of the first term
    k = np.arange(n + 1.0, m + 1.0)
    rest = min(lipschitz ** (m + 1) / ((m + 1) * (1.0 - lipschitz)), lipschitz**m * math.log1p(1.0 / (m * slope)))
    return math.fsum(lipschitz**k / k) + rest
