"""What changed code may not do: run on, take all memory, act outside the process, or leave what the subject holds changed.

All of it is undone on leaving, but for the audit hook, which Python cannot remove: outside of `confined` it does nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, fields
from functools import cache, partial
from pathlib import Path
from types import CellType, FrameType, FunctionType, MethodType
from typing import Any

import numpy as np

from iresnet_verify.diagnosis.trials.code_changes import Change, is_own, is_own_name
from iresnet_verify.subject.module_state import is_torch_module
from iresnet_verify.subject.subject import Subject

MEMORY = 2 << 30
"""Bytes that trials may take beyond what the process has."""
AGAIN = 0.01
"""Seconds after which code that went on is stopped again."""
ACTS = ("os.", "subprocess.", "socket.", "shutil.", "ftplib.", "http.", "smtplib.", "urllib.")
"""Audit events that act outside the process begin so (https://docs.python.org/3/library/audit_events.html)."""
LOOKS = frozenset({"os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.getxattr", "os.listxattr", "socket.gethostname"})
"""Those of them that only look."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_threads: set[int] = set()


class StoppedError(BaseException):
    """A trial took too long; no Exception, which the subject might catch."""


def can_be_stopped() -> bool:
    """Whether code can be tried here: in the main thread, on a system with timers, where nobody measures by them or by traces.

    From Python 3.14 on instructions have other lengths than what is changed here assumes.
    """
    if sys.version_info >= (3, 14) or sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        return False
    timed = signal.getsignal(signal.SIGPROF) is not signal.SIG_DFL or signal.getitimer(signal.ITIMER_PROF)[0] > 0.0
    return not timed and sys.getprofile() is None and sys.gettrace() is None


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise in the subject's own code what takes more CPU time: between instructions, and in powers of integers.

    >>> with limited(1.0):
    ...     1 + 1
    2
    """
    if sys.platform == "win32":
        raise RuntimeError("limited: expected a system with interval timers, got Windows; try asking can_be_stopped() first")

    def stop(number: int, frame: FrameType | None) -> None:
        if frame is None or frame.f_code.co_name == "__del__":
            return
        if is_own(frame) or frame.f_globals.get("__name__") == Change.__module__:  # what is put in is its own
            raise StoppedError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def confined() -> Iterator[None]:
    """Refuse this thread to write files, start processes and connect, and the process more than `MEMORY` beyond what it has."""
    _listen()
    thread = threading.get_ident()
    _threads.add(thread)
    try:
        with _bounded():
            yield
    finally:
        _threads.discard(thread)


@cache
def _listen() -> None:
    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if not _threads or threading.get_ident() not in _threads:
            return
        if (event.startswith(ACTS) and event not in LOOKS) or (event == "open" and int(arguments[2] or 0) & WRITES):
            raise PermissionError(f"{event}: changed code is tried, which must not act outside the process")

    sys.addaudithook(refuse)


@contextmanager
def _bounded() -> Iterator[None]:
    pages = Path("/proc/self/statm")
    if sys.platform == "win32" or not pages.exists():
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    bound = int(pages.read_text().split()[0]) * resource.getpagesize() + MEMORY
    lower = soft == resource.RLIM_INFINITY or bound < soft
    if lower:
        resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
    try:
        yield
    finally:
        if lower:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@dataclass
class Held:
    """What a subject's own callables hold."""

    arrays: list[Any]
    """NumPy arrays and tensors."""
    containers: list[Any]
    """Lists, dicts, sets and queues, the attributes of objects among the dicts."""
    cells: list[CellType]
    """Variables of enclosing functions."""


def held_by(subject: Subject) -> Held:
    """What the subject's own callables hold: in closures, globals that they name, attributes and containers."""
    found, seen = Held([], [], []), dict[int, object]()
    left: list[Any] = [getattr(subject, f.name) for f in fields(subject)]
    while left:
        o = left.pop()
        if id(o) in seen:
            continue
        seen[id(o)] = o
        if isinstance(o, np.ndarray) or _is_tensor(o):
            found.arrays.append(o)
        elif isinstance(o, dict | list | set | deque):
            found.containers.append(o)
            left += o.values() if isinstance(o, dict) else o
        elif isinstance(o, tuple):
            left += o
        elif isinstance(o, MethodType):
            left += (o.__self__, o.__func__)
        elif isinstance(o, partial):
            left += (o.func, o.args, o.keywords)
        elif isinstance(o, FunctionType) and is_own_name(o.__module__):
            cells = [c for c in o.__closure__ or () if c != CellType()]
            found.cells += cells
            left += (c.cell_contents for c in cells)
            left += (o.__defaults__, o.__kwdefaults__, *(o.__globals__.get(n) for n in o.__code__.co_names))
        elif not isinstance(o, type) and hasattr(o, "__dict__") and (is_torch_module(o) or is_own_name(type(o).__module__)):
            left.append(vars(o))
    return found


def _is_tensor(o: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(o, torch.Tensor)


@contextmanager
def kept(held: Held) -> Iterator[None]:
    """Put all of it back on leaving: the values of arrays, what containers contain, and variables.

    >>> a, calls = np.zeros(2), [1]
    >>> with kept(Held([a], [calls], [])):
    ...     a += 1
    ...     calls.append(2)
    >>> a, calls
    (array([0., 0.]), [1])
    """
    values = [a.copy() if isinstance(a, np.ndarray) else a.detach().clone() for a in held.arrays]
    contents, variables = [copy(c) for c in held.containers], [c.cell_contents for c in held.cells]
    try:
        yield
    finally:
        for cell, variable in zip(held.cells, variables, strict=True):
            cell.cell_contents = variable
        for container, content in zip(held.containers, contents, strict=True):
            _refill(container, content)
        for a, value in zip(held.arrays, values, strict=True):
            if isinstance(a, np.ndarray):
                if a.flags.writeable:
                    np.copyto(a, value)
            elif not a.detach().equal(value):
                a.data.copy_(value)


def _refill(container: Any, content: Any) -> None:
    """Let a container contain what it did."""
    if len(container) == len(content) and all(a is b for a, b in zip(_entries(container), _entries(content), strict=True)):
        return
    container.clear()
    (container.extend if isinstance(container, list | deque) else container.update)(content)


def _entries(container: Any) -> list[Any]:
    return [e for pair in container.items() for e in pair] if isinstance(container, dict) else list(container)
