"""Every `xp.name` the reference uses exists in every namespace it promises to run on: proved without running it.

A name that is missing on a GPU library would otherwise be found by the first user who has that GPU. The namespace
variable is always called `xp`, which is what makes this possible.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REFERENCE = Path(__file__).resolve().parents[2] / "iresnet_ref"
ALWAYS = ("array_api_compat.numpy", "array_api_compat.torch", "array_api_strict")
WHEN_INSTALLED = ("jax.numpy", "array_api_compat.cupy")
NOT_IN_THE_STANDARD = {"einsum", "pad", "random", "fft2", "where_", "float16", "bfloat16"}


def uses(tree: ast.AST) -> Iterator[tuple[str, ast.Attribute]]:
    """Dotted names after `xp`, longest only: `xp.linalg.vector_norm`, not also `xp.linalg`."""
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or id(node) in inner:
            continue
        parts, base = [node.attr], node.value
        while isinstance(base, ast.Attribute):
            parts.append(base.attr)
            base = base.value
        if isinstance(base, ast.Name) and base.id == "xp" and not parts[-1].startswith("__"):
            yield ".".join(reversed(parts)), node


def calls(tree: ast.AST) -> Iterator[tuple[str, set[str]]]:
    """(dotted name, keywords) of each call `xp.name(…, keyword=…)`."""
    names = {id(node): name for name, node in uses(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and id(node.func) in names:
            yield names[id(node.func)], {k.arg for k in node.keywords if k.arg}


def trees() -> list[ast.AST]:
    return [ast.parse(path.read_text("utf-8")) for path in sorted(REFERENCE.rglob("*.py"))]


def lookup(namespace: Any, name: str) -> Any:
    for part in name.split("."):
        namespace = getattr(namespace, part, None)
    return namespace


def load(name: str) -> Any:
    if name in WHEN_INSTALLED:
        pytest.importorskip(name.removeprefix("array_api_compat.").split(".")[0])
    return importlib.import_module(name)


@pytest.mark.parametrize("namespace", [*ALWAYS, *WHEN_INSTALLED])
def test_every_name_exists(namespace: str) -> None:
    xp = load(namespace)
    used = {name for tree in trees() for name, _ in uses(tree)}
    assert {"asarray", "matmul"} <= used, "the reader found no use of xp: has the variable been renamed?"
    assert not {name for name in used if lookup(xp, name) is None}


@pytest.mark.parametrize("namespace", [*ALWAYS, *WHEN_INSTALLED])
def test_every_keyword_is_accepted(namespace: str) -> None:
    xp = load(namespace)
    wrong = set()
    for tree in trees():
        for name, keywords in calls(tree):
            try:
                parameters = inspect.signature(lookup(xp, name)).parameters
            except (TypeError, ValueError):  # built-in functions and ufuncs have no readable signature
                continue
            if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()) and not keywords <= set(parameters):
                wrong.add((name, *sorted(keywords - set(parameters))))
    assert not wrong


def test_nothing_outside_the_standard_is_used() -> None:
    used = {part for tree in trees() for name, _ in uses(tree) for part in name.split(".")}
    assert not used & NOT_IN_THE_STANDARD


def test_creation_functions_name_dtype_and_device() -> None:
    """`xp.zeros(n)` would live on the default device in the default dtype, whatever the input had."""
    creation, need = {"zeros", "ones", "full", "eye", "arange", "linspace", "empty", "asarray"}, {"dtype", "device"}
    wrong = [
        (path.name, name, sorted(need - keywords))
        for path in sorted(REFERENCE.rglob("*.py"))
        for name, keywords in calls(ast.parse(path.read_text("utf-8")))
        if name in creation and not need <= keywords
    ]
    assert not wrong


def test_the_reader_sees_nested_names_and_keywords() -> None:
    tree = ast.parse("y = xp.linalg.vector_norm(x, axis=-1) + xp.no_such_name(x)")
    assert {name for name, _ in uses(tree)} == {"linalg.vector_norm", "no_such_name"}
    assert dict(calls(tree))["linalg.vector_norm"] == {"axis"}
