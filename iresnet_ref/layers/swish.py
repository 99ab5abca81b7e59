"""The activations zσ(βz)/c: SiLU (c = 1), LipSwish (c = 1.1) and half of CLipSwish (c = 1.1·1.004), β a number or an array.

With s = σ(βz), t = 1 − s = e^{−βz}s and w = βz:

    cφ′ = s(1 + wt),   cφ″ = β·st(2 + w(t − s)),   c ∂φ/∂β = z²st,   c ∂φ′/∂β = z·st(2 + w(t − s)).

c bounds a supremum that does not depend on β: sup swish′ = 1.0998393…, and inf swish′ = 1 − sup ([C19] §3.4 for LipSwish). z is
raised to where e^{−w} is finite: σ(w) is 0 to rounding below.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np

from iresnet_ref.arrays import Array, is_compiling, namespace, public
from iresnet_ref.layers.activations import ACTIVATIONS, FAMILIES, Activation, Turn
from iresnet_ref.rounding import ELEMENTARY, largest, up

LIPSWISH = 1.1
CLIPSWISH = 1.1 * 1.004
HALF = "half of clipswish"
"""The name of LipSwish/1.004 among the activations."""
SLOPES = {1.0: (-0.0998393201288672, 1.0998393201288672), LIPSWISH: (-0.0907630182989700, 0.9998539273898792)}
"""(inf φ′, sup φ′) by c, rounded outwards; with 11/10 and with its float64."""
TURN = 2.39935728
"""φ′ has its extrema at w = ±2.399357280515…, where w tanh(w/2) = 2."""


def swish_value(z: Array, beta: Array | float, scale: float) -> Array:
    """Return zσ(βz)/`scale`."""
    z, e = _exponential(z, beta, scale)  # automatic differentiation of z/∞ makes 0·∞
    return z / (scale + e)


def swish(z: Array, beta: Array | float, scale: float) -> tuple[Array, Array]:
    """Return (zσ(βz), its derivative), both divided by `scale`."""
    return _swish(z, beta, scale)[:2]


def swish_and_second(z: Array, beta: float, scale: float) -> tuple[Array, Array, Array]:
    """Return (zσ(βz), its derivative, its second derivative), all divided by `scale`, from one exponential."""
    value, slope, z, s, t = _swish(z, beta, scale)
    return value, slope, _times(beta, _bend(z, beta, scale, s, t))


def swish_derivatives(z: Array, beta: Array | float) -> tuple[Array, Array, Array]:
    """Return (∂²/∂z², ∂/∂β, ∂²/∂z∂β) of zσ(βz): st and w(t − s) are even functions of z, and st is 0 where |z| is large."""
    _, _, size, s, t = _swish(namespace(z).abs(z), beta, 1.0)
    bend = _bend(size, beta, 1.0, s, t)
    return _times(beta, bend), z * (z * (s * t)), z * bend


def _swish(z: Array, beta: Array | float, scale: float) -> tuple[Array, Array, Array, Array, Array]:
    """Return (φ, φ′, z as it is raised, s/c, t), c = `scale`."""
    z, e = _exponential(z, beta, scale)
    below = scale + e
    value, s = z / below, 1.0 / below
    t = e * s
    return value, s + value * _times(beta, t), z, s, t


def _bend(z: Array, beta: Array | float, scale: float, s: Array, t: Array) -> Array:
    """Return st(2 + w(t − s))/c of what `_swish` has found."""
    xp, w = namespace(z), z
    if not _is_one(beta):
        with _quiet(z):
            w = xp.minimum(beta * z, xp.full_like(z, _farthest(z, 1.0)))  # finite, where st is 0
    return s * t * (2.0 + w * (t - (s if scale == 1.0 else scale * s)))


def _exponential(z: Array, beta: Array | float, scale: float) -> tuple[Array, Array]:
    """Return z, raised to where e^{−βz} is finite, and c e^{−βz}."""
    xp = namespace(z)
    with _quiet(z):
        least = -_farthest(z, scale) / beta
        z = xp.maximum(z, xp.full_like(z, max(least, -largest(z))) if isinstance(least, float) else least)
        e = xp.exp(-_times(beta, z))
    return z, e if scale == 1.0 else scale * e


def _farthest(z: Array, scale: float) -> float:
    """The largest w that is used with c e^w finite."""
    return math.log(largest(z)) - max(math.log(scale), 0.0) - 1.0


def _is_one(beta: Array | float) -> bool:
    return isinstance(beta, float) and beta == 1.0


def _times(beta: Array | float, z: Array) -> Array:
    return z if _is_one(beta) else beta * z


def _quiet(z: Array) -> AbstractContextManager[object]:
    """What overflows here is as good as its limit."""
    return nullcontext() if is_compiling(z) else np.errstate(over="ignore", divide="ignore")


def _second(z: Array, beta: float, scale: float) -> Array:
    return swish_and_second(z, beta, scale)[2]


def of_slope(beta: float, scale: float) -> Activation:
    """Return zσ(βz)/`scale`, for `scale` ≥ 1.1 1-Lipschitz."""
    family, slopes = {1.0: "silu", LIPSWISH: "lipswish"}.get(scale), slopes_of(scale)
    name = HALF if (beta, scale) == (1.0, CLIPSWISH) else family if family and beta == 1.0 else f"{family or 'lipswish'} β={beta:.6g}"
    return Activation(
        name,
        partial(swish_value, beta=beta, scale=scale),
        partial(swish, beta=beta, scale=scale),
        partial(_second, beta=beta, scale=scale),
        1.0 if scale >= LIPSWISH else slopes[1],
        swish_error(beta),
        curvature=0.5 * beta / scale * (1.0 + 2.0**-50),
        made=(family, beta) if family and beta != 1.0 else None,
        slopes=slopes,
        turns=_turns(beta, slopes),
        three=partial(swish_and_second, beta=beta, scale=scale),
    )


def _turns(beta: float, slopes: tuple[float, float]) -> tuple[Turn, ...]:
    """Return the turns at w = βz = ±2.399…; the width allows for a β that is rounded."""
    if beta == 0.0:
        return ()
    near, far = (TURN - 1e-6) / beta, (TURN + 1e-6) / beta
    return Turn(-far, -near, slopes[0], slopes[0] + 1e-9), Turn(near, far, slopes[1] - 1e-9, slopes[1])


@public
def lipswish(beta: float = 1.0, *, scale: float = LIPSWISH) -> Activation:
    """Return φ(z) = zσ(βz)/`scale` with a fixed slope β > 0, 1-Lipschitz for scale ≥ 1.1. Raises ValueError. Reference: [C19] §3.4.

    >>> import numpy as np
    >>> bool(abs(lipswish(2.0).value(np.asarray(0.5)) - 0.5 / (1 + np.exp(-1.0)) / 1.1) < 1e-16)
    True
    """
    if not (0.0 < beta < math.inf and scale >= LIPSWISH):
        raise ValueError(f"lipswish: expected 0 < β < inf and scale ≥ 1.1, got {beta} and {scale}; try beta=1.0")
    return _KNOWN.get((beta, scale)) or of_slope(beta, scale)


@public
def silu(beta: float = 1.0) -> Activation:
    """Return zσ(βz), of Lipschitz constant 1.0998… whatever β. Raises ValueError unless 0 < β < ∞. Reference: arXiv 1606.08415.

    >>> silu(2.0).lipschitz == silu().lipschitz
    True
    """
    if not 0.0 < beta < math.inf:
        raise ValueError(f"silu: expected 0 < β < inf, got {beta}; try beta=1.0")
    return _KNOWN.get((beta, 1.0)) or of_slope(beta, 1.0)


def slopes_of(scale: float) -> tuple[float, float]:
    """Return (inf φ′, sup φ′) of zσ(βz)/`scale`, whatever β, rounded outwards: sup swish′ = 1.0998393201288669…, and inf = 1 − sup.

    >>> slopes_of(1.0)
    (-0.0998393201288672, 1.0998393201288672)
    """
    return SLOPES.get(scale) or (-up(0.0998393201288670 / scale, 1), up(1.0998393201288671 / scale, 1))


def swish_error(beta: float) -> float:
    """Return c in |fl φ − φ| ≤ c·u(|φ| + 1): 3|w| + 4 roundings of φ, of which those of a w far to the left weigh nothing.

    Three relative errors u of w = βz (two of β, one of the product) move zσ(w) by 3|w|u relative. For w < −W, W ≥ 2,
    3|w||φ| ≤ 3W²e^{−W}/(1.1β). The 8 of an elementary function is enough for β ≥ .1.
    """
    if beta == 0.0 or beta >= 0.1:
        return ELEMENTARY
    far = 2
    while 3.0 * far * far * math.exp(-far) / (1.1 * beta) > 3.0 * far + 4.0:
        far += 1
    return 3.0 * far + 4.0


_KNOWN = {(1.0, scale): of_slope(1.0, scale) for scale in (1.0, LIPSWISH, CLIPSWISH)}
ACTIVATIONS |= {phi.name: phi for phi in _KNOWN.values()}
FAMILIES |= {"lipswish": lipswish, "silu": silu}
