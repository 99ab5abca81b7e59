"""The scripts of examples/paper as modules."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from places import EXAMPLES

FOLDER = str(EXAMPLES / "paper")


def paper(name: str) -> ModuleType:
    """Return examples/paper/<name>.py, imported as the script itself imports its neighbours."""
    if FOLDER not in sys.path:
        sys.path.append(FOLDER)
    return importlib.import_module(name)
