"""What works on this machine: backends, their devices and dtypes, the extras and how to install what is missing.

Every backend is tried in a process of its own, as many at once as there are cores and with a time limit, so that a package that hangs or
crashes on import is a line of the table, not the end of it. The limit is longer where other work keeps the machine busy.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import re
from collections.abc import Sequence
from concurrent.futures import Future
from importlib.metadata import PackageNotFoundError, distribution, version
from typing import Any

from pebble import ProcessExpired, ProcessPool
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import iresnet_backends
from iresnet_backends.capabilities import row

Trial = tuple[list[tuple[str, list[str]]], str]
"""(devices with the dtypes that work, what went wrong)."""
SECONDS = 4.5
FIRST = "torch"
"""The longest trial begins first, so that nothing waits for it at the end."""


def examine(console: Console) -> None:
    """Print the tables."""
    console.print(f"iresnet-ref {_version('iresnet-ref')}, Python {platform.python_version()}, {platform.platform()}")
    console.print(_backends(iresnet_backends.FAMILIES))
    console.print(_extras())


def issue_lines() -> list[str]:
    """The same in a few lines of plain text, for an issue: versions, then each backend with the dtypes that work."""
    lines = [f"iresnet-ref {_version('iresnet-ref')}, Python {platform.python_version()}, {platform.platform()}, {os.cpu_count()} cores"]
    packages = dict.fromkeys(p for found in _requirements().values() for p in found)
    lines.append(", ".join(f"{p} {_version(p)}" for p in ("numpy", "array-api-compat", *packages) if _version(p)))
    trials = _trials(sorted(iresnet_backends.FAMILIES, key=lambda family: family != FIRST))
    for family in iresnet_backends.FAMILIES:
        found, error = trials[family]
        lines += [f"{family}:{device}: {', '.join(dtypes)}" for device, dtypes in found]
        lines += [f"{family}: {error[:110]}"] if error else []
    return lines


def _backends(families: tuple[str, ...]) -> Table:
    trials = _trials(sorted(families, key=lambda family: family != FIRST))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", title="Backends", title_justify="left")
    for column in ("backend", "dtypes", "remark"):
        table.add_column(column, overflow="fold")
    for family in families:
        found, error = trials[family]
        for device, dtypes in found:
            table.add_row(Text(f"{family}:{device}", "green"), ", ".join(dtypes), _missing(f"{family}:{device}"))
        if error:
            table.add_row(Text(family, "yellow"), "–", Text(error))
    return table


def _missing(name: str) -> str:
    """What a backend lacks by the capability table, and on what it has run."""
    facts = row(name)
    lacks = [feature for feature in facts.gaps if "/" not in feature]
    partly = [feature for feature in dict.fromkeys(g.partition("/")[0] for g in facts.gaps) if feature not in lacks]
    remarks = [f"no {', '.join(lacks)}"] if lacks else []
    remarks += [f"not at every dtype: {', '.join(partly)}"] if partly else []
    remarks += [f"has run {facts.ran}"] if facts.ran.startswith("never") else []
    return "; ".join(remarks)


def time_limit() -> float:
    """Return the seconds that a trial may take: `SECONDS` on cores of our own, more where others wait for them too."""
    waiting = os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0
    return SECONDS * max(1.0, waiting)


def _trials(families: Sequence[str]) -> dict[str, Trial]:
    """Family -> the outcome of its trial, each in a process of its own that begins with what all of them need."""
    limit = time_limit()
    # forked from a server that has it imported, where the system can: an import for each of them would take most of the time
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload([__name__, "iresnet_backends", "array_api_compat.numpy"])
    with ProcessPool(os.cpu_count() or 1, max_tasks=1, initializer=_silence, context=context) as pool:
        running = {family: pool.schedule(attempt, args=(family,), timeout=limit) for family in families}
        return {family: _outcome(future, limit) for family, future in running.items()}


def _outcome(future: Future[Trial], limit: float) -> Trial:
    try:
        return future.result()
    except TimeoutError:
        return [], f"did not finish within {limit:.2g} s: it hangs, or the machine is busy"
    except ProcessExpired as end:
        return [], f"ended with exit code {end.exitcode}"


def attempt(family: str) -> Trial:
    """Return (devices with the dtypes that work, what went wrong) of a family."""
    found: list[tuple[str, list[str]]] = []
    try:
        iresnet_backends.get(family)
        for device in iresnet_backends.devices(family):
            name = f"{family}:{device}"
            found.append((device, [dtype for dtype in row(name).dtypes if _works(name, dtype)]))
    except Exception as problem:  # whatever a package raises on import
        return found, " ".join(str(problem).split())
    return found, ""


def _works(name: str, dtype: str) -> bool:
    try:
        iresnet_backends.get(name, dtype=dtype)
    except Exception:  # whatever a driver raises
        return False
    return True


def _silence() -> None:
    """What packages print on import is not part of the table."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)


def _extras() -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", title="Extras", title_justify="left")
    for column in ("extra", "packages", "missing"):
        table.add_column(column, overflow="fold")
    for extra, packages in _requirements().items():
        here = {p: _version(p) for p in packages}
        present = ", ".join(f"{p} {v}" for p, v in here.items() if v)
        absent = [p for p, v in here.items() if not v]
        remedy = f'{", ".join(absent)}: pip install "iresnet-ref[{extra}]"' if absent else ""
        table.add_row(Text(extra, "yellow" if absent else "green"), present, Text(remedy))
    return table


def _requirements() -> dict[str, list[str]]:
    """Extra -> the packages it asks for, from this distribution's own metadata."""
    found: dict[str, list[str]] = {}
    try:
        requires = distribution("iresnet-ref").requires or []
    except PackageNotFoundError:
        return found
    for line in requires:
        match = re.match(r"\s*([A-Za-z0-9._-]+)[^;]*;.*\bextra\s*==\s*['\"]([^'\"]+)['\"]", line)
        if match and match[1] != "iresnet-ref":
            found.setdefault(match[2], []).append(match[1])
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
