"""Configuration in pyproject, a baseline of known failures, annotations for GitHub, and the list of what would run."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from odd_reports import REPORT, result
from places import HOSTILE as FILE

from iresnet_verify.check.audit_result import AuditResult
from iresnet_verify.cli import commands as cli
from iresnet_verify.cli import configuration
from iresnet_verify.report import baseline
from iresnet_verify.report import github as report_github
from iresnet_verify.subject.errors import SubjectError

FAST = ("--budget", "quick", "--select", "hygiene.readable,inverse.recovers-input,logdet.matches-determinant")
BAD = replace(REPORT, checks=[result("inverse.a", "failed"), result("inverse.b"), result("logdet.a")])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_baseline_lets_known_failures_pass_and_new_ones_fail(elsewhere: Path) -> None:
    path = elsewhere / "known.json"
    baseline.write([BAD], path)
    known = baseline.read(path)
    (same,) = baseline.apply([BAD], known, "known.json")
    assert cli.exit_code([same]) == cli.PASSED
    assert same.checks[0].expected == "known: in known.json"
    worse = replace(BAD, checks=[*BAD.checks, result("inverse.c", "failed")])
    assert cli.exit_code(baseline.apply([worse], known, "known.json")) == cli.FAILED
    other = replace(BAD, subject={**BAD.subject, "name": "another"})
    assert cli.exit_code(baseline.apply([other], known, "known.json")) == cli.FAILED


def sized(*errors: object) -> AuditResult:
    """A report with failures of these sizes."""
    return replace(BAD, checks=[replace(result(f"logdet.{i}", "failed"), evidence={"largest_error": e}) for i, e in enumerate(errors)])


def test_a_known_failure_that_has_grown_fails_again_and_says_from_what(elsewhere: Path) -> None:
    path = elsewhere / "known.json"
    baseline.write([sized(0.015, math.nan, None)], path)
    known = baseline.read(path)
    assert known == {str(BAD.subject["name"]): {"logdet.0": 0.015, "logdet.1": math.inf, "logdet.2": None}}
    (same,) = baseline.apply([sized(0.029, 3.0, 7.0)], known, "known.json")
    assert cli.exit_code([same]) == cli.PASSED
    (worse,) = baseline.apply([sized(4.8, math.nan, 7.0)], known, "known.json")
    assert [c.expected is None for c in worse.checks] == [True, False, False]
    assert "; known.json knows it at 0.015, it is 4.8 now" in worse.checks[0].message
    assert cli.exit_code([worse]) == cli.FAILED
    (infinite,) = baseline.apply([sized(math.inf)], known, "known.json")
    assert infinite.status == "failed"


def test_the_size_is_the_largest_error_or_how_far_a_bound_is_exceeded() -> None:
    def size(**evidence: object) -> float | None:
        return baseline.size(replace(result("a.b", "failed"), evidence=evidence))

    assert size(largest_error=0.5, largest_ratio=9.0) == 0.5
    assert size(largest_ratio={"forward": 2.0, "inverse": 3.0}) == 3.0
    assert size(bias=-0.25) == 0.25
    assert size(largest_error="none", compared=3) is None


def test_a_baseline_without_sizes_is_still_read(elsewhere: Path) -> None:
    (elsewhere / "known.json").write_text('{"schema": 1, "known": {"a": ["b.c"]}}')
    assert baseline.read(elsewhere / "known.json") == {"a": {"b.c": None}}


def test_what_is_fixed_is_reported_and_fails_nothing(elsewhere: Path) -> None:
    path = elsewhere / "known.json"
    baseline.write([BAD], path)
    good = replace(BAD, checks=[result("inverse.a"), result("logdet.a")])
    known = baseline.read(path)
    assert baseline.fixed([good], known) == [f"{BAD.subject['name']}: inverse.a"]
    assert cli.exit_code(baseline.apply([good], known, "known.json")) == cli.PASSED


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": 3, "known": {"a": {}}}', '{"schema": 2, "known": {"a": ["b"]}}',
             '{"schema": 2, "known": {"a": {"b": "c"}}}', '{"schema": 1, "known": {"a": "b"}}', '{"schema": 1, "known": []}']
)
def test_a_file_that_is_no_baseline_is_refused(elsewhere: Path, text: str) -> None:
    (elsewhere / "known.json").write_text(text)
    with pytest.raises(SubjectError, match=r"expected a baseline.*--write-baseline"):
        baseline.read(elsewhere / "known.json")
    assert cli.run(["audit", f"{FILE}:good", "--baseline", "known.json"]) == cli.UNUSABLE


def test_the_command_writes_and_reads_a_baseline(elsewhere: Path) -> None:
    wrong = f"{FILE}:wrong"
    assert cli.run(["audit", wrong, *FAST]) == cli.FAILED
    assert cli.run(["audit", wrong, *FAST, "--write-baseline", "known.json"]) == cli.PASSED
    (known,) = json.loads((elsewhere / "known.json").read_text())["known"].values()
    assert known["inverse.recovers-input"] > 0.1
    assert cli.run(["audit", wrong, *FAST, "--baseline", "known.json"]) == cli.PASSED


def test_pyproject_gives_defaults_and_the_command_line_wins(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "pyproject.toml").write_text('[tool.iresnet-verify]\nselect = ["inverse.recovers-input"]\nbudget = "quick"\n')
    assert cli.run(["audit", "x.py:f", "--list"]) == 0
    assert capsys.readouterr().out.split() == ["inverse.recovers-input"]
    assert cli.run(["audit", "x.py:f", "--list", "--select", "logdet.one-value"]) == 0
    assert capsys.readouterr().out.split() == ["logdet.one-value"]
    inner = elsewhere / "a" / "b"
    inner.mkdir(parents=True)
    assert configuration.defaults(inner, {"select", "budget"})["budget"] == "quick"


@pytest.mark.parametrize(
    ("text", "message"),
    [("[tool.iresnet-verify]\nbugdet = 1\n", "expected a key of"), ("[tool", "expected TOML"),
     ("[tool]\niresnet-verify = 3\n", "to be a table")],
)
def test_a_wrong_configuration_is_one_error(elsewhere: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "pyproject.toml").write_text(text)
    assert cli.run(["audit", "x.py:f", "--list"]) == cli.UNUSABLE
    assert message in capsys.readouterr().err


def test_github_annotations_escape_and_name_the_check() -> None:
    hostile = replace(REPORT, subject={**REPORT.subject, "name": "a::b,c\nd"}, checks=[
        result("inverse.a", "failed", message="50% off\n::error::x"), result("inverse.b", "inconclusive"),
        result("inverse.c", expected="upstream"), result("inverse.d", "failed", expected="upstream"), result("inverse.e"),
    ])
    found = list(report_github.lines([hostile]))
    assert found[0] == "::error title=a%3A%3Ab%2Cc%0Ad inverse.a::50%25 off%0A::error::x"
    assert [line.split()[0] for line in found] == ["::error", "::notice", "::error"]
    assert all("\n" not in line for line in found)


def test_annotations_are_printed_under_github_actions(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for value, printed in (("true", True), ("false", False)):
        monkeypatch.setenv("GITHUB_ACTIONS", value)
        cli.run(["audit", f"{FILE}:wrong", *FAST])
        line = next(i for i, text in enumerate(FILE.read_text().splitlines(), 1) if text == "def wrong():")
        assert (f"hostile_subjects.py,line={line},title=wrong" in capsys.readouterr().out) is printed


def test_annotations_name_files_as_seen_from_the_checkout(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(elsewhere))
    file = elsewhere / "pkg" / "flow, 2.py"
    file.parent.mkdir()
    file.write_text("import os\n\n\ndef make():\n    pass\n\nalso = make\n")
    assert report_github.place_of(str(file), "make") == (str(file), 4)
    assert report_github.place_of(str(file), "also") == (str(file), 7)
    assert report_github.place_of(str(file), "elsewhere") == (str(file), 1)
    (line,) = report_github.lines([replace(BAD, checks=BAD.checks[:1])], [(str(file), 4)])
    assert line.startswith("::error file=pkg/flow%2C 2.py,line=4,title=")
    outside = report_github.line(BAD.checks[0], "s", ("/elsewhere/x.py", 2))
    assert outside.startswith("::error file=/elsewhere/x.py,line=2,")
