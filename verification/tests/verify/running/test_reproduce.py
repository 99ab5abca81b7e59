"""A reproduction shows the violation on its own, and stops showing it when the subject is repaired."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import hostile_subjects
import numpy as np
import pytest

from iresnet_verify import audit
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import CATALOGUE, Check
from iresnet_verify.check.result import CheckResult
from iresnet_verify.report.json import read
from iresnet_verify.reproduction import reproduce
from iresnet_verify.reproduction.attach import attach
from iresnet_verify.reproduction.literals import MOST_CHARACTERS, inputs_source
from iresnet_verify.running.run import Prepared
from iresnet_verify.subject.loading import Origin, load

SUBJECT = """
import numpy as np
from iresnet_verify import Subject

slope = 1 + np.random.rand()

def make():
    return Subject(
        name="random slope", event_shape=(3,), framework="numpy", forward=lambda x: slope * x,
        inverse=lambda y: y / slope + {offset},
        log_det=lambda x: np.full((len(x), 1), 3 * np.log(slope)),
    )
"""
FAILED = CheckResult("inverse.recovers-input", "inverse", "failed", 'claim with """ and \\', "ref", "search", "message")
WITHOUT_LIBRARY = """
import runpy, sys
sys.modules['iresnet_verify'] = None
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def largest_error(calls: Any, x: Any, bound: float) -> tuple[float, float]:
    """The largest entry of |inverse(forward(x)) − x|."""
    return float(np.max(np.abs(calls.inverse(calls.forward(x)) - x))), bound


def log_det_error(calls: Any, x: Any, per_row: Any) -> tuple[float, float]:
    """The largest gap to a log-det per row, whatever shape the subject returns."""
    return float(np.max(np.abs(calls.log_det(x) - per_row))), 0.0


def needs_more(calls: Any, x: Any) -> tuple[float, float]:
    """Works only with an attribute that a plain reading of the subject does not give."""
    return float(calls.reading_of_the_suite(x)), 0.0


def write(folder: Path, measure: Callable[..., Any] | None, inputs: dict[str, Any], offset: str = "0.25") -> Path:
    file = folder / "subject.py"
    file.write_text(SUBJECT.replace("{offset}", offset))
    origin = Origin(str(file), "make")
    result = replace(FAILED, counterexample=Counterexample(inputs, measure))
    audited = reproduce.Audited(Prepared(load(origin, 3)[0], 3), origin, 0, 3, "quick", 0.0, "label")
    return reproduce.write(result, audited, folder / "reproduce")


def execute(script: Path, *arguments: Path, library: bool = True, cwd: Path | None = None) -> tuple[int, str]:
    command = [str(script), *map(str, arguments)] if library else ["-c", WITHOUT_LIBRARY, str(script)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, env=os.environ, cwd=cwd)
    return done.returncode, done.stdout + done.stderr


X = np.random.default_rng(0).standard_normal((2, 3))


def test_the_script_fails_until_the_subject_is_repaired_and_needs_no_library(tmp_path: Path) -> None:
    script = write(tmp_path, largest_error, {"x": X, "bound": 1e-12})
    assert "rerun" not in script.read_text()
    code, text = execute(script, library=False)
    assert code == 1, text
    assert "value 0.25" in text
    assert "bound 1e-12: violated" in text
    (tmp_path / "subject.py").write_text(SUBJECT.replace("{offset}", "0"))
    code, text = execute(script, library=False)
    assert code == 0, text
    assert "holds" in text


@pytest.mark.parametrize("measure", [largest_error, None])
def test_the_script_runs_from_anywhere_and_says_what_it_misses(tmp_path: Path, measure: Callable[..., Any] | None) -> None:
    """In any folder; moved together with the subject; moved alone it asks for the subject's file and takes its place."""
    home, other, elsewhere = (tmp_path / name for name in ("home", "moved", "elsewhere"))
    for folder in (home, elsewhere):
        folder.mkdir()
    script = write(home, measure, {"x": np.ones((2, 3)), "bound": 0.1})
    assert execute(script, cwd=elsewhere)[0] == 1
    home.rename(other)
    script = other / script.relative_to(home)
    assert execute(script, cwd=elsewhere)[0] == 1
    (other / "subject.py").rename(elsewhere / "given.py")
    code, said = execute(script, cwd=tmp_path)
    assert code == 2
    assert "Traceback" not in said
    assert "subject.py" in said
    assert "give its path as the argument" in said
    assert execute(script, elsewhere / "given.py", cwd=tmp_path)[0] == 1


def test_the_script_sees_the_subject_that_was_audited(tmp_path: Path) -> None:
    # The slope is drawn while the file is imported: another seed, or none, would show another log-det.
    slope = load(Origin(str(write(tmp_path, None, {}).parents[1] / "subject.py"), "make"), 3)[0].forward(1.0)
    script = write(tmp_path, log_det_error, {"x": X, "per_row": np.full(2, 3 * np.log(slope) + 0.5)})
    code, text = execute(script)
    assert code == 1, text
    assert abs(float(text.split()[1].rstrip(",")) - 0.5) < 1e-12


@pytest.mark.parametrize("measure", [None, needs_more, lambda calls, x: (1.0, 0.0)])
def test_what_cannot_stand_alone_re_runs_the_check(tmp_path: Path, measure: Callable[..., Any] | None) -> None:
    script = write(tmp_path, measure, {"x": X})
    assert "check='inverse.recovers-input', mode=None, seed=3, budget='quick'" in script.read_text()
    assert repr(float(X[0, 0])) in script.read_text()


def test_the_re_run_fails_until_the_subject_is_repaired(tmp_path: Path) -> None:
    script = write(tmp_path, None, {"x": X})
    code, text = execute(script)
    assert code == 1, text
    assert "inverse.recovers-input: failed" in text
    (tmp_path / "subject.py").write_text(SUBJECT.replace("{offset}", "0"))
    assert execute(script)[0] == 0


def test_a_violation_that_the_script_would_not_show_is_not_written_as_one(tmp_path: Path) -> None:
    script = write(tmp_path, largest_error, {"x": X, "bound": 1.0})
    assert "rerun" in script.read_text()


def test_an_object_in_memory_is_stored_beside_its_scripts(tmp_path: Path) -> None:
    report = audit(hostile_subjects.wrong(), budget="quick", select=["inverse.recovers-input", "hygiene.readable"])
    report.to_json(tmp_path / "a.json")
    (found,) = read(tmp_path / "a.json")
    paths = [Path(c.reproduce) for c in found.checks if c.reproduce is not None]
    assert [p.parent.name for p in paths] == ["a-reproduce"]
    assert len(list(paths[0].parent.glob("*.pkl"))) == 1
    code, text = execute(paths[0])
    assert code == 1, text
    assert "violated" in text


@pytest.mark.parametrize("check", ["inverse.recovers-input", "hygiene.always-wrong"])
def test_an_object_that_cannot_be_stored_says_so(
    tmp_path: Path, check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    always = Check("hygiene.always-wrong", "-", "-", "search", lambda context: Outcome("failed", "wrong"))
    monkeypatch.setitem(CATALOGUE, always.id, always)
    lock = threading.Lock()  # no pickle carries a lock

    def inverse(y: Any) -> Any:
        with lock:
            return y / hostile_subjects.SLOPE + 0.25

    report = audit(hostile_subjects.scaled(inverse=inverse), budget="quick", select=[check])
    (found,) = attach([report], tmp_path)
    code, text = execute(Path(str(found.checks[0].reproduce)))
    assert code == 2, text
    assert "the subject could not be stored: TypeError: cannot pickle '_thread.lock' object" in text


def test_every_failed_result_has_a_reproduction_and_no_other(tmp_path: Path) -> None:
    report = audit(hostile_subjects.wrong(), budget="quick", select=["inverse", "hygiene"])
    (found,) = attach([report], tmp_path)
    failed = {c.id for c in found.checks if c.status == "failed"}
    assert failed
    assert {c.id for c in found.checks if c.reproduce is not None and Path(c.reproduce).is_file()} == failed


def test_subjects_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    report = audit(hostile_subjects.wrong(), budget="quick", select=["inverse.recovers-input"])
    found = attach([report, report], tmp_path)
    assert len({c.reproduce for r in found for c in r.checks}) == 2


# -- literals
def evaluated(source: str, folder: Path) -> dict[str, Any]:
    names: dict[str, Any] = {"np": np, "HERE": folder}
    exec(source, names)
    return dict(names["INPUTS"])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "int8", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(), (0, 3), (4, 1, 3), (40, 30)])
def test_inputs_are_exact(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    bits = np.random.default_rng(1).integers(0, 256, (*shape, np.dtype(dtype).itemsize), dtype=np.uint8)
    value = (bits % 2 if dtype == "bool" else bits).view(dtype).reshape(shape)
    source = inputs_source({"value": value, "t": (0.1, None, "s")}, tmp_path / "script.py")
    assert source is not None
    assert len(source) < MOST_CHARACTERS + 300
    found = evaluated(source, tmp_path)
    assert found["t"] == (0.1, None, "s")
    assert (found["value"].dtype, found["value"].shape) == (value.dtype, value.shape)
    nan = np.isnan(value)
    assert np.array_equal(np.isnan(found["value"]), nan)
    assert found["value"][~nan].tobytes() == value[~nan].tobytes()


def test_special_floats_are_exact(tmp_path: Path) -> None:
    value = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324, 1.7976931348623157e308])
    source = inputs_source({"a": value, "b": float("-inf"), "c": np.float32(0.1)}, tmp_path / "script.py")
    assert source is not None
    found = evaluated(source, tmp_path)
    assert np.array_equal(found["a"], value, equal_nan=True)
    assert np.signbit(found["a"][3])
    assert (found["b"], found["c"]) == (-np.inf, float(np.float32(0.1)))


def test_inputs_without_a_literal_are_refused(tmp_path: Path) -> None:
    assert inputs_source({"a": object()}, tmp_path / "script.py") is None
    assert inputs_source({"a": np.array(["text"])}, tmp_path / "script.py") is None


# -- torch
TORCH = """
import torch
from iresnet_verify import Subject

class Scale(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3, dtype=torch.float64).exp())

    def forward(self, x):
        return x * self.weight

    def inverse(self, y):
        return y / self.weight if self.training else y / self.weight + 0.5

def make():
    module = Scale()
    return Subject(name="wrong in eval", event_shape=(3,), forward=module, inverse=module.inverse, module=module)
"""


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
def test_the_module_is_in_the_mode_of_the_failure(tmp_path: Path) -> None:
    (tmp_path / "subject.py").write_text(TORCH)
    origin = Origin(str(tmp_path / "subject.py"), "make")
    prepared = Prepared(load(origin, 3)[0], 3)
    audited = reproduce.Audited(prepared, origin, 0, 3, "quick", 0.0, "label")
    result = replace(FAILED, mode="eval", counterexample=Counterexample({"x": X, "bound": 1e-12}, largest_error))
    prepared.subject.module.train()
    script = reproduce.write(result, audited, tmp_path / "reproduce")
    assert prepared.subject.module.training, "writing changes nothing"
    code, text = execute(script)
    assert code == 1, text
    assert "value 0.5" in text
