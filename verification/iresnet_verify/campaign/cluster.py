"""Audits on the workers of a Dask cluster, in batches (`batches`).

What a lost worker had is done by another one, as often as Dask allows (`allowed-failures`); a batch that was lost so often is done
audit by audit, so that one that takes its worker along costs no other. A result arrives with its whole batch or not at all: none is lost,
none comes twice. Workers that do not see this disk get the subjects' code (`shipping`).
"""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iresnet_backends.errors import BackendUnavailableError
from iresnet_verify.campaign.auditor import TRIES, Auditor, Record, Task, crashed
from iresnet_verify.campaign.batches import Batches
from iresnet_verify.campaign.keys import Present
from iresnet_verify.campaign.packed import Packed, Results, pack
from iresnet_verify.campaign.shipping import Archive, Unpacked, visible
from iresnet_verify.campaign.trust import Trust, require_trust
from iresnet_verify.campaign.unit import Unit
from iresnet_verify.workers.pool import share_of_memory

IN_LINE = 2
"""Batches handed out for each worker: one that it does, and the next."""
LONELY = 30.0
"""Seconds between two looks at whether there is a worker at all."""


NO_DASHBOARD: Mapping[str, Any] = {"dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}}
"""Dask listens for HTTP even so: on a free port of this machine alone. Without an address it wants port 8787, and warns if it is taken."""


class LostSchedulerError(RuntimeError):
    """The scheduler went away in the middle of a campaign."""


@dataclass(frozen=True)
class Answer:
    """What a worker says of one audit."""

    worker: str
    seconds: float = 0.0
    packed: Packed | None = None
    """None: the worker does not see the disk, and needs the code."""
    written: Mapping[str, bytes] = field(default_factory=dict)
    """Reproductions, by their path in the folder of the audit's own."""


def on_cluster(
    units: Sequence[Unit], out: Callable[[Unit], Path], task: Task | None, *, scheduler: str, workers: int, trust: Trust,
    resources: Mapping[str, float], note: Callable[[str], None] = lambda text: None,
) -> Results:
    """Yield results as they come; `workers`: of a cluster made for the campaign ("local"); `note` is told that there is no worker."""
    require_trust(scheduler, trust)
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise BackendUnavailableError('expected Dask for --scheduler, got no `distributed`; try: pip install "iresnet-ref[campaign]"'
                                      ) from error
    local = {"n_workers": workers, "threads_per_worker": 1, "processes": False, **NO_DASHBOARD}
    security = distributed.security.Security(
        tls_ca_file=str(trust.ca), tls_client_cert=str(trust.certificate), tls_client_key=str(trust.key), require_encryption=True,
    ) if trust.ca else None
    with _quiet(), (distributed.Client(**local) if scheduler == "local" else
                    distributed.Client(scheduler, security=security)) as client, _watched(client, note):
        yield from _Handing(client, distributed, units, out, task, resources).results()


class _Handing:
    """Hands batches to a client and takes results."""

    def __init__(
        self, client: Any, distributed: Any, units: Sequence[Unit], out: Callable[[Unit], Path], task: Task | None,
        resources: Mapping[str, float],
    ) -> None:
        self.client, self.out, self.task = client, out, task
        self.batches = Batches(units)
        self.options = {"pure": False, "retries": TRIES - 1, "resources": dict(resources) or None}
        self.completed = distributed.as_completed((), with_results=True, raise_errors=False)  # results come together, not a call each
        self.futures: dict[Any, list[tuple[Unit, Path]]] = {}
        self.archives: dict[Path, Any] = {}
        self.present = Present(("files", "package"))
        self.seen = {str(w): n for w, n in client.nthreads().items()}
        self.answered: set[str] = set()
        there = client.run(visible, units[0], out(units[0])) if task is None and units else {}
        self.ship = not all(there.values())

    def results(self) -> Results:
        self.fill()
        while self.futures:
            found: list[tuple[Unit, Packed]] = []
            for future, result in self.completed.next_batch(block=True):
                found += self.taken(self.futures.pop(future), future.status, result)
            self.fill()
            if found:
                yield found

    def fill(self) -> None:
        workers = max(1, sum(self.seen.values()), len(self.answered))
        while self.batches.left and len(self.futures) < IN_LINE * workers:
            self.submit([(unit, self.out(unit)) for unit in self.batches.take(workers)], self.ship)

    def submit(self, batch: list[tuple[Unit, Path]], ship: bool) -> None:
        archive = self.archived(Path(batch[0][0].origin.file).parent) if ship and self.task is None else None
        future = self.client.submit(audited_there, batch, archive, self.task, **self.options)
        self.futures[future] = batch
        self.completed.add(future)

    def archived(self, folder: Path) -> Any:
        if folder not in self.archives:
            self.archives[folder] = self.client.scatter(Archive.of(folder), hash=False)
        return self.archives[folder]

    def taken(self, batch: list[tuple[Unit, Path]], status: str, result: Any) -> Iterator[tuple[Unit, Packed]]:
        """The results of a batch that has ended; what is to be done once more is submitted."""
        if status == "cancelled":
            raise LostSchedulerError("expected a Dask scheduler, got no connection to it any more; what was found is stored: start a "
                                     "scheduler and run the same command again")
        if status != "finished":
            if len(batch) > 1:
                for one in batch:
                    self.submit([one], self.ship)
            else:
                yield batch[0][0], pack(batch[0][0], crashed(result[1]))
            return
        answers: list[Answer] = result
        self.answered.update(a.worker for a in answers)
        lacking = [one for one, answer in zip(batch, answers, strict=True) if answer.packed is None]
        if lacking:
            self.submit(lacking, True)
        for (unit, place), answer in zip(batch, answers, strict=True):
            if answer.packed is not None:
                self.batches.learn(unit, answer.seconds)
                yield unit, answer.packed if self.task is not None else accepted(answer.packed, answer.written, unit, place, self.present)


def accepted(packed: Packed, written: Mapping[str, bytes], unit: Unit, out: Path, present: Present) -> Packed:
    """Write the reproductions that came with a result, and reject what was found with other code than is here."""
    for name, text in written.items():
        target = (out / name).resolve()
        if target.is_relative_to(out.resolve()):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text)
    other = [] if packed.problem else present.changes(packed.key, unit)
    return packed.rejected(f"the worker had other code than this machine: {', '.join(other[:3])}") if other else packed


@contextmanager
def _watched(client: Any, note: Callable[[str], None]) -> Iterator[None]:
    """Say it where there is no worker: a campaign waits for one, as clusters start theirs when they are asked for."""
    over = threading.Event()

    def watch() -> None:
        alone = False
        while not over.wait(LONELY):
            with suppress(Exception):  # a scheduler that is gone is told of by the results
                alone, before = not client.nthreads(), alone
                if alone and not before:
                    note("no worker is connected to the scheduler: waiting for one; Ctrl-C keeps what is done")

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask logs a lost connection as a traceback; here it is one error, in words."""
    loggers = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if name.partition(".")[0] == "distributed"]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


# -- on the worker


class _Here(threading.local):
    """What a thread of a Dask worker keeps for the next audit."""

    def __init__(self) -> None:
        self.name = uuid.uuid4().hex
        self.auditor = Auditor(share_of_memory(os.cpu_count() or 1))
        self.unpacked = Unpacked()


_here = _Here()


def audited_there(batch: Sequence[tuple[Unit, Path]], archive: Archive | None, task: Task | None) -> list[Answer]:
    """Audit one after another: what a Dask worker runs."""
    return [_answer(unit, out, archive, task) for unit, out in batch]


def _answer(unit: Unit, out: Path, archive: Archive | None, task: Task | None) -> Answer:
    started = time.perf_counter()
    written: Mapping[str, bytes] = {}
    try:
        if task is not None or visible(unit, out):
            record = (task or _here.auditor)(unit, out)
        elif archive is None:
            return Answer(_here.name)
        else:
            record, written = _unpacked(unit, out, archive)
        packed = pack(unit, record)
    except Exception as error:
        packed = pack(unit, crashed(error))
    return Answer(_here.name, time.perf_counter() - started, packed, written)


def _unpacked(unit: Unit, out: Path, archive: Archive) -> tuple[Record, Mapping[str, bytes]]:
    """Audit from the archive, in this thread's own auditor, which stays for the next one."""
    there, place = _here.unpacked.place(archive, unit, out)
    shutil.rmtree(place, ignore_errors=True)
    found = _here.auditor(there, place)
    return _moved(found, str(place), str(out)), {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def _moved(value: Any, old: str, new: str) -> Any:
    """A record whose paths of reproductions are where they will lie."""
    if isinstance(value, dict):
        return {k: v.replace(old, new, 1) if k == "reproduce" and isinstance(v, str) else _moved(v, old, new) for k, v in value.items()}
    return [_moved(v, old, new) for v in value] if isinstance(value, list) else value
