"""The best that is proved: of Lip(g) the product of norms or a quadratic constraint, of F = id + g its two sides."""

from __future__ import annotations

import math
from collections.abc import Sequence

from iresnet_ref.branches.certificate import Certificate
from iresnet_ref.branches.certificates.multipliers import best_multipliers
from iresnet_ref.branches.certificates.network import UnreadableError, network_of
from iresnet_ref.branches.certificates.quadratic import LIPSCHITZ, Quadratic
from iresnet_ref.branches.certificates.two_sided import TwoSided, from_lipschitz, two_sided_bounds
from iresnet_ref.layers.layer import Layer

LARGEST = 2048
"""Entries of all signals up to which multipliers are looked for."""


def tightest_certificate(layers: Sequence[Layer], event: tuple[int, ...], norm: float, given: Certificate) -> Certificate:
    """Return the given certificate, or a smaller one by incremental quadratic constraints; `reason` says which, and why not the other.

    Cost: the solver, of the order of a second for widths of a hundred and ten for a thousand; the proof is one Cholesky factorisation.
    """
    if not given.proved or given.bound == 0.0:
        return given
    problem = _problem(layers, event, norm)
    if isinstance(problem, str):
        return Certificate(given.bound, True, f"{given.reason}; no quadratic constraint: {problem}")
    centre = best_multipliers(problem, LIPSCHITZ)
    bound = problem.root(problem.prove_least(LIPSCHITZ, centre.tau)) if centre is not None else given.bound
    if not bound < given.bound:
        return Certificate(given.bound, True, f"{given.reason}; quadratic constraints prove no less")
    how = f"quadratic constraints on the slopes of {problem.count} units, where construction proves {given.bound:.6g}"
    return Certificate(bound, True, how)


def best_two_sided(layers: Sequence[Layer], event: tuple[int, ...], norm: float, bound: float) -> TwoSided:
    """Return what is proved of F = id + g from both sides, given Lip(g) ≤ `bound`."""
    problem = _problem(layers, event, norm) if 0.0 < bound < math.inf else "there is no bound"
    return from_lipschitz(bound) if isinstance(problem, str) else two_sided_bounds(problem, bound)


def _problem(layers: Sequence[Layer], event: tuple[int, ...], norm: float) -> Quadratic | str:
    """Return the problem, or why there is none."""
    if norm != 2.0:
        return "it contracts in another norm than the 2-norm"
    try:
        problem = Quadratic(network_of(layers, event))
    except UnreadableError as why:
        return str(why)
    if not problem.count:
        return "there is no activation"
    return problem if problem.size <= LARGEST else f"more than {LARGEST} entries of signals"
