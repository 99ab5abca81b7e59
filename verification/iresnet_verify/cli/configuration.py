"""Defaults of `iresnet-verify audit` from the project: the table [tool.iresnet-verify] of the nearest pyproject.toml.

Its keys are the long options, such as `budget = "quick"`, `select = ["inverse", "logdet.*"]`, `baseline = "known.json"`;
what is given on the command line wins. An unknown key is an error.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from iresnet_verify.subject.errors import SubjectError

TABLE = "iresnet-verify"


def defaults(start: Path, options: Collection[str]) -> dict[str, Any]:
    """Return the table of the nearest pyproject.toml at or above `start`, keys as given. Raises SubjectError."""
    for folder in (start, *start.parents):
        path = folder / "pyproject.toml"
        if path.is_file():
            return _table(path, options)
    return {}


def _table(path: Path, options: Collection[str]) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get(TABLE, {})
    except (OSError, ValueError) as error:
        raise SubjectError(f"{path}: expected TOML, got {error}; correct the file or audit from another folder") from error
    if not isinstance(table, dict):
        raise SubjectError(f"{path}: expected [tool.{TABLE}] to be a table, got {type(table).__name__}; try budget = 'quick' below it")
    for key in table:
        if key not in options:
            raise SubjectError(f"{path}: [tool.{TABLE}] expected a key of {', '.join(sorted(options))}, got {key!r}; correct it")
    return table
