"""What carries audits out: threads of this process, each with an auditor of its own, or the workers of a Dask cluster.

Results are given out in the order in which they come, all that are there at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue

from iresnet_verify.campaign.auditor import Auditor, Task, crashed
from iresnet_verify.campaign.cluster import on_cluster
from iresnet_verify.campaign.packed import Packed, Results, pack
from iresnet_verify.campaign.trust import UNTOLD, Trust
from iresnet_verify.campaign.unit import Unit
from iresnet_verify.workers.pool import share_of_memory


def on_threads(units: Sequence[Unit], out: Callable[[Unit], Path], workers: int, task: Task | None) -> Results:
    """Yield results as they come, all that are there at once. What runs is ended when the generator is closed."""
    waiting, done = Queue[Unit](), Queue[tuple[Unit, Packed]]()
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
                done.put((unit, pack(unit, (task or auditor)(unit, out(unit)))))
            except BaseException as error:
                done.put((unit, pack(unit, crashed(error))))

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


def _available(done: Queue[tuple[Unit, Packed]]) -> list[tuple[Unit, Packed]]:
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
class Engine:
    """What carries audits out."""

    workers: int = 2
    """Audits at a time on this machine."""
    scheduler: str | None = None
    """The address of a Dask scheduler, or "local" for a cluster made for the campaign; None: `workers` threads of this process, each
    with a process of its own that audits."""
    trust: Trust = UNTOLD
    resources: Mapping[str, float] = field(default_factory=dict)
    """What a worker of the cluster must offer, e.g. {"GPU": 1}: Dask's own resources."""

    def results(
        self, units: Sequence[Unit], out: Callable[[Unit], Path], task: Task | None, note: Callable[[str], None] = lambda text: None
    ) -> Results:
        """Yield results as they come; `out`: where the reproductions of an audit go; `note` is told of what is worth saying."""
        if self.scheduler is None:
            return on_threads(units, out, self.workers, task)
        return on_cluster(units, out, task, scheduler=self.scheduler, workers=self.workers, trust=self.trust, resources=self.resources,
                          note=note)


LOCAL = Engine()
