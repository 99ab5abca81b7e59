"""A campaign: audit what has no valid result yet, store every verdict, and say what was done again and why."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from iresnet_verify.campaign.auditor import Record
from iresnet_verify.campaign.engines import UNKNOWN, Results, Task, Trust, on_dask, on_threads, require_trust
from iresnet_verify.campaign.keys import Present
from iresnet_verify.campaign.store import Result, Store, StoreError
from iresnet_verify.campaign.unit import Unit

PATIENCE = 2.0
"""Seconds between two looks at what another campaign on the same folder is doing."""


@dataclass(frozen=True)
class Findings:
    """The result of every unit, in order (None: none was found), and what is worth saying about how they were found."""

    results: list[Result | None]
    notes: list[str]


def run(
    units: Sequence[Unit], folder: Path, *, workers: int = 2, scheduler: str | None = None, fresh: bool = False,
    progress: Callable[[str, Record | None], None] = lambda name, record: None, task: Task | None = None,
    note: Callable[[str], None] = lambda text: None, trust: Trust = UNKNOWN,
) -> Findings:
    """Audit every unit that has no result under the present key; `fresh`: every unit.

    `scheduler` is the address of a Dask scheduler, or "local" for a cluster made for the campaign; None: `workers` threads, each
    with a process of its own that audits. `progress` is told of each unit that has a result now (its record if it was found just
    now), `note` of what is worth saying, at once. Raises `StoreError` where results cannot be kept.
    """
    if scheduler is not None:
        require_trust(scheduler, trust)
    with Store(folder) as store:
        try:
            return _run({u.name(folder): u for u in units}, store, workers, scheduler, fresh, progress, task, note, trust)
        except sqlite3.Error as error:
            raise StoreError(f"{store.path}: expected to store a result, got: {error}; what was stored before is safe: make room and "
                             "run the same command again") from error


def _run(
    units: dict[str, Unit], store: Store, workers: int, scheduler: str | None, fresh: bool,
    progress: Callable[[str, Record | None], None], task: Task | None, note: Callable[[str], None], trust: Trust,
) -> Findings:
    notes: list[str] = []

    def say(texts: Iterable[str]) -> None:
        for text in texts:
            notes.append(text)
            note(text)

    start = max((r.id for r in store.results(units)), default=0) if fresh else 0
    present = Present() if scheduler is None or scheduler == "local" else Present(("files", "package"))
    kept, stale = valid(units, store, present, after=start)
    say(store.notes)
    say([] if fresh else _reasons(stale))
    for name in kept:
        progress(name, None)
    tried: set[str] = set()
    while waiting := [n for n in units if n not in kept and n not in tried]:
        mine = store.claim(waiting)
        if not mine:
            time.sleep(PATIENCE)  # another campaign is at it: wait for its results, or for its end
            theirs, _ = valid({n: units[n] for n in waiting}, store, present, after=start)
            for name in theirs:
                progress(name, None)
            kept |= theirs
            continue
        for found in _results([units[n] for n in waiting if n in mine], store.folder, workers, scheduler, task, trust):
            named = [(u.name(store.folder), u, record) for u, record in found]
            store.add((name, u.spec, u.seed, {"spec": u.spec, "arguments": u.arguments, **record}) for name, u, record in named)
            for name, _, record in named:
                tried.add(name)
                progress(name, record)
    newest: dict[str, Result] = {}
    for result in store.results(units):
        if result.key or result.unit not in kept:
            newest[result.unit] = result
    return Findings([newest.get(n) for n in units], notes)


def valid(units: dict[str, Unit], store: Store, present: Present, after: int = 0) -> tuple[dict[str, Result], dict[str, list[str]]]:
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


def _reasons(stale: dict[str, list[str]]) -> list[str]:
    """One line for each thing that changed: how many audits it makes stale."""
    counted = Counter(why for reasons in stale.values() for why in reasons)
    lines = [f"{why}: {n} {'audit is' if n == 1 else 'audits are'} done again" for why, n in counted.most_common(20)]
    return lines + ([f"and {len(counted) - 20} further changes"] if len(counted) > 20 else [])


def _results(units: Sequence[Unit], folder: Path, workers: int, scheduler: str | None, task: Task | None, trust: Trust) -> Results:
    def out(unit: Unit) -> Path:
        """Where reproductions go: emptied before the audit, so that none is older than the result."""
        place = folder.resolve() / "reproduce" / unit.name(folder)
        shutil.rmtree(place, ignore_errors=True)
        return place

    return on_threads(units, out, workers, task) if scheduler is None else on_dask(units, out, workers, scheduler, task, trust)


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
    n = codes.count(0) + codes.count(3)
    if n and 1 not in codes and not failed:
        parts.append(f"no failure in {n}: their rate is at most {1 - 0.05 ** (1 / n):.2g} at 95 % confidence")
    return f"{len(found)} audits: {', '.join(parts) or 'nothing to do'}"
