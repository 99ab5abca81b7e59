"""The first check: can the subject be called at all, and how were its answers read?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iresnet_verify.check.outcome import Outcome
from iresnet_verify.check.registry import SLOW, check
from iresnet_verify.subject.unreadable import advice

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context

SECONDS_A_ROW = 0.05
"""From here on an audit takes minutes: it is said at once."""


@check(
    "hygiene.readable",
    claim="Every callable given answers a batch of B events in the promised form: forward, inverse and residual with "
    "(B, *event), log-dets and densities with one number per row, in floating arrays of the declared framework.",
    reference="the `Subject` contract",
    kind="proof",
    cost="one call of each callable",
    catches="wrong shapes and packings, arrays of another framework, callables that raise, generators of bad inputs",
)
def readable(ctx: Context) -> Outcome:
    """Report what was read; an *error*, not a failure, where nothing can be read, for then nothing is known."""
    conventions = ctx.conventions
    evidence: dict[str, Any] = {**conventions.formats}
    if conventions.changes_state:
        evidence["state changed by calls"] = ", ".join(conventions.changes_state[:8])
    if not conventions.broken:
        slow = conventions.seconds_a_row >= SECONDS_A_ROW
        evidence |= {SLOW: conventions.seconds_a_row} if slow else {}
        said = f"{len(conventions.formats)} answers read" + (f"; {_cheaper(ctx)}" if slow else "")
        return Outcome("passed", said, evidence, oracle="shapes and dtypes")
    evidence["unreadable"] = ", ".join(conventions.broken)
    messages = dict.fromkeys(_advised(ctx, name, message) for name, message in conventions.broken.items() if name != "inputs")
    return Outcome("error", "; ".join(messages), evidence, oracle="shapes and dtypes")


def _cheaper(ctx: Context) -> str:
    """What makes the audit of a costly map cheaper."""
    packed = "; give its log-det as log_det= and forward without it" if ctx.conventions.packed.get("forward") else ""
    smaller = "; try images of 8 × 8 or smaller" if len(ctx.subject.event_shape) == 3 else ""
    cost = f"forward takes {ctx.conventions.seconds_a_row:.1g} s of CPU time a row"
    return f"{cost}, of which an audit wants some ten thousand{smaller}{packed}"


def _advised(ctx: Context, name: str, message: str) -> str:
    """The message about one callable, its general remedy replaced by one that was tried and works."""
    if name not in ("forward", "inverse") or "inputs" in ctx.conventions.broken:
        return message
    tried = advice(ctx.subject, name)
    return f"{message.rpartition('; try ')[0] or message}; try {tried}" if tried else message
