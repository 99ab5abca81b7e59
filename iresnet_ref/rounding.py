"""The one place where tolerances come from.

u is the unit roundoff (half the spacing of numbers at 1). An inner product of n terms, in any order of summation and
with or without fused multiply-add, has |fl(aᵀb) − aᵀb| ≤ γ_n |a|ᵀ|b| with γ_n = nu/(1 − nu) (Higham, *Accuracy and
Stability of Numerical Algorithms*, 2nd ed., eq. 3.3 and Lemma 3.1). Elementary functions and the activations made of
them are taken to be accurate to 8u(|φ| + 1).
"""

from __future__ import annotations

import math
from functools import cache

from iresnet_ref.arrays import Array, DType, Namespace, namespace

FLOAT64_ROUNDOFF = 2.0**-53
SMALLEST_NORMAL = 2.0**-1022
"""Of float64."""
ELEMENTARY = 8.0
"""|fl φ(z) − φ(z)| ≤ ELEMENTARY·u·(|φ(z)| + 1); measured ≤ 3.5u on CPUs, but for the slope of tanhshrink on JAX."""


def unit_roundoff(x: Array) -> float:
    """Return u of the array's own arithmetic: 2⁻²⁴, 2⁻⁵³, or 2⁻ᵖʳᵉᶜ where the namespace carries a precision context.

    >>> import numpy as np
    >>> unit_roundoff(np.ones(1, dtype=np.float32)) == 2.0**-24
    True
    """
    xp = namespace(x)
    context = getattr(xp, "mp", None)  # arbitrary-precision namespaces expose their mpmath context
    return _limits(xp, x.dtype)[0] if context is None else 2.0**-context.prec


def smallest_normal(x: Array) -> float:
    """Return the smallest normal number of x's dtype: what a flush to zero may lose."""
    xp = namespace(x)
    return float(xp.finfo(x.dtype).smallest_normal) if hasattr(xp, "mp") else _limits(xp, x.dtype)[1]


def largest(x: Array) -> float:
    """Return the largest number of x's dtype."""
    xp = namespace(x)
    return float(xp.finfo(x.dtype).max) if hasattr(xp, "mp") else _limits(xp, x.dtype)[2]


@cache
def _limits(xp: Namespace, dtype: DType) -> tuple[float, float, float]:
    """Return u, the smallest normal and the largest number of a dtype."""
    info = xp.finfo(dtype)
    return float(info.eps) / 2.0, float(info.smallest_normal), float(info.max)


def gamma(n: int | float, u: float) -> float:
    """Return γ_n = nu/(1 − nu), infinite where nu ≥ 1.

    >>> gamma(2, 0.25)
    1.0
    """
    return n * u / (1.0 - n * u) if n * u < 1.0 else math.inf


def up(value: float, steps: int = 4) -> float:
    """Return a float64 at least `steps` roundings above a positive value computed with as many rounded operations."""
    return value * (1.0 + (2 * steps + 2) * FLOAT64_ROUNDOFF)


def down(value: float, steps: int = 4) -> float:
    """Return a float64 at least `steps` roundings below a positive value."""
    return value * (1.0 - (2 * steps + 2) * FLOAT64_ROUNDOFF)


def logdet_rounding(d: int, u: float, lipschitz: float) -> float:
    """Return 8·d·u/(1 − L): the rounding of log det(I + J) by LU for ‖J‖₂ ≤ L < 1, absolute, in nats, for d up to 64.

    Where hundreds of logarithms are equal their rounding adds up: `logdet_error_bound` has the term for it.
    """
    return 8.0 * d * u / (1.0 - lipschitz) if lipschitz < 1.0 else math.inf
