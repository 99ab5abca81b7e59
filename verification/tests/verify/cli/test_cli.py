"""The command line: exit codes, one clear sentence for every misuse, files where they were asked for and nowhere else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_subjects import backend_that_crashes, backend_that_hangs
from odd_reports import REPORT, result
from places import HOSTILE as FILE
from rich.console import Console

from iresnet_verify import catalogue
from iresnet_verify.cli import commands as cli
from iresnet_verify.machine import doctor
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.loading import load, parse

FAST = ("--budget", "quick", "--select", "hygiene.readable,inverse.recovers-input,logdet.matches-determinant")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


# -- exit codes
@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (("passed",), cli.PASSED), (("passed", "skipped"), cli.PASSED), (("passed", "failed"), cli.FAILED),
        (("passed", "inconclusive"), cli.UNDECIDED), (("passed", "error"), cli.UNDECIDED),
        (("failed", "error", "inconclusive"), cli.FAILED),
    ],
)
def test_exit_codes_follow_the_worst_status(statuses: tuple[Any, ...], code: int) -> None:
    checks = [result("logdet.always")] + [result(f"inverse.{i}", s) for i, s in enumerate(statuses)]
    report = replace(REPORT, checks=checks)
    good = replace(REPORT, checks=[result("logdet.a"), result("inverse.a")])
    assert cli.exit_code([report]) == code
    assert cli.exit_code([good, report, good]) == code
    assert cli.exit_code([good, report], [SubjectError("gone")]) == cli.UNUSABLE


def test_declared_failures_count_as_declared() -> None:
    needed = [result("logdet.a"), result("inverse.a")]
    assert cli.exit_code([replace(REPORT, checks=[*needed, result("inverse.b", "failed", expected="known")])]) == cli.PASSED
    assert cli.exit_code([replace(REPORT, checks=[*needed, result("inverse.b", expected="known")])]) == cli.FAILED


def test_nothing_audited_is_never_success() -> None:
    assert cli.exit_code([]) == cli.UNUSABLE


# -- a whole run
def test_audit_of_several_subjects(elsewhere: Path, capfd: pytest.CaptureFixture[str]) -> None:
    beside = files(FILE.parent)
    specs = [f"{FILE}:{f}" for f in ("good", "wrong", "declared", "declared_but_right")]
    code = cli.run(["audit", *specs, *FAST, "--seed", "4", "--json", "out/a.json", "--junit", "a.xml", "--html", "a.html"])
    out, err = capfd.readouterr()
    assert code == cli.FAILED, err
    found = json.loads((elsewhere / "out/a.json").read_text("utf-8"))
    assert [a["status"] for a in found["audits"]] == ["passed", "failed", "passed", "failed"]
    assert {a["seed"] for a in found["audits"]} == {4}
    scripts = [c["reproduce"] for a in found["audits"] for c in a["checks"] if c["status"] == "failed"]
    assert len(scripts) == 2
    assert all(Path(s).parent == Path("out/a-reproduce") and Path(s).is_file() for s in scripts)
    assert all(s in out for s in scripts)
    root = ET.parse("a.xml").getroot()
    assert [root.get(k) for k in ("failures", "errors", "skipped")] == ["2", "0", "1"]
    assert (elsewhere / "a.html").read_text("utf-8").lstrip().lower().startswith("<!doctype html>")
    assert files(FILE.parent) == beside, "nothing is written beside the subject file"


def test_what_cannot_be_loaded_is_one_sentence_each_and_the_rest_is_audited(
    elsewhere: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "broken.py").write_text("import a_package_nobody_has\n")
    (elsewhere / "syntax.py").write_text("def f(:\n")
    factories = ("raises", "returns_nothing", "returns_a_number", "returns_an_empty_list", "needs_an_argument",
                 "not_a_function", "no_such_factory")
    specs = [f"{FILE}:{f}" for f in factories] + ["broken.py:f", "syntax.py:f", "missing.py:f", "good", f"{FILE}:for_backend"]
    code = cli.run(["audit", *specs, *FAST, "--json", "a.json"])
    out, err = capfd.readouterr()
    assert code == cli.UNUSABLE
    expected = (
        ":raises: the factory raised RuntimeError: two lines (line ", ":returns_nothing: the factory returned None",
        ":returns_a_number: the factory returned a int, expected a Subject", ":returns_an_empty_list: ",
        ":needs_an_argument: a factory is called without arguments", ":not_a_function: expected a function",
        "has no factory 'no_such_factory'; the functions defined there are ", "-m pip install a_package_nobody_has",
        "syntax.py does not import: SyntaxError", "the file missing.py does not exist", "expected FILE.py:FACTORY",
    )
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == len(expected)
    for text in expected:
        assert sum(text in line for line in lines) == 1, text
    found = json.loads(Path("a.json").read_text("utf-8"))
    assert (found["subject"]["name"], found["status"], len(found["errors"])) == ("on numpy", "passed", len(expected))
    assert "on numpy" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "Missing argument"),
        ((f"{FILE}:good", "--budget", "endless"), "'endless' is not one of"),
        ((f"{FILE}:good", "--alpha", "1"), "Invalid value for '--alpha'"),
        *((("x.py:f", option, value), f"Invalid value for '{option}': {value} is not in the range")
          for option, value in (("--alpha", "nan"), ("--check-seconds", "nan"), ("--check-seconds", "inf"), ("--load-seconds", "1e+300"))),
        ((f"{FILE}:good", "--seed", "-1"), "Invalid value for '--seed'"),
        ((f"{FILE}:good", "--workers", "0"), "Invalid value for '--workers'"),
        ((f"{FILE}:good", "--nonsense"), "No such option"),
        ((f"{FILE}:good", "--json", f"{FILE}/a.json"), "a.json cannot be written"),
        ((f"{FILE}:good", "--html", "."), "is a directory"),
        ((str(FILE),), "expected FILE.py:FACTORY"),
        ((f"{FILE.parent}:good",), "is a folder"),
    ],
)
def test_bad_usage_is_refused_with_a_sentence(arguments: tuple[str, ...], sentence: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["audit", *arguments]) == cli.UNUSABLE
    assert sentence in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("good", "--backend", "torch"), "the factory has no parameter backend="),
        (("for_backend", "--backend", "abacus"), "expected one of"),
        (("good", "--select", "inverse.recover-input"), "try 'inverse.recovers-input'"),
    ],
)
def test_bad_usage_that_only_a_worker_can_see(
    arguments: tuple[str, ...], sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    factory, *options = arguments
    assert cli.run(["audit", f"{FILE}:{factory}", *options, "--workers", "1"]) == cli.UNUSABLE
    assert sentence in capfd.readouterr().err


def test_without_a_report_reproductions_go_to_the_current_folder(elsewhere: Path) -> None:
    options = ("--budget", "quick", "--workers", "1", "--select", "inverse.recovers-input")
    assert cli.run(["audit", f"{FILE}:good", *options]) == cli.PASSED, "all that was selected has passed"
    assert files(elsewhere) == set()
    assert cli.run(["audit", f"{FILE}:wrong", *options]) == cli.FAILED
    assert {Path(f).parent.name for f in files(elsewhere)} == {"iresnet-verify-reproduce"}
    assert cli.run(["audit", f"{FILE}:wrong", *options, "--out", "mine", "--json", "a.json"]) == cli.FAILED
    assert {Path(f).parent.name for f in files(elsewhere)} == {"iresnet-verify-reproduce", "mine", ""}


# -- loading
def test_the_backend_is_passed_on() -> None:
    assert load(parse(f"{FILE}:for_backend", "numpy"))[0].name == "on numpy"


def test_a_file_may_be_named_like_the_package_it_adapts(elsewhere: Path) -> None:
    assert "wave" not in sys.modules
    (elsewhere / "wave.py").write_text(
        "import wave, helper_beside\nfrom iresnet_verify import Subject\n"
        "def make():\n    return Subject(name=wave.Error.__name__ + helper_beside.N, event_shape=(1,), forward=abs)\n"
    )
    (elsewhere / "helper_beside.py").write_text("N = '5'\n")
    assert load("wave.py:make")[0].name == "Error5"
    assert files(elsewhere) == {"wave.py", "helper_beside.py"}, "no bytecode is written beside the subject"


def test_equal_seeds_give_equal_subjects_whatever_was_drawn_before(elsewhere: Path) -> None:
    for name, drawn in (("a", 0), ("b", 5)):
        (elsewhere / f"{name}.py").write_text(
            "import numpy as np\nfrom iresnet_verify import Subject\n"
            f"first = np.random.rand()\nnp.random.rand({drawn})\n"
            "def make():\n"
            "    return Subject(name=f'{first!r} {np.random.rand()!r}', event_shape=(1,), forward=abs)\n"
        )
    names = []
    for file, seed in (("a", 3), ("b", 3), ("a", 4)):
        np.random.rand(7)  # noqa: NPY002 - somebody else used the global generator
        names.append(load(f"{file}.py:make", seed)[0].name)
    assert names[0] == names[1] != names[2]


def test_torch_is_seeded_wherever_it_is_imported(elsewhere: Path) -> None:
    pytest.importorskip("torch")
    (elsewhere / "lazy.py").write_text(
        "from iresnet_verify import Subject\n"
        "def make():\n    import torch\n"
        "    return Subject(name=str(torch.rand(1).item()), event_shape=(1,), forward=lambda x: x)\n"
    )
    code = "import sys; from iresnet_verify.subject.loading import load; print(load('lazy.py:make', int(sys.argv[1]))[0].name)"
    lazily = subprocess.run([sys.executable, "-c", code, "3"], capture_output=True, text=True, check=True, env=os.environ)
    assert [lazily.stdout.strip()] == [load("lazy.py:make", 3)[0].name] != [load("lazy.py:make", 4)[0].name]


# -- the other commands
def test_checks_lists_the_catalogue(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert cli.run(["checks"]) == 0
    listed = capfd.readouterr().out
    assert all(id in listed for id in catalogue.load())
    assert cli.run(["checks", "inverse.*"]) == 0
    some = capfd.readouterr().out
    assert "inverse.recovers-input" in some
    assert "hygiene." not in some
    assert cli.run(["checks", "nothing"]) == cli.UNUSABLE


def test_doctor_names_what_works_and_what_is_missing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iresnet_backends.FAMILIES", ("numpy", "abacus"))
    monkeypatch.setattr(doctor, "_requirements", lambda: {"verify": ["rich"], "dreams": ["no-such-package"]})
    monkeypatch.setattr(doctor, "time_limit", lambda: 120.0)  # how long a trial may take is not what is asked here
    doctor.examine(Console(width=160))
    out = capfd.readouterr().out
    assert "numpy:cpu" in out
    assert "float64, float32" in out
    assert "abacus" in out
    assert 'no-such-package: pip install "iresnet-ref[' "dreams]" in out


@pytest.mark.parametrize(
    ("attempt", "seconds", "printed"),
    [(backend_that_hangs, 0.5, "did not finish within 0.5 s"), (backend_that_crashes, 60.0, "ended with exit code 3")],
)
def test_doctor_outlives_a_backend_that_hangs_or_crashes(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], attempt: Any, seconds: float, printed: str
) -> None:
    monkeypatch.setattr("iresnet_backends.FAMILIES", ("numpy", "abacus"))
    monkeypatch.setattr(doctor, "attempt", attempt)
    monkeypatch.setattr(doctor, "time_limit", lambda: seconds)
    doctor.examine(Console(width=160))
    assert capfd.readouterr().out.count(printed) == 2


def test_what_a_backend_prints_is_not_in_the_doctors_table() -> None:
    """In a process of its own: the server that trials are forked from keeps the output of whoever started it."""
    code = (
        "from hostile_subjects import backend_that_crashes; from iresnet_verify.machine import doctor; "
        "doctor.attempt = backend_that_crashes; doctor.time_limit = lambda: 60.0; print(doctor._trials(['abacus']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert "ended with exit code 3" in done.stdout
    assert "noise" not in done.stdout + done.stderr


def test_doctor_waits_longer_where_the_machine_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for busy, factor in ((0.3, 1.0), (2.0, 1.0), (8.0, 4.0)):
        monkeypatch.setattr(os, "getloadavg", lambda busy=busy: (busy, 99.0, 99.0))
        assert doctor.time_limit() == factor * doctor.SECONDS <= 5.0 * factor


@pytest.mark.parametrize("package", ["click", "pebble", "rich", "jinja2", "cloudpickle"])
def test_a_missing_extra_is_named_with_its_remedy(package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from iresnet_verify.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == cli.UNUSABLE
    assert done.stderr.strip() == f'iresnet-verify needs {package}; try: pip install "iresnet-ref[verify]"'


def test_the_module_runs_like_the_command() -> None:
    command = [sys.executable, "-m", "iresnet_verify", "--version"]
    assert "iresnet-verify, version" in subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ).stdout
