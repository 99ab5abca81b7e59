"""What works on this machine: backends, their devices and dtypes, the extras and how to install what is missing.

Every backend is tried in a process of its own, as many at once as there are cores and with a time limit, so that a package that hangs or
crashes on import is a line of the table, not the end of it. The limit is longer where other work keeps the machine busy.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, distribution, version

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

SECONDS = 4.5
HEAVY = ("jax", "torch")
"""Families that take seconds to import: tried after the others, so that these are not slowed down by them."""
TRIAL = """
import json, sys
import iresnet_backends
from iresnet_backends.capabilities import row
family, found, error = sys.argv[1], [], ""
try:
    iresnet_backends.get(family)
    for device in iresnet_backends.devices(family):
        works = []
        for dtype in row(family + ":" + device).dtypes:
            try:
                iresnet_backends.get(family + ":" + device, dtype=dtype)
                works.append(dtype)
            except Exception:
                pass
        found.append((device, works))
except Exception as problem:
    error = " ".join(str(problem).split())
print(json.dumps([found, error]))
"""


def examine(console: Console) -> None:
    """Print the tables."""
    from iresnet_backends import FAMILIES

    console.print(f"iresnet-ref {_version('iresnet-ref')}, Python {platform.python_version()}, {platform.platform()}")
    console.print(_backends(FAMILIES))
    console.print(_extras())


def _backends(families: tuple[str, ...]) -> Table:
    limit = patience()
    deadline = time.monotonic() + limit
    light_first = sorted(families, key=lambda family: family in HEAVY)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        trials = dict(zip(light_first, pool.map(lambda f: _trial(f, deadline, limit), light_first), strict=True))
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
    """What the capability table says a backend lacks, and on what it has run."""
    from iresnet_backends.capabilities import row

    facts = row(name)
    lacks = [feature for feature in facts.gaps if "/" not in feature]
    partly = [feature for feature in dict.fromkeys(g.partition("/")[0] for g in facts.gaps) if feature not in lacks]
    said = [f"no {', '.join(lacks)}"] if lacks else []
    said += [f"not at every dtype: {', '.join(partly)}"] if partly else []
    said += [f"has run {facts.ran}"] if facts.ran.startswith("never") else []
    return "; ".join(said)


def patience() -> float:
    """Return the seconds that all trials together may take: `SECONDS` on cores of our own, more where others wait for them too."""
    waiting = os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0
    return SECONDS * max(1.0, waiting)


def _trial(family: str, deadline: float, limit: float) -> tuple[list[tuple[str, list[str]]], str]:
    """(devices with the dtypes that work, what went wrong) of a family, tried in a process of its own."""
    seconds = max(0.1, deadline - time.monotonic())
    try:
        trial = subprocess.run([sys.executable, "-c", TRIAL, family], capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return [], f"gave no answer within {limit:.2g} s: it hangs, or the machine is busy"
    try:
        found, error = json.loads(trial.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return [], f"ended with exit code {trial.returncode}"
    return [(str(device), list(dtypes)) for device, dtypes in found], str(error)


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
