"""Audits in worker processes: whatever a subject does costs one check, never the report.

Each factory gets its own pool of spawned processes, so that files cannot disturb each other through global state;
several factories are audited side by side, one worker each, a single one by all workers. Every worker loads the
factory once, equally seeded, with one thread, a limit on memory, and a time limit for each check. A worker that
crashes, is ended by its subject or runs out of time is replaced; its check becomes an `error` that names the place.
A callable that does this already while the conventions are determined is not called again: the checks that need it are skipped.

When `MOST_LOST` workers were lost before any check finished, the rest is not tried. When as many were lost among
finished checks, the remaining checks get at most `SHORT_SECONDS` seconds. This process imports no framework.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock
from typing import Any

from iresnet_verify.check.audit_result import AuditResult
from iresnet_verify.check.budget import BUDGETS
from iresnet_verify.check.finding import Finding
from iresnet_verify.check.result import CheckResult
from iresnet_verify.diagnosis.diagnose import attribute, failures
from iresnet_verify.report.names import slug
from iresnet_verify.running.description import add_conventions
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.loading import Origin
from iresnet_verify.workers import pool as pools
from iresnet_verify.workers import worker
from iresnet_verify.workers.loaded_code import LoadedCode
from iresnet_verify.workers.pool import GRACE, Lost, WorkerPool, first_finished, one_thread_each, share_of_memory
from iresnet_verify.workers.worker import Failure, Job, Loaded, Task

MOST_LOST = 4
SHORT_SECONDS = 10.0
NOT_RUN = "not run: the audit was interrupted"


@dataclass(frozen=True)
class Progress:
    """One check has just finished."""

    subject: str
    result: CheckResult
    done: int
    planned: int
    """How many are planned by the factories loaded so far."""


@dataclass(frozen=True)
class Audits:
    """A report for every subject; for every subject or factory that could not be loaded, the reason."""

    reports: list[AuditResult]
    errors: list[SubjectError]
    origins: list[Origin] = field(default_factory=list)
    """Where the subject of each report comes from."""
    code: list[LoadedCode | None] = field(default_factory=list)
    """What each job loaded, as one of its workers saw it; None where no worker was left to ask."""
    lost: list[str] = field(default_factory=list)
    """Why each worker was lost that did not come to the end of a task: these results are not the checks' own."""


class Interrupted(KeyboardInterrupt):
    """A run was interrupted; `audits` is what had been found by then. The checks that had not run are errors that say so."""

    def __init__(self, audits: Audits) -> None:
        super().__init__()
        self.audits = audits


def run(
    jobs: Sequence[Job], folder: Path, *, workers: int = 2, progress: Callable[[Progress], None] | None = None,
    start: str = "spawn", watched: bool = False, ended: Callable[[AuditResult], None] | None = None,
) -> Audits:
    """Audit what the factories return; reproductions go to `folder`, which is made only when one is written.

    `start` is the start method of `multiprocessing` for the workers, "spawn" or "forkserver"; `watched`: say what code each job
    has loaded. `ended` is called with each report as soon as it is complete. Raises `Interrupted` at Ctrl-C.
    """
    shared = _Shared(folder, max(1, workers // max(1, len(jobs))), progress, start, watched, ended)
    memory = share_of_memory(workers)
    jobs = [replace(j, memory=memory) if j.memory is None else j for j in jobs]
    with one_thread_each(), ThreadPoolExecutor(max(1, min(workers, len(jobs)))) as threads:
        running = [threads.submit(_audit, job, shared) for job in jobs]
        try:
            found = [f.result() for f in running]
        except KeyboardInterrupt:
            shared.stop.set()
            threads.shutdown(cancel_futures=True)
            ended_well = [f.done() and not f.cancelled() and f.exception() is None for f in running]
            partial = [f.result() if well else [] for f, well in zip(running, ended_well, strict=True)]
            raise Interrupted(_audits(jobs, partial, shared)) from None
        except BaseException:
            shared.stop.set()
            threads.shutdown(cancel_futures=True)
            raise
    return _audits(jobs, found, shared)


def _audits(jobs: Sequence[Job], found: Sequence[Sequence[AuditResult | SubjectError]], shared: _Shared) -> Audits:
    flat = [r for audited in found for r in audited]
    reports, errors = [r for r in flat if isinstance(r, AuditResult)], [e for e in flat if isinstance(e, SubjectError)]
    origins = [j.origin for j, audited in zip(jobs, found, strict=True) for r in audited if isinstance(r, AuditResult)]
    return Audits(reports, errors, origins, [shared.code.get(j) for j in jobs], shared.lost)


@dataclass
class _Shared:
    """What the threads of one run share."""

    folder: Path
    workers: int
    progress: Callable[[Progress], None] | None
    start: str = "spawn"
    watched: bool = False
    ended: Callable[[AuditResult], None] | None = None
    code: dict[Job, LoadedCode] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    stop: Event = field(default_factory=Event)
    lock: Lock = field(default_factory=Lock)
    labels: set[str] = field(default_factory=set)
    done: int = 0
    planned: int = 0

    def label(self, name: str) -> str:
        """A start of file names that no other subject of this run has."""
        with self.lock:
            numbered = (f"{slug(name)}-{i}" if i > 1 else slug(name) for i in range(1, len(self.labels) + 2))
            label = next(x for x in numbered if x not in self.labels)
            self.labels.add(label)
            return label

    def step(self, subject: str, result: CheckResult) -> None:
        """Tell the caller of one finished check."""
        with self.lock:
            self.done += 1
            if self.progress is not None:
                self.progress(Progress(subject, result, self.done, self.planned))


@dataclass(frozen=True)
class _Planned:
    """A task, and the result it will have if nothing comes back."""

    subject: Loaded
    task: Task
    blank: CheckResult


def _audit(job: Job, shared: _Shared) -> list[AuditResult | SubjectError]:
    started = time.perf_counter()
    pool = WorkerPool(job, shared.workers, shared.start, shared.watched)
    try:
        subjects = _load(job, pool, shared)
        good = {i: s for i, s in enumerate(subjects) if isinstance(s, Loaded)}
        with shared.lock:
            shared.planned += sum(len(s.planned) for s in good.values())
        plan = [p for i, s in good.items() for p in _plan(i, s, shared)]
        done = {(p.task.index, p.task.id): replace(p.blank, message=NOT_RUN) for p in plan}
        try:
            for p, r in _results(plan, pool, shared):
                done[p.task.index, p.task.id] = r
        except KeyboardInterrupt:
            found = {i: attribute([done[i, p.id] for p in s.planned], {}) for i, s in good.items()}
            return _reports(job, subjects, found, started, shared)
        if shared.watched:
            asked = pool.submit(worker.loaded, seconds=SHORT_SECONDS)
            code = pool.result_of(first_finished([asked], shared.stop).pop(), SHORT_SECONDS)
            if isinstance(code, LoadedCode):
                shared.code[job] = code
        found = {i: _diagnosed(job, pool, i, [done[i, p.id] for p in s.planned], shared) for i, s in good.items()}
    finally:
        pool.close()
    return _reports(job, subjects, found, started, shared)


def _reports(
    job: Job, subjects: Sequence[Loaded | Failure], found: Mapping[int, tuple[Sequence[CheckResult], Sequence[Finding]]],
    started: float, shared: _Shared,
) -> list[AuditResult | SubjectError]:
    seconds = (time.perf_counter() - started) / max(1, len(found))
    made = [_report(job, s, *found[i], seconds) if isinstance(s, Loaded) else SubjectError(s.message) for i, s in enumerate(subjects)]
    with shared.lock:
        for report in made:
            if isinstance(report, AuditResult) and shared.ended is not None and not shared.stop.is_set():
                shared.ended(report)
    return made


def _report(
    job: Job, loaded: Loaded, results: Sequence[CheckResult], findings: Sequence[Finding], seconds: float
) -> AuditResult:
    subject = add_conventions(loaded.subject, results)
    return AuditResult(subject, loaded.environment, job.seed, job.alpha, job.budget, results, seconds, findings)


def _diagnosed(
    job: Job, pool: WorkerPool, index: int, results: Sequence[CheckResult], shared: _Shared
) -> tuple[tuple[CheckResult, ...], tuple[Finding, ...]]:
    """The results attributed to causes, by hypotheses tested in a worker; where it is lost, without them."""
    failed = failures(results)
    if not failed:
        return attribute(results, {})
    seconds = 2.0 * (job.check_seconds or BUDGETS[job.budget].seconds)
    future = pool.submit(worker.explain, Task(index, "", seconds, pools.WALL * seconds, "", ""), failed, seconds=seconds)
    reply = pool.result_of(first_finished([future], shared.stop).pop(), seconds)
    return attribute(results, {} if isinstance(reply, Failure) else reply)


def _plan(index: int, subject: Loaded, shared: _Shared) -> list[_Planned]:
    label = shared.label(subject.name)
    return [
        _Planned(subject, Task(index, blank.id, seconds, pools.WALL * seconds, str(shared.folder), label), blank)
        for blank, seconds in zip(subject.planned, subject.seconds, strict=True)
    ]


def _load(job: Job, pool: WorkerPool, shared: _Shared) -> list[Loaded | Failure]:
    """Load the factory in all workers at once; the first result is the plan."""
    loading = [pool.submit(worker.describe, seconds=0.0) for _ in range(pool.count)]
    started = time.perf_counter()
    reply: Any = pool.result_of(first_finished(loading, shared.stop).pop(), job.load_seconds)
    pool.loading = 5 * (time.perf_counter() - started) + GRACE
    if isinstance(reply, Failure):
        if isinstance(reply, Lost):
            shared.lost.append(reply.message)
        named = job.origin.file in reply.message
        return [reply if named else Failure(f"{job.origin}: loading it failed: {reply.message}")]
    return list(reply)


def _results(plan: Sequence[_Planned], pool: WorkerPool, shared: _Shared) -> Iterator[tuple[_Planned, CheckResult]]:
    """Run the tasks in order and yield each with its result; one more is in line than there are workers.

    A task that lost its worker while the conventions were determined is run again without the callable that caused it.
    """
    waiting = list(reversed(plan))
    running: dict[Future[bytes], _Planned] = {}
    lost: list[str] = []
    disabled: dict[int, dict[str, str]] = {}
    finished = 0
    while waiting or running:
        while waiting and len(running) < pool.count + bool(finished) and (finished or len(lost) < MOST_LOST):
            planned = waiting.pop()
            seconds = min(planned.task.seconds, SHORT_SECONDS) if len(lost) >= MOST_LOST else planned.task.seconds
            known = tuple(disabled.get(planned.task.index, {}).items())
            planned = replace(planned, task=replace(planned.task, seconds=seconds, wall=pools.WALL * seconds, disabled=known))
            running[pool.submit(worker.run, planned.task, seconds=seconds)] = planned
        if running:
            ended = [(running.pop(f), f) for f in first_finished(list(running), shared.stop)]
            results: list[tuple[_Planned, Any]] = [(p, pool.result_of(f, p.task.seconds)) for p, f in ended]
        else:
            reason = Failure(f"not tried: the first {len(lost)} checks all ended like this: {lost[0]}")
            results = [(waiting.pop(), reason) for _ in range(len(waiting))]
        for planned, reply in results:
            if isinstance(reply, Lost):
                shared.lost.append(f"{planned.task.id}: {reply.message}")
            if isinstance(reply, Lost) and reply.callable and reply.callable not in dict(planned.task.disabled):
                disabled.setdefault(planned.task.index, {}).setdefault(reply.callable, reply.message)
                waiting.append(planned)
                continue
            lost += [reply.message] if isinstance(reply, Lost) else []
            result: CheckResult = replace(planned.blank, message=reply.message) if isinstance(reply, Failure) else reply
            finished += result.status not in ("skipped", "error")
            shared.step(planned.subject.name, result)
            yield planned, result
