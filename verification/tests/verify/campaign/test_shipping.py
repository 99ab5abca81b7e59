"""Workers that do not see this disk get the subject's code, whole and unchanged, and what they write runs here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from subjects.campaigns import ONE_CHECK, answer, project, reports, units

from iresnet_verify.campaign import cluster, keys, run, shipping
from iresnet_verify.campaign.auditor import Auditor
from iresnet_verify.campaign.cluster import Answer
from iresnet_verify.campaign.engines import Engine
from iresnet_verify.campaign.packed import pack, unpacked
from iresnet_verify.campaign.shipping import Archive, Unpacked
from iresnet_verify.campaign.unit import Unit
from iresnet_verify.subject.errors import SubjectError


def test_an_archive_holds_what_a_subject_is_made_of_and_nothing_else(tmp_path: Path) -> None:
    file = project(tmp_path / "p")
    for name in ("package/deep/a.py", ".git/config", "__pycache__/a.pyc", "venv/pyvenv.cfg", "venv/lib.py", "old/results.sqlite",
                 "old/x.py"):
        (file.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (file.parent / name).write_text(name)
    archive = Archive.of(file.parent)
    Archive.of(file.parent).unpack(tmp_path / "there")
    assert archive == Archive.of(file.parent), "equal folders, equal digests"
    found = {p.relative_to(tmp_path / "there").as_posix() for p in (tmp_path / "there").rglob("*") if p.is_file()}
    assert found == {"layers.py", "late.py", "slope.txt", "subject.py", "package/deep/a.py"}
    assert (tmp_path / "there/layers.py").read_bytes() == (file.parent / "layers.py").read_bytes()


def test_a_changed_archive_and_one_that_leaves_its_folder_are_refused(tmp_path: Path) -> None:
    archive = Archive.of(project(tmp_path / "p").parent)
    with pytest.raises(ValueError, match="another digest"):
        replace(archive, content=archive.content + b"\0").unpack(tmp_path / "there")
    assert not (tmp_path / "there").exists()
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as bad:
        bad.writestr("../outside.py", "x")
    content = buffer.getvalue()
    with pytest.raises(ValueError, match="outside its folder"):
        Archive(content, shipping.hashlib.sha256(content).hexdigest()).unpack(tmp_path / "there")
    assert not (tmp_path / "outside.py").exists()


def test_a_folder_that_is_too_large_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "LARGEST", 10)
    with pytest.raises(SubjectError, match="into a folder of its own"):
        Archive.of(project(tmp_path / "p").parent)


def test_a_worker_elsewhere_finds_what_is_found_here(tmp_path: Path, auditor: Auditor, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    file.write_text(file.read_text() + "\ndef wrong():\n    return make(inverse=lambda y: y / layers.SLOPE + 0.25)\n")
    some = units(file, 1, "wrong")
    here = run.run(some, tmp_path / "d", run.Options(Engine(workers=1), task=auditor))
    loads = (file.parent / "loads.txt").read_text()
    monkeypatch.setattr(cluster, "visible", lambda unit, out: False)
    monkeypatch.setattr(cluster, "_here", SimpleNamespace(name="w", auditor=auditor, unpacked=Unpacked()))
    found = run.run(some, folder, run.Options(Engine(workers=1, scheduler="local")))
    assert reports(found.results) == reports(here.results) != [None]
    assert (file.parent / "loads.txt").read_text() == loads, "it was loaded from another place"
    (script,) = (folder / "reproduce").rglob("*.py")
    result = found.results[0]
    assert result is not None
    assert {c["reproduce"] for c in result.body["report"]["checks"]} == {str(script)}
    assert "../../../p/subject.py" in script.read_text(), "it is found from where the script lies"
    assert result.complete
    again = run.run(some, folder, run.Options(Engine(workers=1), task=auditor))
    assert again.notes == [], "what a worker elsewhere found is used here"


def test_reproductions_of_a_worker_that_sees_the_disk_stay_there(
    tmp_path: Path, auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    file = project(tmp_path / "p")
    file.write_text(file.read_text() + "\ndef wrong():\n    return make(inverse=lambda y: y / layers.SLOPE + 0.25)\n")
    monkeypatch.setattr(cluster, "_here", SimpleNamespace(name="w", auditor=auditor, unpacked=Unpacked()))
    (found,) = run.run(units(file, 1, "wrong"), tmp_path / "c", run.Options(Engine(workers=1, scheduler="local"))).results
    assert found is not None
    assert found.exit == 1
    (check,) = found.body["report"]["checks"]
    assert Path(check["reproduce"]).is_file()


def test_a_worker_with_other_code_gives_no_verdict(tmp_path: Path) -> None:
    (unit,) = units(project(tmp_path / "p"), 1)
    around = keys.surroundings()
    good = {"files": {"subject.py": keys.digest_of(unit.origin.file)}, "distributions": {}, **around}
    for key, said in ((good, ""), ({**good, "package": {"iresnet-ref": "x"}}, "the code of iresnet-ref changed"),
                      ({**good, "files": {"subject.py": "x"}}, "subject.py changed"), ({**good, "machine": {}}, "")):
        sent, written = pack(unit, {**answer(unit), "key": key}), {"../../outside.py": b"x", "a/b.py": b"y"}
        found = cluster.accepted(sent, written, unit, tmp_path / "c/out", keys.Present(("files", "package")))
        assert said in found.problem
        assert bool(found.problem) == bool(said)
        assert unpacked(found.body) == {**unpacked(sent.body), "problem": found.problem}
    assert (tmp_path / "c/out/a/b.py").read_bytes() == b"y"
    assert not (tmp_path / "outside.py").exists()


def test_a_record_is_told_from_one_that_lacks_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that joins late and sees no disk asks for the code instead of failing."""
    (unit,) = units(project(tmp_path / "p"), 1, check_seconds=1.0)
    assert unit.select == ONE_CHECK
    asked: list[Unit] = []
    kept = SimpleNamespace(name="w", auditor=lambda u, out: asked.append(u) or answer(u), unpacked=Unpacked())
    monkeypatch.setattr(cluster, "_here", kept)
    batch = [(unit, tmp_path / "c/reproduce/x")]
    assert cluster.audited_there(batch, None, None) == [Answer("w")]
    (found,) = cluster.audited_there(batch, Archive.of(Path(unit.origin.file).parent), None)
    assert found.packed is not None
    assert (found.packed.problem, found.written) == ("", {})
    assert asked[0].origin.file != unit.origin.file
    assert Path(asked[0].origin.file).read_text() == Path(unit.origin.file).read_text()


PRIVATE = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
HIDDEN = 'mount -t tmpfs none "$0" && cd / && exec "$@"'
CAN_HIDE = shutil.which("unshare") is not None and subprocess.run(
    [*PRIVATE, "mount -t tmpfs none /mnt"], capture_output=True, check=False).returncode == 0


@pytest.mark.thorough
@pytest.mark.skipif(not CAN_HIDE, reason="nobody may hide a folder from a process here")
def test_a_dask_worker_that_sees_neither_the_subject_nor_the_campaign_gets_the_code(tmp_path: Path) -> None:
    """A worker process in a mount namespace of its own, where the folder that holds both is empty."""
    pytest.importorskip("distributed")
    file = project(tmp_path / "p")
    file.write_text(file.read_text() + "\ndef wrong():\n    return make(inverse=lambda y: y / layers.SLOPE + 0.25)\n")
    address = f"tcp://127.0.0.1:{19786 + os.getpid() % 1000}"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", address, "--no-dashboard"]
    scheduler = subprocess.Popen(dask, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    dask = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard",
            "--death-timeout", "60", "--local-directory", tempfile.gettempdir()]
    worker = subprocess.Popen([*PRIVATE, HIDDEN, str(tmp_path), *dask], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        engine = Engine(scheduler=address)
        there = run.run([*units(file, 3), *units(file, 1, "wrong")], tmp_path / "c", run.Options(engine))
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()
    assert not (file.parent / "loads.txt").exists(), "it was loaded from another place"
    assert [r is not None and r.complete and r.exit for r in there.results] == [0, 0, 0, 1]
    here = run.run([*units(file, 3), *units(file, 1, "wrong")], tmp_path / "d", run.Options(Engine(workers=1)))
    assert reports(there.results) == reports(here.results)
    (script,) = (tmp_path / "c/reproduce").rglob("*.py")
    assert subprocess.run([sys.executable, str(script)], capture_output=True, check=False, cwd="/").returncode == 1, "it fails again, here"
    assert run.run(units(file, 3), tmp_path / "c", run.Options(Engine(workers=1))).notes == []
