"""From errors and their bounds to an outcome: the one place that decides what passed and what failed.

Claim of a comparison: error ≤ bound, for every row of every case. Let D be the comparisons whose bound is finite.

    failed        some (error, bound) in D has not error ≤ bound; an error that is NaN or infinite is such a one
    passed        D is not empty, and every error in D is at most its bound
    inconclusive  D is empty, though errors were given: no bound is finite, so nothing can be decided
    skipped       nothing was given to compare

The *worst* comparison is the one with the largest error/bound in D (0/0 = 0, e/0 = ∞), among equals the largest error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.check.outcome import REFUSED, Counterexample, Outcome
from iresnet_verify.check.shrinking import shrink

if TYPE_CHECKING:
    from iresnet_verify.subject.subject import HostArray

Numbers = Any
"""One number or an array of them, one a row."""


@dataclass(frozen=True)
class Comparison:
    """All comparisons of one check, summed up by the worst of them."""

    case: Any
    """Which of several cases (a callable, a batch); "" where there is one."""
    row: int
    error: float
    bound: float
    largest: float
    """The largest error of all that were compared."""
    compared: int
    """Errors that were compared with a finite bound."""
    exceeding: int
    """How many of them exceed it."""
    undecided: int
    """Errors whose bound is not finite."""
    wrong: HostArray
    """The rows of this case that exceed their bound, worst first; empty where none does."""
    ratios: Mapping[Any, float]
    """Largest error/bound of each case that has a positive bound."""

    @property
    def rows(self) -> slice:
        """The worst row as a batch of one: x[at.rows]."""
        return slice(self.row, self.row + 1)


Text = str | Callable[[Comparison], str]
"""A text, or a function that writes it from the worst comparison."""


def compare(error: Numbers | Mapping[Any, Numbers], bound: Numbers | Mapping[Any, Numbers]) -> Comparison | None:
    """Return the worst of all comparisons, None where there are none; a case is a name or (name, …)."""
    errors = error if isinstance(error, Mapping) else {"": error}
    parts = {case: np.atleast_1d(np.asarray(e, dtype=np.float64)).ravel() for case, e in errors.items()}
    cases = [case for case, e in parts.items() for _ in e]
    if not cases:
        return None
    rows = np.concatenate([np.arange(len(e)) for e in parts.values()])
    e = np.concatenate(list(parts.values()))
    b = np.concatenate([np.broadcast_to(np.ravel(bound[case] if isinstance(bound, Mapping) else bound), part.shape)
                        for case, part in parts.items()]).astype(np.float64)
    known, exceeds = np.isfinite(b), np.isfinite(b) & ~(e <= b)
    size = np.where(np.isnan(e), np.inf, e)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.where(b > 0.0, size / b, np.where(exceeds, np.inf, 0.0))
    ratio = np.where(known, ratio, -np.inf)
    order = np.lexsort((-size, -ratio))
    worst = int(order[0])
    ratios: dict[Any, float] = {}
    for i in np.flatnonzero(known & (b > 0.0)):
        ratios[cases[i]] = max(ratios.get(cases[i], -np.inf), float(ratio[i]))
    return Comparison(
        cases[worst], int(rows[worst]), float(e[worst]), float(b[worst]), float(size[known].max(initial=-np.inf)), int(known.sum()),
        int(exceeds.sum()), int((~known).sum()), np.array([rows[i] for i in order if exceeds[i] and cases[i] == cases[worst]], dtype=int),
        ratios,
    )


def difference(at: Comparison) -> str:
    """What most checks got: how far apart two answers are, where."""
    name = at.case[0] if isinstance(at.case, tuple) else at.case
    return f"a difference of {at.error:.2e} in row {at.row}" + (f" of {name}" if name else "")


def verdict(
    error: Numbers | Mapping[Any, Numbers],
    bound: Numbers | Mapping[Any, Numbers],
    *,
    expected: Text,
    passed: Text,
    tolerance: str,
    oracle: str,
    got: Text = difference,
    remedy: Text = "",
    evidence: Mapping[str, Any] | Callable[[Comparison], Mapping[str, Any]] | None = None,
    counterexample: Callable[[Comparison], Counterexample] | None = None,
    undecided: Text = "no bound is finite, so nothing can be decided",
    nothing: str = "there was nothing to compare",
    curves: Mapping[str, Mapping[str, Any]] | None = None,
) -> Outcome:
    """Compare errors with bounds and report: the rule of the module docstring.

    `error` and `bound` are arrays with one number a row, or mappings of them by case (a single bound serves all cases).
    A failure reads "expected …, got …; remedy". `tolerance` is the derivation of the bound, whose number is put before
    it. The evidence is that given, and the integer `compared` (unless it is given: a search compares as many points as
    it tried), largest_error, largest_ratio (by case where there are several), exceeding and undecided where not 0.

    >>> verdict([1e-9, 2e-9], 1e-8, expected="F(x) = x", got="…", passed="equal", tolerance="10·u", oracle="x").status
    'passed'
    """
    at = compare(error, bound)
    if at is None:
        given = evidence if isinstance(evidence, Mapping) else {}
        return Outcome("skipped", nothing, {"compared": 0, **given}, oracle=oracle, curves=curves or {})

    def text(words: Text) -> str:
        return words if isinstance(words, str) else words(at)

    found: dict[str, Any] = {"compared": at.compared}
    if at.compared:
        found |= {"largest_error": at.largest, **_ratios(at)}
    found |= {name: count for name, count in (("exceeding", at.exceeding), ("undecided", at.undecided)) if count}
    found |= (evidence(at) if callable(evidence) else evidence) or {}
    how = f"{at.bound:.2e} = {tolerance}" if np.isfinite(at.bound) and at.bound != 0.0 and tolerance else tolerance
    shown = curves or {}
    if not at.compared:
        return Outcome("inconclusive", text(undecided), found, tolerance, oracle, curves=shown)
    if not at.exceeding:
        return Outcome("passed", text(passed), found, how, oracle, curves=shown)
    message = f"expected {text(expected)}, got {text(got)}{_excess(at)}"
    advice = text(remedy)
    return Outcome("failed", f"{message}; {advice}" if advice else message, found, how, oracle,
                   None if counterexample is None else counterexample(at), shown)


def beyond(value: float, limit: float, digits: int = 6) -> str:
    """Write a value that exceeds a limit so that it can be told from it.

    >>> beyond(0.98000009, 0.98), beyond(1.2, 0.98)
    ('0.98 + 9e-08', '1.2')
    """
    shown, other = f"{value:.{digits}g}", f"{limit:.{digits}g}"
    return f"{other} + {value - limit:.2g}" if shown == other and value > limit else shown


def above_claim(value: float, claim: float) -> str:
    """Return a note where a value is above what is claimed although within its rounding, and the check passes."""
    return f"; note: {value - claim:.1e} above the claim, within its rounding" if value > claim else ""


def with_refusals(found: Outcome, refused: Mapping[str, str]) -> Outcome:
    """Return what was found; where something was refused and nothing failed, *skipped*: a refusal is no comparison that held.

    >>> with_refusals(Outcome("passed", "3 layouts agree"), {"channels-last memory": "RuntimeError"}).message
    'refused: channels-last memory (RuntimeError); 3 layouts agree'
    """
    if not refused or found.status not in ("passed", "skipped"):
        return found
    reasons = ", ".join(f"{what} ({why})" for what, why in refused.items())
    rest = f"; {found.message}" if found.status == "passed" else ""
    return replace(found, status="skipped", message=f"refused: {reasons}{rest}", evidence={**found.evidence, REFUSED: reasons})


def _excess(at: Comparison) -> str:
    """By how much the bound is exceeded where three digits would not show it."""
    return f", {at.error - at.bound:.2g} too much" if 0.0 < at.bound < at.error <= 1.01 * at.bound else ""


def _ratios(at: Comparison) -> dict[str, float]:
    """The largest error/bound, by case where there are several; of a case (name, …) by name."""
    named: dict[str, float] = {}
    for case, ratio in at.ratios.items():
        name = str(case[0] if isinstance(case, tuple) else case)
        name = f"largest_ratio_{name}" if name else "largest_ratio"
        named[name] = max(named.get(name, -np.inf), ratio)
    return named


def shrunk(calls: Any, measure: Callable[..., tuple[float, float]], name: str, **inputs: Any) -> Counterexample:
    """Return the counterexample with inputs[name], rows worst first, reduced to a simple row that still refutes.

    The first row is simplified as long as measure(calls, **inputs) exceeds its bound. Where that row alone does not
    refute (the fault needs its batch) all rows are kept.
    """
    rows = inputs[name]

    def refuted(candidate: HostArray) -> bool:
        value, limit = measure(calls, **{**inputs, name: candidate})
        return not value <= limit

    point = shrink(rows[:1], refuted)
    return Counterexample({**inputs, name: point if refuted(point) else rows}, measure)
