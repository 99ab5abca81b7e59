"""Dense connections: x ↦ [x; φ(Wx + b)], each layer seeing all before it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from iresnet_ref.arrays import Array, device, namespace, public, to_host
from iresnet_ref.arrays.validation import require_parameters
from iresnet_ref.jacobian.factors import Concatenated, split
from iresnet_ref.layers import sequence
from iresnet_ref.layers.activations import get, sigmoid
from iresnet_ref.layers.layer import Layer, Pullback, over_rows
from iresnet_ref.layers.tape import added, record
from iresnet_ref.norms.induced import stacked_norm_bound
from iresnet_ref.rounding import up


@public
@dataclass(frozen=True)
class Concatenation(Layer):
    """h ↦ [η₁h; η₂f(h)] with f = layer_k ∘ ⋯ ∘ layer_1; `raw` of shape (2,) are the learnt weights, None is η = 1/√2.

    Lip ≤ √(η₁² + η₂² Lip(f)²), rounded up for the η that are computed. Shapes: (batch, c, …) ↦ (batch, c + c_f, …).
    Reference: Perugachi-Diaz, Tomczak, Bhulai, 2021, arXiv 2102.02694.

    >>> import numpy as np, iresnet_ref as ir
    >>> layer = ir.layers.Concatenation((ir.layers.Affine(np.ones((1, 2)), np.zeros(1)),))
    >>> tuple(layer(np.ones((3, 2))).shape)
    (3, 3)
    """

    inner: tuple[Layer, ...]
    raw: Array | None = None

    @property
    def name(self) -> str:
        """E.g. "concatenation of dense 3→8, clipswish"."""
        return "concatenation of " + ", ".join(layer.name for layer in self.inner)

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Those of the layers of f as "0.weight" …, and the raw weights."""
        own = sequence.parameters(self.inner)
        return own if self.raw is None else {**own, "raw": self.raw}

    @public
    def with_parameters(self, parameters: Mapping[str, Array]) -> Concatenation:
        """Return the layer with these parameters."""
        require_parameters(parameters, self.parameters)
        return Concatenation(sequence.with_parameters(self.inner, parameters), None if self.raw is None else parameters["raw"])

    def out_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return the channels of the event and those of f."""
        return event[0] + sequence.out_shape(self.inner, event)[0], *event[1:]

    def weights(self, x: Array) -> tuple[Array, Array]:
        """Return (η₁, η₂) in the arithmetic of x."""
        xp = namespace(x)
        if self.raw is None:
            half = xp.sqrt(xp.full((), 0.5, dtype=x.dtype, device=device(x)))
            return half, half
        eta = get("softplus").value(self.raw)
        eta = eta / xp.sqrt(xp.sum(eta * eta))
        return eta[0], eta[1]

    def __call__(self, x: Array) -> Array:
        """Return [η₁x; η₂f(x)]."""
        first, second = self.weights(x)
        return namespace(x).concat([first * x, second * sequence.value(self.inner, x)], axis=1)

    def linearize(self, x: Array) -> tuple[Array, Concatenated]:
        """Return the value and [η₁I; η₂J_f(x)]."""
        first, second = self.weights(x)
        image, factors = sequence.linearized(self.inner, x)
        return namespace(x).concat([first * x, second * image], axis=1), Concatenated(first, second, factors)

    def pullback(self, x: Array, v: Array | None, y_bar: Array | None, t_bar: Array | None) -> Pullback:
        """x̄ = η₁ȳ₁ + η₂J_fᵀȳ₂ + …, η̄₁ = Σ ȳ₁x + t̄₁v, η̄₂ = Σ ȳ₂f(x) + t̄₂J_f v, through softplus and the division."""
        xp = namespace(x)
        first, second = self.weights(x)
        tape = record(self.inner, x, linearize=v is not None)
        tangents = () if v is None else tape.push(v)
        halves: list[Array | None] = [None, None, None, None]
        along = [xp.zeros_like(first), xp.zeros_like(first)]
        for k, (bar, pair) in enumerate(((y_bar, (x, tape.value)), (t_bar, (v, tangents[-1] if tangents else None)))):
            if bar is not None:
                parts = split(bar, x.shape[1], bar.ndim - x.ndim + 1)
                halves[k], halves[k + 2] = first * parts[0], second * parts[1]
                along = [a + xp.sum(part * of) for a, part, of in zip(along, parts, pair, strict=True)]
        x_bar, v_bar, gradients = tape.pullback(halves[2], tangents, halves[3])
        x_bar = x_bar if halves[0] is None else x_bar + halves[0]
        v_bar = v_bar if halves[1] is None or v is None else added(v_bar, over_rows(halves[1], v, x.ndim))
        if self.raw is not None:
            # η = s/‖s‖: ∂η/∂s = (I − ηηᵀ)/‖s‖, and ∂s/∂raw = σ(raw)
            s = get("softplus").value(self.raw)
            radial = first * along[0] + second * along[1]
            bars = xp.stack([along[0] - first * radial, along[1] - second * radial], axis=0)
            gradients = {**gradients, "raw": bars / xp.sqrt(xp.sum(s * s)) * sigmoid(self.raw)[0]}
        return x_bar, v_bar, gradients

    def host_weights(self) -> tuple[float, float]:
        """Return (η₁, η₂), rounded up; NaN where a raw weight is not finite, or both underflow."""
        raw = self.host_raw()
        s = [max(r, 0.0) + math.log1p(math.exp(-abs(r))) for r in raw]
        length = math.hypot(*s)
        if not (0.0 < length < math.inf):
            return math.nan, math.nan
        # softplus is accurate to a few u, and to |raw|u more where the host has rounded the raw weight
        steps = 32 + math.ceil(sum(min(abs(r), 1e6) for r in raw))
        return up(s[0] / length, steps), up(s[1] / length, steps)

    def host_raw(self) -> list[float]:
        """Return the raw weights on the host; of those that are not learnt too, whose softplus are equal."""
        return [0.0, 0.0] if self.raw is None else [float(r) for r in to_host(self.raw)]

    def norm_bound(self, p: float = 2.0) -> float:
        """Return ‖(η₁, η₂K)‖_p, K the product of the bounds of f's layers; in the 2-norm at most max(1, K) whatever η is."""
        inner = sequence.norm_bound(self.inner, p)
        first, second = self.host_weights()
        if not (math.isfinite(inner) and math.isfinite(first)):
            return math.inf
        return stacked_norm_bound(first, second, inner, p)
