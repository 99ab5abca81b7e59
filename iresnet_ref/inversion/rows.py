"""The rows still at work: what the host sees of them, and those set aside, so that the rest runs on a smaller batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from iresnet_ref.arrays import Array, HostArray, host_norms, indices, namespace
from iresnet_ref.arrays.validation import require_finite
from iresnet_ref.errors import NotContractiveError
from iresnet_ref.inversion.safeguard import Goal, Point


@dataclass
class Rows:
    """Which rows of the batch are active; on the host, per row of the batch: ‖y‖, what was spent, ‖r‖ and ‖x‖ as reached."""

    batch: int
    norm: float = 2.0
    size_y: HostArray | None = field(default=None, init=False)
    active: HostArray = field(init=False)
    evaluations: HostArray = field(init=False)
    converged: HostArray = field(init=False)
    residual: HostArray = field(init=False)
    size: HostArray = field(init=False)
    _least: HostArray = field(init=False)
    _since: HostArray = field(init=False)
    _ids: list[HostArray] = field(default_factory=list)
    _parts: list[Point] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.active = np.arange(self.batch)
        self.evaluations = np.zeros(self.batch, dtype=np.int64)
        self.converged = np.zeros(self.batch, dtype=bool)
        self.residual, self.size = np.zeros(self.batch), np.zeros(self.batch)
        self._least, self._since = np.full(self.batch, np.inf), np.zeros(self.batch, dtype=np.int64)

    def measure(self, point: Point, rtol: float, *others: Array) -> tuple[HostArray, HostArray, HostArray, HostArray]:
        """Return (‖r‖, rtol·max(‖x‖, ‖y‖, ‖g‖), ‖x‖, the norms of `others`) per active row: the one synchronisation.

        ‖y‖ comes with the first. Where ‖r‖ is not finite: NonFiniteError if y is at fault, else NotContractiveError.
        """
        new = () if self.size_y is not None else (point.y,)
        residual, x, g, *rest = host_norms(point.r, point.x, point.g, *new, *others, p=self.norm, leading=3)
        size_y = self.size_y = rest.pop(0) if self.size_y is None else self.size_y
        if not np.isfinite(residual).all():
            require_finite(y=point.y)
            raise NotContractiveError(
                "invert: expected ‖r‖ to shrink by Lip(g) < 1 at every step, got a residual outside the floating-point range; "
                "check the weights, or drop lipschitz= so that the bound is proved, or try smaller y"
            )
        return residual, rtol * np.maximum(np.maximum(x, size_y[self.active]), g), x, np.asarray(rest)

    def stand_still(self, residual: HostArray, goal: Goal) -> HostArray:
        """Return which active rows have not made the progress of a window since they last did; see `Goal`."""
        spent = self.evaluations[self.active]
        further = ~(residual > goal.progress * self._least[self.active])
        moved = self.active[further]
        self._least[moved], self._since[moved] = residual[further], spent[further]
        return spent - self._since[self.active] >= goal.window

    def out_of_budget(self, budget: HostArray) -> HostArray:
        """Return which active rows have spent as many evaluations as they may."""
        return self.evaluations[self.active] >= budget

    def spend(self, evaluations: int | HostArray) -> None:
        """Count evaluations of every active row."""
        self.evaluations[self.active] += evaluations

    def spent(self) -> int:
        """Return the most evaluations that an active row has seen."""
        return int(self.evaluations[self.active].max())

    def retire(self, done: HostArray, met: HostArray, residual: HostArray, size: HostArray, point: Point) -> None:
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
