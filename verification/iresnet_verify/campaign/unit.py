"""One audit of a campaign: what is audited, and with what arguments."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from iresnet_verify.report.names import slug
from iresnet_verify.subject.loading import Origin
from iresnet_verify.workers.worker import Job


@dataclass(frozen=True)
class Unit:
    """One audit: a factory, a seed, and the options of the audit."""

    origin: Origin
    seed: int
    budget: str = "quick"
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    alpha: float = 1e-6
    load_seconds: float = 300.0
    check_seconds: float | None = None

    @property
    def spec(self) -> str:
        """FILE.py:FACTORY without folders: how people call it."""
        return f"{Path(self.origin.file).name}:{self.origin.factory}"

    @property
    def title(self) -> str:
        """What is audited, whatever the seed: the factory, what it is called with, and the budget where it is not the quick one."""
        called = f"({self.origin.call})" if self.origin.keywords else ""
        return f"{self.spec}{called}" + (f" {self.budget}" if self.budget != "quick" else "")

    @property
    def arguments(self) -> dict[str, Any]:
        """Everything but the content of files that decides what the audit does."""
        origin = {f.name: getattr(self.origin, f.name) for f in fields(self.origin) if f.name != "file"}
        return {f.name: origin if f.name == "origin" else getattr(self, f.name) for f in fields(self)}

    def name(self, folder: Path) -> str:
        """The name of the audit in a campaign kept in `folder`: readable, and another one for other arguments or another file."""
        place = Path(os.path.relpath(self.origin.file, folder)).as_posix()
        digest = hashlib.sha256(json.dumps([place, self.arguments], sort_keys=True).encode()).hexdigest()[:12]
        return f"{slug(Path(self.origin.file).stem)}-{slug(self.origin.factory)}-{self.budget}-{self.seed}-{digest}"

    def job(self) -> Job:
        """The audit as workers take it."""
        return Job(self.origin, self.seed, self.budget, self.alpha, self.select, self.ignore, self.load_seconds, self.check_seconds)

    def plain(self) -> dict[str, Any]:
        """The unit as JSON knows it, for a process or machine that performs it."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found

    @classmethod
    def read(cls, plain: dict[str, Any]) -> Unit:
        """The unit that `plain` described."""
        known = {f.name for f in fields(cls)}
        kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items() if k in known}
        origin: dict[str, Any] = {**plain["origin"], "arguments": tuple((k, v) for k, v in plain["origin"]["arguments"])}
        kept["origin"] = Origin(**origin)
        return cls(**kept)
