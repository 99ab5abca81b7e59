"""The layers of a residual branch: affine maps and activations.

A layer says which events it takes, its value, its value with its Jacobian factor, the pullback of cotangents, and how
rounding errors pass through it (`iresnet_ref.spread`) and into its factor (`iresnet_ref.factor_error`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, Self

from iresnet_ref import rounding
from iresnet_ref.activations import Activation
from iresnet_ref.arrays import (
    Array,
    device,
    expand_rows,
    flatten_events,
    namespace,
    require_real,
    row_norm,
    size,
    to_host,
)
from iresnet_ref.certify import absolute_norm_bound, norm_bound
from iresnet_ref.errors import ShapeError
from iresnet_ref.factor_error import FactorError
from iresnet_ref.induced import induced_norm_bound
from iresnet_ref.operators import Dense, Diagonal, Factor, Linear
from iresnet_ref.spread import Spread, through_entries

Pullback = tuple[Any, Any, dict[str, Any]]
"""(x̄, v̄, gradients): None for a cotangent that is zero."""


class Layer(Protocol):
    """One layer of a branch."""

    def out_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of its value for events of this shape. Raises ShapeError for events that it does not take."""

    def __call__(self, x: Any) -> Any:
        """Return the value."""

    def linearize(self, x: Any) -> tuple[Any, Factor]:
        """Return the value and the Jacobian factor at x."""

    def pullback(self, x: Any, v: Any, y_bar: Any, t_bar: Any) -> Pullback:
        """Return (x̄, v̄, {parameter: gradient}) for the cotangents ȳ of y = layer(x) and t̄ of the tangent t = J(x) v.

        x (batch, *in), ȳ (batch, *out); v (*probes, batch, *in) and t̄ (*probes, batch, *out), both or neither of them
        None; a cotangent None is zero. v may have batch length 1, one tangent for all rows, where t broadcasts over the
        batch; v̄ may then have the length of either. Gradients are summed over batch and probes: weights of rows are in
        the cotangents already.
        """

    def spread(self, h: Any, y: Any, before: Spread) -> Spread:
        """Return the rounding of y = layer(h), given that of h."""

    def factor_error(self, h: Any, error: Any) -> FactorError:
        """Return what is known of the factor computed at ĥ, ‖ĥ − h‖₂ ≤ error per row."""

    def noise(self, h: Any, y: Any, variance: Any) -> Any:
        """Return the estimated variance of the rounding of y = layer(h): an estimate, no bound."""

    def norm_bound(self, p: float = 2.0) -> float:
        """Return a proved Lipschitz constant from p-norm to p-norm (p = 1, 2 or ∞), inf where none is proved."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters by name."""

    def with_parameters(self, parameters: Mapping[str, Any]) -> Any:
        """Return the layer with these parameters."""


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
            raise ShapeError(f"bias: expected one number for each output {outputs}, got shape {tuple(self.bias.shape)}")

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

    def with_parameters(self, parameters: Mapping[str, Any]) -> Self:
        """Return the layer with these parameters."""
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

    def spread(self, h: Any, y: Any, before: Spread) -> Spread:
        """s′ = ‖A‖s + γ_{n+1}‖|A||ĥ| + |b|‖, n products, n − 1 additions and the bias."""
        del y
        xp, p = namespace(h), before.norm
        u, n, m = rounding.unit_roundoff(h), self.operator.terms, size(self.operator.out_shape)
        norm, absolute = self._norms if p == 2.0 else (self._induced(p),) * 2
        g, on_top = rounding.gamma(n + 1, u), 1.0 + (2 * n + 2 * m + 32) * u
        touched = self.operator.absolute().apply(xp.abs(h)) + self._shift(xp.abs(self.bias))
        underflow = m ** (1.0 / p) * (4 * n + 8) * (1.0 + absolute) * rounding.smallest_normal(h)
        error = (norm * before.error + g * row_norm(touched, len(self.operator.out_shape), p)) * on_top + underflow
        # ‖ĥ(x′) − ĥ(x)‖ ≤ Λ‖x − x′‖ + 2s(x) + (s(x′) − s(x)): what is touched changes with it
        growth = on_top * (norm * before.growth + g * absolute * (before.lipschitz + before.growth))
        drift = on_top * (norm * before.drift + g * absolute * (2.0 * before.error + before.drift))
        return Spread(error, growth, drift, norm * before.lipschitz, p)

    def factor_error(self, h: Any, error: Any) -> FactorError:
        """The factor is the weight itself."""
        del error
        norm, absolute = self._norms
        nothing = namespace(h).zeros(h.shape[:1], dtype=h.dtype, device=device(h))
        return FactorError(norm, absolute, self.operator.terms, nothing)

    def noise(self, h: Any, y: Any, variance: Any) -> Any:
        """Σⱼ A²ⱼ(σ²ⱼ + nu²h²ⱼ/6) + u²y²: independent roundings of the partial sums of n terms (Higham & Mary 2019)."""
        u = rounding.unit_roundoff(h)
        n = self.operator.terms
        return self.operator.squared().apply(variance + (n / 6.0 * u * u) * h * h) + (u * u) * y * y


@dataclass(frozen=True)
class Affine(LinearLayer):
    """h ↦ W h + b, W of shape (out, in), b of shape (out,). Raises: ShapeError, DTypeError."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight.ndim != 2:
            raise ShapeError(f"dense layer: expected a weight of shape (out, in), got {tuple(self.weight.shape)}")

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


@dataclass(frozen=True)
class Pointwise:
    """h ↦ φ(h), entry by entry."""

    activation: Activation

    @property
    def name(self) -> str:
        """The activation's name."""
        return self.activation.name

    @property
    def parameters(self) -> Mapping[str, Any]:
        """None."""
        return {}

    def with_parameters(self, parameters: Mapping[str, Any]) -> Pointwise:
        """Return itself."""
        del parameters
        return self

    def out_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return the same shape."""
        return event

    def __call__(self, x: Any) -> Any:
        """Return φ(x)."""
        return self.activation.value(x)

    def linearize(self, x: Any) -> tuple[Any, Diagonal]:
        """Return φ(x) and the diagonal φ′(x)."""
        y, slope = self.activation.both(x)
        return y, Diagonal(slope)

    def pullback(self, x: Any, v: Any, y_bar: Any, t_bar: Any) -> Pullback:
        """x̄ = φ′ȳ + Σ_probes φ″v t̄, v̄ = φ′t̄."""
        slope = self.activation.both(x)[1]
        x_bar = None if y_bar is None else slope * y_bar
        if t_bar is None:
            return x_bar, None, {}
        bent = self.activation.second(x) * sum_probes(v * t_bar, x.ndim)
        return (bent if x_bar is None else x_bar + bent), slope * t_bar, {}

    def norm_bound(self, p: float = 2.0) -> float:
        """Return sup|φ′|, whatever p."""
        del p
        return self.activation.lipschitz

    def spread(self, h: Any, y: Any, before: Spread) -> Spread:
        """s′ = (Lip(φ)s + c(‖φ‖ + m^(1/p)))/(1 − c), c the accuracy of the elementary functions."""
        del h
        return through_entries(y, before, self.activation.lipschitz, self.activation.error)

    def factor_error(self, h: Any, error: Any) -> FactorError:
        """|fl φ′(ĥ) − φ′(h)| ≤ c(|φ′| + 1) + curvature·e + jump·[|ĥ| ≤ e], a diagonal: its nuclear norm is the sum, Σe ≤ √m s."""
        xp, phi = namespace(h), self.activation
        flat, m = flatten_events(h, h.ndim - 1), size(tuple(h.shape[1:]))
        computed = phi.error * rounding.unit_roundoff(h) * (phi.lipschitz + 1.0)
        nuclear = error * (phi.curvature * math.sqrt(m)) + m * computed
        if phi.jump > 0.0:
            nuclear = nuclear + phi.jump * xp.sum(xp.astype(xp.abs(flat) <= error[:, None], h.dtype), axis=-1)
        return FactorError(phi.lipschitz + computed, phi.lipschitz + computed, 1, nuclear)

    def noise(self, h: Any, y: Any, variance: Any) -> Any:
        """φ′²σ² ≤ Lip²σ², plus one rounding of φ."""
        u = rounding.unit_roundoff(h)
        return self.activation.lipschitz**2 * variance + (u * u) * y * y


def sum_probes(v: Any, ndim: int) -> Any:
    """Return v summed over its leading probe axes, down to `ndim` axes."""
    return namespace(v).sum(v, axis=tuple(range(v.ndim - ndim))) if v.ndim > ndim else v
