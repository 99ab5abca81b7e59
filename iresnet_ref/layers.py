"""The layers of a residual branch: affine maps and activations.

A layer answers four questions: its value, its value with its Jacobian factor, the pullback of cotangents, and how rounding
errors pass through it. For the last, `spread` carries three things about the computed value ĥ at x: e ≥ |ĥ − h| entry by
entry (a running error bound, Higham §3.3), and the pair (a, b) in |e(x′) − e(x)|₂ ≤ a‖x − x′‖ + b for every other point x′.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol, Self

from iresnet_ref import rounding
from iresnet_ref.activations import Activation
from iresnet_ref.arrays import Array, device, expand_rows, flatten_events, namespace, size, to_host
from iresnet_ref.certify import absolute_norm_bound, norm_bound
from iresnet_ref.factor_error import FactorError
from iresnet_ref.induced import induced_norm_bound
from iresnet_ref.operators import Dense, Diagonal, Factor, Linear


class Spread(NamedTuple):
    """Rounding at one layer: `error` ≥ |ĥ − h|; `growth` a and `drift` b bound its change away from x; `lipschitz` of x ↦ h.

    Distances and constants are in the p-norm, p = `norm`.
    """

    error: Any
    growth: float
    drift: Any
    lipschitz: float
    norm: float = 2.0


Pullback = tuple[Any, Any, dict[str, Any]]
"""(x̄, v̄, gradients): None for a cotangent that is zero."""


class Layer(Protocol):
    """One layer of a branch."""

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
        """e′ = |A|e + γ_{n+1}(|A||ĥ| + |b|), with the rounding of this very expression added on top."""
        del y
        xp = namespace(h)
        u = rounding.unit_roundoff(h)
        n = self.operator.terms
        p = before.norm
        norm, absolute = self._norms if p == 2.0 else (self._induced(p),) * 2
        g = rounding.gamma(n + 1, u)
        on_top = 1.0 + 2.0 * (n + 6) * u
        underflow = (4 * n + 8) * (1.0 + absolute) * rounding.smallest_normal(h)
        passed = self.operator.absolute().apply(before.error + g * xp.abs(h))
        error = passed * on_top + (g * on_top * self._shift(xp.abs(self.bias)) + underflow)
        # |ĥ(x′) − ĥ(x)| ≤ Λ‖x − x′‖ + 2e(x) + (e(x′) − e(x)); the error grows with it at the rate ‖|A|‖γ.
        factor = absolute * on_top
        growth = factor * (before.growth + g * (before.lipschitz + before.growth))
        drift = factor * (before.drift + g * (2.0 * _at_least_norm(before.error, p) + before.drift))
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
    """h ↦ W h + b, W of shape (out, in), b of shape (out,)."""

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
        """e′ = Lip(φ)e + c·u(|φ| + 1), c the accuracy of the elementary functions."""
        u = rounding.unit_roundoff(h)
        c = self.activation.error * u
        lip = self.activation.lipschitz
        on_top = (1.0 + 8.0 * u) / (1.0 - c)
        error = (lip * before.error + c * (namespace(h).abs(y) + 1.0)) * on_top
        change = lip * before.lipschitz
        # ||ŷ(x′)| − |ŷ(x)|| ≤ Lip(φ)Λ‖x − x′‖ + 2e′(x) + (e′(x′) − e′(x)): solved for the last
        solved = (1.0 + 8.0 * u) / (1.0 - 2.0 * c)
        growth = solved * (lip * before.growth + c * change)
        drift = solved * (lip * before.drift + 2.0 * c * _at_least_norm(error, before.norm))
        return Spread(error, growth, drift, change, before.norm)

    def factor_error(self, h: Any, error: Any) -> FactorError:
        """|fl φ′(ĥ) − φ′(h)| ≤ c(|φ′| + 1) + curvature·e + jump·[|ĥ| ≤ e], a diagonal: its nuclear norm is the sum."""
        xp, phi = namespace(h), self.activation
        computed = phi.error * rounding.unit_roundoff(h) * (phi.lipschitz + 1.0)
        moved = xp.astype(xp.abs(h) <= error, h.dtype) * phi.jump + computed
        if phi.curvature > 0.0:
            moved = moved + phi.curvature * error
        nuclear = xp.sum(flatten_events(moved, h.ndim - 1), axis=-1)
        return FactorError(phi.lipschitz + computed, phi.lipschitz + computed, 1, nuclear)

    def noise(self, h: Any, y: Any, variance: Any) -> Any:
        """φ′²σ² ≤ Lip²σ², plus one rounding of φ."""
        u = rounding.unit_roundoff(h)
        return self.activation.lipschitz**2 * variance + (u * u) * y * y


def sum_probes(v: Any, ndim: int) -> Any:
    """Return v summed over its leading probe axes, down to `ndim` axes."""
    return namespace(v).sum(v, axis=tuple(range(v.ndim - ndim))) if v.ndim > ndim else v


def _at_least_norm(error: Any, p: float) -> Any:
    """Return n^(1/p)·max e ≥ ‖e‖_p per row: one pass, and enough for a term of second order."""
    flat = flatten_events(error, error.ndim - 1)
    return flat.shape[-1] ** (1.0 / p) * namespace(flat).max(flat, axis=-1)
