"""`parametrize_with_checks`: every check of the catalogue as one test of yours.

    @parametrize_with_checks([my_factory])
    def test_my_flow(subject, check):
        check(subject)

A failed check fails the test, with its evidence and the path of a reproduction; a declared failure is a strict xfail;
skipped and inconclusive checks are skips with their reason; an errored check raises. Tracebacks end in your test. On GitHub each
failure is an annotation at the factory, or at the test where the factory has no line. pytest loads this module in every run,
so it imports nothing but pytest until it is used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from iresnet_verify.check.finding import Finding
    from iresnet_verify.check.result import CheckResult
    from iresnet_verify.reproduction.reproduce import Audited
    from iresnet_verify.running.plan import Planned
    from iresnet_verify.subject.loading import Origin
    from iresnet_verify.subject.subject import Subject

_config: list[pytest.Config] = []


def pytest_configure(config: pytest.Config) -> None:
    """Remember where the cache is: reproductions go there."""
    _config.append(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Forget it again (a run may be nested in another)."""
    _config.remove(config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Carry the annotation of a failed check to the process that prints."""
    report = yield
    found = getattr(call.excinfo.value, "finding", None) if call.excinfo is not None else None
    if found is not None and report.failed and os.environ.get("GITHUB_ACTIONS") == "true":
        from iresnet_verify.report.github import line

        result, subject, place, said = found
        file, number, _ = item.location
        text = line(result, subject, place or (str(item.config.rootpath / file), (number or 0) + 1), said)
        report.user_properties.append((ANNOTATION, text))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the annotations, each on a line of its own, where GitHub reads them."""
    for report in terminalreporter.getreports("failed"):
        for name, text in getattr(report, "user_properties", ()):
            if name == ANNOTATION:
                terminalreporter.ensure_newline()
                terminalreporter.write_line(text)


ANNOTATION = "iresnet-verify annotation"


class CheckError(Exception):
    """A check ended in an error: it could not be carried out."""


class BoundCheck:
    """One check, with seed, budget and its share of alpha; call it with the subject."""

    def __init__(self, audited: Audited, planned: Planned, failed: list[CheckResult]) -> None:
        self.audited, self.planned = audited, planned
        self.failed = failed
        """The failures of this subject so far: a later one may follow from them."""

    def __repr__(self) -> str:
        """The id of the check, as in the report."""
        return f"<check {self.planned.check.id}>"

    def __call__(self, subject: Subject) -> CheckResult:
        """Run the check; return its result if it passed, else raise what pytest understands."""
        __tracebackhide__ = True
        from iresnet_verify.running.run import Prepared, run_check

        audited = self.audited
        if subject is not audited.subject:
            audited = replace(audited, prepared=Prepared(subject, audited.seed), origin=None)
        result = run_check(audited.prepared, self.planned, seed=audited.seed, budget=audited.budget)
        if result.status == "skipped":
            pytest.skip(result.message or "skipped")
        if result.status == "inconclusive":
            pytest.skip(f"inconclusive: {result.message}")
        if result.status == "error":
            raise CheckError(f"{result.id}: {result.message}")
        if result.status == "failed":
            found = self._attributed(result, audited)
            text = _explain(found, audited)
            failure = AssertionError(text)
            if found[0].because_of is None:  # what follows from another failure is annotated there
                said = text.splitlines()[0].partition(": ")[2]
                setattr(failure, "finding", (result, subject.name, _place(audited.origin), said))  # noqa: B010  for makereport
            raise failure
        return result

    def _attributed(self, result: CheckResult, audited: Audited) -> tuple[CheckResult, Sequence[Finding]]:
        """The failure with `because_of`, where it follows from one that was seen before, and the findings up to now."""
        from iresnet_verify.diagnosis.diagnose import diagnose

        self.failed.append(result)
        results, findings = diagnose(audited.prepared, self.failed, seed=audited.seed, budget=audited.budget)
        return results[-1], findings


def _explain(found: tuple[CheckResult, Sequence[Finding]], audited: Audited) -> str:
    result, findings = found
    from iresnet_verify.report.text import details
    from iresnet_verify.reproduction.reproduce import write

    path = write(result, audited, _folder())
    said = next((f.sentences for f in findings if result.id in (f.check, result.because_of) or f.check == result.because_of), "")
    if result.because_of is not None:
        return f"{result.id}: follows from {result.because_of}: {said}\nreproduce: {path}"
    return f"{result.id}: {said}\n{details(replace(result, reproduce=str(path)))}"


def _place(origin: Origin | None) -> tuple[str, int] | None:
    from iresnet_verify.report.github import place_of

    return place_of(origin.file, origin.factory) if origin is not None else None


def parametrize_with_checks(
    factories: Iterable[Callable[[], Subject | Sequence[Subject]] | Subject], budget: str = "quick", seed: int = 0, *,
    alpha: float = 1e-6, select: Iterable[str] | None = None, ignore: Iterable[str] | None = None,
) -> pytest.MarkDecorator:
    """Parametrise a test `(subject, check)` with every planned check of every subject that the factories return.

    The factories are called while pytest collects, with all generators seeded. A subject may stand for its factory.
    Raises `SubjectError` where a factory raises or returns something else.

    >>> from iresnet_verify import Subject
    >>> double = Subject(name="double", event_shape=(2,), forward=lambda x: 2 * x, inverse=lambda y: y / 2, framework="numpy")
    >>> @parametrize_with_checks([double], select=["inverse.recovers-input"])
    ... def test_double(subject, check):
    ...     check(subject)
    """
    from iresnet_verify.report.names import slug
    from iresnet_verify.reproduction.reproduce import Audited
    from iresnet_verify.running.run import Prepared, plan_audit

    parameters = []
    names: list[str] = []
    for subject, origin, index in _subjects(factories, seed):
        prepared = Prepared(subject, seed)
        names.append(subject.name)
        count = names.count(subject.name)
        label = slug(subject.name) + (f"-{count}" if count > 1 else "")
        failed: list[CheckResult] = []
        for planned in plan_audit(prepared, budget, alpha, select=select, ignore=ignore):
            reason = subject.expected_failures.get(planned.check.id)
            marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True, raises=AssertionError)]
            check = BoundCheck(Audited(prepared, origin, index, seed, budget, planned.alpha, label), planned, failed)
            parameters.append(pytest.param(subject, check, marks=marks, id=f"{label}-{planned.check.id}"))
    return pytest.mark.parametrize(("subject", "check"), parameters)


def _subjects(factories: Iterable[Any], seed: int) -> Iterator[tuple[Subject, Origin | None, int]]:
    from iresnet_verify.subject.errors import SubjectError
    from iresnet_verify.subject.loading import seed_everything
    from iresnet_verify.subject.subject import Subject

    for factory in factories:
        seed_everything(seed)
        made = factory if isinstance(factory, Subject) or not callable(factory) else factory()
        for index, subject in enumerate(made if isinstance(made, list | tuple) else [made]):
            if not isinstance(subject, Subject):
                name = getattr(factory, "__name__", repr(factory))
                raise SubjectError(f"{name}: expected a Subject or a list of them, got {type(subject).__name__}")
            yield subject, _origin(factory), index


def _origin(factory: object) -> Origin | None:
    """FILE.py:FACTORY of a function at the top of a module that is no part of a package; reproductions load it."""
    from iresnet_verify.subject.loading import Origin

    name = getattr(factory, "__name__", "")
    module = sys.modules.get(getattr(factory, "__module__", None) or "")
    if module is None or module.__package__ or getattr(module, name, None) is not factory or not module.__file__:
        return None
    return Origin(str(Path(module.__file__).resolve()), name)


def _folder() -> Path:
    cache = getattr(_config[-1], "cache", None) if _config else None
    return Path(cache.mkdir("iresnet-verify")) if cache is not None else Path("iresnet-verify-reproduce")
