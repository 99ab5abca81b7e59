"""What a run of a campaign says as a whole, in comparison with another one, and to other programs."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from subjects.campaigns import ONE_CHECK, project, units

from iresnet_backends.errors import BackendUnavailableError
from iresnet_verify.campaign import export, keys, run
from iresnet_verify.campaign.comparison import compare
from iresnet_verify.campaign.page import headline
from iresnet_verify.campaign.store import FILE, Store
from iresnet_verify.campaign.tally import Tally, failure_line, sentences, tally
from iresnet_verify.campaign.unit import Unit
from iresnet_verify.cli import commands as cli
from iresnet_verify.report.json import read
from iresnet_verify.statistics.many_tests import clopper_pearson
from iresnet_verify.subject.errors import SubjectError

AROUND = keys.surroundings()


def check(id: str, status: str = "passed", size: float = 0.0, **more: Any) -> dict[str, Any]:
    evidence = {"largest_error": size, "compared": 8, **({"e_value": more.pop("e")} if "e" in more else {})}
    return {"id": id, "family": id.split(".", maxsplit=1)[0], "status": status, "claim": "c", "reference": "r", "kind": "proof",
            "message": "", "evidence": evidence, "expected": None, "because_of": None, "reproduce": None, "seconds": 0.0, **more}


class Scripted:
    """A task that answers with checks that are decided by the seed."""

    def __init__(self, file: Path, checks: Any) -> None:
        self.file, self.checks = file, checks
        self.calls: list[Unit] = []

    def __call__(self, unit: Unit, out: Path) -> dict[str, Any]:
        self.calls.append(unit)
        chosen = set(unit.select) - set(ONE_CHECK)
        found = [{**c, "message": c["message"] or f"seed {unit.seed}"} for c in self.checks(unit) if not chosen or c["id"] in chosen]
        failed = any(c["status"] == "failed" for c in found)
        report = {"schema": 1, "subject": {"name": "s"}, "environment": {}, "seed": unit.seed, "alpha": unit.alpha, "budget": "quick",
                  "status": "failed" if failed else "passed", "seconds": 0.1, "checks": found,
                  "findings": [{"cause": "sign", "wrong": "The sign is wrong.", "sure": "", "change": "", "check": c["id"], "follows": []}
                               for c in found if c["status"] == "failed"]}
        key = {"files": {self.file.name: keys.digest_of(str(self.file))}, "distributions": {}, **AROUND}
        return {"exit": int(failed), "problem": "", "report": report, "key": key}


def counted(folder: Path) -> Tally:
    with Store(folder) as store:
        return tally(store, store.runs()[-1].id)


def test_a_failure_that_one_seed_shows_is_looked_at_again_with_fresh_seeds(tmp_path: Path) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"

    def checks(unit: Unit) -> list[dict[str, Any]]:
        rare = "failed" if unit.seed == 2 or unit.seed > 1000 else "passed"
        often = "failed" if unit.seed in (1, 3) else "passed"
        return [check("inverse.a", rare, 0.5), check("inverse.b", often, 2.0), check("inverse.c", rare, because_of="inverse.a")]

    task = Scripted(file, checks)
    some = units(file, 5)
    found = run.run(some, folder, run.Options(task=task, again=3))
    assert len(task.calls) == 5 + 3
    fresh = task.calls[5:]
    assert {u.select for u in fresh} == {("inverse.a",)}, "what two seeds have shown, or follows from another failure, needs no more"
    assert not {u.seed for u in fresh} & {u.seed for u in some}
    assert list(found.again) == [some[2].name(folder)]
    t = counted(folder)
    cell = t.rows[0].cells["inverse.a"]
    assert (cell.failures, cell.trials, cell.again, t.audits, t.repeated) == (1, 5, (3, 3), 5, 3)
    assert "1 of 5 seeds" in failure_line(t.rows[0], "inverse.a", cell)
    assert "again with 3 of 3 fresh seeds" in failure_line(t.rows[0], "inverse.a", cell)
    assert t.alpha == pytest.approx(8e-6), "looks with fresh seeds take their share"
    run.run(some, folder, run.Options(task=task, again=3))
    assert len(task.calls) == 8, "they are kept as all others"


def test_rates_are_exact_and_equal_contents_are_one_trial(tmp_path: Path) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"

    def checks(unit: Unit) -> list[dict[str, Any]]:
        return [check("inverse.a", "failed" if unit.seed == 0 else "passed", 3.0 * (unit.seed == 0), message=f"{min(unit.seed, 6)}")]

    run.run(units(file, 9), folder, run.Options(task=Scripted(file, checks)))
    t = counted(folder)
    cell = t.rows[0].cells["inverse.a"]
    assert (t.alike, cell.trials, cell.failures, cell.counts) == (2, 7, 1, {"failed": 1, "passed": 8})
    assert cell.interval == clopper_pearson(1, 7)
    assert t.different == {0: 6, 1: 1}
    assert "1 of 9 audits failed (1 of 7 different results): a rate in [0.0036, 0.58]" in headline(t)
    with Store(folder) as store:
        assert store.failures(store.runs()[-1].id) == (1, 7), "as the tables count them"
    assert "2 results repeat the content of another seed's" in " ".join(sentences(t))
    assert list(t.rows[0].causes.items()) == [(("sign", "The sign is wrong.", "inverse.a"), 1)]


def test_e_values_are_multiplied_by_those_of_fresh_seeds_and_judged_together(tmp_path: Path) -> None:
    """Three seeds with e = 30 are no discoveries each among 40; with what fresh seeds say one of them is."""
    file, folder = project(tmp_path / "p"), tmp_path / "c"

    def checks(unit: Unit) -> list[dict[str, Any]]:
        fails = unit.seed == 0 or unit.seed > 1000
        return [check("estimator.unbiased", "failed" if fails else "passed", e=40.0 if fails else 0.5, message=str(unit.seed))]

    some = units(file, 10)
    run.run(some, folder, run.Options(task=Scripted(file, checks), again=0))
    assert (counted(folder).tested, counted(folder).discoveries) == (10, [])
    run.run(some, folder, run.Options(task=Scripted(file, checks), again=2))
    t = counted(folder)
    assert [(c, u, e) for _, c, u, e in t.discoveries] == [("estimator.unbiased", some[0].name(folder), 40.0**3)]
    assert "discovers 1 at a false discovery rate of 0.05" in " ".join(sentences(t))


def changing(file: Path, folder: Path, *runs: Any) -> list[Tally]:
    """Runs of one campaign, between which the subject's file changes."""
    found = []
    for number, checks in enumerate(runs):
        file.write_text(file.read_text() + f"# {number}\n")
        run.run(units(file, 6), folder, run.Options(task=Scripted(file, checks), label=f"v{number}"))
        found.append(counted(folder))
    return found


def before(unit: Unit) -> list[dict[str, Any]]:
    return [check("inverse.a", "passed"), check("inverse.b", "failed", 0.5), check("inverse.c", "failed", 0.015),
            check("inverse.d", "failed" if unit.seed == 0 else "passed", 1.0), check("inverse.e", "failed", 1.0)]


def after(unit: Unit) -> list[dict[str, Any]]:
    return [check("inverse.a", "failed" if unit.seed == 1 else "passed", 2.0), check("inverse.b", "passed"),
            check("inverse.c", "failed", 4.8), check("inverse.d", "failed", 1.0), check("inverse.e", "failed", 1.5)]


def test_a_comparison_says_what_broke_what_was_fixed_and_what_grew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    a, b = changing(file, folder, before, after)
    kinds = {c.check: c.kind for c in compare(a, b)}
    assert kinds == {"inverse.a": "broke", "inverse.c": "worse", "inverse.b": "fixed"}, "d: the intervals overlap; e: ×1.5 is little"
    assert str(compare(a, b)[1]).endswith("inverse.c: 6 of 6 seeds → 6 of 6 seeds, size 0.015 → 4.8 (×320)")
    assert compare(a, a) == []
    assert {c.kind for c in compare(b, a)} == {"broke", "better", "fixed"}
    assert cli.run(["campaign", "diff", str(folder)]) == cli.FAILED
    assert "3 changes from v0 to v1" in capsys.readouterr().out
    assert cli.run(["campaign", "diff", f"{folder}@v1", f"{folder}@v1"]) == cli.PASSED
    assert cli.run(["campaign", "diff", f"{folder}@v1", f"{folder}@v7"]) == cli.UNUSABLE
    assert "expected a run out of v0, v1, got v7" in capsys.readouterr().err


def test_runs_go_on_and_nothing_done_is_no_run(tmp_path: Path) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    task = Scripted(file, before)

    def interrupted(unit: Unit, out: Path) -> dict[str, Any]:
        if unit.seed == 3:
            return {**task(unit, out), "problem": "cut", "report": None}
        return task(unit, out)

    run.run(units(file, 5), folder, run.Options(task=interrupted))
    run.run(units(file, 5), folder, run.Options(task=task))
    run.run(units(file, 5), folder, run.Options(task=task))
    with Store(folder) as store:
        assert [r.planned for r in store.runs()] == [5], "an unfinished run goes on, and one that does nothing leaves none"
    run.run(units(file, 5), folder, run.Options(task=task, label="1.0"))
    run.run(units(file, 6), folder, run.Options(task=task))
    with Store(folder) as store:
        assert [(r.planned, r.label == "1.0") for r in store.runs()] == [(5, False), (5, True), (6, False)]


def test_tables_hold_every_check_and_reports_are_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    run.run(units(file, 3), folder, run.Options(task=Scripted(file, before), label="v"))
    for name in ("t.csv", "t.json"):
        assert cli.run(["campaign", "export", str(folder), str(tmp_path / name)]) == cli.PASSED
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as found:
        rows = list(csv.DictReader(found))
    assert len(rows) == 15
    assert {r["seed"] for r in rows if r["check"] == "inverse.d" and r["status"] == "failed"} == {"0"}
    assert {float(r["size"]) for r in rows if r["check"] == "inverse.c"} == {0.015}
    assert [r.seed for r in read(tmp_path / "t.json")] == [0, 1, 2]
    assert json.loads((tmp_path / "t.json").read_text("utf-8"))["audits"][0]["checks"][1]["id"] == "inverse.b"
    assert cli.run(["campaign", "export", str(folder), str(tmp_path / "t.xls")]) == cli.UNUSABLE
    assert "expected a file ending in .csv, .parquet, .json" in capsys.readouterr().err


def test_parquet_holds_what_csv_holds(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    run.run(units(file, 2), folder, run.Options(task=Scripted(file, before)))
    with Store(folder) as store:
        expected = list(export.rows(store, 1))
        assert export.write(store, 1, tmp_path / "t.parquet") == 10
    table = parquet.read_table(tmp_path / "t.parquet")
    assert table.column_names == list(export.COLUMNS)
    assert [tuple(r[c] for c in export.COLUMNS) for r in table.to_pylist()] == expected


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with Store(tmp_path) as store, pytest.raises(BackendUnavailableError, match=r'pip install "iresnet-ref\[parquet\]"'):
        export.write(store, 1, tmp_path / "t.parquet")


def test_the_commands_read_a_campaign_without_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    run.run(units(file, 4), folder, run.Options(task=Scripted(file, before), label="v"))
    assert cli.run(["campaign", "status", str(folder)]) == cli.PASSED
    assert capsys.readouterr().out == "v: 4 of 4 audits: 4 failed\n"
    assert cli.run(["campaign", "show", str(folder), "inverse.d"]) == cli.PASSED
    said = capsys.readouterr().out
    assert "inverse.d: 1 of 4 seeds" in said
    assert "seed 0: seed 0" in said
    assert "largest_error = 1" in said
    assert cli.run(["campaign", "show", str(folder), "no.such"]) == cli.UNUSABLE
    assert cli.run(["campaign", "status", str(tmp_path)]) == cli.UNUSABLE
    assert f"expected a folder with {FILE}" in capsys.readouterr().err


def test_a_campaign_file_says_what_is_still_to_be_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = project(tmp_path)
    (tmp_path / "night.toml").write_text('seeds = 4\n[[subjects]]\nfactory = "subject.py:factory"\n')
    folder = tmp_path / "night-results"
    some = [replace(u, select=()) for u in units(file, 3)]
    run.run(some, folder, run.Options(task=Scripted(file, before)))
    assert cli.run(["campaign", "status", str(tmp_path / "night.toml")]) == cli.PASSED
    assert "to be done: 1 of 4" in capsys.readouterr().out
    file.write_text(file.read_text() + "#")
    assert cli.run(["campaign", "status", str(tmp_path / "night.toml")]) == cli.PASSED
    said = capsys.readouterr().out
    assert "to be done: 4 of 4" in said
    assert "subject.py changed: 3 audits are done again" in said


@pytest.mark.parametrize(
    "arguments", [["x.toml", "y.py:f"], ["y.py:f"], ["nowhere.toml"], ["y.py:f", "--folder", "c", "--resources", "GPU"]])
def test_a_wrong_call_is_bad_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "y.py").write_text("")
    assert cli.run(["campaign", *arguments]) == cli.UNUSABLE
    assert not (tmp_path / "c").exists()


def test_an_unknown_ending_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    with Store(tmp_path) as store, pytest.raises(SubjectError, match="expected a file ending in"):
        export.write(store, 1, tmp_path / "t")
