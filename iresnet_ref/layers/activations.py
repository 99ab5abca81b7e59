"""Activations φ with φ′, φ″ and a Lipschitz constant.

Every formula is written so that it neither overflows nor cancels, with one exponential: E = exp(−z), z raised to where E is
finite, σ(z) = 1/(1 + E), and 1 − σ(z) = E σ(z), never a difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, SupportsIndex

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, HostArray, family, namespace, public

Function = Callable[[Array], Array]
Both = Callable[[Array], tuple[Array, Array]]
Three = Callable[[Array], tuple[Array, Array, Array]]


class Turn(NamedTuple):
    """φ′ has an extremum or jumps somewhere in [`low`, `high`], and lies in [`least`, `largest`] there, one-sided limits included."""

    low: float
    high: float
    least: float
    largest: float


def extremum(place: float, slope: float) -> Turn:
    """Return the turn of a smooth φ at an extremum of φ′, both known to many more digits than it says."""
    return Turn(place - 1e-6, place + 1e-6, slope - 1e-9, slope + 1e-9)


@public
@dataclass(frozen=True)
class Activation:
    """A scalar function φ, applied entry by entry.

    `both(z)` is (φ(z), φ′(z)) sharing the work, `second(z)` is φ″(z), `lipschitz` ≥ sup|φ′|, and `error` the constant in
    |fl φ(z) − φ(z)| ≤ error·u·(|φ(z)| + 1), and likewise for φ′. At the kink of ReLU φ′(0) = 0. `errors` are
    (package, constant) where a package's own function needs a larger one: `error_on`. `curvature` and `jump`
    bound |φ′(a) − φ′(b)| ≤ curvature·|a − b| + jump·(how many `kinks` lie between a and b); inf where they are not stated. `made`
    is (family, *arguments) of a member of a family, such as ("elu", 2.0): what saving and interchange need to make it again.
    `slopes` (inf φ′, sup φ′), rounded outwards, says more than `lipschitz` does: tight certificates live on it. Between its `turns`,
    repeated with `period` if that is finite, φ′ is monotone; None where they are not known: `slopes_between`. `second_from(z, φ′)` is
    φ″ as well, where φ′(z) is known and that spares work; `three(z)` is (φ, φ′, φ″), where all share what is dear.

    Shapes: any array, entry by entry. Raises: nothing of its own.

    >>> import numpy as np, iresnet_ref as ir
    >>> phi = ir.activations.get("elu")
    >>> float(phi.value(np.zeros(1))[0]), phi.lipschitz, phi.slope_interval
    (0.0, 1.0, (0.0, 1.0))
    """

    name: str
    value: Function
    both: Both
    second: Function
    lipschitz: float
    error: float = rounding.ELEMENTARY
    curvature: float = math.inf
    jump: float = 0.0
    made: tuple[str | float, ...] | None = None
    kinks: tuple[float, ...] = (0.0,)
    errors: tuple[tuple[str, float], ...] = ()
    slopes: tuple[float, float] | None = None
    turns: tuple[Turn, ...] | None = None
    period: float = math.inf
    second_from: Callable[[Array, Array], Array] | None = None
    three: Three | None = None

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """Pickled as it is made: by its name or its family, as it was where it has neither."""
        if self.made is not None and self.made[0] in FAMILIES:
            return FAMILIES[str(self.made[0])], self.made[1:]
        return (get, (self.name,)) if ACTIVATIONS.get(self.name) is self else super().__reduce_ex__(protocol)

    def second_at(self, z: Array, slope: Array) -> Array:
        """Return φ″(z), `slope` = φ′(z)."""
        return self.second(z) if self.second_from is None else self.second_from(z, slope)

    @property
    def slope_interval(self) -> tuple[float, float]:
        """(α, β) with α ≤ (φ(a) − φ(b))/(a − b) ≤ β for all a ≠ b: `slopes`, or ±`lipschitz` where they are not stated."""
        return (-self.lipschitz, self.lipschitz) if self.slopes is None else self.slopes

    @public
    def error_on(self, z: Array) -> float:
        """Return the constant `error` for the package that computes with z."""
        return dict(self.errors).get(family(z), self.error)

    def slopes_between(self, low: HostArray, high: HostArray) -> tuple[HostArray, HostArray]:
        """Return (α, β), entry by entry, with α ≤ (φ(a) − φ(b))/(a − b) ≤ β for all a ≠ b between `low` and `high`: host float64.

        The hull of φ′(low), φ′(high), widened by their rounding, and of the turns between them (docs/proofs.md, *Activations*);
        `slope_interval` where turns are not known or an end is not finite.

        >>> import numpy as np, iresnet_ref as ir
        >>> ends = ir.activations.get("tanh").slopes_between(np.asarray([-1.0, 1.0]), np.asarray([1.0, 2.0]))
        >>> [e.round(3).tolist() for e in ends]
        [[0.42, 0.071], [1.0, 0.42]]
        """
        least, largest = (np.full(np.shape(low), end) for end in self.slope_interval)
        if self.turns is None:
            return least, largest
        with np.errstate(all="ignore"):
            ends = [np.asarray(self.both(end)[1]) for end in (low, high)]
        error = self.error_on(low) * rounding.FLOAT64_ROUNDOFF * 1.001
        below = np.minimum(*(s - error * (np.abs(s) + 1.0) for s in ends))
        above = np.maximum(*(s + error * (np.abs(s) + 1.0) for s in ends))
        for turn in self.turns:
            met = self._meets(turn, low, high)
            below = np.where(met, np.minimum(below, turn.least), below)
            above = np.where(met, np.maximum(above, turn.largest), above)
        known = np.isfinite(low) & np.isfinite(high) & np.isfinite(below) & np.isfinite(above)
        return np.where(known, np.maximum(below, least), least), np.where(known, np.minimum(above, largest), largest)

    def _meets(self, turn: Turn, low: HostArray, high: HostArray) -> HostArray:
        """Return where [low, high] meets the turn or one of its translates; where rounding leaves that open, it does."""
        if math.isinf(self.period):
            return np.asarray((low <= turn.high) & (high >= turn.low))
        first, last = (low - turn.high) / self.period, (high - turn.low) / self.period
        doubt = 8.0 * rounding.FLOAT64_ROUNDOFF
        return np.asarray(np.ceil(first - doubt * (np.abs(first) + 1.0)) <= np.floor(last + doubt * (np.abs(last) + 1.0)))


def sigmoid(z: Array) -> tuple[Array, Array]:
    """Return (σ(z), 1 − σ(z)), both to full relative accuracy while exp(−z) is in the range of the dtype."""
    e = namespace(z).exp(-_raised(z))
    s = 1.0 / (1.0 + e)
    return s, e * s


def _raised(z: Array) -> Array:
    """Return z, raised to where exp(−z) is finite: what is below has σ(z) = 0 to rounding."""
    xp = namespace(z)
    return xp.maximum(z, xp.full_like(z, 1.0 - math.log(float(xp.finfo(z.dtype).max))))


def _indicator(condition: Array, z: Array) -> Array:
    return namespace(z).astype(condition, z.dtype)


def _negative_part(z: Array) -> Array:
    xp = namespace(z)
    return xp.minimum(z, xp.zeros_like(z))


def _expm1(z: Array) -> Array:
    """Return e^z − 1 for z ≤ 0 to full relative accuracy.

    NumPy's own is scalar code where there is no AVX-512, in float32 three times as slow as 2t/(1 − t), t = tanh(z/2) ≤ 0: nothing
    cancels, an error of t is not enlarged, and from 3.2u of it at most 6u come. With AVX-512 it takes half as long as that.
    """
    xp = namespace(z)
    if not (family(z) == "numpy" and z.dtype == xp.float32) or _expm1_is_vectorised():
        return xp.expm1(z)
    return _expm1_by_tanh(z)


def _expm1_by_tanh(z: Array) -> Array:
    t = namespace(z).tanh(0.5 * z)
    return t / (0.5 - 0.5 * t)


@cache
def _expm1_is_vectorised() -> bool:
    """Return whether NumPy's float32 expm1 was compiled for vector instructions of this processor, as far as NumPy tells."""
    found = np.lib.introspect.opt_func_info(func_name="^expm1$", signature="float32") if hasattr(np.lib, "introspect") else {}
    return any(not kind["current"].startswith("baseline") for kinds in found.values() for kind in kinds.values())


def _elu(z: Array) -> Array:
    return _elu_of(z, _negative_part(z))


def _elu_of(z: Array, left: Array) -> Array:
    return namespace(z).maximum(z, _expm1(left))  # e^z − 1 ≥ z


def _elu_both(z: Array) -> tuple[Array, Array]:
    left = _negative_part(z)
    return _elu_of(z, left), namespace(z).exp(left)


def _elu_second_from(z: Array, slope: Array) -> Array:
    return slope * _indicator(z < 0.0, z)


def _elu_second(z: Array) -> Array:
    return _elu_second_from(z, namespace(z).exp(_negative_part(z)))


def sech_squared(z: Array) -> Array:
    """Return 4E/(1 + E)², E = exp(−2|z|): 1 − tanh² would have the error of tanh, which is 7u in XLA, twice over."""
    xp = namespace(z)
    e = xp.exp(-2.0 * xp.abs(z))
    return 4.0 * e / ((1.0 + e) * (1.0 + e))


def _tanh_both(z: Array) -> tuple[Array, Array]:
    return namespace(z).tanh(z), sech_squared(z)


def _tanh_second_from(z: Array, slope: Array) -> Array:
    return -2.0 * namespace(z).tanh(z) * slope


def _softplus(z: Array) -> Array:
    xp = namespace(z)
    return xp.maximum(z, xp.zeros_like(z)) + xp.log1p(xp.exp(-xp.abs(z)))


def _softplus_second(z: Array) -> Array:
    s, t = sigmoid(z)
    return s * t


def _rising_both(z: Array) -> tuple[Array, Array]:
    xp = namespace(z)
    half = xp.cos(0.5 * z)
    return 0.5 * (z + xp.sin(z)), half * half


def _relu(z: Array) -> Array:
    xp = namespace(z)
    return xp.maximum(z, xp.zeros_like(z))


ACTIVATIONS: dict[str, Activation] = {
    a.name: a
    for a in (
        Activation(
            "identity",
            lambda z: z,
            lambda z: (z, namespace(z).ones_like(z)),
            lambda z: namespace(z).zeros_like(z),
            1.0,
            0.0,
            curvature=0.0,
            slopes=(1.0, 1.0),
            turns=(),
        ),
        Activation(
            "elu", _elu, _elu_both, _elu_second, 1.0, curvature=1.0, slopes=(0.0, 1.0), turns=(), second_from=_elu_second_from
        ),
        Activation(
            "tanh", lambda z: namespace(z).tanh(z), _tanh_both, lambda z: _tanh_second_from(z, sech_squared(z)), 1.0, curvature=0.77,
            slopes=(0.0, 1.0), turns=(Turn(0.0, 0.0, 1.0, 1.0),), second_from=_tanh_second_from,
        ),
        Activation(
            "softplus", _softplus, lambda z: (_softplus(z), sigmoid(z)[0]), _softplus_second, 1.0, curvature=0.25, slopes=(0.0, 1.0),
            turns=(),
        ),
        Activation(
            "sine",
            lambda z: namespace(z).sin(z),
            lambda z: (namespace(z).sin(z), namespace(z).cos(z)),
            lambda z: -namespace(z).sin(z),
            1.0,
            turns=(Turn(0.0, 0.0, 1.0, 1.0), Turn(math.pi, math.nextafter(math.pi, 4.0), -1.0, -1.0)),
            period=2.0 * math.pi,
            curvature=1.0,
        ),
        Activation(
            "rising sine", lambda z: 0.5 * (z + namespace(z).sin(z)), _rising_both, lambda z: -0.5 * namespace(z).sin(z), 1.0,
            curvature=0.5, slopes=(0.0, 1.0),
            turns=(Turn(0.0, 0.0, 1.0, 1.0), Turn(math.pi, math.nextafter(math.pi, 4.0), 0.0, 0.0)),
            period=2.0 * math.pi,  # (z + sin z)/2, with slope (1 + cos z)/2 = cos²(z/2)
        ),
        Activation(
            "relu", _relu, lambda z: (_relu(z), _indicator(z > 0.0, z)), lambda z: namespace(z).zeros_like(z), 1.0, 0.0, 0.0, 1.0,
            slopes=(0.0, 1.0), turns=(),
        ),
    )
}
"""Every activation by its name, as `activation=` of `ir.mlp`, `ir.convnet` and `ir.densenet` takes it: 'elu', 'lipswish', 'sine', …"""


@public
def elu(alpha: float = 1.0) -> Activation:
    """Return ELU: z for z > 0, α(e^z − 1) below; Lipschitz constant max(1, α). Raises ValueError unless 0 ≤ α < ∞.

    Limits: within `Activation.error`·u(|φ| + 1) of φ, the same for φ′. Reference: Clevert, Unterthiner, Hochreiter 2016, arXiv 1511.07289.

    >>> elu(2.0).lipschitz
    2.0
    """
    if not 0.0 <= alpha < math.inf:
        raise ValueError(f"elu: expected 0 ≤ α < inf, got {alpha}; try alpha=1.0")
    if alpha == 1.0:
        return get("elu")

    def both(z: Array) -> tuple[Array, Array]:
        xp = namespace(z)
        left = _negative_part(z)
        slope = _indicator(z > 0.0, z) + alpha * xp.exp(left) * _indicator(z <= 0.0, z)
        return xp.maximum(z, xp.zeros_like(z)) + alpha * _expm1(left), slope

    def second(z: Array) -> Array:
        return alpha * _elu_second(z)

    name, lipschitz, jump = f"elu α={alpha:.6g}", max(1.0, alpha), abs(1.0 - alpha)
    return Activation(
        name, lambda z: both(z)[0], both, second, lipschitz, rounding.ELEMENTARY, alpha, jump, ("elu", alpha), slopes=(0.0, lipschitz),
        turns=(Turn(0.0, 0.0, min(1.0, alpha), lipschitz),),
    )  # fmt: skip


@public
def leaky_relu(slope: float = 0.01) -> Activation:
    """Return z for z > 0, slope·z below; Lipschitz constant max(1, |slope|), φ′(0) = slope. Raises ValueError unless finite.

    >>> leaky_relu(0.1).lipschitz
    1.0
    """
    if not math.isfinite(slope):
        raise ValueError(f"leaky_relu: expected a finite slope, got {slope}; try slope=0.01")

    def both(z: Array) -> tuple[Array, Array]:
        xp = namespace(z)
        return _relu(z) + slope * xp.minimum(z, xp.zeros_like(z)), _indicator(z > 0.0, z) + slope * _indicator(z <= 0.0, z)

    def second(z: Array) -> Array:
        return namespace(z).zeros_like(z)

    error = 2.0 + 2.0**-20  # the rounding of the slope, which need not be a number of the dtype, and of the product
    name = "leaky relu" if slope == 0.01 else f"leaky relu {slope:.6g}"
    made = ("leaky relu", slope)
    slopes = (min(slope, 1.0), max(slope, 1.0))
    return Activation(
        name, lambda z: both(z)[0], both, second, max(1.0, abs(slope)), error, 0.0, abs(1.0 - slope), made, slopes=slopes, turns=()
    )


ACTIVATIONS["leaky relu"] = leaky_relu()
FAMILIES: dict[str, Callable[..., Activation]] = {"elu": elu, "leaky relu": leaky_relu}
"""Constructors of activations with arguments, by the first entry of `made`."""


@public
def get(name: str, more: tuple[str, ...] = ()) -> Activation:
    """Return the activation of this name; ValueError names the known ones, and `more`.

    >>> get("elu").lipschitz
    1.0
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {', '.join(sorted((*ACTIVATIONS, *more)))}, got {name!r}; try 'lipswish'")
    return ACTIVATIONS[name]
