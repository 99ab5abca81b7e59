"""Arrays by name as one array: what is done to every entry alike is then one call for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from iresnet_ref.arrays.namespaces import device, namespace, size
from iresnet_ref.arrays.types import Array


@dataclass(frozen=True)
class Packing:
    """Arrays by name as one, and that one apart again, as views of it where the namespace has views.

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


def alike(arrays: Mapping[str, Array]) -> Iterator[Packing]:
    """Yield the packings of the arrays of one dtype on one device, which can be one array."""
    groups: dict[object, dict[str, Array]] = {}
    for key, a in arrays.items():
        groups.setdefault((type(a), a.dtype, device(a)), {})[key] = a
    return map(Packing.of, groups.values())
