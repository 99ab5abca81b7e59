"""benchmarks/device_run.py: what has ended is written, what hangs or fails costs itself alone, what is missing is named. On the CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from places import BENCHMARKS, ROOT

sys.path.insert(0, str(BENCHMARKS))
import device_run
from device_run import Step

LOOK = "import sys, pathlib; print(len(next(pathlib.Path(sys.argv[1]).glob('*/results.jsonl')).read_text().splitlines()))"


def run_of(folder: Path) -> Path:
    """The folder of the only run in there."""
    (only,) = folder.iterdir()
    return only


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_of(folder) / "results.jsonl").read_text("utf-8").splitlines()][1:]


def test_each_step_ends_by_itself_and_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [
        Step("works", "torch:cpu", ["-c", "import iresnet_ref; print('fine')"], 60),
        Step("fails", "torch:cpu", ["-c", "raise SystemExit('no | good')"], 60),
        Step("hangs", "torch:cpu", ["-c", "import time; print('begun', flush=True); time.sleep(600)"], 2),
        Step("lacks", "torch:cpu", ["-c", ""], 60, ["no_such_package"]),
        Step("looks", "torch:cpu", ["-c", LOOK, str(tmp_path)], 60),
    ]
    monkeypatch.setattr(device_run, "plan", lambda device, folder: steps)
    assert device_run.main(["--device", "torch:cpu", "--folder", str(tmp_path)]) == 1
    found = results(tmp_path)
    assert [row["status"] for row in found] == ["passed", "failed", "out of time", "left out", "passed"]
    assert [row.get("end", row.get("why")) for row in found] == ["fine", "no | good", "begun", "needs no_such_package", "5"]
    page = (run_of(tmp_path) / "results.md").read_text("utf-8")
    assert "nothing here has run on a GPU" in page
    assert "| fails | torch:cpu | failed |" in page
    assert "no / good |" in page


def test_without_time_nothing_runs_and_the_plan_is_still_written(tmp_path: Path) -> None:
    assert device_run.main(["--device", "torch:cpu", "--seconds", "1e-9", "--folder", str(tmp_path)]) == 3
    found = results(tmp_path)
    assert [row["step"] for row in found[:5]] == ["training", "audit", "parity", "times", "costs"]
    assert all((row["status"], row["why"]) == ("left out", "no time left") for row in found)
    assert {"laws", "device_discipline"} <= {row["step"] for row in found}


def test_a_training_on_the_device_is_proved_and_is_that_of_numpy(capsys: pytest.CaptureFixture[str]) -> None:
    device_run.training("torch:cpu")
    found = json.loads(capsys.readouterr().out)
    assert found["proved"]
    assert found["Lip(g)"] <= 0.9
    assert found["last loss"] < found["first loss"]
    assert found["from NumPy's losses"] <= 1e-4 * found["first loss"]  # 1,700 units of float32's rounding


def test_what_is_missing_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(device_run, "missing", lambda packages: [p for p in packages if p in {"array-api-compat", "pebble"}])
    assert device_run.main([]) == 2
    said = capsys.readouterr().err
    assert "lacks array-api-compat>=1.12, pebble>=5.0." in said
    assert "pip download --no-deps --dest wheels array-api-compat pebble" in said


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("iresnet_backends.available", lambda: ["numpy:cpu", "torch:cpu"])
    assert device_run.main([]) == 3
    assert "No GPU: nothing has been run." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["torhc", "torch:cpuu", "torch:cuda:99", "precision", ""])
def test_a_device_that_is_not_here_is_refused_before_anything_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert device_run.main(["--device", "torch:cpu", "--device", name, "--seconds", "5", "--folder", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"Nothing has been run: backend {name!r}: ")
    assert "; try " in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seconds", ["nan", "0", "-1", "inf", "-inf", "soon"])
def test_seconds_are_positive_and_finite(seconds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        device_run.main(["--device", "torch:cpu", f"--seconds={seconds}", "--folder", str(tmp_path)])
    assert end.value.code == 2
    assert f"expected a positive, finite number of seconds, got '{seconds}'; try 480" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert device_run.main(["--device", "torch:cpu", "--folder", str(tmp_path / "file")]) == 2
    assert "Nothing has been run: " in capsys.readouterr().err


def test_runs_keep_each_others_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_run, "plan", lambda device, folder: [Step("s", device, ["-c", "print(1)"], 60)])
    asked = ["--device", "torch:cpu", "--device", "torch:cpu", "--folder", str(tmp_path)]
    for count in (1, 2, 3):
        assert device_run.main(asked) == 0
        assert len(list(tmp_path.glob("*/results.jsonl"))) == len(list(tmp_path.glob("*/s-torch-cpu.log"))) == count
    assert all(len(path.read_text("utf-8").splitlines()) == 2 for path in tmp_path.glob("*/results.jsonl"))  # a device counts once


SLOW = """
import signal, device_run
from device_run import Step
sleeps = ["-c", "import os, time; print(os.getpid()); time.sleep(600)"]
device_run.plan = lambda device, folder: [Step("slow", device, sleeps, 600), Step("next", device, ["-c", ""], 60)]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
device_run.run()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_has_its_rows_and_leaves_no_step_behind(number: signal.Signals, tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, "--device", "numpy", "--folder", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(BENCHMARKS), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    ends, log = time.monotonic() + 60, list[Path]()
    while time.monotonic() < ends and not (log and log[0].read_text("utf-8").endswith("\n")):
        log = list(tmp_path.glob("*/slow-numpy.log"))
        time.sleep(0.02)
    step = int(log[0].read_text("utf-8"))
    child.send_signal(number)
    said, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (130, "")
    assert "written: " in said
    assert [(row["step"], row["status"]) for row in results(tmp_path)] == [("slow", "interrupted")]
    assert "| slow | numpy | interrupted |" in (run_of(tmp_path) / "results.md").read_text("utf-8")
    with pytest.raises(ProcessLookupError):
        os.kill(step, 0)


def test_the_target_builds_nothing() -> None:
    command = ["make", "--no-print-directory", "--dry-run", "test-gpu", "PYTHON_GPU=python3", "DEVICE=torch:cpu", "GPU_SECONDS=20"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["python3", "benchmarks/device_run.py", "--device", "torch:cpu", "--seconds", "20"]
