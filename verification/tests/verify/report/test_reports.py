"""JSON, JUnit and terminal reports: what was found arrives, whatever it is called and however odd its numbers are."""

from __future__ import annotations

import io
import json
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_reports import NASTY, REPORT, RESULTS, result
from rich.console import Console

from iresnet_verify import catalogue
from iresnet_verify.check.audit_result import AuditResult
from iresnet_verify.cli import terminal
from iresnet_verify.report import junit
from iresnet_verify.report.json import document, read, write
from iresnet_verify.report.text import established
from iresnet_verify.workers.isolated_audits import Progress


def reading_strictly(path: Path) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    return json.loads(path.read_text("utf-8"), parse_constant=refuse)


# -- JSON
def test_json_has_the_schema(tmp_path: Path) -> None:
    write([REPORT], tmp_path / "new" / "a.json")
    found = reading_strictly(tmp_path / "new" / "a.json")
    assert {"schema", "subject", "environment", "seed", "alpha", "status", "checks"} <= found.keys()
    assert (found["schema"], found["seed"], found["status"]) == (1, 5, "failed")
    keys = {"id", "family", "status", "expected", "claim", "evidence", "reference", "reproduce"}
    assert all(keys <= c.keys() for c in found["checks"])
    assert [c["expected"] for c in found["checks"]] == [None, None, "upstream", "upstream", None, None, None]
    assert found["checks"][1]["reproduce"] == "r/two.py"


GROUNDED = replace(REPORT, checks=[
    result("lipschitz.proved", "passed", kind="proof", evidence={"proved": "Lip(g) ≤ 0.58"}),
    result("inverse.contraction-proved", "passed", kind="proof", evidence={"proved": "F bijective"}),
    result("logdet.matches-determinant", "passed", kind="proof"),
    result("estimator.unbiased", "passed", kind="proof", evidence={"alpha_per_row": 1e-8}),
    result("density.samples-follow-log-prob", "passed", kind="equivalence"),
    result("lipschitz.bounds-pairs", "passed", kind="search"),
    result("lipschitz.bounds-stretch", "failed", kind="search"),
    result("logdet.adds-up", "skipped", kind="proof"),
])
LINE = f"proved Lip(g) ≤ 0.58, F bijective, 1 identity · bounded 2 checks at error rate {REPORT.alpha:.0e} · searched 1 check"


def test_a_report_says_what_is_proved_what_is_bounded_and_what_was_only_searched(tmp_path: Path) -> None:
    """A pass by sampling is bounded though its check can prove; what failed or was skipped rests on nothing."""
    assert " · ".join(f"{g.word} {what}" for g, what in established(GROUNDED)) == LINE
    assert LINE in printed(160, GROUNDED)
    write([GROUNDED], tmp_path / "a.json")
    found = reading_strictly(tmp_path / "a.json")["established"]
    assert found["certificates"] == {"lipschitz.proved": "Lip(g) ≤ 0.58", "inverse.contraction-proved": "F bijective"}
    assert found["bounded"] == ["estimator.unbiased", "density.samples-follow-log-prob"]
    assert found["searched"] == ["lipschitz.bounds-pairs"]
    assert len(read(tmp_path / "a.json")[0].checks) == len(GROUNDED.checks)


def test_odd_numbers_survive_strict_json(tmp_path: Path) -> None:
    write([REPORT], tmp_path / "a.json")
    written = reading_strictly(tmp_path / "a.json")["checks"][1]["evidence"]
    assert (written["nan"], written["inf"], written["minus"]) == ("NaN", "Infinity", "-Infinity")
    (back,) = read(tmp_path / "a.json")
    evidence = back.checks[1].evidence
    assert math.isnan(evidence["nan"])
    assert (evidence["inf"], evidence["minus"], evidence["int64"]) == (math.inf, -math.inf, 3)
    assert evidence["bool"] is True
    assert evidence["float32"] == float(np.float32(0.1))
    assert evidence["array"][0] == 1.5
    assert math.isnan(evidence["array"][1])
    assert evidence["nested"] == {"a": [1, None]}


def test_reading_and_writing_again_changes_nothing(tmp_path: Path) -> None:
    write([REPORT, REPORT], tmp_path / "a.json")
    write(read(tmp_path / "a.json"), tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_one_report_is_an_object_and_several_are_audits(tmp_path: Path) -> None:
    assert "audits" not in document([REPORT])
    assert [a["schema"] for a in document([REPORT, REPORT])["audits"]] == [1, 1]
    assert document([], [ValueError("gone")]) == {"schema": 1, "audits": [], "errors": ["gone"]}


def test_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"schema": 2}')
    with pytest.raises(ValueError, match="expected a report with schema 1"):
        read(tmp_path / "a.json")


def test_methods_of_the_report_write_the_same(tmp_path: Path) -> None:
    REPORT.to_json(tmp_path / "a.json")
    assert reading_strictly(tmp_path / "a.json") == REPORT.to_dict()


# -- JUnit
def junit_tree(tmp_path: Path, *errors: Exception) -> ET.Element:
    junit.write([REPORT], tmp_path / "new" / "a.xml", errors)
    return ET.parse(tmp_path / "new" / "a.xml").getroot()


def test_junit_counts_each_outcome_as_what_it_is(tmp_path: Path) -> None:
    root = junit_tree(tmp_path)
    assert [root.get(k) for k in ("tests", "failures", "errors", "skipped")] == ["7", "2", "1", "3"]
    outcomes = {c.get("name"): [e.tag for e in c] for c in root.iter("testcase")}
    assert outcomes == {
        "inverse.one": [], "inverse.two": ["failure"], "logdet.declared": ["skipped"], "logdet.surprise": ["failure"],
        "estimator.open": ["skipped"], "gradient.none": ["skipped"], "hygiene.broken": ["error"],
    }


def test_junit_gives_reasons(tmp_path: Path) -> None:
    messages = {c.get("name"): e.get("message") for c in junit_tree(tmp_path).iter("testcase") for e in c}
    assert messages["logdet.declared"] == "expected failure: upstream"
    assert messages["estimator.open"] == "inconclusive: about estimator.open"
    assert "remove the declaration" in str(messages["logdet.surprise"])


def test_junit_survives_hostile_names(tmp_path: Path) -> None:
    failure = junit_tree(tmp_path).find(".//failure")
    assert failure is not None
    message = str(failure.get("message"))
    assert r"a\x00b\x1b[31m<&" in message
    assert r"\ud800" in message
    assert "r/two.py" in str(failure.text)


def test_junit_lists_what_could_not_be_loaded(tmp_path: Path) -> None:
    root = junit_tree(tmp_path, ValueError("no such file"))
    assert root.get("errors") == "2"
    assert [e.get("message") for e in root.findall("testsuite[@name='loading']//error")] == ["no such file"]


# -- terminal
def printed(width: int, *reports: AuditResult, colour: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=colour, color_system="truecolor" if colour else None)
    terminal.show(reports, console)
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 160])
def test_terminal_report_is_readable(width: int) -> None:
    text = printed(width, REPORT)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    for check in RESULTS:
        assert check.id in text
    for expected in ("F⁻¹(F(x)) = x", "nan = NaN", "1e-12 = 8·u", "python r/two.py", "upstream", "died of SIGSEGV"):
        assert expected in text


@pytest.mark.parametrize("width", [80, 160])
def test_gallery_table_counts_by_family(width: int) -> None:
    calm = replace(REPORT, subject={**REPORT.subject, "name": "calm"}, checks=[result(f"{f}.x") for f in terminal.FAMILIES])
    text = printed(width, REPORT, calm)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    (row,) = [line for line in text.splitlines() if "calm " in line and line.count("1✓") == 10]
    assert row.split() == (["calm", *["1✓"] * 10, "passed"] if width > 100 else ["✓", "calm", *["1✓"] * 10])
    assert re.search(r"1✕ ?1✓", text)


@pytest.mark.parametrize("width", [80, 160])
def test_no_family_is_left_out_where_every_cell_is_full(width: int) -> None:
    full = [result(f"{f}.{n}", status=status) for f in terminal.FAMILIES
            for status, times in (("failed", 3), ("passed", 18)) for n in range(times)]
    report = replace(REPORT, subject={"name": "normflows residual flow, d=2"}, checks=full)
    rows = [line for line in printed(width, report, report).splitlines() if len(re.findall(r"3✕ ?18✓", line)) == 10]
    assert len(rows) == 2
    assert rows[0].split()[0] == ("normflows" if width > 100 else "✕")  # the state stands before the name, however it is folded


def test_skipped_checks_are_listed_under_their_reason() -> None:
    skipped = [replace(result(f"lipschitz.{i}", "skipped"), message="needs lipschitz; the subject gives none") for i in range(9)]
    text = printed(80, replace(REPORT, checks=[result("inverse.a"), *skipped]))
    assert text.count("needs lipschitz") == 1
    assert all(c.id in text for c in skipped)
    sentence = replace(REPORT, checks=[result("inverse.a", "skipped", message="the claim is about the parameters as delivered only.")])
    assert "as delivered only: inverse.a" in printed(160, sentence)


def test_names_are_not_read_as_markup_or_control_characters() -> None:
    text = printed(100, REPORT)
    assert "[bold]" in text
    assert "\x1b" not in text
    assert "\x00" not in text


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" in printed(100, REPORT, colour=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", printed(100, REPORT, colour=True))


def test_progress_is_a_bar_on_a_terminal_and_a_line_elsewhere() -> None:
    for is_terminal in (True, False):
        stream = io.StringIO()
        with terminal.progress_bar(Console(file=stream, force_terminal=is_terminal, width=100)) as advance:
            advance(Progress(NASTY, RESULTS[0], 1, 7))
        assert ("1/7" in stream.getvalue()) == is_terminal
        assert ("1 of 7 checks" in stream.getvalue()) != is_terminal
        assert "inverse.one" in stream.getvalue()


def test_catalogue_table_names_every_check() -> None:
    stream = io.StringIO()
    checks = list(catalogue.load().values())
    terminal.catalogue_table(checks, Console(file=stream, width=160))
    assert all(c.id in stream.getvalue() for c in checks)
    assert f"{len(checks)} checks" in stream.getvalue()


def test_no_word_of_the_counts_is_cut_in_80_columns() -> None:
    checks = [result("inverse.a", "failed"), result("inverse.b", expected="known"), result("inverse.c", "error"),
              result("inverse.d", "inconclusive"), result("inverse.e", "failed", expected="known"), result("inverse.f", "skipped"),
              result("convergence.a")]
    stream = io.StringIO()
    terminal.show_one(replace(REPORT, checks=checks), Console(file=stream, width=80))
    text = stream.getvalue()
    assert "…" not in text.split(" family")[1]
    for word in ("failed", "unexpected", "error", "inconclusive", "declared", "skipped", "passed"):
        assert re.search(rf"\b{word}\b", text[text.index(" family") - 250 :])
