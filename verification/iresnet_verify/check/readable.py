"""The id of the check whose evidence holds what was read of the subject."""

from __future__ import annotations

READABLE = "hygiene.readable"
"""The check whose evidence holds what was read of the subject."""
