"""A confidence interval for a mean from few independent replicates that may be skewed, heavy-tailed or all alike.

With s the standard deviation of n replicates and a their skewness, T = (mean − truth)/s. Two intervals are joined:
Student's |T| ≤ w, w = t/√n, and Hall's |g(T)| ≤ w, where g(T) = T + aT²/3 + a²T³/27 + a/(6n) is free of skewness to the order
1/n and g⁻¹(w) = (3/a)((1 + a(w − a/(6n)))^{1/3} − 1) (P. Hall, *On the removal of skewness by transformation*, JRSS B 54, 1992).
Hall's is the one that covers where the replicates are skewed, Student's where the sample looks skewed and they are not.

The variance of s² of replicates with excess kurtosis κ is σ⁴(κ/n + 2/(n − 1)), that of normal ones with 2/(κ/n + 2/(n − 1))
degrees of freedom (Satterthwaite 1946): t is the quantile with n//2 of them, which stands for κ = 2.

No sample shows that a rare replicate is missing from it. What is known beforehand: a quadratic form of signs that is
not constant takes its most likely value with probability up to ¾ (a polynomial of degree 2 over signs is 0 with probability at most
1 − 2⁻², Schwartz–Zippel; attained by the cycle of three), so that p probes are all alike with probability up to (¾)ᵖ:
.10 for 8, .010 for 16. And replicates that agree to rounding say nothing of the variance: the proved bound stands for it then.
"""

from __future__ import annotations

import math

from iresnet_ref.arrays import Array, device, namespace
from iresnet_ref.log_determinant.student import student_quantile
from iresnet_ref.probes import Probes
from iresnet_ref.rounding import unit_roundoff

FEWEST_REPLICATES = 8
"""Below this many independent replicates no standard error is given."""
FEWEST_SIGN_PROBES = 16
"""Below this many probes of signs no interval is given: (¾)¹⁶ = .010."""


def replicates_needed(probes: Probes) -> int:
    """Return from how many replicates an interval is given.

    >>> replicates_needed(Probes(kind="gaussian")), replicates_needed(Probes()), replicates_needed(Probes(kind="hadamard", block=4))
    (8, 16, 8)
    """
    signs = 0 if probes.kind == "gaussian" else -(-FEWEST_SIGN_PROBES // probes.block)
    return max(FEWEST_REPLICATES, signs)


def error_and_skewness(estimates: Array, mean: Array, size: float, variance_bound: float) -> tuple[Array, Array]:
    """Return the standard error √(Σ(Y − mean)²/((n − 1)n)) of the mean of n replicates and their skewness m₃/m₂^{3/2}.

    Replicates whose standard deviation is at most 4u(|mean| + size), `size` that of the numbers which an estimate adds up, are
    alike to rounding: √(variance_bound/n) and 0, unless the variance is larger. NaN below the fewest from which it can be told.
    """
    xp = namespace(estimates)
    n = estimates.shape[0]
    if n == 1:
        return xp.full(mean.shape, math.nan, dtype=mean.dtype, device=device(mean)), xp.zeros_like(mean)
    deviation = estimates - mean
    root = xp.sqrt(xp.mean(deviation * deviation, axis=0))
    alike = root <= 4.0 * unit_roundoff(mean) * (xp.abs(mean) + size)
    scaled = deviation / xp.where(alike, xp.ones_like(root), root)
    skewness = xp.where(alike, xp.zeros_like(root), xp.mean(scaled * scaled * scaled, axis=0))
    if n < FEWEST_REPLICATES:
        return xp.full(mean.shape, math.nan, dtype=mean.dtype, device=device(mean)), skewness
    error = root / math.sqrt(n - 1)
    proved = xp.full_like(error, math.sqrt(variance_bound / n))
    return xp.where(alike, xp.maximum(error, proved), error), skewness


def limits(level: float, error: Array, a: Array, n: int) -> tuple[Array, Array]:
    """Return how far the interval reaches below and above the mean of n replicates with this standard error and skewness."""
    xp = namespace(error)
    w = student_quantile(0.5 + 0.5 * level, max(n // 2, 1)) / math.sqrt(n)
    below, above = (side * _unskewed(side * w, a, n) for side in (1.0, -1.0))
    s = error * math.sqrt(n)
    return s * xp.maximum(below, xp.full_like(below, w)), s * xp.maximum(above, xp.full_like(above, w))


def _unskewed(w: float, a: Array, n: int) -> Array:
    """Return g⁻¹(w), w itself where the skewness a is too small to matter."""
    xp = namespace(a)
    matters = xp.abs(a) > unit_roundoff(a) ** (1.0 / 3.0)
    a = xp.where(matters, a, xp.ones_like(a))
    z = 1.0 + a * (w - a / (6.0 * n))
    root = xp.sign(z) * xp.abs(z) ** (1.0 / 3.0)
    return xp.where(matters, 3.0 / a * (root - 1.0), xp.full_like(a, w))
