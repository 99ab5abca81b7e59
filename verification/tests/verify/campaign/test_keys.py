"""Keys see everything: whatever an audit loaded makes its result stale when it changes, and it is said what changed."""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from subjects.campaigns import answer, project, reports, timeless, units

from iresnet_verify.campaign import auditor as auditors
from iresnet_verify.campaign import keys, run
from iresnet_verify.campaign.auditor import Auditor, perform
from iresnet_verify.campaign.engines import Engine
from iresnet_verify.campaign.keys import Present
from iresnet_verify.campaign.store import Store
from iresnet_verify.campaign.unit import Unit
from iresnet_verify.workers.loaded_code import LoadedCode


def stale(file: Path, folder: Path, factory: str = "factory") -> list[str]:
    """Why the audit would be done again."""
    (unit,) = units(file, 1, factory)
    with Store(folder) as store:
        _, reasons = run.valid({unit.name(folder): unit}, store, Present())
    return [why for found in reasons.values() for why in found]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, auditor: Auditor) -> tuple[Path, Path]:
    """A project, and the folder of a campaign that audited three factories of it."""
    place = tmp_path_factory.mktemp("keys")
    file, folder = project(place / "project"), place / "campaign"
    three = [*units(file, 1), *units(file, 1, "with_data"), *units(file, 1, "imports_late")]
    found = run.run(three, folder, run.Options(Engine(workers=1), task=auditor))
    assert [r is not None and r.complete and r.exit == 0 for r in found.results] == [True] * 3
    return file, folder


@pytest.mark.parametrize(
    ("factory", "changed", "seen"),
    [("factory", "subject.py", True), ("factory", "layers.py", True), ("with_data", "slope.txt", True), ("imports_late", "late.py", True),
     ("factory", "slope.txt", False), ("factory", "late.py", False), ("with_data", "loads.txt", False)],
)
def test_a_file_that_was_loaded_or_opened_counts_and_no_other(audited: tuple[Path, Path], factory: str, changed: str, seen: bool) -> None:
    file, folder = audited
    assert stale(file, folder, factory) == []
    path = file.parent / changed
    before = path.read_text()
    path.write_text(before + "\n")
    try:
        assert stale(file, folder, factory) == ([f"{changed} changed"] if seen else [])
        path.unlink()
        assert stale(file, folder, factory) == ([f"{changed} is gone"] if seen else [])
    finally:
        path.write_text(before)


def test_files_are_looked_at_whenever_it_is_asked(audited: tuple[Path, Path]) -> None:
    """Else a campaign would not see that another one on its folder has done the work with changed code, and do it again."""
    file, folder = audited
    (unit,), present, layers = units(file, 1), Present(), file.parent / "layers.py"
    with Store(folder) as store:
        (result,) = list(store.results([unit.name(folder)]))
        key = store.keys()[result.key]
    before = layers.read_text()
    try:
        assert present.changes(key, unit) == []
        layers.write_text("SLOPE = 1.25\n")
        assert present.changes(key, unit) == ["layers.py changed"]
    finally:
        layers.write_text(before)


def test_the_same_project_elsewhere_keeps_its_results(audited: tuple[Path, Path], tmp_path: Path) -> None:
    file, folder = audited
    copy = project(tmp_path / "copy")
    (unit,), (other,) = units(file, 1), units(copy, 1)
    with Store(folder) as store:
        (result,) = list(store.results([unit.name(folder)]))
        key = store.keys()[result.key]
    assert Present().changes(key, other) == []
    assert other.name(tmp_path) != unit.name(tmp_path), "two files of one name are two subjects"


def test_distributions_python_the_machine_and_this_package_count(audited: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    file, folder = audited
    (unit,) = units(file, 1)
    with Store(folder) as store:
        (result,) = list(store.results([unit.name(folder)]))
        key = store.keys()[result.key]
    assert {"numpy"} <= key["distributions"].keys()
    monkeypatch.setattr(keys, "_distribution", lambda name: "9.9 0000" if name == "numpy" else key["distributions"][name])
    (said,) = Present().changes(key, unit)
    assert said.startswith("numpy changed from 2")
    assert said.endswith(" to 9.9")
    version = key["distributions"]["numpy"].split()[0]
    monkeypatch.setattr(keys, "_distribution", lambda name: f"{version} 0000" if name == "numpy" else key["distributions"][name])
    assert Present().changes(key, unit) == [f"numpy {version} was installed anew with other files"]
    monkeypatch.undo()
    monkeypatch.setattr(keys, "package_digest", lambda: "another")
    assert Present().changes(key, unit) == ["the code of iresnet-ref changed"]
    monkeypatch.undo()
    monkeypatch.setenv("XLA_FLAGS", "--fast")
    assert Present().changes(key, unit) == ["XLA_FLAGS changed from none to --fast"]
    monkeypatch.undo()
    other = {**key, "machine": {**key["machine"], "architecture": "vax"}, "versions": {**key["versions"], "implementation": "PyPy"}}
    said = " · ".join(Present().changes(other, unit))
    assert "architecture changed from vax to" in said
    assert "implementation changed from PyPy to CPython" in said
    assert Present(("files",)).changes(other, unit) == [], "on a cluster nobody here knows the machine of a worker"


def test_the_package_digest_is_of_its_files_not_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text("1")
    monkeypatch.setattr(keys, "OURS", (str(tmp_path),))
    before = keys.package_digest()
    assert keys.package_digest() == before
    (tmp_path / "a.py").write_text("2")
    assert keys.package_digest() != before


def test_code_is_never_taken_from_a_stale_cache(tmp_path: Path, auditor: Auditor) -> None:
    """Python takes compiled code of a source with equal time and size; a clock set back makes such twins."""
    file = project(tmp_path)
    layers = tmp_path / "layers.py"
    os.utime(layers, (1e9, 1e9))
    __import__("py_compile").compile(str(layers), doraise=True)  # leaves the compiled SLOPE = 1.5 beside the source
    layers.write_text("SLOPE = 0.0\n")
    os.utime(layers, (1e9, 1e9))
    found = auditor(units(file, 1)[0], tmp_path / "out")
    assert found["exit"] != 0, "y / 0 is no inverse of 0·x"
    assert found["key"]["files"]["layers.py"] == keys.digest_of(str(layers))


def test_an_import_that_changes_during_an_audit_is_no_verdict(tmp_path: Path, auditor: Auditor) -> None:
    file = project(tmp_path)
    found = auditor(units(file, 1, "rewrites_its_import")[0], tmp_path / "out")
    assert found["problem"] == "layers.py changed while it was audited"


def test_what_changed_is_said_and_only_that_is_done_again(tmp_path: Path) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    said: list[str] = []
    calls: list[Unit] = []

    def task(unit: Unit, out: Path) -> dict[str, object]:
        calls.append(unit)
        code = LoadedCode({str(file.parent / n): keys.digest_of(str(file.parent / n)) for n in ("subject.py", "layers.py")}, ())
        return {**answer(unit), "key": keys.key_of(unit, code)}

    run.run(units(file, 3), folder, run.Options(task=task))
    run.run(units(file, 5), folder, run.Options(task=task))
    assert [u.seed for u in sorted(calls, key=lambda u: u.seed)] == [0, 1, 2, 3, 4]
    (file.parent / "layers.py").write_text("SLOPE = 1.25\n")
    found = run.run(units(file, 5), folder, run.Options(task=task, note=said.append))
    assert said == found.notes == ["layers.py changed: 5 audits are done again"]
    assert len(calls) == 10
    (file.parent / "layers.py").write_text("SLOPE = 1.5\n")
    back = run.run(units(file, 5), folder, run.Options(task=task))
    assert len(calls) == 10, "the earlier results hold again"
    assert {r.key for r in back.results if r} != {r.key for r in found.results if r}, "and it is they that are reported"
    run.run(units(file, 5), folder, run.Options(task=task, fresh=True))
    assert len(calls) == 15
    assert None not in reports(found.results)


def test_a_fresh_verdict_replaces_the_one_of_the_same_code_and_says_where_it_is_another(tmp_path: Path) -> None:
    """What a key does not see is the reason to ask for --fresh."""
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    exits = iter([0, 0, 1, 0])

    def task(unit: Unit, out: Path) -> dict[str, object]:
        key = keys.key_of(unit, LoadedCode({str(file): keys.digest_of(str(file))}, ()))
        return {**answer(unit, exit=next(exits)), "key": key}

    run.run(units(file, 2), folder, run.Options(task=task))
    found = run.run(units(file, 2), folder, run.Options(Engine(workers=1), task=task, fresh=True))
    assert [r and r.exit for r in found.results] == [1, 0]
    assert found.notes == [f"{units(file, 1)[0].name(folder)}: another verdict than before with the same code; what it depends on is not "
                           "in its key, or it does not repeat"]
    with Store(folder) as store:
        assert [r.exit for r in store.results()] == [1, 0], "one verdict a key"


def test_an_auditor_whose_package_or_libraries_changed_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its forks would run the old code and be filed under the new."""
    now = ["a", "a", "b"]
    monkeypatch.setattr(keys, "installed", lambda: now.pop(0))
    monkeypatch.setattr(auditors, "_end_with_client", lambda requests, over: None)
    asked: list[Path] = []
    monkeypatch.setattr(auditors, "perform", lambda unit, out, *more: asked.append(out) or {"exit": 0})
    line = json.dumps({"unit": units(Path("/p/subject.py"), 1)[0].plain(), "out": "x", "memory": None}) + "\n"
    with tempfile.TemporaryFile("w+") as requests:
        requests.write(2 * line)
        requests.seek(0)
        answers = io.StringIO()
        auditors.serve(requests, answers, ())
    assert len(asked) == 1
    assert answers.getvalue().count("\n") == 1


@pytest.mark.thorough
def test_a_prepared_fork_finds_what_a_new_process_finds(tmp_path: Path, auditor: Auditor) -> None:
    (unit,) = units(project(tmp_path), 1)
    unit = replace(unit, select=())
    found, new = auditor(unit, tmp_path / "out"), perform(unit, tmp_path / "out")
    assert timeless(found["report"]) == timeless(new["report"])
    extra = found["key"].pop("distributions").items() - new["key"].pop("distributions").items()
    assert {name for name, _ in extra} <= {"charset-normalizer", "hypothesis", "sortedcontainers"}, "what it has loaded beforehand"
    main = Path(getattr(sys.modules["__main__"], "__file__", None) or "none").name  # a spawned process runs the script of its parent again
    new["key"]["files"] = {name: digest for name, digest in new["key"]["files"].items() if Path(name).name != main}
    assert found["key"] == new["key"]
