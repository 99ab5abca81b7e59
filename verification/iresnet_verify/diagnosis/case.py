"""What hypotheses are tested on: inputs of their own, the right numbers at them, and the subject's answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property

import numpy as np

from iresnet_verify.catalogue.shared.log_det_truth import Truth, truth_at
from iresnet_verify.check.budget import BUDGETS
from iresnet_verify.check.context import Context
from iresnet_verify.diagnosis.hypothesis import Array
from iresnet_verify.running.run import Prepared
from iresnet_verify.subject.calls import flat
from iresnet_verify.subject.module_state import preserved, set_mode
from iresnet_verify.subject.subject import HostArray

NAME = "diagnosis"
"""Takes the place of a check's id in the seeds."""
SEED = 31
NEIGHBOURS = 16
STEP = 2.0**-25
"""Relative distance of neighbours: a smooth function's second difference over it is below float64's rounding."""


class Case:
    """One subject in one mode, at inputs that no check has used."""

    def __init__(self, ctx: Context, failed: frozenset[str] = frozenset(), x: HostArray | None = None) -> None:
        self.ctx, self.failed = ctx, failed
        taken = {ctx.d, 2, *ctx.subject.event_shape, math.prod(ctx.subject.event_shape[1:])}
        sizes = (8, 7, 9, 11, 13) if ctx.d <= 256 else (5, 6, 7, 4)
        self.rows = next(n for n in sizes if n not in taken)
        self.x = ctx.inputs(self.rows) if x is None else x

    def at(self, x: HostArray) -> Case:
        """The same at other inputs."""
        return Case(self.ctx, self.failed, x)

    @cached_property
    def y(self) -> HostArray:
        """F(x)."""
        return self.ctx.f.forward(self.x, seed=SEED)

    @cached_property
    def truth(self) -> Truth:
        """log|det dF/dx| at x."""
        return truth_at(self.ctx, self.x)

    @cached_property
    def size(self) -> Array:
        """‖x‖ + ‖y‖ + √d of each row, (rows,)."""
        x, y = (np.linalg.norm(flat(a).astype(np.float64), axis=1) for a in (self.x, self.y))
        return np.asarray(x + y + math.sqrt(self.ctx.d))

    def residual(self, x: HostArray) -> Array:
        """g(x), by the subject's g where it gives one, in float64."""
        f = self.ctx.f
        g = f.forward(x, seed=SEED) - x if f.residual is None else f.residual(x, seed=SEED)
        return np.asarray(g, dtype=np.float64)

    def alone(self, call: Callable[..., HostArray], a: HostArray) -> HostArray:
        """What `call` answers to each row of a in a batch of its own."""
        return np.concatenate([call(a[i : i + 1], seed=SEED) for i in range(len(a))])

    def roughness(self, values: Callable[[HostArray, int], Array]) -> Array:
        """The largest second difference of values(x, seed) along neighbours of each row."""
        way = self.ctx.rng.choice([-1.0, 1.0], size=self.x.shape)
        steps = [(self.x + j * STEP * (1.0 + np.abs(self.x)) * way).astype(self.x.dtype) for j in range(NEIGHBOURS)]
        return np.asarray(np.abs(np.diff(np.stack([values(x, SEED) for x in steps]), 2, axis=0)).max(0))


@contextmanager
def opened(prepared: Prepared, mode: str | None, seed: int, budget: str, failed: Iterable[str] = ()) -> Iterator[Case]:
    """A case in one mode; parameters, flags and generators are put back afterwards."""
    before = prepared.framework.snapshot_globals()
    try:
        with preserved(prepared.subject.module):
            set_mode(prepared.subject.module, mode)
            conventions = prepared.conventions(mode)
            prepared.framework.restore_globals(before)
            context = Context(prepared.subject, NAME, mode, seed, BUDGETS[budget], 0.0, prepared.framework, conventions)
            yield Case(context, frozenset(failed))
    finally:
        prepared.framework.restore_globals(before)
