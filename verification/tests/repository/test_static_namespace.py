"""Every name and keyword the reference takes from a namespace exists wherever it promises to run: proved without running it.

A name that is missing on a GPU library would otherwise be found by the first user who has that GPU. A namespace is reached as
`xp.name` or `namespace(x).name` and in no other way, which is what makes this possible, and is a test of its own.
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
import places
import pytest

REFERENCE = places.ROOT / "iresnet_ref"
NAMESPACES = ("array_api_compat.numpy", "array_api_compat.torch", "array_api_strict", "jax.numpy", "array_api_compat.cupy")
NOT_IN_THE_STANDARD = {"einsum", "pad", "random", "fft2", "where_", "float16", "bfloat16"}


def is_namespace(node: ast.AST) -> bool:
    """Whether the expression is `xp` or a call of `namespace`."""
    if isinstance(node, ast.Call):
        return getattr(node.func, "attr", getattr(node.func, "id", None)) == "namespace"
    return isinstance(node, ast.Name) and node.id == "xp"


def uses(tree: ast.AST) -> Iterator[tuple[str, ast.Attribute]]:
    """Dotted names after a namespace, longest only: `xp.linalg.vector_norm`, not also `xp.linalg`."""
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or id(node) in inner:
            continue
        parts, base = [node.attr], node.value
        while isinstance(base, ast.Attribute):
            parts.append(base.attr)
            base = base.value
        if is_namespace(base) and not parts[-1].startswith("__"):
            yield ".".join(reversed(parts)), node


def calls(tree: ast.AST) -> Iterator[tuple[str, int, set[str]]]:
    """(dotted name, positional arguments, keywords) of each call `xp.name(…, keyword=…)`; a star counts as one argument."""
    names = {id(node): name for name, node in uses(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and id(node.func) in names:
            yield names[id(node.func)], len(node.args), {k.arg for k in node.keywords if k.arg}


GUARDED = {"linalg", "fft", "compiler", "mp"}
"""What the reference asks a namespace for before it uses it: optional extensions, torch's compiler, mpmath's precision."""


def out_of_sight(tree: ast.AST) -> Iterator[str]:
    """What the reader would not see: a namespace under another name, inside another object, or asked for a name it computes."""
    seen = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}  # namespace(x).name
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                whole = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
                pairs = zip(target.elts, node.value.elts, strict=True) if whole else [(target, node.value)]  # type: ignore[attr-defined]
                for name, value in pairs:
                    if is_namespace(value):
                        seen.add(id(value))
                        if not (isinstance(name, ast.Name) and name.id == "xp"):
                            yield ast.unparse(node)
        elif isinstance(node, ast.FunctionDef) and node.name == "namespace":  # where it comes from
            seen |= {id(inner) for inner in ast.walk(node)}
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot):
            seen |= {id(node.left), *map(id, node.comparators)}
        elif isinstance(node, ast.Call) and is_namespace(node.args[0] if node.args else node):
            function = getattr(node.func, "id", None)
            asks = function in {"getattr", "hasattr"} and isinstance(node.args[1], ast.Constant) and node.args[1].value in GUARDED
            if asks or function in {"_is_short", "_is_real", "_limits"}:  # they take the namespace, as `xp`
                seen.add(id(node.args[0]))
    yield from (
        ast.unparse(node) for node in ast.walk(tree)
        if id(node) not in seen and is_namespace(node) and not isinstance(getattr(node, "ctx", None), ast.Store)
    )


def trees() -> list[ast.AST]:
    return [ast.parse(path.read_text("utf-8")) for path in sorted(REFERENCE.rglob("*.py"))]


def lookup(namespace: Any, name: str) -> Any:
    for part in name.split("."):
        namespace = getattr(namespace, part, None)
    return namespace


def missing_names(xp: Any, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if lookup(xp, name) is None)


Called = tuple[str, int, tuple[str, ...]]


def refused_calls(xp: Any, calls: Iterable[Called]) -> list[Called]:
    """The calls that the signature of the function does not take; a ufunc has none to read, and takes no keyword here."""
    wrong = []
    for name, count, keywords in calls:
        function = lookup(xp, name)
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # torch's built-in functions too: what they take, the laws find out by running them
            if keywords and type(function).__name__ == "ufunc":
                wrong.append((name, count, keywords))
            continue
        try:
            signature.bind(*[None] * count, **dict.fromkeys(keywords))
        except TypeError:
            wrong.append((name, count, keywords))
    return wrong


USED = sorted({name for tree in trees() for name, _ in uses(tree)})
CALLED = sorted({(name, n, tuple(sorted(keywords))) for tree in trees() for name, n, keywords in calls(tree)})


def judge(namespace: str) -> tuple[list[str], list[Called]]:
    """(missing names, refused calls) of a namespace, found in a process of its own: there, CuPy is the real one."""
    code = (
        "import importlib, json, sys; sys.path[:0] = sys.argv[2:]; import test_static_namespace as t; "
        "xp = importlib.import_module(sys.argv[1]); "
        "assert 'cupy_contract' not in str(getattr(xp, 'ndarray', xp)) + str(sys.modules.get('cupy')), 'no proof'; "
        "print(json.dumps([t.missing_names(xp, t.USED), t.refused_calls(xp, t.CALLED)]))"
    )
    command = [sys.executable, "-c", code, namespace, *{str(Path(f).parent) for f in (__file__, places.__file__)}]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found[0], [(name, n, tuple(keywords)) for name, n, keywords in found[1]]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_name_exists_and_every_keyword_is_accepted(namespace: str) -> None:
    assert {"asarray", "matmul"} <= set(USED), "the reader found no use of xp: has the variable been renamed?"
    assert ("sum", 1, ("axis",)) in CALLED, "the reader found no keyword"
    assert judge(namespace) == ([], [])


def test_a_missing_name_and_a_refused_keyword_are_seen() -> None:
    assert missing_names(np, ["sum", "linalg.norm", "linalg.nothing"]) == ["linalg.nothing"]
    wrong: list[Called] = [("sum", 1, ("axis", "colour")), ("add", 2, ("axis",)), ("trace", 7, ())]
    assert refused_calls(np, [*wrong, ("cumsum", 1, ("axis",)), ("add", 2, ())]) == wrong


def test_a_namespace_is_always_reached_in_the_same_way() -> None:
    assert not [found for tree in trees() for found in out_of_sight(tree)]


@pytest.mark.parametrize(
    "source",
    ["ns = namespace(x)", "a, ns = 1, namespace(x)", "self.xp = namespace(x)", "f(xp)", "getattr(xp, name)", "getattr(xp, 'gone')",
     "for ns in [namespace(x)]: pass", "(lambda ns: ns.gone(x))(xp)", "hasattr(namespace(x), name)", "alias = xp"],
)
def test_a_namespace_out_of_sight_is_seen(source: str) -> None:
    assert list(out_of_sight(ast.parse(source)))
    assert not list(out_of_sight(ast.parse("xp = namespace(x)\nxp.sum(x)\nhasattr(xp, 'linalg')\nnamespace(x).sum(x)")))


def test_nothing_outside_the_standard_is_used() -> None:
    used = {part for tree in trees() for name, _ in uses(tree) for part in name.split(".")}
    assert not used & NOT_IN_THE_STANDARD


def test_creation_functions_name_dtype_and_device() -> None:
    """`xp.zeros(n)` would live on the default device in the default dtype, whatever the input had."""
    creation, need = {"zeros", "ones", "full", "eye", "arange", "linspace", "empty", "asarray"}, {"dtype", "device"}
    wrong = [
        (path.name, name, sorted(need - keywords))
        for path in sorted(REFERENCE.rglob("*.py"))
        for name, _, keywords in calls(ast.parse(path.read_text("utf-8")))
        if name in creation and not need <= keywords
    ]
    assert not wrong


def test_the_reader_sees_nested_names_and_keywords() -> None:
    tree = ast.parse("y = xp.linalg.vector_norm(x, axis=-1) + xp.no_such_name(x) + arrays.namespace(x).nor_this(x, 1)")
    assert {name for name, _ in uses(tree)} == {"linalg.vector_norm", "no_such_name", "nor_this"}
    assert set(map(str, calls(tree))) >= {"('linalg.vector_norm', 1, {'axis'})", "('nor_this', 2, set())"}
