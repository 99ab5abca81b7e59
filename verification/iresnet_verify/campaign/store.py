"""What a campaign has found, in one SQLite file (write-ahead log) in its folder.

One row a result. The verdict of an audit under one key is there at most once, whoever found it, and it is whole: a transaction
is on the disk before `add` returns, or nothing of it is. Every body carries its SHA-256, so a row that was cut or changed is seen,
reported, and audited again; a file that is no database any more is put aside, after every row that can still be read was saved.

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
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from iresnet_verify.campaign.keys import digest

FILE = "results.sqlite"
SCHEMA = 1
TABLES = """
create table if not exists results (
    id integer primary key, unit text not null, key text not null, complete integer not null, subject text not null, seed integer not null,
    exit integer not null, digest text not null, states text not null, body blob not null, unique (unit, key));
create table if not exists keys (key text primary key, body text not null);
create table if not exists claims (unit text primary key, owner text not null);
"""


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
    states: list[tuple[str, list[tuple[str, str, bool, str | None]]]]
    """Of each audited subject its name, and of each check: id, status, whether it was declared to fail, what it follows from."""
    packed: bytes

    @property
    def body(self) -> dict[str, Any]:
        """{"schema", "unit", "spec", "exit", "problem", "report", …}: everything but the key."""
        found: dict[str, Any] = json.loads(zlib.decompress(self.packed))
        return found


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

    def add(self, results: Iterable[tuple[str, str, int, dict[str, Any]]]) -> list[bool]:
        """Store (unit, subject, seed, record) in one transaction; say of each whether it was new. Claims on them end."""
        found = [(_row(unit, subject, seed, record), record["key"]) for unit, subject, seed, record in results]
        new = []
        with _transaction(self.connection):
            for row, key in found:
                self.connection.execute("delete from results where unit = ? and key = ''", row[:1])
                new.append(self.connection.execute(INSERT, row).rowcount == 1)
                if row[1]:
                    self.connection.execute("insert or ignore into keys values (?, ?)", (row[1], json.dumps(key, sort_keys=True)))
                self.connection.execute("delete from claims where unit = ?", row[:1])
        return new

    def remove(self, ids: Iterable[int]) -> None:
        """Forget results."""
        with _transaction(self.connection):
            self.connection.executemany("delete from results where id = ?", [(i,) for i in ids])

    def results(self, units: Iterable[str] | None = None) -> Iterator[Result]:
        """All results, oldest first, or those of some audits. Damaged rows are removed and noted."""
        damaged = []
        wanted = set(units) if units is not None else None
        for (number,) in self.connection.execute("select id from results order by id").fetchall():
            row = self.connection.execute(f"select {COLUMNS} from results where id = ?", (number,)).fetchone()
            if row is None or (wanted is not None and row[0] not in wanted):
                continue
            if _seal(row) != row[-1]:
                damaged.append(number)
                self.notes.append(f"a result of {row[0]} was damaged: it is audited again")
            else:
                yield Result(number, row[0], row[1], bool(row[2]), row[3], row[4], row[5], json.loads(row[6]), row[7])
        if damaged:
            self.remove(damaged)

    def keys(self) -> dict[str, dict[str, dict[str, str]]]:
        """The keys of the results by their digests; one that was damaged is left out."""
        found = {}
        for name, text in self.connection.execute("select key, body from keys"):
            with suppress(ValueError, TypeError):
                key = json.loads(text)
                if digest(key) == name:
                    found[name] = key
        return found

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


COLUMNS = "unit, key, complete, subject, seed, exit, states, body, digest"
INSERT = f"insert or ignore into results ({COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?)"
Row = tuple[str, str, int, str, int, int, str, bytes, str]


def _row(unit: str, subject: str, seed: int, record: dict[str, Any]) -> Row:
    complete = not record["problem"]
    body = {"schema": SCHEMA, "unit": unit, **{k: v for k, v in record.items() if k != "key"}}
    packed = zlib.compress(json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8"), 6)
    row = (unit, digest(record["key"]) if complete else "", int(complete), subject, seed, record["exit"],
           json.dumps(_states(record["report"])), packed, "")
    return (*row[:-1], _seal(row))


def _seal(row: Sequence[object]) -> str:
    """One SHA-256 over all columns of a row but the last, which holds it."""
    total = hashlib.sha256()
    for part in row[:-1]:
        data = part if isinstance(part, bytes) else str(part).encode()
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()


def _states(report: dict[str, Any] | None) -> list[list[Any]]:
    """What tables need without reading the whole result: `Result.states`."""
    audits = [] if report is None else report.get("audits", [report])
    return [[str(a["subject"]["name"]), [[c["id"], c["status"], c["expected"] is not None, c["because_of"]] for c in a["checks"]]]
            for a in audits if "checks" in a]


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

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
