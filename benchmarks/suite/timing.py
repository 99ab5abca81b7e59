"""Groups of contenders that do one piece of work, called in turn, and what their times say of each other.

CPU time, so that other work on the machine disturbs all alike; ratios, because times are those of one machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Times = dict[str, list[float]]
"""Milliseconds of CPU time of single calls, contender by contender; none of one that does not get where the others get."""
SHORTEST = 2.0
"""Milliseconds that a reading takes at least: shorter calls are repeated within one."""


@dataclass(frozen=True)
class Group:
    """One piece of work: `measure` returns the times of everybody who does it, and `base` is whom the others are compared with.

    `amount` is what one call does, e.g. (2·10⁹, "flop"), where a rate says more than a time.
    """

    name: str
    base: str
    measure: Callable[[], Times]
    amounts: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    note: str = ""


def in_turn(work: Mapping[str, Callable[[], Any]], rounds: int = 25) -> Times:
    """Return the times of `rounds` calls of each, one after the other in every round, after two that do not count."""
    repeats = {}
    for name, call in work.items():
        call()
        repeats[name] = max(1, math.ceil(SHORTEST / max(_clocked(call, 1), 1e-3)))
    times: Times = {name: [] for name in work}
    for _ in range(rounds):
        for name, call in work.items():
            times[name].append(_clocked(call, repeats[name]))
    return times


def _clocked(call: Callable[[], Any], repeats: int) -> float:
    before = time.process_time()
    for _ in range(repeats):
        call()
    return 1e3 * (time.process_time() - before) / repeats


def median_interval(values: list[float], level: float = 0.995) -> tuple[float, float]:
    """Return order statistics between which the median lies with probability ≥ `level`, whatever the distribution; ±∞ if too few.

    Of n independent values k − 1 or fewer lie below the median with the probability of as few heads in n tosses.
    """
    n, ordered = len(values), np.sort(values)
    tail, k = 0.5**n, 0
    while tail <= (1.0 - level) / 2.0 and 2 * k < n:
        k += 1
        tail += math.comb(n, k) * 0.5**n
    return (float(ordered[k - 1]), float(ordered[n - k])) if k else (-math.inf, math.inf)


@dataclass(frozen=True)
class Line:
    """One contender of a group: its median, quartiles, and how many times the base's median that is.

    `low` and `high` contain the ratio of the true medians with probability ≥ .99 if the rounds of this run are independent; what all rounds
    share (the machine's temperature, the layout of memory) they do not contain.
    """

    group: str
    contender: str
    median: float
    quartiles: tuple[float, float]
    ratio: float
    low: float
    high: float
    rate: str = ""


def lines(group: Group, times: Times) -> list[Line]:
    """Return the lines of a group, in the order of its contenders."""
    base = times[group.base]
    base_low, base_high = median_interval(base)
    found = []
    for name, t in times.items():
        if not t:
            found.append(Line(group.name, name, math.inf, (math.inf, math.inf), math.inf, 0.0, math.inf, "does not get there"))
            continue
        low, high = median_interval(t)
        first, middle, third = (float(q) for q in np.quantile(t, (0.25, 0.5, 0.75)))
        amount, unit = group.amounts.get(name, (0.0, ""))
        rate = f"{amount / middle / 1e6:.3g} G{unit}/s" if unit else ""
        own = name == group.base
        found.append(
            Line(group.name, name, middle, (first, third), middle / float(np.median(base)), 1.0 if own else max(low, 0.0) / base_high,
                 1.0 if own else high / max(base_low, 1e-12), rate)
        )  # fmt: skip
    return found
