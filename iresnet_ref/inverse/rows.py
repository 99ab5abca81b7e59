"""The rows still at work: converged rows are set aside, so that the rest runs on a smaller batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from iresnet_ref.arrays import HostArray, indices, namespace


@dataclass
class Rows:
    """Which rows of the batch are active, and the parts that have been set aside."""

    batch: int
    active: HostArray = field(init=False)
    evaluations: HostArray = field(init=False)
    converged: HostArray = field(init=False)
    _ids: list[HostArray] = field(default_factory=list)
    _parts: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.active = np.arange(self.batch)
        self.evaluations = np.zeros(self.batch, dtype=np.int64)
        self.converged = np.zeros(self.batch, dtype=bool)

    def spend(self, evaluations: int | HostArray) -> None:
        """Count evaluations of every active row."""
        self.evaluations[self.active] += evaluations

    def settle(self, done: HostArray, met: HostArray, x: Any) -> Callable[[Any], Any]:
        """Set the rows marked `done` aside with their x, converged where `met`; return what restricts arrays to the others."""
        out, stay = np.flatnonzero(done), np.flatnonzero(~done)
        self._ids.append(self.active[out])
        self._parts.append(namespace(x).take(x, indices(out, x), axis=0))
        self.converged[self.active[out]] = met[out]
        self.active = self.active[stay]
        keep = indices(stay, x)
        return lambda a: namespace(a).take(a, keep, axis=0)

    def assemble(self) -> Any:
        """Return x of all rows in the order of the batch."""
        xp = namespace(self._parts[0])
        order = np.argsort(np.concatenate(self._ids), kind="stable")
        stacked = xp.concat(self._parts, axis=0)
        return xp.take(stacked, indices(order, stacked), axis=0)
