"""The Lipschitz bound at the further event shapes that the subject declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iresnet_verify.catalogue.lipschitz.bound import bounds_jacobian
from iresnet_verify.catalogue.shared.event_shapes import REFERENCE, at_other_shapes
from iresnet_verify.check.registry import check

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.check.outcome import Outcome


@check(
    "lipschitz.other-shapes",
    claim="The claimed bound holds at every declared event shape: ‖J_g(x)‖₂ ≤ L.",
    reference=f"{REFERENCE}, Theorem 1", kind="search", needs=("lipschitz", "other_shapes"),
    cost="that of lipschitz.bounds-jacobian for each shape",
    catches="operator norms of a convolution computed at one spatial size and used at another",
)
def other_shapes(ctx: Context) -> Outcome:
    """`lipschitz.bounds-jacobian`, shape by shape."""
    return at_other_shapes(ctx, bounds_jacobian)
