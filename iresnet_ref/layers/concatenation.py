"""Dense connections: x ↦ [x; φ(Wx + b)], each layer seeing all before it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from iresnet_ref import rounding
from iresnet_ref.arrays import device, namespace, public, require_parameters, row_norm, size, to_host
from iresnet_ref.jacobian.factors import Concatenated, split
from iresnet_ref.layers.activations import get, sigmoid
from iresnet_ref.layers.layer import Layer, Pullback
from iresnet_ref.layers.tape import record
from iresnet_ref.rounding import up
from iresnet_ref.rounding.forward_error import ForwardError, combined, no_error, one_rounding
from iresnet_ref.rounding.jacobian_error import JacobianError, telescoped


@public
@dataclass(frozen=True)
class Concatenation:
    """h ↦ [η₁h; η₂f(h)] with f = layer_k ∘ ⋯ ∘ layer_1; `raw` of shape (2,) are the learnt weights, None is η = 1/√2."""

    inner: tuple[Layer, ...]
    raw: Any = None

    @property
    def name(self) -> str:
        """E.g. "concatenation of dense 3→8, clipswish"."""
        return "concatenation of " + ", ".join(layer.name for layer in self.inner)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Those of the layers of f as "0.weight" …, and the raw weights."""
        own = {f"{i}.{name}": p for i, layer in enumerate(self.inner) for name, p in layer.parameters.items()}
        return own if self.raw is None else {**own, "raw": self.raw}

    @public
    def with_parameters(self, parameters: Mapping[str, Any]) -> Concatenation:
        """Return the layer with these parameters."""
        require_parameters(parameters, self.parameters)
        inner = (
            layer.with_parameters({name: parameters[f"{i}.{name}"] for name in layer.parameters})
            for i, layer in enumerate(self.inner)
        )
        return Concatenation(tuple(inner), None if self.raw is None else parameters["raw"])

    def out_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return the channels of the event and those of f."""
        return event[0] + reduce(lambda shape, layer: layer.out_shape(shape), self.inner, event)[0], *event[1:]

    def weights(self, x: Any) -> tuple[Any, Any]:
        """Return (η₁, η₂) in the arithmetic of x."""
        xp = namespace(x)
        if self.raw is None:
            half = xp.sqrt(xp.full((), 0.5, dtype=x.dtype, device=device(x)))
            return half, half
        eta = get("softplus").value(self.raw)
        eta = eta / xp.sqrt(xp.sum(eta * eta))
        return eta[0], eta[1]

    def __call__(self, x: Any) -> Any:
        """Return [η₁x; η₂f(x)]."""
        first, second = self.weights(x)
        image = reduce(lambda h, layer: layer(h), self.inner, x)
        return namespace(x).concat([first * x, second * image], axis=1)

    def linearize(self, x: Any) -> tuple[Any, Concatenated]:
        """Return the value and [η₁I; η₂J_f(x)]."""
        first, second = self.weights(x)
        tape = record(self.inner, x)
        value = namespace(x).concat([first * x, second * tape.value], axis=1)
        return value, Concatenated(first, second, tape.jacobian.factors)

    def pullback(self, x: Any, v: Any, y_bar: Any, t_bar: Any) -> Pullback:
        """x̄ = η₁ȳ₁ + η₂J_fᵀȳ₂ + …, η̄₁ = Σ ȳ₁x + t̄₁v, η̄₂ = Σ ȳ₂f(x) + t̄₂J_f v, through softplus and the division."""
        xp = namespace(x)
        first, second = self.weights(x)
        tape = record(self.inner, x, linearize=v is not None)
        tangents = () if v is None else tape.push(v)
        halves: list[Any] = [None, None, None, None]
        along = [xp.zeros_like(first), xp.zeros_like(first)]
        for k, (bar, pair) in enumerate(((y_bar, (x, tape.value)), (t_bar, (v, tangents[-1] if tangents else None)))):
            if bar is not None:
                parts = split(bar, x.shape[1], bar.ndim - x.ndim + 1)
                halves[k], halves[k + 2] = first * parts[0], second * parts[1]
                along = [a + xp.sum(part * of) for a, part, of in zip(along, parts, pair, strict=True)]
        x_bar, v_bar, gradients = tape.pullback(halves[2], tangents, halves[3])
        x_bar = x_bar if halves[0] is None else x_bar + halves[0]
        if halves[1] is not None and v is not None:
            own = halves[1]
            if own.shape != v_bar.shape:  # v is one tangent for all rows
                own = xp.sum(own, axis=v.ndim - x.ndim, keepdims=True)
            v_bar = v_bar + own
        if self.raw is not None:
            # η = s/‖s‖: ∂η/∂s = (I − ηηᵀ)/‖s‖, and ∂s/∂raw = σ(raw)
            s = get("softplus").value(self.raw)
            radial = first * along[0] + second * along[1]
            bars = xp.stack([along[0] - first * radial, along[1] - second * radial], axis=0)
            gradients = {**gradients, "raw": bars / xp.sqrt(xp.sum(s * s)) * sigmoid(self.raw)[0]}
        return x_bar, v_bar, gradients

    def _host_weights(self) -> tuple[float, float]:
        """(η₁, η₂), rounded up; NaN where a raw weight is not finite, or both underflow."""
        raw = [0.0, 0.0] if self.raw is None else [float(r) for r in to_host(self.raw)]
        s = [max(r, 0.0) + math.log1p(math.exp(-abs(r))) for r in raw]
        length = math.hypot(*s)
        if not (0.0 < length < math.inf):
            return math.nan, math.nan
        # softplus is accurate to a few u, and to |raw|u more where the host has rounded the raw weight
        steps = 32 + math.ceil(sum(min(abs(r), 1e6) for r in raw))
        return up(s[0] / length, steps), up(s[1] / length, steps)

    def norm_bound(self, p: float = 2.0) -> float:
        """Return ‖(η₁, η₂K)‖_p, K the product of the bounds of f's layers; in the 2-norm at most max(1, K) whatever η is."""
        inner = self._inner_bound(p)
        first, second = self._host_weights()
        if not (math.isfinite(inner) and math.isfinite(first)):
            return math.inf
        if p == 2.0:
            return min(up(math.hypot(first, second * inner)), max(1.0, inner))
        return max(first, second * inner) if p == math.inf else up(first + second * inner)

    def _inner_bound(self, p: float) -> float:
        bounds = [layer.norm_bound(p) for layer in self.inner]
        return up(math.prod(bounds), len(bounds)) if any(b != 1.0 for b in bounds) else 1.0

    def forward_error(self, h: Any, y: Any, before: ForwardError) -> ForwardError:
        """s′ = ‖(η₁s, η₂s_f)‖ + 64u‖y‖, which covers η, the products and this line."""
        p, u = before.norm, rounding.unit_roundoff(h)
        after, x = before, h
        for layer in self.inner:
            value = layer(x)
            after, x = layer.forward_error(x, value, after), value
        c, m = self._relative() * u, size(tuple(y.shape[1:]))
        own, more = (w * (1.0 + 2.0 * c) for w in self._host_weights())
        on_top = 1.0 + (2 * m + 32) * u
        error = (combined(own * before.error, more * after.error, p) + c * row_norm(y, y.ndim - 1, p)) * on_top
        error = error + 8.0 * m ** (1.0 / p) * before.flushed
        lipschitz = self.norm_bound(p) * before.lipschitz
        # ‖ŷ(x′) − ŷ(x)‖ ≤ Λ‖x − x′‖ + 2s′(x) + (s′(x′) − s′(x)): solved for the last
        solved = on_top / (1.0 - 2.0 * c)
        growth = solved * (own * before.growth + more * after.growth + c * lipschitz)
        drift = solved * (own * before.drift + more * after.drift + 2.0 * c * error)
        return ForwardError(error, growth, drift, lipschitz, p, before.flushed)

    def jacobian_error(self, h: Any, error: Any) -> JacobianError:
        """‖F̂ − F‖_* ≤ η₂Σ‖δF_i‖_*Π_{j≠i}‖F_j‖ + cn(η₁ + η₂K) for F = [η₁I; η₂F_k⋯F₁] of n columns, c the accuracy of η."""
        before, x = no_error(h)._replace(error=error), h
        found: list[JacobianError] = []
        for layer in self.inner:
            found.append(layer.jacobian_error(x, before.error))
            value = layer(x)
            before, x = layer.forward_error(x, value, before), value
        c, n = self._relative() * rounding.unit_roundoff(h), size(tuple(h.shape[1:]))
        first, second = (w * (1.0 + 2.0 * c) for w in self._host_weights())
        norms = [factor.norm for factor in found]
        nuclear = c * n * (first + second * math.prod(norms)) + second * telescoped(found)
        absolute = up(math.hypot(first, second * math.prod(f.absolute for f in found)))
        return JacobianError(up(math.hypot(first, second * math.prod(norms))), absolute, sum(f.terms for f in found) + 2, nuclear)

    def _relative(self) -> float:
        """Roundings of η·h, in units of u: softplus is accurate to 16 and |raw| more, the division and the product to 8."""
        raw = [0.0] if self.raw is None else [float(r) for r in to_host(self.raw)]
        return 64.0 + 4.0 * max(abs(r) for r in raw)

    def noise(self, h: Any, y: Any, variance: Any, unit: Any) -> Any:
        """[η₁²σ²; η₂²σ_f²] and one rounding."""
        inner, x = variance, h
        for layer in self.inner:
            value = layer(x)
            inner, x = layer.noise(x, value, inner, unit), value
        first, second = self.weights(h)
        own = namespace(h).concat([first * first * variance, second * second * inner], axis=1)
        return own + one_rounding(y, unit)
