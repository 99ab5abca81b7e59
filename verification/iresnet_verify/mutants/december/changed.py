"""A correct network with one change in its source: the file is compiled anew, as if somebody had written it so."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from zlib import crc32

from iresnet_verify.mutants.mutant import Factory

FOLDER = Path(__file__).parent
Function = ast.FunctionDef


def functions(source: str) -> Iterator[tuple[str, Function]]:
    """Yield ("name" or "Class.name", function) of every function and method of a file."""
    for node in ast.parse(source).body:
        if isinstance(node, Function):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{item.name}", item) for item in node.body if isinstance(item, Function))


def slip(file: str, factory: str, function: str, before: str, after: str) -> Factory:
    """The subject that `factory` of this file makes, with `after` for `before` in one function, where it stands once."""
    source = (FOLDER / f"{file}.py").read_text("utf-8")
    node = dict(functions(source))[function]
    lines = source.splitlines(keepends=True)
    start, end = node.lineno - 1, node.end_lineno or 0
    head, body, tail = ("".join(part) for part in (lines[:start], lines[start:end], lines[end:]))
    if body.count(before) != 1:
        raise ValueError(f"expected {before!r} once in {file}.{function}, got {body.count(before)} times")
    return compiled(file, factory, head + body.replace(before, after) + tail)


def compiled(file: str, factory: str, source: str) -> Factory:
    """The factory, when it is called, of the file with this source."""
    def make(seed: int) -> Any:
        name = f"<{file}-{crc32(source.encode()):x}>"
        linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
        found = dict(vars(import_module(f"{__package__}.{file}")))
        exec(compile(source, name, "exec"), found)
        return found[factory](seed)

    return make
