"""The gallery's driver: what counts as declared, and what must fail it."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import pytest
from places import EXAMPLES
from rich.console import Console

from iresnet_verify.check.audit_result import AuditResult
from iresnet_verify.check.outcome import Status
from iresnet_verify.check.result import CheckResult


@pytest.fixture(scope="module")
def gallery() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:  # the processes of reproductions import it by this name
        patch.syspath_prepend(str(EXAMPLES))
        yield importlib.import_module("gallery")


def result(status: Status, expected: str | None = None, reproduce: str | None = None) -> CheckResult:
    return CheckResult(
        id="inverse.recovers-input", family="inverse", status=status, claim="", reference="", kind="search",
        message="off by 1", expected=expected, reproduce=reproduce,
    )


def surprises(gallery: ModuleType, *checks: CheckResult) -> list[str]:
    with TemporaryDirectory() as folder:
        show = gallery.Show(Console(quiet=True), Path(folder) / "page.html", 2)
        show(AuditResult({"name": "a subject"}, {}, 0, 1e-6, "quick", checks))
        found: list[str] = show.finish()
    return found


def script(folder: Path, text: str) -> str:
    path = folder / "reproduction.py"
    path.write_text(text, "utf-8")
    return str(path)


@pytest.mark.parametrize("status", ["passed", "inconclusive", "skipped"])
def test_what_is_neither_failed_nor_declared_is_no_surprise(gallery: ModuleType, status: Status) -> None:
    assert not surprises(gallery, result(status))


@pytest.mark.parametrize("status", ["failed", "error"])
def test_an_undeclared_failure_or_error_is_a_surprise(gallery: ModuleType, status: Status) -> None:
    assert "inverse.recovers-input" in surprises(gallery, result(status))[0]


@pytest.mark.parametrize("status", ["passed", "inconclusive", "skipped", "error"])
def test_a_declared_failure_that_did_not_fail_is_a_surprise(gallery: ModuleType, status: Status) -> None:
    assert len(surprises(gallery, result(status, "a broken promise"))) == 1


def test_a_declared_failure_whose_reproduction_still_shows_it_is_no_surprise(gallery: ModuleType, tmp_path: Path) -> None:
    still_wrong = script(tmp_path, "import sys; sys.exit(1)")
    assert not surprises(gallery, result("failed", "a broken promise", still_wrong))


@pytest.mark.parametrize("text", ["", "import sys; sys.exit(2)", "raise RuntimeError('cannot load')"])
def test_a_reproduction_that_does_not_show_it_is_a_surprise(gallery: ModuleType, tmp_path: Path, text: str) -> None:
    """An uncaught exception also exits with 1: it is told apart by its traceback."""
    assert len(surprises(gallery, result("failed", "a broken promise", script(tmp_path, text)))) == 1


def test_reproductions_are_executed_side_by_side(gallery: ModuleType, tmp_path: Path) -> None:
    """Each of the two waits for the other: one after another neither would end as it should."""
    text = """
import pathlib, sys, time
here = pathlib.Path(__file__)
here.with_suffix(".begun").touch()
other = here.with_name({other!r})
for _ in range(600):
    if other.exists():
        sys.exit(1)
    time.sleep(0.1)
sys.exit(2)
"""
    paths = [tmp_path / "a.py", tmp_path / "b.py"]
    for path, other in zip(paths, ("b.begun", "a.begun"), strict=True):
        path.write_text(text.format(other=other), "utf-8")
    assert not surprises(gallery, *(result("failed", "a broken promise", str(path)) for path in paths))


@pytest.mark.parametrize("missing", [None, "no-such-file.py"])
def test_a_declared_failure_without_a_reproduction_is_a_surprise(gallery: ModuleType, missing: str | None) -> None:
    assert len(surprises(gallery, result("failed", "a broken promise", missing))) == 1


def test_every_factory_of_the_gallery_exists(gallery: ModuleType) -> None:
    for origin in gallery.origins() + gallery.origins(published=True):
        tree = ast.parse(Path(origin.file).read_text("utf-8"))
        assert origin.factory in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_subject_file_is_in_the_gallery(gallery: ModuleType) -> None:
    files = {p.name for p in (EXAMPLES / "subjects").glob("*.py") if not p.name.startswith("_")}
    assert files == {Path(origin.file).name for origin in gallery.origins() + gallery.origins(published=True)}
