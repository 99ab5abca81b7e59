"""Distributions of single random draws, as far as an enumeration needs them: mean and scale of a probe, P(N ≥ k) of a length."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

Family = Literal["normal", "uniform", "two-point", "length", "other"]


@dataclass(frozen=True)
class Distribution:
    """The distribution of each entry of one draw.

    Probe families are affine: entry = mean + s·z, s the standard deviation, with E[z] = 0, E[z²] = 1; for "two-point" z is ±1.
    A "length" has `survival(k)` = P(N ≥ k) and its smallest value `start`. "other" is anything that cannot be enumerated.
    """

    family: Family
    mean: float = 0.0
    standard_deviation: float = 1.0
    start: int = 0
    survival: Callable[[int], float] | None = None
    label: str = ""
    granularity: float = 2.0**-53
    """Of the uniforms from which the sampler makes it: P(N ≥ k) is right to this only."""

    @property
    def symmetric(self) -> bool:
        """Whether z and −z have one distribution, so that odd parts of an estimate vanish in expectation."""
        return self.family in ("normal", "uniform") or (self.family == "two-point" and self.label != "skewed")


OTHER = Distribution("other")


def normal(mean: Any = 0.0, standard_deviation: Any = 1.0) -> Distribution:
    """The normal distribution if all entries have one mean and one standard deviation; else other."""
    m, s = _constant(mean), _constant(standard_deviation)
    return OTHER if m is None or s is None else Distribution("normal", m, s)


def uniform(low: Any = 0.0, high: Any = 1.0) -> Distribution:
    """U(low, high)."""
    a, b = _constant(low), _constant(high)
    return OTHER if a is None or b is None else Distribution("uniform", (a + b) / 2.0, (b - a) / math.sqrt(12.0))


def two_point(low: Any, high: Any, p: Any = 0.5) -> Distribution:
    """The values low and high, the latter with probability p."""
    a, b, q = _constant(low), _constant(high), _constant(p)
    if a is None or b is None or q is None:
        return OTHER
    if q == 0.5:
        return Distribution("two-point", (a + b) / 2.0, (b - a) / 2.0)
    return Distribution("two-point", a + (b - a) * q, (b - a) * math.sqrt(max(q * (1.0 - q), 0.0)), label="skewed")


def integers(low: Any, high: Any) -> Distribution:
    """Integers low ≤ n < high: two-point if there are two of them, else other."""
    a, b = _constant(low), _constant(high)
    return two_point(a, a + 1.0) if a is not None and b is not None and b - a == 2.0 else OTHER


def choice(values: Any, p: Any = None) -> Distribution:
    """One of the given values: two-point if they are two equally likely ones, else other."""
    known = np.asarray(range(values) if isinstance(values, int) else values)
    fair = p is None or np.array_equal(np.asarray(p), [0.5, 0.5])
    return two_point(known[0], known[1]) if known.shape == (2,) and known.dtype.kind in "iuf" and fair else OTHER


def geometric(p: Any, start: int = 1) -> Distribution:
    """Trials up to the first success (start = 1) or failures before it (start = 0): P(N ≥ k) = (1 − p)^(k − start)."""
    q = _constant(p)
    if q is None or not 0.0 < q <= 1.0:
        return OTHER
    return Distribution("length", start=start, label=f"geometric({q:.6g}) from {start}",
               survival=lambda k: (1.0 - q) ** max(k - start, 0))


def poisson(rate: Any) -> Distribution:
    """P(N ≥ k) = Σ_{i ≥ k} e^{−λ} λⁱ/i!, summed from the small end."""
    lam = _constant(rate)
    if lam is None or not lam > 0.0:
        return OTHER

    def survival(k: int) -> float:
        if k <= 0:
            return 1.0
        last = max(k, math.ceil(lam)) + 40 + math.ceil(6.0 * math.sqrt(lam))
        logs = (i * math.log(lam) - lam - math.lgamma(i + 1) for i in range(last, k - 1, -1))
        return min(sum(math.exp(v) for v in logs), 1.0)

    return Distribution("length", start=0, survival=survival, label=f"Poisson({lam:.6g})")


def length(survival: Callable[[int], float], start: int = 1, label: str = "given") -> Distribution:
    """A length whose P(N ≥ k) is given."""
    return Distribution("length", start=start, survival=survival, label=label)


def length_of_unknown_distribution() -> Distribution:
    """A length that can be injected, but whose distribution is not given: from 1 on."""
    return Distribution("length", start=1, label="an unknown distribution")


def coarse(distribution: Distribution, single: bool) -> Distribution:
    """The same distribution, drawn from float32 uniforms if `single`."""
    return replace(distribution, granularity=2.0**-23) if single else distribution


def _constant(value: Any) -> float | None:
    """The one number that a scalar or array consists of, or None."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    a = np.asarray(value)
    if a.dtype.kind not in "iufb" or a.size == 0:
        return None
    first = float(a.ravel()[0])
    return first if bool((a == a.ravel()[0]).all()) and math.isfinite(first) else None
