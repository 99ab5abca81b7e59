"""What a campaign costs beside its audits: `python benchmarks/campaign_costs.py overhead | speedup | stored | page [options]`.

overhead    what the audits of a campaign take beyond their checks; the start of the workers told apart, as what a campaign takes whose
            audits are a single call. Seconds of the clock and of CPU time of all processes, from nothing to the last result. With
            --bare also processes that import, load and audit one after another, as many as there are workers
speedup     overhead --bare --seeds 4: two workers against one, beside two bare processes against one; two minutes on a quiet machine
stored      results a second that are packed (where they are found), that the store takes, and that a whole campaign on two
            threads packs and stores whose audits take no time
page        the seconds in which the page of so many audits is written, and its size

Set OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1. Linux alone counts the CPU time of all processes.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

BARE = """
import sys
from iresnet_verify import audit
from iresnet_verify.subject.loading import load, parse
for seed in map(int, sys.argv[2:]):
    for subject in load(parse(sys.argv[1]), seed):
        audit(subject, budget="quick", seed=seed)
"""


def cpu_seconds() -> float:
    """CPU time of this process and of all that it or its descendants have started and that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


@contextmanager
def timed(what: str, found: dict[str, tuple[float, float]]) -> Iterator[None]:
    """Print the seconds that the block takes, and keep (clock, CPU)."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    yield
    wall = time.perf_counter() - wall
    time.sleep(0.5)  # processes that were told to end have ended
    found[what] = wall, cpu_seconds() - cpu
    print(f"{what:24} {found[what][0]:7.2f} s of the clock {found[what][1]:7.2f} s of CPU", flush=True)


def campaign(spec: str, seeds: int, workers: int, folder: str, *more: str) -> None:
    """Run a campaign as a command."""
    words = ["campaign", spec, "--seeds", str(seeds), "--workers", str(workers), "--folder", folder, "--again", "0", *more]
    subprocess.run([sys.executable, "-m", "iresnet_verify", *words], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def checks_alone(folder: Path) -> tuple[float, float]:
    """Seconds of the clock and of CPU time that the checks of a campaign took by their own account."""
    from iresnet_verify.campaign.store import Store

    with Store(folder) as store:
        checks = [c for r in store.results() for c in r.body["report"]["checks"]]
    return sum(c["seconds"] for c in checks), sum(c["cpu_seconds"] for c in checks)


def overhead(spec: str, seeds: int, workers: list[int], *, bare: bool) -> None:
    """Print what audits take in a campaign beyond their checks, with each number of workers; `bare`: and without a campaign."""
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans come to this process, which counts them
    found: dict[str, tuple[float, float]] = {}
    for count in workers:
        if bare:
            words = [[str(s) for s in range(first, seeds, count)] for first in range(count)]
            with timed(f"bare, {count} processes", found):
                for process in [subprocess.Popen([sys.executable, "-c", BARE, spec, *w]) for w in words]:
                    if process.wait() != 0:
                        raise SystemExit(f"{spec} could not be audited")
        with timed(f"start, {count} workers", found), TemporaryDirectory() as folder:
            campaign(spec, count, count, folder, "--select", "hygiene.input-kept")
        with TemporaryDirectory() as folder:
            with timed(f"campaign, {count} workers", found):
                campaign(spec, seeds, count, folder)
            alone = checks_alone(Path(folder))
        for clock, times in ((0, count), (1, 1)):
            all_, start = (times * found[f"{what}, {count} workers"][clock] for what in ("campaign", "start"))
            print(f"    {'CPU time' if clock else 'the clock'}: {alone[clock]:.1f} s in checks, beyond them {all_ / alone[clock] - 1:.1%}, "
                  f"without the start {(all_ - start) / alone[clock] - 1:.1%}", flush=True)
    if len(workers) > 1:
        few, many = workers[0], workers[-1]
        ratio = {}
        for what in (*["bare"] * bare, "campaign"):
            one, more = (next(v for k, v in found.items() if k.startswith(f"{what}, {n}")) for n in (few, many))
            starts = [found[f"start, {n} workers"][0] if what == "campaign" else 0.0 for n in (few, many)]
            ratio[what] = (one[0] - starts[0]) / (more[0] - starts[1])
            print(f"{what}, {many} against {few}: {one[0] / more[0]:.2f} × by the clock"
                  + (f", {ratio[what]:.2f} × without the start" if what == "campaign" else "") + f", {more[1] / one[1]:.2f} × the CPU time")
        if bare:
            print(f"a campaign gains {ratio['campaign'] / ratio['bare']:.2f} of what bare processes gain on this machine now")


def record_of_an_audit() -> dict[str, Any]:
    """What an audit of F(x) = 3x/2 with all checks answers."""
    import numpy as np

    from iresnet_verify import Subject, audit
    from iresnet_verify.campaign import keys

    subject = Subject(name="scaled", event_shape=(3,), framework="numpy", forward=lambda x: 1.5 * x, inverse=lambda y: y / 1.5,
                      log_det=lambda x: np.full(len(x), 3 * np.log(1.5)))
    report = audit(subject, budget="quick").to_dict()
    return {"exit": 0, "problem": "", "report": report, "key": {"files": {Path(__file__).name: keys.digest_of(__file__)},
                                                                "distributions": {}, **keys.surroundings()}}


def stored(count: int) -> None:
    """Print results packed, and stored, a second."""
    from iresnet_verify.campaign import run
    from iresnet_verify.campaign.engines import Engine
    from iresnet_verify.campaign.packed import pack
    from iresnet_verify.campaign.store import Store
    from iresnet_verify.campaign.unit import Unit
    from iresnet_verify.subject.loading import Origin

    record = record_of_an_audit()
    units = [Unit(Origin(__file__, "nothing"), seed) for seed in range(count)]
    found: dict[str, tuple[float, float]] = {}

    def rates(what: str, number: int) -> None:
        print("    " + ", ".join(f"{number / s:.0f} a second of {c}" for s, c in zip(found[what], ("the clock", "CPU time"), strict=True)))

    with timed("packed", found):
        packed = [pack(u, record) for u in units]
    rates("packed", count)
    for name, size, number in (("stored by hundreds", 100, count), ("stored one by one", 1, count // 10)):
        with TemporaryDirectory(dir=".") as folder, Store(Path(folder)) as store:
            rows = [(u.name(store.folder), u.title, u.seed, p) for u, p in zip(units[:number], packed, strict=False)]
            with timed(name, found):
                for first in range(0, number, size):
                    store.add(rows[first : first + size])
        rates(name, number)
    with TemporaryDirectory(dir=".") as folder, timed("whole campaign", found):
        run.run(units, Path(folder), run.Options(Engine(workers=2), task=lambda unit, out: record))
    rates("whole campaign", count)


def page(count: int, path: Path) -> None:
    """Write the page of `count` audits, a tenth of them with a failure."""
    from iresnet_verify.campaign import page as pages
    from iresnet_verify.campaign.packed import pack
    from iresnet_verify.campaign.store import Store
    from iresnet_verify.campaign.unit import Unit
    from iresnet_verify.subject.loading import Origin

    record = record_of_an_audit()
    wrong = {"status": "failed", "message": "expected x, got x + 1", "evidence": {"gap": 1.0}}
    checks = [{**c, **(wrong if c["id"] == "inverse.recovers-input" else {})} for c in record["report"]["checks"]]
    failed = {**record, "exit": 1, "report": {**record["report"], "status": "failed", "checks": checks}}
    units = [Unit(Origin(__file__, f"subject_{k % 100}"), k // 100) for k in range(count)]
    found: dict[str, tuple[float, float]] = {}
    with TemporaryDirectory(dir=".") as folder, Store(Path(folder)) as store:
        run = store.begin([u.name(store.folder) for u in units], "now", "2026-01-01 00:00:00")
        for first in range(0, count, 100):
            store.add(((u.name(store.folder), u.title, u.seed, pack(u, failed if u.origin.factory.endswith("7") else record))
                       for u in units[first : first + 100]), run)
        with timed("page", found):
            pages.write(store, run, path)
    print(f"    {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overhead", "speedup", "stored", "page"])
    parser.add_argument("--subject", default=f"{Path(__file__).parent / 'audit_times.py'}:mlp")
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--audits", type=int, default=0, help="For stored (default 2,000) and page (10,000).")
    parser.add_argument("--html", type=Path, default=Path("campaign.html"))
    given = parser.parse_args()
    match given.what:
        case "overhead":
            overhead(given.subject, given.seeds, given.workers, bare=given.bare)
        case "speedup":
            overhead(given.subject, min(given.seeds, 4), given.workers, bare=True)
        case "stored":
            stored(given.audits or 2000)
        case _:
            page(given.audits or 10_000, given.html)
