"""What carries audits out: threads of this process, each with an auditor of its own, or the workers of a Dask cluster.

Results are given out in the order in which they come, all that are there at once.
"""

from __future__ import annotations

import importlib
import ipaddress
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from iresnet_backends.errors import BackendUnavailableError
from iresnet_verify.campaign.auditor import TRIES, Auditor, Record
from iresnet_verify.campaign.keys import Present
from iresnet_verify.campaign.shipping import Archive, Unpacked, visible
from iresnet_verify.campaign.unit import Unit
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.workers.pool import share_of_memory


class LostSchedulerError(RuntimeError):
    """The scheduler went away in the middle of a campaign."""


Task = Callable[[Unit, Path], Record]
Results = Iterator[list[tuple[Unit, Record]]]


def crashed(error: BaseException) -> Record:
    """The record of an audit that was lost with what carried it out."""
    return {"exit": 4, "problem": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", "report": None, "key": {}}


def on_threads(units: Sequence[Unit], out: Callable[[Unit], Path], workers: int, task: Task | None) -> Results:
    """Yield results as they come, all that are there at once. What runs is ended when the generator is closed."""
    waiting, done = Queue[Unit](), Queue[tuple[Unit, Record]]()
    for unit in units:
        waiting.put(unit)
    memory = share_of_memory(workers)
    auditors = [Auditor(memory) for _ in range(max(1, min(workers, len(units))))]
    stopped = threading.Event()

    def work(auditor: Auditor) -> None:
        while not stopped.is_set():
            try:
                unit = waiting.get_nowait()
            except Empty:
                return
            try:
                done.put((unit, (task or auditor)(unit, out(unit))))
            except BaseException as error:
                done.put((unit, crashed(error)))

    threads = [threading.Thread(target=work, args=(a,), daemon=True) for a in auditors]
    try:
        for thread in threads:
            thread.start()
        left = len(units)
        while left:
            found = _available(done)
            left -= len(found)
            yield found
    finally:
        stopped.set()
        for auditor in auditors:
            auditor.close()


def _available(done: Queue[tuple[Unit, Record]]) -> list[tuple[Unit, Record]]:
    """Wait for one, and take what else is there."""
    while True:
        try:
            found = [done.get(timeout=0.5)]
            break
        except Empty:
            continue  # the wait is cut into pieces so that an interruption is seen
    try:
        while True:
            found.append(done.get_nowait())
    except Empty:
        return found


@dataclass(frozen=True)
class Trust:
    """How a scheduler is trusted: by certificates (all three, as files), or because the user says so."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    insecure: bool = False


UNKNOWN = Trust()


def require_trust(scheduler: str, trust: Trust) -> None:
    """Refuse what nobody has vouched for: whoever answers there runs code on the workers and here.

    Raises `SubjectError` for a scheduler on another machine that is not reached by TLS, unless `trust.insecure`, and for TLS without
    its three files.
    """
    files = (trust.ca, trust.certificate, trust.key)
    if any(files) != all(files) or (scheduler.startswith("tls://") and not all(files)):
        raise SubjectError(f"--scheduler {scheduler}: expected --tls-ca, --tls-cert and --tls-key together for TLS; give all three")
    if all(files) and not scheduler.startswith("tls://"):
        raise SubjectError(f"--scheduler {scheduler}: expected an address tls://HOST:PORT with certificates; correct the address")
    protocol, _, rest = scheduler.rpartition("://")
    host = rest.rpartition(":")[0].strip("[]") or rest
    local = scheduler == "local" or protocol in ("inproc", "unix") or _is_loopback(host)
    if not (local or all(files) or trust.insecure):
        raise SubjectError(
            f"--scheduler {scheduler}: expected TLS for a scheduler that is not on this machine, got plain {protocol or 'tcp'}: anyone "
            "on the way could run code; use tls:// with certificates, or --insecure where the network itself is trusted")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Engine:
    """What carries audits out."""

    workers: int = 2
    """Audits at a time on this machine."""
    scheduler: str | None = None
    """The address of a Dask scheduler, or "local" for a cluster made for the campaign; None: `workers` threads of this process, each
    with a process of its own that audits."""
    trust: Trust = UNKNOWN
    resources: Mapping[str, float] = field(default_factory=dict)
    """What a worker of the cluster must offer, e.g. {"GPU": 1}: Dask's own resources."""

    def results(self, units: Sequence[Unit], out: Callable[[Unit], Path], task: Task | None) -> Results:
        """Yield results as they come; `out`: where the reproductions of an audit go."""
        return on_threads(units, out, self.workers, task) if self.scheduler is None else _on_dask(units, out, self, task)


LOCAL = Engine()


def _on_dask(units: Sequence[Unit], out: Callable[[Unit], Path], engine: Engine, task: Task | None) -> Results:
    """Yield results as they come from a cluster. Workers that do not see this disk get the subjects' code (`shipping`).

    A lost worker's audits are done by another one, three times in all.
    """
    require_trust(engine.scheduler or "", engine.trust)
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise BackendUnavailableError('expected Dask for --scheduler, got no `distributed`; try: pip install "iresnet-ref[campaign]"'
                                      ) from error
    local = {"n_workers": engine.workers, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    trust = engine.trust
    security = distributed.security.Security(
        tls_ca_file=str(trust.ca), tls_client_cert=str(trust.certificate), tls_client_key=str(trust.key), require_encryption=True,
    ) if trust.ca else None
    with _quiet(), (distributed.Client(**local) if engine.scheduler == "local" else
                    distributed.Client(engine.scheduler, security=security)) as client:
        options = {"pure": False, "retries": TRIES - 1, "resources": dict(engine.resources) or None}
        archives: dict[Path, Any] = {}

        def archived(unit: Unit) -> Any:
            folder = Path(unit.origin.file).parent
            if folder not in archives:
                archives[folder] = client.scatter(Archive.of(folder), hash=False)
            return archives[folder]

        def submitted(unit: Unit, ship: bool) -> Any:
            if task is not None:
                return client.submit(task, unit, out(unit), **options)
            return client.submit(audited_here, unit, out(unit), archived(unit) if ship else None, **options)

        there = client.run(visible, units[0], out(units[0])) if task is None and units else {}
        ship = not all(there.values())
        present = Present(("files", "package"))
        futures = {submitted(u, ship): u for u in units}
        completed = distributed.as_completed(futures, with_results=True, raise_errors=False)  # results come together, not one call each
        for batch in completed.batches():
            found = []
            for future, result in batch:
                unit = futures.pop(future)
                record = _record(future.status, result)
                if record.get("lacking"):
                    again = submitted(unit, True)
                    futures[again] = unit
                    completed.add(again)
                    continue
                if task is None:
                    _take(record, unit, out(unit), present)
                found.append((unit, record))
            if found:
                yield found


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


def _record(status: str, result: Any) -> Record:
    if status == "cancelled":
        raise LostSchedulerError("expected a Dask scheduler, got no connection to it any more; what was found is stored: start a "
                                 "scheduler and run the same command again")
    record: Record = result if status == "finished" else crashed(result[1])
    return record


def _take(record: Record, unit: Unit, out: Path, present: Present) -> None:
    """Write the reproductions that came with a record, and reject what was found with other code than is here."""
    for name, text in record.pop("written", {}).items():
        target = (out / name).resolve()
        if target.is_relative_to(out.resolve()):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text)
    if not record["problem"] and (other := present.changes(record["key"], unit)):
        record["problem"] = f"the worker had other code than this machine: {', '.join(other[:3])}"


class _Here(threading.local):
    """What a thread of a Dask worker keeps for the next audit."""

    def __init__(self) -> None:
        self.auditor = Auditor(share_of_memory(os.cpu_count() or 1))
        self.unpacked = Unpacked()


_here = _Here()


def audited_here(unit: Unit, out: Path, archive: Archive | None = None) -> Record:
    """Audit in this thread's own auditor, which stays for the next one: what a Dask worker runs.

    Where the campaign's disk is not seen and no archive came, the record is {"lacking": True}.
    """
    if visible(unit, out):
        return _here.auditor(unit, out)
    if archive is None:
        return {"lacking": True}
    there, place = _here.unpacked.place(archive, unit, out)
    shutil.rmtree(place, ignore_errors=True)
    found = _here.auditor(there, place)
    found["written"] = {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()}
    return _moved(found, str(place), str(out))


def _moved(value: Any, old: str, new: str) -> Any:
    """A record whose paths of reproductions are where they will lie."""
    if isinstance(value, dict):
        return {k: v.replace(old, new, 1) if k == "reproduce" and isinstance(v, str) else _moved(v, old, new) for k, v in value.items()}
    return [_moved(v, old, new) for v in value] if isinstance(value, list) else value
