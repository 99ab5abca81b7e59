"""The exit codes of the commands: a verdict, a mistake of the user, and a crash never share one.

| code | meaning |
|---|---|
| 0 | nothing failed |
| 1 | a check failed unexpectedly, or a declared failure passed |
| 2 | bad usage, or a subject could not be loaded |
| 3 | inconclusive or errored checks, none failed |
| 4 | this program could not go on: a full disk, a lost scheduler, a damaged file, a mistake of its own |
| 130 | interrupted |
"""

from __future__ import annotations

from collections.abc import Sequence

from iresnet_verify.check.audit_result import AuditResult

PASSED, FAILED, UNUSABLE, UNDECIDED, CRASHED, INTERRUPTED = 0, 1, 2, 3, 4, 130


def exit_code(reports: Sequence[AuditResult], errors: Sequence[Exception] = ()) -> int:
    """The exit code for these results and the subjects that could not be loaded."""
    found = {r.status for r in reports}
    if errors or not reports:
        return UNUSABLE
    if "failed" in found:
        return FAILED
    return PASSED if found == {"passed"} else UNDECIDED


def joint(codes: Sequence[int]) -> int:
    """The exit code of many: a failure wins, then what could not be loaded or did not end, then what was not decided."""
    found = set(codes)
    return FAILED if FAILED in found else UNUSABLE if found - {PASSED, UNDECIDED} else max(found, default=PASSED)
