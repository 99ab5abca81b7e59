"""Many audits, resumable, on one machine or on a Dask cluster.

One audit is one run of `iresnet-verify audit` in a process of its own, whatever runs it, and one JSON file in the folder of the
campaign: {"schema": 1, "spec", "seed", "budget", "exit", "stderr", "report"}. Files are written under a temporary name and
renamed at the end, so that one that exists is whole. The name of a file holds a digest of everything that could change its content: the
subject's file, the arguments, the version of this package. What is there already is not run again; a campaign that was
interrupted, or a second one with more seeds, goes on where the first stopped.

On a cluster the subject's file must be at the same path on every machine, and this package be installed there.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from iresnet_backends.errors import BackendUnavailableError
from iresnet_verify.reproduction.file_names import slug
from iresnet_verify.subject.loading import Origin

COMPLETE = (0, 1, 2, 3)
"""Exit codes of a run that came to an end; any other is tried again next time."""


@dataclass(frozen=True)
class Unit:
    """One audit of a campaign."""

    origin: Origin
    seed: int
    budget: str
    options: tuple[str, ...] = ()
    """Further options of `iresnet-verify audit`."""

    @property
    def arguments(self) -> list[str]:
        """What follows `iresnet-verify audit`, but for where the report goes."""
        backend = ("--backend", self.origin.backend) if self.origin.backend else ()
        return [str(self.origin), "--seed", str(self.seed), "--budget", self.budget, "--workers", "1", *backend, *self.options]

    @property
    def name(self) -> str:
        """The name of its file: readable, and different wherever the content could be."""
        source = Path(self.origin.file).read_bytes()
        arguments = json.dumps([version("iresnet-ref"), *self.arguments[1:], self.origin.factory]).encode()
        digest = hashlib.sha256(source + arguments).hexdigest()[:12]
        return f"{slug(Path(self.origin.file).stem)}-{slug(self.origin.factory)}-{self.budget}-{self.seed}-{digest}.json"


def perform(arguments: Sequence[str]) -> dict[str, Any]:
    """Run one audit in a new process; return its exit code, the end of its standard error, and its report."""
    with TemporaryDirectory(prefix="iresnet-verify-") as folder:
        path = Path(folder, "report.json")
        command = [sys.executable, "-m", "iresnet_verify", "audit", *arguments, "--json", str(path), "--out", folder]
        ended = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False)
        report = json.loads(path.read_text("utf-8")) if path.is_file() else None
        return {"exit": ended.returncode, "stderr": (ended.stderr or "")[-2000:], "report": report}


def run(
    units: Sequence[Unit], folder: Path, *, workers: int = 2, scheduler: str | None = None,
    progress: Callable[[Unit, dict[str, Any]], None] = lambda unit, found: None,
    task: Callable[[Sequence[str]], dict[str, Any]] = perform,
) -> list[dict[str, Any]]:
    """Perform what is not done yet, and return the records of all units in order.

    `scheduler` is the address of a Dask scheduler, or "local" for a cluster made for the campaign; None: `workers` threads,
    each with one audit at a time. `progress` is told of every audit that has just ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting = [u for u in units if record(folder / u.name) is None]
    results = _on_threads(waiting, workers, task) if scheduler is None else _on_dask(waiting, workers, scheduler, task)
    for unit, found in results:
        whole = {"schema": 1, "spec": f"{Path(unit.origin.file).name}:{unit.origin.factory}", "seed": unit.seed, "budget": unit.budget}
        _write(folder / unit.name, whole | found)
        progress(unit, found)
    records = [record(folder / u.name, complete=False) for u in units]
    return [r for r in records if r is not None]


def record(path: Path, *, complete: bool = True) -> dict[str, Any] | None:
    """Return what a file of a campaign holds; None where there is none, or (with `complete`) its run did not come to an end."""
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if not complete or found.get("exit") in COMPLETE else None


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write under a temporary name and rename: a file that exists is whole, whatever interrupts."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    temporary.replace(path)


Results = Iterator[tuple[Unit, dict[str, Any]]]


def _on_threads(units: Sequence[Unit], workers: int, task: Callable[[Sequence[str]], dict[str, Any]]) -> Results:
    with ThreadPoolExecutor(max(1, workers)) as pool:
        futures = {pool.submit(task, u.arguments): u for u in units}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _on_dask(units: Sequence[Unit], workers: int, scheduler: str, task: Callable[[Sequence[str]], dict[str, Any]]) -> Results:
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise BackendUnavailableError('expected Dask for --scheduler, got no `distributed`; try: pip install "iresnet-ref[campaign]"'
                                      ) from error
    local = {"n_workers": workers, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.Client(**local) if scheduler == "local" else distributed.Client(scheduler) as client:
        futures = {client.submit(task, u.arguments, pure=False, retries=2): u for u in units}
        for future in distributed.as_completed(futures):
            yield futures[future], future.result()


def summary(records: Sequence[dict[str, Any]]) -> str:
    """How many passed, failed, and were not decided, and what rate of failures that leaves possible."""
    codes = [r["exit"] for r in records]
    named = {"passed": 0, "failed": 1, "could not be loaded": 2, "inconclusive": 3}
    parts = [f"{codes.count(code)} {name}" for name, code in named.items() if codes.count(code)]
    broken = sum(c not in COMPLETE for c in codes)
    parts += [f"{broken} did not come to an end and will be tried again"] if broken else []
    n = codes.count(0) + codes.count(3)
    if n and 1 not in codes:
        parts.append(f"no failure in {n}: their rate is at most {1 - 0.05 ** (1 / n):.2g} at 95 % confidence")
    return f"{len(codes)} audits: {', '.join(parts) or 'nothing to do'}"
