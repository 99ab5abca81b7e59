"""Rules of `torch_graph` for sorting, for the ends of lists and of pairs, and for stacking."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from iresnet_backends.reading.forward_graph import Value, reshaped, selection
from iresnet_backends.reading.sorting import ORDER
from iresnet_backends.reading.torch_graph import Call, Followed
from iresnet_backends.reading.torch_linear import LARGEST, only


def sort(call: Call, input: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> tuple[Value, Value]:
    """An axis of the event, sorted. Its order is no value."""
    del stable  # ties change no value
    x = only(input, call)
    return call.graph.sorting.along(x.value, _axis(call, x, dim), descending=descending), ORDER


def topk(call: Call, input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Value, Value]:
    """The first k of an axis of the event, sorted. Its order is no value."""
    x = only(input, call)
    axis, (end, _) = _axis(call, x, dim), call.events()
    if not sorted:
        raise call.refuse("topk(sorted=True), whose order is known", "sorted=False")
    whole = call.graph.sorting.along(x.value, axis, descending=largest)
    entries = math.prod(x.value.event)
    _require_size(call, entries)
    place = np.take(np.arange(entries).reshape(x.value.event), np.arange(k), axis).reshape(-1)
    return Value(end, (whole,), lambda: selection(x.value.event, place, end, call.result[0])), ORDER


def extreme(call: Call, input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The largest or the smallest along an axis of the event, or of two values. An order is no value."""
    if isinstance(dim, torch.Tensor) or other is not None:
        return of_two(call, input, dim if other is None else other)
    return along(call, input, dim, keepdim), ORDER


def along(call: Call, input: Any, dim: Any = None, keepdim: bool = False) -> Value:
    """The largest or the smallest along an axis of the event."""
    del keepdim  # the shape of the result tells
    x = only(input, call)
    dim = dim[0] if isinstance(dim, (tuple, list)) and len(dim) == 1 else dim
    if not isinstance(dim, int):
        raise call.refuse(f"one axis of the event in {call.name}", f"dim={dim}")
    _require_size(call, math.prod(x.value.event))
    like = call.result[0] if isinstance(call.result, (tuple, list)) else call.result
    one = call.graph.sorting.end(x.value, _axis(call, x, dim), like, largest=call.name.endswith("max"))
    return _reshaped(one, call.events()[0])


def of_two(call: Call, input: Any, other: Any) -> Value:
    """The larger or the smaller of two values, entry by entry."""
    if not (isinstance(input, Followed) and isinstance(other, Followed) and input.value.event == other.value.event):
        raise call.refuse(f"two values of one shape that depend on the input in {call.name}", "others; ReLU and clamp are read")
    _require_size(call, 2 * math.prod(input.value.event))
    return call.graph.sorting.of_two(input.value, other.value, call.result, largest=call.name.startswith("max"))


def stack(call: Call, tensors: Any, dim: int = 0) -> Value:
    """Values side by side along a new axis of the event."""
    (end,) = call.events()
    dim = dim % call.result.ndim
    if not all(isinstance(part, Followed) for part in tensors) or dim == 0:
        raise call.refuse("values that depend on the input, stacked along an axis of the event", "others, or the batch")
    _require_size(call, math.prod(end))
    entries = np.moveaxis(np.arange(math.prod(end)).reshape(end), dim - 1, 0)
    parts = []
    for k, part in enumerate(tensors):
        place = np.full(math.prod(end), -1)
        place[entries[k].reshape(-1)] = np.arange(entries[k].size)
        parts.append(Value(end, (part.value,), _selected(part.value.event, place, end, call.result)))
    return parts[0] if len(parts) == 1 else Value(end, tuple(parts))


def _selected(event: tuple[int, ...], place: Any, end: tuple[int, ...], like: Any) -> Any:
    return lambda: selection(event, place, end, like)


def _reshaped(value: Value, event: tuple[int, ...]) -> Value:
    return Value(event, (value,), lambda: [reshaped(value.event, event)])


def _axis(call: Call, x: Followed, dim: int) -> int:
    """Return an axis of the event. Raises ModuleError for the batch."""
    axis = dim % (len(x.value.event) + 1) - 1
    if axis < 0:
        raise call.refuse(f"{call.name} of each event on its own", "it along the batch")
    return axis


def _require_size(call: Call, entries: int) -> None:
    if entries > LARGEST:
        raise call.refuse(f"at most {LARGEST} entries in {call.name}", f"{entries}")
