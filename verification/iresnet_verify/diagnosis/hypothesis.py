"""When a hypothesis explains a failure: it predicts the wrong numbers at every input to rounding, and no rival does.

Let `got` be the subject's numbers at n independent inputs (rows), `right` the true ones, and p a prediction with the rounding τ:

    p holds         |got − p| ≤ τ in every number of every row
    it says something   |got − right| > 2τ somewhere: else it explains nothing that is wrong
    it says all         max |got − p| ≤ max |got − right|/100: what is merely near the numbers is not what made them

A prediction that chose k numbers to fit needs k + `SPARE` rows, and is asked only where none that chose fewer holds. If
predictions of two causes hold, the inputs do not tell them apart, and nothing is explained; nor is it where the one that holds
to τ leaves more than a hundredth of the error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
T = TypeVar("T")
SPARE = 3
"""Rows beyond the fitted numbers that a prediction must get right."""
RIGHT_WITH = "right with"
LEFT = 0.01
"""Share of the largest error that a prediction may leave."""


@dataclass(frozen=True)
class Cause:
    """A known mistake: its name, what is wrong and what to change, each one sentence; {what} and {detail} are filled in."""

    name: str
    wrong: str
    change: str


@dataclass(frozen=True)
class Prediction:
    """What the numbers would be by one mistake."""

    cause: Cause
    numbers: Array
    """Shaped as the subject's numbers, rows first."""
    tolerance: Array
    """Rounding allowed, broadcast against the numbers."""
    detail: str = ""
    fitted: int = 0
    """How many numbers were chosen to fit the subject's."""


@dataclass(frozen=True)
class Explanation:
    """The one cause that explains the numbers."""

    cause: Cause
    what: str
    detail: str
    inputs: int
    ratio: float
    """Largest error of the prediction over the rounding allowed."""
    rivals: int
    """Predictions of other causes, each refuted at some input."""
    evidence: str = ""
    """How sure it is, where that is not agreement at several inputs."""
    fitted: int = 0
    """How many numbers were chosen to fit."""
    repair: str = ""
    """The change of the code that makes it right, where it was looked for and found."""
    of_forward: bool = False
    """Whether the change makes another map of F."""
    varies: bool = True
    """Whether the log-det depends on x where the change was tried."""
    by_elimination: bool = False
    """Whether it is what remains, and no number was predicted: where rows are coupled or forward is random, it means nothing."""

    @property
    def wrong(self) -> str:
        """What is wrong, filled in."""
        return _filled(self.cause.wrong, self.what, self.detail)

    @property
    def change(self) -> str:
        """What to change, filled in."""
        change = _filled(self.cause.change, self.what, self.detail)
        return f"{change.rstrip('.')}: {RIGHT_WITH} {self.repair}." if self.repair else change

    @property
    def sure(self) -> str:
        """How sure it is."""
        if self.evidence:
            return self.evidence
        others = f"; none of {self.rivals} other predictions does" if self.rivals else ""
        return f"This predicts the wrong numbers at all {self.inputs} inputs tried, to rounding{others}."


def explain(
    what: str, got: Array, right: Array | None, predictions: Iterable[Prediction], *, inputs: int | None = None, levels: int | None = None
) -> Explanation | None:
    """Return the explanation of `got`, or None where no prediction holds or predictions of several causes do.

    `right` is None where every prediction is of a wrong number by itself. `inputs` is the number of independent inputs
    behind the numbers, by default the rows; `levels` that of different right ones, to which numbers may be fitted.

    >>> sign = Cause("sign", "{what} has the wrong sign.", "Remove the minus.")
    >>> right = np.array([0.2, -0.7, 1.1, 0.4])
    >>> explain("log_det", -right, right, [Prediction(sign, -right, np.array(1e-12))]).wrong
    'log_det has the wrong sign.'
    """
    rows = len(got) if inputs is None else inputs
    tried = [p for p in predictions if (rows if levels is None or not p.fitted else min(rows, levels)) >= p.fitted + SPARE]
    holding = [p for p in tried if _ratio(got, p.numbers, p.tolerance) <= 1.0
               and (right is None or _ratio(got, right, p.tolerance) > 2.0)]
    for fitted in sorted({p.fitted for p in holding}):
        best = [p for p in holding if p.fitted == fitted]
        if len({p.cause.name for p in best}) > 1:
            return None
        chosen = best[0]
        if right is not None and _ratio(got, chosen.numbers, np.array(1.0)) > LEFT * _ratio(got, right, np.array(1.0)):
            return None
        rivals = sum(p.cause.name != chosen.cause.name for p in tried)
        return Explanation(chosen.cause, what, chosen.detail, rows, _ratio(got, chosen.numbers, chosen.tolerance), rivals, fitted=fitted)
    return None


def as_far_as_made(made: Iterator[T]) -> Iterator[T]:
    """What is made until an error, which a map that is no map makes: other hypotheses are asked nevertheless."""
    with suppress(Exception):
        yield from made


def written_by_hand(detail: str) -> bool:
    """Whether the number in a detail is a fraction p/q with q ≤ 20, to its six digits; of other numbers .3 % pass.

    >>> written_by_hand("c multiplied by 1.11111"), written_by_hand("c multiplied by 6.23599")
    (True, False)
    """
    numbers = [float(n) for n in re.findall(r"[−-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?", detail.replace("−", "-"))]
    c = numbers[-1] if numbers else math.pi
    return any(abs(c * q - round(c * q)) <= 1e-5 * q * abs(c) for q in range(1, 21))


def _ratio(a: Array, b: Array, tolerance: Array) -> float:
    """The largest |a − b|/τ; infinite where one is not finite."""
    if np.shape(a) != np.shape(b):
        return np.inf
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratio = np.abs(a - b) / np.maximum(tolerance, 1e-300)
    return float(np.nan_to_num(ratio, nan=np.inf, posinf=np.inf).max(initial=0.0))


def _filled(text: str, what: str, detail: str) -> str:
    return text.replace("{what}", what).replace("{detail}", detail)
