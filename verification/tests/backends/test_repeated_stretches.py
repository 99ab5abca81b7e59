"""Laws of programs compiled in stretches: the values of the whole, one function for each kind of stretch however often it repeats."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import iresnet_ref as ir
from iresnet_ref.rounding import gamma

torch = pytest.importorskip("torch")
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

from iresnet_backends import compiled_training, repeated_stretches  # noqa: E402


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The functions that the compiler is given; they run as they are, with its assumptions on layouts and its freedom in them."""
    given: list[Any] = []

    def dense(a: Any) -> Any:
        return a if a.is_contiguous() else torch.clone(a, memory_format=torch.preserve_format)  # the order of the strides is kept

    def kept(function: Any, examples: list[Any]) -> Any:
        assert [node.name for node in function.graph.nodes if node.op == "placeholder"] == [f"a{j}" for j in range(len(examples))]
        given.append(function)

        def call(*arguments: Any) -> Any:
            for a, example in zip(arguments, examples, strict=True):
                assert (a.shape, a.stride(), a.dtype) == (example.shape, example.stride(), example.dtype)
            return tuple(map(dense, function(*arguments)))

        return call

    monkeypatch.setattr("torch._inductor.compile", kept)
    return given


def traced(function: Callable[..., Any], *arguments: Any) -> Any:
    with torch.no_grad():
        return make_fx(torch.func.functionalize(function), tracing_mode="fake", _allow_non_fake_inputs=True)(*arguments)


def step_of(sizes: Sequence[tuple[int, ...]]) -> tuple[Any, tuple[Any, ...]]:
    """A training step of a flow of blocks of these sizes, and its arguments."""
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 2)))
    flow = ir.Flow([ir.ResidualBlock(ir.mlp(s, seed=k, like=x)) for k, s in enumerate(sizes)])
    run = compiled_training._Run(ir.training.start(flow), ir.training.maximum_likelihood, flow.options)
    return run.step, (run.begin(run.start), *run.inputs(x, 0))


@pytest.mark.parametrize("widths", [(5, 5), (5, 5, 5, 5), (5, 3, 5)])
def test_a_step_keeps_its_value_and_equal_blocks_are_compiled_once(widths: tuple[int, ...], functions: list[Any]) -> None:
    """Three stretches repeat: forward, log-determinant, backward; what is before, between and after them is three more."""
    sizes = [(2, width, width, 2) for width in widths]
    step, arguments = step_of(sizes)
    _, wanted = step(*arguments)
    program = traced(lambda a, b, c, d: step(a, b, c, d), *arguments)  # noqa: PLW0108  the tracer counts arguments
    _, found = repeated_stretches.compiled(program)(*arguments)
    assert (found == wanted).all()  # the same operations in the same order
    if len(set(widths)) == 1:
        assert len(functions) <= 6
        assert sum(node.op == "call_module" for node in program.graph.nodes) >= 3 * len(sizes)


def test_what_repeats_is_found_and_cut_where_most_is_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_stretches, "SHORTEST", 2)
    wanted = {"abcabcabx": (3, 2), "ababcababc": (5, 2), "abcd": (0, 1), "aab": (0, 1), "abab": (2, 2)}
    assert {word: repeated_stretches._period(np.asarray([ord(c) for c in word])) for word in wanted} == wanted


def test_equal_operations_that_are_joined_differently_are_two_functions(monkeypatch: pytest.MonkeyPatch, functions: list[Any]) -> None:
    """x·x + x, then the same operations on (x·x) + (x·x)."""
    monkeypatch.setattr(repeated_stretches, "SHORTEST", 2)

    def function(x: Any) -> Any:
        for k in range(4):
            y = x * x
            x = y + (x if k < 2 else y)
        return x

    x = torch.linspace(0.1, 0.5, 5)
    found = repeated_stretches.compiled(traced(function, x))(x)
    assert (found == function(x)).all()
    assert len(functions) == 2


@pytest.mark.usefixtures("functions")
def test_what_only_one_repetition_hands_on_is_computed_by_the_compiled_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_stretches, "SHORTEST", 2)

    def function(x: Any) -> Any:
        y = x
        for _ in range(3):
            y = x * x
            x = y + x
        return x, y

    x = torch.linspace(0.1, 0.5, 5)
    program = repeated_stretches.compiled(traced(function, x))
    assert all((a == b).all() for a, b in zip(program(x), function(x), strict=True))
    assert {node.target for node in program.graph.nodes if node.op == "call_function"} == {operator.getitem}


def test_operations_of_several_results_are_not_torn_apart(monkeypatch: pytest.MonkeyPatch, functions: list[Any]) -> None:
    """The first sorts the other way: what repeats begins behind it, and a cut there would part each from its results."""
    monkeypatch.setattr(repeated_stretches, "SHORTEST", 2)

    def function(x: Any) -> Any:
        for k in range(4):
            x = x + torch.sort(x, 1, descending=k == 0)[0]
        return x

    x = torch.linspace(0.1, 0.5, 6).reshape(2, 3)
    program = traced(function, x)
    assert (repeated_stretches.compiled(program)(x) == function(x)).all()
    assert len(functions) == 1


@pytest.mark.usefixtures("functions")
def test_rows_may_lie_anywhere_in_memory() -> None:
    """Parts of arguments are read by their places in memory, so that rows from the middle of an array, or turned ones, are copied first."""
    data = np.random.default_rng(0).normal(size=(3, 8, 2))
    state = ir.training.start(ir.Flow([ir.ResidualBlock(ir.mlp((2, 3, 2), seed=k, like=torch.from_numpy(data))) for k in (0, 1)]))
    all_rows, turned = torch.from_numpy(data), torch.from_numpy(np.ascontiguousarray(data.transpose(0, 2, 1))).mT
    rows: dict[str, Callable[[int], Any]] = {
        "in the middle": all_rows.__getitem__, "turned": turned.__getitem__, "own": lambda k: all_rows[k].clone(),
    }  # fmt: skip

    def loss(model: Any, x: Any, **options: Any) -> ir.training.Loss:
        return ir.training.maximum_likelihood(model, x[1:], **options)

    found = {name: compiled_training.fit(state, of, 3, loss=loss).normalised.parameters() for name, of in rows.items()}
    for name in ("in the middle", "turned"):
        for key, p in found["own"].items():
            away = np.abs(np.asarray(found[name][key]) - np.asarray(p))
            assert float(away.max()) <= 30.0 * gamma(4096, 2.0**-53), name  # three steps of Adam, as beside
