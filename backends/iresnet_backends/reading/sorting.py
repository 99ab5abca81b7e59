"""Sorting as layers, for every framework: of an axis of the event, and the larger and the smaller of two values.

Sorting is 1-Lipschitz in every p-norm: of all pairings of two lists the sorted one has the least Σ|aᵢ − bᵢ|^p, and lists at other places of
the event are sorted each on its own. The largest and the smallest of a list are its sorted one's ends. Ties and stability change no value.
What is taken of one list is read from one sorted value, so that MaxMin, made of its two halves, is seen to be a permutation of it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from iresnet_backends.reading.forward_graph import Value, reshaped, selection
from iresnet_ref.layers.layer import Layer
from iresnet_ref.layers.rearrangement import Rearrangement
from iresnet_ref.layers.sorting import GroupSort

ORDER = Value(())
"""In place of a value: the order that a sort has found, which jumps. It is refused where it is used."""


class Sorting:
    """The sorted values of one forward pass, each made once."""

    def __init__(self) -> None:
        self._made: dict[Any, tuple[Any, Value]] = {}

    def along(self, x: Value, axis: int, *, descending: bool) -> Value:
        """Return x sorted along an axis."""
        return self._once((x, axis, descending), lambda: Value(x.event, (x,), lambda: _sorted(x.event, axis, descending)))

    def end(self, x: Value, axis: int, like: Any, *, largest: bool) -> Value:
        """Return the largest or the smallest along an axis, which stays with one entry."""
        whole = self.along(x, axis, descending=True)
        out = tuple(1 if i == axis else n for i, n in enumerate(x.event))
        place = np.take(np.arange(math.prod(x.event)).reshape(x.event), [0 if largest else x.event[axis] - 1], axis).reshape(-1)
        return Value(out, (whole,), lambda: selection(x.event, place, out, like))

    def of_two(self, a: Value, b: Value, like: Any, *, largest: bool) -> Value:
        """Return the larger or the smaller of two values, entry by entry."""
        n, both = math.prod(a.event), (2, *a.event)

        def placed(value: Value, k: int) -> Value:
            place = np.full(2 * n, -1)
            place[k * n : (k + 1) * n] = np.arange(n)
            return Value(both, (value,), lambda: selection(value.event, place, both, like))

        stacked = self._once((a, b), lambda: Value(both, (placed(a, 0), placed(b, 1))))
        one = self.end(stacked, 0, like, largest=largest)
        return Value(a.event, (one,), lambda: [reshaped(one.event, a.event)])

    def _once(self, key: tuple[Any, ...], make: Any) -> Value:
        """Return what stands under these objects, which are kept so that no other can take their places."""
        ids = tuple(id(part) if isinstance(part, Value) else part for part in key)
        if ids not in self._made:
            self._made[ids] = (key, make())
        return self._made[ids][1]


def _sorted(event: tuple[int, ...], axis: int, descending: bool) -> list[Layer]:
    axes = (axis, *(i for i in range(len(event)) if i != axis))
    moved = tuple(event[i] for i in axes)
    lists = (moved[0], math.prod(moved[1:]))
    back = Rearrangement(moved, tuple(int(i) for i in np.argsort(axes)), event)
    return [Rearrangement(event, axes, lists), GroupSort(None, descending), reshaped(lists, moved), back]
