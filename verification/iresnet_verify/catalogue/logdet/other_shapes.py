"""The log-determinant at the further event shapes that the subject declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iresnet_verify.catalogue.logdet.value import matches_determinant
from iresnet_verify.catalogue.shared.event_shapes import REFERENCE, at_other_shapes
from iresnet_verify.check.registry import check

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.check.outcome import Outcome


@check(
    "logdet.other-shapes",
    claim="log_det(x) is log|det dF/dx| as claimed at every declared event shape.",
    reference=f"{REFERENCE}, eq. 3", kind="proof", needs=("log_det", "other_shapes"), statistical=True,
    cost="that of logdet.matches-determinant for each shape",
    catches="a number of pixels or dimensions written into the log-det",
)
def other_shapes(ctx: Context) -> Outcome:
    """`logdet.matches-determinant`, shape by shape."""
    return at_other_shapes(ctx, matches_determinant)
