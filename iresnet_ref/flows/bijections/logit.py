"""Dequantisation, and the logit that turns a bounded interval into the line.

Images of integers 0 … 255 become densities by y = logit(α + (1 − 2α)v/256) of v = x + u, u uniform on (0, 1) (Theis, van den
Oord, Bethge, *A note on the evaluation of generative models*, ICLR 2016, arXiv 1511.01844; Real NVP, arXiv 1605.08803, §4.1).
A density p(v) on [0, 256]^d bounds the probability of the integers: E_u[log p(x + u)] ≤ log P(x). Since v counts integer steps,
−log₂ p(v)/d is bits per dimension with nothing to add: the 1/256 is in the log-determinant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, device, from_host, holds, namespace, public, row_norm, size, to_host
from iresnet_ref.arrays.validation import require_array, require_event, require_real
from iresnet_ref.errors import DTypeError, NonFiniteError, ShapeError
from iresnet_ref.flows.bijections.protocol import ClosedForm, Options, Pulled
from iresnet_ref.probes import Probes


@public
@dataclass(frozen=True)
class Logit(ClosedForm):
    """y = log(s/(1 − s)), s = α + (1 − 2α)x/levels, for 0 ≤ x ≤ levels, entry by entry; dy/dx = (1 − 2α)/(levels·s(1 − s)).

    levels = 256 takes dequantised bytes, levels = 1 data in [0, 1]. The computed preimage of a large |y| lies outside
    [0, levels], by up to α·levels/(1 − 2α): a density has mass there. Raises NonFiniteError for x outside [0, levels].
    Reference: Dinh, Sohl-Dickstein, Bengio, *Density estimation using Real NVP*, 2017, arXiv 1605.08803, §4.1.

    >>> import numpy as np
    >>> Logit((1,), alpha=0.25)(np.asarray([[128.0]])).tolist()
    [[0.0]]
    """

    event_shape: tuple[int, ...]
    alpha: float = 0.05
    levels: int = 256

    def __post_init__(self) -> None:
        require_event(self.event_shape, "logit")
        if not 0.0 < self.alpha < 0.5 or self.levels < 1:
            raise ValueError(f"logit: expected 0 < alpha < 0.5 and levels ≥ 1, got {self.alpha} and {self.levels}; try alpha=0.05")

    def require_values(self, x: Array, name: str, **others: Array | None) -> None:
        """Refuse also values of x outside [0, levels]; of those inside none is NaN or infinite."""
        if name != "x":
            super().require_values(x, name, **others)
            return
        finite = [namespace(a).isfinite(a) for a in others.values() if a is not None]
        if not holds((x >= 0.0) & (x <= float(self.levels)), *finite):
            super().require_values(x, name, **others)
            raise NonFiniteError(
                f"{name}: expected values in [0, {self.levels}], whose logit is finite, got others; "
                "try ir.bijections.dequantise for integers, or another levels="
            )

    @property
    def _slope(self) -> float:
        return (1.0 - 2.0 * self.alpha) / self.levels

    def _sides(self, x: Array) -> tuple[Array, Array]:
        """Return s and 1 − s, neither by a difference that cancels."""
        return self.alpha + self._slope * x, self.alpha + self._slope * (self.levels - x)

    def value(self, x: Array) -> Array:
        """Return log s − log(1 − s)."""
        xp = namespace(x)
        s, t = self._sides(x)
        return xp.log(s) - xp.log(t)

    def inverse_value(self, y: Array) -> Array:
        """Return (σ(y) − α)/slope, for y ≥ 0 as levels − (σ(−y) − α)/slope."""
        xp = namespace(y)
        e = xp.exp(-xp.abs(y))
        low = (e / (1.0 + e) - self.alpha) / self._slope
        return xp.where(y < 0.0, low, self.levels - low)

    def log_abs_det(self, x: Array, y: Array) -> Array:
        """Return Σ log slope − log s − log(1 − s)."""
        xp = namespace(x)
        s, t = self._sides(x)
        entries = math.log(self._slope) - xp.log(s) - xp.log(t)
        return xp.sum(entries, axis=tuple(range(1, x.ndim)))

    def rounding(self, x: Array, y: Array) -> Array:
        """(8·2 + 4)u(σ + 1) of σ, through the slope, and the last subtraction: entry by entry the same."""
        u, n = rounding.unit_roundoff(x), size(self.event_shape)
        each = (2.0 * rounding.ELEMENTARY + 8.0) * u * 2.0 / self._slope + 4.0 * u * self.levels
        xp = namespace(y)
        return xp.zeros_like(row_norm(y, y.ndim - 1)) + each * math.sqrt(n) * (1.0 + (n + 32) * u)

    def pullback(self, x: Array, y_bar: Array, weights: Array | None, options: Options) -> Pulled:
        """x̄ = slope·(ȳ(1/s + 1/(1 − s)) + w(1/(1 − s) − 1/s))."""
        s, t = self._sides(x)
        x_bar = y_bar * (1.0 / s + 1.0 / t)
        if weights is not None:
            x_bar = x_bar + namespace(x).reshape(weights, (-1, *(1,) * (x.ndim - 1))) * (1.0 / t - 1.0 / s)
        return x_bar * self._slope, {}

    @property
    def inverse_lipschitz(self) -> float:
        """1/(4·slope)."""
        return rounding.up(0.25 / self._slope)


@public
def dequantise(x: Any, *, seed: int = 0, like: Array | None = None, check: bool = True) -> Array:
    """Return x + u, u uniform on (0, 1) and independent, for integers x ≥ 0 of shape (batch, *event).

    u = (2k + 1)/2¹⁶ with 15 random bits k: x + u is exact in float32 for x < 256, so that floor gives x back; a row's draws
    depend on the seed and the row alone. x may have an integer or a floating dtype; the result is like `like` (default: x if
    that is floating, else the floating dtype that x's namespace makes by default, on x's device). x stays on its device.
    Reference: Theis, van den Oord, Bethge 2016, arXiv 1511.01844.
    Raises: ShapeError, DTypeError; NonFiniteError for x that are no integers ≥ 0, or too large for x + u < x + 1: one host
    synchronisation, which `check` False leaves out.

    >>> import numpy as np
    >>> x = np.asarray([[0, 17, 255]])
    >>> bool((np.floor(dequantise(x, seed=3)) == x).all())
    True
    """
    require_array(x, "x")
    xp = namespace(x)
    if not xp.isdtype(x.dtype, ("integral", "real floating")):
        raise DTypeError(f"dequantise: expected integers, got {x.dtype}; try xp.astype(x, xp.int32)")
    if x.ndim < 1:
        raise ShapeError("dequantise: expected shape (batch, *event), got (); put the batch first, try x[None]")
    if like is not None:
        require_real(like, "like")
    if like is None:
        defaults = xp.__array_namespace_info__().default_dtypes(device=device(x))
        floating = xp.isdtype(x.dtype, "real floating")
        like = cast("Array", x if floating else xp.zeros((0,), dtype=defaults["real floating"], device=device(x)))
    exact = 0.5 / rounding.unit_roundoff(like)  # below it x + u rounds to less than x + 1
    whole = xp.floor(x) == x if xp.isdtype(x.dtype, "real floating") else x >= 0
    if check and not holds(x >= 0, x < exact, whole):
        raise NonFiniteError(f"dequantise: expected integers in [0, {exact:g}), got others; try xp.floor(x), or like= of float64")
    batch, event = x.shape[0], tuple(x.shape[1:])
    bits = Probes(seed=seed).words(batch, size(event))[0] >> np.uint32(17)
    u = (2.0 * bits.astype(np.float64) + 1.0) / 2.0**16
    there = xp.astype(x, like.dtype) if namespace(like) is xp else from_host(to_host(x), like)
    return there + from_host(u.reshape(batch, *event), like)
