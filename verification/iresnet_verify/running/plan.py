"""What will be run, and how alpha is spent: fixed before anything is evaluated."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from iresnet_verify import catalogue
from iresnet_verify.check.registry import READABLE, Check
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.module_state import has_modes
from iresnet_verify.subject.subject import Subject


@dataclass(frozen=True)
class Planned:
    """One check, the modes it runs in, and its share of alpha in each of them (0 for checks without statistics)."""

    check: Check
    modes: tuple[str | None, ...]
    alpha: float


def subject_modes(subject: Subject) -> tuple[str | None, ...]:
    """Return the modes a subject is audited in; (None,) where there is no module to switch."""
    return subject.modes if has_modes(subject.module) else (None,)


def plan(
    subject: Subject, alpha: float, *, select: Iterable[str] | None = None, ignore: Iterable[str] | None = None
) -> list[Planned]:
    """Plan the catalogue for a subject.

    `select` and `ignore` hold ids, families or patterns (`logdet.*`). alpha is split evenly over the planned
    statistical checks × their modes (Bonferroni), including those that will turn out to be skipped. `hygiene.readable` comes first.
    """
    modes = subject_modes(subject)
    kept = selected(select, ignore)
    shares = sum(len(modes) if c.modes else 1 for c in kept if c.statistical)
    return [Planned(c, modes if c.modes else modes[-1:], alpha / shares if c.statistical else 0.0) for c in kept]


def selected(select: Iterable[str] | None = None, ignore: Iterable[str] | None = None) -> list[Check]:
    """Return the checks that the patterns leave, `hygiene.readable` first. Raises SubjectError for one that matches none."""
    checks = catalogue.load()
    in_order = sorted(checks.values(), key=lambda c: c.id != READABLE)
    return [c for c in in_order if _matches(c, select, True, checks) and not _matches(c, ignore, False, checks)]


def require_known(ids: Iterable[str], what: str) -> None:
    """Raise a `SubjectError` where an id is not in the catalogue."""
    checks = catalogue.load()
    for id in ids:
        if id not in checks:
            close = [c for c in checks if id and c.startswith(id)] or difflib.get_close_matches(id, checks, 1)
            raise SubjectError(f"{what}: expected a check id, got {id!r}; "
                               + (f"try {close[0]!r}" if close else "see: iresnet-verify checks"))


def _matches(check: Check, patterns: Iterable[str] | None, default: bool, checks: dict[str, Check]) -> bool:
    if patterns is None:
        return default
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in patterns:
        if not any(c.family == pattern or fnmatchcase(c.id, pattern) for c in checks.values()):
            require_known([pattern], "select/ignore")
    return any(check.family == pattern or fnmatchcase(check.id, pattern) for pattern in patterns)
