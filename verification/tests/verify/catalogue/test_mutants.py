"""The examination of the suite: every mutant is killed by a check meant for its mistake, with evidence a person can use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from places import ROOT

from iresnet_verify import catalogue
from iresnet_verify.catalogue.convergence import reporting
from iresnet_verify.catalogue.lipschitz import bound
from iresnet_verify.check import verdict
from iresnet_verify.cli.commands import run
from iresnet_verify.mutants import examination, load, matrix
from iresnet_verify.running.run import Prepared, plan_audit, run_check
from iresnet_verify.subject.subject import HostArray

MUTANTS = load()


def one_row(rows: HostArray, refuted: Callable[[HostArray], bool]) -> HostArray:
    """A counterexample as it was found: how simple it becomes is tested in test_shrinking."""
    return next((rows[i : i + 1] for i in range(len(rows)) if refuted(rows[i : i + 1])), rows)


@pytest.mark.parametrize("id", MUTANTS)
def test_a_mutant_is_killed_by_a_check_meant_for_it(id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (verdict, bound, reporting):
        monkeypatch.setattr(module, "shrink", one_row)
    mutant = MUTANTS[id]
    prepared = Prepared(mutant.make(examination.SEED), 0)
    alive = []
    for item in plan_audit(prepared, "quick", 1e-6, select=mutant.meant):
        if item.check.id in mutant.meant:
            found = run_check(prepared, item, seed=0, budget="quick")
            if found.status == "failed":
                assert found.message
                assert found.claim
                assert found.evidence or found.counterexample is not None
                return
            alive.append((found.id, found.status, found.message))
    pytest.fail(f"alive: {alive}")


def test_each_check_has_a_mutant() -> None:
    meant = {c for m in MUTANTS.values() for c in m.meant}
    checks = catalogue.load()
    assert meant <= checks.keys()
    without = checks.keys() - meant
    assert without <= CANNOT_FAIL_ALONE, f"checks that no mutant is meant for: {sorted(without - CANNOT_FAIL_ALONE)}"


CANNOT_FAIL_ALONE = {
    "estimator.length-per-row",  # reports a correlation, refutes nothing
    "hygiene.readable",  # its failure is an error of the subject, see the tests of bad input
    "convergence.banach-rate",  # whatever violates it violates the bound as well
    "inverse.contraction-proved", "lipschitz.proved",  # what is not proved is not refuted
}


def test_the_command_writes_the_matrix_and_a_survivor_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "matrix.json"
    table = tmp_path / "matrix.md"
    assert run(["mutants", "hygiene/input-mutated", "--json", str(path), "--markdown", str(table)]) == 0
    assert "1 of 1 mutants killed" in capsys.readouterr().out
    matrix = json.loads(path.read_text(encoding="utf-8"))
    assert matrix["schema"] == 1
    assert [m["id"] for m in matrix["mutants"]] == ["hygiene/input-mutated"]
    rows = [line for line in table.read_text(encoding="utf-8").splitlines() if line.startswith(("##", "| input"))]
    assert [line.split(" (")[0].split(" |")[0] for line in rows] == ["## hygiene", "| input-mutated"]
    assert "hygiene.input-kept" in rows[1].split("|")[2]
    assert all(m["killed"] and set(m["by"]) & set(m["meant"]) for m in matrix["mutants"])

    survivor = examination.Verdict("x", "a mistake", ("logdet.one-value",), ("hygiene.input-kept",), 0.1)
    def examine(ids: list[str], *_: object) -> list[examination.Verdict]:
        asked.extend(ids)
        return [survivor]

    asked: list[str] = []
    monkeypatch.setattr(examination, "examine", examine)
    assert run(["mutants", "logdet/wrong-sign"]) == 1
    assert "1 alive" in capsys.readouterr().out
    assert run(["mutants", "hygiene/input-mutated", "logdet/wrong-sign"]) == 1
    assert asked == ["logdet/wrong-sign"] * 2 + ["hygiene/input-mutated"], "in the order of the catalogue"
    assert run(["mutants", "no such mutant"]) == 2


def test_the_published_matrix_lists_every_mutant_and_each_is_killed() -> None:
    page = (ROOT / "docs" / "kill-matrix.md").read_text(encoding="utf-8")
    assert page == matrix.markdown([], MUTANTS, page), "run: iresnet-verify mutants NEW --markdown docs/kill-matrix.md"
    rows = matrix.rows_of(page)
    assert list(rows) == list(MUTANTS), "run: iresnet-verify mutants NEW --markdown docs/kill-matrix.md"
    for id, (killers, others) in rows.items():
        assert set(killers.split(", ")) <= set(MUTANTS[id].meant), id
        assert set(filter(None, others.split(", "))) <= catalogue.load().keys(), id


def test_a_run_of_some_mutants_replaces_their_rows_alone() -> None:
    page = matrix.markdown([], MUTANTS, (ROOT / "docs" / "kill-matrix.md").read_text(encoding="utf-8"))
    survivor = examination.Verdict("hygiene/input-mutated", "-", ("hygiene.input-kept",), ("hygiene.memory",), 0.1)
    new = matrix.markdown([survivor], MUTANTS, page)
    changed = [(a, b) for a, b in zip(page.splitlines(), new.splitlines(), strict=True) if a != b]
    assert [b for _, b in changed[1:]] == ["| input-mutated | **alive** | hygiene.memory |"]
    assert changed[0][1].startswith(f"{len(MUTANTS) - 1} of {len(MUTANTS)} mutants")
    assert "input-mutated" not in matrix.markdown([], [m for m in MUTANTS if m != "hygiene/input-mutated"], page), "a mutant that is gone"
