"""Campaigns: every verdict is kept once and whole, what came to no verdict is tried again, and the command says what was found."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from places import HOSTILE as FILE
from subjects.campaigns import answer, project, stored, units

from iresnet_backends.errors import BackendUnavailableError
from iresnet_verify.campaign import keys, run
from iresnet_verify.campaign.cluster import NO_DASHBOARD
from iresnet_verify.campaign.engines import Engine
from iresnet_verify.campaign.packed import pack
from iresnet_verify.campaign.store import Store
from iresnet_verify.campaign.trust import Trust, require_trust
from iresnet_verify.campaign.unit import Unit
from iresnet_verify.cli import commands as cli
from iresnet_verify.cli.campaign_progress import Counter
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.loading import Origin

AROUND = keys.surroundings()


class Counted:
    """A task that runs nothing, counts, and can be told what to answer."""

    def __init__(self, problem: str = "", exit: int = 0) -> None:
        self.calls: list[Unit] = []
        self.problem, self.exit = problem, exit

    def __call__(self, unit: Unit, out: Path) -> dict[str, Any]:
        self.calls.append(unit)
        file = Path(unit.origin.file)
        key = {"files": {file.name: keys.digest_of(str(file))}, "distributions": {}, **AROUND}
        return {**answer(unit, self.problem, self.exit), "key": key}


@pytest.mark.parametrize(
    ("problem", "exit"), [("could not be loaded", 2), ("inverse.recovers-input: did not finish within 4 s", 3), ("died", 1), ("died", 4)])
def test_only_completed_verdicts_are_kept(tmp_path: Path, problem: str, exit: int) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    task = Counted(problem, exit)
    found = run.run(units(file, 1), folder, run.Options(task=task))
    assert found.results[0] is not None
    assert found.results[0].body["problem"] == problem
    assert stored(folder) == {}
    run.run(units(file, 1), folder, run.Options(task=task))
    assert len(task.calls) == 2
    with Store(folder) as store:
        assert len(list(store.results())) == 1, "one line says why there is no verdict"
    good = Counted()
    assert run.run(units(file, 1), folder, run.Options(task=good)).results[0] is not None
    assert run.run(units(file, 1), folder, run.Options(task=good)).results[0] is not None
    assert len(good.calls) == 1
    with Store(folder) as store:
        assert [r.complete for r in store.results()] == [True]


def test_other_options_or_another_budget_are_other_audits(tmp_path: Path) -> None:
    origin = Origin(str(project(tmp_path)), "factory")
    names = {u.name(tmp_path) for u in (
        Unit(origin, 0), Unit(origin, 1), Unit(origin, 0, "standard"), Unit(origin, 0, "quick", ("inverse",)), Unit(origin, 0, alpha=1e-3),
        Unit(Origin(origin.file, "with_data"), 0), Unit(Origin(origin.file, "factory", "torch"), 0))}
    assert len(names) == 7
    unit = Unit(Origin(origin.file, "factory", "torch"), 3, "thorough", ("a",), ("b",), 1e-3, 4.0, 5.0)
    assert Unit.read(unit.plain()) == unit


def test_the_summary_says_what_zero_failures_mean(tmp_path: Path) -> None:
    file = project(tmp_path / "p")

    def different(unit: Unit, out: Path) -> dict[str, Any]:
        found = Counted()(unit, out)
        check = {"id": "a.b", "status": "passed", "expected": None, "message": "", "because_of": None, "evidence": {"gap": unit.seed // 2}}
        return {**found, "report": {**found["report"], "checks": [check]}}

    assert run.summary(run.run(units(file, 200), tmp_path / "a", run.Options(task=different)).results) == (
        "200 audits: 200 passed, no failure in 100 different results: their rate is at most 0.03 at 95 % confidence")
    assert run.summary(run.run(units(file, 1), tmp_path / "d", run.Options(task=different)).results) == (
        "1 audits: 1 passed, no failure in 1: their rate is at most 0.95 at 95 % confidence")
    assert run.summary(run.run(units(file, 1), tmp_path / "b", run.Options(task=Counted("slow", 1))).results) == (
        "1 audits: 1 did not come to an end and will be tried again, 1 of these with failed checks")


def test_the_rate_leaves_out_the_start_of_the_workers(tmp_path: Path) -> None:
    now = [0.0]
    counter = Counter(20, clock=lambda: now[0])
    (unit,) = units(project(tmp_path), 1)
    lines = []
    for at, exit, found in ((0.0, 0, False), (30.0, 0, True), (30.1, 0, True), (32.0, 1, True), (34.0, 0, True)):
        now[0] = at
        counter.step("a", pack(unit, answer(unit, exit=exit)) if found else None)
        lines.append(counter.line)
    assert lines == ["1 of 20 audits", "2 of 20 audits", "3 of 20 audits", "4 of 20 audits, 1 a second, 16 s left, 1 failed",
                     "5 of 20 audits, 45 a minute, 20 s left, 1 failed"]


def test_the_command_audits_in_processes_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["campaign", f"{FILE}:wrong", f"{FILE}:good", "--seeds", "1", "--folder", str(tmp_path / "c"), "--workers", "1",
                 "--select", "inverse.recovers-input,logdet.matches-determinant"]
    assert cli.run(arguments) == cli.FAILED
    said = capsys.readouterr().out
    assert "2 audits: 1 passed, 1 failed" in said
    assert "again with 2 of 2 fresh seeds" in said
    assert sorted(r["status"] for r in stored(tmp_path / "c").values()) == ["failed", "failed", "failed", "passed"]
    assert cli.run(arguments) == cli.FAILED  # from the store, at once
    assert list((tmp_path / "c/reproduce").rglob("*.py")), "a failure can be seen again"
    assert cli.run(["campaign", "nowhere.py:f", "--folder", str(tmp_path)]) == cli.UNUSABLE
    assert cli.run([*arguments[:-1], "no.such.check"]) == cli.UNUSABLE


def test_a_crash_has_an_exit_code_of_its_own_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c").write_text("a file where a folder is wanted")
    assert cli.run(["campaign", f"{FILE}:good", "--folder", str(tmp_path / "c/d")]) == cli.CRASHED
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert said.startswith("could not go on: NotADirectoryError: ")
    monkeypatch.setenv("IRESNET_VERIFY_TRACEBACK", "1")
    assert cli.run(["campaign", f"{FILE}:good", "--folder", str(tmp_path / "c/d")]) == cli.CRASHED
    assert "Traceback" in capsys.readouterr().err


def test_dask_runs_the_same_audits(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    file = project(tmp_path / "p")
    done: list[str] = []
    progress: Callable[[str, Any], None] = lambda name, _: done.append(name)  # noqa: E731
    found = run.run(units(file, 2), tmp_path / "c", run.Options(Engine(workers=1, scheduler="local"), task=_answered, progress=progress))
    assert [r.seed for r in found.results if r is not None] == [0, 1]
    assert len(done) == 2


REFUSED = ["tcp://10.0.0.7:8786", "cluster.example:8786", "10.0.0.7:8786", "tcp://[2001:db8::1]:8786", "ws://example:1", "tls://127.0.0.1:8786"]


@pytest.mark.parametrize("address", REFUSED)
def test_a_scheduler_elsewhere_without_tls_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(SubjectError, match=r"expected .*TLS|expected --tls-ca"):
        run.run(units(project(tmp_path / "p"), 1), tmp_path / "c", run.Options(Engine(scheduler=address)))
    assert not (tmp_path / "c").exists(), "before anything is done"


@pytest.mark.parametrize("address", ["local", "tcp://127.0.0.1:8786", "localhost:8786", "tcp://[::1]:8786", "inproc://x/1"])
def test_a_scheduler_on_this_machine_needs_no_tls(address: str) -> None:
    require_trust(address, Trust())


def test_another_machine_is_accepted_with_certificates_or_when_told_so(tmp_path: Path) -> None:
    files = Trust(tmp_path, tmp_path, tmp_path)
    require_trust("tls://cluster.example:8786", files)
    require_trust("tcp://cluster.example:8786", Trust(insecure=True))
    for address, trust in (("tcp://127.0.0.1:1", files), ("tls://a:1", Trust(tmp_path)), ("tls://a:1", Trust(insecure=True))):
        with pytest.raises(SubjectError, match="expected"):
            require_trust(address, trust)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_tls_carries_a_campaign(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2",
                    "-subj", "/CN=localhost"], check=True, capture_output=True)
    pair = {"tls_ca_file": str(certificate), "require_encryption": True}
    pair |= {f"tls_{role}_{what}": str(path) for role in ("scheduler", "worker", "client")
             for what, path in (("cert", certificate), ("key", key))}
    security = distributed.security.Security(**pair)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, **NO_DASHBOARD, protocol="tls://",
                                  host="127.0.0.1", security=security) as cluster:
        file, trust = project(tmp_path / "p"), Trust(certificate, certificate, key)
        assert cluster.scheduler_address.startswith("tls://")
        engine = Engine(scheduler=cluster.scheduler_address, trust=trust)
        found = run.run(units(file, 2), tmp_path / "c", run.Options(engine, task=_answered))
        assert [r is not None and r.complete for r in found.results] == [True, True]


def _answered(unit: Unit, out: Path) -> dict[str, Any]:
    return answer(unit)


def test_without_dask_a_scheduler_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install .iresnet-ref\[campaign\]"):
        run.run(units(project(tmp_path / "p"), 1), tmp_path, run.Options(Engine(scheduler="local"), task=_answered))
