"""An affine map entry by entry, y = a∘x + b: normalisation with fixed statistics, a scale, a shift."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, namespace, public, to_host
from iresnet_ref.arrays.validation import require_alike, require_real
from iresnet_ref.errors import ShapeError
from iresnet_ref.jacobian.shared_factors import SharedDiagonal
from iresnet_ref.layers.layer import Layer, Pullback, sum_probes


@public
@dataclass(frozen=True)
class DiagonalAffine(Layer):
    """h ↦ a∘h + b with `scale` a and `bias` b of the event's shape; ‖diag a‖_p = max|a| for every p.

    Raises: ShapeError where the two shapes differ, DTypeError.

    >>> DiagonalAffine(np.asarray([2.0, -3.0]), np.asarray([0.0, 1.0]))(np.asarray([[1.0, 1.0]])).tolist()
    [[2.0, -2.0]]
    """

    scale: Array
    bias: Array

    def __post_init__(self) -> None:
        require_real(self.scale, "scale")
        require_alike(self.bias, self.scale, "bias")
        if tuple(self.bias.shape) != tuple(self.scale.shape):
            raise ShapeError(f"bias: expected the shape {tuple(self.scale.shape)} of the scale, got {tuple(self.bias.shape)}; try zeros")

    @property
    def name(self) -> str:
        """E.g. "diagonal 64"."""
        return "diagonal " + "×".join(map(str, self.scale.shape))

    @property
    def parameters(self) -> Mapping[str, Array]:
        """The scale and the bias."""
        return {"scale": self.scale, "bias": self.bias}

    def out_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return the same shape."""
        if event != tuple(self.scale.shape):
            raise ShapeError(f"{self.name}: expected events of shape {tuple(self.scale.shape)}, got {event}; fit it to the layer before")
        return event

    def __call__(self, x: Array) -> Array:
        """Return a∘x + b."""
        return x * self.scale + self.bias

    def linearize(self, x: Array) -> tuple[Array, SharedDiagonal]:
        """Return the value and the diagonal."""
        return self(x), SharedDiagonal(self.scale)

    def pullback(self, x: Array, v: Array | None, y_bar: Array | None, t_bar: Array | None) -> Pullback:
        """x̄ = a∘ȳ, v̄ = a∘t̄, ā = Σ ȳ∘x + t̄∘v, b̄ = Σ ȳ."""
        xp = namespace(x)
        scale, bias = xp.zeros_like(self.scale), xp.zeros_like(self.bias)
        x_bar = v_bar = None
        if y_bar is not None:
            x_bar, scale, bias = self.scale * y_bar, xp.sum(y_bar * x, axis=0), xp.sum(y_bar, axis=0)
        if t_bar is not None:
            v_bar, scale = self.scale * t_bar, scale + xp.sum(sum_probes(v * t_bar, x.ndim), axis=0)
        return x_bar, v_bar, {"scale": scale, "bias": bias}

    def norm_bound(self, p: float = 2.0) -> float:
        """Return max|a|, whatever p; inf where an entry is not finite."""
        host = np.abs(to_host(self.scale))
        norm = float(host.max(initial=0.0))
        if rounding.unit_roundoff(self.scale) < rounding.FLOAT64_ROUNDOFF:  # the host holds rounded entries
            norm = rounding.up(norm, 1) + rounding.SMALLEST_NORMAL
        return norm if math.isfinite(norm) else math.inf
