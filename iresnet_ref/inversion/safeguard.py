"""What every method of inversion shares: the decision, the evaluation bound, and the refutation of a false constant.

*Safeguard.* A trial z that costs m evaluations of g or products with J is accepted at x only if ‖r(z)‖ ≤ Lᵐ‖r(x)‖, which is
what m Banach steps guarantee; else the iteration stays at x and takes at least m Banach steps before the next trial.
Every evaluation is then the first one, one of at most N = ⌈log(‖r₀‖/tol)/log(1/L)⌉ that each pay a factor L, or part of a
rejected trial; and every rejected trial but the last is followed by as many Banach steps. So no row above its rounding
floor needs more than `step_bound` evaluations: twice the *a-priori* Banach count, whatever g is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, HostArray, from_host, indices, namespace, row_norm
from iresnet_ref.block import ResidualBlock
from iresnet_ref.errors import NotContractiveError

MOST_EVALUATIONS = 20_000
"""The most evaluations of a row, unless `max_evaluations` is given: at L = 1 − 1e-12 the bound is 1e13 steps."""
SHORTEST, LONGEST = 256, 2048
"""The window in which a row must get on, in evaluations."""


@dataclass(frozen=True)
class Goal:
    """What the iteration is asked for: ‖r̂‖ ≤ rtol·max(‖x‖, ‖y‖, ‖g(x)‖) on each row, given Lip(g) ≤ `lipschitz`.

    `check_every` evaluations pass between host synchronisations; `limit` evaluations are never exceeded. With `stated`
    the constant is not proved, and each synchronisation tries to refute it. A row is given up as stuck at its rounding floor
    when within `window` evaluations ‖r̂‖ did not shrink by `progress`: half of what L guarantees for half of them.
    """

    lipschitz: float
    rtol: float
    check_every: int
    limit: int = MOST_EVALUATIONS
    stated: bool = False

    def budget(self, first: HostArray, target: HostArray, extra: int) -> HostArray:
        """Return how many evaluations each row may spend before it counts as stuck at its rounding floor."""
        return np.minimum(step_bound(first, target, self.lipschitz, extra + self.check_every), self.limit)

    @property
    def window(self) -> int:
        """In how many evaluations a row must get on: until L guarantees a half, but not for too short or too long."""
        half = 2.0 * math.log(0.5) / math.log(self.lipschitz) if self.lipschitz > 0.0 else 0.0
        return math.ceil(min(max(half, SHORTEST), LONGEST))

    @property
    def progress(self) -> float:
        """By which factor at least ‖r̂‖ shrinks in a window above the rounding floor."""
        return 0.5 * (1.0 + self.lipschitz ** (0.5 * self.window))

    def left(self, spent: int) -> int:
        """Return how many evaluations are left below the limit."""
        return self.limit - spent


@dataclass(frozen=True)
class Point:
    """An evaluated iterate: x, g(x) and y of each row; r(x) = y − x − g(x) and ‖r(x)‖ are formed when they are asked for."""

    x: Array
    g: Array
    y: Array
    norm: float = field(default=2.0, kw_only=True)

    @cached_property
    def r(self) -> Array:
        """The residual."""
        return self.y - self.x - self.g

    @cached_property
    def size(self) -> Array:
        """‖r‖ per row."""
        return row_norm(self.r, self.x.ndim - 1, self.norm)

    def arrays(self) -> tuple[Array, Array, Array]:
        """Return (x, g, y)."""
        return self.x, self.g, self.y

    def take(self, rows: HostArray) -> Point:
        """Return the point of these rows."""
        index = indices(rows, self.x)
        return Point(*(namespace(a).take(a, index, axis=0) for a in self.arrays()), norm=self.norm)


def step_bound(first: HostArray, target: HostArray, lipschitz: float, extra: int) -> HostArray:
    """Return 2·max(1, ⌈log(‖r₀‖/tol)/log(1/L)⌉) + 2 + extra per row, extra ≥ m_max + check_every.

    >>> step_bound(np.asarray([1.0]), np.asarray([0.1]), 0.5, 5)
    array([15])
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(np.maximum(first / target, 1.0)) / (-math.log(lipschitz) if lipschitz > 0.0 else math.inf)
    ratio = np.where(np.isfinite(ratio), ratio, 2.0**20)  # tol = 0: nothing but r = 0 converges
    return 2 * np.maximum(1, np.ceil(ratio)).astype(np.int64) + 2 + extra


def steps_wanted(residual: HostArray, target: HostArray, rate: HostArray) -> HostArray:
    """Return in how many steps each row meets its tolerance if ‖r‖ goes on shrinking by `rate`: at least 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.log(residual / target) / -np.log(np.minimum(rate, 1.0))
    return np.fmax(steps, 1.0)  # NaN where ‖r‖ = 0


def accepts(now: Point, trial: Point, cost: int, lipschitz: float, target: Array) -> Array:
    """Return, per row, whether a trial of `cost` evaluations stands: ‖r(z)‖ ≤ Lᶜᵒˢᵗ‖r(x)‖, or the tolerance is met."""
    return trial.size <= namespace(now.x).maximum(lipschitz**cost * now.size, target)


def device_tolerance(target: HostArray, like: Array) -> Array:
    """Return the tolerance per row on the device, rounded down: a row that meets it here meets it on the host too."""
    return from_host(target * (1.0 - 2.0**-20), like)


def between(a: Point, b: Point) -> tuple[Array, Array, Array, Array]:
    """Return b − a, g(b) − g(a), a and b, whose norms `refute` reads."""
    return b.x - a.x, b.g - a.g, a.x, b.x


def refute(block: ResidualBlock, norms: Sequence[HostArray], lipschitz: float, like: Array) -> None:
    """Raise NotContractiveError if two evaluations disprove the stated Lip(g) ≤ L beyond all rounding, by the norms of `between`.

    ‖ĝ(a) − ĝ(b)‖ ≤ L‖a − b‖ + e(a) + e(b) whenever Lip(g) ≤ L, with e(x) = α + β‖x‖ ≥ ‖ĝ − g‖ (`Branch.rounding`). For a Banach
    step b = a + r(a) the left side is ‖r(b)‖ and ‖a − b‖ is ‖r(a)‖, up to rounding.
    """
    alpha, beta = block.branch.rounding
    distance, reached, first, second = norms
    slack = 1.0 + (4 * math.prod(like.shape[1:]) + 64) * rounding.unit_roundoff(like)
    tiny = rounding.smallest_normal(like)
    if (reached > (lipschitz * distance + 2.0 * alpha + beta * (first + second)) * slack + tiny).any():
        ratio = float((reached / (distance + tiny)).max())
        raise NotContractiveError(
            f"expected Lip(g) ≤ {lipschitz:.6g} as stated, but one Banach step changed ‖r‖ by a factor of up to {ratio:.6g}, "
            "beyond what rounding explains; drop lipschitz= or normalise the weights"
        )
