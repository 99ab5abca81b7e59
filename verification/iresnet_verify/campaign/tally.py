"""A run of a campaign in numbers: what each check said of each subject over all seeds, and what that means together.

- *Rates* are of seeds: k of n seeds on which the check came to a verdict failed. Their exact interval assumes that seeds are independent
  draws, so results with the same content, which only their seed tells apart, are one trial.
- *Statistical* results carry an e-value of "what the check claims is true"; over all of them closed e-BH tells discoveries at a false
  discovery rate, whatever their dependence. Where a failure was looked at again with fresh seeds, the e-values are multiplied: the
  decision to look again was made before the new draws.
- Other failures are deterministic: a counterexample is one whatever else was audited. They stand apart.
- P(a statistical check fails any correct subject) ≤ Σ α over all audits that were done, looks with fresh seeds included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from iresnet_verify.campaign.packed import State
from iresnet_verify.campaign.store import Member, Result, Store
from iresnet_verify.statistics.many_tests import clopper_pearson, closed_e_bh

FALSE_DISCOVERIES = 0.05
"""The level of closed e-BH."""
EXAMPLES = 3
"""Results that are kept of a cell to look at."""


@dataclass
class Cell:
    """What one check said of one subject."""

    counts: dict[str, int] = field(default_factory=dict)
    """Seeds by status: passed, failed, declared (failed as declared), unexpected (declared, but passed), inconclusive, error, skipped."""
    trials: int = 0
    """Seeds with a verdict, results of the same content counted once."""
    failures: int = 0
    """Those of them that failed, or were declared to fail and passed."""
    root: int = 0
    """Failures that follow from no other."""
    size: float | None = None
    """The largest failure."""
    e_values: list[tuple[str, float]] = field(default_factory=list)
    """(audit, e-value) of statistical results."""
    examples: list[tuple[int, int]] = field(default_factory=list)
    """(seed, id of the result) of some failures."""
    again: tuple[int, int] = (0, 0)
    """With fresh seeds: (failures, verdicts)."""

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval of the rate of failures."""
        return clopper_pearson(self.failures, self.trials)

    @property
    def worst(self) -> str:
        """The state to colour the cell by."""
        order = ("failed", "unexpected", "error", "inconclusive", "declared", "passed", "skipped")
        return next(s for s in order if self.counts.get(s))


@dataclass
class Row:
    """One subject: what its factory is called with, and its name."""

    title: str
    name: str
    cells: dict[str, Cell] = field(default_factory=dict)
    seeds: int = 0
    causes: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """(cause, sentence, the check that shows it) and on how many seeds. Of sentences that differ in numbers the first one stands."""

    @property
    def failing(self) -> int:
        """Checks that failed on some seed."""
        return sum(c.failures > 0 for c in self.cells.values())


@dataclass
class Tally:
    """A run in numbers."""

    label: str
    began: str
    planned: int
    rows: list[Row]
    audits: int
    """Audits of the campaign that have a result."""
    exits: dict[int, int]
    """Exit codes of those that came to a verdict."""
    different: dict[int, int]
    """The same of results of the same content once: what intervals are of."""
    unfinished: list[tuple[str, int, str]]
    """(subject, seed, why) of those that did not."""
    repeated: int
    """Audits with fresh seeds."""
    alpha: float
    """P(a statistical check fails any correct subject) is at most this."""
    alike: int
    """Results that repeat another one's content."""
    tested: int
    """Statistical results with an e-value."""
    discoveries: list[tuple[str, str, str, float]]
    """(subject, check, audit, e-value) that closed e-BH discovers."""

    @property
    def checks(self) -> list[str]:
        """All checks, in the order of the first audit."""
        return list(dict.fromkeys(c for r in self.rows for c in r.cells))


def tally(store: Store, run: int) -> Tally:
    """Count a run."""
    (info,) = [r for r in store.runs() if r.id == run]
    counted = _Counting()
    for member in store.members(run):
        counted.add(member)
    return Tally(info.label, info.began, info.planned, counted.ordered(), counted.audits, counted.exits, counted.different,
                 counted.unfinished, counted.repeated, counted.alpha, counted.alike, *counted.discovered())


class _Counting:
    """The sums while results are read."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Row] = {}
        self.audits = self.repeated = self.alike = 0
        self.exits: dict[int, int] = {}
        self.different: dict[int, int] = {}
        self.unfinished: list[tuple[str, int, str]] = []
        self.alpha = 0.0
        self.seen: set[tuple[str, str]] = set()
        self.again: dict[tuple[str, str, str, str], float] = {}
        """Products of e-values with fresh seeds, by (title, name, check, first audit)."""

    def add(self, member: Member) -> None:
        result = member.result
        self.alpha += result.summary.alpha
        if member.repeats:
            self.repeated += 1
            self._repeated(member)
            return
        self.audits += 1
        if not result.complete:
            self.unfinished.append((result.subject, result.seed, str(result.body["problem"])))
            return
        self.exits[result.exit] = self.exits.get(result.exit, 0) + 1
        content = result.subject, result.summary.content
        fresh = content not in self.seen
        self.seen.add(content)
        self.alike += not fresh
        self.different[result.exit] = self.different.get(result.exit, 0) + fresh
        for audit in result.summary.audits:
            row = self.rows.setdefault((result.subject, audit.name), Row(result.subject, audit.name))
            row.seeds += 1
            for check in audit.checks:
                _count(row.cells.setdefault(check.id, Cell()), check, member.unit, result, fresh)
            for cause in audit.causes:
                first = next((k for k in row.causes if (k[0], k[2]) == (cause.name, cause.check)), (cause.name, cause.wrong, cause.check))
                row.causes[first] = row.causes.get(first, 0) + 1

    def _repeated(self, member: Member) -> None:
        for audit in member.result.summary.audits if member.result.complete else ():
            row = self.rows.setdefault((member.result.subject, audit.name), Row(member.result.subject, audit.name))
            for check in audit.checks:
                cell = row.cells.setdefault(check.id, Cell())
                if check.status in ("passed", "failed"):
                    cell.again = cell.again[0] + check.failed, cell.again[1] + 1
                if check.e_value is not None:
                    key = row.title, row.name, check.id, member.repeats
                    self.again[key] = self.again.get(key, 1.0) * check.e_value

    def ordered(self) -> list[Row]:
        """Rows by what is wrong with them, worst first."""
        return sorted(self.rows.values(), key=lambda r: (-r.failing, -sum(c.failures for c in r.cells.values()), r.title, r.name))

    def discovered(self) -> tuple[int, list[tuple[str, str, str, float]]]:
        found = [(r.title, c, unit, e * self.again.get((r.title, r.name, c, unit), 1.0))
                 for r in self.ordered() for c, cell in r.cells.items() for unit, e in cell.e_values]
        chosen = closed_e_bh([e for *_, e in found], FALSE_DISCOVERIES)
        return len(found), [found[i] for i in chosen]


def _count(cell: Cell, check: State, unit: str, result: Result, fresh: bool) -> None:
    state = check.status
    if check.declared and state in ("failed", "passed"):
        state = "declared" if state == "failed" else "unexpected"
    cell.counts[state] = cell.counts.get(state, 0) + 1
    if fresh:
        cell.trials += check.status in ("passed", "failed")
        cell.failures += check.failed
        cell.root += check.failed and check.because_of is None
    if check.failed:
        if check.size is not None:
            cell.size = max(check.size, cell.size or 0.0)
        if len(cell.examples) < EXAMPLES:
            cell.examples.append((result.seed, result.id))
    if check.e_value is not None:
        cell.e_values.append((unit, check.e_value))


def sentences(t: Tally) -> list[str]:
    """What a run means, a sentence each: for the terminal and the page."""
    found = [f"P(a statistical check fails any correct subject) ≤ {t.alpha:.2g}: the sum of α over {t.audits + t.repeated} audits."]
    if t.alike:
        found.append(f"{t.alike} results repeat the content of another seed's; intervals count them once.")
    if t.tested:
        found.append(f"Of {t.tested} statistical results with an e-value closed e-BH discovers {len(t.discoveries)} at a false discovery "
                     f"rate of {FALSE_DISCOVERIES:g}, whatever their dependence.")
    else:
        found.append("No statistical result carries an e-value (draws of a proved bound do): every failure is deterministic.")
    return found


def failing(t: Tally) -> list[tuple[Row, str, Cell]]:
    """The failures that follow from no other, worst first."""
    return [(r, c, cell) for r in t.rows for c, cell in r.cells.items() if cell.root]


def named(row: Row) -> str:
    """A subject for people: what its factory is called with, and its own name."""
    return row.title if row.name in ("", row.title) else f"{row.title} ({row.name})"


def failure_line(row: Row, check: str, cell: Cell) -> str:
    """One failure in one line: its rate, its interval, its size, and what fresh seeds say."""
    low, high = cell.interval
    text = f"{named(row)}: {check}: {cell.failures} of {cell.trials} seeds, rate in [{low:.2g}, {high:.2g}]"
    text += f", size {cell.size:.2g}" if cell.size is not None else ""
    if cell.again[1]:
        text += f"; again with {cell.again[0]} of {cell.again[1]} fresh seeds"
    return text



def check_in(body: Mapping[str, Any], name: str, check: str) -> dict[str, Any]:
    """One check of one subject in the whole result of an audit."""
    audits = body["report"].get("audits", [body["report"]])
    found: dict[str, Any] = next(c for a in audits if str(a["subject"]["name"]) == name for c in a["checks"] if c["id"] == check)
    return found
