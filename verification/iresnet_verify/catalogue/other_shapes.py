"""The promises at the further event shapes that a subject declares: the same checks, with events of another size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from iresnet_verify.catalogue.inverse.round_trips import recovers_input
from iresnet_verify.catalogue.lipschitz.bound import bounds_jacobian
from iresnet_verify.catalogue.logdet.value import matches_determinant
from iresnet_verify.catalogue.shared.comparisons import context_of
from iresnet_verify.check.outcome import Outcome
from iresnet_verify.check.registry import check

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context

BOUND = "other_shapes of the subject; Behrmann et al. 2019 (arXiv 1811.00995), Theorem 1"


def _each(ctx: Context, run: Callable[[Context], Outcome]) -> Outcome:
    """The first outcome that is no pass, else the last; alpha is shared by the shapes."""
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


@check(
    "inverse.other-shapes",
    claim="The inverse undoes the map at every declared event shape: inverse(F(x)) = x.",
    reference=BOUND, kind="search", needs=("inverse", "other_shapes"), cost="that of inverse.recovers-input for each shape",
    catches="sizes written into the inverse, caches of another shape, masks and permutations of one resolution",
)
def inverse_elsewhere(ctx: Context) -> Outcome:
    """`inverse.recovers-input`, shape by shape."""
    return _each(ctx, recovers_input)


@check(
    "lipschitz.other-shapes",
    claim="The claimed bound holds at every declared event shape: ‖J_g(x)‖₂ ≤ L.",
    reference=BOUND, kind="search", needs=("lipschitz", "other_shapes"), cost="that of lipschitz.bounds-jacobian for each shape",
    catches="operator norms of a convolution computed at one spatial size and used at another",
)
def bound_elsewhere(ctx: Context) -> Outcome:
    """`lipschitz.bounds-jacobian`, shape by shape."""
    return _each(ctx, bounds_jacobian)


@check(
    "logdet.other-shapes",
    claim="log_det(x) is log|det dF/dx| as claimed at every declared event shape.",
    reference="other_shapes of the subject; Behrmann et al. 2019 (arXiv 1811.00995), eq. 3", kind="proof",
    needs=("log_det", "other_shapes"), statistical=True, cost="that of logdet.matches-determinant for each shape",
    catches="a number of pixels or dimensions written into the log-det",
)
def log_det_elsewhere(ctx: Context) -> Outcome:
    """`logdet.matches-determinant`, shape by shape."""
    return _each(ctx, matches_determinant)
