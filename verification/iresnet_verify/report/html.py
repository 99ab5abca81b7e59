"""The report as one HTML page: self-contained, readable without JavaScript, on screen (light, dark, narrow) and paper.

The page loads nothing: style and script are inline, and a content security policy that names them by their SHA-256
forbids everything else, so that not even markup smuggled through a subject's name could run or fetch. All text goes
through Jinja's autoescaping; plots are built as an element tree, which escapes by itself.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from iresnet_verify.check.audit_result import AuditResult
from iresnet_verify.check.finding import Finding
from iresnet_verify.check.registry import FAMILIES
from iresnet_verify.check.result import CheckResult
from iresnet_verify.report.names import slug
from iresnet_verify.report.plots import Figure, draw
from iresnet_verify.report.text import (
    BY_KEY,
    KINDS,
    STATES,
    State,
    Support,
    count,
    established,
    findings,
    modes,
    overall,
    plural,
    refusals,
    seconds_text,
    state,
    value_text,
    verdict,
)

FACTS = {
    "event_shape": "Event shape", "framework": "Framework", "dtype": "Precision", "device": "Device",
    "origin": "Origin", "modes": "Modes",
}
"""Subject entries with a label of their own, in this order; all others follow under their own names."""

STATUSES = {
    "failed": "failed", "error": "could not be audited in full", "inconclusive": "inconclusive",
    "declared": "failed as declared", "passed": "passed",
}
"""Subjects by overall state, in a sentence."""


@dataclass(frozen=True)
class CheckView:
    """One result, ready to be printed."""

    anchor: str
    result: CheckResult
    state: State
    gist: str
    """The one line of the closed entry: what was found where it did not simply pass, else the claim."""
    evidence: list[tuple[str, str]]
    inputs: list[tuple[str, str]]
    figures: list[Figure]
    link: str | None
    command: str | None


@dataclass(frozen=True)
class SubjectView:
    """One report, ready to be printed."""

    anchor: str
    report: AuditResult
    name: str
    state: State
    verdict: str
    checks: list[CheckView]
    facts: list[tuple[str, str]]
    groups: list[tuple[str, list[tuple[str, str]]]]
    """Nested entries of the subject (claims, conventions): title and rows."""

    @property
    def established(self) -> list[tuple[Support, str]]:
        """What is proved, what is bounded at which error rate, what was only searched."""
        return established(self.report)

    @property
    def causes(self) -> list[tuple[Finding, CheckView, str]]:
        """The findings, each with its check and with how the modes differ."""
        view = {c.result.id: c for c in self.checks}
        return [(f, view[f.check], modes(self.report, f)) for f in findings(self.report)]

    @property
    def refused(self) -> list[tuple[CheckView, str]]:
        """What the subject refused, each with its check."""
        view = {c.result.id: c for c in self.checks}
        return [(view[check], why) for check, why in refusals(self.report)]

    @property
    def findings(self) -> list[CheckView]:
        """What else the reader has to look at: everything that counts against the verdict and is no failure."""
        caused = {f.check for f in findings(self.report)}
        return [c for c in self.checks if c.state.key in ("failed", "unexpected", "error") and c.result.because_of is None
                and c.result.id not in caused]

    def following(self, check: CheckView) -> list[CheckView]:
        """The results that follow from one."""
        return [c for c in self.checks if c.result.because_of == check.result.id]

    @property
    def listed(self) -> list[CheckView]:
        """Every result, those that follow from another right after it."""
        below = {c.result.id for c in self.checks if c.result.because_of in {o.result.id for o in self.checks}}
        return [x for c in self.checks if c.result.id not in below for x in (c, *self.following(c))]

    def cell(self, family: str) -> tuple[str, State, list[tuple[State, int]]] | None:
        """Of one family: the link to its worst check, the state to colour it by, and the count per state.

        What was skipped colours a family only where nothing else is in it. None: there is no such check.
        """
        found = [c for c in self.checks if c.result.family == family]
        if not found:
            return None
        counts = [(BY_KEY[k], n) for k, n in count([c.result for c in found]).items() if n]
        colour = next((c.state for c in found if c.state.key != "skipped"), found[0].state)
        return found[0].anchor, colour, counts


def write(reports: Sequence[AuditResult], path: Path) -> None:
    """Write one page for one or several subjects to `path`, creating its folder; paths in it are relative to it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    page = render(reports, path)
    path.write_text(page, encoding="utf-8", errors="backslashreplace", newline="\n")


def render(reports: Sequence[AuditResult], path: Path) -> str:
    """The page as text; `path` is where it will lie, for the links to reproduction files."""
    numbers = itertools.count(1)
    subjects = [_subject(r, anchor, path, numbers) for r, anchor in zip(reports, anchors(reports), strict=True)]
    families = sorted({c.result.family for s in subjects for c in s.checks}, key=_family_rank)
    environment = templates()
    source = environment.loader
    assert source is not None
    style, script = (source.get_source(environment, f"report.{kind}")[0] for kind in ("css", "js"))
    for s in STATES:  # once, not in every entry; what is read aloud for a glyph: entries that did not pass have a badge that says it
        style += f'.{s.key} > summary::before {{ content: "{s.glyph}" / "{s.label if s.key == "passed" else ""}"; }}\n'
    totals = count([c.result for s in subjects for c in s.checks])
    shared = bool(reports) and all(r.environment == reports[0].environment for r in reports)
    return environment.get_template("report.html.j2").render(
        title=_title(subjects), subjects=subjects, families=families, states=STATES, totals=totals,
        headline=_headline(subjects), style=Markup(style), script=Markup(script),
        style_hash=source_hash(style), script_hash=source_hash(script),
        environment=list(reports[0].environment.items()) if shared else [], shared=shared,
        settings=_settings(reports), kinds=KINDS, seconds=sum(r.seconds for r in reports),
        cpu_seconds=sum(r.cpu_seconds for r in reports),
    )


def anchors(reports: Sequence[AuditResult]) -> list[str]:
    """An anchor for each subject, made of its name; that of a check is `<subject>.<check id>`, the same in every report."""
    taken: list[str] = []
    for report in reports:
        name = slug(str(report.subject.get("name", "")))
        numbered = (f"{name}-{i}" if i > 1 else name for i in range(1, len(taken) + 2))
        taken.append(next(a for a in numbered if a not in taken))
    return taken


def templates() -> Environment:
    """The templates of pages: every text is escaped, an unknown name is an error."""
    environment = Environment(
        loader=PackageLoader("iresnet_verify.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {"prose": prose, "value": value_text, "seconds": seconds_text, "plural": plural}
    environment.filters.update(filters)
    return environment


def prose(text: str) -> Markup:
    """Escaped text in which `backquoted` parts are code."""
    parts = re.split(r"`([^`\n]+)`", text)
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts))


def source_hash(text: str) -> str:
    """The SHA-256 of a style or script, as a content security policy names it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _family_rank(family: str) -> tuple[int, str]:
    return (FAMILIES.index(family) if family in FAMILIES else len(FAMILIES), family)


def _title(subjects: Sequence[SubjectView]) -> str:
    return f"Audit of {subjects[0].name}" if len(subjects) == 1 else f"Audit of {len(subjects)} networks"


def _headline(subjects: Sequence[SubjectView]) -> str:
    """The page in one sentence."""
    if not subjects:
        return "Nothing was audited."
    if len(subjects) == 1:
        return subjects[0].verdict
    found: list[str] = [s.state.key for s in subjects]
    parts = [f"{found.count(k)} {words}" for k, words in STATUSES.items() if k in found]
    return f"Of {len(subjects)} subjects, {', '.join(parts)}."


def _settings(reports: Sequence[AuditResult]) -> list[tuple[str, str]]:
    """Seed, alpha and budget, where they are the same for all; each subject prints its own otherwise."""
    rows = {"Seed": {str(r.seed) for r in reports}, "α (false alarms)": {value_text(r.alpha) for r in reports},
            "Budget": {r.budget for r in reports}}
    return [(k, v.pop() if len(v) == 1 else "differs, see each subject") for k, v in rows.items() if v]


def _subject(report: AuditResult, anchor: str, path: Path, numbers: Iterator[int]) -> SubjectView:
    name = str(report.subject.get("name", "unnamed subject"))
    ordered = sorted(report.checks, key=lambda c: (STATES.index(state(c)), _family_rank(c.family), c.id))
    checks = [_check(c, f"{anchor}.{re.sub('[^A-Za-z0-9.-]+', '-', c.id)}", path, numbers) for c in ordered]
    plain, groups = [], []
    for key in [*FACTS, *(k for k in report.subject if k not in FACTS)]:
        value = report.subject.get(key)
        value = tuple(value) if key == "event_shape" and isinstance(value, list) else value
        if key in ("name", "has_log_det") or value is None or value in ("", (), [], {}):
            continue
        label = FACTS.get(key, key.replace("_", " ").capitalize())
        if isinstance(value, Mapping):
            groups.append((label, [(str(k), "not stated" if v is None else value_text(v)) for k, v in value.items()]))
        elif isinstance(value, list | tuple) and any(isinstance(v, str) and " " in v for v in value):
            groups.append((label, [("", value_text(v)) for v in value]))
        else:
            plain.append((label, value_text(value)))
    return SubjectView(
        anchor, report, name, overall(report), verdict(report), checks, plain, groups,
    )


def _check(result: CheckResult, anchor: str, path: Path, numbers: Iterator[int]) -> CheckView:
    figures = [draw(str(name), curve, f"p{next(numbers)}") for name, curve in result.curves.items()]
    inputs = result.counterexample.inputs if result.counterexample is not None else {}
    link, command = _reproduction(result.reproduce, path)
    gist = result.message if state(result).key != "passed" and result.message else result.claim
    return CheckView(
        anchor, result, state(result), gist, _rows(result.evidence.items()),
        _rows((k, _shown(v)) for k, v in inputs.items()), figures, link, command,
    )


def _rows(items: Iterable[tuple[Any, Any]]) -> list[tuple[str, str]]:
    return [(str(k).replace("_", " "), value_text(v)) for k, v in items]


def _shown(value: Any) -> Any:
    """Small arrays in full; of large ones the shape, since the reproduction file holds them."""
    size, shape = getattr(value, "size", 0), getattr(value, "shape", ())
    return f"array of shape {tuple(shape)}" if isinstance(size, int) and size > 16 else value


def _reproduction(where: str | None, path: Path) -> tuple[str | None, str | None]:
    """(href, command) for a reproduction file, relative to the page where the two share a tree."""
    if not where:
        return None, None
    target, folder = Path(where), path.absolute().parent
    if target.is_absolute() or (not (folder / target).exists() and target.exists()):
        try:
            target = Path(os.path.relpath(target.absolute(), folder))
        except ValueError:  # another drive: no relative path exists, and an absolute one is of no use to a reader
            return None, f"python {shlex.quote(target.name)}"
    return f"./{quote(target.as_posix())}", f"python {shlex.quote(target.as_posix())}"
