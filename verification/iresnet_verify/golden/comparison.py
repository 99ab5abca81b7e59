"""Somebody's numbers against the golden vectors, and which other formula they come from where they are wrong.

An answer is a JSON object {"unit roundoff": u, "cases": {id: {quantity: numbers}}}; quantities may be left out. A row is right where

    |answer − value| ≤ radius + 4 · amplification · u:

the amplification belongs to one order of evaluation, four times it to any other that is as stable. A quantity with a row that is
further off is compared with what common mistakes give for this case; one is named only if it explains every row to the same bound.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iresnet_verify.golden.file import read
from iresnet_verify.golden.mistakes import mistakes
from iresnet_verify.subject.subject import HostArray

SAFETY = 4.0


class AnswerError(ValueError):
    """The file of answers cannot be read; the text says where and what was expected."""


@dataclass(frozen=True)
class Compared:
    """One quantity of one case: `error` in units of what is allowed, at the worst row."""

    case: str
    quantity: str
    right: bool
    error: float
    row: int
    formula: str = ""
    """The mistakes whose numbers these are."""


def load(path: Path) -> dict[str, Any]:
    """Read a file of answers. Raises AnswerError."""
    try:
        answer = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise AnswerError(f"{path}: expected a JSON file, got {error}; try `iresnet-verify golden` for the format") from error
    if not isinstance(answer, dict) or not isinstance(answer.get("cases"), dict):
        raise AnswerError(f'{path}: expected {{"unit roundoff": u, "cases": {{id: {{quantity: numbers}}}}}}, got no object "cases"')
    return answer


def compare(answer: Mapping[str, Any], vectors: Mapping[str, Any] | None = None) -> list[Compared]:
    """Compare the answers that are there. Raises AnswerError for cases, quantities and shapes that the vectors do not have.

    >>> from iresnet_verify.golden.file import read
    >>> case = read()["cases"][-1]
    >>> wrong = [-v for v in case["quantities"]["log det"]["value"]]
    >>> [found] = compare({"unit roundoff": 2**-53, "cases": {case["id"]: {"log det": wrong}}})
    >>> found.right, found.formula
    (False, 'the sign is wrong')
    """
    u = answer.get("unit roundoff", 2.0**-53)
    if not isinstance(u, float | int) or not 0 < u <= 2.0**-4:
        raise AnswerError(f'"unit roundoff": expected a number in (0, 1/16], got {u!r}; try 1.1102230246251565e-16 for float64')
    known = {case["id"]: case for case in (vectors or read())["cases"]}
    found = []
    for id, quantities in answer["cases"].items():
        case = _member(known, id, "cases")
        if not isinstance(quantities, dict):
            raise AnswerError(f"{id}: expected an object of quantities, got {type(quantities).__name__}")
        for name, numbers in quantities.items():
            found.append(_compared(case, name, numbers, float(u)))
    if not found:
        raise AnswerError('expected at least one quantity under "cases", got none: nothing would be compared')
    return found


def _member(known: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in known:
        raise AnswerError(f"expected one of the {what} {sorted(known)}, got {name!r}")
    return known[name]


def _compared(case: Mapping[str, Any], name: str, numbers: Any, u: float) -> Compared:
    known = _member(case["quantities"], name, f"quantities of {case['id']}")
    truth = np.asarray(known["value"], dtype=np.float64)
    try:
        given = np.asarray(numbers, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise AnswerError(f"{case['id']}, {name}: expected numbers of shape {truth.shape}, got {error}") from error
    if given.size != truth.size:
        raise AnswerError(f"{case['id']}, {name}: expected numbers of shape {truth.shape}, got {given.shape}")
    given = given.reshape(truth.shape)
    allowed = np.asarray(known["radius"]) + SAFETY * u * np.asarray(known["amplification"])
    errors = _by_row(given - truth) / np.atleast_1d(allowed)
    row = int(np.argmax(errors))
    right = bool(errors[row] <= 1.0)
    formula = "" if right else _explained(case, name, given, allowed)
    return Compared(case["id"], name, right, float(errors[row]), row, formula)


def _by_row(gap: HostArray) -> HostArray:
    """The largest |entry| of each row; what is not finite is infinitely far off."""
    flat = np.abs(gap).reshape(len(gap), -1) if gap.ndim else np.abs(gap).reshape(1, 1)
    return np.where(np.isfinite(flat), flat, np.inf).max(axis=1)


def _explained(case: Mapping[str, Any], name: str, given: HostArray, allowed: HostArray) -> str:
    """Return the mistakes that give these numbers, or nothing."""
    truth = np.asarray(case["quantities"][name]["value"])
    fitting = []
    for mistake, wrong in mistakes(case, name):
        wide = np.broadcast_to(wrong, truth.shape)
        with np.errstate(invalid="ignore"):  # ∞ − ∞ is NaN, and that is no agreement
            apart = (_by_row(wide - truth) > 8 * np.atleast_1d(allowed)).any()
            same = (_by_row(given - wide) <= 4 * np.atleast_1d(allowed)).all()
        if apart and same:
            fitting.append(mistake)
    return " or ".join(fitting)
