"""Annotations for GitHub's log: one workflow command a finding, shown next to the line that it is about.

The form is `::error file=…,line=…,title=…::message`, with %, CR, LF, and in properties also : and , escaped as the runner expects.
Files are named as seen from the root of the checkout.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from iresnet_verify.check.audit_result import AuditResult
from iresnet_verify.check.result import CheckResult
from iresnet_verify.report.text import findings, legal, state

LEVELS = {"failed": "error", "unexpected": "error", "error": "warning", "inconclusive": "notice"}

Place = tuple[str, int]
"""A file and a line of it."""

def lines(reports: Sequence[AuditResult], places: Sequence[Place | None] = ()) -> Iterator[str]:
    """One line for each result that someone should look at; `places`: where the subject of each report is made."""
    for i, report in enumerate(reports):
        said_of = {f.check: f.sentences for f in findings(report)}
        for c in report.checks:
            if state(c).key in LEVELS and c.because_of is None:
                yield line(c, str(report.subject.get("name", "")), places[i] if i < len(places) else None, said_of.get(c.id, ""))


def line(result: CheckResult, subject: str, place: Place | None, said: str = "") -> str:
    """The annotation of one result; `said` is what was found, else its message says it."""
    said = said or (
        result.message or result.claim if result.status != "passed" else f"declared to fail ({result.expected}), but passed")
    where = f"file={_property(_from_root(place[0]))},line={place[1]}," if place else ""
    return f"::{LEVELS[state(result).key]} {where}title={_property(f'{subject} {result.id}')}::{_data(said)}"


def place_of(file: str, name: str) -> Place:
    """Where a function or class of a file is defined; line 1 where its text does not say."""
    try:
        body = ast.parse(Path(file).read_text("utf-8", "replace")).body
    except (OSError, SyntaxError, ValueError):
        body = []
    found = [n.lineno for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == name.split(".", maxsplit=1)[0]]
    found += [n.lineno for n in body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name) and t.id == name]
    return file, found[0] if found else 1


def _from_root(file: str) -> str:
    root = Path(os.environ.get("GITHUB_WORKSPACE") or Path.cwd())
    try:
        return Path(file).resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return file


def _data(text: str) -> str:
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return legal(escaped)


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
