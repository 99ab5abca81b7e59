"""The dependency rule, read from the imports: iresnet_ref ← iresnet_backends ← iresnet_verify ← the rest."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
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
OF_THE_REFERENCE = {"array_api_compat", "array_api_extra", "numpy", "iresnet_ref"}


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
# another framework, a NumPy function moves it silently, so every module that calls one is named here with its reason.
HOST_SIDE = {
    "activations.py": "quiets NumPy where exp overflows and z/∞ = 0 is right",
    "arrays.py": "the way to the host and back",
    "bijections/actnorm.py": "the Lipschitz constant of its inverse",
    "bijections/context.py": "draws initial weights on the host",
    "bijections/logit.py": "draws the noise of dequantisation",
    "bijections/mixing.py": "draws initial weights, proves the norm of the inverse",
    "bijections/permutation.py": "the order of channels",
    "bijections/protocol.py": "counts of evaluations that depend on the shapes only",
    "branch.py": "draws initial weights on the host",
    "certify.py": "proofs run in host float64 on exactly converted weights",
    "certify_convolution.py": "proofs run in host float64 on exactly converted kernels",
    "concatenation.py": "draws initial weights on the host",
    "conv.py": "draws initial weights on the host",
    "induced.py": "proofs run in host float64 on exactly converted weights",
    "inverse/banach.py": "decides on the host, once per check_every steps, which rows have converged",
    "inverse/__init__.py": "says which row is stuck, and where",
    "inverse/composition.py": "bounds per row travel back in float64",
    "inverse/hidden.py": "tolerances per row",
    "inverse/newton.py": "one decision per trial: which rows were rejected, and how long they wait",
    "gradient/early.py": "one decision per backward pass: whether the weights are those announced",
    "gradient/inverse.py": "the counts it reports, and the message of its error",
    "gradient/logdet.py": "the series lengths, and the counts it reports",
    "gradient/slopes.py": "singular vectors of the weights, on the host as the proofs are",
    "gradient/neumann.py": "sorts the rows by their series length",
    "inverse/safeguard.py": "the evaluation bound and the decision about convergence",
    "inverse/radius.py": "what the final residuals prove, per row",
    "inverse/rows.py": "keeps on the host which rows are still iterated",
    "lipswish.py": "quiets NumPy where βz overflows and ±∞ is right",
    "logdet/evaluate.py": "bounds that depend on the shapes only",
    "logdet/cost.py": "the number of replicates: one host synchronisation for the pilot",
    "logdet/estimator.py": "series lengths and counts of products",
    "logdet/laws.py": "the probabilities of a law of series lengths",
    "logdet/roulette.py": "draws series lengths on the host by integer thresholds",
    "logdet/variance.py": "a bound from the law of the series length alone",
    "probes.py": "draws random bits on the host",
    "training/minibatch.py": "draws the indices of a step's rows",
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
        if (calls := numpy_calls(ast.parse(path.read_text("utf-8")))) and (name := _name(path)) not in HOST_SIDE
    }
    assert not wrong, "NumPy functions are called outside the modules whose work is on the host"


def test_the_list_of_host_side_modules_is_not_stale() -> None:
    using = {_name(path) for path in modules("iresnet_ref") if numpy_calls(ast.parse(path.read_text("utf-8")))}
    assert set(HOST_SIDE) <= using


def _name(path: Path) -> str:
    return path.relative_to(PACKAGES["iresnet_ref"]).as_posix()


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import torch", "torch"), ("from torch.func import vmap", "torch"), ("def f():\n    import jax.numpy", "jax"),
        ("import importlib\nimportlib.import_module('cupy.cuda')", "cupy"), ("from . import chain", "iresnet_ref"),
    ],
)
def test_the_reader_of_imports_sees(source: str, name: str) -> None:
    assert name in imports(ast.parse(source), "iresnet_ref")
