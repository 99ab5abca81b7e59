"""The error of a subject that cannot be loaded or does not keep its contract."""

from __future__ import annotations

from iresnet_ref.errors import IResNetError


class SubjectError(IResNetError, ValueError):
    """An audit subject could not be loaded, or does not keep the `Subject` contract."""
