"""A forward pass as a graph of layers, and that graph as a sequence of layers: what is read of a framework's module.

Every value knows the layers that make it of one earlier value, or the values whose sum it is. Where paths part they meet again in a
sum; from the last value that all of them pass (their nearest common dominator) on they are one `Parallel` layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from iresnet_ref.arrays import HostArray, from_host, to_host
from iresnet_ref.layers.layer import Layer
from iresnet_ref.layers.linear import Affine
from iresnet_ref.layers.parallel import Parallel
from iresnet_ref.layers.rearrangement import Rearrangement


@dataclass(frozen=True, eq=False)
class Value:
    """A value of event shape `event`: `make()` are the layers behind its one input; with several inputs it is their sum.

    `note` is what a rule wants another to know: that it is σ(βz) of some z, or a padded image.
    """

    event: tuple[int, ...]
    inputs: tuple[Value, ...] = ()
    make: Callable[[], Sequence[Layer]] = tuple
    note: Any = field(default=None)

    @cached_property
    def dominators(self) -> tuple[Value, ...]:
        """The values that every path from the input to this one passes, the nearest first."""
        if not self.inputs:
            return (self,)
        first, *others = (value.dominators for value in self.inputs)
        return (self, *(value for value in first if all(any(value is v for v in other) for other in others)))


def layers_between(start: Value, end: Value) -> tuple[Layer, ...]:
    """Return the layers that make `end` of `start`, which must dominate it."""
    layers: list[Layer] = []
    while end is not start:
        if len(end.inputs) == 1:
            layers[:0] = end.make()
            end = end.inputs[0]
        else:
            common = end.dominators[1]
            paths = tuple(layers_between(common, value) for value in end.inputs)
            layers[:0] = _as_one_selection(paths, common.event, end.event) or [Parallel(paths)]
            end = common
    return tuple(joined(layers))


def _as_one_selection(paths: Sequence[tuple[Layer, ...]], event: tuple[int, ...], out: tuple[int, ...]) -> list[Layer] | None:
    """Return one matrix in place of paths that each put entries of the event somewhere, no two into one place; None for others.

    Zeros and ones multiply and add without rounding, and what a sum of paths proves only of their norms together is proved of the matrix.
    """
    total, like = np.full(math.prod(out), -1), None
    for path in paths:
        place: HostArray = np.arange(math.prod(event))
        for layer in path:
            if isinstance(layer, Rearrangement):
                place = place.reshape(layer.event).transpose(layer.axes).reshape(-1)
            elif isinstance(layer, Affine):
                like, weight = layer.weight, to_host(layer.weight)
                taken = weight == 1.0
                if np.any(to_host(layer.bias)) or np.any(weight[~taken]) or taken.sum(axis=1).max(initial=0) > 1:
                    return None
                place = np.where(taken.any(axis=1), place[taken.argmax(axis=1)], -1)
            else:
                return None
        if np.any((place >= 0) & (total >= 0)):
            return None
        total = np.where(place >= 0, place, total)
    return None if like is None else selection(event, total, out, like)


def selection(event: tuple[int, ...], place: HostArray, out: tuple[int, ...], like: Any) -> list[Layer]:
    """Return the layers that put entry place[j] of the event into entry j, and 0 where that is −1: a matrix of zeros and ones."""
    matrix = np.zeros((place.size, math.prod(event)))
    matrix[np.flatnonzero(place >= 0), place[place >= 0]] = 1.0
    weight = from_host(matrix, like)
    return [reshaped(event, (matrix.shape[1],)), Affine(weight, 0.0 * weight[:, 0]), reshaped((place.size,), out)]


def less(end: Value, start: Value, negative: Callable[[], Sequence[Layer]]) -> Value:
    """Return g where `end` = x + g: without one `start` among its terms, or with −x as a further term where none is."""

    def terms(value: Value) -> list[Value]:
        return [t for part in value.inputs for t in terms(part)] if len(value.inputs) > 1 else [value]

    found = terms(end)
    place = next((i for i, term in enumerate(found) if term is start), None)
    if place is None or len(found) == 1:
        return Value(end.event, (end, Value(end.event, (start,), negative)))
    rest = found[:place] + found[place + 1 :]
    return rest[0] if len(rest) == 1 else Value(end.event, tuple(rest))


def joined(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Yield the layers, neighbouring reshapes made into one, and those that do nothing left out."""
    pending: Rearrangement | None = None
    for layer in layers:
        if isinstance(layer, Rearrangement) and pending is None:
            pending = layer
        elif isinstance(layer, Rearrangement) and pending is not None and layer.axes == tuple(range(len(layer.axes))):
            pending = Rearrangement(pending.event, pending.axes, layer.out)
        else:
            if pending is not None and not _does_nothing(pending):
                yield pending
            pending = layer if isinstance(layer, Rearrangement) else None
            if pending is None:
                yield layer
    if pending is not None and not _does_nothing(pending):
        yield pending


def _does_nothing(layer: Rearrangement) -> bool:
    return layer.event == layer.out and layer.axes == tuple(range(len(layer.axes)))


def reshaped(event: tuple[int, ...], out: tuple[int, ...]) -> Rearrangement:
    """Return the layer that reads events of one shape as another."""
    return Rearrangement(event, tuple(range(len(event))), out)
