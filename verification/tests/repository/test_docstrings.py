"""Docstrings of public names are complete: an example, and errors, shapes, units, source and limits where they apply.

The examples of the reference run on torch too; that examples run at all is `test_docs.py`, that equations are cited `test_equations.py`.
"""

from __future__ import annotations

import doctest
import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy_on_torch import Checker, installed, like_torch, rewritten
from test_site import generated

import iresnet_ref as ir
from iresnet_ref.errors import IResNetError

PUBLIC = {
    f"{module}.{name}": thing for module in generated.MODULES for name, thing in generated.names(module).items()
    if inspect.isroutine(thing) or (inspect.isclass(thing) and not issubclass(thing, IResNetError))
}  # fmt: skip
LOG = re.compile(r"^(?:Return )?\(?(?:log\|det|log p\(|−log|d·log)")
"""How a docstring begins whose value is a log-determinant or a log-density."""
RAISES = re.compile(r"^\s+raise (?!NotImplementedError)|\brequire(?:_\w+)?\(", re.M)
SHAPE = re.compile(r"[Ss]hape|\(batch|per row|each row|\(n,|\(\*|event")
SOURCE = re.compile(r"\[[BC]19\]|arXiv|\b(?:18|19|20)\d\d\b")
"""A paper or a book: the two of docs/equations.md, or a year."""
FLOATING = re.compile(r"\b(?:exp|expm1|log|log1p|sqrt|tanh|sigmoid|softplus|log_softmax|log_sum|inverse_of_lower)\(|\blinalg\.")
"""What may overflow, cancel or amplify, so that a user must know how far it can be trusted."""
LIMITS = re.compile(r"[Rr]ound|[Oo]verflow|[Uu]nderflow|float(?:32|64)|\binf\b|\bNaN\b|precision|\bu\b|[Ff]inite|bit for bit|cancel|digit")
BATCHES = {"x", "y", "z", "v"}
"""What an argument is called that is a batch."""


def says(thing: Any) -> str:
    return inspect.getdoc(thing) or ""


def body(thing: Any) -> str:
    """Return the source of a function, or of what a class does when it is made."""
    thing = inspect.unwrap(thing)
    if not inspect.isclass(thing):
        return inspect.getsource(thing)
    own = [vars(thing).get(name) for name in ("__post_init__", "__init__")]
    written = [f for f in map(inspect.unwrap, filter(inspect.isroutine, own)) if f.__code__.co_filename == inspect.getsourcefile(thing)]
    return "".join(map(inspect.getsource, written))


def code(thing: Any) -> str:
    """Return all that is written of a function or a class, but for its docstrings."""
    return re.sub(r'"""[\s\S]*?"""', "", inspect.getsource(inspect.unwrap(thing)))


def incomplete(names: dict[str, Any]) -> Iterator[str]:
    """Yield what is missing."""
    for name, thing in names.items():
        text, arguments = says(thing), set() if inspect.isclass(thing) else set(inspect.signature(thing).parameters)
        if ">>>" not in text:
            yield f"{name}: no example"
        if RAISES.search(body(thing)) and not re.search(r"[Rr]aise|refuse|Error", text):
            yield f"{name}: which errors?"
        if arguments & BATCHES and not SHAPE.search(text):
            yield f"{name}: which shapes?"
        if LOG.search(text) and not re.search(r"\bnats\b|[Bb]its", text):
            yield f"{name}: which unit?"
        claim = text.partition(">>>")[0]
        if SOURCE.search(sys.modules[inspect.unwrap(thing).__module__].__doc__ or "") and not SOURCE.search(claim):
            yield f"{name}: which source? its module names one, which the reference does not show"
        if FLOATING.search(code(thing)) and not LIMITS.search(claim):
            yield f"{name}: how far does floating point let it be trusted?"


def test_a_public_name_says_what_it_gives_raises_and_takes() -> None:
    assert len(PUBLIC) > 140
    assert not list(incomplete(PUBLIC))


def test_what_is_missing_is_seen() -> None:
    def bare(x: Any) -> Any:
        """Return log|det dF/dx|."""
        if x is None:
            raise ValueError
        return np.log(x)

    bare.__module__ = "iresnet_ref.log_determinant.roulette"
    assert [found.partition(": ")[2] for found in incomplete({"bare": bare})] == [
        "no example", "which errors?", "which shapes?", "which unit?",
        "which source? its module names one, which the reference does not show", "how far does floating point let it be trusted?",
    ]  # fmt: skip


@pytest.mark.parametrize("module", [m for m in generated.MODULES if m.startswith("iresnet_ref")])
def test_the_examples_of_the_reference_run_on_torch_as_they_stand(module: str) -> None:
    found = {n: t for n, t in PUBLIC.items() if n.rpartition(".")[0] == module}
    runner = doctest.DocTestRunner(checker=Checker())
    with installed(ir):
        for name, thing in found.items():
            home = sys.modules[inspect.unwrap(thing).__module__]
            names = {n: like_torch(v) if getattr(v, "__module__", "").startswith("iresnet_ref") else v for n, v in vars(home).items()}
            runner.run(doctest.DocTestParser().get_doctest(rewritten(says(thing)), names, name, None, 0))
    assert runner.tries > 0
    assert runner.failures == 0


def test_an_example_on_torch_makes_tensors() -> None:
    """Else the examples above would run on NumPy a second time."""
    printed: list[str] = []
    text = ">>> import numpy as np, iresnet_ref as ir\n>>> type(ir.mlp((2, 4, 2))(np.ones((1, 2)))).__module__\n'torch'"
    with installed(ir):
        runner = doctest.DocTestRunner(checker=Checker())
        runner.run(doctest.DocTestParser().get_doctest(rewritten(text), {}, "tensors", None, 0), out=printed.append)
    assert not printed


def test_a_flow_fits_ten_lines() -> None:
    swap, block = ir.bijections.Permutation((2,), (1, 0)), ir.ResidualBlock(ir.mlp((2, 64, 64, 2), lipschitz=0.9))
    many = ir.Flow([ir.bijections.ActNorm.uninitialised((2,)), *(12 * [swap, block])])
    equal = ir.Flow([*(12 * [block]), swap])
    deep = ir.ResidualBlock(ir.mlp((2, *(30 * [8]), 2)), lipschitz=0.5)
    for flow in (many, equal, many.steps, equal.steps, ir.Flow([deep])):
        lines = repr(flow).splitlines()
        assert len(lines) <= 10
        assert max(map(len, lines)) <= 120
    assert "0–11: ResidualBlock (2,): dense 2→64, lipswish, dense 64→64, lipswish, dense 64→2" in repr(equal)
    assert "more" in repr(many)
    assert "Lip(g) ≤ 0.5 is stated" in repr(deep)
