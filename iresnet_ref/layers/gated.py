"""Gated activations φ(z) = z·γ(z) with a gate γ from 0 to 1: GELU and its tanh form, Mish; SiLU is in `swish`.

    GELU  γ = Φ(z),    GELU (tanh)  γ = σ(2√(2/π)(z + .044715z³)),    Mish  γ = tanh log(1 + eᶻ),

φ′ = γ + zγ′ and φ″ = 2γ′ + zγ″. Every exponential is of −|·|, so that none overflows. docs/proofs.md encloses sup|φ′| and sup|φ″|.
References: Hendrycks, Gimpel, arXiv 1606.08415 (GELU); Misra, arXiv 1908.08681 (Mish).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from iresnet_ref.arrays import Array, namespace
from iresnet_ref.layers.activations import Activation, extremum, sigmoid
from iresnet_ref.layers.normal_distribution import FARTHEST, normal

Gate = Callable[[Array], tuple[Array, Array, Array]]
CUBIC = 0.044715
"""The coefficient of z³ in the tanh form of GELU."""
FLAT = 1e4
"""From here on γ′ is 0 in any precision: automatic derivatives of zγ′ must not meet a larger z."""


def _raised(z: Array) -> Array:
    """Return max(z, −40): below, zγ(z) is 0 to rounding, and a gate that errs by 1e-154 must not meet 1e300."""
    return namespace(z).maximum(z, namespace(z).full_like(z, -FARTHEST))


def _near(z: Array) -> Array:
    """Return z between ±40, beyond which every gate here is 0 or 1 to rounding."""
    return namespace(z).minimum(_raised(z), namespace(z).full_like(z, FARTHEST))


def _normal(z: Array) -> tuple[Array, Array, Array]:
    cumulative, density = normal(z)
    return cumulative, density, -_near(z) * density


def _cubic(z: Array) -> tuple[Array, Array, Array]:
    """σ(w), w = c(z + az³), w′ = c(1 + 3az²), w″ = 6acz, c = √(8/π)."""
    number = getattr(namespace(z), "mp", math)
    z, c = _near(z), number.sqrt(8.0 / number.pi)
    square = z * z
    s, t = sigmoid(c * (z * (1.0 + CUBIC * square)))
    first, second = c * (1.0 + 3.0 * CUBIC * square), (6.0 * CUBIC * c) * z
    return s, s * t * first, s * t * ((t - s) * first * first + second)


def _mish(z: Array) -> tuple[Array, Array, Array]:
    """With e = eᶻ and D = e² + 2e + 2: γ = e(e + 2)/D, γ′ = 4e(1 + e)/D², γ″ = 4e(2 + 2e − 3e² − 2e³)/D³, for z ≥ 0 in powers of 1/e."""
    xp = namespace(z)
    e = xp.exp(-xp.abs(z))
    left = e * e + 2.0 * e + 2.0
    right = 1.0 + 2.0 * e * (1.0 + e)
    bent_left = 4.0 * e * (2.0 + e * (2.0 - e * (3.0 + 2.0 * e))) / (left * left * left)
    bent_right = 4.0 * e * e * (e * (e * (2.0 * e + 2.0) - 3.0) - 2.0) / (right * right * right)
    negative = z < 0.0
    return (
        xp.where(negative, e * (e + 2.0) / left, (1.0 + 2.0 * e) / right),
        xp.where(negative, 4.0 * e * (1.0 + e) / (left * left), 4.0 * e * e * (1.0 + e) / (right * right)),
        xp.where(negative, bent_left, bent_right),
    )


def _gated(name: str, gate: Gate, lipschitz: float, curvature: float, least: float, places: tuple[float, float]) -> Activation:
    def both(z: Array) -> tuple[Array, Array]:
        value, first, _ = gate(z)
        raised = _raised(z)
        return raised * value, value + namespace(z).minimum(raised, namespace(z).full_like(z, FLAT)) * first

    def second(z: Array) -> Array:
        _, first, bent = gate(z)
        return 2.0 * first + _near(z) * bent

    return Activation(
        name, lambda z: _raised(z) * gate(z)[0], both, second, lipschitz, curvature=curvature, slopes=(least, lipschitz),
        turns=(extremum(places[0], least), extremum(places[1], lipschitz)),
    )  # fmt: skip


GATED: tuple[Activation, ...] = (
    _gated("gelu", _normal, 1.1289041451851550, 0.7978845608028656, -0.1289041451851550, (-1.41421356, 1.41421356)),
    _gated("gelu tanh", _cubic, 1.1289930686587721, 0.7978845608028656, -0.1289930686587720, (-1.41850401, 1.41850401)),
    _gated("mish", _mish, 1.0884981612517281, 0.6442046372369727, -0.1125261223894626, (-2.25637640, 1.49057118)),
)
