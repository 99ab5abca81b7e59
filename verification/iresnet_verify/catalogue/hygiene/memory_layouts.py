"""An array is its numbers, not its memory: strides, orders and write flags change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.comparisons import forward_tolerance, gap, steady_forward, warm_up, worst
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.measurements import hygiene as measures
from iresnet_verify.subject.conventions import explain

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray, Native

ROUNDING = "2·(64u·(‖x‖+‖y‖+√d) + conditioning): two evaluations, each to rounding"


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
    if not steady_forward(ctx, x):
        return Outcome("inconclusive", "y differs between seeds in this mode, so evaluations cannot be compared")
    evidence: dict[str, Any] = {}
    for what, numbers, array in _layouts(ctx, x):
        y = ctx.f.forward(numbers, seed=0)
        try:
            with ctx.guard():
                other = ctx.host(ctx.raw_forward(array, seed=0)[0])
        except Exception as error:
            evidence[what] = f"refused: {explain('forward', error)}"
            continue
        apart, bound = gap(other, y), forward_tolerance(ctx, numbers, y)
        at = worst(apart, bound)
        if not (apart <= bound).all():
            measure = measures.depends_on_strides if ctx.framework.name == "torch" and what == "a strided view" else None
            return Outcome(
                "failed", f"expected the same y from {what} as from a contiguous copy, got a difference of {apart[at]:.2e}; "
                "call .contiguous() before reading memory directly", {**evidence, "layout": what, "gap": float(apart[at])},
                f"{bound[at]:.2e} = {ROUNDING}", "a contiguous copy", Counterexample({"x": numbers, "bound": float(bound[at])}, measure))
        evidence[what] = float(apart[at] / bound[at])
    return Outcome("passed", f"the same values from {len(evidence)} memory layouts", evidence, ROUNDING, "a contiguous copy")
