"""The wheel in empty environments, on each interpreter, and with the lowest versions that are promised: minutes, and the network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
MINORS = (11, 12, 13)
USED = ("torch", "jax", "strict", "saving", "verify")
"""Extras that the README uses or that need no other machine; not `precision`, whose mparray 0.2 wants a newer NumPy than 2.0."""


def interpreters() -> list[str]:
    """The interpreters of this machine among those that are promised."""
    found = {}
    for minor in MINORS:
        path = shutil.which(f"python3.{minor}")
        versions = sorted((Path.home() / ".pyenv/versions").glob(f"3.{minor}.*/bin/python"))
        found[minor] = sys.executable if sys.version_info[1] == minor else str(versions[-1]) if versions else path
    return [p for p in found.values() if p]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], folder)
    (made,) = folder.glob("*.whl")
    return made


def run(command: list[str], cwd: Path, *, code: int = 0) -> str:
    """What a command prints; nothing of this checkout is on its path."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def environment(python: str, folder: Path) -> Path:
    run([python, "-m", "venv", str(folder)], folder.parent)
    return folder / ("Scripts" if os.name == "nt" else "bin")


def readme_runs(bin: Path, folder: Path) -> None:
    """Every Python block of the README under -W error, the audit of its first, and the test of its second."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (folder / "my_flow.py").write_text(blocks[0], "utf-8")
    (folder / "test_my_flow.py").write_text(blocks[1], "utf-8")
    for block in blocks[2:]:
        run([str(bin / "python"), "-W", "error", "-c", block], folder)
    audit = run([str(bin / "iresnet-verify"), "audit", "my_flow.py:factory", "--budget", "quick", "--html", "r.html"], folder)
    assert "passed: " in audit
    assert (folder / "r.html").is_file()
    run([str(bin / "python"), "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "inverse"], folder)


@pytest.mark.thorough
@pytest.mark.parametrize("python", interpreters())
def test_the_wheel_alone_then_with_its_extras(python: str, wheel: Path, tmp_path: Path) -> None:
    bin = environment(python, tmp_path / "venv")
    install = [str(bin / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*install, str(wheel)], tmp_path)
    reference = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)[2]
    run([str(bin / "python"), "-W", "error", "-c", reference], tmp_path)
    assert 'pip install "iresnet-ref[verify]"' in run([str(bin / "iresnet-verify"), "checks"], tmp_path, code=2)
    run([*install, f"{wheel}[torch,verify]", "pytest", "scikit-learn"], tmp_path)
    readme_runs(bin, tmp_path)


@pytest.mark.thorough
def test_the_lowest_versions_that_are_promised_work(wheel: Path, tmp_path: Path) -> None:
    extras = {**PROJECT["optional-dependencies"], "": PROJECT["dependencies"]}
    lowest = [r.replace(">=", "==") for extra in ("", *USED) for r in extras[extra]]
    lowest += [r.replace(">=", "==") for r in extras["gallery"] if r.startswith("scikit-learn")]
    bin = environment(sys.executable, tmp_path / "venv")
    run([str(bin / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *lowest, "pytest", str(wheel)], tmp_path)
    readme_runs(bin, tmp_path)
    run([str(bin / "iresnet-verify"), "parity"], tmp_path)
