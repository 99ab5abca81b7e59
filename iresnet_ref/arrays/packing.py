"""Arrays by name as one array: what is done to every entry alike is then one call for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from iresnet_ref.arrays.namespaces import device, namespace, size
from iresnet_ref.arrays.types import Array


@dataclass(frozen=True)
class Packing:
    """Arrays by name as one, and that one apart again, as views of it where the namespace has views. Equal are those of any order.

    >>> packing = Packing({"a": (2,), "b": (1, 1)})
    >>> entries = packing.together({"b": np.ones((1, 1)), "a": np.zeros(2)})
    >>> entries.tolist(), packing.apart(entries)["b"].shape
    ([0.0, 0.0, 1.0], (1, 1))
    """

    shapes: dict[str, tuple[int, ...]]

    @staticmethod
    def of(arrays: Mapping[str, Array]) -> Packing:
        """Return that of arrays like these."""
        return Packing({key: tuple(a.shape) for key, a in arrays.items()})

    def together(self, arrays: Mapping[str, Array]) -> Array:
        """Return the entries of all, on the host where there are none."""
        if isinstance(arrays, Packed) and list(arrays.packing.shapes.items()) == list(self.shapes.items()):
            return arrays.entries
        flat = [arrays[key] for key in self.shapes] or [np.zeros(0)]
        xp = namespace(flat[0])
        return xp.concat([a if a.ndim == 1 else xp.reshape(a, (-1,)) for a in flat], axis=0)

    def apart(self, entries: Array) -> dict[str, Array]:
        """Return the arrays of these entries."""
        found, start, xp = dict[str, Array](), 0, namespace(entries)
        for key, shape in self.shapes.items():
            part = entries[start : start + size(shape)]
            found[key] = part if len(shape) == 1 else xp.reshape(part, shape)
            start += size(shape)
        return found


@dataclass(frozen=True, eq=False)
class Packed(Mapping[str, Array]):
    """Arrays by name that are one array, `entries`: each is taken out when it is asked for.

    >>> packed = Packed(Packing({"a": (2,), "b": (1, 1)}), np.arange(3.0))
    >>> packed["b"].tolist(), list(packed), dict(packed)["a"].tolist()
    ([[2.0]], ['a', 'b'], [0.0, 1.0])
    """

    packing: Packing
    entries: Array

    @cached_property
    def _arrays(self) -> dict[str, Array]:
        return self.packing.apart(self.entries)

    def __getitem__(self, key: str) -> Array:
        """Return the array of this name."""
        return self._arrays[key]

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self.packing.shapes)

    def __len__(self) -> int:
        """Return how many arrays there are."""
        return len(self.packing.shapes)


def alike(arrays: Mapping[str, Array]) -> Iterator[Packing]:
    """Yield the packings of the arrays of one dtype on one device, which can be one array."""
    groups: dict[object, dict[str, Array]] = {}
    for key, a in arrays.items():
        groups.setdefault((type(a), a.dtype, device(a)), {})[key] = a
    return map(Packing.of, groups.values())
