"""Where a run of benchmarks writes: a folder of its own, so that it overwrites no other run, and files that are whole at any time."""

from __future__ import annotations

import itertools
import time
from pathlib import Path


def new_folder(parent: Path) -> Path:
    """Return a new folder in `parent`, named after the time. Raises OSError where none can be made."""
    parent.mkdir(parents=True, exist_ok=True)
    name = time.strftime("%Y-%m-%d-%H%M%S")
    for again in itertools.count(1):
        folder = parent / (name if again == 1 else f"{name}-{again}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError


def replace_text(path: Path, text: str) -> None:
    """Write a file that is either as before or whole, wherever the writing is interrupted."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
