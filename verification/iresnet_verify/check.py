"""A check: one claim, its oracle, its tolerance, its evidence, its reproduction.

A check is a function `(context) -> Outcome`, registered by the decorator `check`. Checks of one family live in
`catalogue/<family>.py`. They see the subject only through the `Context`: calls are normalised there (packing,
log-det shapes, modes, seeding) and take and return host NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from iresnet_verify.context import Context

Status = Literal["passed", "failed", "inconclusive", "skipped", "error"]
Kind = Literal["proof", "equivalence", "search"]
FAMILIES = (
    "inverse", "convergence", "lipschitz", "logdet", "estimator", "gradient", "density", "hygiene", "state", "parity",
)


@dataclass(frozen=True)
class Counterexample:
    """What refutes the claim, and how to see it again without this library.

    `measure(calls, **inputs) -> (value, bound)` is a self-contained function: its source is copied into the
    reproduction file, so it may use only its arguments and the names `np`, `math` and (for torch subjects) `torch`.
    `calls` has the attributes `forward`, `inverse`, `log_det`, `inverse_log_det`, `residual`, `log_prob` (host arrays
    in and out, absent ones None) and `subject` (the raw `Subject`). The claim is violated where not value <= bound.
    Where no such function can be written, `measure` is None and the reproduction re-runs the one check.
    """

    inputs: Mapping[str, Any]
    measure: Callable[..., tuple[float, float]] | None = None


@dataclass(frozen=True)
class Outcome:
    """What a check found. `message` is one sentence for a person; `evidence` holds numbers, never arrays of data."""

    status: Status
    message: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    tolerance: str = ""
    """The number and its derivation, e.g. "1.2e-12 = 8·d·u/(1−L) at d=8"."""
    oracle: str = ""
    """Where the truth came from, e.g. "float64 slogdet of the Jacobian by rows of g"."""
    counterexample: Counterexample | None = None
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Plots for the report: name -> {"kind": "residual"|"error-bound"|"estimator", "x": [...], "y": [...], ...}."""


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
    "autograd" for gradients of x that torch takes beside those of a module."""
    modes: bool = True
    """Whether it runs once in each of the subject's modes (True) or once in the last of them (False)."""
    statistical: bool = False
    """Whether it takes a share of alpha."""
    cost: str = ""
    """What it takes, in evaluations of the subject."""
    catches: str = ""
    """The mistakes it exists to catch."""

    @property
    def family(self) -> str:
        """The part of the id before the dot."""
        return self.id.split(".", 1)[0]


CATALOGUE: dict[str, Check] = {}


def check(
    id: str, *, claim: str, reference: str, kind: Kind, needs: tuple[str, ...] = (), modes: bool = True,
    statistical: bool = False, cost: str = "", catches: str = "",
) -> Callable[[Callable[[Context], Outcome]], Callable[[Context], Outcome]]:
    """Register a check under a stable id `family.claim`."""
    if id in CATALOGUE or id.split(".", 1)[0] not in FAMILIES:
        raise ValueError(f"check id {id!r}: expected a new `family.claim` with family in {FAMILIES}")

    def register(run: Callable[[Context], Outcome]) -> Callable[[Context], Outcome]:
        CATALOGUE[id] = Check(id, claim, reference, kind, run, needs, modes, statistical, cost, catches)
        return run

    return register


@dataclass(frozen=True)
class Budget:
    """How hard one audit works. `epsilon_per_dim` is fixed before any sampling, in nats per dimension."""

    name: Literal["quick", "standard", "thorough"]
    rows: int
    """Rows per batch of inputs."""
    numbers: int
    """Rows × dimension of such a batch, at most (four rows at least)."""
    restarts: int
    """Starting points of a search."""
    steps: int
    """Iterations of a search from each start."""
    samples: int
    """Most draws of a random estimate."""
    epsilon_per_dim: float
    seconds: float
    """Time limit of one check in one mode, when isolated."""


BUDGETS: dict[str, Budget] = {
    "quick": Budget("quick", 8, 2**12, 4, 20, 2_000, 0.1, 30.0),
    "standard": Budget("standard", 24, 2**13, 8, 60, 20_000, 0.02, 60.0),
    "thorough": Budget("thorough", 96, 2**16, 32, 300, 400_000, 0.005, 600.0),
}


def finite(a: np.ndarray[Any, Any]) -> bool:
    """Whether all entries are finite."""
    return bool(np.isfinite(a).all())
