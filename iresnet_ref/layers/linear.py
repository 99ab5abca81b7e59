"""The layers of a residual branch: affine maps and activations.

A layer states which events it takes, its value, its value with its Jacobian factor, the pullback of cotangents, and how
rounding errors pass through it (`iresnet_ref.rounding.forward_error`) and into its factor (`iresnet_ref.rounding.jacobian_error`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

from iresnet_ref import rounding
from iresnet_ref.arrays import (
    Array,
    device,
    expand_rows,
    namespace,
    public,
    require_parameters,
    require_real,
    row_norm,
    size,
    to_host,
)
from iresnet_ref.errors import ShapeError
from iresnet_ref.jacobian.convolution import Convolution, Padding, require_convolution
from iresnet_ref.jacobian.factors import Dense, Factor, Linear
from iresnet_ref.layers.layer import Pullback
from iresnet_ref.norms.convolution import absolute_convolution_norm_bound, convolution_norm_bound
from iresnet_ref.norms.dense import absolute_norm_bound, norm_bound
from iresnet_ref.norms.induced import induced_norm_bound
from iresnet_ref.rounding.forward_error import ForwardError, one_rounding
from iresnet_ref.rounding.jacobian_error import JacobianError


@dataclass(frozen=True)
class LinearLayer(ABC):
    """h ↦ A h + b with a shared operator A of `weight`, and a number of `bias` for each output channel."""

    weight: Array
    bias: Array

    def __post_init__(self) -> None:
        require_real(self.weight, "weight")
        require_real(self.bias, "bias")
        if tuple(self.bias.shape) != tuple(self.weight.shape[:1]):
            outputs = tuple(self.weight.shape[:1])
            got = tuple(self.bias.shape)
            raise ShapeError(f"bias: expected one number for each output {outputs}, got shape {got}; try zeros of it")

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it."""

    @property
    @abstractmethod
    def operator(self) -> Linear:
        """The linear part A."""

    @abstractmethod
    def host_norms(self) -> tuple[float, float]:
        """Return proved bounds on ‖A‖₂ and ‖|A|‖₂ for the weight as it is on the host, in float64."""

    def out_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of A h + b."""
        if event != self.operator.in_shape:
            raise ShapeError(f"{self.name}: expected events of shape {self.operator.in_shape}, got {event}; fit it to the layer before")
        return self.operator.out_shape

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The weight and the bias."""
        return {"weight": self.weight, "bias": self.bias}

    @public
    def with_parameters(self, parameters: Mapping[str, Any]) -> Self:
        """Return the layer with these parameters. Raises ShapeError."""
        require_parameters(parameters, self.parameters)
        return replace(self, weight=parameters["weight"], bias=parameters["bias"])

    def __call__(self, x: Any) -> Any:
        """Return A x + b."""
        return self.operator.apply(x) + self._shift(self.bias)

    def linearize(self, x: Any) -> tuple[Any, Factor]:
        """Return A x + b and the factor A."""
        return self(x), self.operator

    def pullback(self, x: Any, v: Any, y_bar: Any, t_bar: Any) -> Pullback:
        """x̄ = Aᵀȳ, v̄ = Aᵀt̄, W̄ = ∂(ȳᵀAx + t̄ᵀAv)/∂W, b̄ = ȳ summed over rows and pixels."""
        xp = namespace(x)
        weight, bias = xp.zeros_like(self.weight), xp.zeros_like(self.bias)
        x_bar = v_bar = None
        if y_bar is not None:
            x_bar, weight = self.operator.transpose(y_bar), self.operator.weight_gradient(y_bar, x)
            bias = xp.sum(y_bar, axis=(0, *range(2, y_bar.ndim)))
        if t_bar is not None:
            v_bar, weight = self.operator.transpose(t_bar), weight + self.operator.weight_gradient(t_bar, v)
        return x_bar, v_bar, {"weight": weight, "bias": bias}

    def norm_bound(self, p: float = 2.0) -> float:
        """Return a proved bound on ‖A‖_p."""
        return self._norms[0] if p == 2.0 else self._induced(p)

    def _induced(self, p: float) -> float:
        """A proved bound on ‖A‖_p and ‖|A|‖_p for p = 1 or ∞: an input, or output, meets every entry of its channel once at most."""
        host = to_host(self.weight)
        rows = host if p == math.inf else host.swapaxes(0, 1)
        norm = induced_norm_bound(rows.reshape(rows.shape[0], -1), math.inf, math.inf)
        if rounding.unit_roundoff(self.weight) < rounding.FLOAT64_ROUNDOFF:  # the host holds rounded weights
            norm = rounding.up(norm) + size(tuple(self.weight.shape)) * rounding.SMALLEST_NORMAL
        return norm

    @cached_property
    def _norms(self) -> tuple[float, float]:
        """Proved bounds on ‖A‖₂ and ‖|A|‖₂."""
        norm, absolute = self.host_norms()
        if rounding.unit_roundoff(self.weight) < rounding.FLOAT64_ROUNDOFF:  # the host holds rounded weights
            # an entry that is rounded to zero may stand once for every output
            lost = size(self.operator.out_shape) * size(tuple(self.weight.shape)) * rounding.SMALLEST_NORMAL
            lost = 2.0 * rounding.FLOAT64_ROUNDOFF * absolute + lost
            norm, absolute = rounding.up(norm + lost), rounding.up(absolute + lost)
        return norm, absolute

    def _shift(self, bias: Any) -> Any:
        return expand_rows(bias, len(self.operator.out_shape) - 1)

    def forward_error(self, h: Any, y: Any, before: ForwardError) -> ForwardError:
        """s′ = ‖A‖s + γ_{n+1}‖|A||ĥ| + |b|‖, n products, n − 1 additions and the bias, and what flushing loses of h and of A."""
        del y
        xp, p = namespace(h), before.norm
        u, n, m = rounding.unit_roundoff(h), self.operator.terms, size(self.operator.out_shape)
        norm, absolute = self._norms if p == 2.0 else (self._induced(p),) * 2
        g, on_top = rounding.gamma(n + 1, u), 1.0 + (2 * n + 2 * m + 32) * u
        touched = self.operator.absolute().apply(xp.abs(h)) + self._shift(xp.abs(self.bias))
        underflow = m ** (1.0 / p) * (4 * n + 8) * (1.0 + absolute) * before.flushed
        # a weight that is subnormal may be flushed whole, however large what it is multiplied with
        flushed = m ** (1.0 / p) * n * before.flushed
        rounded = g * row_norm(touched, len(self.operator.out_shape), p) + flushed * row_norm(h, h.ndim - 1, p)
        error = (norm * before.error + rounded) * on_top + underflow
        # ‖ĥ(x′) − ĥ(x)‖ ≤ Λ‖x − x′‖ + 2s(x) + (s(x′) − s(x)): what is touched changes with it
        change = g * absolute + flushed
        growth = on_top * (norm * before.growth + change * (before.lipschitz + before.growth))
        drift = on_top * (norm * before.drift + change * (2.0 * before.error + before.drift))
        return ForwardError(error, growth, drift, norm * before.lipschitz, p, before.flushed)

    def jacobian_error(self, h: Any, error: Any) -> JacobianError:
        """The factor is the weight itself."""
        del error
        norm, absolute = self._norms
        no_error = namespace(h).zeros(h.shape[:1], dtype=h.dtype, device=device(h))
        return JacobianError(norm, absolute, self.operator.terms, no_error)

    def noise(self, h: Any, y: Any, variance: Any, unit: Any) -> Any:
        """Σⱼ A²ⱼ(σ²ⱼ + nu²h²ⱼ/6) + u²y²: independent roundings of the partial sums of n terms (Higham & Mary 2019)."""
        partial = self.operator.terms / 6.0 * one_rounding(h, unit)
        return self.operator.squared().apply(variance + partial) + one_rounding(y, unit)


@public
@dataclass(frozen=True)
class Affine(LinearLayer):
    """h ↦ W h + b, W of shape (out, in), b of shape (out,). Raises: ShapeError, DTypeError."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight.ndim != 2:
            raise ShapeError(f"dense layer: expected a weight of shape (out, in), got {tuple(self.weight.shape)}; try Conv for kernels")

    @property
    def name(self) -> str:
        """E.g. "dense 64→2"."""
        return f"dense {self.weight.shape[1]}→{self.weight.shape[0]}"

    @property
    def operator(self) -> Dense:
        """The linear part."""
        return Dense(self.weight)

    def host_norms(self) -> tuple[float, float]:
        """Return proved bounds on ‖W‖₂ and ‖|W|‖₂."""
        host = to_host(self.weight)
        return norm_bound(host), absolute_norm_bound(host)


@public
@dataclass(frozen=True)
class Conv(LinearLayer):
    """h ↦ K ∗ h + b on images, K of shape (out, in, kh, kw) with odd sides, b of shape (out,), stride 1.

    `image` is the (height, width) that the layer works on: the norm that is certified is that of the operator there.
    Raises: ShapeError for even kernels, kernels larger than the image, a bias of another length; DTypeError.
    """

    image: tuple[int, int]
    padding: Padding = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_convolution(tuple(self.weight.shape), tuple(self.image), self.padding)

    @property
    def name(self) -> str:
        """E.g. "conv 3×3 3→64 on 16×16"."""
        outputs, inputs, kh, kw = self.weight.shape
        wraps = ", circular" if self.padding == "circular" else ""
        return f"conv {kh}×{kw} {inputs}→{outputs} on {self.image[0]}×{self.image[1]}{wraps}"

    @property
    def operator(self) -> Convolution:
        """The linear part."""
        return Convolution(self.weight, self.image, self.padding)

    def host_norms(self) -> tuple[float, float]:
        """Return proved bounds on ‖A‖₂ and ‖|A|‖₂ of the operator on this image."""
        host = Convolution(to_host(self.weight), self.image, self.padding)
        return convolution_norm_bound(host), absolute_convolution_norm_bound(host)
