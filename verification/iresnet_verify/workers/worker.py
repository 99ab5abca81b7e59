"""What runs inside a worker process of an isolated audit: load the factory once, then one check per task.

Nothing that a subject does may reach the pool: every result is bytes, pickled here from plain data; every exception
(`SystemExit` included) becomes a result; standard output and error go to the null device; `os._exit` ends the process
with a code of its own, so that it is not mistaken for a normal end. What the process cannot survive, it writes to
`<folder>/<pid>.txt` on its way out (faulthandler): the Python stack at a crash or at the end of a time limit. The call of the subject
that is going on, or was the last, stands in `<folder>/<pid>.call`.

A time limit of a check is CPU time of this process (`ITIMER_PROF`), so that a busy machine costs nobody a check; what sleeps or waits
is ended by a wall limit far above. Where the system has no such timer (Windows) the limit is one of the wall clock.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from iresnet_verify.check.budget import BUDGETS
from iresnet_verify.check.outcome import Counterexample
from iresnet_verify.check.result import CheckResult
from iresnet_verify.diagnosis.diagnose import explained
from iresnet_verify.report.json import plain
from iresnet_verify.reproduction.reproduce import Audited, write
from iresnet_verify.running.description import describe_subject, environment
from iresnet_verify.running.plan import Planned
from iresnet_verify.running.run import Prepared, plan_audit, run_check
from iresnet_verify.subject.calls import watchers
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.loading import Origin, load
from iresnet_verify.subject.subject import Subject
from iresnet_verify.workers import loaded_code
from iresnet_verify.workers.call_log import CallLogged, with_calls_disabled

EXIT_CALLED = 77
"""Exit code of a worker in which `os._exit` was called."""
LONGEST_NOTE = 40
CPU_LIMITS = hasattr(signal, "setitimer")
"""Whether this system can limit CPU time."""
LIBRARIES = 8 * 2**30
"""Address space left to the imports of a subject file, in addition to its allowance."""


@dataclass(frozen=True)
class Job:
    """One factory, and how to audit what it returns."""

    origin: Origin
    seed: int = 0
    budget: str = "standard"
    alpha: float = 1e-6
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    load_seconds: float = 300.0
    """Time limit for importing the file and calling the factory."""
    check_seconds: float | None = None
    """Limit of the CPU time of one check in one mode; None: the budget's."""
    memory: int | None = None
    """Bytes of address space that the subject may take in each worker; None: no limit."""


@dataclass(frozen=True)
class Task:
    """One check of one subject of a job."""

    index: int
    """Which of the factory's subjects."""
    id: str
    seconds: float
    """Time limit, of CPU time."""
    wall: float
    """Time limit of the wall clock."""
    folder: str
    """Where a reproduction goes."""
    label: str
    """How its name starts."""
    disabled: tuple[tuple[str, str], ...] = ()
    """Callables that have killed a worker, and how: they are not called again."""


@dataclass(frozen=True)
class Loaded:
    """One subject, as the parent sees it: the head of its report, and an unfinished result for each planned check."""

    name: str
    subject: dict[str, Any]
    environment: dict[str, str]
    planned: tuple[CheckResult, ...]
    seconds: tuple[float, ...]
    """Time limit of each planned check."""


@dataclass(frozen=True)
class Failure:
    """What went wrong, in one sentence."""

    message: str


_log: IO[str] | None = None
_loaded: dict[Job, list[Prepared | Failure]] = {}
_plans: dict[tuple[Job, int], list[Planned]] = {}
_refusing: dict[tuple[Job, int, tuple[tuple[str, str], ...]], Prepared] = {}
_end_process = os._exit
_worker: int | None = None


def prepare(folder: str, watched: bool = False) -> None:
    """Run once in each new worker, before anything of the subject is imported. `watched`: what it loads is recorded."""
    global _log, _worker  # noqa: PLW0603  one log per process, opened before any task exists to carry it
    sys.dont_write_bytecode = True
    _worker = os.getpid()
    if watched:
        loaded_code.watch(folder)
    _log = (Path(folder) / f"{os.getpid()}.txt").open("w", encoding="utf-8")
    faulthandler.enable(_log)
    if CPU_LIMITS:
        faulthandler.register(signal.SIGPROF, file=_log, all_threads=True, chain=True)  # the stack, and then the end
    call = os.open(Path(folder) / f"{os.getpid()}.call", os.O_RDWR | os.O_CREAT)
    watchers.append(lambda what: _note(call, what))
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    setattr(os, "_exit", _exit)  # noqa: B010  mypy forbids the plain assignment to a function of another module


def _note(file: int, what: str) -> None:
    os.lseek(file, 0, os.SEEK_SET)
    os.write(file, what.ljust(LONGEST_NOTE).encode())


def _exit(code: int) -> NoReturn:
    if _log is not None:
        _log.write(f"os._exit({code})\n")
        _log.flush()
        faulthandler.dump_traceback(_log, all_threads=False)
    _end_process(EXIT_CALLED)


def describe(job: Job) -> bytes:
    """For each subject what is planned or why it cannot be audited; or the `Failure` of the whole factory."""
    return _result(job, None, lambda subjects: [s if isinstance(s, Failure) else _loaded_as(job, s) for s in subjects])


def run(job: Job, task: Task) -> bytes:
    """One check: its `CheckResult` or a `Failure`. The reproduction of a failed check is written."""
    return _result(job, task, lambda subjects: _run(job, task, subjects[task.index]))


def loaded(job: Job) -> bytes:
    """What code this worker has loaded (`LoadedCode`)."""
    return _result(job, None, lambda _: loaded_code.loaded())


def explain(job: Job, task: Task, failed: Sequence[CheckResult]) -> bytes:
    """What the hypotheses explain of these failures, by area, or a `Failure`."""

    def work(subjects: list[Prepared | Failure]) -> object:
        prepared = subjects[task.index]
        return prepared if isinstance(prepared, Failure) else explained(prepared, failed, seed=job.seed, budget=job.budget)

    return _result(job, task, work)


def _result(job: Job, task: Task | None, work: Callable[[list[Prepared | Failure]], object]) -> bytes:
    """What `work` returns, or the `Failure` in its place, pickled."""
    result: object
    try:
        subjects = _subjects(job)
        if task is not None and _log is not None:
            faulthandler.dump_traceback_later(task.wall if CPU_LIMITS else task.seconds, exit=True, file=_log)
            if CPU_LIMITS:
                signal.setitimer(signal.ITIMER_PROF, task.seconds)
        result = work(subjects)
        return pickle.dumps(result)
    except SubjectError as error:
        result = Failure(str(error))
    except SystemExit as error:
        result = Failure(f"the subject called sys.exit({error.code!r}){_where(error, job)}; a library must not exit")
    except MemoryError as error:
        result = Failure(f"the subject ran out of memory{_where(error, job)}; {_allowed(job)}")
    except BaseException as error:
        text = " ".join(str(error).split())
        result = Failure(f"{type(error).__name__}: {text}{_where(error, job)}")
    finally:
        if _worker is not None and os.getpid() != _worker:
            _end_process(0)  # the subject forked: its child has come back here too, and would wait for a timer that is its parent's
        faulthandler.cancel_dump_traceback_later()
        if CPU_LIMITS:
            signal.setitimer(signal.ITIMER_PROF, 0.0)
    return pickle.dumps(result)


def _subjects(job: Job) -> list[Prepared | Failure]:
    if job not in _loaded:
        if _log is not None:
            faulthandler.dump_traceback_later(job.load_seconds, exit=True, file=_log)
        _limit_memory(job, LIBRARIES)
        _loaded[job] = [_prepared(job, subject) for subject in load(job.origin, job.seed)]
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        _limit_memory(job, 0)
        faulthandler.cancel_dump_traceback_later()
    return _loaded[job]


LOADING = _subjects.__name__
"""The function that is on the stack exactly while the factory is loaded."""


def _limit_memory(job: Job, extra: int) -> None:
    """Let the process take `job.memory` bytes of address space beyond what it has now, where the system can do that."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        limit = pages * resource.getpagesize() + extra + (job.memory or 0)
        if job.memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, OSError, ValueError):
        pass


def _allowed(job: Job) -> str:
    return "its share is the memory free at the start divided by the workers" + (
        f" ({job.memory / 2**30:.1f} GiB)" if job.memory else ""
    )


def _prepared(job: Job, subject: Subject) -> Prepared | Failure:
    try:
        return _with_call_log(subject, job.seed)
    except SubjectError as error:
        return Failure(f"{job.origin}: {error}")


def _with_call_log(subject: Subject, seed: int) -> Prepared:
    prepared = CallLogged(subject, seed)
    prepared.log = _log
    return prepared


def _plan(job: Job, prepared: Prepared) -> list[Planned]:
    if (job, id(prepared)) not in _plans:
        plan = plan_audit(prepared, job.budget, job.alpha, select=job.select or None, ignore=job.ignore or None)
        _plans[job, id(prepared)] = plan
    return _plans[job, id(prepared)]


def _loaded_as(job: Job, prepared: Prepared) -> Loaded | Failure:
    subject, limit = prepared.subject, job.check_seconds or BUDGETS[job.budget].seconds
    try:
        plan = _plan(job, prepared)
    except SubjectError as error:
        return Failure(f"{job.origin}: {error}")
    return Loaded(
        name=subject.name,
        subject=plain(describe_subject(subject)),
        environment=environment(subject),
        planned=tuple(
            CheckResult(
                p.check.id, p.check.family, "error", p.check.claim, p.check.reference, p.check.kind,
                expected=subject.expected_failures.get(p.check.id),
            )
            for p in plan
        ),
        seconds=tuple(limit * len(p.modes) for p in plan),
    )


def _run(job: Job, task: Task, prepared: Prepared | Failure) -> CheckResult | Failure:
    if isinstance(prepared, Failure):
        return prepared
    if task.disabled:
        key = job, task.index, task.disabled
        if key not in _refusing:
            _refusing[key] = _with_call_log(with_calls_disabled(prepared.subject, dict(task.disabled)), job.seed)
        prepared = _refusing[key]
    planned = next(p for p in _plan(job, prepared) if p.check.id == task.id)
    result = run_check(prepared, planned, seed=job.seed, budget=job.budget)
    if result.status == "failed":
        audited = Audited(prepared, job.origin, task.index, job.seed, job.budget, planned.alpha, task.label)
        try:
            result = replace(result, reproduce=str(write(result, audited, Path(task.folder))))
        except OSError as error:  # a full disk must not turn a failure into anything else
            result = replace(result, message=f"{result.message} [its reproduction could not be written: {error}]")
    return portable(result)


def portable(result: CheckResult) -> CheckResult:
    """The result as plain data that any process can unpickle: no functions, no arrays of a framework."""
    found = result.counterexample
    if found is not None:
        kept = {k: v if isinstance(v, np.ndarray) else plain(v) for k, v in found.inputs.items()}
        found = Counterexample(kept)
    return replace(result, evidence=plain(result.evidence), curves=plain(result.curves), counterexample=found)


def _where(error: BaseException, job: Job) -> str:
    """The deepest line of the subject's file, else the deepest line at all, on the way to the exception."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename == job.origin.file] or frames
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
