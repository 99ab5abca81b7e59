"""The exceptions of an audit: a subject that breaks its contract, and a check that cannot decide."""

from __future__ import annotations

from iresnet_ref.errors import IResNetError


class SubjectError(IResNetError, ValueError):
    """An audit subject could not be loaded, or does not keep the `Subject` contract."""


class Undecided(Exception):  # noqa: N818 - an outcome, not a fault
    """The oracle or the budget cannot decide; the runner makes the check inconclusive with this reason."""
