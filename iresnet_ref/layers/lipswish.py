"""LipSwish with a slope β that is learnt, and CLipSwish, which doubles the width.

    φ_β(z) = z σ(βz)/1.1,  β = softplus(raw) ([C19] §3.4);      CLipSwish: z ↦ [φ(z), φ(−z)]/1.004,

since swish′(−z) = 1 − swish′(z) and sup √(φ′(z)² + φ′(−z)²) = 1.0039650… (Perugachi-Diaz, Tomczak, Bhulai, *Invertible DenseNets
with Concatenated LipSwish*, arXiv 2102.02694, §3.3). In the 1-norm CLipSwish has Lipschitz constant
sup(|φ′(z)| + |φ′(−z)|)/1.004 = 1.08627….
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from iresnet_ref.arrays import Array, namespace, public, to_host
from iresnet_ref.jacobian.factors import Diagonal, StackedDiagonal, split
from iresnet_ref.layers.activations import get, sigmoid
from iresnet_ref.layers.layer import Layer, Pullback, sum_probes
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_ref.layers.swish import (
    CLIPSWISH,
    LIPSWISH,
    lipswish,
    of_slope,
    slopes_of,
    swish,
    swish_derivatives,
    swish_value,
)
from iresnet_ref.rounding import up

IN_THE_1_NORM = 1.0863
"""≥ sup(|φ′(z)| + |φ′(−z)|)/1.004."""


@public
@dataclass(frozen=True)
class LipSwish(Layer):
    """h ↦ hσ(βh)/scale with a slope that is learnt, β = softplus(raw), `raw` of shape (1,); [C19] begins at raw = .5.

    Lip ≤ 1 for every β: sup|swish′| = 1.0998… is below `scale` = 1.1. Shapes: any event.
    Limits: nothing overflows: where e^{−βh} leaves the range of the dtype, h ↦ 0 to rounding.

    >>> import numpy as np, iresnet_ref as ir
    >>> layer = ir.layers.LipSwish(0.5 * np.ones(1))
    >>> tuple(layer(np.zeros((3, 2))).shape), layer.norm_bound()
    ((3, 2), 1.0)
    """

    raw: Array
    scale: float = LIPSWISH

    @property
    def name(self) -> str:
        """What messages call it."""
        return "learnable lipswish"

    @property
    def parameters(self) -> Mapping[str, Array]:
        """The raw slope."""
        return {"raw": self.raw}

    @property
    def beta(self) -> Array:
        """β = softplus(raw), of shape (1,)."""
        return get("softplus").value(self.raw)

    def out_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return the same shape."""
        return event

    def __call__(self, x: Array) -> Array:
        """Return φ_β(x)."""
        return swish_value(x, self.beta, self.scale)

    def linearize(self, x: Array) -> tuple[Array, Diagonal]:
        """Return φ_β(x) and the diagonal φ_β′(x)."""
        value, slope = swish(x, self.beta, self.scale)
        return value, Diagonal(slope)

    def pullback(self, x: Array, v: Array | None, y_bar: Array | None, t_bar: Array | None) -> Pullback:
        """x̄ = φ′ȳ + Σ_probes φ″v t̄, v̄ = φ′t̄, β̄ = Σ ȳ ∂φ/∂β + v t̄ ∂φ′/∂β, and the raw slope's is β̄σ(raw)."""
        xp = namespace(x)
        beta = self.beta
        slope = swish(x, beta, self.scale)[1]
        second, by_beta, slope_by_beta = swish_derivatives(x, beta)
        x_bar = v_bar = None
        total = xp.zeros_like(x)
        if y_bar is not None:
            x_bar, total = slope * y_bar, y_bar * by_beta
        if t_bar is not None:
            vt = sum_probes(v * t_bar, x.ndim)
            bent = second * vt / self.scale
            x_bar = bent if x_bar is None else x_bar + bent
            v_bar, total = slope * t_bar, total + vt * slope_by_beta
        return x_bar, v_bar, {"raw": sigmoid(self.raw)[0] * (xp.sum(total) / self.scale)}

    def norm_bound(self, p: float = 2.0) -> float:
        """Return 1 ≥ sup|φ′|, whatever p and β, more for a `scale` below 1.1; inf for a slope that is not finite."""
        bound = 1.0 if self.scale >= LIPSWISH else slopes_of(self.scale)[1]
        return bound if math.isfinite(float(to_host(self.raw)[0])) else math.inf

    @property
    def fixed(self) -> Pointwise:
        """The same activation with β as a number."""
        raw = float(to_host(self.raw)[0])
        return Pointwise(of_slope(max(raw, 0.0) + math.log1p(math.exp(-abs(raw))), self.scale))


@public
@dataclass(frozen=True)
class CLipSwish(Layer):
    """h ↦ [φ(h), φ(−h)]/1.004 along the first event axis, channels of images; `inner` is φ/1.004, its slope fixed or learnt.

    Lip ≤ 1 with half the slope lost by LipSwish alone. Shapes: (batch, c, …) ↦ (batch, 2c, …).
    Reference: Perugachi-Diaz, Tomczak, Bhulai, *Invertible DenseNets with Concatenated LipSwish*, 2021, arXiv 2102.02694.

    >>> import numpy as np, iresnet_ref as ir
    >>> layer = ir.layers.CLipSwish()
    >>> tuple(layer(np.zeros((3, 2))).shape), layer.norm_bound()
    ((3, 4), 1.0)
    """

    inner: Pointwise | LipSwish = field(default_factory=lambda: Pointwise(lipswish(scale=CLIPSWISH)))

    @property
    def name(self) -> str:
        """What messages call it."""
        return "clipswish" if isinstance(self.inner, Pointwise) else "learnable clipswish"

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Those of φ."""
        return self.inner.parameters

    @public
    def with_parameters(self, parameters: Mapping[str, Array]) -> CLipSwish:
        """Return the layer with these parameters."""
        return CLipSwish(self.inner.with_parameters(parameters))

    def out_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return twice the channels."""
        return 2 * event[0], *event[1:]

    def __call__(self, x: Array) -> Array:
        """Return [φ(x), φ(−x)]/1.004."""
        return self.inner(_mirror(x, 1, -x))

    def linearize(self, x: Array) -> tuple[Array, StackedDiagonal]:
        """Return the value and [diag φ′(x); −diag φ′(−x)]/1.004."""
        y, factor = self.inner.linearize(_mirror(x, 1, -x))
        top, bottom = split(factor.entries, x.shape[1], 1)
        return y, StackedDiagonal(_mirror(top, 1, -bottom))

    def pullback(self, x: Array, v: Array | None, y_bar: Array | None, t_bar: Array | None) -> Pullback:
        """That of φ at [x, −x], folded by [I, −I]."""
        axis = 1 if v is None else v.ndim - x.ndim + 1
        doubled = None if v is None else _mirror(v, axis, -v)
        x_bar, v_bar, gradients = self.inner.pullback(_mirror(x, 1, -x), doubled, y_bar, t_bar)
        return _fold(x_bar, 1), _fold(v_bar, axis), gradients

    def norm_bound(self, p: float = 2.0) -> float:
        """Return 1 ≥ sup √(φ′(z)² + φ′(−z)²)/1.004, 1.0863 in the 1-norm; inf for a slope that is not finite.

        Of another φ than LipSwish with scale 1.1·1.004 or more it is 2^{1/p} sup|φ′|.
        """
        inner = self.inner
        known = inner.scale >= CLIPSWISH if isinstance(inner, LipSwish) else inner.activation.slopes == slopes_of(CLIPSWISH)
        if not known:
            return up(inner.norm_bound(p) * 2.0 ** (1.0 / p))
        return inner.norm_bound(p) * (IN_THE_1_NORM if p == 1.0 else 1.0)


def _mirror(top: Array, axis: int, bottom: Array) -> Array:
    return namespace(top).concat([top, bottom], axis=axis)


def _fold(x: Array | None, axis: int) -> Array | None:
    if x is None:
        return None
    top, bottom = split(x, x.shape[axis] // 2, axis)
    return top - bottom
