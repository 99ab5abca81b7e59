"""A counterexample simplified as far as it still refutes, and a search for inputs of odd structure.

The search is one call of `hypothesis.find`, seeded, without a database. Hypothesis keeps a cache of constants in its home; it is
given a temporary one for the length of the call, so that nothing is written into the user's folders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from iresnet_verify.subject.subject import HostArray

LEVELS: tuple[int | None, ...] = (None, 0, 1, 2, 3, 4, 6)
"""How simple the entries of a block may become, simplest first: zero (None), or rounded to that many decimals."""
BLOCKS = 16
"""Entries are simplified in at most so many blocks, each by itself."""
EVALUATIONS, NUMBERS = 150, 2**16
"""Most evaluations of one shrinking, and most numbers in them (16 evaluations at least)."""


def available() -> bool:
    """Whether Hypothesis can be imported."""
    try:
        import hypothesis  # noqa: F401
    except ImportError:
        return False
    return True


def shrink(rows: HostArray, refuted: Callable[[HostArray], bool]) -> HostArray:
    """Return one row, simplified as far as `refuted(row)` stays true.

    `refuted(rows)` tells whether the claim still fails on a batch (a pair of points is a batch of one with an extra
    leading axis). The row as a whole, then each block of entries, takes the simplest of `LEVELS` that a bisection finds
    to refute. Where no single row fails by itself (the fault needs its batch), the batch is returned as it is.
    """
    best = next((rows[i : i + 1] for i in range(len(rows)) if refuted(rows[i : i + 1])), None)
    if best is None:
        return rows
    if best.size == 0:
        return best
    evaluations = min(EVALUATIONS, max(16, NUMBERS // best.size))
    everything = np.arange(best.size)
    for entries in (everything, *np.array_split(everything, min(best.size, BLOCKS))):
        low, high = 0, len(LEVELS)
        middle = low if entries is not everything else high // 2
        while low < high and evaluations:
            evaluations -= 1
            candidate = _simplified(best, entries, LEVELS[middle])
            if candidate.tobytes() == best.tobytes() or _quietly(refuted, candidate):
                best, high = candidate, middle
            else:
                low = middle + 1
            middle = (low + high) // 2
    return best


def _simplified(row: HostArray, entries: HostArray, decimals: int | None) -> HostArray:
    """The row with these entries zero, or rounded to so many decimals."""
    flat = row.reshape(-1).copy()
    flat[entries] = 0.0 if decimals is None else np.round(flat[entries], decimals) + 0.0
    return flat.reshape(row.shape)


def odd_input(shape: tuple[int, ...], dtype: Any, refuted: Callable[[HostArray], bool], *, examples: int, seed: int) -> HostArray | None:
    """Return the simplest event of odd structure for which `refuted(event[None])` is true; None if none was found.

    Odd: zeros of both signs, equal and integer entries, powers of two, single spikes, values from 2⁻⁶⁰ to 2⁶.
    """
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as arrays

    magnitudes = st.sampled_from((1.0, 2.0, 0.5, 3.0, 2.0**-10, 2.0**-30, 2.0**-60, 64.0))
    one = st.one_of(st.sampled_from((0.0, -0.0)), st.integers(-3, 3).map(float), st.floats(-4, 4, width=32),
                    st.builds(lambda m, s: m * s, magnitudes, st.sampled_from((1.0, -1.0))))
    event = st.one_of(arrays.arrays(dtype, shape, elements=one, fill=st.just(0.0)), arrays.arrays(dtype, shape, elements=one, fill=one))
    found = _find(event, lambda x: _quietly(refuted, x[None].copy()), examples=examples, seed=seed)
    return None if found is None else np.asarray(found)


def _quietly(refuted: Callable[[HostArray], bool], rows: HostArray) -> bool:
    """Whether it refutes; what raises on a simplified input does not."""
    try:
        return bool(refuted(rows))
    except Exception:
        return False


def _find(strategy: Any, holds: Callable[[Any], bool], *, examples: int, seed: int) -> Any | None:
    """The minimal example of the strategy for which `holds`; None if there is none among so many."""
    from hypothesis import HealthCheck, Phase, find, settings
    from hypothesis.errors import NoSuchExample

    every: Any = list(HealthCheck)
    options = settings(max_examples=examples, database=None, deadline=None, phases=(Phase.generate, Phase.shrink),
                       suppress_health_check=every)
    with _home_of_its_own():
        try:
            return find(strategy, holds, settings=options, random=Random(seed))
        except NoSuchExample:
            return None


@contextmanager
def _home_of_its_own() -> Iterator[None]:
    """Hypothesis's home is a temporary folder, and then what it was."""
    from hypothesis import configuration

    before = vars(configuration).get("__hypothesis_home_directory")
    with TemporaryDirectory(prefix="iresnet-verify-") as folder:
        configuration.set_hypothesis_home_dir(folder)
        try:
            yield
        finally:
            configuration.set_hypothesis_home_dir(before)
