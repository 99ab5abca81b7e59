"""The rows still at work: converged rows are set aside, so that the rest runs on a smaller batch."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from typing import Any

import numpy as np

from iresnet_ref.arrays import HostArray, host_norms, indices, namespace
from iresnet_ref.inverse.safeguard import Point


@dataclass
class Rows:
    """Which rows of the batch are active; on the host, per row of the batch: ‖y‖, what was spent, ‖r‖ and ‖x‖ as reached."""

    y: InitVar[Any]
    norm: float = 2.0
    size_y: HostArray = field(init=False)
    active: HostArray = field(init=False)
    evaluations: HostArray = field(init=False)
    converged: HostArray = field(init=False)
    residual: HostArray = field(init=False)
    size: HostArray = field(init=False)
    _ids: list[HostArray] = field(default_factory=list)
    _parts: list[Point] = field(default_factory=list)

    def __post_init__(self, y: Any) -> None:
        self.size_y = host_norms(y, p=self.norm)[0]
        batch = y.shape[0]
        self.active = np.arange(batch)
        self.evaluations = np.zeros(batch, dtype=np.int64)
        self.converged = np.zeros(batch, dtype=bool)
        self.residual, self.size = np.zeros(batch), np.zeros(batch)

    def spend(self, evaluations: int | HostArray) -> None:
        """Count evaluations of every active row."""
        self.evaluations[self.active] += evaluations

    def spent(self) -> int:
        """Return the most evaluations that an active row has seen."""
        return int(self.evaluations[self.active].max())

    def settle(self, done: HostArray, met: HostArray, residual: HostArray, size: HostArray, point: Point) -> None:
        """Set the rows marked `done` aside with their point, ‖r‖ and ‖x‖; converged where `met`."""
        out = np.flatnonzero(done)
        ids = self.active[out]
        self._ids.append(ids)
        self._parts.append(point.take(out) if out.size < done.size else point)
        self.converged[ids], self.residual[ids], self.size[ids] = met[out], residual[out], size[out]
        self.active = self.active[~done]

    def assemble(self) -> Point:
        """Return the points of all rows in the order of the batch."""
        if len(self._parts) == 1:
            return self._parts[0]
        order = np.argsort(np.concatenate(self._ids), kind="stable")
        xp = namespace(self._parts[0].x)
        stacked = [xp.concat(arrays, axis=0) for arrays in zip(*(p.arrays() for p in self._parts), strict=True)]
        index = indices(order, stacked[0])
        return Point(*(xp.take(a, index, axis=0) for a in stacked), norm=self.norm)
