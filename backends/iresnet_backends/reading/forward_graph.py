"""A forward pass as a graph of layers, and that graph as a sequence of layers: what is read of a framework's module.

Every value knows the layers that make it of one earlier value, or the values whose sum it is. Where paths part they meet again in a
sum; from the last value that all of them pass (their nearest common dominator) on they are one `Parallel` layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from iresnet_ref.layers.layer import Layer
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
            layers.insert(0, Parallel(tuple(layers_between(common, value) for value in end.inputs)))
            end = common
    return tuple(joined(layers))


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
