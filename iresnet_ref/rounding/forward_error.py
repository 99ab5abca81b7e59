"""How rounding passes through the layers of a branch, row by row, in the p-norm of its events.

At x a layer has the exact value h and the computed one ĥ. s ≥ ‖ĥ − h‖ is a running error bound (Higham §3.3) that carries norms
instead of entries: an earlier layer's error is multiplied by ‖A‖, not by ‖|A|‖, which for a wide Gaussian A is many times
larger. The pair (a, b) has |s(x′) − s(x)| ≤ a‖x − x′‖ + b for every other point x′. docs/proofs.md derives each line.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from iresnet_ref import rounding
from iresnet_ref.arrays import device, expand_rows, namespace, row_norm, size


class ForwardError(NamedTuple):
    """Rounding at one layer: `error` s per row, `growth` a and `drift` b (per row), `lipschitz` of x ↦ h; p is `norm`.

    `flushed` is what a flush to zero may take of a number: the smallest normal one of the arithmetic, or of that in which the
    weights and x came.
    """

    error: Any
    growth: float
    drift: Any
    lipschitz: float
    norm: float = 2.0
    flushed: float = 0.0


def no_error(x: Any, norm: float = 2.0, flushed: float = 0.0) -> ForwardError:
    """Return the rounding in front of the first layer: none, and x as it is."""
    zero = namespace(x).zeros(x.shape[:1], dtype=x.dtype, device=device(x))
    return ForwardError(zero, 0.0, zero, 1.0, norm, max(flushed, rounding.smallest_normal(x)))


def through_entries(y: Any, before: ForwardError, lipschitz: float, accuracy: float) -> ForwardError:
    """Return the rounding of y = fl φ(ĥ), φ entry by entry with this Lipschitz constant, |fl φ − φ| ≤ accuracy·u(|φ| + 1).

    s′ = (Lip s + c(‖ŷ‖ + m^(1/p)))/(1 − c), c = accuracy·u, since |φ(ĥ)| ≤ (|ŷ| + c)/(1 − c). A change of s′ stands on both
    sides of its inequality: ‖ŷ(x′) − ŷ(x)‖ ≤ Λ‖x − x′‖ + 2s′(x) + (s′(x′) − s′(x)).
    """
    change = lipschitz * before.lipschitz
    u, m = rounding.unit_roundoff(y), size(tuple(y.shape[1:]))
    if accuracy == 0.0:  # nothing is rounded, but a subnormal number may be flushed
        error = lipschitz * before.error + m ** (1.0 / before.norm) * before.flushed
        return ForwardError(error, lipschitz * before.growth, lipschitz * before.drift, change, before.norm, before.flushed)
    c, on_top = accuracy * u, 1.0 + (2 * m + 32) * u
    written = row_norm(y, y.ndim - 1, before.norm) + m ** (1.0 / before.norm)
    error = (lipschitz * before.error + c * written) * (on_top / (1.0 - c))
    solved = on_top / (1.0 - 2.0 * c)
    growth = solved * (lipschitz * before.growth + c * change)
    return ForwardError(error, growth, solved * (lipschitz * before.drift + 2.0 * c * error), change, before.norm, before.flushed)


def one_rounding(y: Any, unit: Any) -> Any:
    """Return (u·y)² in `unit`² of its row: the estimated variance of one rounding. No square leaves the range if |y| ≤ unit."""
    scaled = rounding.unit_roundoff(y) * (y / expand_rows(unit, y.ndim - 1))
    return scaled * scaled


def combined(a: Any, b: Any, p: float) -> Any:
    """Return ‖(a, b)‖_p of two non-negative arrays, p = 1, 2 or ∞."""
    if p == 1.0:
        return a + b
    larger = namespace(a).maximum(a, b)
    return larger if math.isinf(p) else row_norm(namespace(a).stack([a, b], axis=1), 1)
