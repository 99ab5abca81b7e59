"""A campaign: audit what has no valid result yet, store every verdict, and say what was done again and why."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from iresnet_verify.campaign.auditor import Task
from iresnet_verify.campaign.engines import LOCAL, Engine
from iresnet_verify.campaign.keys import Present
from iresnet_verify.campaign.packed import Packed, Results
from iresnet_verify.campaign.store import Result, Store, StoreError
from iresnet_verify.campaign.trust import require_trust
from iresnet_verify.campaign.unit import Unit
from iresnet_verify.report.exit_codes import FAILED
from iresnet_verify.subject.seeds import derived_seed

PATIENCE = 2.0
"""Seconds between two looks at what another campaign on the same folder is doing."""
AGAIN = 2
"""Fresh seeds with which a failure that only one seed has shown is looked at again."""


@dataclass(frozen=True)
class Options:
    """How a campaign is carried out. Nothing here changes what an audit finds."""

    engine: Engine = LOCAL
    task: Task | None = None
    """What audits; None: an auditor."""
    fresh: bool = False
    """Audit every unit, whatever the folder holds."""
    again: int = 0
    """Fresh seeds for a failure that only one seed has shown."""
    label: str = ""
    """What this run is called in comparisons and trends; empty: when it began."""
    progress: Callable[[str, Packed | None], None] = lambda name, found: None
    """Told of each unit that has a result now, with what was found if it was just now."""
    expect: Callable[[int], None] = lambda more: None
    """Told of audits that are to be done beside the planned ones."""
    note: Callable[[str], None] = lambda text: None
    """Told of what is worth saying, at once."""


@dataclass(frozen=True)
class Findings:
    """The result of every unit, in order (None: none was found), and what is worth saying about how they were found."""

    results: list[Result | None]
    notes: list[str]
    run: int = 0
    """The number of the run in the store."""
    again: dict[str, list[Result]] = field(default_factory=dict)
    """Results with fresh seeds, by the name of the unit whose failure they look at."""


def run(units: Sequence[Unit], folder: Path, options: Options | None = None) -> Findings:
    """Audit every unit that has no result under the present key.

    Raises `StoreError` where results cannot be kept, `SubjectError` for a scheduler that nobody has vouched for.
    """
    options = options or Options()
    if options.engine.scheduler is not None:
        require_trust(options.engine.scheduler, options.engine.trust)
    with Store(folder) as store:
        try:
            return _Campaign(store, options).run(units)
        except sqlite3.Error as error:
            raise StoreError(f"{store.path}: expected to store a result, got: {error}; what was stored before is safe: make room and "
                             "run the same command again") from error


class _Campaign:
    """One run on an open store."""

    def __init__(self, store: Store, options: Options) -> None:
        self.store, self.options = store, options
        self.names: dict[Unit, str] = {}
        self.notes: list[str] = []
        self.start = 0
        self.number = 0

    def name(self, unit: Unit) -> str:
        if unit not in self.names:
            self.names[unit] = unit.name(self.store.folder)
        return self.names[unit]

    def say(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.notes.append(text)
            self.options.note(text)

    def run(self, units: Sequence[Unit]) -> Findings:
        named = {self.name(u): u for u in units}
        self.say([f"{len(units) - len(named)} audits are listed twice and done once"] if len(named) < len(units) else [])
        self.start = max((r.id for r in self.store.results(named)), default=0) if self.options.fresh else 0
        began = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        self.number = self.store.begin(list(named), self.options.label, began, anew=self.options.fresh)
        newest = self.audit(named)
        repeats = _to_repeat(named, newest, self.options.again, self.store.folder)
        again: dict[str, list[Result]] = {}
        if repeats:
            self.options.expect(len(repeats))
            first = {name: of for name, (of, _) in repeats.items()}
            for name, result in self.audit({name: unit for name, (_, unit) in repeats.items()}, first).items():
                again.setdefault(first[name], []).append(result)
        if not self.options.label:
            self.store.forget_if_unchanged(self.number)
        return Findings([newest.get(self.name(u)) for u in units], self.notes, self.number, again)

    def audit(self, units: dict[str, Unit], repeats: Mapping[str, str] | None = None) -> dict[str, Result]:
        """The result of each unit, found now where none holds. What code that changes meanwhile makes stale is done once more."""
        kept, stale = self.valid(units)
        self.say(n for n in self.store.notes if n not in self.notes)
        self.say([] if self.options.fresh else reasons(stale))
        self.find(units, kept, repeats)
        self.say(n for n in self.store.notes if n not in self.notes)
        _, stale = self.valid(units)
        if stale:
            self.say(reasons(stale))
            self.options.expect(len(stale))
            self.find({n: units[n] for n in stale}, {}, repeats)
        return {m.unit: m.result for m in self.store.members(self.number) if m.unit in units}

    def find(self, units: Mapping[str, Unit], kept: dict[str, Result], repeats: Mapping[str, str] | None) -> None:
        """Audit every unit once that is not in `kept` and that no other campaign audits."""
        self.keep(kept, repeats)
        tried: set[str] = set()
        while waiting := {n: u for n, u in units.items() if n not in kept and n not in tried}:
            mine = self.store.claim(list(waiting))
            theirs, _ = self.valid(waiting)  # another campaign's, by now
            self.keep(theirs, repeats)
            kept |= theirs
            todo = [u for n, u in waiting.items() if n in mine and n not in kept]
            if not todo and not theirs:
                time.sleep(PATIENCE)  # another campaign is at it: wait for its results, or for its end
            for found in self.results(todo) if todo else ():
                self.store.add(((self.name(u), u.title, u.seed, packed) for u, packed in found), self.number, repeats,
                               anew=self.options.fresh)
                for unit, packed in found:
                    tried.add(self.name(unit))
                    self.options.progress(self.name(unit), packed)

    def valid(self, units: Mapping[str, Unit]) -> tuple[dict[str, Result], dict[str, list[str]]]:
        """What holds of these now, and what is stale."""
        here = self.options.engine.scheduler in (None, "local")
        return valid(units, self.store, Present() if here else Present(("files", "package")), after=self.start)

    def keep(self, kept: Mapping[str, Result], repeats: Mapping[str, str] | None) -> None:
        self.store.enter(self.number, ((name, result.id, (repeats or {}).get(name, "")) for name, result in kept.items()))
        for name in kept:
            self.options.progress(name, None)

    def results(self, units: Sequence[Unit]) -> Results:
        folder = self.store.folder.resolve()

        def out(unit: Unit) -> Path:
            """Where reproductions go: emptied before the audit, so that none is older than the result."""
            place = folder / "reproduce" / self.name(unit)
            shutil.rmtree(place, ignore_errors=True)
            return place

        return self.options.engine.results(units, out, self.options.task, self.options.note)


def valid(units: Mapping[str, Unit], store: Store, present: Present, after: int = 0) -> tuple[dict[str, Result], dict[str, list[str]]]:
    """The newest result of each unit that still holds, and of the others that have one what is different now."""
    keys = store.keys()
    held: dict[tuple[str, str], list[str]] = {}
    kept: dict[str, Result] = {}
    stale: dict[str, list[str]] = {}
    for result in store.results(units):
        if not result.complete or result.id <= after:
            continue
        unit = units[result.unit]
        seen = result.key, unit.origin.file
        if seen not in held:
            held[seen] = present.changes(keys[result.key], unit) if result.key in keys else ["its key was damaged"]
        if held[seen]:
            stale[result.unit] = held[seen]
        else:
            kept[result.unit] = result
    return kept, {n: why for n, why in stale.items() if n not in kept}


def _to_repeat(units: Mapping[str, Unit], found: Mapping[str, Result], seeds: int, folder: Path) -> dict[str, tuple[str, Unit]]:
    """Audits with fresh seeds of what only one seed has shown, by name: (the unit that has shown it, the audit).

    What several seeds of a subject have shown needs none. Of what follows from another failure only that one is looked at.
    """
    shown: dict[tuple[str, str, str], list[str]] = {}
    for name, result in found.items():
        for audit in result.summary.audits if result.complete and result.exit == FAILED else ():
            for check in audit.checks:
                if check.failed and check.because_of is None:
                    shown.setdefault((result.subject, audit.name, check.id), []).append(name)
    once: dict[str, set[str]] = {}
    for (_, _, check_id), names in shown.items():
        if len(set(names)) == 1:
            once.setdefault(names[0], set()).add(check_id)
    taken = {u.seed for u in units.values()}
    repeats = {}
    for first, ids in once.items():
        fresh = (derived_seed(units[first].seed, "again", str(k)) % 2**31 for k in range(2 * seeds + len(taken)))
        for seed in [s for s in fresh if s not in taken][:seeds]:
            unit = replace(units[first], seed=seed, select=tuple(sorted(ids)), ignore=())
            repeats[unit.name(folder)] = first, unit
    return repeats


def reasons(stale: dict[str, list[str]]) -> list[str]:
    """One line for each thing that changed: how many audits it makes stale."""
    counted = Counter(why for reasons in stale.values() for why in reasons)
    lines = [f"{why}: {n} {'audit is' if n == 1 else 'audits are'} done again" for why, n in counted.most_common(20)]
    return lines + ([f"and {len(counted) - 20} further changes"] if len(counted) > 20 else [])


def summary(results: Iterable[Result | None]) -> str:
    """How many passed, failed, and were not decided, and what rate of failures that leaves possible."""
    found = list(results)
    codes = [r.exit for r in found if r is not None and r.complete]
    named = {"passed": 0, "failed": 1, "inconclusive": 3}
    parts = [f"{codes.count(code)} {name}" for name, code in named.items() if codes.count(code)]
    failed = sum(r is not None and not r.complete and r.exit == 1 for r in found)
    unloaded = sum(r is not None and not r.complete and r.exit == 2 for r in found)
    ended = len(found) - len(codes) - unloaded
    parts += [f"{unloaded} could not be loaded"] if unloaded else []
    parts += [f"{ended} did not come to an end and will be tried again"] if ended else []
    parts += [f"{failed} of these with failed checks"] if failed else []
    n = len({(r.subject, r.summary.content) for r in found if r is not None and r.complete})
    if n and 1 not in codes and not failed:
        of = "" if n == len(codes) else " different results"
        parts.append(f"no failure in {n}{of}: their rate is at most {1 - 0.05 ** (1 / n):.2g} at 95 % confidence")
    return f"{len(found)} audits: {', '.join(parts) or 'nothing to do'}"
