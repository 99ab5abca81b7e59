"""docs/design.md says how many lines of code each room of the reference has: docstrings, comments and blank lines do not count.

    PYTHONPATH=verification/tests/support python verification/tests/repository/test_code_lines.py    prints the table as it is now
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter

from places import ROOT

PACKAGE = ROOT / "iresnet_ref"
NOT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
LOOSE = 0.1
"""The page may be off by this part of a room, so that not every commit has to count."""


def code_lines(source: str) -> int:
    """Return how many lines hold code."""
    words: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        for part in getattr(node, "body", []) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) else []:
            if isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) and isinstance(part.value.value, str):
                words.update(range(part.lineno, (part.end_lineno or part.lineno) + 1))
    tokens = (t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type not in NOT_CODE)
    return len({line for t in tokens for line in range(t.start[0], t.end[0] + 1)} - words)


def rooms() -> Counter[str]:
    """Return the lines of each room; modules at the top are together."""
    counts: Counter[str] = Counter()
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).parts
        counts[parts[0] if len(parts) > 1 else "at the top"] += code_lines(path.read_text("utf-8"))
    return counts


def table() -> str:
    """Return the table of the page."""
    counts = rooms()
    rows = [f"| {name if ' ' in name else f'`{name}`'} | {lines:,} |" for name, lines in counts.most_common()]
    return "\n".join(["| room | lines of code |", "|---|---|", *rows, f"| together | {sum(counts.values()):,} |"])


def test_the_page_says_how_large_the_rooms_are() -> None:
    page = (ROOT / "docs/design.md").read_text("utf-8").split("## How large the reference is")[1].split("\n## ")[0]
    said = {name.strip("`"): int(lines.replace(",", "")) for name, lines in re.findall(r"^\| (\S[^|]*) \| ([\d,]+) \|$", page, re.M)}
    counts = rooms()
    true = {**counts, "together": sum(counts.values())}
    assert said.keys() == true.keys()
    off = {name: (said[name], lines) for name, lines in true.items() if abs(said[name] - lines) > LOOSE * lines}
    assert not off, f"{off}: print the table anew (see the head of this file)"


def test_words_do_not_count() -> None:
    source = '"""A\nmodule."""\n\n# a comment\nx = (  # another\n    1,\n)\n\n\n'
    source += 'def f():\n    """Say."""\n    return x\n\n\ny = """two\nlines"""\n"""of y"""\n'
    assert code_lines(source) == 3 + 1 + 1 + 2


if __name__ == "__main__":
    print(table())
