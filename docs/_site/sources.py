"""What can be read from the text of the code alone: the docs of fields, and the messages of errors."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = (ROOT / "iresnet_ref", ROOT / "backends/iresnet_backends", ROOT / "verification/iresnet_verify")
EXAMPLE = re.compile(r"\s*Examples?: (.*)$")
COMMAND_LINE = ("UsageError", "BadParameter", "ClickException")
"""Errors of click."""


@dataclass(frozen=True)
class Field:
    """A field of a dataclass: what it says, and the heading that it stands under."""

    name: str
    annotation: str
    default: str | None
    says: str
    example: str
    under: str


def fields(path: Path, name: str) -> list[Field]:
    """Return the fields of a class, each with the text that follows it and the last comment `# -- …` before it."""
    text = path.read_text("utf-8")
    body = next(n for n in ast.parse(text).body if isinstance(n, ast.ClassDef) and n.name == name).body
    headings = {i: line.split("# -- ")[1] for i, line in enumerate(text.splitlines(), 1) if line.strip().startswith("# -- ")}
    found = []
    for node, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        docs = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
        says, example = [*EXAMPLE.split(" ".join(str(docs).split())), ""][:2]
        under = [heading for line, heading in headings.items() if line < node.lineno]
        default = None if node.value is None else ast.unparse(node.value)
        found.append(Field(node.target.id, ast.unparse(node.annotation), default, says, example, under[-1] if under else ""))
    return found


@dataclass(frozen=True)
class Message:
    """What an error says; `…` stands for what depends on the call."""

    error: str
    text: str
    where: str


@cache
def messages() -> tuple[Message, ...]:
    """Return the messages of all errors of the three packages that are made in one place, each once."""
    found: dict[tuple[str, str], Message] = {}
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            for error, text in _made(ast.parse(path.read_text("utf-8"))):
                found.setdefault((error, text), Message(error, text, path.relative_to(package.parent).as_posix()))
    return tuple(found.values())


def _made(tree: ast.Module) -> Iterator[tuple[str, str]]:
    makers = {f.name: f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and _maker(f) is not None}
    inside = {id(call) for f in makers.values() for call in ast.walk(f)}
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name | ast.Attribute) or id(call) in inside:
            continue
        name = call.func.id if isinstance(call.func, ast.Name) else call.func.attr
        if name in makers:
            given = dict(zip([a.arg for a in makers[name].args.args], map(_text, call.args), strict=False))
            made = _maker(makers[name])
            assert made is not None
            yield made[0], _text(made[1], given)
        elif (name.endswith("Error") or name in COMMAND_LINE) and call.args:
            text = _text(call.args[0])
            if len(text.replace("…", "").split()) > 2:
                yield name, text


def _maker(function: ast.FunctionDef) -> tuple[str, ast.expr] | None:
    """Return the error and its message, of a function that only writes one from its arguments."""
    last = function.body[-1]
    if len(function.body) > 2 or not isinstance(last, ast.Return) or not isinstance(last.value, ast.Call):
        return None
    made = last.value
    name = getattr(made.func, "id", "")
    return (name, made.args[0]) if name.endswith("Error") and made.args and isinstance(made.args[0], ast.JoinedStr) else None


def _text(node: ast.expr, given: dict[str, str] | None = None) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return " ".join("".join(_text(v, given) for v in node.values).split())
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, given) + _text(node.right, given)
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name):
        return (given or {}).get(node.value.id, "…")
    return "…"
