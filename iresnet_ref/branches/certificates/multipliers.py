"""Multipliers for a quadratic constraint, by the method that suits its size. What is found is proposed, and proved elsewhere.

The barrier gets to the optimum, at about 16N³ operations a step and a few dozen steps; the elimination is within .1 % of it on wide
branches and for many frequencies, but poor where there are few inputs.
"""

from __future__ import annotations

from iresnet_ref.branches.certificates.barrier import Centre, first, newton
from iresnet_ref.branches.certificates.elimination import descend
from iresnet_ref.branches.certificates.quadratic import Form, Quadratic

_LARGEST, _LARGEST_NARROW, _NARROW = 400**3, 800**3, 8
_LARGEST_STACK = 10**7
_COARSE = 0.3


def best_multipliers(problem: Quadratic, form: Form, gap: float = 1e-3, start: Centre | None = None, floor: float = 0.0) -> Centre | None:
    """Return τ and ρ about `gap` above the least one, beginning at `start` or at the product's multipliers; None where none are found."""
    at = first(problem, form) if start is None else start
    if at is None or problem.count == 0:
        return at
    if not by_barrier(problem):
        return descend(problem, form, at)
    if start is None:  # a coarse centre first: the barrier then moves in the middle of what is feasible
        at = newton(problem, form, at, _COARSE, floor=floor)
    return newton(problem, form, at, gap, floor=floor)


def by_barrier(problem: Quadratic) -> bool:
    """Return whether the problem is small enough for the barrier."""
    work = problem.network.copies * problem.size**3
    if problem.network.copies > 1:
        return work <= _LARGEST_STACK
    return work <= (_LARGEST_NARROW if problem.widths[0] <= _NARROW else _LARGEST)
