"""What is released: one version, honest metadata, and the pages that a stranger looks for."""

from __future__ import annotations

import re
import tomllib

from places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
MINORS = (11, 12, 13)


def changelog() -> list[str]:
    """The headings of the versions, the newest first."""
    return re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)


def test_the_version_stands_in_pyproject_and_everything_else_agrees() -> None:
    unreleased, newest, *_ = changelog()
    assert unreleased == "Unreleased"
    assert newest == PROJECT["version"]
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
