"""Calls that may end the process: while the conventions are determined, each call is logged before it is made.

If a callable kills or hangs the worker meanwhile, `last_call` finds its name in the worker's log. `with_calls_disabled` then
replaces it by a function that raises, so that the checks that do not need it still run.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import IO, Any, NoReturn

from iresnet_verify.running.run import Prepared
from iresnet_verify.subject.conventions import NAMES, Conventions, read_conventions
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.seeds import derived_seed
from iresnet_verify.subject.subject import Subject


class CallLogged(Prepared):
    """A prepared subject whose calls are logged to `log` while its conventions are determined."""

    log: IO[str] | None = None

    def conventions(self, mode: str | None) -> Conventions:
        """Return the conventions in one mode, as `Prepared` does."""
        if mode not in self.conventions_by_mode:
            subject = _logging_calls(self.subject, self.log) if self.log is not None else self.subject
            self.conventions_by_mode[mode] = read_conventions(subject, self.framework, derived_seed(self.seed, "conventions", mode))
        return self.conventions_by_mode[mode]


def _logging_calls(subject: Subject, log: IO[str]) -> Subject:
    def logged(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
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
    wrapped: dict[str, Any] = {name: logged(name, f) for name, f in given.items() if f is not None}
    return replace(subject, **wrapped)


def last_call(log: str) -> str | None:
    """The callable that was called and did not return."""
    marks = re.findall(r"^(?:calling (\w+)|returned)$", log, re.MULTILINE)
    return marks[-1] or None if marks else None


def with_calls_disabled(subject: Subject, disabled: Mapping[str, str]) -> Subject:
    """The subject with callables replaced: each raises a `SubjectError` with its message instead of being called."""

    def disabled_call(message: str) -> Callable[..., NoReturn]:
        def call(*_: object, **__: object) -> NoReturn:
            raise SubjectError(message)

        return call

    wrapped: dict[str, Any] = {name: disabled_call(message) for name, message in disabled.items()}
    return replace(subject, **wrapped)
