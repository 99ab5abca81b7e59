"""What is released: one version, honest metadata, and a wheel that works in an empty environment on each interpreter."""

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
USED = ("torch", "strict", "saving", "precision", "verify")
"""Extras that the blocks of the README use, and those of the reference that take no other machine."""


def changelog() -> list[str]:
    """The headings of the versions, the newest first."""
    return re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)


def test_the_version_stands_in_pyproject_and_everything_else_agrees() -> None:
    assert changelog()[0] == "Unreleased"
    assert changelog()[1:2] in ([], [PROJECT["version"]])
    assert re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)[1] == PROJECT["version"]  # type: ignore[index]
    written = [p for p in (ROOT / "iresnet_ref/__init__.py", ROOT / "verification/iresnet_verify/__init__.py",
                           ROOT / "backends/iresnet_backends/__init__.py") if PROJECT["version"] in p.read_text("utf-8")]
    assert not written, "asked of the installed metadata, not written down again"


def test_every_requirement_says_from_which_version_on() -> None:
    requirements = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
    assert not [r for r in requirements if ">=" not in r and not r.startswith("iresnet-ref[")]


def test_the_classifiers_name_the_interpreters_that_are_tested() -> None:
    named = [c.rpartition(".")[2] for c in PROJECT["classifiers"] if c.startswith("Programming Language :: Python :: 3.")]
    assert [int(n) for n in named] == list(MINORS)
    assert PROJECT["requires-python"] == f">=3.{MINORS[0]}"


def test_a_stranger_finds_how_to_report_cite_and_contribute() -> None:
    for name in ("CITATION.cff", "SECURITY.md", "CONTRIBUTING.md", ".github/PULL_REQUEST_TEMPLATE.md", ".pre-commit-config.yaml"):
        assert (ROOT / name).is_file(), name
    for template in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.md"):
        assert "iresnet-verify doctor --issue" in template.read_text("utf-8")
    contributing = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert "## Deprecation" in contributing
    assert "## A release" in contributing


# -- in empty environments: minutes, and the network
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
    lowest = [r.replace(">=", "==") for extra in ("", *USED, "jax") for r in extras[extra]]
    lowest += [r.replace(">=", "==") for r in extras["gallery"] if r.startswith("scikit-learn")]
    bin = environment(sys.executable, tmp_path / "venv")
    run([str(bin / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *lowest, "pytest", str(wheel)], tmp_path)
    readme_runs(bin, tmp_path)
    run([str(bin / "iresnet-verify"), "parity"], tmp_path)
