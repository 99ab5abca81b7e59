"""Whatever happens to a campaign, what it found afterwards equals an undisturbed run: none lost, none twice, none stale."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from places import HOSTILE
from subjects.campaigns import ONE_CHECK, answer, project, reports, stored, timeless, units

from iresnet_verify.campaign import keys, run
from iresnet_verify.campaign.auditor import Auditor
from iresnet_verify.campaign.engines import Engine
from iresnet_verify.campaign.packed import pack
from iresnet_verify.campaign.store import FILE, Store, StoreError
from iresnet_verify.campaign.unit import Unit
from iresnet_verify.cli import commands as cli
from iresnet_verify.subject.loading import Origin

posix = pytest.mark.skipif(os.name != "posix", reason="signals and locks of POSIX systems")


AROUND = keys.surroundings()


def quick(unit: Unit, out: Path) -> dict[str, Any]:
    """A task that runs nothing; its key is the subject's file."""
    file = Path(unit.origin.file)
    return {**answer(unit), "key": {"files": {file.name: keys.digest_of(str(file))}, "distributions": {}, **AROUND}}


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a process; its exit code and what it said."""
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def command(file: Path, folder: Path, factory: str = "factory", seeds: int = 4, *more: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "iresnet_verify", "campaign", f"{file}:{factory}", "--seeds", str(seeds), "--folder", str(folder),
             "--select", ",".join(ONE_CHECK), *more]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)


def until(condition: Callable[[], bool], seconds: float = 200.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def count(folder: Path) -> int:
    """Verdicts in a folder, read beside those who write there."""
    path = folder / FILE
    if not path.exists():
        return 0
    connection = sqlite3.connect(path, timeout=30)
    try:
        return int(connection.execute("select count(*) from results where complete = 1").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def auditors() -> set[int]:
    """Process ids of all auditors on this machine."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if b"iresnet_verify.campaign.auditor" in (place / "cmdline").read_bytes():
                found.add(int(place.name))
        except OSError:
            continue
    return found


# -- processes


@posix
@pytest.mark.thorough
def test_a_worker_killed_from_outside_is_tried_again(tmp_path: Path) -> None:
    file = project(tmp_path / "p")
    (unit,) = units(file, 1, "killed_once")
    found: list[run.Findings] = []
    thread = threading.Thread(target=lambda: found.append(run.run([unit], tmp_path / "c", run.Options(Engine(workers=1)))))
    thread.start()
    pid = file.parent / "pid"
    until(lambda: pid.exists() and pid.read_text() != "")
    os.kill(int(pid.read_text()), signal.SIGKILL)
    thread.join()
    undisturbed = run.run([unit], tmp_path / "d", run.Options(Engine(workers=1)))
    assert reports(found[0].results) == reports(undisturbed.results) != [None]


@posix
@pytest.mark.thorough
def test_an_auditor_that_is_killed_is_replaced(tmp_path: Path) -> None:
    (unit,) = units(project(tmp_path / "p"), 1, "slow")
    auditor = Auditor()
    threading.Timer(1.0, lambda: auditor.process is not None and os.kill(auditor.process.pid, signal.SIGKILL)).start()
    try:
        assert auditor(unit, tmp_path)["exit"] == 0
    finally:
        auditor.close()


@posix
@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_a_client_that_is_killed_leaves_whole_results_and_no_process(tmp_path: Path, auditor: Auditor) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    before = auditors()
    client = command(file, folder, "slow", 4, "--workers", "1")
    until(lambda: count(folder) >= 1)
    mine = auditors() - before
    assert mine
    client.kill()
    client.communicate()
    kept = stored(folder)
    assert 1 <= len(kept) < 4
    until(lambda: not auditors() & mine, 20)
    loads = (file.parent / "loads.txt").read_text().count("loaded")
    run.run(units(file, 4, "slow"), folder, run.Options(Engine(workers=1), task=auditor))
    found = stored(folder)
    assert kept.items() <= found.items()
    assert (file.parent / "loads.txt").read_text().count("loaded") == loads + 4 - len(kept), "nothing is done again"
    run.run(units(file, 4, "slow"), tmp_path / "d", run.Options(Engine(workers=1), task=auditor))
    assert sorted(map(str, found.values())) == sorted(map(str, stored(tmp_path / "d").values()))


def test_an_interruption_keeps_what_is_done_and_gives_back_what_is_not(tmp_path: Path) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    some, seen = units(file, 30), []

    def interrupting(name: str, record: object) -> None:
        seen.append(name)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run(some, folder, run.Options(Engine(workers=1), task=quick, progress=interrupting))
    kept = stored(folder)
    assert len(kept) >= 5
    assert {*seen} <= {*kept}, "what was shown as done is kept"
    assert not list(folder.glob(".*.lock"))
    with Store(folder) as store:
        assert store.claim([u.name(folder) for u in some]) == {u.name(folder) for u in some}
    run.run(some, folder, run.Options(task=quick))
    assert kept.items() <= stored(folder).items()
    assert len(stored(folder)) == 30


def test_an_interrupted_command_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(units: list[Unit], folder: Path, options: run.Options) -> None:
        options.progress("a", pack(units[0], answer(units[0])))
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run", interrupted)
    assert cli.run(["campaign", f"{project(tmp_path)}:factory", "--seeds", "9", "--folder", str(tmp_path / "c")]) == 130
    said = capsys.readouterr().err
    assert "interrupted: 1 of 9 audits are kept in" in said.replace("\n", " ")
    assert "the same command goes on" in said


@posix
@pytest.mark.thorough
def test_ctrl_c_ends_a_command_and_all_that_it_started(tmp_path: Path) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    before = auditors()
    client = command(file, folder, "slow", 40)
    until(lambda: count(folder) >= 1)
    mine = auditors() - before
    client.send_signal(signal.SIGINT)
    code, _, said = finish(client)
    assert code == 130, said
    assert "the same command goes on" in said
    assert "Traceback" not in said
    until(lambda: not auditors() & mine, 10)
    assert 1 <= len(stored(folder)) < 40


@pytest.mark.thorough
def test_a_scheduler_that_is_killed_is_a_crash_in_one_line_and_loses_nothing(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    address = f"tcp://127.0.0.1:{18786 + os.getpid() % 1000}"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", address, "--no-dashboard"]
    scheduler = subprocess.Popen(dask, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    worker = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard", "--death-timeout", "5"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        client = command(file, folder, "slow", 6, "--scheduler", address)
        until(lambda: count(folder) >= 1)
        scheduler.kill()
        code, _, said = finish(client)
        assert code == 4, said
        *before, last = said.strip().splitlines()
        assert last.startswith("could not go on: LostSchedulerError: "), said
        assert all(" of 6 audits" in line for line in before), said
        kept = stored(folder)
        assert 1 <= len(kept) < 6
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()
    assert finish(command(file, folder, "slow", 6))[0] == 0
    assert kept.items() <= stored(folder).items()
    assert len(stored(folder)) == 6


@posix
@pytest.mark.thorough
def test_two_campaigns_on_one_folder_share_the_work(tmp_path: Path) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    both = [command(file, folder, "slow", 6, "--workers", "1") for _ in range(2)]
    ended = [finish(p) for p in both]
    assert [code for code, _, _ in ended] == [0, 0]
    assert all("6 audits: 6 passed" in out for _, out, _ in ended)
    assert len(stored(folder)) == 6
    assert (file.parent / "loads.txt").read_text().count("loaded") == 6, "each audit ran once"
    assert not list(folder.glob(".*.lock"))


@posix
def test_a_claim_ends_with_its_process_whatever_the_clock_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = ("import sys, time; from pathlib import Path; from iresnet_verify.campaign.store import Store\n"
              "s = Store(Path(sys.argv[1])); print(s.claim(['a', 'b']), flush=True); time.sleep(60)")
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=os.environ)
    assert other.stdout is not None
    assert "'a'" in other.stdout.readline()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with Store(tmp_path) as store:
        assert store.claim(["a", "b", "c"]) == {"c"}
        assert store.claim(["c"]) == {"c"}
        other.kill()
        other.communicate()
        assert store.claim(["a", "b"]) == {"a", "b"}
    with Store(tmp_path) as store:
        assert store.claim(["a", "c"]) == {"a", "c"}, "closed properly, all claims are gone"


# -- the disk


def test_power_cut_in_a_write_costs_at_most_the_last_transaction(tmp_path: Path) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    some = units(file, 12)
    with Store(folder) as store:
        store.connection.execute("pragma wal_autocheckpoint = 0")
        for unit in some:
            store.add([(unit.name(folder), unit.spec, unit.seed, pack(unit, quick(unit, folder)))])
        shutil.copytree(folder, tmp_path / "image")  # what the disk holds while the campaign runs
        whole = stored(folder)
    log = tmp_path / "image" / f"{FILE}-wal"
    size = log.stat().st_size
    counts = []
    for cut in [*range(0, size, size // 24), size]:
        after = tmp_path / f"after-{cut}"
        shutil.copytree(tmp_path / "image", after)
        os.truncate(after / log.name, cut)
        (after / f"{FILE}-shm").unlink(missing_ok=True)
        found = stored(after)
        assert found.items() <= whole.items()
        counts.append(len(found))
        shutil.rmtree(after)
    assert counts == sorted(counts)
    assert counts[-1] == 12
    assert len(set(counts)) > 6, "the cuts must fall between results, or nothing is tested"


@posix
@pytest.mark.thorough
def test_a_full_disk_is_one_line_and_what_was_stored_is_safe(tmp_path: Path) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    script = ("import resource, sys; from iresnet_verify.cli import commands\n"
              "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); sys.exit(commands.run(sys.argv[2:]))")
    words = ["campaign", f"{file}:factory", "--seeds", "8", "--folder", str(folder), "--select", ONE_CHECK[0]]
    full = subprocess.run([sys.executable, "-c", script, "110000", *words], capture_output=True, text=True, check=False, env=os.environ)
    assert full.returncode == 4, full.stderr
    assert "expected to store a result" in full.stderr
    assert "make room" in full.stderr
    assert "Traceback" not in full.stderr
    kept = stored(folder)
    assert len(kept) < 8
    assert finish(command(file, folder, "factory", 8))[0] == 0
    assert kept.items() <= stored(folder).items()
    assert len(stored(folder)) == 8


def test_a_file_that_cannot_grow_is_one_error_and_what_was_stored_is_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite reports a largest number of pages as it does a full disk."""
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    usual = Store._connect

    def small(store: Store) -> sqlite3.Connection:
        connection = usual(store)
        connection.execute("pragma max_page_count = 40")
        return connection

    def large(unit: Unit, out: Path) -> dict[str, Any]:
        time.sleep(0.002)  # so that not all come together
        found = quick(unit, out)
        return {**found, "report": {**found["report"], "noise": os.urandom(6000).hex()}}

    monkeypatch.setattr(Store, "_connect", small)
    with pytest.raises(StoreError, match=r"expected to store a result, got: .*full; .* make room and run the same command again"):
        run.run(units(file, 60), folder, run.Options(Engine(workers=1), task=large))
    kept = stored(folder)
    assert len(kept) < 60
    assert not list(folder.glob(".*.lock"))
    monkeypatch.setattr(Store, "_connect", usual)
    run.run(units(file, 60), folder, run.Options(task=large))
    assert kept.items() <= stored(folder).items()
    assert len(stored(folder)) == 60


@pytest.mark.parametrize("damage", ["cut in half", "page overwritten", "no database", "empty"])
def test_a_damaged_file_is_put_aside_and_what_can_be_read_is_kept(tmp_path: Path, damage: str) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    some = units(file, 60)
    run.run(some, folder, run.Options(task=quick))
    before, path = stored(folder), folder / FILE
    data = bytearray(path.read_bytes())
    if damage == "page overwritten":
        middle = len(data) // 2 // 4096 * 4096
        data[middle : middle + 4096] = bytes(range(256)) * 16
    path.write_bytes({"cut in half": data[: len(data) // 2], "no database": b"x" * 9999, "empty": b""}.get(damage, data))
    calls: list[Unit] = []

    def task(unit: Unit, out: Path) -> dict[str, Any]:
        calls.append(unit)
        return quick(unit, out)

    said: list[str] = []
    run.run(some, folder, run.Options(task=task, note=said.append))
    assert stored(folder) == before, "equal to the undisturbed run"
    assert 1 <= len(calls) <= 60
    if damage == "page overwritten":
        assert len(calls) < 40, "a bad page costs what lies on it"
    if damage != "empty":
        assert "damaged" in said[0]
        assert len(list(folder.glob(f"{FILE}.damaged-*"))) >= 1
    run.run(some, folder, run.Options(task=task))
    assert len(calls) <= 60, "once repaired, it is whole"


@pytest.mark.parametrize(
    "change", ["exit = 0", "body = x'00'", "unit = 'another'", "summary = '[0, "", []]'", "digest = 'x'", "key = 'x'", "seed = 7"])
def test_a_tampered_row_is_seen_and_audited_again(tmp_path: Path, change: str) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    some = units(file, 3)

    def task(unit: Unit, out: Path) -> dict[str, Any]:
        return {**quick(unit, out), "exit": 1}

    run.run(some, folder, run.Options(task=task))
    before = stored(folder)
    connection = sqlite3.connect(folder / FILE)
    connection.execute(f"update results set {change} where id = 2")
    connection.commit()
    connection.close()
    said: list[str] = []
    found = run.run(some, folder, run.Options(task=task, note=said.append))
    assert [r is not None and r.exit for r in found.results] == [1, 1, 1]
    assert stored(folder) == before
    assert change.startswith("unit") or "was damaged" in said[0]


def test_a_tampered_key_is_seen(tmp_path: Path) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    run.run(units(file, 1), folder, run.Options(task=quick))
    connection = sqlite3.connect(folder / FILE)
    connection.execute("update keys set body = replace(body, 'subject.py', 'other.py')")
    connection.commit()
    connection.close()
    assert run.run(units(file, 1), folder, run.Options(task=quick)).notes == ["its key was damaged: 1 audit is done again"]
    assert run.run(units(file, 1), folder, run.Options(task=quick)).notes == [], "it is repaired"


@pytest.mark.parametrize("plan", ["""'["a'""", "cast(x'5bff' as text)", "cast(x'00' as text)"])
def test_a_run_whose_plan_is_damaged_keeps_its_results(tmp_path: Path, plan: str) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    run.run(units(file, 3), folder, run.Options(task=quick))
    before = stored(folder)
    connection = sqlite3.connect(folder / FILE)
    connection.execute(f"update runs set plan = {plan}")
    connection.commit()
    connection.close()
    tried: list[str] = []
    found = run.run(units(file, 3), folder, run.Options(task=lambda unit, out: tried.append("again") or quick(unit, out))).results
    assert [r is not None and r.complete for r in found] == [True] * 3
    assert (stored(folder), tried) == (before, [])
    with Store(folder) as store:
        assert [r.planned for r in store.runs()] in ([0], [0, 3])


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).close()
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("pragma user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="expected schema 2, got 99"):
        Store(tmp_path)


def test_a_failure_stays_one_where_its_reproduction_cannot_be_written(tmp_path: Path, auditor: Auditor) -> None:
    """A file in the place of the folder stands for a full disk."""
    file = project(tmp_path / "p")
    file.write_text(file.read_text() + "\ndef wrong():\n    return make(inverse=lambda y: y / layers.SLOPE + 0.25)\n")
    (tmp_path / "full").touch()
    found = auditor(units(file, 1, "wrong")[0], tmp_path / "full/out")
    assert (found["exit"], found["problem"]) == (1, "")
    (check,) = found["report"]["checks"]
    assert check["status"] == "failed"
    assert "its reproduction could not be written" in check["message"]


# -- subjects

HOSTILES = {
    "hangs": ("hangs", "did not finish within"), "segfaults": ("crashes", "died of SIGSEGV"),
    "ends the process": ("os_exits", "os._exit"), "kills itself": ("is_killed", "SIGKILL"),
}


@posix
@pytest.mark.parametrize("name", ["hangs", pytest.param("segfaults", marks=pytest.mark.thorough),
                                  pytest.param("ends the process", marks=pytest.mark.thorough),
                                  pytest.param("kills itself", marks=pytest.mark.thorough)])
def test_a_deadly_subject_has_no_verdict_and_disturbs_no_other(tmp_path: Path, auditor: Auditor, name: str) -> None:
    factory, said = HOSTILES[name]
    bad = Unit(Origin(str(HOSTILE), factory), 0, "quick", ONE_CHECK, check_seconds=0.5)
    good = units(project(tmp_path / "p"), 1)
    one = run.Options(Engine(workers=1), task=auditor)
    found = run.run([bad, *good], tmp_path / "c", one).results
    assert found[0] is not None
    assert not found[0].complete
    assert said in found[0].body["problem"]
    assert reports(found[1:]) == reports(run.run(good, tmp_path / "d", one).results)
    assert len(stored(tmp_path / "c")) == 1


@posix
def test_a_subject_that_forks_is_audited_as_any_other_and_leaves_nothing_behind(tmp_path: Path, auditor: Auditor) -> None:
    file = project(tmp_path / "p")
    found = auditor(units(file, 1, "forks")[0], tmp_path / "out")
    assert (found["exit"], found["problem"]) == (0, "")
    child = int((file.parent / "child").read_text())
    until(lambda: not alive(child), 10)


@posix
@pytest.mark.thorough
def test_a_subject_that_floods_is_audited_as_any_other(tmp_path: Path) -> None:
    noisy = Unit(Origin(str(HOSTILE), "floods"), 0, "quick", ONE_CHECK)
    found = run.run([noisy, *units(project(tmp_path / "p"), 2)], tmp_path / "c").results
    assert [r is not None and r.complete and r.exit for r in found] == [0, 0, 0]


@posix
def test_a_subject_that_allocates_without_end_has_no_verdict(
    tmp_path: Path, auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = project(tmp_path / "p")
    monkeypatch.setattr(auditor, "memory", 2**27)
    found = auditor(units(file, 1, "allocates")[0], tmp_path / "out")
    assert "memory" in found["problem"].lower()
    assert auditor(units(file, 1)[0], tmp_path / "out")["exit"] == 0, "the next one is not disturbed"


def test_an_import_that_changes_in_mid_campaign_leaves_no_stale_result(tmp_path: Path, auditor: Auditor) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    layers = file.parent / "layers.py"

    def task(unit: Unit, out: Path) -> dict[str, Any]:
        if unit.seed == 1:
            layers.write_text("SLOPE = 0.0\n")
        return auditor(unit, out)

    one = run.Options(Engine(workers=1), task=auditor)
    first = run.run(units(file, 2), folder, replace(one, task=task))
    assert first.notes == ["layers.py changed: 1 audit is done again"], "in the same run"
    with Store(folder) as store:
        assert len({r.key for r in first.results if r is not None}) == 1
        assert len([r for r in store.results() if r.complete]) == 3
    layers.write_text("SLOPE = 1.75\n")
    again = run.run(units(file, 2), folder, one)
    assert "layers.py changed: 2 audits are done again" in again.notes
    assert reports(again.results) == reports(run.run(units(file, 2), tmp_path / "d", one).results)


@posix
@pytest.mark.thorough
def test_two_campaigns_on_one_folder_while_an_import_changes_end_with_the_new_code_alone(tmp_path: Path) -> None:
    """The name of the subject says what code ran; the key must say the same, of every result."""
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    both = [command(file, folder, "slow_and_named", 12, "--workers", "1") for _ in range(2)]
    until(lambda: count(folder) >= 3)
    (file.parent / "new.py").write_text("SLOPE = 1.75\n")
    (file.parent / "new.py").replace(file.parent / "layers.py")
    ended = [finish(p) for p in both]
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert all("12 audits: 12 passed" in out for _, out, _ in ended)
    assert any("layers.py changed" in said for _, _, said in ended)
    with Store(folder) as store:
        keyed = store.keys()
        ran = [(r.unit, r.body["report"]["subject"]["name"], keyed[r.key]["files"]["layers.py"]) for r in store.results() if r.complete]
        members = [r for run in store.runs() for r in store.members(run.id)]
        final = {m.unit: timeless(m.result.body["report"]) for m in members}
        assert len(list(store.results())) == len(ran), "none without a verdict"
    digests = {f"scaled by {slope}": hashlib.sha256(f"SLOPE = {slope}\n".encode()).hexdigest() for slope in (1.5, 1.75)}
    assert all(digests[name] == digest for _, name, digest in ran), "each is kept under the code that ran"
    assert len(ran) == len({*ran})
    assert len({unit for unit, name, _ in ran if name == "scaled by 1.75"}) == 12
    old = len(ran) - 12
    assert 3 <= old < 12
    loads = (file.parent / "loads.txt").read_text().count("loaded")
    assert 0 <= loads - len(ran) <= 2, "each audit ran once under each code, but for what ran at the change"
    undisturbed = run.run(units(file, 12, "slow_and_named"), tmp_path / "d", run.Options(Engine(workers=2)))
    assert sorted(map(str, final.values())) == sorted(map(str, reports(undisturbed.results)))
    assert not list(folder.glob(".*.lock"))
