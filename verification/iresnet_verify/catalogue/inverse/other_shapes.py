"""The inverse at the further event shapes that the subject declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iresnet_verify.catalogue.inverse.round_trips import recovers_input
from iresnet_verify.catalogue.shared.event_shapes import REFERENCE, at_other_shapes
from iresnet_verify.check.registry import check

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.check.outcome import Outcome


@check(
    "inverse.other-shapes",
    claim="The inverse undoes the map at every declared event shape: inverse(F(x)) = x.",
    reference=f"{REFERENCE}, Theorem 1", kind="search", needs=("inverse", "other_shapes"),
    cost="that of inverse.recovers-input for each shape",
    catches="sizes written into the inverse, caches of another shape, masks and permutations of one resolution",
)
def other_shapes(ctx: Context) -> Outcome:
    """`inverse.recovers-input`, shape by shape."""
    return at_other_shapes(ctx, recovers_input)
