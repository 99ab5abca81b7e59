"""Reports for the terminal: one table of results a subject, the findings in full, and a gallery subject × family.

Readable from 80 columns on and without colour (`NO_COLOR` is honoured by rich): every state has a glyph and a word.
Reports go to standard output, progress to standard error. Names and messages come from strangers' code: they are never
read as markup, and control characters are shown as escapes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from iresnet_verify.check.audit_result import AuditResult
from iresnet_verify.check.finding import Finding
from iresnet_verify.check.registry import FAMILIES, SLOW, Check
from iresnet_verify.check.result import CheckResult
from iresnet_verify.golden.comparison import Compared
from iresnet_verify.report.text import (
    BY_KEY,
    STATES,
    State,
    consequences,
    established,
    findings,
    legal,
    modes,
    overall,
    plural,
    refusals,
    seconds_text,
    state,
    unreadable,
    value_text,
    verdict,
)

if TYPE_CHECKING:
    from iresnet_verify.workers.isolated_audits import Progress

COLOURS = {
    "failed": "bold red", "unexpected": "bold magenta", "error": "bold yellow", "inconclusive": "yellow",
    "declared": "cyan", "skipped": "dim", "passed": "green",
}
GROUND_COLOURS = {"proved": "bold green", "bounded": "bold blue", "searched": "bold yellow"}
WIDE = 120
LINE_SECONDS = 10.0
"""Seconds between two lines of progress where there is no terminal."""
FAMILY_LABELS: dict[str, str] = dict(zip(FAMILIES, ("inv", "conv", "lip", "logd", "est", "grad", "dens", "hyg", "st", "par"), strict=True))


def show(reports: Sequence[AuditResult], console: Console | None = None) -> None:
    """Print every report, and the gallery if there are several."""
    console = console or Console()
    for report in reports:
        show_one(report, console)
    if len(reports) > 1:
        gallery_table(reports, console)


def show_one(report: AuditResult, console: Console) -> None:
    """Print the head, the causes, the table of results without what follows from others, the findings and the counts of one report."""
    subject = report.subject
    console.rule(_text(subject.get("name", "subject"), "bold"), align="left")
    head = f"{subject.get('framework', '')} {subject.get('dtype', '')} on {subject.get('device', '')}, event shape "
    head += f"{tuple(subject.get('event_shape', ()))}, seed {report.seed}, budget {report.budget}, α {report.alpha:g}"
    console.print(_text(head, "dim"))
    unread = unreadable(report)
    if unread is not None:
        console.print(Text.assemble((f"{state(unread).glyph} ", COLOURS["error"]), _text(unread.message)))
        console.print(Text.assemble((f"{state(unread).label}: ", COLOURS["error"]), _text(verdict(report))))
        return
    console.print(_established(report))
    causes = findings(report)
    for number, finding in enumerate(causes, 1):
        console.print(_cause(report, finding, number if len(causes) > 1 else 0))
    refused = refusals(report)
    if refused:
        console.print(_refused(refused))
    console.print(_results(report, console.width))
    for line in _skipped(report):
        console.print(line)
    for result in report.checks:
        if result.because_of is None and (state(result).open or state(result).key == "declared"):
            console.print(_finding(result))
    console.print(_families([report], console.width, per_family=True))
    shown = overall(report)
    took = f" ({seconds_text(report.seconds)}, CPU {seconds_text(report.cpu_seconds)})"
    console.print(Text.assemble((f"{shown.label}: ", COLOURS[shown.key]), _text(verdict(report)), took))
    console.print()


def _established(report: AuditResult) -> Text:
    """What is proved, what is bounded, what was only searched: three colours, three words, one line."""
    parts = [Text.assemble((g.word, GROUND_COLOURS[g.key]), " ", _text(what)) for g, what in established(report)]
    return Text(" · ").join(parts)


def gallery_table(reports: Sequence[AuditResult], console: Console | None = None) -> None:
    """Print one table of several subjects: a row a subject, a column a family, the number of checks in each state."""
    console = console or Console()
    console.print(_families(reports, console.width, per_family=False))
    legend = Text("  ")
    for s in STATES:
        legend.append(f"{s.glyph} {s.label}   ", COLOURS[s.key])
    console.print(legend)


def catalogue_table(checks: Sequence[Check], console: Console | None = None) -> None:
    """Print the catalogue: what each check claims, how it decides, by what reference, its cost, and the mistakes it catches."""
    console = console or Console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_lines=False)
    table.add_column("check", no_wrap=console.width >= WIDE, overflow="fold", ratio=2)
    table.add_column("claim, reference, what it catches and costs", overflow="fold", ratio=5)
    for check in checks:
        needs = f"\nneeds {', '.join(check.needs)}" if check.needs else ""
        about = Text(check.claim)
        about.append(f"\n{check.reference}", "dim")
        about.append(f"\ncatches: {check.catches}" if check.catches else "")
        about.append(f"\ncosts: {check.cost}" if check.cost else "", "dim")
        table.add_row(Text.assemble((check.id, "bold"), (f"\n{check.kind}{needs}", "dim")), about, end_section=True)
    console.print(table)
    console.print(f"{len(checks)} checks")


def golden_table(found: Sequence[Compared], console: Console | None = None) -> None:
    """Print what is wrong in answers to the golden vectors, and how much is right."""
    console = console or Console()
    wrong = [c for c in found if not c.right]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("case", overflow="fold")
    table.add_column("quantity", overflow="fold")
    table.add_column("error/allowed", justify="right", no_wrap=True)
    table.add_column("which are the numbers of", overflow="fold")
    for c in wrong:
        table.add_row(c.case, c.quantity, f"{c.error:.1e}", c.formula or "no mistake that is known here")
    if wrong:
        console.print(table)
    cases = len({c.case for c in found})
    console.print(f"{len(found) - len(wrong)} of {len(found)} quantities of {cases} {'case' if cases == 1 else 'cases'} are right")


def _results(report: AuditResult, width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, expand=False, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("check", no_wrap=True, overflow="ellipsis", max_width=44)
    table.add_column("found", overflow="fold", ratio=1)
    if width >= WIDE:
        table.add_column("time", justify="right", no_wrap=True)
    for result in report.checks:
        s = state(result)
        if result.because_of is not None or s.key == "skipped":
            continue
        where = f" [{result.mode}]" if result.mode and s.key != "passed" else ""
        found = s.label if s.open or not result.message else result.message
        n = sum(r.because_of == result.id for r in report.checks)
        found = f"{found}, and {plural(n, 'result')} because of it" if n else found
        row = [_text(s.glyph, COLOURS[s.key]), _text(result.id + where), _text(found, COLOURS[s.key])]
        table.add_row(*row, *([seconds_text(result.seconds)] if width >= WIDE else []))
    return table


def _skipped(report: AuditResult) -> list[Padding]:
    """What was skipped, a paragraph for each reason."""
    reasons: dict[str, list[str]] = {}
    for result in report.checks:
        if state(result).key == "skipped" and result.because_of is None:
            reasons.setdefault(result.message.removesuffix("."), []).append(result.id)
    glyph = BY_KEY["skipped"].glyph
    return [Padding(_text(f"{glyph} {reason}: {', '.join(ids)}", COLOURS["skipped"]), (0, 0, 0, 1)) for reason, ids in reasons.items()]


def _finding(result: CheckResult) -> Group:
    s = state(result)
    mode = f" in mode {result.mode}" if result.mode else ""
    lines = Table.grid(padding=(0, 1))
    lines.add_column(style="dim", no_wrap=True)
    lines.add_column(overflow="fold")
    evidence = "; ".join(f"{k} = {value_text(v)}" for k, v in result.evidence.items())
    entries = [
        ("claim", result.claim), ("found", result.message), ("evidence", evidence), ("tolerance", result.tolerance),
        ("oracle", result.oracle), ("reference", result.reference),
        ("declared", result.expected), ("reproduce", f"python {result.reproduce}" if result.reproduce else None),
    ]
    for label, text in entries:
        if text:
            lines.add_row(label, _text(text))
    title = _text(f"{s.glyph} {result.id}: {s.label}{mode}", COLOURS[s.key])
    return Group(title, Padding(lines, (0, 0, 1, 2)))


def _cause(report: AuditResult, finding: Finding, number: int) -> Padding:
    """What is wrong, how sure that is, what to change; then the check that shows it, the modes, and what follows."""
    first = (f"{number}. " if number else "") + finding.wrong
    lines = [_text(first, COLOURS["failed"]), _text(finding.sure), _text(finding.change, "bold")]
    notes = [finding.check, modes(report, finding), consequences(finding)]
    lines.append(_text("; ".join(n for n in notes if n), "dim"))
    return Padding(Group(*(line for line in lines if line.plain)), (1, 0, 0, 0))


def _refused(refused: Sequence[tuple[str, str]]) -> Padding:
    """What the subject refused: no check says anything of it there."""
    lines = [_text("Refused, so not judged:"), *(_text(f"{BY_KEY['skipped'].glyph} {check}: {why}", "dim") for check, why in refused)]
    return Padding(Group(*lines), (1, 0, 0, 0))


def _families(reports: Sequence[AuditResult], width: int, per_family: bool) -> Table:
    """Counts per family: the families as rows for one report, as columns for several."""
    present = [f for f in FAMILIES if any(c.family == f for r in reports for c in r.checks)]
    padding = (0, 1, 0, 0) if width >= WIDE else 0  # ten families side by side fit into 80 columns without further space
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", padding=padding)
    if per_family:
        states = [s for s in STATES if any(s in _counts(reports[0], f) for f in present)]
        table.add_column("family", no_wrap=True)
        for s in states:
            table.add_column(s.label, justify="right")
        for family in present:
            counts = _counts(reports[0], family)
            table.add_row(family, *(Text(str(counts.get(s, "")), COLOURS[s.key]) for s in states))
        return table
    if width < WIDE:  # no room for the status in words
        table.add_column("", no_wrap=True)
    table.add_column("subject", overflow="fold", min_width=12)
    for family in present:
        table.add_column(family if width >= WIDE else FAMILY_LABELS[family], min_width=3)
    if width >= WIDE:
        table.add_column("status", no_wrap=True)
    for report in reports:
        cells = [_cell(_counts(report, family), " " if width >= WIDE else "") for family in present]
        shown = overall(report)
        row, style = [_text(report.subject.get("name", "")), *cells], COLOURS[shown.key]
        table.add_row(*([*row, Text(shown.label, style)] if width >= WIDE else [Text(shown.glyph, style), *row]))
    return table


def _counts(report: AuditResult, family: str) -> dict[State, int]:
    found = [state(c) for c in report.checks if c.family == family]
    return {s: found.count(s) for s in STATES if s in found}


def _cell(counts: dict[State, int], between: str) -> Text:
    cell = Text(between).join(Text(f"{n}{s.glyph}", COLOURS[s.key]) for s, n in counts.items() if s.key != "skipped")
    return cell if cell else Text("–", COLOURS["skipped"])


def _text(text: object, style: str = "") -> Text:
    return Text(legal(str(text)), style)


@contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Callable[[Progress], None]]:
    """Progress on standard error; the function given takes each `Progress`. A bar on a terminal, lines elsewhere."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield progress_lines(console)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("loading", total=None)

        def advance(step: Progress) -> None:
            name = f"{step.result.id:<32.32} {legal(step.subject):<20.20}"
            if SLOW in step.result.evidence:
                bar.console.print(_text(f"{step.subject}: {step.result.message}"))
            bar.update(task, completed=step.done, total=step.planned, description=name)

        yield advance


def progress_lines(console: Console, clock: Callable[[], float] = time.monotonic) -> Callable[[Progress], None]:
    """Progress where there is no terminal: a line at once for the first result and for what fails, else one in `LINE_SECONDS`."""
    last = -math.inf

    def advance(step: Progress) -> None:
        nonlocal last
        shown = state(step.result)
        if shown.open or clock() - last >= LINE_SECONDS:
            last = clock()
            said = f"{shown.glyph} {step.result.id}: {shown.label}" if shown.open else step.result.id
            said += f": {step.result.message}" if SLOW in step.result.evidence else ""
            console.print(_text(f"{step.done} of {step.planned} checks, {step.subject}, {said}"), soft_wrap=True)

    return advance
