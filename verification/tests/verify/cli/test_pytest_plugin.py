"""`parametrize_with_checks`: every check of the catalogue is a test, and each outcome is what pytest calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iresnet_verify import catalogue

pytest_plugins = ["pytester"]
catalogue.load()  # pytester forgets the modules that a nested run imports first, and a check registers only once

HEAD = """
import numpy as np
from iresnet_verify import Subject, parametrize_with_checks

def make(offset=0.0, **more):
    return Subject(
        name="scaled", event_shape=(3,), framework="numpy", forward=lambda x: 1.5 * x,
        inverse=lambda y: y / 1.5 + offset, log_det=lambda x: np.full(len(x), 3 * np.log(1.5)), **more,
    )
"""
CHECKS = ["inverse.recovers-input", "hygiene.readable", "lipschitz.bounds-pairs"]


# A body may register checks, which must not stay in the catalogue of this process: it runs in another one.
def outcome(pytester: pytest.Pytester, factories: str, body: str = "", select: object = CHECKS) -> pytest.RunResult:
    pytester.makepyfile(
        f"{HEAD}{body}\n@parametrize_with_checks([{factories}], select={select!r})\n"
        "def test_my_flow(subject, check):\n    check(subject)\n"
    )
    run = pytester.runpytest_subprocess if body else pytester.runpytest_inprocess
    return run("-rA")


def test_passed_checks_pass_and_inapplicable_ones_are_skipped_with_their_reason(pytester: pytest.Pytester) -> None:
    found = outcome(pytester, "make")
    found.assert_outcomes(passed=2, skipped=1)
    found.stdout.fnmatch_lines(["*needs lipschitz; the subject gives none*"])
    found.stdout.fnmatch_lines(["*test_my_flow[[]scaled-inverse.recovers-input[]]*"])


def test_a_failed_check_fails_with_evidence_and_a_reproduction_that_runs(pytester: pytest.Pytester) -> None:
    found = outcome(pytester, "lambda: make(0.25)")
    found.assert_outcomes(passed=1, failed=1, skipped=1)
    found.stdout.fnmatch_lines(["*AssertionError: inverse.recovers-input: *", "*claim: *", "*tolerance: *", "*oracle: *"])
    (line,) = {x.split("reproduce: ")[1] for x in found.outlines if "reproduce: " in x and x.startswith("E ")}
    assert ".pytest_cache" in line
    script = subprocess.run([sys.executable, line.strip()], capture_output=True, text=True, check=False, env=os.environ)
    assert script.returncode == 1, script.stderr
    assert "violated" in script.stdout or "failed" in script.stdout


def test_a_failure_shows_no_source_of_the_plugin(pytester: pytest.Pytester) -> None:
    found = outcome(pytester, "lambda: make(0.25)", select=CHECKS[:1])
    assert "pytest_plugin.py" not in found.stdout.str()
    assert "check(subject)" in found.stdout.str()


@pytest.mark.parametrize("workers", [[], ["-n1"]])
def test_on_github_a_failure_is_annotated_at_the_factory_or_the_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: list[str]
) -> None:
    pytester.makepyfile(f"{HEAD}\ndef wrong():\n    return make(0.25)\n\n@parametrize_with_checks([wrong, lambda: make(0.5)], "
                        f"select={CHECKS[:1]!r})\ndef test_my_flow(subject, check):\n    check(subject)\n")
    (file,) = pytester.path.glob("test_*.py")
    where = {text: i for i, text in enumerate(file.read_text().splitlines(), 1)}
    test = next(i for text, i in where.items() if text.startswith("@parametrize"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path))
    lines = sorted(x for x in pytester.runpytest_subprocess(*workers).outlines if x.startswith("::error"))
    assert len(lines) == 2
    for place in (where["def wrong():"], test):
        (line,) = [x for x in lines if x.startswith(f"::error file={file.name},line={place},")]
        assert len(line.partition(" inverse.recovers-input::")[2]) > 10, "it says what was found"


def test_the_reproduction_of_a_factory_of_the_test_file_loads_it_and_sees_its_repair(pytester: pytest.Pytester) -> None:
    # Nothing but NumPy and pytest: no cloudpickle to store the subject with.
    pytester.makeconftest("import sys\nfor name in ('cloudpickle', 'torch', 'rich', 'click'):\n    sys.modules[name] = None\n")
    found = outcome(pytester, "wrong", "\ndef wrong():\n    return make(0.25)\n", ["inverse.recovers-input"])
    found.assert_outcomes(failed=1)
    (line,) = {x.split("reproduce: ")[1].strip() for x in found.outlines if "reproduce: " in x and x.startswith("E ")}
    (file,) = pytester.path.glob("test_*.py")
    codes = []
    for offset in ("0.25", "0.0"):
        file.write_text(file.read_text().replace("make(0.25)", f"make({offset})"))
        codes.append(subprocess.run([sys.executable, line], capture_output=True, check=False, env=os.environ).returncode)
    assert codes == [1, 0]


def test_declared_failures_are_strict(pytester: pytest.Pytester) -> None:
    declared = "expected_failures={'inverse.recovers-input': 'known since 1.0'}"
    found = outcome(pytester, f"lambda: make(0.25, {declared}), lambda: make(0.0, {declared})")
    found.assert_outcomes(passed=2, xfailed=1, failed=1, skipped=2)
    found.stdout.fnmatch_lines(["XFAIL *known since 1.0*"])
    found.stdout.fnmatch_lines(["*[[]XPASS(strict)[]] known since 1.0*"])


def test_an_error_is_neither_a_failure_nor_excused_by_a_declaration(pytester: pytest.Pytester) -> None:
    body = """
from iresnet_verify.check import Outcome, check
@check("hygiene.undecided", claim="-", reference="-", kind="search")
def undecided(context):
    return Outcome("inconclusive", "too little budget")
@check("hygiene.broken", claim="-", reference="-", kind="search")
def broken(context):
    raise RuntimeError("the check itself broke")
"""
    declared = "lambda: make(expected_failures={'hygiene.broken': 'known'})"
    found = outcome(pytester, f"make, {declared}", body, ["hygiene.undecided", "hygiene.broken"])
    found.assert_outcomes(failed=2, skipped=2)
    found.stdout.fnmatch_lines(["*CheckError: hygiene.broken: RuntimeError: the check itself broke*"])
    found.stdout.fnmatch_lines(["*SKIPPED*inconclusive: too little budget*"])


def test_lists_and_subjects_are_accepted_and_equal_names_stay_apart(pytester: pytest.Pytester) -> None:
    found = outcome(pytester, "lambda: [make(), make()], make()", "", CHECKS[:1])
    found.assert_outcomes(passed=3)
    for label in ("scaled-", "scaled-2-", "scaled-3-"):
        found.stdout.fnmatch_lines([f"*test_my_flow[[]{label}inverse.recovers-input[]]*"])


def test_the_same_seed_gives_the_same_subject(pytester: pytest.Pytester) -> None:
    body = """
def drawn():
    return Subject(name=repr(np.random.rand()), event_shape=(3,), framework="numpy", forward=lambda x: x)
np.random.rand()
"""
    found = outcome(pytester, "drawn, lambda: (np.random.rand(), drawn())[1], drawn", body, ["hygiene.readable"])
    names = [x.split("[")[1].split("-hygiene")[0] for x in found.outlines if x.startswith("PASSED")]
    assert len(names) == 3
    assert names[2] == f"{names[0]}-2"
    assert not names[1].startswith(names[0])


@pytest.mark.parametrize(
    ("factory", "message"),
    [("lambda: 3", "*SubjectError: <lambda>: expected a Subject or a list of them, got int*"),
     ("lambda: make(lipschitz=1.5)", "*SubjectError: lipschitz: expected *1.5*")],
)
def test_nonsense_is_one_clear_error_while_collecting(pytester: pytest.Pytester, factory: str, message: str) -> None:
    found = outcome(pytester, factory)
    found.assert_outcomes(errors=1)
    found.stdout.fnmatch_lines([message])


@pytest.mark.parametrize("code", ["import iresnet_verify.pytest_plugin", "from iresnet_verify import parametrize_with_checks"])
def test_the_plugin_imports_nothing_but_pytest(code: str, tmp_path: Path) -> None:
    heavy = ("numpy", "torch", "rich", "click", "jinja2", "pebble", "matplotlib", "iresnet_ref")
    test = f"import sys, pytest; {code}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", test], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"
