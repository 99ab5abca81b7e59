"""Summation over the series lengths: E[X] = X̄(n₀) + Σ_{n > n₀} e_n, e_n = P(N ≥ n)·(X̄(n) − X̄(n − 1)), with its error."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from iresnet_verify.randomness.enumeration import Enumerator, rounding_of
from iresnet_verify.randomness.injection import Vector
from iresnet_verify.subject.subject import HostArray


@dataclass(frozen=True)
class Expectation:
    """E[X] on each row, with the rounding and the remainder it may be off by."""

    value: Vector
    rounding: Vector
    remainder: Vector
    increments: dict[int, Vector] = field(default_factory=dict)
    """e_n by n."""
    evaluations: int = 0
    """Rows evaluated."""
    method: str = ""


def accumulate(
    plan: Enumerator, means: Callable[[int], tuple[Vector, Vector]], *, target: float,
    tail: Callable[[int], Vector] | None = None, longest: int = 200, scale: float | None = None,
    radius: float = 0.0,
) -> Expectation:
    """Sum X̄(n₀) + Σ e_n; `means(n)` gives the mean over columns of X(n, ·), and of its size, each (p,).

    `scale` is the size of what one evaluation adds up (default d, for a log-det in nats); `radius` is a rate at which the
    increments cannot fall faster in the long run, where one is known: ρ(J_g).
    """
    u, d = plan.estimate.roundoff, plan.estimate.d
    base = d if scale is None else scale
    n = plan.start
    before, size = means(n)
    value, rounding = before.copy(), rounding_of(d, u) * (size + base)
    rounding = rounding + 4.0 * plan.observed
    increments = {n: before}
    remainder = np.full_like(value, np.inf)
    while True:
        if plan.survival(n + 1) <= 0.0:
            remainder = np.zeros_like(value)
        elif len(increments) >= 4:
            guess = np.full_like(value, extrapolated([float(np.abs(e).max()) for e in increments.values()], radius))
            remainder = guess if tail is None else tail(n - plan.start)
        spent = time.thread_time() - plan.started
        if (remainder <= np.maximum(target, rounding * 1e-2)).all() or n - plan.start >= longest or spent > plan.estimate.seconds:
            break
        n += 1
        here, new_size = means(n)
        weight = plan.survival(n)
        if not np.isfinite(here).all():
            break
        increments[n] = weight * (here - before)
        value = value + increments[n]
        rounding = rounding + rounding_of(d, u, n) * weight * (size + new_size) + min(weight, plan.survival_error) * np.abs(here - before)
        before, size = here, new_size
    return Expectation(value, rounding, remainder, increments, plan.rows, plan.describe())


def expect(
    plan: Enumerator, x: HostArray, *, target: float, tail: Callable[[int], Vector] | None = None, longest: int = 200,
    radius: float = 0.0,
) -> Expectation:
    """Return E[X] on each row of x, with lengths up to where the remainder is below `target` or the time is spent.

    `tail(k)` bounds what the terms after the k-th may add in a *correct* estimate; without it the remainder is
    extrapolated from the rate at which the last increments fell.
    """
    return accumulate(plan, lambda n: plan.means(x, n), target=target, tail=tail, longest=longest, radius=radius)


def extrapolated(sizes: list[float], radius: float, window: int = 8) -> float:
    """Return 4·Σ of the increments still to come, if they fall at the rate of the last two windows or at `radius`.

    Infinite before two windows. The slower rate counts, with (1 + 2/n) for the factor n in the terms of a derivative.
    """
    n = len(sizes)
    if n < 2 * window:
        return math.inf
    last, earlier = max(sizes[-window:]), max(sizes[-2 * window : -window])
    if last == 0.0:
        return 0.0
    rate = max((last / earlier) ** (1.0 / window) if earlier > 0.0 else 1.0, radius * (1.0 + 2.0 / n))
    return 4.0 * last * rate / (1.0 - rate) if rate < 1.0 else math.inf
