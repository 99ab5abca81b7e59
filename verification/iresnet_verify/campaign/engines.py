"""What carries audits out: threads of this process, each with an auditor of its own, or the workers of a Dask cluster.

An engine takes units one at a time and puts (unit, record) into a queue in the order in which they end.
"""

from __future__ import annotations

import importlib
import ipaddress
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from iresnet_backends.errors import BackendUnavailableError
from iresnet_verify.campaign.auditor import Auditor, Record
from iresnet_verify.campaign.unit import Unit
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.workers.pool import share_of_memory

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


def on_dask(
    units: Sequence[Unit], out: Callable[[Unit], Path], workers: int, scheduler: str, task: Task | None, trust: Trust = UNKNOWN,
) -> Results:
    """Yield results as they come from a Dask cluster; `scheduler` is an address, or "local" for one made for this campaign."""
    require_trust(scheduler, trust)
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise BackendUnavailableError('expected Dask for --scheduler, got no `distributed`; try: pip install "iresnet-ref[campaign]"'
                                      ) from error
    local = {"n_workers": workers, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    security = distributed.security.Security(
        tls_ca_file=str(trust.ca), tls_client_cert=str(trust.certificate), tls_client_key=str(trust.key), require_encryption=True,
    ) if trust.ca else None
    with distributed.Client(**local) if scheduler == "local" else distributed.Client(scheduler, security=security) as client:
        futures = {client.submit(task or audited_here, u, out(u), pure=False, retries=2): u for u in units}
        for future in distributed.as_completed(futures):
            try:
                yield [(futures[future], future.result())]
            except Exception as error:
                yield [(futures[future], crashed(error))]


_here = threading.local()


def audited_here(unit: Unit, out: Path) -> Record:
    """Audit in this thread's own auditor, which stays for the next one: what a Dask worker runs."""
    if not hasattr(_here, "auditor"):
        _here.auditor = Auditor(share_of_memory(os.cpu_count() or 1))
    found: Record = _here.auditor(unit, out)
    return found
