"""Campaigns: one file an audit, whole or not there; what is done is not done again; threads and Dask give the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from places import HOSTILE as FILE

from iresnet_backends.errors import BackendUnavailableError
from iresnet_verify.cli import commands as cli
from iresnet_verify.subject.loading import Origin, parse
from iresnet_verify.workers import campaign
from iresnet_verify.workers.campaign import Unit

ONE_CHECK = ("--select", "inverse.recovers-input")


class Counted:
    """A task that runs nothing, counts, and can be told to break."""

    def __init__(self, code: int = 0) -> None:
        self.calls: list[list[str]] = []
        self.code = code

    def __call__(self, arguments: Sequence[str]) -> dict[str, Any]:
        self.calls.append(list(arguments))
        if self.code < 0:
            raise KeyboardInterrupt
        return {"exit": self.code, "stderr": "", "report": {"schema": 1}}


def units(count: int, *options: str) -> list[Unit]:
    return [Unit(parse(f"{FILE}:good"), seed, "quick", options) for seed in range(count)]


def test_what_is_done_is_not_done_again_and_more_seeds_go_on(tmp_path: Path) -> None:
    task = Counted()
    assert len(campaign.run(units(3), tmp_path, task=task)) == 3
    assert len(campaign.run(units(5), tmp_path, task=task)) == 5
    assert [c[c.index("--seed") + 1] for c in sorted(task.calls)] == ["0", "1", "2", "3", "4"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(u.name for u in units(5))


def test_another_file_other_options_or_another_budget_are_other_audits(tmp_path: Path) -> None:
    copy = tmp_path / "hostile_subjects.py"
    copy.write_bytes(FILE.read_bytes())
    unit = Unit(Origin(str(copy), "good"), 0, "quick")
    names = {unit.name, Unit(unit.origin, 1, "quick").name, Unit(unit.origin, 0, "standard").name,
             Unit(unit.origin, 0, "quick", ONE_CHECK).name, Unit(Origin(str(copy), "wrong"), 0, "quick").name}
    assert len(names) == 5
    assert Unit(Origin(str(FILE), "good"), 0, "quick").name == unit.name  # the same content elsewhere
    copy.write_bytes(FILE.read_bytes() + b"\n")
    assert unit.name not in names


def test_a_broken_file_and_a_run_that_died_are_done_again(tmp_path: Path) -> None:
    (unit,) = units(1)
    (tmp_path / unit.name).write_text('{"schema": 1, "exi')
    assert campaign.run([unit], tmp_path, task=Counted(-9 % 256))[0]["exit"] == 247
    task = Counted()
    assert campaign.run([unit], tmp_path, task=task)[0]["exit"] == 0
    assert len(task.calls) == 1
    assert "1 did not come to an end" in campaign.summary([{"exit": 247}])


def test_an_interrupted_campaign_leaves_whole_files_only(tmp_path: Path) -> None:
    campaign.run(units(2), tmp_path, task=Counted())
    with pytest.raises(KeyboardInterrupt):
        campaign.run(units(6), tmp_path, workers=1, task=Counted(-1))
    assert all(json.loads(p.read_text("utf-8"))["exit"] == 0 for p in tmp_path.glob("*.json"))
    assert len(list(tmp_path.iterdir())) == 2


def test_the_summary_says_what_zero_failures_mean() -> None:
    assert campaign.summary([{"exit": 0}] * 2000) == (
        "2000 audits: 2000 passed, no failure in 2000: their rate is at most 0.0015 at 95 % confidence")
    assert campaign.summary([{"exit": 0}, {"exit": 1}, {"exit": 3}]) == "3 audits: 1 passed, 1 failed, 1 inconclusive"


def test_the_command_audits_in_processes_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["campaign", f"{FILE}:wrong", f"{FILE}:good", "--seeds", "1", "--folder", str(tmp_path / "c"),
                 "--select", "inverse.recovers-input,logdet.matches-determinant"]
    assert cli.run(arguments) == cli.FAILED
    assert "2 audits: 1 passed, 1 failed" in capsys.readouterr().out
    found = {r["spec"]: r for r in (json.loads(p.read_text("utf-8")) for p in (tmp_path / "c").iterdir())}
    assert found["hostile_subjects.py:wrong"]["report"]["status"] == "failed"
    assert cli.run(arguments) == cli.FAILED  # from the files, at once
    assert cli.run(["campaign", "nowhere.py:f", "--folder", str(tmp_path)]) == cli.UNUSABLE


def test_dask_runs_the_same_audits(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    done: list[int] = []
    found = campaign.run(units(2), tmp_path, workers=1, scheduler="local", task=_seed_of, progress=lambda u, _: done.append(u.seed))
    assert [r["report"] for r in found] == [0, 1]
    assert sorted(done) == [0, 1]


def _seed_of(arguments: Sequence[str]) -> dict[str, Any]:
    return {"exit": 0, "stderr": "", "report": int(arguments[arguments.index("--seed") + 1])}


def test_without_dask_a_scheduler_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install .iresnet-ref\[campaign\]"):
        campaign.run(units(1), tmp_path, scheduler="local", task=_seed_of)
