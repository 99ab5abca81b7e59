"""The exception of a check that cannot decide."""

from __future__ import annotations


class Undecided(Exception):  # noqa: N818 - an outcome, not a fault
    """The oracle or the budget cannot decide; the runner makes the check inconclusive with this reason."""
