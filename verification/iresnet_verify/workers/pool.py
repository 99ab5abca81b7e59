"""Worker processes that may die: a pool for one factory, and the reason in words when a worker is lost.

Pebble replaces a lost worker. What it does not report is in the worker's own log: the Python stack at a crash, at the end
of a time limit, or where `os._exit` was called.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import re
import signal
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

from pebble import ProcessExpired, ProcessPool

from iresnet_verify.workers import worker
from iresnet_verify.workers.call_log import last_call
from iresnet_verify.workers.worker import Failure, Job

WALL = 10.0
"""Limit of the wall clock of a check, as a multiple of that of CPU time: for what sleeps, and for machines with ten times the work."""
GRACE = 20.0
"""Seconds after the worker's own time limit at which the parent ends it."""
STARTING = 60.0
"""Seconds within which a worker has opened its log."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Lost(Failure):
    """The worker died or ran out of time."""

    callable: str | None = None
    """The callable that was running, if that happened while the conventions were determined."""


class WorkerPool:
    """`count` workers for one job, each a new process.

    `start` is the start method of `multiprocessing`; `watched`: what the workers load is recorded.
    """

    def __init__(self, job: Job, count: int, start: str = "spawn", watched: bool = False) -> None:
        self.job, self.count, self.start, self.watched = job, count, start, watched
        self.loading = job.load_seconds
        """Seconds that a replaced worker may take to load the factory again."""
        self.logs = TemporaryDirectory(prefix="iresnet-verify-")
        self.pool = self._new()

    def _new(self) -> Any:
        context: Any = multiprocessing.get_context(self.start)
        return ProcessPool(self.count, initializer=worker.prepare, initargs=(self.logs.name, self.watched), context=context)

    def submit(self, task: Callable[..., bytes], *arguments: object, seconds: float) -> Future[bytes]:
        """Have a worker do `task(job, *arguments)`, after loading the job where it still has to."""
        return self.pool.schedule(task, args=(self.job, *arguments), timeout=self.loading + WALL * seconds + GRACE)

    def result_of(self, future: Future[bytes], seconds: float) -> Any:
        """What a finished task returned: an object, a `Failure`, or `Lost`."""
        try:
            return pickle.loads(future.result())
        except TimeoutError:
            called = self._ended_silently()
            return Lost(f"{called or 'it'} ended the process without a trace, or could not be interrupted", called)
        except ProcessExpired as end:
            log = Path(self.logs.name, f"{end.pid}.txt")
            text = log.read_text("utf-8", "replace") if log.is_file() else ""
            called = last_call(text)
            return Lost((f"{called}: " if called else "") + self._cause(end.exitcode, text, seconds, self._last(end.pid)), called)
        except BrokenProcessPool:
            if not self.pool.active:
                self.pool.join()
                self.pool = self._new()
            return Lost("the worker process ended while it was idle; a thread of the subject may have ended it")
        except Exception as error:
            return Failure(f"the result of the worker could not be read: {type(error).__name__}: {error}")

    def _ended_silently(self) -> str | None:
        """What a worker that ended unreported, with exit code 0, was calling."""
        for log in Path(self.logs.name).glob("*.txt"):
            called = last_call(log.read_text("utf-8", "replace"))
            if called and not _alive(int(log.stem)):
                log.unlink()
                return called
        return None

    def _last(self, pid: int | None) -> str:
        """The call of the subject that went on, "in NAME", or was the last, "after NAME"; "" where there was none."""
        note = Path(self.logs.name, f"{pid}.call")
        return note.read_text("utf-8", "replace").strip() if note.is_file() else ""

    def _cause(self, code: int | None, stack: str, seconds: float, last: str) -> str:
        place = _place(stack, self.job.origin.file)
        loading = f"in {worker.LOADING}\n" in stack
        if "Timeout (" in stack and loading:
            where = place or " in compiled code"
            return f"did not finish within {self.job.load_seconds:g} s; it was{where}; give it more by --load-seconds"
        if "Timeout (" in stack or (worker.CPU_LIMITS and code == -signal.SIGPROF):
            what = f" {last}" if last.startswith("in ") else f" {last}, in the audit's own work" if last else ""
            where = f"it was{what}{place or ' in compiled code'}; give it more by --check-seconds"
            if "Timeout (" in stack and worker.CPU_LIMITS:
                return f"did not finish within {WALL * seconds:g} s, of which it worked less than {seconds:g}: it sleeps or waits; {where}"
            return f"did not finish within {seconds:g} s{' of CPU time' * worker.CPU_LIMITS}; {where}"
        if code == worker.EXIT_CALLED:
            return f"the subject ended the process by os._exit{place}; a library must not exit"
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            why = ", which the system sends when memory runs out" if name == "SIGKILL" else ""
            return f"the process died of {name}{why}{place}"
        return f"the process ended with exit code {code}{place}"

    def close(self) -> None:
        """End the workers, busy or not; one that is still starting is let start, or it would complain on standard error."""
        until = time.monotonic() + STARTING
        while self.pool.active and len(list(Path(self.logs.name).glob("*.txt"))) < self.count and time.monotonic() < until:
            time.sleep(0.02)
        self.pool.stop()
        self.pool.join()
        self.logs.cleanup()


def first_finished(futures: Collection[Future[bytes]], stop: Event) -> set[Future[bytes]]:
    """Wait until one is done; raises `KeyboardInterrupt` if `stop` is set meanwhile."""
    while not stop.is_set():
        done, _ = wait(futures, timeout=0.5, return_when=FIRST_COMPLETED)
        if done:
            return done
    raise KeyboardInterrupt


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Workers started inside use one thread for linear algebra: two workers must not compete for two cores."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def share_of_memory(workers: int) -> int | None:
    """Bytes each worker may take: the memory free now over the number of workers; None where it cannot be known.

    None also with an NVIDIA driver present: CUDA reserves more address space than there is memory.
    """
    if Path("/dev/nvidiactl").exists():
        return None
    try:
        text = Path("/proc/meminfo").read_text("ascii")
    except OSError:
        return None
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    limits = [int(found[1]) * 1024] if found else []
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(file)
        if path.is_file() and path.read_text("ascii").strip().isdigit():
            limits.append(int(path.read_text("ascii")))
    return max(min(limits) // max(1, workers), 2**30) if limits else None


def _alive(pid: int) -> bool:
    try:
        if os.name == "posix":
            os.kill(pid, 0)
    except OSError:
        return False
    return True


def _place(stack: str, file: str) -> str:
    """Where a faulthandler stack was: its deepest line in the subject's file, else its deepest line."""
    frames = re.findall(r'File "(.+)", line (\d+) in (.+)', stack)
    own = [f for f in frames if f[0] == file] or [f for f in frames if Path(f[0]).name != "worker.py"]
    return f" at {Path(own[0][0]).name}, line {own[0][1]}, in {own[0][2]}" if own else ""
