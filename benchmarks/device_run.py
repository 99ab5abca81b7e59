"""What a device can do with this checkout, within minutes: parity, a training with its proofs, an audit, times, costs, then the laws.

    make test-gpu PYTHON_GPU=python3                       an interpreter that brings its own CUDA frameworks: nothing is installed
    python3 benchmarks/device_run.py --seconds 480         the same
    python3 benchmarks/device_run.py --device torch:cpu    a rehearsal where no GPU is; it says nothing about one

The most important comes first. Every step is a process of its own with a time limit; when it has ended, whatever became of it, a line is
added to results.jsonl and the page results.md is written anew, both complete at any time, in a folder of this run alone. Only the
standard library is needed to begin; what else is missing is named. Exits 0 where nothing failed, 1 where something did, 2 where a
device or requirements are missing, 3 where nothing could be run, 130 where it was interrupted.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import platform
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from run_folder import new_folder, replace_text

ROOT = Path(__file__).resolve().parents[1]
GPUS = ("cupy:", "torch:cuda", "torch:mps", "jax:gpu")
INTERRUPTED = 128 + signal.SIGINT
LAWS = "verification/tests/reference/laws"


class Step(NamedTuple):
    """`command` behind the interpreter, at most `seconds` of it, and the packages that it needs besides."""

    name: str
    device: str
    command: Sequence[str]
    seconds: float
    needs: Sequence[str] = ()


def requirements(extras: Sequence[str] = ()) -> dict[str, str]:
    """Return package → its requirement, of pyproject.toml: those of the library and of these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return {re.split(r"[^A-Za-z0-9._-]", line)[0]: line for line in lines}


def missing(packages: Sequence[str]) -> list[str]:
    """Return those that cannot be imported."""
    modules = {"python-flint": "flint", "pytest-timeout": "pytest_timeout"}
    return [p for p in packages if importlib.util.find_spec(modules.get(p, p.replace("-", "_"))) is None]


def plan(device: str, folder: Path) -> list[Step]:
    """Return the steps on a device, the most important first."""
    me, own = str(Path(__file__).resolve()), device.replace(":", "-")
    key = device.partition(":")[0] + "-f" if device.endswith(":cpu") else f"{device}-f"
    first = {"test_laws.py", "test_device_discipline.py"}
    laws = sorted((ROOT / LAWS).glob("test_*.py"), key=lambda p: (p.name not in first, p.name))
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", key, "-m", "not thorough"]
    precision = list(requirements(["precision"]))[len(requirements()) :]
    return [
        Step("training", device, [me, "--training", device], 90),
        Step("audit", device, ["-m", "iresnet_verify", "audit", "examples/subjects/reference.py:subject", "--backend", device,
                               "--budget", "quick", "--check-seconds", "40", "--json", str(folder / f"audit-{own}.json")], 150),
        Step("parity", device, ["-m", "iresnet_verify", "parity", device, "--json", str(folder / f"parity-{own}.json")], 90, precision),
        Step("times", device, [me, "--times", device], 60, precision),
        Step("costs", device, ["benchmarks/cost_model.py", "--backends", device, "--dtypes", "float32"], 150, ["torch"]),
        *(Step(path.stem.removeprefix("test_"), device, [*pytest, f"{LAWS}/{path.name}"], 120, ["pytest", *precision]) for path in laws),
    ]  # fmt: skip


def carried_out(step: Step, seconds: float, folder: Path) -> dict[str, Any]:
    """Return what became of a step: its status, seconds, exit code and the end of what it printed, all of which is in a file."""
    found: dict[str, Any] = {"step": step.name, "device": step.device}
    absent = missing(step.needs)
    if absent:
        return {**found, "status": "left out", "why": f"needs {', '.join(absent)}"}
    if seconds < min(5.0, step.seconds):
        return {**found, "status": "left out", "why": "no time left"}
    path = os.pathsep.join([*map(str, (ROOT, ROOT / "backends", ROOT / "verification")), os.environ.get("PYTHONPATH", "")])
    gpu = {"IRESNET_GPU": "1"} if step.device.startswith(GPUS) else {}
    log = folder / f"{step.name}-{step.device.replace(':', '-')}.log"
    begun = time.monotonic()
    with log.open("w", encoding="utf-8") as out:
        child = subprocess.Popen(
            [sys.executable, *step.command], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **gpu},
        )  # fmt: skip
        code, stopped = None, ""
        try:
            code = child.wait(min(seconds, step.seconds))
        except subprocess.TimeoutExpired:
            stopped = "out of time"
        except KeyboardInterrupt:
            stopped = "interrupted"
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)  # what it started as well: it leads a session of its own
                child.wait()
    taken, text = time.monotonic() - begun, log.read_text("utf-8", errors="replace").strip()
    words: dict[int | None, str] = {0: "passed", 3: "undecided"} | ({5: "nothing to run"} if "pytest" in step.command else {})
    return {**found, "status": stopped or words.get(code, "failed"), "seconds": round(taken, 1), "code": code, "end": text[-1500:]}


def page(facts: dict[str, Any], found: Sequence[dict[str, Any]]) -> str:
    """Return the results so far as Markdown."""
    lines = [f"# {', '.join(facts['devices'])}", "", f"{facts['platform']}, Python {facts['python']}; {facts['versions']}.", ""]
    if not all(device.startswith(GPUS) for device in facts["devices"]):
        lines += ["**A rehearsal on a CPU: nothing here has run on a GPU.**", ""]
    lines += ["| step | device | status | s | |", "|---|---|---|---|---|"]
    for row in found:
        last = (row.get("why") or (row["end"].splitlines() or [""])[-1])[-110:].replace("|", "/")
        lines.append(f"| {row['step']} | {row['device']} | {row['status']} | {row.get('seconds', '')} | {last} |")
    for row in found:
        if row.get("end"):
            lines += ["", f"## {row['step']}, {row['device']}", "", "```", row["end"], "```"]
    return "\n".join(lines) + "\n"


def training(name: str) -> None:
    """Train a flow on the device, prove it, and set its losses beside those of NumPy; print them as JSON."""
    import numpy as np

    import iresnet_ref as ir
    from iresnet_backends import get
    from iresnet_ref.training import Settings, fit, maximum_likelihood, start

    rows = np.random.default_rng(0).standard_normal((128, 8)) * 2.0 + 1.0
    options = ir.Options(logdet=ir.Roulette(4.0))

    def losses(where: str) -> tuple[list[float], Any]:
        b = get(where, "float32")
        with b.active():
            x = b.asarray(rows)
            branches = [ir.mlp((8, 32, 32, 8), activation="lipswish", lipschitz=0.9, seed=k, like=x) for k in range(3)]
            flow = ir.Flow([ir.ResidualBlock(branch) for branch in branches])
            state = start(flow, lipschitz=0.9, settings=Settings(learning_rate=1e-2, certify_every=5, clip=10.0))
            seen: list[Any] = []
            state = fit(state, lambda f, k: maximum_likelihood(f, x, step=k, options=options, check=False), 10,
                        callback=lambda _, value: seen.append(value))  # fmt: skip
            return [float(value) for value in seen], state

    ours, state = losses(name)
    numpys = losses("numpy")[0]
    certificates = [step.block.certificate for step in state.model.steps.steps]
    facts = {
        "steps": state.step, "first loss": ours[0], "last loss": ours[-1], "proved": all(c.proved for c in certificates),
        "Lip(g)": max(c.bound for c in certificates), "from NumPy's losses": max(abs(a - b) for a, b in zip(ours, numpys, strict=True)),
    }  # fmt: skip
    print(json.dumps(facts))
    if not (facts["proved"] and facts["Lip(g)"] <= 0.9 and facts["last loss"] < facts["first loss"]):
        sys.exit(1)


def times(name: str) -> None:
    """Print the times of doctor's page as JSON."""
    from iresnet_backends import get
    from iresnet_verify.machine.gpu_page import time_of

    print(json.dumps(time_of(get(name, "float32"), "float32")))


def versions() -> str:
    """Return the packages that are here, with their versions."""
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for package in ("numpy", "array-api-compat", "torch", "cupy-cuda12x", "cupy-cuda13x", "jax"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def positive(text: str) -> float:
    """Return a number of seconds. Raises argparse.ArgumentTypeError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive, finite number of seconds, got {text!r}; try 480")
    return seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps; return the exit code."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", action="append", help="a name of iresnet_backends, also several times; by default every GPU")
    made.add_argument("--seconds", type=positive, default=480.0, help="for everything")
    made.add_argument("--folder", type=Path, default=ROOT / "reports" / "device", help="where the run makes a folder of its own")
    made.add_argument("--training", metavar="DEVICE", help=argparse.SUPPRESS)
    made.add_argument("--times", metavar="DEVICE", help=argparse.SUPPRESS)
    asked = made.parse_args(arguments)
    ends = time.monotonic() + asked.seconds
    needed = requirements(["verify"])
    absent = missing(list(needed))
    if absent:
        print(f"{sys.executable} lacks {', '.join(needed[p] for p in absent)}. They are pure Python, but for numpy; with a network\n"
              f"    pip download --no-deps --dest wheels {' '.join(absent)}\nand here\n"
              "    pip install --no-index --no-deps --target site wheels/*.whl; export PYTHONPATH=$PWD/site", file=sys.stderr)  # fmt: skip
        return 2
    if asked.training or asked.times:
        (training if asked.training else times)(asked.training or asked.times)
        return 0
    sys.path[:0] = [str(ROOT), str(ROOT / "backends"), str(ROOT / "verification")]
    from iresnet_backends import BackendUnavailableError, available, get

    devices = list(dict.fromkeys(asked.device or ())) or [name for name in available() if name.startswith(GPUS)]
    if not devices:
        print("No GPU: nothing has been run. A rehearsal on the CPU: --device torch:cpu", file=sys.stderr)
        return 3
    try:
        for device in devices:
            get(device, "float32")
        folder = new_folder(asked.folder)
    except (BackendUnavailableError, OSError) as error:
        print(f"Nothing has been run: {error}", file=sys.stderr)
        return 2
    plans = [plan(device, folder) for device in devices]
    steps = [step for same in zip(*plans, strict=True) for step in same]
    facts = {"devices": devices, "platform": platform.platform(), "python": platform.python_version(), "versions": versions()}
    found: list[dict[str, Any]] = []
    lines = folder / "results.jsonl"
    lines.write_text(json.dumps(facts) + "\n", encoding="utf-8")
    for step in steps:
        found.append(carried_out(step, ends - time.monotonic(), folder))
        with lines.open("a", encoding="utf-8") as out:
            out.write(json.dumps(found[-1]) + "\n")
        replace_text(folder / "results.md", page(facts, found))
        print(f"{step.device} {step.name}: {found[-1]['status']}", flush=True)
        if found[-1]["status"] == "interrupted":
            break
    print(f"written: {lines}, {folder / 'results.md'}")
    became = {row["status"] for row in found}
    if "interrupted" in became:
        return INTERRUPTED
    return 1 if "failed" in became else 0 if "passed" in became else 3


def run() -> None:
    """Run the command; what asks a process to end is as Ctrl-C, for a step leads a session of its own and would live on."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    run()
