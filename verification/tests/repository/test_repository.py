"""What a reader may rely on in the whole repository: no traces of one machine, honest metadata."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
CODE = ("iresnet_ref", "backends", "verification/iresnet_verify", "benchmarks", "examples")


def files() -> list[Path]:
    """Tracked text files and those about to be; every text file where there is no git (an unpacked sdist)."""
    try:
        listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
                                capture_output=True, text=True).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        found = (p for folder in (*CODE, "docs", "verification") for p in (ROOT / folder).rglob("*"))
        listed = [str(p.relative_to(ROOT)) for p in found]
    return [ROOT / name for name in listed if name and (ROOT / name).is_file() and not (ROOT / name).is_symlink()]


def texts() -> list[tuple[str, str]]:
    found = []
    for path in files():
        try:
            found.append((str(path.relative_to(ROOT)), path.read_text("utf-8")))
        except UnicodeDecodeError:
            continue  # a picture
    return found


# Written so that this file does not contain what it forbids.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|work|root|Users|mnt|tmp|opt)/\w")
REGISTRY = re.compile(
    r"https?://[\w.-]*(?:pypi|pythonhosted|anaconda|artifactory|nexus|download\.pytorch)|index-url|find-links",
    re.IGNORECASE,
)


@pytest.mark.parametrize(
    ("what", "pattern"), [("absolute machine path", MACHINE_PATH), ("package-registry host", REGISTRY)]
)
def test_no_file_names_one_machine(what: str, pattern: re.Pattern[str]) -> None:
    here = str(Path(__file__).relative_to(ROOT))
    found = [f"{name}: {match.group()}" for name, text in texts() if name != here for match in pattern.finditer(text)]
    assert not found, f"{what} in the repository"


def test_adapters_of_the_gallery_are_short() -> None:
    """Auditing a network costs about thirty lines; what adapters share is in modules named with an underscore."""
    subjects = [p for p in sorted((ROOT / "examples/subjects").glob("*.py")) if not p.name.startswith("_")]
    lines = {p.name: _lines_of_adapter(p.read_text("utf-8")) for p in subjects}
    assert lines
    assert not {name: n for name, n in lines.items() if n > 35}


def _lines_of_adapter(text: str) -> int:
    """Lines that are not blank, nor of the docstring, an import or a class (a network, where the file brings its own)."""
    apart = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.Expr)
    kept = [node for node in ast.parse(text).body if not isinstance(node, apart)]
    return sum(bool(line.strip()) for node in kept for line in ast.get_source_segment(text, node).splitlines())


def test_licence_is_mit_and_named() -> None:
    assert (ROOT / "LICENSE").read_text("utf-8").startswith("MIT License")
    assert PROJECT["license"] == "MIT"
    assert "LICENSE" in PROJECT["license-files"]


@pytest.mark.parametrize("folder", ["iresnet_ref", "backends/iresnet_backends", "verification/iresnet_verify"])
def test_packages_are_typed(folder: str) -> None:
    assert (ROOT / folder / "py.typed").exists()


def test_extras_named_in_messages_and_docs_exist() -> None:
    named = {
        (name, extra.strip())
        for name, text in texts()
        for match in re.finditer(r"iresnet-ref\[([a-z0-9, -]+)\]", text)
        for extra in match.group(1).split(",")
    }
    assert not {(name, extra) for name, extra in named if extra not in EXTRAS}


def test_the_extra_all_leaves_out_cupy() -> None:
    """cupy12x and cupy13x own the same module, so no extra may pull either beside the other."""
    assert not re.search("cupy|gallery", " ".join(EXTRAS["all"]))


def test_every_extra_is_pinned_for_development_or_needs_a_machine_we_lack() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {re.split("[=<>]", line)[0].lower().replace("_", "-") for line in lines}
    unpinned_by_choice = {"cupy-cuda13x", "iresnet-ref"}
    required = {
        re.split(r"[=<>[]", requirement)[0].lower().replace("_", "-")
        for extra, requirements in EXTRAS.items() if extra != "all"
        for requirement in requirements
    }
    assert required - unpinned_by_choice <= pinned


def test_both_commands_and_ci_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in ("audit", "test", "test-thorough", "bench", "lint", "clean", "help"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    ci = ROOT / ".ci/run"
    assert ci.stat().st_mode & 0o111
    assert "make test" in ci.read_text("utf-8")


def test_modules_that_may_share_a_process_have_names_of_their_own() -> None:
    folders = ("examples", "examples/subjects", "examples/paper", "benchmarks")
    files = [path for folder in folders for path in (ROOT / folder).glob("*.py")] + [*(ROOT / "verification/tests").rglob("*.py")]
    names = [path.stem for path in files if "cupy_contract" not in path.parts]
    assert {name for name in names if names.count(name) > 1} <= {"conftest"}, "imported by their bare names"


def _narrows(test: ast.expr) -> bool:
    """Whether a condition is `a is not None`, `isinstance(a, T)`, or some of these: what a type checker asks for."""
    if isinstance(test, ast.BoolOp):
        return all(map(_narrows, test.values))
    if isinstance(test, ast.Compare):
        return isinstance(test.ops[0], ast.IsNot) and ast.unparse(test.comparators[0]) == "None"
    return isinstance(test, ast.Call) and ast.unparse(test.func) == "isinstance"


# `python -O` takes every assert away. So in the two libraries there is none, and elsewhere it tells the type checker what a
# caller guarantees, without a message for users.
def test_nothing_that_matters_stands_in_an_assert() -> None:
    found = [(p.relative_to(ROOT), node) for p in files() if p.suffix == ".py" and "tests" not in p.parts
             for node in ast.walk(ast.parse(p.read_text("utf-8"))) if isinstance(node, ast.Assert)]
    libraries = {p for p, _ in found if p.parts[0] in {"iresnet_ref", "backends"}}
    assert not libraries, libraries
    others = [f"{p}:{node.lineno}" for p, node in found if not _narrows(node.test) or node.msg is not None]
    assert not others, others


@pytest.mark.parametrize("lipschitz", [1.5, -1.0])
def test_python_without_asserts_refuses_the_same(lipschitz: float) -> None:
    code = (
        "import iresnet_ref as ir; from iresnet_ref.training import start\n"
        f"try: start(ir.Flow([ir.ResidualBlock(ir.mlp((2, 8, 2)))]), lipschitz={lipschitz})\n"
        "except ir.NotContractiveError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
