"""Whatever a subject does costs one check or one sentence, never the report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import HOSTILE as FILE

from iresnet_verify.check.audit_result import AuditResult
from iresnet_verify.check.result import CheckResult
from iresnet_verify.subject.loading import Origin
from iresnet_verify.workers import isolated_audits as isolated
from iresnet_verify.workers.isolated_audits import Audits
from iresnet_verify.workers.worker import Job

READABLE, RECOVERS, EMPTY = "hygiene.readable", "inverse.recovers-input", "hygiene.empty-batch"
CALLS = ("hangs", "exits", "os_exits", "crashes", "is_killed")
HANGING = ("hangs", "hangs_far_away")
FACTORIES = ("factory_hangs", "factory_exits", "factory_os_exits", "raises")


def job(factory: str, **options: object) -> Job:
    """Only what hangs has a short limit: whoever ends by himself may take as long as a busy machine needs."""
    limits = {"load_seconds": 10.0 if factory == "factory_hangs" else 240.0, "check_seconds": 4.0 if factory in HANGING else 240.0}
    defaults: dict[str, object] = {"budget": "quick", "select": (READABLE, RECOVERS, EMPTY), **limits}
    return Job(Origin(str(FILE), factory), **{**defaults, **options})  # type: ignore[arg-type]  # a table of options


@pytest.fixture(scope="module")
def audits(tmp_path_factory: pytest.TempPathFactory) -> Audits:
    """All hostile subjects in one run, as a careless user would audit them."""
    folder = tmp_path_factory.mktemp("isolation")
    jobs = [job(name) for name in (*CALLS, *FACTORIES, "several")]
    jobs += [job("hangs_far_away", select=(READABLE, RECOVERS)), job("eats_memory", memory=2**29)]
    with pytest.MonkeyPatch.context() as patch:  # nothing here sleeps: on a busy machine the clock must not end what works
        patch.setattr("iresnet_verify.workers.pool.WALL", 1000.0)
        return isolated.run(jobs, folder / "reproduce", workers=2)


def report(audits: Audits, name: str) -> AuditResult:
    return next(r for r in audits.reports if r.subject["name"] == name)


def result(report: AuditResult, id: str) -> CheckResult:
    return next(c for c in report.checks if c.id == id)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("hangs", "inverse: did not finish within 4 s of CPU time; it was in inverse at hostile_subjects.py"),
        ("exits", "SystemExit"),
        ("os_exits", "inverse: the subject ended the process by os._exit at hostile_subjects.py"),
        ("crashes", "inverse: the process died of SIGSEGV at hostile_subjects.py"),
        ("is killed", "inverse: the process died of SIGKILL"),
        ("eats memory", "MemoryError"),
    ],
)
def test_a_deadly_inverse_is_one_error_that_names_it(audits: Audits, name: str, cause: str) -> None:
    found = report(audits, name)
    assert [c.id for c in found.checks if c.status == "error"] == [READABLE]
    assert cause in result(found, READABLE).message
    assert found.status == "error"


@pytest.mark.parametrize("name", ["hangs", "exits", "os_exits", "crashes", "is killed", "eats memory"])
def test_the_other_checks_of_a_deadly_subject_go_on(audits: Audits, name: str) -> None:
    assert result(report(audits, name), RECOVERS).status == "skipped"
    assert result(report(audits, name), EMPTY).status in ("passed", "skipped")
    assert "(B,)" in str(report(audits, name).subject["conventions"].get("log_det"))


def test_output_of_a_subject_floods_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (found,) = isolated.run([job("floods")], tmp_path).reports
    assert {c.status for c in found.checks} == {"passed"}
    assert capfd.readouterr() == ("", "")


def test_a_hang_inside_one_check_costs_that_check(audits: Audits) -> None:
    found = report(audits, "hangs far away")
    assert result(found, READABLE).status == "passed"
    assert result(found, RECOVERS).status == "error"
    assert "did not finish within 4 s of CPU time; it was in inverse at hostile_subjects.py, line" in result(found, RECOVERS).message
    assert result(found, RECOVERS).claim


def test_what_sleeps_is_ended_by_the_clock_and_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iresnet_verify.workers.pool.WALL", 2.0)
    (found,) = isolated.run([job("sleeps", check_seconds=2.0, select=(READABLE,))], tmp_path, workers=1).reports
    message = result(found, READABLE).message
    assert "inverse: did not finish within 4 s, of which it worked less than 2: it sleeps or waits; it was in inverse at" in message
    assert message.endswith("give it more by --check-seconds")


@pytest.mark.parametrize(
    ("factory", "cause"),
    [
        ("factory_hangs", "did not finish within 10 s; it was at hostile_subjects.py"),
        ("factory_exits", "SystemExit"),
        ("factory_os_exits", "os._exit"),
        ("raises", "RuntimeError: two lines"),
    ],
)
def test_a_deadly_factory_is_one_sentence(audits: Audits, factory: str, cause: str) -> None:
    (message,) = [str(e) for e in audits.errors if f":{factory}:" in str(e)]
    assert cause in message
    assert "\n" not in message


def test_invalid_subjects_of_a_list_leave_the_others_alone(audits: Audits) -> None:
    assert [r.subject["name"] for r in audits.reports].count("twin") == 2
    messages = [str(e) for e in audits.errors if ":several:" in str(e)]
    assert any("event_shape" in m and "(0,)" in m for m in messages)
    assert any("lipschitz" in m and "1.5" in m for m in messages)


def test_every_subject_has_its_report_or_its_sentence(audits: Audits) -> None:
    assert len(audits.reports) == len(CALLS) + 4, "two twins, a late hang and the limit on memory beside them"
    assert len(audits.errors) == len(FACTORIES) + 2


def test_the_same_seed_gives_the_same_report_on_any_number_of_workers(tmp_path: Path) -> None:
    runs = [
        isolated.run([job("random_weights", seed=seed)], tmp_path, workers=workers).reports[0]
        for seed, workers in ((7, 1), (7, 2), (8, 1))
    ]
    names = [r.subject["name"] for r in runs]
    assert names[0] == names[1] != names[2]
    findings = [[(c.id, c.status, c.message, dict(c.evidence)) for c in r.checks] for r in runs]
    assert findings[0] == findings[1] != findings[2]


def test_progress_counts_every_check_once(tmp_path: Path) -> None:
    steps: list[isolated.Progress] = []
    isolated.run([job("good")], tmp_path, progress=steps.append)
    assert [s.done for s in steps] == [1, 2, 3]
    assert {s.planned for s in steps} == {3}
    assert not any(tmp_path.iterdir()), "no failure, no folder of reproductions"


def test_when_nothing_comes_back_the_rest_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the call log it is unknown which callable ended the process, so that every check loses its worker.
    monkeypatch.setattr("iresnet_verify.workers.pool.last_call", lambda log: None)
    (found,) = isolated.run([job("os_exits", select=())], tmp_path).reports
    messages = [c.message for c in found.checks]
    assert {c.status for c in found.checks} == {"error"}
    tried = [m for m in messages if not m.startswith("not tried")]
    assert isolated.MOST_LOST <= len(tried) <= isolated.MOST_LOST + 2 < len(messages)


def test_the_parent_imports_no_framework() -> None:
    code = "import sys, iresnet_verify.cli.commands, iresnet_verify.workers.isolated_audits; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=os.environ).returncode == 0
