"""The record of a run as JSON, and two of them side by side."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from run_folder import replace_text
from timing import Line

SCHEMA = 1
PACKAGES = ("numpy", "torch", "jax", "normflows", "zuko", "FrEIA", "torchdeq", "iresnet-ref")


@dataclass
class Record:
    """What ran, on what, and its lines; `notes` by group, `missing` the packages that were not there."""

    machine: dict[str, Any]
    lines: list[Line]
    notes: dict[str, str]
    missing: list[str]
    seconds: float = 0.0


def machine() -> dict[str, Any]:
    """Return what a reader needs to place the times: processor, packages, threads, time of day."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    cpu = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor() or "unknown")
    return {"processor": cpu, "python": platform.python_version(), "packages": versions, "at": time.strftime("%Y-%m-%d %H:%M")}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text("utf-8").splitlines() if path.exists() else []


def save(record: Record, path: Path) -> None:
    """Write the record; infinite times are null."""
    found = {"schema": SCHEMA, **asdict(record)}
    found["lines"] = [{key: _without(value, math.inf, None) for key, value in line.items()} for line in found["lines"]]
    replace_text(path, json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False))


def _without(value: Any, this: Any, that: Any) -> Any:
    """Return a value, or each of a pair, with `that` for `this`."""
    return tuple(_without(v, this, that) for v in value) if isinstance(value, list | tuple) else that if value == this else value


def load(path: Path) -> Record:
    """Read a record. Raises ValueError for another schema or no record at all."""
    try:
        found = json.loads(path.read_text("utf-8"))
        if found.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        lines = [Line(**{key: _without(value, None, math.inf) for key, value in line.items()}) for line in found.pop("lines")]
        return Record(**found, lines=lines)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: expected a record of `make bench` of schema {SCHEMA}, got {error!r}; run `make bench` again") from error


@dataclass(frozen=True)
class Change:
    """A ratio to the group's base before and now: `verdict` is "faster" or "slower" where the intervals do not meet."""

    before: Line
    now: Line

    @property
    def verdict(self) -> str:
        """What may be said."""
        if self.now.high < self.before.low:
            return "faster"
        return "slower" if self.now.low > self.before.high else ""


def changes(old: Record, new: Record) -> Iterator[Change]:
    """Yield what both records have, but for the bases, whose ratio is 1."""
    before = {(line.group, line.contender): line for line in old.lines}
    for line in new.lines:
        was = before.get((line.group, line.contender))
        if was is not None and not line.ratio == line.low == line.high == 1.0:
            yield Change(was, line)
