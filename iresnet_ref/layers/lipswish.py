"""LipSwish with a slope β, fixed or learnt, and CLipSwish, which doubles the width.

    φ_β(z) = z σ(βz)/1.1,  β = softplus(raw) where it is learnt ([C19] §3.4);      CLipSwish: z ↦ [φ(z), φ(−z)]/1.004,

with s = σ(βz), t = 1 − s and w = βz:  1.1φ′ = s(1 + wt),  1.1φ″ = β·st(2 + w(t − s)),  1.1 ∂φ/∂β = z²st,  1.1 ∂φ′/∂β = z·st(2 + w(t − s)).
Both constants bound a supremum that does not depend on β: sup|swish′| = 1.0998393…, and since swish′(−z) = 1 − swish′(z),
sup √(φ′(z)² + φ′(−z)²) = 1.0039650… (Perugachi-Diaz, Tomczak, Bhulai, *Invertible DenseNets with Concatenated LipSwish*,
arXiv 2102.02694, §3.3). In the 1-norm CLipSwish has Lipschitz constant sup(|φ′(z)| + |φ′(−z)|)/1.004 = 1.08627….
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, is_compiling, namespace, public, to_host
from iresnet_ref.jacobian.factors import Diagonal, Fan, split
from iresnet_ref.layers.activations import ACTIVATIONS, FAMILIES, LIPSWISH_SLOPES, Activation, get, sigmoid
from iresnet_ref.layers.layer import Layer, Pullback, sum_probes
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_ref.rounding import up

LIPSWISH = 1.1
CLIPSWISH = 1.1 * 1.004
HALF = "half of clipswish"
"""The name of LipSwish/1.004 among the activations."""
IN_THE_1_NORM = 1.0863
"""≥ sup(|φ′(z)| + |φ′(−z)|)/1.004."""


def _sides(z: Array, beta: Any) -> tuple[Any, Any, Any]:
    """Return (w, σ(w), 1 − σ(w)) of w = βz, w kept where e^{±w} is finite: beyond, the smaller of the two sides is 0."""
    xp = namespace(z)
    with nullcontext() if is_compiling(z) else np.errstate(over="ignore"):  # βz = ±∞ is as good as the limit
        w = beta * z
    limit = xp.full_like(w, math.log(float(xp.finfo(z.dtype).max)) - 1.0)
    inside = xp.minimum(xp.maximum(w, -limit), limit)
    s, t = sigmoid(inside)
    return inside, s * xp.astype(w >= -limit, s.dtype), t * xp.astype(w <= limit, s.dtype)


def swish(z: Array, beta: Any) -> tuple[Any, Any]:
    """Return (zσ(βz), its derivative)."""
    w, s, t = _sides(z, beta)
    return z * s, s * (1.0 + w * t)


def swish_derivatives(z: Array, beta: Any) -> tuple[Any, Any, Any]:
    """Return (∂²/∂z², ∂/∂β, ∂²/∂z∂β) of zσ(βz)."""
    w, s, t = _sides(z, beta)
    bend = s * t * (2.0 + w * (t - s))
    return beta * bend, z * (z * (s * t)), z * bend


@public
def lipswish(beta: float = 1.0, *, scale: float = LIPSWISH) -> Activation:
    """Return φ(z) = zσ(βz)/`scale` with a fixed slope β > 0, 1-Lipschitz for scale ≥ 1.1. Raises ValueError.

    >>> import numpy as np
    >>> bool(lipswish(2.0).value(np.asarray(0.5)) == 0.5 / (1 + np.exp(-1.0)) / 1.1)
    True
    """
    if not (0.0 < beta < math.inf and scale >= LIPSWISH):
        raise ValueError(f"lipswish: expected 0 < β < inf and scale ≥ 1.1, got {beta} and {scale}; try beta=1.0")
    if beta == 1.0 and scale in (LIPSWISH, CLIPSWISH):
        return get("lipswish" if scale == LIPSWISH else HALF)
    return _activation(beta, scale)


def _activation(beta: float, scale: float) -> Activation:
    def both(z: Array) -> tuple[Any, Any]:
        value, slope = swish(z, beta)
        return value / scale, slope / scale

    return Activation(
        HALF if (beta, scale) == (1.0, CLIPSWISH) else f"lipswish β={beta:.6g}",
        lambda z: both(z)[0],
        both,
        lambda z: swish_derivatives(z, beta)[0] / scale,
        1.0,
        swish_error(beta),
        curvature=0.5 * beta / scale * (1.0 + 2.0**-50),
        made=("lipswish", beta) if scale == LIPSWISH else None,
        slopes=slopes_of(scale),
    )


def slopes_of(scale: float) -> tuple[float, float]:
    """Return (inf φ′, sup φ′) of zσ(βz)/`scale`, whatever β, rounded outwards: sup swish′ = 1.0998393201288669…, and inf = 1 − sup.

    >>> slopes_of(1.0)
    (-0.09983932012886704, 1.0998393201288676)
    """
    if scale == LIPSWISH:
        return LIPSWISH_SLOPES
    return -up(0.0998393201288670 / scale, 1), up(1.0998393201288671 / scale, 1)


def swish_error(beta: float) -> float:
    """Return c in |fl φ − φ| ≤ c·u(|φ| + 1): 3|w| + 4 roundings of φ, of which those of a w far to the left weigh nothing.

    Three relative errors u of w = βz (two of β, one of the product) move zσ(w) by 3|w|u relative. For w < −W, W ≥ 2,
    3|w||φ| ≤ 3W²e^{−W}/(1.1β). The 8 of an elementary function is enough for β ≥ .1.
    """
    if beta == 0.0 or beta >= 0.1:
        return rounding.ELEMENTARY
    far = 2
    while 3.0 * far * far * math.exp(-far) / (1.1 * beta) > 3.0 * far + 4.0:
        far += 1
    return 3.0 * far + 4.0


ACTIVATIONS[HALF] = _activation(1.0, CLIPSWISH)
FAMILIES["lipswish"] = lipswish


@public
@dataclass(frozen=True)
class LipSwish(Layer):
    """h ↦ hσ(βh)/scale with a slope that is learnt, β = softplus(raw), `raw` of shape (1,); [C19] begins at raw = .5."""

    raw: Array
    scale: float = LIPSWISH

    @property
    def name(self) -> str:
        """What messages call it."""
        return "learnable lipswish"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The raw slope."""
        return {"raw": self.raw}

    @property
    def beta(self) -> Any:
        """β = softplus(raw), of shape (1,)."""
        return get("softplus").value(self.raw)

    def out_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return the same shape."""
        return event

    def __call__(self, x: Any) -> Any:
        """Return φ_β(x)."""
        return swish(x, self.beta)[0] / self.scale

    def linearize(self, x: Any) -> tuple[Any, Diagonal]:
        """Return φ_β(x) and the diagonal φ_β′(x)."""
        value, slope = swish(x, self.beta)
        return value / self.scale, Diagonal(slope / self.scale)

    def pullback(self, x: Any, v: Any, y_bar: Any, t_bar: Any) -> Pullback:
        """x̄ = φ′ȳ + Σ_probes φ″v t̄, v̄ = φ′t̄, β̄ = Σ ȳ ∂φ/∂β + v t̄ ∂φ′/∂β, and the raw slope's is β̄σ(raw)."""
        xp = namespace(x)
        beta = self.beta
        slope = swish(x, beta)[1] / self.scale
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
        """Return 1 ≥ sup|φ′|, whatever p and β; inf for a slope that is not finite."""
        del p
        return 1.0 if math.isfinite(float(to_host(self.raw)[0])) else math.inf

    @property
    def fixed(self) -> Pointwise:
        """The same activation with β as a number."""
        raw = float(to_host(self.raw)[0])
        return Pointwise(_activation(max(raw, 0.0) + math.log1p(math.exp(-abs(raw))), self.scale))


@public
@dataclass(frozen=True)
class CLipSwish(Layer):
    """h ↦ [φ(h), φ(−h)]/1.004 along the first event axis, channels of images; `inner` is φ/1.004, its slope fixed or learnt."""

    inner: Pointwise | LipSwish = field(default_factory=lambda: Pointwise(lipswish(scale=CLIPSWISH)))

    @property
    def name(self) -> str:
        """What messages call it."""
        return "clipswish" if isinstance(self.inner, Pointwise) else "learnable clipswish"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Those of φ."""
        return self.inner.parameters

    @public
    def with_parameters(self, parameters: Mapping[str, Any]) -> CLipSwish:
        """Return the layer with these parameters."""
        return CLipSwish(self.inner.with_parameters(parameters))

    def out_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return twice the channels."""
        return 2 * event[0], *event[1:]

    def __call__(self, x: Any) -> Any:
        """Return [φ(x), φ(−x)]/1.004."""
        return self.inner(_mirror(x, 1, -x))

    def linearize(self, x: Any) -> tuple[Any, Fan]:
        """Return the value and [diag φ′(x); −diag φ′(−x)]/1.004."""
        y, factor = self.inner.linearize(_mirror(x, 1, -x))
        top, bottom = split(factor.entries, x.shape[1], 1)
        return y, Fan(_mirror(top, 1, -bottom))

    def pullback(self, x: Any, v: Any, y_bar: Any, t_bar: Any) -> Pullback:
        """That of φ at [x, −x], folded by [I, −I]."""
        axis = None if v is None else v.ndim - x.ndim + 1
        doubled = None if v is None else _mirror(v, axis, -v)
        x_bar, v_bar, gradients = self.inner.pullback(_mirror(x, 1, -x), doubled, y_bar, t_bar)
        return _fold(x_bar, 1), _fold(v_bar, axis), gradients

    def norm_bound(self, p: float = 2.0) -> float:
        """Return 1 ≥ sup √(φ′(z)² + φ′(−z)²)/1.004, 1.0863 in the 1-norm; inf for a slope that is not finite."""
        return self.inner.norm_bound(p) * (IN_THE_1_NORM if p == 1.0 else 1.0)


def _mirror(top: Any, axis: int | None, bottom: Any) -> Any:
    return namespace(top).concat([top, bottom], axis=axis)


def _fold(x: Any, axis: int | None) -> Any:
    if x is None or axis is None:
        return None
    top, bottom = split(x, x.shape[axis] // 2, axis)
    return top - bottom
