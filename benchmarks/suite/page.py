"""The page of a run: every group as a table with a dot and an interval for each ratio, on one logarithmic axis."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from record import Record
from run_folder import replace_text
from timing import Line

WIDTH, EDGE = 220, 8
DECADES = 1.0
"""The axis reaches from 1/10 to 10; what lies beyond stands on its edge."""


def at(ratio: float) -> float:
    """Return the pixel of a ratio."""
    inside = min(max(math.log10(max(ratio, 1e-300)) / DECADES, -1.0), 1.0)
    return EDGE + (WIDTH - 2 * EDGE) * (inside + 1.0) / 2.0


def write(record: Record, path: Path) -> None:
    """Write the page."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    tables = [(name, list(lines)) for name, lines in itertools.groupby(record.lines, key=lambda line: line.group)]
    page = environment.get_template("page.html.j2").render(record=record, tables=tables, at=at, width=WIDTH, ours=ours)
    replace_text(path, page)


def ours(line: Line) -> bool:
    """Whether a line is of this project."""
    return line.contender.startswith(("reference", "of these", "division", "default", "4 Hadamard", "audit"))
