"""An array is its numbers, not its memory: strides, orders and write flags change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.comparisons import (
    ROUNDING,
    Rows,
    forward_deterministic,
    forward_tolerance,
    gap,
    warm_up,
)
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import Comparison, verdict, with_refusals
from iresnet_verify.measurements import hygiene as measures
from iresnet_verify.subject.conventions import explain

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray, Native


def _layouts(ctx: Context, x: HostArray) -> Iterator[tuple[str, HostArray, Native]]:
    """(what it is called, the numbers, an array of the framework that holds them in that way)."""
    yield "a strided view", x, ctx.native(np.stack([x, x[::-1] + 1], axis=-1))[..., 0]
    name = ctx.framework.name
    last = tuple(range(1, x.ndim))
    if name in ("torch", "numpy"):
        turned = ctx.native(np.ascontiguousarray(np.transpose(x, (*last, 0))))
        yield "a transposed view", x, turned.permute(x.ndim - 1, *range(x.ndim - 1)) if name == "torch" else np.moveaxis(turned, -1, 0)
        same = np.repeat(x[:1], len(x), axis=0)
        row = ctx.native(x[:1])
        yield "one row expanded with stride 0", same, row.expand(*x.shape) if name == "torch" else np.broadcast_to(row, x.shape)
    if name == "torch" and x.ndim == 4:
        import torch

        yield "channels-last memory", x, ctx.native(x).contiguous(memory_format=torch.channels_last)
    if name == "numpy":
        frozen = ctx.native(x)
        frozen.flags.writeable = False
        yield "a read-only array", x, frozen
        yield "a reversed view", x[::-1], ctx.native(x)[::-1]


@check(
    "hygiene.non-contiguous",
    claim="Strided, transposed, expanded (stride 0), channels-last, reversed and read-only arrays give the same y as a contiguous "
    "copy of the same numbers, or are refused by an exception.",
    reference="an array is its numbers, not its memory layout", kind="search", modes=False, cost="one evaluation for each layout",
    catches="raw pointers, as_strided and views that assume a layout, writing into the argument and back",
)
def non_contiguous(ctx: Context) -> Outcome:
    """Every layout the framework has, of the same batch."""
    warm_up(ctx)
    x = ctx.inputs(max(ctx.rows, 3))
    if not forward_deterministic(ctx, x):
        return Outcome("inconclusive", "y differs between seeds in this mode, so evaluations cannot be compared")
    errors, bounds, tried, refusals = dict[str, Rows](), dict[str, Rows](), dict[str, Any](), dict[str, str]()
    for layout, numbers, array in _layouts(ctx, x):
        y = ctx.f.forward(numbers, seed=0)
        try:
            with ctx.guard():
                other = ctx.host(ctx.raw_forward(array, seed=0)[0])
        except Exception as error:
            refusals[layout] = explain("forward", error)
            continue
        errors[layout], bounds[layout], tried[layout] = gap(other, y), forward_tolerance(ctx, numbers, y), numbers

    def counterexample(at: Comparison) -> Counterexample:
        shown = ctx.framework.name == "torch" and at.case == "a strided view"
        return Counterexample({"x": tried[at.case], "bound": at.bound}, measures.depends_on_strides if shown else None)

    return with_refusals(verdict(
        errors, bounds,
        expected="the same y for every memory layout as for a contiguous copy",
        remedy="call .contiguous() before reading memory directly",
        passed=f"the same values from {len(errors)} memory layouts",
        tolerance=ROUNDING, oracle="a contiguous copy", counterexample=counterexample,
    ), refusals)
