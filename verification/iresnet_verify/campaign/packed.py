"""A result as it travels and is stored: packed where it was found, so that who collects the results of many workers only files them.

The body is JSON, compressed; the summary is what tables need, so that they are read without reading every body.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from iresnet_verify.campaign.keys import Key
from iresnet_verify.campaign.unit import Unit
from iresnet_verify.report import baseline
from iresnet_verify.report.json import numbers

SCHEMA = 2
COMPRESSION = 1
"""Of zlib: level 6 takes 2.7 times as long and saves a sixth."""


class State(NamedTuple):
    """What tables need of one check."""

    id: str
    status: str
    declared: bool
    """Whether it was declared to fail."""
    because_of: str | None
    size: float | None
    """How large a failure is (`report.baseline.size`)."""
    e_value: float | None
    """Of the hypothesis that what the check claims is true, where its evidence holds one."""

    @property
    def failed(self) -> bool:
        """Whether it failed without having been declared, or was declared and passed."""
        return (self.status == "failed") != self.declared and self.status in ("failed", "passed")


class Cause(NamedTuple):
    """One finding of an audit: the cause by name, the check that shows it, and the sentence."""

    name: str
    check: str
    wrong: str


class Audited(NamedTuple):
    """One audited subject of a result."""

    name: str
    checks: list[State]
    causes: list[Cause]


class Summary(NamedTuple):
    """What tables need of a result."""

    alpha: float
    """The probability that a statistical check of it fails a correct subject is at most this."""
    content: str
    """Digest of what was found, whatever the seed and how long it took."""
    audits: list[Audited]


@dataclass(frozen=True)
class Packed:
    """What an audit found, as the store keeps it."""

    exit: int
    problem: str
    """Why it is no completed verdict; empty where it is one."""
    key: Key
    summary: str
    """JSON that `read_summary` reads."""
    body: bytes

    def rejected(self, problem: str) -> Packed:
        """The same, as no verdict, because of `problem`."""
        return replace(self, problem=problem, body=_compressed({**unpacked(self.body), "problem": problem}))


Results = Iterator[list[tuple[Unit, Packed]]]
"""What was found, all that is there at once."""


def pack(unit: Unit, record: dict[str, Any]) -> Packed:
    """Pack what was found of a unit: {"exit", "problem", "report", "key"}, with what the unit was beside it."""
    body = {"schema": SCHEMA, "spec": unit.spec, "arguments": unit.arguments, **{k: v for k, v in record.items() if k != "key"}}
    summary = json.dumps(_summarised(unit.alpha, record["report"]))
    return Packed(record["exit"], record["problem"], record["key"], summary, _compressed(body))


def unpacked(body: bytes) -> dict[str, Any]:
    """{"schema", "spec", "arguments", "exit", "problem", "report"}."""
    found: dict[str, Any] = json.loads(zlib.decompress(body))
    return found


def _compressed(body: dict[str, Any]) -> bytes:
    return zlib.compress(json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8"), COMPRESSION)


def _summarised(alpha: float, report: dict[str, Any] | None) -> list[Any]:
    """What `read_summary` reads."""
    audits = [] if report is None else report.get("audits", [report])
    found = [(a["subject"].get("name"), c["id"], c["status"], c["message"], c["evidence"]) for a in audits for c in a.get("checks", ())]
    content = hashlib.sha256(repr(found).encode("utf-8", "backslashreplace")).hexdigest()[:32]
    return [alpha, content, _states(audits)]


def _states(audits: list[dict[str, Any]]) -> list[list[Any]]:
    return [[str(a["subject"]["name"]), [_state(c) for c in a["checks"]],
             [[f["cause"], f["check"], f["wrong"]] for f in a.get("findings", [])]] for a in audits if "checks" in a]


def _state(c: dict[str, Any]) -> list[Any]:
    found = baseline.size_in(numbers(c["evidence"])) if c["status"] == "failed" else None
    return [c["id"], c["status"], c["expected"] is not None, c["because_of"],
            "Infinity" if found == math.inf else found, c["evidence"].get("e_value")]


def read_summary(text: str) -> Summary:
    """What `pack` wrote as the summary."""
    alpha, content, audits = json.loads(text)
    return Summary(alpha, content, [
        Audited(name, [State(i, s, d, b, _number(z), _number(e)) for i, s, d, b, z, e in checks], [Cause(*c) for c in causes])
        for name, checks, causes in audits])


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
