"""The findings in released packages: the page is the table, each has a short reproduction that still shows it."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from iresnet_verify import catalogue

FILES = sorted((ROOT / "examples" / "findings").glob("*.py"))
PAGE = (ROOT / "docs" / "gallery.md").read_text("utf-8")


@pytest.fixture(scope="module")
def findings() -> Any:
    spec = importlib.util.spec_from_file_location("_findings", ROOT / "examples" / "subjects" / "_findings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["_findings"] = module
    spec.loader.exec_module(module)
    return module


def imported(file: Path) -> set[str]:
    nodes = [n for n in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = [[n.module or ""] if isinstance(n, ast.ImportFrom) else [a.name for a in n.names] for n in nodes]
    return {name.split(".")[0] for each in names for name in each}


def test_the_page_is_the_table(findings: Any) -> None:
    assert findings.table() in PAGE, "docs/gallery.md: paste what examples/subjects/_findings.py:table() returns"


def test_every_finding_has_a_reproduction_and_names_checks_that_exist(findings: Any) -> None:
    assert [f.stem for f in FILES] == sorted({f.reproduction for f in findings.FINDINGS})
    assert {c for f in findings.FINDINGS for c in f.checks} <= catalogue.load().keys()


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_reproduction_is_short_and_does_not_use_this_library(file: Path) -> None:
    text = file.read_text("utf-8")
    assert len(text.splitlines()) <= 40
    assert not {name for name in imported(file) if name.startswith("iresnet")}
    assert "expected" in text
    assert "got" in text


def test_the_page_counts_every_audited_object_or_says_that_it_does_not(findings: Any) -> None:
    counted = set(re.findall(r"^\| ([^|]+) \| \d+ \| \d+ \| \d+ \| \d+ \|$", PAGE, re.MULTILINE))
    not_counted = re.findall(r"hence not counted: ([^.]+(?:\.\d[^.]*)*)\.$", PAGE, re.MULTILINE)
    counted |= {name.strip() for line in not_counted for name in line.split(";")}
    named = {s for f in findings.FINDINGS for s in f.subjects} - {"normflows Glow", findings.FLOW, *findings.BLOCKS}
    assert named <= counted, f"docs/gallery.md does not count {sorted(named - counted)}"


def test_a_finding_without_checks_is_said_to_be_read(findings: Any) -> None:
    read = sum(not f.checks for f in findings.FINDINGS)
    assert f"{len(findings.FINDINGS)} findings" in PAGE
    assert f"{len(findings.FINDINGS) - read} are failed by the checks named; {read}, marked (read)" in PAGE


@pytest.mark.thorough
@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_reproduction_still_shows_its_finding(file: Path) -> None:
    missing = [name for name in imported(file) if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed: make test-adapters")
    run = subprocess.run([sys.executable, "-W", "ignore", str(file)], capture_output=True, text=True, timeout=600, check=False)
    assert (run.returncode, "Traceback" in run.stderr) == (1, False), run.stdout + run.stderr[-1000:]
