"""A run of a campaign as a table, one row a check, for other programs: CSV, Parquet; or its whole reports as JSON."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iresnet_backends.errors import BackendUnavailableError
from iresnet_verify.campaign.store import Member, Store
from iresnet_verify.subject.errors import SubjectError

COLUMNS = ("run", "subject", "name", "seed", "repeats", "complete", "exit", "check", "status", "declared", "because_of", "size", "e_value",
           "unit", "key")
BATCH = 50_000
"""Rows of one group of a Parquet file."""


def write(store: Store, run: int, path: Path) -> int:
    """Write a run to a file whose ending says the form; return the number of rows (of reports in JSON).

    Raises `SubjectError` for another ending, `BackendUnavailableError` where pyarrow is missing.
    """
    writers = {".csv": _csv, ".parquet": _parquet, ".json": _json}
    if path.suffix not in writers:
        raise SubjectError(f"{path}: expected a file ending in {', '.join(writers)}, got {path.suffix or 'no ending'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return writers[path.suffix](store, run, path)


def rows(store: Store, run: int) -> Iterator[tuple[Any, ...]]:
    """One row for each check of each audit, in the order of `COLUMNS`; an audit without a report has one row with empty checks."""
    label = next(r.label for r in store.runs() if r.id == run)
    for member in store.members(run):
        yield from _rows_of(label, member)


def _rows_of(label: str, m: Member) -> Iterator[tuple[Any, ...]]:
    r = m.result
    before = (label, r.subject)
    about = (r.seed, m.repeats, r.complete, r.exit)
    for audit in r.summary.audits:
        for c in audit.checks:
            yield (*before, audit.name, *about, c.id, c.status, c.declared, c.because_of, c.size, c.e_value, m.unit, r.key)
    if not r.summary.audits:
        yield (*before, "", *about, *[None] * 6, m.unit, r.key)


def _csv(store: Store, run: int, path: Path) -> int:
    n = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for n, row in enumerate(rows(store, run), 1):  # noqa: B007
            writer.writerow(row)
    return n


def _parquet(store: Store, run: int, path: Path) -> int:
    try:
        arrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise BackendUnavailableError(f'{path}: expected pyarrow for Parquet, got none; try: pip install "iresnet-ref[parquet]", or export '
                                      "to a .csv file") from error
    text, whole, number, truth = arrow.string(), arrow.int64(), arrow.float64(), arrow.bool_()
    kinds = {"seed": whole, "exit": whole, "complete": truth, "declared": truth, "size": number, "e_value": number}
    schema = arrow.schema([(name, kinds.get(name, text)) for name in COLUMNS])
    n, waiting = 0, []
    with parquet.ParquetWriter(path, schema) as writer:
        for row in rows(store, run):
            waiting.append(row)
            if len(waiting) == BATCH:
                n += _group(arrow, writer, schema, waiting)
        return n + _group(arrow, writer, schema, waiting)


def _group(arrow: Any, writer: Any, schema: Any, waiting: list[tuple[Any, ...]]) -> int:
    """Write what waits, and forget it."""
    columns = zip(*waiting, strict=True) if waiting else [()] * len(COLUMNS)
    arrays = [arrow.array(c, type=f.type) for c, f in zip(columns, schema, strict=True)]
    writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))
    n = len(waiting)
    waiting.clear()
    return n


def _json(store: Store, run: int, path: Path) -> int:
    """Reports of schema 1, as `audit --json` writes several of them: audits that came to none are left out."""
    n = 0
    with path.open("w", encoding="utf-8") as file:
        file.write('{"schema": 1, "audits": [')
        for member in store.members(run):
            report = member.result.body["report"] or {"audits": []}
            for audit in report.get("audits", [report]):
                file.write((",\n" if n else "\n") + json.dumps(audit, ensure_ascii=False, allow_nan=False))
                n += 1
        file.write("\n]}\n")
    return n
