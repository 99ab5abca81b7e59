"""An affine map entry by entry, y = a∘x + b: normalisation with fixed statistics, a scale, a shift."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import (
    Array,
    device,
    namespace,
    public,
    require_alike,
    require_parameters,
    require_real,
    row_norm,
    size,
    to_host,
)
from iresnet_ref.errors import ShapeError
from iresnet_ref.jacobian.shared_factors import SharedDiagonal
from iresnet_ref.layers.layer import Pullback, sum_probes
from iresnet_ref.rounding.forward_error import ForwardError, one_rounding
from iresnet_ref.rounding.jacobian_error import JacobianError


@public
@dataclass(frozen=True)
class DiagonalAffine:
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
            raise ShapeError(
                f"bias: expected the shape {tuple(self.scale.shape)} of the scale, got {tuple(self.bias.shape)}; try zeros"
            )

    @property
    def name(self) -> str:
        """E.g. "diagonal 64"."""
        return "diagonal " + "×".join(map(str, self.scale.shape))

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The scale and the bias."""
        return {"scale": self.scale, "bias": self.bias}

    @public
    def with_parameters(self, parameters: Mapping[str, Any]) -> DiagonalAffine:
        """Return the layer with these parameters."""
        require_parameters(parameters, self.parameters)
        return DiagonalAffine(parameters["scale"], parameters["bias"])

    def out_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return the same shape."""
        if event != tuple(self.scale.shape):
            raise ShapeError(
                f"{self.name}: expected events of shape {tuple(self.scale.shape)}, got {event}; fit it to the layer before"
            )
        return event

    def __call__(self, x: Any) -> Any:
        """Return a∘x + b."""
        return x * self.scale + self.bias

    def linearize(self, x: Any) -> tuple[Any, SharedDiagonal]:
        """Return the value and the diagonal."""
        return self(x), SharedDiagonal(self.scale)

    def pullback(self, x: Any, v: Any, y_bar: Any, t_bar: Any) -> Pullback:
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
        del p
        host = np.abs(to_host(self.scale))
        norm = float(host.max(initial=0.0))
        if rounding.unit_roundoff(self.scale) < rounding.FLOAT64_ROUNDOFF:  # the host holds rounded entries
            norm = rounding.up(norm, 1) + rounding.SMALLEST_NORMAL
        return norm if math.isfinite(norm) else math.inf

    def forward_error(self, h: Any, y: Any, before: ForwardError) -> ForwardError:
        """s′ = max|a| s + γ₂‖|a∘ĥ| + |b|‖, as for an affine layer of one term."""
        del y
        xp, p = namespace(h), before.norm
        u, m, norm = rounding.unit_roundoff(h), size(tuple(h.shape[1:])), self.norm_bound()
        g, on_top = rounding.gamma(2, u), 1.0 + (2 * m + 32) * u
        touched = row_norm(xp.abs(h * self.scale) + xp.abs(self.bias), h.ndim - 1, p)
        underflow = m ** (1.0 / p) * 8.0 * (1.0 + norm) * before.flushed
        error = (norm * before.error + g * touched + before.flushed * row_norm(h, h.ndim - 1, p)) * on_top + underflow
        change = g * norm + before.flushed  # a scale that is subnormal may be flushed whole
        growth = on_top * (norm * before.growth + change * (before.lipschitz + before.growth))
        drift = on_top * (norm * before.drift + change * (2.0 * before.error + before.drift))
        return ForwardError(error, growth, drift, norm * before.lipschitz, p, before.flushed)

    def jacobian_error(self, h: Any, error: Any) -> JacobianError:
        """The factor is the scale itself."""
        del error
        norm = self.norm_bound()
        return JacobianError(norm, norm, 1, namespace(h).zeros(h.shape[:1], dtype=h.dtype, device=device(h)))

    def noise(self, h: Any, y: Any, variance: Any, unit: Any) -> Any:
        """a²σ² + u²y²."""
        del h
        return self.scale * self.scale * variance + one_rounding(y, unit)
