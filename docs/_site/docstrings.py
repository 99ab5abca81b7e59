"""Docstrings as reStructuredText. They are plain text with `code`, *emphasis*, - lists, indented tables and >>> examples."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from textwrap import dedent

CODE = re.compile(r"(`[^`]+`)")
EMPHASIS = re.compile(r"(?<![\w*])\*[^*\s](?:[^*]*[^*\s])?\*(?![\w*])")
LABEL = re.compile(r"^(Raises|Returns|Shapes|Units|Limits|Reference|References|Example|Examples|Errors): ?")
ITEM = re.compile(r"^- ")
COLUMNS = re.compile(r"\S {3,}\S")


def restructured(lines: Sequence[str], targets: Mapping[str, str] = {}) -> list[str]:
    """Return the lines of a docstring as reStructuredText; `targets` leads from names in `code` to objects of the reference."""
    out: list[str] = []
    for block in _blocks(lines):
        if block[0].lstrip().startswith(">>>"):
            out += _literal("pycon", block)
        elif block[0].startswith((" ", "\t")) or any(COLUMNS.search(line) for line in block):
            out += _literal("text", block)
        else:
            out += [line for part in _parts(block) for line in (_paragraph(part, targets), "")]
    return out


def inline(text: str, targets: Mapping[str, str] = {}) -> str:
    """Return one line with its `code` and *emphasis*, everything else escaped."""
    return "".join(_code(part[1:-1], targets) if i % 2 else _emphasised(part) for i, part in enumerate(CODE.split(text)))


def _blocks(lines: Sequence[str]) -> Iterator[list[str]]:
    """Yield what blank lines separate; an example begins a block of its own, and ends with it."""
    for blank, group in groupby(lines, key=lambda line: not line.strip()):
        if not blank:
            block = list(group)
            start = next((i for i, line in enumerate(block) if line.lstrip().startswith(">>>")), len(block))
            yield from (part for part in (block[:start], block[start:]) if part)


def _parts(block: list[str]) -> Iterator[list[str]]:
    """Yield the paragraphs of a block: list items and labels begin one."""
    part: list[str] = []
    for line in block:
        if part and (ITEM.match(line) or LABEL.match(line)):
            yield part
            part = []
        part.append(line)
    yield part


def _paragraph(part: list[str], targets: Mapping[str, str]) -> str:
    text = " ".join(line.strip() for line in part)
    label = LABEL.match(text)
    if label:
        return f"**{label.group(1)}.** {inline(text[label.end():], targets)}"
    return f"- {inline(text[2:], targets)}" if ITEM.match(text) else inline(text, targets)


def _literal(language: str, block: list[str]) -> list[str]:
    return [f".. code-block:: {language}", "", *(f"   {line}" for line in dedent("\n".join(block)).splitlines()), ""]


def _code(text: str, targets: Mapping[str, str]) -> str:
    target = targets.get(text.removesuffix("()"))
    if target is not None:
        return rf"\ :py:obj:`{text} <{target}>`\ "
    return rf"\ ``{text}``\ "


def _emphasised(text: str) -> str:
    out, last = "", 0
    for found in EMPHASIS.finditer(text):
        out += _escaped(text[last : found.start()]) + rf"\ *{_escaped(found.group()[1:-1])}*\ "
        last = found.end()
    return out + _escaped(text[last:])


def _escaped(text: str) -> str:
    return re.sub(r"([\\*|`_<>])", r"\\\1", text)
