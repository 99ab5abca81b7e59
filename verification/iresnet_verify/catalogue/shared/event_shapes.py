"""A check run at every further event shape that a subject declares: the same claim, with events of another size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from iresnet_verify.catalogue.shared.comparisons import context_of, warm_up
from iresnet_verify.check.outcome import Outcome

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context

REFERENCE = "other_shapes of the subject; Behrmann et al. 2019 (arXiv 1811.00995)"


def at_other_shapes(ctx: Context, run: Callable[[Context], Outcome]) -> Outcome:
    """Return the first outcome that is not a pass, else the last; the shapes share alpha equally.

    The network is called at its own event shape first: what it computes from the first size it meets must serve the others too.
    """
    warm_up(ctx)
    found = Outcome("skipped", "no other shape is declared")
    shapes = ctx.subject.other_shapes
    for shape in shapes:
        there = context_of(ctx, replace(ctx.subject, event_shape=shape, other_shapes=(), inputs=None, log_prob=None,
                                        base_log_prob=None, sample=None, linear_maps=None))
        there.alpha = ctx.alpha / len(shapes)
        found = run(there)
        found = replace(found, message=f"at {shape}: {found.message}", evidence={"shape": str(shape), **found.evidence})
        if found.status != "passed":
            return found
    return replace(found, message=f"{len(shapes)} further shapes; {found.message}")
