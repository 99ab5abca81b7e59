"""What a campaign has found, in one SQLite file (write-ahead log) in its folder.

One row a result. The verdict of an audit under one key is there at most once, whoever found it, and it is whole: a transaction
is on the disk before `add` returns, or nothing of it is. Every body carries its SHA-256, so a row that was cut or changed is seen,
reported, and audited again; a file that is no database any more is put aside, after every row that can still be read was saved.

A *run* is one execution of a campaign: its label, when it began, and which result each of its audits has; so that later versions of the
code can be compared with earlier ones. Runs are tables of names only: what they say of a result is read from the result.

An audit that came to no verdict leaves one row that says why (`key` is then empty); it is replaced by the next try.

Two campaigns on one folder share the work: each audit is claimed before it runs, and a claim holds while the process that made it
holds its lock on a file (the system lets go of it when the process dies, whatever the clock says). The folder must be on a disk of this
machine: neither the log nor the locks work on network file systems everywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from iresnet_verify.campaign.keys import digest
from iresnet_verify.campaign.packed import SCHEMA, Packed, Summary, read_summary, unpacked

FILE = "results.sqlite"
TABLES = """
create table if not exists results (
    id integer primary key, unit text not null, key text not null, complete integer not null, subject text not null, seed integer not null,
    exit integer not null, digest text not null, summary text not null, body blob not null, unique (unit, key));
create table if not exists keys (key text primary key, body text not null);
create table if not exists claims (unit text primary key, owner text not null);
create table if not exists runs (id integer primary key, label text not null, began text not null, plan text not null);
create table if not exists members (
    run integer not null, unit text not null, result integer not null, repeats text not null, primary key (run, unit)) without rowid;
"""


class Run(NamedTuple):
    """One execution of a campaign."""

    id: int
    label: str
    began: str
    """When, in UTC; for people: nothing is decided by a clock."""
    planned: int


class Member(NamedTuple):
    """One audit of a run."""

    unit: str
    result: Result
    repeats: str
    """The audit whose failure this one looks at again with another seed; empty for an audit of the campaign itself."""


class StoreError(RuntimeError):
    """The folder of a campaign cannot be used: what was expected, what is there, what to try."""


@dataclass(frozen=True)
class Result:
    """One stored result."""

    id: int
    unit: str
    key: str
    """Digest of its key; empty where the audit came to no verdict."""
    complete: bool
    subject: str
    seed: int
    exit: int
    summed: str
    packed: bytes

    @cached_property
    def summary(self) -> Summary:
        """What tables need, without reading the whole result."""
        return read_summary(self.summed)

    @property
    def body(self) -> dict[str, Any]:
        """{"schema", "unit", "spec", "exit", "problem", "report", …}: everything but the key."""
        return unpacked(self.packed)


class Store:
    """The results of one campaign. A context manager: open it in one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[str] = []
        """What was damaged, in words."""
        self.owner = uuid.uuid4().hex
        self._lock: IO[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        self.connection = self._open()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file and give up all claims."""
        self.close()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise StoreError(f"{self.path}: expected a file to write results to, got: {error}; make room, or choose another folder"
                                 ) from error
            return self._salvage()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
        connection.text_factory = lambda text: text.decode("utf-8", "replace")  # what is damaged is seen by its seal, not by an error
        try:
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = full")
            connection.executescript(TABLES)
            (version,) = connection.execute("pragma user_version").fetchone()
            if version not in (0, SCHEMA):
                raise StoreError(f"{self.path}: expected schema {SCHEMA}, got {version}; it was written by another version of iresnet-ref")
            if version == 0:
                connection.execute(f"pragma user_version = {SCHEMA}")
            (check,) = connection.execute("pragma quick_check(1)").fetchone()
            if check != "ok":
                raise sqlite3.DatabaseError(check)
        except BaseException:
            connection.close()
            raise
        return connection

    def _salvage(self) -> sqlite3.Connection:
        """Put a damaged file aside and keep every row of it that can be read."""
        number = next(n for n in range(1, 10**6) if not self.folder.joinpath(f"{FILE}.damaged-{n}").exists())
        aside = self.folder / f"{FILE}.damaged-{number}"
        for end in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                self.path.with_name(FILE + end).rename(aside.with_name(aside.name + end))
        connection = self._connect()
        kept = 0
        with suppress(sqlite3.DatabaseError):
            old = sqlite3.connect(aside, isolation_level=None)
            with suppress(sqlite3.DatabaseError):
                for row in _readable(old):
                    kept += connection.execute(INSERT, row).rowcount
                connection.executemany("insert or ignore into keys values (?, ?)", old.execute("select key, body from keys").fetchall())
            old.close()
        self.notes.append(f"{self.path} was damaged: {kept} results were saved from it, the rest is audited again; it is kept as "
                          f"{aside.name}")
        return connection

    # -- results

    def add(
        self, results: Iterable[tuple[str, str, int, Packed]], run: int | None = None, repeats: Mapping[str, str] | None = None,
        *, anew: bool = False,
    ) -> list[int]:
        """Store (unit, subject, seed, what was found) in one transaction, as results of a run; return their ids. Claims on them end.

        `repeats`: of an audit the one whose failure it looks at again. A verdict that is there under the same key stays; `anew`: it is
        replaced, in earlier runs as well, and noted where the new one is another.
        """
        found = [(_row(unit, subject, seed, packed), packed.key) for unit, subject, seed, packed in results]
        ids = []
        with _transaction(self.connection):
            for row, key in found:
                self.connection.execute("delete from results where unit = ? and key = ''", row[:1])
                old = self.connection.execute("select id, exit from results where unit = ? and key = ?", row[:2]).fetchone()
                ids.append(int(old[0] if old and not anew else self.connection.execute(REPLACE, row).lastrowid or 0))
                if old and anew:
                    self.connection.execute("update members set result = ? where result = ?", (ids[-1], old[0]))
                    self.notes += [f"{row[0]}: another verdict than before with the same code; what it depends on is not in its key, "
                                   "or it does not repeat"] if old[1] != row[5] else []
                if row[1]:
                    self.connection.execute("replace into keys values (?, ?)", (row[1], json.dumps(key, sort_keys=True)))
                self.connection.execute("delete from claims where unit = ?", row[:1])
                if run is not None:
                    member = (run, row[0], ids[-1], (repeats or {}).get(row[0], ""))
                    self.connection.execute("insert or replace into members values (?, ?, ?, ?)", member)
        return ids

    def remove(self, ids: Iterable[int]) -> None:
        """Forget results."""
        with _transaction(self.connection):
            self.connection.executemany("delete from results where id = ?", [(i,) for i in ids])

    def results(self, units: Iterable[str] | None = None) -> Iterator[Result]:
        """All results, oldest first, or those of some audits in their order. Damaged rows are removed and noted."""
        damaged = []
        names = self.connection.execute("select id, unit from results order by id").fetchall()
        place = None if units is None else {unit: k for k, unit in enumerate(units)}
        if place is not None:
            names = sorted((n for n in names if n[1] in place), key=lambda n: place[n[1]])
        for number, _ in names:
            row = self.connection.execute(f"select {COLUMNS} from results where id = ?", (number,)).fetchone()
            if row is None:
                continue
            if _seal(row) != row[-1]:
                damaged.append(number)
                self.notes.append(f"a result of {row[0]} was damaged: it is audited again")
            else:
                yield _result(number, row)
        if damaged:
            self.remove(damaged)

    def result(self, number: int) -> Result:
        """One result by its id."""
        row = self.connection.execute(f"select {COLUMNS} from results where id = ?", (number,)).fetchone()
        return _result(number, row)

    def keys(self) -> dict[str, dict[str, dict[str, str]]]:
        """The keys of the results by their digests; one that was damaged is left out."""
        found = {}
        for name, text in self.connection.execute("select key, body from keys"):
            with suppress(ValueError, TypeError):
                key = json.loads(text)
                if digest(key) == name:
                    found[name] = key
        return found

    # -- runs

    def begin(self, units: Sequence[str], label: str, began: str, *, anew: bool = False) -> int:
        """Begin a run of these audits, or go on with the last one where it has the same label and plan and was not ended."""
        plan = json.dumps(sorted(units))
        with _transaction(self.connection):
            last = self.connection.execute("select id, label, plan from runs order by id desc limit 1").fetchone()
            if last and not anew and (last[1] == label or not label) and last[2] == plan and not self._ended(last[0], len(units)):
                return int(last[0])
            values = (label or began, began, plan)
            return int(self.connection.execute("insert into runs (label, began, plan) values (?, ?, ?)", values).lastrowid or 0)

    def _ended(self, run: int, planned: int) -> bool:
        query = ("select count(*) from members join results on results.id = members.result "
                 "where run = ? and repeats = '' and complete = 1")
        return bool(self.connection.execute(query, (run,)).fetchone()[0] >= planned)

    def enter(self, run: int, members: Iterable[tuple[str, int, str]]) -> None:
        """Say which results belong to a run: (audit, id of its result, the audit that it repeats or "")."""
        with _transaction(self.connection):
            self.connection.executemany("insert or replace into members values (?, ?, ?, ?)", [(run, *m) for m in members])

    def forget_if_unchanged(self, run: int) -> bool:
        """Forget a run that has the very results of the one before: nothing was done. Say whether that was so."""
        with _transaction(self.connection):
            before = self.connection.execute("select max(id) from runs where id < ?", (run,)).fetchone()[0]
            found = [self.connection.execute("select unit, result from members where run = ? order by unit", (r,)).fetchall()
                     for r in (before, run)]
            if before is None or found[0] != found[1]:
                return False
            for table, column in (("members", "run"), ("runs", "id")):
                self.connection.execute(f"delete from {table} where {column} = ?", (run,))
        return True

    def runs(self) -> list[Run]:
        """All runs, oldest first."""
        rows = self.connection.execute("select id, label, began, plan from runs order by id").fetchall()
        return [Run(i, label, began, _planned(plan)) for i, label, began, plan in rows]

    def failures(self, run: int) -> tuple[int, int]:
        """How many of a run's verdicts are failures, and how many there are; those of a subject with the same content count once."""
        query = ("select coalesce(sum(exit = 1), 0), count(*) from (select distinct subject, exit, json_extract(summary, '$[1]') "
                 "from members join results on results.id = members.result where run = ? and repeats = '' and complete = 1)")
        failed, verdicts = self.connection.execute(query, (run,)).fetchone()
        return int(failed), int(verdicts)

    def members(self, run: int) -> Iterator[Member]:
        """The audits of a run that have a result, in the order of their names."""
        rows = self.connection.execute("select unit, result, repeats from members where run = ? order by unit", (run,)).fetchall()
        of = {result: (unit, repeats) for unit, result, repeats in rows}
        for result in self.results(unit for unit, _, _ in rows):
            if result.id in of and of[result.id][0] == result.unit:
                yield Member(result.unit, result, of[result.id][1])

    # -- claims

    def claim(self, units: Sequence[str]) -> set[str]:
        """Claim audits that nobody else who is alive has claimed; return those that are now this process's."""
        self._hold()
        mine = set()
        with _transaction(self.connection):
            owners = dict(self.connection.execute("select unit, owner from claims"))
            alive = {o: o == self.owner or self._alive(o) for o in set(owners.values())}
            for unit in units:
                if not alive.get(owners.get(unit, ""), False):
                    self.connection.execute("insert or replace into claims values (?, ?)", (unit, self.owner))
                    mine.add(unit)
                elif owners[unit] == self.owner:
                    mine.add(unit)
        return mine

    def _hold(self) -> None:
        if self._lock is None:
            self._lock = (self.folder / f".{self.owner}.lock").open("wb")
            _lock(self._lock)

    def _alive(self, owner: str) -> bool:
        path = self.folder / f".{owner}.lock"
        try:
            with path.open("r+b") as file:
                _lock(file)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        path.unlink(missing_ok=True)
        return False

    def close(self) -> None:
        """Give up all claims and close the file."""
        with suppress(sqlite3.Error):
            if self._lock is not None:
                self.connection.execute("delete from claims where owner = ?", (self.owner,))
        self.connection.close()
        if self._lock is not None:
            self._lock.close()
            (self.folder / f".{self.owner}.lock").unlink(missing_ok=True)
            self._lock = None


COLUMNS = "unit, key, complete, subject, seed, exit, summary, body, digest"
REPLACE = f"replace into results ({COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?)"
INSERT = f"insert or ignore into results ({COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?)"
Row = tuple[str, str, int, str, int, int, str, bytes, str]


def _row(unit: str, subject: str, seed: int, packed: Packed) -> Row:
    complete = not packed.problem
    row = (unit, digest(packed.key) if complete else "", int(complete), subject, seed, packed.exit, packed.summary, packed.body, "")
    return (*row[:-1], _seal(row))


def _seal(row: Sequence[object]) -> str:
    """One SHA-256 over all columns of a row but the last, which holds it."""
    total = hashlib.sha256()
    for part in row[:-1]:
        data = part if isinstance(part, bytes) else str(part).encode()
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()


def _result(number: int, row: Row) -> Result:
    return Result(number, row[0], row[1], bool(row[2]), row[3], row[4], row[5], row[6], row[7])


def _planned(plan: str) -> int:
    """How many audits a plan names; 0 where it was damaged."""
    try:
        return len(json.loads(plan))
    except ValueError:
        return 0


def _readable(old: sqlite3.Connection) -> Iterator[Row]:
    """The rows of a damaged file that are whole, one at a time: a bad page costs the rows on it."""
    (last,) = old.execute("select max(id) from results").fetchone()
    for number in range(1, (last or 0) + 1):
        with suppress(sqlite3.DatabaseError):
            row = old.execute(f"select {COLUMNS} from results where id = ?", (number,)).fetchone()
            if row is not None and _seal(row) == row[-1]:
                yield row


class _transaction:  # noqa: N801  read as a word after `with`
    """A transaction that takes the lock for writing at its start; it is taken back if anything goes wrong."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def __enter__(self) -> None:
        self.connection.execute("begin immediate")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.connection.execute("commit")
        else:
            with suppress(sqlite3.Error):
                self.connection.execute("rollback")


def _lock(file: IO[bytes]) -> None:
    """Lock a file or raise OSError; the system unlocks it when the process ends."""
    if os.name == "posix":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]  # on Windows only
