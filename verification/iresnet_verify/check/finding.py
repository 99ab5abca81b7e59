"""A finding: one cause, in words, with the results that follow from it. Plain data; `diagnosis` makes it, reports show it."""

from __future__ import annotations

from dataclasses import dataclass

UNEXPLAINED = "unexplained"
"""The cause of failures that no hypothesis explains, or more than one."""


@dataclass(frozen=True)
class Finding:
    """What is wrong, how sure that is, what to change: three sentences."""

    cause: str
    """The name of the hypothesis; the id of a check whose claim names one mistake; or `UNEXPLAINED`."""
    wrong: str
    """What is wrong, in one sentence."""
    sure: str
    """How sure that is: what it predicts, and how many rivals do not."""
    change: str
    """What to change."""
    check: str
    """The failed check under which the others are folded."""
    follows: tuple[str, ...] = ()
    """Ids of the results that follow from it."""

    @property
    def sentences(self) -> str:
        """The first screen: at most three sentences."""
        return " ".join(s for s in (self.wrong, self.sure, self.change) if s)
