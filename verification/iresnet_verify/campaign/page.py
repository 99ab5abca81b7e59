"""One HTML page of a campaign: subjects × checks, rates with exact intervals, causes, evidence, and how its runs compare.

As the page of an audit it loads nothing, runs nothing but its own script, escapes every text, and can be read without JavaScript. Its size
is bounded: the worst `ROWS` subjects, the worst `FAILURES` failures and the last `RUNS` runs are shown, and the rest is counted.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from iresnet_verify.campaign.comparison import Change, compare
from iresnet_verify.campaign.store import Store
from iresnet_verify.campaign.tally import Cell, Row, Tally, check_in, failing, named, sentences, tally
from iresnet_verify.check.registry import FAMILIES
from iresnet_verify.report.html import source_hash, templates
from iresnet_verify.report.text import BY_KEY, number, plural, value_text
from iresnet_verify.statistics.many_tests import clopper_pearson

ROWS, FAILURES, RUNS, HISTORY = 250, 250, 12, 60
"""Subjects of the map, failures with their evidence, runs and failures in the trends, at most."""
READ = 20_000
"""Audits of this and earlier runs that are read for the trends; the run before is read in any case."""
UNFINISHED = 50
"""Audits without a verdict that are named."""
LONGEST = 1200
"""Characters of one text of evidence."""


@dataclass(frozen=True)
class Example:
    """One result that shows a failure."""

    seed: int
    message: str
    evidence: list[tuple[str, str]]
    more: list[tuple[str, str]]
    link: str | None
    command: str | None


@dataclass(frozen=True)
class Failure:
    """One check that failed on one subject, ready to be printed."""

    anchor: str
    subject: str
    check: str
    rate: str
    size: str
    again: str
    causes: list[str]
    claim: str
    reference: str
    examples: list[Example]


@dataclass(frozen=True)
class Square:
    """One cell of the map: a letter for its state, the failures, the link to them."""

    letter: str
    failures: int
    shade: int
    """Quarters of the seeds that failed, 1 to 4."""
    anchor: str
    title: str


@dataclass(frozen=True)
class Trends:
    """How runs compare."""

    rates: list[tuple[str, int, int, tuple[float, float]]]
    """Of each run label, failures, audits and the interval of the rate."""
    labels: list[str]
    """The last runs, as many as are read in full."""
    history: list[tuple[str, str, list[tuple[str, bool]]]]
    """Subject, check, and for each of those runs "failures/seeds" and whether it failed."""
    changes: list[Change]
    """Since the run before."""


LETTERS = {"failed": "f", "unexpected": "u", "error": "e", "inconclusive": "i", "declared": "d", "passed": "p", "skipped": "s", "": "n"}


def write(store: Store, run: int, path: Path) -> None:
    """Write the page of a run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(store, run, path), "utf-8", errors="backslashreplace", newline="\n")


def render(store: Store, run: int, path: Path) -> str:
    """The page as text; `path` is where it will lie, for the links to reproductions."""
    t = tally(store, run)
    found = failing(t)
    anchors = {(r.title, r.name, c): f"f{i}" for i, (r, c, _) in enumerate(found[:FAILURES], 1)}
    failures = [_failure(store, anchors[r.title, r.name, c], r, c, cell, path) for r, c, cell in found[:FAILURES]]
    shown = [c for c in t.checks if any(r.cells[c].worst != "skipped" for r in t.rows if c in r.cells)]
    shown.sort(key=lambda c: (FAMILIES.index(c.partition(".")[0]) if c.partition(".")[0] in FAMILIES else len(FAMILIES), c))
    environment = templates()
    source = environment.loader
    assert source is not None
    style = "".join(source.get_source(environment, name)[0] for name in ("report.css", "campaign.css"))
    script = source.get_source(environment, "campaign.js")[0]
    trends = _trends(store, run, t)
    return environment.get_template("campaign.html.j2").render(
        t=t, headline=headline(t), sentences=sentences(t), states=BY_KEY, letters=LETTERS, families=_families(shown), checks=shown,
        rows=[(named(r), _squares(r, shown, anchors)) for r in t.rows[:ROWS]], hidden=len(t.rows[ROWS:]), causes=_causes(t),
        failures=failures, more=len(found) - len(failures), trends=trends, discoveries=t.discoveries[:FAILURES],
        unfinished=t.unfinished[:UNFINISHED], more_unfinished=len(t.unfinished[UNFINISHED:]),
        style=Markup(style), script=Markup(script), style_hash=source_hash(style), script_hash=source_hash(script),
    )


def headline(t: Tally) -> str:
    """The page in a sentence or two."""
    n = sum(t.exits.values())
    if not n:
        return "No audit has come to a verdict yet."
    failed, different = t.different.get(1, 0), sum(t.different.values())
    low, high = clopper_pearson(failed, different)
    of = f" ({failed} of {plural(different, 'different result')})" if t.alike else ""
    said = f"{t.exits.get(1, 0)} of {plural(n, 'audit')} failed{of}: a rate in [{low:.2g}, {high:.2g}] at 95 % confidence."
    bad = sum(r.failing > 0 for r in t.rows)
    return f"{said} Something failed on {bad} of {plural(len(t.rows), 'subject')}."


def _families(checks: list[str]) -> list[tuple[str, int]]:
    found: dict[str, int] = {}
    for c in checks:
        found[c.partition(".")[0]] = found.get(c.partition(".")[0], 0) + 1
    return list(found.items())


def _squares(row: Row, checks: list[str], anchors: Mapping[tuple[str, str, str], str]) -> list[Square]:
    return [_square(row.cells.get(c), anchors.get((row.title, row.name, c), "")) for c in checks]


def _square(cell: Cell | None, anchor: str) -> Square:
    if cell is None:
        return Square("n", 0, 0, "", "")
    shade = -(-4 * cell.failures // max(1, cell.trials))
    letter = LETTERS["inconclusive" if cell.worst == "failed" and not cell.root else cell.worst]  # follows from another failure
    return Square(letter, cell.root, shade, anchor, rate(cell) if cell.root else "")


def rate(cell: Cell) -> str:
    """k of n seeds, and the exact interval."""
    low, high = cell.interval
    return f"{cell.failures} of {cell.trials} seeds, rate in [{low:.2g}, {high:.2g}]"


def _failure(store: Store, anchor: str, row: Row, check: str, cell: Cell, path: Path) -> Failure:
    bodies = [(seed, check_in(store.result(number).body, row.name, check)) for seed, number in cell.examples]
    first = bodies[0][1] if bodies else {"claim": "", "reference": ""}
    return Failure(
        anchor, named(row), check, rate(cell), "" if cell.size is None else number(cell.size),
        f"{cell.again[0]} of {cell.again[1]} fresh seeds failed as well" if cell.again[1] else "",
        [f"{wrong} ({plural(n, 'seed')})" for (_, wrong, of), n in sorted(row.causes.items(), key=lambda c: -c[1]) if of == check][:3],
        first["claim"], first["reference"], [_example(seed, c, path) for seed, c in bodies],
    )


def _example(seed: int, c: Mapping[str, Any], path: Path) -> Example:
    evidence = [(k.replace("_", " "), value_text(v)[:LONGEST]) for k, v in c["evidence"].items()]
    more = [(k, str(c[k])[:LONGEST]) for k in ("mode", "tolerance", "oracle") if c.get(k)]
    link, command = None, None
    if c.get("reproduce"):
        target = Path(os.path.relpath(c["reproduce"], path.absolute().parent)).as_posix()
        link, command = f"./{quote(target)}", f"python {shlex.quote(target)}"
    return Example(seed, str(c["message"])[:LONGEST], evidence, more, link, command)


def _causes(t: Tally) -> list[tuple[str, str, int, int]]:
    """Causes over all subjects: name, the sentence of the first, subjects, audits; most frequent first."""
    found: dict[str, tuple[str, int, int]] = {}
    for row in t.rows:
        for cause in {name for name, _, _ in row.causes}:
            of = [(wrong, n) for (name, wrong, _), n in row.causes.items() if name == cause]
            wrong, subjects, audits = found.get(cause, (of[0][0], 0, 0))
            found[cause] = wrong, subjects + 1, audits + max(n for _, n in of)
    return sorted(((name, *rest) for name, rest in found.items()), key=lambda c: -c[3])


def _trends(store: Store, run: int, now: Tally) -> Trends:
    """The last runs, and what failed in them."""
    runs = [r for r in store.runs() if r.id <= run][-RUNS:]
    rates = [(r.label, *store.failures(r.id)) for r in runs]
    read, left = [now], READ - now.audits
    for info in reversed(runs[:-1]):
        left -= info.planned
        if left < 0 and len(read) > 1:
            break
        read.insert(0, tally(store, info.id))
    cells = [{(named(r), c): cell for r in t.rows for c, cell in r.cells.items()} for t in read]
    worst = {key: max((c[key].interval[0] for c in cells if key in c and c[key].root), default=-1.0) for c in cells for key in c}
    shown = sorted((k for k, v in worst.items() if v >= 0.0), key=lambda k: (-worst[k], k))[:HISTORY]
    history = [(*key, [(f"{c[key].failures}/{c[key].trials}", bool(c[key].root)) if key in c else ("", False) for c in cells])
               for key in shown]
    return Trends([(label, k, n, clopper_pearson(k, n)) for label, k, n in rates], [t.label for t in read], history,
                  compare(read[-2], now)[:FAILURES] if len(read) > 1 else [])
