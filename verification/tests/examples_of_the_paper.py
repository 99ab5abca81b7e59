"""The scripts of examples/paper as modules."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

FOLDER = str(Path(__file__).resolve().parents[2] / "examples" / "paper")


def paper(name: str) -> ModuleType:
    """Return examples/paper/<name>.py, imported as the script itself imports its neighbours."""
    if FOLDER not in sys.path:
        sys.path.append(FOLDER)
    return importlib.import_module(name)
