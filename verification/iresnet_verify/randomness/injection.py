"""Injection of chosen probes and series lengths into a black box, row by row.

A draw is a *probe* if its shape holds the batch axis and the event (or its flattening), in any order, with any further
axes ("slots", several probes of one row); it is a *length* if its distribution is geometric, Poisson or given. Everything else
keeps its seeded value. The batch is padded to a prime so that its axis is not mistaken for another one; a batch of
k·B merged rows may run probe-major or row-major, which the row-locality test of `enumeration` decides.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from iresnet_verify.randomness import distributions
from iresnet_verify.randomness.distributions import Distribution
from iresnet_verify.randomness.interception import Interception
from iresnet_verify.randomness.recorder import Draw, ReplaceDraw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from iresnet_verify.subject.subject import HostArray, Subject

Vector = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
PROBES = ("normal", "uniform", "two-point")


def injector(subject: Subject) -> Callable[[ReplaceDraw], AbstractContextManager[Any]]:
    """Return replace -> context manager that injects draws: the subject's own `randomness`, else interception.

    `randomness(draw)` calls `draw(kind, shape)` or, better, `draw("length", shape, survival)` with `survival(k)` = P(N ≥ k):
    without it a series length can be injected but not enumerated.
    """
    if subject.randomness is None:
        return lambda replace: Interception(replace, subject)
    given = subject.randomness

    @contextmanager
    def context(replace: ReplaceDraw) -> Iterator[None]:
        rng, count = np.random.default_rng(0), 0

        def draw(kind: str, shape: Any, survival: Callable[[int], float] | None = None) -> Any:
            nonlocal count
            size = tuple(int(s) for s in np.atleast_1d(np.asarray(shape, dtype=np.int64)))
            if kind == "length":
                described = (distributions.length_of_unknown_distribution() if survival is None
                             else distributions.length(survival, start=_start(survival)))
                default: Any = np.full(size, described.start + 2, dtype=np.int64)
            else:
                described, default = distributions.normal(), rng.choice([-1.0, 1.0], size=size)
            asked = Draw(count, f"randomness: {kind}", size, described, "subject", default)
            count += 1
            value = replace(asked)
            return default if value is None else np.asarray(value, dtype=default.dtype).reshape(size)

        with given(draw):
            yield

    return context


def _start(survival: Callable[[int], float]) -> int:
    """The smallest value with positive probability: the last k with P(N ≥ k) = 1, at most 1000."""
    return next((k for k in range(1000) if survival(k + 1) < 1.0), 0)


@dataclass(frozen=True)
class Place:
    """Where a draw's rows and entries are: the axes of the batch and of the event, and how often a merged row repeats."""

    batch: int
    event: tuple[int, ...]
    repeat: int = 1


def probe_place(shape: tuple[int, ...], batch: int, event: tuple[int, ...], variant: int = 0) -> Place | None:
    """Return where a probe-shaped draw keeps its rows, or None where it is not shaped like the input.

    Where the event could be at several places (as many probes as dimensions), `variant` counts them from the right.

    >>> probe_place((3, 7, 5), 7, (5,)), probe_place((21, 5), 7, (5,)).repeat, probe_place((5,), 7, (5,))
    (Place(batch=1, event=(2,), repeat=1), 3, None)
    """
    flat = (int(np.prod(event, dtype=int)),)
    found = []
    for tail in dict.fromkeys((event, flat)):
        for first in range(len(shape) - len(tail), -1, -1):
            if not tail or shape[first : first + len(tail)] != tail:
                continue
            axes = tuple(range(first, first + len(tail)))
            rest = [a for a in range(len(shape)) if a not in axes]
            exact = [a for a in rest if shape[a] == batch]
            merged = [a for a in rest if shape[a] and shape[a] % batch == 0]
            if exact or merged:
                axis = (exact or merged)[0]
                found.append(Place(axis, axes, shape[axis] // batch))
    return found[min(variant, len(found) - 1)] if found else None


def length_place(shape: tuple[int, ...], batch: int) -> Place | None:
    """Return where a length draw keeps its rows, or None where one length serves the whole call."""
    axes = [a for a, s in enumerate(shape) if s == batch] or [a for a, s in enumerate(shape) if s and s % batch == 0]
    return Place(axes[0], (), shape[axes[0]] // batch) if axes else None


@dataclass
class InjectedDraws:
    """What every row gets: standardised probes z (batch, d) and lengths n (batch,); None keeps the generator's own.

    `other` and `other_lengths` go to the slots that `mask` picks, for the tests of separability.
    """

    probes: Vector | None = None
    lengths: Integers | None = None
    other: Vector | None = None
    other_lengths: Integers | None = None
    mask: int = 0
    row_major: bool = False
    variant: int = 0
    seen: list[Draw] = field(default_factory=list)

    def __call__(self, draw: Draw, batch: int, event: tuple[int, ...]) -> npt.ArrayLike | None:
        """Return the values for one draw; None keeps the generator's."""
        self.seen.append(draw)
        if draw.distribution.family in PROBES and self.probes is not None:
            place = probe_place(draw.shape, batch, event, self.variant)
            if place is None:
                return None
            z = self._slots(draw, place, self.probes, self.other)
            return draw.distribution.mean + draw.distribution.standard_deviation * z
        if draw.distribution.family == "length" and self.lengths is not None:
            place = length_place(draw.shape, batch)
            if place is not None:
                return self._slots(draw, place, self.lengths, self.other_lengths)
            count = int(np.prod(draw.shape, dtype=int))
            pick = self._picked(draw, count)
            other = self.lengths if self.other_lengths is None else self.other_lengths
            return np.where(pick, other[0], self.lengths[0]).reshape(draw.shape)
        return None

    def _picked(self, draw: Draw, count: int) -> npt.NDArray[np.bool_]:
        return np.random.default_rng([self.mask, draw.index]).integers(0, 2, size=count).astype(bool)

    def _slots(self, draw: Draw, place: Place, own: Any, other: Any) -> Any:
        """An array of the draw's shape in which each slot holds `own` or, where picked, `other`."""
        rows, event = place.batch, place.event
        rest = [s for a, s in enumerate(draw.shape) if a != rows and a not in event]
        batch = own.shape[0]
        count = int(np.prod(rest, dtype=int)) * place.repeat
        pick = self._picked(draw, count) if other is not None else np.zeros(count, dtype=bool)
        both = np.stack([own, own if other is None else other])
        full = both[pick.astype(int)]                                    # (count, batch[, d])
        full = full.reshape(*rest, place.repeat, batch, *(draw.shape[a] for a in event))
        axis = len(rest)
        if self.row_major:
            full = np.swapaxes(full, axis, axis + 1)
        full = full.reshape(*rest, place.repeat * batch, *(draw.shape[a] for a in event))
        order = [a for a in range(len(draw.shape)) if a != rows and a not in event] + [rows, *event]
        return np.transpose(full, np.argsort(order))


def next_prime(n: int) -> int:
    """Return the least prime ≥ max(n, 5)."""
    n = max(n, 5)
    while any(n % k == 0 for k in range(2, int(n**0.5) + 1)):
        n += 1
    return n


def padded(x: HostArray, event: tuple[int, ...]) -> int:
    """Return the batch to use for these rows: a prime that divides no axis of the event, so that no axis looks like merged rows."""
    n = next_prime(x.shape[0])
    while any(k % n == 0 for k in (*event, int(np.prod(event, dtype=int)))):
        n = next_prime(n + 1)
    return n


def is_modelled(draw: Draw, batch: int, event: tuple[int, ...]) -> bool:
    """Whether a draw is a probe or a series length, whose values are enumerated, or the seed of a generator that draws those."""
    is_probe = draw.distribution.family in PROBES and probe_place(draw.shape, batch, event) is not None
    return is_probe or draw.distribution.family == "length" or bool(draw.seeds)


def distributions_of(draws: list[Draw], batch: int, event: tuple[int, ...]) -> tuple[list[Distribution], list[Distribution]]:
    """Return the distributions of the probes and of the lengths among the draws."""
    probes = [d.distribution for d in draws if d.distribution.family in PROBES and probe_place(d.shape, batch, event) is not None]
    return probes, [d.distribution for d in draws if d.distribution.family == "length"]
