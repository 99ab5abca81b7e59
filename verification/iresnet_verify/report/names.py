"""Names of the folder and files that reproductions are written to, and of anchors."""

from __future__ import annotations

import re
from pathlib import Path


def folder_beside(path: Path) -> Path:
    """`<stem>-reproduce/` in the folder of a JSON or HTML file."""
    return path.parent / f"{path.stem}-reproduce"


def slug(name: str) -> str:
    """A name as part of a file name or an anchor."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:60] or "subject"
