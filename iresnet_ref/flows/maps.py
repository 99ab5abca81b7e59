"""The inverse and the log-determinant of any invertible map: a residual block, a bijection, a flow, or a list of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from iresnet_ref.arrays import Array, public
from iresnet_ref.block import ResidualBlock
from iresnet_ref.errors import DTypeError
from iresnet_ref.flows.bijections.composition import Composition
from iresnet_ref.flows.bijections.protocol import DEFAULT, Bijection
from iresnet_ref.flows.flow import Flow
from iresnet_ref.inversion.methods import InverseMethod
from iresnet_ref.inversion.methods import Name as InverseName
from iresnet_ref.inversion.result import Inverse
from iresnet_ref.inversion.solve import invert_block
from iresnet_ref.log_determinant.evaluate import logdet_of_block
from iresnet_ref.log_determinant.methods import LogDetMethod
from iresnet_ref.log_determinant.methods import Name as LogDetName
from iresnet_ref.log_determinant.result import LogDet

Map = ResidualBlock | Bijection | Flow
"""What is inverted; a sequence of maps stands for their composition, the first one applied first."""


@public
def invert(
    F: Map | Sequence[Map],
    y: Array,
    method: InverseMethod | InverseName | None = None,
    *,
    rtol: float | None = None,
    check_every: int = 4,
    max_evaluations: int | None = None,
    throw: bool = True,
    check: bool = True,
) -> Inverse:
    """Return the preimage of y with its guarantees: ‖y − x − g(x)‖ ≤ rtol·max(‖x‖, ‖y‖, ‖g(x)‖) on each row.

    Shapes: y (batch, *event). `error_bound` ≥ distance to the exact preimage of y and to every x′ whose computed F(x′)
    equals y: (‖r̂‖ + ρ)/(1 − L), ρ the rounding bound of evaluating the residual ([B19] Thm 1 with rounding added). It costs
    no evaluation; in float32 it is far wider than the error (see `ir.bounds.inverse_ball`). On rows of which it proves no digit, as L
    nears 1, the bound is that ball, about the exact preimage alone (`covers_computed` is false). Every row has a rounding floor
    (`ir.bounds.rounding_floor`) below which no method gets; `check_every` steps pass between host synchronisations, at which converged
    rows are dropped.

    Methods: "banach" is the plain iteration; "anderson" or `Anderson(memory)` and "newton" accelerate it; "hidden" iterates in
    the space of the first hidden layer, if the branch begins and ends with dense layers. "auto" iterates in the hidden space
    where that is narrow enough to pay; takes chord steps with secants, (I + J_g(0))⁻¹ made once, up to 64 dimensions where J_g is nearly
    constant; else Banach steps, and Anderson's once ‖r‖ shrinks by less than half per step; `Inverse.method` states what
    was used. Every method needs at most `step_bound` evaluations on a row above its floor, and never more than
    `max_evaluations` (default 20,000). A row whose residual stands still, where L guarantees that it shrinks, is at its
    rounding floor and given up: at any L < 1 after a few thousand evaluations.

    Of a flow, a bijection or a list of maps f_1, …, f_n (the first applied first) each residual block is inverted so, to `rtol`, and
    the result is a `PathInverse`: its bound is propagated through all steps, true and soon vacuous. Where `method` or `rtol` are
    left out, a flow takes those of its options, everything else "auto" and 1e-6.

    Raises: NotContractiveError (Lip(g) < 1 not proved, or refuted), ConvergenceError with `.result` and `.floor` unless
    `throw=False`, ShapeError, DTypeError, NonFiniteError, ValueError for rtol ≤ 0 or a method that is unknown or
    not possible.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> x = np.array([[1.0, -2.0]])
    >>> inverse = ir.invert(F, F(x), rtol=1e-12)
    >>> bool(np.linalg.norm(inverse.x - x) <= inverse.error_bound[0])
    True
    >>> twice = ir.invert([F, F], F(F(x)), ir.Newton(), rtol=1e-12)
    >>> bool(np.linalg.norm(twice.x - x) <= twice.error_bound[0])
    True
    """
    F = _one_map(F, "invert")
    if isinstance(F, ResidualBlock):
        return invert_block(
            F, y, "auto" if method is None else method, rtol=1e-6 if rtol is None else rtol, check_every=check_every,
            max_evaluations=max_evaluations, throw=throw, check=check,
        )  # fmt: skip
    if (check_every, max_evaluations, throw) != (4, None, True):
        raise ValueError(f"invert: expected check_every=, max_evaluations= and throw= for a residual block only, got {type(F).__name__}")
    options = F.options if isinstance(F, Flow) else DEFAULT
    options = replace(options, inverse=options.inverse if method is None else method, rtol=options.rtol if rtol is None else rtol)
    return F.inverse(y, options=options, check=check)


@public
def logdet(F: Map | Sequence[Map], x: Array, method: LogDetMethod | LogDetName | None = None, *, check: bool = True) -> LogDet:
    """Return log|det dF/dx| per row, in nats, with its bias bound and standard error: of a block log det(I + J_g(x)).

    Exact()                  det(I + J) at the narrowest dimension r; its rounding is bounded by `ir.bounds.logdet_error_bound`.
    Series(terms)            Σ_{k≤terms} (−1)^{k+1} vᵀJᵏv/k; |bias| ≤ −r(log(1 − L) + Σ_{k≤terms} Lᵏ/k) ([B19] Thm 4).
    Roulette(lengths)        unbiased ([C19]); N drawn for each sample, by default from `ir.roulette.near_optimal(L)`, whose
                             variance is finite for every L < 1; E[N] = max(6, 1.5/(1 − L)), or `lengths` if that is a number.
    Arnoldi(terms)           quadrature on the Krylov space of `terms` products; its error is proved a posteriori.
    Auto(estimate)           exact while r ≤ 256, else the estimate, Roulette() by default. If that has a `standard_error`,
                             whichever of the two meets it for the fewest operations.

    "exact", "roulette" and "auto" are short for these without options. Estimates take `probes=`, `standard_error=` and
    `exact_traces=` (0, 1 or 2): exact traces replace the first one (two or three dense layers) or two (up to two) stochastic
    terms, with weight 1; the result states how many there were (0 for convolutions and deeper branches).

    Each of `probes.count` replicates has its own N and its own block of probes; the standard error comes from them, is NaN
    below 8, and the one proved (or planned) beforehand where they agree to rounding. With `standard_error` their number is planned
    to meet it on every row (at least 8 and `probes.count`), fixed beforehand by the variance bound or by an independent pilot
    of 32 on another stream: the standard error that is returned is that of the run itself. `evaluations` counts products with
    J or Jᵀ without the pilot's, or the size of the determinant for the exact method.

    Of a flow, a bijection or a list of maps the log-determinants of the steps are added, each block's from a stream of its own; a
    standard error is shared between them. Where `method` is left out, a flow takes that of its options, everything else "auto".

    Raises: NotContractiveError, InfiniteVarianceError (unless the method allows it), ShapeError, DTypeError,
    NonFiniteError, ValueError.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> exact = ir.logdet(F, np.zeros((1, 2)), "exact").value
    >>> estimate = ir.logdet(F, np.zeros((1, 2)), ir.Roulette(standard_error=0.01))
    >>> bool(abs(estimate.value - exact)[0] < 0.06), estimate.exact_traces
    (True, 2)
    """
    F = _one_map(F, "logdet")
    if isinstance(F, ResidualBlock):
        return logdet_of_block(F, x, "auto" if method is None else method, check=check)
    options = F.options if isinstance(F, Flow) else DEFAULT
    return F.forward(x, options=options if method is None else replace(options, logdet=method), check=check)[1]


def _one_map(F: Map | Sequence[Map], name: str) -> Map:
    """Return the map itself, or the composition of a sequence. Raises DTypeError."""
    if isinstance(F, list | tuple):
        return Composition(tuple(f.steps if isinstance(f, Flow) else f for f in F))
    if not isinstance(F, Map):
        raise DTypeError(f"{name}: expected a residual block, a bijection, a flow or a list of them, got {type(F).__name__}")
    return F
