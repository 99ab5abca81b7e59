"""Reports as JSON, schema 1.

One report is one object `{"schema": 1, "subject": …, "environment": …, "seed": …, "alpha": …, "budget": …,
"status": …, "findings": […], "refused": […], "checks": […]}`; several are `{"schema": 1, "audits": […]}`.
The files are strict JSON: a number that JSON
does not know is one of the strings "NaN", "Infinity", "-Infinity", and `read` turns these back into floats in evidence
and curves.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from iresnet_verify.check.audit_result import AuditResult
from iresnet_verify.check.finding import Finding
from iresnet_verify.check.result import SCHEMA, CheckResult
from iresnet_verify.report.text import SUPPORTS, certificates, refusals, support_of

_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_FIELDS = (
    "id", "family", "status", "expected", "mode", "kind", "claim", "message", "evidence", "tolerance", "oracle",
    "because_of", "reference", "reproduce", "seconds", "cpu_seconds", "curves",
)


def plain(value: Any) -> Any:
    """The value as builtins (dict, list, str, int, float, bool, None); what has no such form becomes its text.

    Arrays of any framework become nested lists; nothing here imports the framework.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    if hasattr(value, "__array__"):
        listed = np.asarray(value).tolist()
        return plain(listed) if type(listed) in (bool, int, float, str, list) else str(listed)
    kinds = (k for k in (bool, int, float, str) if isinstance(value, k))
    return next(kinds, str)(value)


def _strict(value: Any) -> Any:
    """Builtins that strict JSON and UTF-8 can carry."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_strict(k): _strict(v) for k, v in value.items()}
    return [_strict(v) for v in value] if isinstance(value, list) else value


def as_dict(report: AuditResult) -> dict[str, Any]:
    """One report as a dictionary that `json.dumps(..., allow_nan=False)` accepts."""
    return _strict(
        plain(
            {
                "schema": SCHEMA,
                "subject": report.subject,
                "environment": report.environment,
                "seed": report.seed,
                "alpha": report.alpha,
                "budget": report.budget,
                "status": report.status,
                "seconds": report.seconds,
                "cpu_seconds": report.cpu_seconds,
                "established": {
                    **{g.key: [c.id for c in report.checks if support_of(c) is g] for g in SUPPORTS}, "certificates": certificates(report),
                },
                "findings": [asdict(f) for f in report.findings],
                "refused": [{"check": check, "reason": reason} for check, reason in refusals(report)],
                "checks": [{name: getattr(c, name) for name in _FIELDS} for c in report.checks],
            }
        )
    )


def document(reports: Sequence[AuditResult], errors: Sequence[Exception] = ()) -> dict[str, Any]:
    """One report as itself; several, or none, as a list of audits; `errors`: the subjects that could not be loaded."""
    audits = [as_dict(r) for r in reports]
    found: dict[str, Any] = audits[0] if len(audits) == 1 else {"schema": SCHEMA, "audits": audits}
    return {**found, "errors": [_strict(str(e)) for e in errors]} if errors else found


def write(reports: Sequence[AuditResult], path: str | Path, errors: Sequence[Exception] = ()) -> None:
    """Write the JSON file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document(reports, errors), indent=1, allow_nan=False, ensure_ascii=False) + "\n", "utf-8")


def read(path: str | Path) -> list[AuditResult]:
    """The reports in a file written by `write` (without counterexamples, which JSON does not carry)."""
    found = json.loads(Path(path).read_text("utf-8"))
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ValueError(f"{path}: expected a report with schema {SCHEMA}; `iresnet-verify audit --json` writes one")
    return [_report(a) for a in found.get("audits", [found])]


def _report(audit: Mapping[str, Any]) -> AuditResult:
    known = {f.name for f in fields(CheckResult)}
    checks = [
        CheckResult(**{k: numbers(v) if k in ("evidence", "curves") else v for k, v in c.items() if k in known})
        for c in audit["checks"]
    ]
    return AuditResult(
        subject=numbers(audit["subject"]), environment=audit["environment"], seed=audit["seed"], alpha=audit["alpha"],
        budget=audit["budget"], checks=checks, seconds=audit["seconds"],
        findings=[_finding({**f}) for f in audit.get("findings", [])],
    )


def numbers(value: Any) -> Any:
    """A value as it was before it was written: what strict JSON has no number for becomes a float again."""
    if isinstance(value, str):
        return _SPECIAL.get(value, value)
    if isinstance(value, dict):
        return {k: numbers(v) for k, v in value.items()}
    return [numbers(v) for v in value] if isinstance(value, list) else value


def _finding(found: dict[str, Any]) -> Finding:
    found["follows"] = tuple(found["follows"])
    return Finding(**found)
