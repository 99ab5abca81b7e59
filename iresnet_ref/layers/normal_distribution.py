"""The standard normal distribution function Φ, which the array standard does not have, to the precision of the dtype.

For x ≥ 0, erfc(x) = (2x e^{−x²}/π) ∫₀^∞ e^{−t²}/(t² + x²) dt. The midpoint rule with step h, corrected by the residue at t = ix,

    erfc(x) = (2hx e^{−x²}/π) Σ_{n≥0} e^{−tₙ²}/(tₙ² + x²) + 2E/(1 + E) + ε,      tₙ = (n + ½)h,  E = e^{−2πx/h},

errs by |ε| ≤ 2e^{−π²/h²} (docs/proofs.md). All terms are positive: nothing cancels. h and the number of terms follow from the dtype,
so that 50 digits are 50 digits.
Reference: Hunter, Regan, *A note on the evaluation of the complementary error function*, Math. Comp. 26, 1972.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, namespace

FARTHEST = 40.0
"""Beyond ±40 the density is 0 to rounding: 1e-348."""


def normal(z: Array) -> tuple[Array, Array]:
    """Return (Φ(z), Φ′(z)), both with a small absolute error; `test_activations` measures it.

    >>> import numpy as np
    >>> bool(normal(np.asarray(0.0))[0] == 0.5)
    True
    """
    xp = namespace(z)
    number: Any = getattr(xp, "mp", math)  # an arbitrary-precision namespace has an mpmath context
    h, nodes = _midpoints(rounding.unit_roundoff(z), number)
    x = xp.minimum(xp.abs(z), xp.full_like(z, FARTHEST)) * number.sqrt(0.5)
    square = x * x
    bell = xp.exp(-square)
    total = xp.zeros_like(z)
    for place, weight in reversed(nodes):  # the smallest first
        total = total + weight / (place + square)
    far = xp.exp(x * (-2.0 * number.pi / h))
    tail = (h / number.pi) * x * bell * total + far / (1.0 + far)
    return xp.where(z < 0.0, tail, 1.0 - tail), bell * number.sqrt(0.5 / number.pi)


@lru_cache(maxsize=8)
def _midpoints(u: float, number: Any) -> tuple[Any, tuple[tuple[Any, Any], ...]]:
    """Return h and (tₙ², e^{−tₙ²}) for an error of erfc of at most u/27."""
    digits = 4.0 - math.log(u)
    h = number.pi / number.sqrt(digits)
    squares = [((n + 0.5) * h) ** 2 for n in range(math.ceil(digits / math.pi))]
    return h, tuple((s, number.exp(-s)) for s in squares)
