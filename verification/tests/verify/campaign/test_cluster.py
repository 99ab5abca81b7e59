"""Batches keep client and scheduler from being the bottleneck, and whatever becomes of a worker, every audit has one result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from subjects.campaigns import answer, project, stored, units

from iresnet_verify.campaign import cluster as clusters
from iresnet_verify.campaign import run
from iresnet_verify.campaign.batches import DISPATCH, MOST, SHARE, Batches
from iresnet_verify.campaign.cluster import NO_DASHBOARD
from iresnet_verify.campaign.engines import Engine
from iresnet_verify.campaign.unit import Unit
from iresnet_verify.subject.loading import Origin


def some(count: int, factory: str = "factory", file: str = "/p/subject.py") -> list[Unit]:
    return [Unit(Origin(file, factory), seed) for seed in range(count)]


@pytest.mark.parametrize("workers", [1, 8, 1000])
@pytest.mark.parametrize("seconds", [0.0, 0.003, 0.3, 2.0, 100.0])
def test_dispatch_stays_below_its_share_and_workers_end_together(workers: int, seconds: float) -> None:
    """Whatever audits take: no batch of several exceeds W·d/SHARE nor rest/(2·W), and none could have held one audit more."""
    planned = some(2_000)
    batches, taken = Batches(planned), []
    batches.learn(planned[0], seconds)
    while batches.left:
        rest = len(batches.left) * seconds
        batch = batches.take(workers)
        taken += batch
        longest = min(workers * DISPATCH / SHARE, rest / (2 * workers))
        slack = 1e-9 * longest  # sums of up to 256 terms
        assert len(batch) == 1 or len(batch) * seconds <= longest + slack
        assert len(batch) == MOST or not batches.left or (len(batch) + 1) * seconds > longest - slack
    assert taken == planned, "each once, in order"


def test_what_is_unknown_is_alone_and_a_batch_has_one_folder() -> None:
    known, unknown, elsewhere = some(10), some(3, "other"), some(5, file="/q/subject.py")
    batches = Batches([*known, *unknown, *elsewhere])
    assert batches.take(4) == known[:1]
    batches.learn(known[0], 0.0)
    assert batches.take(4) == known[1:]
    assert [batches.take(4) for _ in unknown] == [[u] for u in unknown]
    assert batches.take(4) == elsewhere, "another folder, the same title"


def counts(unit: Unit, out: Path) -> dict[str, Any]:
    """A short task that notes that it ran, and fails by itself for one seed."""
    with Path(unit.origin.file).with_name("ran.txt").open("a") as file:
        file.write(f"{unit.seed}\n")
    if unit.seed == 17:
        raise RuntimeError("no such thing")
    return answer(unit)


def test_short_audits_come_in_batches_and_one_that_raises_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    sizes: list[int] = []
    take = Batches.take
    monkeypatch.setattr(Batches, "take", lambda self, workers: sizes.append(len(found := take(self, workers))) or found)
    file = project(tmp_path / "p")
    found = run.run(units(file, 400), tmp_path / "c", run.Options(Engine(workers=2, scheduler="local"), task=counts)).results
    assert [r is not None and r.complete for r in found] == [k != 17 for k in range(400)]
    assert found[17] is not None
    assert found[17].body["problem"] == "RuntimeError: no such thing"
    assert Counter((file.parent / "ran.txt").read_text().split()) == {str(k): 1 for k in range(400)}
    assert len(sizes) < 100
    assert max(sizes) > 10
    assert sum(sizes) == 400


def dies(unit: Unit, out: Path) -> dict[str, Any]:
    """A task that kills its worker: for seed 40 always, for seed 20 the first time."""
    with Path(unit.origin.file).with_name("ran.txt").open("a") as file:
        file.write(f"{unit.seed}\n")
    first = Path(unit.origin.file).with_name("again")
    if unit.seed == 40 or (unit.seed == 20 and not first.exists()):
        first.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return answer(unit)


def test_a_campaign_without_a_worker_says_so_and_goes_on_with_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(clusters, "LONELY", 0.05)
    said: list[str] = []
    with distributed.LocalCluster(n_workers=0, threads_per_worker=1, processes=False, **NO_DASHBOARD) as cluster:

        def note(text: str) -> None:
            said.append(text)
            cluster.scale(1)

        engine = Engine(scheduler=cluster.scheduler_address)
        found = run.run(units(project(tmp_path / "p"), 3), tmp_path / "c", run.Options(engine, task=_answered, note=note)).results
    assert [r is not None and r.complete for r in found] == [True] * 3
    assert said == ["no worker is connected to the scheduler: waiting for one; Ctrl-C keeps what is done"]


def _answered(unit: Unit, out: Path) -> dict[str, Any]:
    return answer(unit)


@contextmanager
def supervised(address: str, count: int) -> Iterator[None]:
    """Dask workers in processes of their own, each replaced when it dies. Dask's nannies do not replace one that dies while it starts."""
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    environment, over = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, threading.Event()

    def keep() -> None:
        workers: list[subprocess.Popen[bytes]] = []
        while not over.wait(0.1):
            workers = [w for w in workers if w.poll() is None]
            workers += [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                        for _ in range(count - len(workers))]
        for worker in workers:
            worker.kill()
            worker.wait()

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.thorough
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX systems")
def test_a_lost_worker_costs_no_result_and_none_comes_twice(tmp_path: Path) -> None:
    """Dask workers in processes of their own die in the middle of batches; one audit takes every worker along."""
    distributed = pytest.importorskip("distributed")
    file = project(tmp_path / "p")
    local = {"n_workers": 0, "processes": False, "protocol": "tcp://", "host": "127.0.0.1", **NO_DASHBOARD}
    with distributed.LocalCluster(**local) as cluster, supervised(cluster.scheduler_address, 2):
        engine = Engine(scheduler=cluster.scheduler_address)
        found = run.run(units(file, 120), tmp_path / "c", run.Options(engine, task=dies)).results
    assert [r is not None and r.complete for r in found] == [k != 40 for k in range(120)]
    assert found[40] is not None
    assert "KilledWorker" in found[40].body["problem"]
    assert len(stored(tmp_path / "c")) == 119
    ran = Counter((file.parent / "ran.txt").read_text().split())
    assert set(ran) == {str(k) for k in range(120)}
    assert ran["20"] >= 2
    assert 3 <= ran["40"] <= 10, "as often as Dask allows, in its batch and alone"


class Sleeps:
    """A task that waits, and counts the seconds that it took."""

    seconds = 0.5
    taken: ClassVar[list[float]] = []

    def __call__(self, unit: Unit, out: Path) -> dict[str, Any]:
        started = time.perf_counter()
        time.sleep(Sleeps.seconds)
        Sleeps.taken.append(time.perf_counter() - started)
        return answer(unit)


def slowdown() -> float:
    """Seconds of the clock that a second of CPU time takes here now: 1 where nobody else computes."""
    clock, cpu = time.perf_counter(), time.process_time()
    while time.process_time() < cpu + 0.5:
        pass
    return max(1.0, (time.perf_counter() - clock) / (time.process_time() - cpu))


@pytest.mark.thorough
def test_eight_workers_are_busy(tmp_path: Path) -> None:
    """Efficiency: the time that 160 tasks wait, over eight times that of the campaign.

    Client, scheduler and workers share this process. Where others compute too it is slower by a factor, and the tasks wait longer by it.
    """
    distributed = pytest.importorskip("distributed")
    file = project(tmp_path / "p")
    Sleeps.seconds, Sleeps.taken = 0.5 * slowdown(), []
    with distributed.LocalCluster(n_workers=8, threads_per_worker=1, processes=False, protocol="tcp://", host="127.0.0.1",
                                  **NO_DASHBOARD) as cluster:
        started = time.perf_counter()
        found = run.run(units(file, 160), tmp_path / "c", run.Options(Engine(scheduler=cluster.scheduler_address), task=Sleeps()))
        seconds = time.perf_counter() - started
    assert all(r is not None and r.complete for r in found.results)
    assert len(Sleeps.taken) == 160
    assert sum(Sleeps.taken) / (8 * seconds) >= 0.85, f"{Sleeps.seconds:.2f} s each"
