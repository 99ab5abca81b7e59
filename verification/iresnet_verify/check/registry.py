"""A check: one claim, its oracle, its tolerance, its evidence, its reproduction.

A check is a function `(context) -> Outcome`, registered by the decorator `check`. The checks of one family
are in the folder `catalogue/<family>`. They see the subject only through the `Context`: calls are normalised there (packing,
log-det shapes, modes, seeding) and take and return host NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from iresnet_verify.check.outcome import Kind, Outcome

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context

NOT_RANDOM = "hygiene.forward-not-random"
FINITE = "hygiene.forward-finite"
SLOW = "seconds a row"
"""Evidence of `hygiene.readable` for a costly subject; its message says what makes the audit cheaper."""
READABLE = "hygiene.readable"
"""The check that runs first: its evidence holds the conventions of the subject, which reports print."""

FAMILIES = (
    "inverse", "convergence", "lipschitz", "logdet", "estimator", "gradient", "density", "hygiene", "state", "parity",
)


@dataclass(frozen=True)
class Check:
    """A registered check."""

    id: str
    claim: str
    """One sentence with its equation."""
    reference: str
    """Paper and equation, or the promise (type, name, docstring) that the claim restates."""
    kind: Kind
    run: Callable[[Context], Outcome]
    needs: tuple[str, ...] = ()
    """`Subject` fields without which it is skipped, e.g. ("inverse",); "torch" for checks that need its autograd,
    "autodiff" for those that JAX serves as well; "parameters" for gradients of a torch module or of a pytree of JAX,
    "autograd" for gradients of x, where a torch subject must give a module as well."""
    modes: bool = True
    """Whether it runs once in each of the subject's modes (True) or once in the last of them (False)."""
    statistical: bool = False
    """Whether it takes a share of alpha."""
    cost: str = ""
    """What it takes, in evaluations of the subject."""
    catches: str = ""
    """The mistakes it exists to catch."""
    compares_values: bool = True
    """Whether it compares values of F or of its derivatives: where F itself is random these decide nothing."""

    @property
    def family(self) -> str:
        """The part of the id before the dot."""
        return self.id.split(".", 1)[0]


CATALOGUE: dict[str, Check] = {}


def check(
    id: str, *, claim: str, reference: str, kind: Kind, needs: tuple[str, ...] = (), modes: bool = True,
    statistical: bool = False, cost: str = "", catches: str = "", compares_values: bool = True,
) -> Callable[[Callable[[Context], Outcome]], Callable[[Context], Outcome]]:
    """Register a check under a stable id `family.claim`."""
    if id in CATALOGUE or id.split(".", 1)[0] not in FAMILIES:
        raise ValueError(f"check id {id!r}: expected a new `family.claim` with family in {FAMILIES}")

    def register(run: Callable[[Context], Outcome]) -> Callable[[Context], Outcome]:
        CATALOGUE[id] = Check(id, claim, reference, kind, run, needs, modes, statistical, cost, catches, compares_values)
        return run

    return register
