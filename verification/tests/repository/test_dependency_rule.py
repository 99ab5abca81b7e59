"""The dependency rule, read from the imports: iresnet_ref ← iresnet_backends ← iresnet_verify ← the rest."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from places import ROOT

PACKAGES = {
    "iresnet_ref": ROOT / "iresnet_ref",
    "iresnet_backends": ROOT / "backends/iresnet_backends",
    "iresnet_verify": ROOT / "verification/iresnet_verify",
}
FORBIDDEN = {  # who may not import what; everything after a package in the chain, and the leaves
    "iresnet_ref": {"iresnet_backends", "iresnet_verify", "benchmarks", "examples"},
    "iresnet_backends": {"iresnet_verify", "benchmarks", "examples"},
    "iresnet_verify": {"benchmarks", "examples"},
}
OF_THE_REFERENCE = {"array_api_compat", "numpy", "iresnet_ref"}


def modules(package: str) -> list[Path]:
    return sorted(PACKAGES[package].rglob("*.py"))


def imports(tree: ast.AST, package: str) -> set[str]:
    """Top-level names imported anywhere: at the top, inside functions, under TYPE_CHECKING, or by a literal name."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(package if node.level else str(node.module).split(".")[0])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", None))
            if name in {"import_module", "__import__", "find_spec"} and isinstance(node.args[0].value, str):
                found.add(node.args[0].value.split(".")[0])
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_points_the_other_way(package: str) -> None:
    assert modules(package), f"no modules found for {package}"
    wrong = {
        str(path.relative_to(ROOT)): sorted(bad)
        for path in modules(package)
        if (bad := imports(ast.parse(path.read_text("utf-8")), package) & FORBIDDEN[package])
    }
    assert not wrong


def test_the_reference_imports_only_the_array_api_numpy_and_the_standard_library() -> None:
    allowed = OF_THE_REFERENCE | sys.stdlib_module_names
    wrong = {
        path.name: sorted(bad)
        for path in modules("iresnet_ref")
        if (bad := imports(ast.parse(path.read_text("utf-8")), "iresnet_ref") - allowed)
    }
    assert not wrong


# Host NumPy belongs where the host is meant: weights, draws, proofs and the one convergence decision. Given an array of
# another framework, a NumPy function moves it silently: the rooms that call one are named here with their reason.
HOST_SIDE = {
    "arrays": "the way to the host and back",
    "probes.py": "draws random bits on the host",
    "norms": "proofs run in host float64 on exactly converted weights",
    "layers": "quiets NumPy where exp overflows and z/∞ = 0 is right",
    "normalisation": "singular vectors of the weights, on the host as the proofs are",
    "branches": "draws initial weights on the host",
    "inversion": "one decision per check_every steps: which rows have converged, and what their residuals prove",
    "log_determinant": "the probabilities of series lengths, their draws, and bounds from the shapes alone",
    "gradient": "series lengths, and the counts that are reported",
    "flows": "initial weights, noise of dequantisation, orders of channels",
    "training": "draws the indices of a step's rows",
}


def numpy_calls(tree: ast.AST) -> set[str]:
    """Names `np.f` that are called, apart from those in annotations."""
    return {
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name) and node.func.value.id in {"np", "numpy"}
    }


def test_numpy_in_the_reference_is_on_the_host_side_only() -> None:
    wrong = {
        name: sorted(calls)
        for path in modules("iresnet_ref")
        if (calls := numpy_calls(ast.parse(path.read_text("utf-8")))) and (name := _room(path)) not in HOST_SIDE
    }
    assert not wrong, "NumPy functions are called outside the rooms whose work is on the host"


def test_the_list_of_host_side_rooms_is_not_stale() -> None:
    using = {_room(path) for path in modules("iresnet_ref") if numpy_calls(ast.parse(path.read_text("utf-8")))}
    assert set(HOST_SIDE) <= using


def test_the_reference_imports_each_of_its_dependencies() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    used = {name for path in modules("iresnet_ref") for name in imports(ast.parse(path.read_text("utf-8")), "iresnet_ref")}
    assert {re.split(r"[<>=~! ]", line)[0].replace("-", "_") for line in wanted} <= used


def _room(path: Path) -> str:
    return path.relative_to(PACKAGES["iresnet_ref"]).parts[0]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import torch", "torch"), ("from torch.func import vmap", "torch"), ("def f():\n    import jax.numpy", "jax"),
        ("import importlib\nimportlib.import_module('cupy.cuda')", "cupy"), ("from . import chain", "iresnet_ref"),
    ],
)
def test_every_form_of_import_is_read(source: str, name: str) -> None:
    assert name in imports(ast.parse(source), "iresnet_ref")
