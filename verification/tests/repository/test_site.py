"""The site's sources: every public name, field, check and error has its place, every page is reached, every link leads somewhere.

The site itself is built by `make docs`, where a warning is an error.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from markdown_it import MarkdownIt
from places import ROOT
from test_public_face import FACES

import iresnet_backends
import iresnet_verify
from iresnet_ref.errors import IResNetError
from iresnet_verify import Subject, catalogue
from iresnet_verify.subject.validation import validate

DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))
try:
    from _site import generated, sources
    from _site.docstrings import restructured
finally:
    sys.path.remove(str(DOCS))

PAGES = {path.relative_to(DOCS).as_posix(): path.read_text("utf-8") for path in sorted(DOCS.rglob("*.md"))}
LINK = re.compile(r"(?<!`)\]\(([^)\s]+)\)")


def anchors(page: str) -> set[str]:
    """Return what MyST makes of the headings, as GitHub does: lower case, no punctuation, hyphens for spaces."""
    page = re.sub(r"```\{include\} \.\./(\S+)\n.*?```", lambda found: (ROOT / found.group(1)).read_text("utf-8"), page, flags=re.S)
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    named = set(re.findall(r"^\(([\w-]+)\)=$", page, re.M))
    return named | {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", h).lower()).replace(" ", "-") for h in headings}


def prose(page: str) -> str:
    """Return a page with its generated parts and without its blocks of code."""
    return re.sub(r"```.*?```", "", generated.filled(page), flags=re.S)


def links() -> Iterator[tuple[str, str]]:
    for name, text in PAGES.items():
        for target in LINK.findall(prose(text)):
            if not target.startswith(("http:", "https:", "mailto:")):
                yield name, target


def test_every_module_that_hands_on_names_is_in_the_reference() -> None:
    shown = [module for page in PAGES.values() for kind, module in generated.PLACE.findall(page) if kind == "api"]
    assert sorted(shown) == sorted(generated.MODULES)
    assert set(FACES) == set(generated.FACES)
    assert set(generated.names("iresnet_backends")) == set(iresnet_backends.__all__)
    assert set(generated.names("iresnet_verify")) == set(iresnet_verify.__all__)


def test_every_field_of_a_subject_says_what_it_claims_and_has_an_example() -> None:
    assert [f.name for f in sources.fields(ROOT / "verification/iresnet_verify/subject/subject.py", "Subject")] == list(
        Subject.__dataclass_fields__
    )
    assert not [f.name for f in generated.subject_fields() if not f.says or not f.example]
    assert "<!-- site: subject -->" in PAGES["audit/subject.md"]


def test_the_examples_of_the_fields_are_arguments_of_subject() -> None:
    class Anything:
        """Stands for the network of an example."""

        def __getattr__(self, name: str) -> Anything:
            return Anything()

        def __call__(self, *arguments: object) -> Anything:
            return Anything()

    for field in generated.subject_fields():
        written = re.findall(r"`(\w+=.*?)`", field.example)
        assert written, field.name
        for example in written:
            names = {n: Anything() for n in ("flow", "base", "weight", "weights", "factory", "subject_of", "draws_from")}
            given = eval(f"dict({example})", names)
            assert list(given) == [field.name]
            others = dict.fromkeys(("inverse", "log_det", "module", "refresh", "fresh", "from_parameters"), torch.nn.Identity())
            validate(Subject(**{"name": "x", "event_shape": (3,), "forward": Anything(), **others, **given}))


def test_the_checks_that_a_field_switches_on_are_those_that_ask_for_it() -> None:
    found, checks = generated.switched_on(), catalogue.load()
    for check in checks.values():
        for need in set(check.needs) & set(Subject.__dataclass_fields__):
            assert check.id in found[need]
    for field in ("inverse_tolerance", "lipschitz_holds", "log_det_is", "module", "framework"):
        assert found[field], field
    assert not set(found) - set(Subject.__dataclass_fields__)


def test_every_error_and_what_it_says_is_on_the_page_of_errors() -> None:
    page = generated.filled(PAGES["reference/errors.md"])
    for error in generated.error_classes():
        assert f"## {error.__name__}\n" in page
        assert error is IResNetError or re.search(r"\bTry\b", error.__doc__ or ""), f"{error.__name__}: what is the remedy?"
    for message in sources.messages():
        assert generated._escaped(message.text) in page
    said = "…: expected sizes (d, h₁, …, d) of positive integers with equal ends, got …; try (2, 64, 64, 2)"
    assert said in page


def test_every_message_of_the_command_line_has_a_remedy() -> None:
    said = [m for m in sources.messages() if m.where.startswith("iresnet_verify/cli/")]
    assert len(said) > 20
    assert not [m.text for m in said if ";" not in m.text and "such as" not in m.text], "after a semicolon: what to try"


def test_every_constant_of_the_reference_says_what_it_is() -> None:
    every = [item for module in generated.MODULES for item in generated.names(module).items()]
    things = [(name, thing) for name, thing in every if not inspect.isroutine(thing) and not inspect.isclass(thing)]
    assert things
    assert not [name for name, thing in things if not generated.constant(name, thing)]


def test_every_key_of_a_report_says_what_it_is() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (.*?) \|$", generated.schema(), re.M)
    assert len(rows) > 25
    assert not [name for name, says in rows if not says.strip()]


def test_every_page_is_in_the_navigation_once() -> None:
    named = re.findall(r"^([\w/-]+)$", "\n".join(re.findall(r"```\{toctree\}\n(.*?)```", PAGES["index.md"], re.S)), re.M)
    assert sorted(f"{name}.md" for name in named) == sorted(PAGES.keys() - {"index.md"}), "name the page in a toctree of docs/index.md"


def test_no_link_of_a_page_is_broken() -> None:
    found = list(links())
    broken = []
    for name, target in found:
        path, _, anchor = target.partition("#")
        file = (DOCS / name).parent / path if path else DOCS / name
        if not file.is_file() or (anchor and file.suffix == ".md" and anchor not in anchors(file.read_text("utf-8"))):
            broken.append((name, target))
    assert len(found) > 200
    assert not broken


def test_no_formula_is_read_as_emphasis() -> None:
    """‖A‖_F ≤ γ_n would set F ≤ γ in italics: pages emphasise with stars, and escape an underscore behind a sign."""
    reader = MarkdownIt("commonmark").enable("table")
    blocks = [(name, block) for name, page in PAGES.items() for block in reader.parse(page) if block.type == "inline"]
    assert not [(n, b.content) for n, b in blocks for part in b.children or () if part.markup in ("_", "__")]


def test_no_row_stands_outside_of_its_table() -> None:
    reader = MarkdownIt("commonmark").enable("table")
    blocks = [(name, block) for name, page in PAGES.items() for block in reader.parse(page) if block.type == "inline"]
    assert not [(name, b.content) for name, b in blocks if b.content.startswith("| ")]


def test_docstrings_become_restructured_text() -> None:
    written = [
        "Return |x|·`a_b` for *every* x_; see `ir.invert`.", "", "Raises: ShapeError", "for bad ones.", ">>> 1 + 1", "2", "",
        "    k  v", "", "- item",
    ]  # fmt: skip
    assert restructured(written, {"ir.invert": "iresnet_ref.invert"}) == [
        "Return \\|x\\|·\\ ``a_b``\\  for \\ *every*\\  x\\_; see \\ :py:obj:`ir.invert <iresnet_ref.invert>`\\ .", "",
        "**Raises.** ShapeError for bad ones.", "",
        ".. code-block:: pycon", "", "   >>> 1 + 1", "   2", "",
        ".. code-block:: text", "", "   k  v", "", "- item", "",
    ]  # fmt: skip


@pytest.mark.thorough
@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="needs the extra docs")
def test_the_site_is_built_without_a_warning_and_asks_no_other_host(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", str(DOCS), str(tmp_path)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": ""})
    asked = re.compile(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"(https?:[^\"]*)\"|@import|url\(\s*[\"']?https?:")
    directive = re.compile(r"^<p>\.\. [\w:-]+::", re.M)
    for path in [*tmp_path.rglob("*.html"), *tmp_path.rglob("*.css")]:
        text = path.read_text("utf-8")
        assert not asked.search(text), path.name
        assert not directive.search(text), f"{path.name}: reStructuredText that was read as Markdown"
    assert (tmp_path / "searchindex.js").stat().st_size > 100_000
