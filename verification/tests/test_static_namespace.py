"""Every `xp.name` the reference uses exists in every namespace it promises to run on: proved without running it.

A name that is missing on a GPU library would otherwise be found by the first user who has that GPU. The namespace
variable is always called `xp`, which is what makes this possible.
"""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REFERENCE = Path(__file__).resolve().parents[2] / "iresnet_ref"
NAMESPACES = ("array_api_compat.numpy", "array_api_compat.torch", "array_api_strict", "jax.numpy", "array_api_compat.cupy")
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


def missing_names(xp: Any, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if lookup(xp, name) is None)


def refused_keywords(xp: Any, calls: Iterable[tuple[str, tuple[str, ...]]]) -> list[tuple[str, ...]]:
    wrong = []
    for name, keywords in calls:
        try:
            parameters = inspect.signature(lookup(xp, name)).parameters
        except (TypeError, ValueError):  # built-in functions and ufuncs have no readable signature
            continue
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        if bad := sorted(set(keywords) - set(parameters)) if not takes_any else []:
            wrong.append((name, *bad))
    return wrong


USED = sorted({name for tree in trees() for name, _ in uses(tree)})
CALLED = sorted({(name, tuple(sorted(keywords))) for tree in trees() for name, keywords in calls(tree)})


def judge(namespace: str) -> tuple[list[str], list[tuple[str, ...]]]:
    """(missing names, refused keywords) of a namespace, found in a process of its own: there, CuPy is the real one."""
    code = (
        "import importlib, json, sys; sys.path.insert(0, sys.argv[1]); import test_static_namespace as t; "
        "xp = importlib.import_module(sys.argv[2]); "
        "assert 'cupy_contract' not in str(getattr(xp, 'ndarray', xp)) + str(sys.modules.get('cupy')), 'no proof'; "
        "print(json.dumps([t.missing_names(xp, t.USED), t.refused_keywords(xp, t.CALLED)]))"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), namespace]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found[0], [tuple(f) for f in found[1]]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_name_exists_and_every_keyword_is_accepted(namespace: str) -> None:
    assert {"asarray", "matmul"} <= set(USED), "the reader found no use of xp: has the variable been renamed?"
    assert ("sum", ("axis",)) in CALLED, "the reader found no keyword"
    assert judge(namespace) == ([], [])


def test_a_missing_name_and_a_refused_keyword_are_seen() -> None:
    assert missing_names(np, ["sum", "linalg.norm", "linalg.nothing"]) == ["linalg.nothing"]
    assert refused_keywords(np, [("sum", ("axis", "colour")), ("cumsum", ("axis",))]) == [("sum", "colour")]


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
