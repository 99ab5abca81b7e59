"""docs/equations.md says where each statement of the papers is: the code that it names cites it, and no citation is left out."""

from __future__ import annotations

import ast
import re

from places import ROOT

PAGE = ROOT / "docs/equations.md"
PACKAGE = ROOT / "iresnet_ref"
NUMBERED = r"\[(?:B19|C19)\] (?:eq\. |Thm |Algorithm |Lemma )\d+"


def rows() -> list[tuple[str, str, str]]:
    """Return (statement, file, function) of each row."""
    return re.findall(r"^\| (\[[BC]19\] [^|]*?) \| .*? \| `([\w/.]+)` \| `(\w+)` \|$", PAGE.read_text("utf-8"), re.M)


def cited(path: str, function: str) -> str:
    """Return the docstring of a module and that of a function or class in it; "" where there is none of that name."""
    tree = ast.parse((PACKAGE / path).read_text("utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == function]
    return f"{ast.get_docstring(tree)} {ast.get_docstring(found[0])}" if found else ""


def cites(text: str, statement: str) -> bool:
    """Return whether a docstring names the statement; one paper may be followed by several of its places."""
    paper, place = statement[:5], statement[6:]
    return any(re.search(rf"{re.escape(place)}(?!\d|\.\d)", part) for part in re.findall(rf"{re.escape(paper)}[^\[]*", text))


def test_each_row_names_a_function_that_cites_its_statement() -> None:
    wrong = [row for row in rows() if not cites(cited(*row[1:]), row[0])]
    assert len(rows()) == PAGE.read_text("utf-8").count("| [")
    assert not wrong, "a function has moved, or does not say which statement of the paper it is"


def test_a_statement_with_a_number_that_the_code_cites_is_in_the_table() -> None:
    text = "\n".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    assert set(re.findall(NUMBERED, text)) <= {row[0] for row in rows()}


def test_a_row_that_is_stale_is_seen() -> None:
    assert cited("gradient/neumann.py", "moved_away") == ""
    text = cited("gradient/neumann.py", "neumann_cotangent")
    assert cites(text, "[C19] eq. 8")
    assert not cites(text, "[C19] eq. 80")
    assert not cites(text, "[B19] eq. 8")
    assert not cites("[C19] §3.1", "[C19] §3")
