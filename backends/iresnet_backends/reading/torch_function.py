"""A function of batches of torch as a branch: followed once by `torch_graph`, and compared with itself on probes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

import iresnet_ref as ir
from iresnet_backends.errors import ModuleError
from iresnet_backends.reading import comparison
from iresnet_backends.reading.forward_graph import Value, layers_between, less
from iresnet_backends.reading.observed import observed, unobserved
from iresnet_backends.reading.remembered import Remembered
from iresnet_backends.reading.sorting import ORDER
from iresnet_backends.reading.torch_activations import declared as rule_of
from iresnet_backends.reading.torch_graph import DECLARED, ROWS, Graph, Recorder, Watch, place_of, undisturbed
from iresnet_backends.reading.torch_layers import REFUSED, RULES
from iresnet_backends.reading.torch_library import TORCH
from iresnet_ref.errors import ShapeError
from iresnet_ref.layers import activations
from iresnet_ref.layers.diagonal import DiagonalAffine
from iresnet_ref.layers.layer import Layer


def read(
    compute: Callable[[Any], Any],
    owner: Any,
    shape: tuple[int, ...],
    like: Any,
    *,
    declared: Mapping[type, str] | None = None,
    evaluate: bool = True,
    less_input: bool = False,
    rows: int = comparison.ROWS,
    rounded: list[str] | None = None,
) -> ir.Branch:
    """Return what `compute` does to events of this shape, in the dtype and on the device of `like`.

    `owner` is the module whose weights it uses: it is put into evaluation mode, unless `evaluate` is false, and everything is put
    back. With `less_input` the branch is g of a compute(x) = x + g(x). Probes of six sizes, `rows` each, compare the two in that mode.
    Operations with a constant that the dtype does not have, such as the 1/3 of a mean, are written down in `rounded`.
    Raises: ModuleError and ShapeError, as `from_torch`.
    """
    owner = torch.nn.Module() if owner is None else owner
    with undisturbed(owner, evaluate):
        start, end = _followed(compute, owner, shape, like, declared or {}, [] if rounded is None else rounded)
        layers = layers_between(start, end)
    if end.event != shape:
        raise ShapeError(f"from_torch: expected a branch whose ends agree, for x + g(x), got {shape} → {end.event}")
    if not any(layer.parameters for layer in layers):
        raise ModuleError("from_torch: expected at least one layer with numbers of its own, got none")
    whole = ir.Branch(layers, shape)
    with undisturbed(owner, evaluate):
        comparison.require_agreement(whole, lambda x: compute(x.clone()), "from_torch", rows)
    if not less_input:
        return whole

    def negative() -> list[Layer]:
        ones = torch.ones(shape, dtype=like.dtype, device=like.device)
        return [DiagonalAffine(-ones, 0.0 * ones)]

    return ir.Branch(layers_between(start, less(end, start, negative)), shape)


MODES: tuple[tuple[str, Callable[[], Any]], ...] = (
    ("without gradients", torch.no_grad), ("with gradients", torch.enable_grad), ("in inference mode", torch.inference_mode),
)  # fmt: skip
"""How torch may be set where a forward pass is run: it must apply the same functions to the same numbers in all of them."""


def _followed(
    compute: Callable[[Any], Any], owner: Any, shape: tuple[int, ...], like: Any, declared: Mapping[type, str], rounded: list[str]
) -> tuple[Value, Value]:
    """Return an event of this shape and what the function makes of it."""
    x = torch.randn((ROWS, *shape), dtype=like.dtype, device=like.device)
    graphs: list[tuple[Graph, Value, Value]] = []
    for name, mode in MODES:
        graph = Graph(owner, dict(RULES) if not graphs else None, REFUSED)
        graph.rounded = rounded
        start = Value(shape)
        with _as_activations(owner, declared, graph), mode():
            try:
                with observed(TORCH) as first:
                    compute(x.clone())
                before = Remembered(first)
                leaf = x.clone().requires_grad_(name == "with gradients")
                followed = graph.follow(leaf.clone(), start)
                with Watch(graph), Recorder(graph), observed(TORCH) as again:
                    y = compute(followed)
            except (RuntimeError, IndexError) as error:  # what torch raises for shapes and dtypes that do not fit
                raise graph.refusal or ShapeError(
                    f"from_torch: expected a module that takes events of shape {shape} in {like.dtype}, got from {place_of(error, owner)}: "
                    f"{str(error).splitlines()[0]}; try event_shape="
                ) from error
            if graph.refusal is not None:
                raise graph.refusal
            again.require_nothing()
            before.require_same(again)
        value = graph.value(y) if isinstance(y, torch.Tensor) else None
        if value is None or value is ORDER:
            raise ModuleError(
                f"from_torch: expected one tensor that follows from the input, got {type(y).__name__}; parts of the forward that are "
                "compiled, scripted or leave torch cannot be followed"
            )
        graphs.append((graph, start, value))
        if graph.calls != graphs[0][0].calls:
            raise ModuleError(
                f"from_torch: expected a forward that does the same in every mode of torch, got another one {name} than {MODES[0][0]}"
            )
    return graphs[0][1:]


@contextmanager
def _as_activations(module: Any, declared: Mapping[type, str], graph: Graph) -> Iterator[None]:
    """Let modules of declared types count as one function each."""
    changed = [part for part in module.modules() if type(part) in declared]
    for part in changed:
        activation = activations.get(declared[type(part)])
        plain = part.forward

        def forward(x: Any, plain: Callable[[Any], Any] = plain, activation: Any = activation) -> Any:
            with unobserved():
                return plain(x) if graph.value(x) is None else graph.call(opaque(plain), (x,), {})

        name = f"{DECLARED}{activation.name}"

        def opaque(plain: Callable[[Any], Any], name: str = name) -> Callable[[Any], Any]:
            def function(x: Any) -> Any:
                return plain(x)

            function.__name__ = name
            return function

        graph.add_rule(name, rule_of(activation))
        part.__dict__["forward"] = forward
    try:
        yield
    finally:
        for part in changed:
            del part.__dict__["forward"]
