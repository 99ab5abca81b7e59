"""Reading a subject that may end the process: each callable is announced in the worker's log before it is called.

If a callable kills or hangs the worker while the subject is read, the log says which one it was. It is then replaced by
a `Refusal`, so that the checks that do not need it still run.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import IO, Any, NoReturn

from iresnet_verify.running.run import Prepared
from iresnet_verify.subject.conventions import NAMES, Reading, read
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.seeds import entropy
from iresnet_verify.subject.subject import Subject


class Announced(Prepared):
    """A prepared subject that writes to `log` what it is about to call while it is read."""

    log: IO[str] | None = None

    def reading(self, mode: str | None) -> Reading:
        """Return the conventions in one mode, as `Prepared` does."""
        if mode not in self.readings:
            subject = _announcing(self.subject, self.log) if self.log is not None else self.subject
            self.readings[mode] = read(subject, self.framework, entropy(self.seed, "reading", mode))
        return self.readings[mode]


def _announcing(subject: Subject, log: IO[str]) -> Subject:
    def announce(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            log.write(f"calling {name}\n")
            log.flush()
            try:
                return function(*arguments, **keywords)
            finally:
                log.write("returned\n")

        return call

    given = {name: getattr(subject, name) for name in NAMES}
    wrapped: dict[str, Any] = {name: announce(name, f) for name, f in given.items() if f is not None}
    return replace(subject, **wrapped)


def deadly(log: str) -> str | None:
    """The callable that was announced and did not return."""
    marks = re.findall(r"^(?:calling (\w+)|returned)$", log, re.MULTILINE)
    return marks[-1] or None if marks else None


def refusing(subject: Subject, refused: Mapping[str, str]) -> Subject:
    """The subject with callables replaced: each raises a `SubjectError` with its message instead of being called."""

    def refuse(message: str) -> Callable[..., NoReturn]:
        def call(*_: object, **__: object) -> NoReturn:
            raise SubjectError(message)

        return call

    wrapped: dict[str, Any] = {name: refuse(message) for name, message in refused.items()}
    return replace(subject, **wrapped)
