"""Piecewise linear and quadratic activations: hardtanh, hard sigmoid, hardswish, softshrink.

    hardtanh min(max(z, a), b), Lip 1;   hard sigmoid hardtanh₀⁶(z + 3)/6, ⅙;   hardswish z·hardtanh₀⁶(z + 3)/6, 3/2;   softshrink
    z − hardtanh(z, −λ, λ), 1.

Where φ′ jumps is in `kinks`. Hardswish is z²/6 + z/2 between ±3, with slope −½ at −3 and 3/2 at 3.
"""

from __future__ import annotations

import math

from iresnet_ref.arrays import Array, namespace, public
from iresnet_ref.layers.activations import Activation, Turn


def _clipped(z: Array, low: float, high: float) -> Array:
    xp = namespace(z)
    return xp.minimum(xp.maximum(z, xp.full_like(z, low)), xp.full_like(z, high))


def _between(z: Array, low: float, high: float) -> Array:
    """Return 1 where low < z < high, else 0."""
    xp = namespace(z)
    return xp.astype(z > low, z.dtype) * xp.astype(z < high, z.dtype)


def _none(z: Array) -> Array:
    return namespace(z).zeros_like(z)


@public
def hardtanh(low: float = -1.0, high: float = 1.0) -> Activation:
    """Return min(max(z, low), high), 1-Lipschitz; φ′ = 0 at both kinks. Raises ValueError unless low < high, both finite.

    >>> hardtanh(0.0, 6.0).name
    'hardtanh 0 6'
    """
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"hardtanh: expected finite low < high, got {low} and {high}; try hardtanh(-1.0, 1.0)")

    def both(z: Array) -> tuple[Array, Array]:
        return _clipped(z, low, high), _between(z, low, high)

    name = "hardtanh" if (low, high) == (-1.0, 1.0) else f"hardtanh {low:.6g} {high:.6g}"
    return Activation(
        name, lambda z: _clipped(z, low, high), both, _none, 1.0, 1.0, 0.0, 1.0, ("hardtanh", low, high), (low, high), slopes=(0.0, 1.0),
        turns=(Turn(low, low, 0.0, 1.0), Turn(high, high, 0.0, 1.0)),
    )  # fmt: skip


@public
def softshrink(threshold: float = 0.5) -> Activation:
    """Return z − min(max(z, −λ), λ), 1-Lipschitz; φ′ = 0 at both kinks. Raises ValueError unless 0 ≤ λ < ∞.

    Reference: Donoho, *De-noising by soft-thresholding*, 1995.

    >>> softshrink(1.0).lipschitz
    1.0
    """
    if not 0.0 <= threshold < math.inf:
        raise ValueError(f"softshrink: expected 0 ≤ λ < inf, got {threshold}; try 0.5")

    def value(z: Array) -> Array:
        return z - _clipped(z, -threshold, threshold)

    def both(z: Array) -> tuple[Array, Array]:
        xp = namespace(z)
        return value(z), xp.astype(xp.abs(z) > threshold, z.dtype)

    error = 1.0 + threshold  # the rounding of the difference, and of λ
    name = "softshrink" if threshold == 0.5 else f"softshrink {threshold:.6g}"
    return Activation(
        name, value, both, _none, 1.0, error, 0.0, 1.0, ("softshrink", threshold), (-threshold, threshold), slopes=(0.0, 1.0),
        turns=(Turn(-threshold, -threshold, 0.0, 1.0), Turn(threshold, threshold, 0.0, 1.0)),
    )  # fmt: skip


def _hardsigmoid(z: Array) -> Array:
    return (_clipped(z, -3.0, 3.0) + 3.0) / 6.0


def _hardsigmoid_both(z: Array) -> tuple[Array, Array]:
    return _hardsigmoid(z), _between(z, -3.0, 3.0) / 6.0


def _hardswish_both(z: Array) -> tuple[Array, Array]:
    """Return the value and the slope (Howard and others, *Searching for MobileNetV3*, arXiv 1905.02244)."""
    xp = namespace(z)
    slope = (_clipped(z, -3.0, 3.0) / 3.0 + 0.5) * _between(z, -3.0, 3.0) + xp.astype(z >= 3.0, z.dtype)
    return z * _hardsigmoid(z), slope


PIECEWISE: tuple[Activation, ...] = (
    hardtanh(),
    softshrink(),
    Activation(
        "hard sigmoid", _hardsigmoid, _hardsigmoid_both, _none, 0.16666666666666669, curvature=0.0, jump=0.16666666666666669,
        kinks=(-3.0, 3.0), slopes=(0.0, 0.16666666666666669),
        turns=(Turn(-3.0, -3.0, 0.0, 0.16666666666666669), Turn(3.0, 3.0, 0.0, 0.16666666666666669)),
    ),
    Activation(
        "hardswish", lambda z: _hardswish_both(z)[0], _hardswish_both, lambda z: _between(z, -3.0, 3.0) / 3.0, 1.5,
        curvature=0.33333333333333337, jump=0.5, kinks=(-3.0, 3.0), slopes=(-0.5, 1.5),
        turns=(Turn(-3.0, -3.0, -0.5, 0.0), Turn(3.0, 3.0, 1.0, 1.5)),
    ),
)  # fmt: skip
