"""A traced torch program compiled by torch's Inductor, what repeats in it once.

Blocks of equal shapes are traced to equal stretches of the program, one after the other: of the forward pass, of log-determinants, of
the backward pass. Each kind of stretch becomes one function, compiled once and called as often as it repeats, so that the time of
compiling grows with the kinds and not with the blocks. They are found in the program itself: nothing has to say what a block is.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch._inductor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

SHORTEST = 32
"""Operations that are worth a function of their own: one call takes as long as a few of them."""
VIEWS = {torch.ops.aten.slice.Tensor, torch.ops.aten.view.default, torch.ops.aten.select.int}


def compiled(program: GraphModule) -> GraphModule:
    """Return the program as calls of compiled functions. It is changed.

    It is functional, its nodes know the shapes and strides of their values, and its arguments have those, each at the beginning of its
    memory.
    """
    graph = program.graph
    nodes = [node for node in graph.nodes if node.op not in {"placeholder", "output"}]
    parts = _parts(nodes, program)
    rest = [node for node in nodes if node not in parts]
    stretches = list(_stretches(rest))
    if not all(isinstance(node.meta["val"], torch.Tensor) for stretch in stretches for node in _inputs(stretch)):
        stretches = [rest]
    kinds: dict[Hashable, list[list[Node]]] = {}
    for stretch in stretches:
        kinds.setdefault(_kind(stretch), []).append(stretch)
    for node, whole in parts.items():
        if node.op != "get_attr" and not node.users.keys() <= parts.keys():
            value = node.meta["val"]
            with graph.inserting_before(node):
                place = tuple(value.shape), value.stride(), value.storage_offset()
                node.replace_all_uses_with(graph.call_function(torch.as_strided, (whole, *place)), propagate_meta=True)
    for k, same in enumerate(kinds.values()):
        results = _results(same)
        program.add_submodule(f"kind{k}", _Function(_function(same[0], results)))
        for stretch in same:
            outside = _outside(stretch)
            with graph.inserting_after(stretch[-1]):
                call = graph.call_module(f"kind{k}", tuple(_inputs(stretch)))
            for i, j in enumerate(results):
                with graph.inserting_after(call):
                    one = graph.call_function(operator.getitem, (call, i))
                stretch[j].replace_all_uses_with(one, outside, propagate_meta=True)
                one.meta["val"] = stretch[j].meta["val"].contiguous()
    graph.eliminate_dead_code()
    program.recompile()
    return program


class _Function(torch.nn.Module):
    """What a compiled function is in a graph."""

    def __init__(self, function: GraphModule) -> None:
        super().__init__()
        values = [node.meta["val"] for node in function.graph.nodes if node.op == "placeholder"]
        examples: list[Any] = [torch.empty_strided(v.shape, v.stride(), dtype=v.dtype, device=v.device) for v in values]
        self.call: Any = torch._inductor.compile(function, examples)

    def forward(self, *arguments: Any) -> Any:
        """Call it."""
        return self.call(*arguments)


def _parts(nodes: Sequence[Node], program: GraphModule) -> dict[Node, Node]:
    """Return constants, and parts of the program's arguments, each with the whole: equal stretches differ in where theirs begin alone."""
    found: dict[Node, Node] = {}
    for node in nodes:
        if node.op == "get_attr":
            node.meta["val"] = getattr(program, str(node.target))
            found[node] = node
        elif node.target in VIEWS and (node.all_input_nodes[0].op == "placeholder" or node.all_input_nodes[0] in found):
            found[node] = found.get(node.all_input_nodes[0], node.all_input_nodes[0])
    return found


def _value(node: Node) -> Hashable:
    """Return shape, strides, dtype and device."""
    value = node.meta.get("val")
    return (tuple(value.shape), value.stride(), value.dtype, value.device) if isinstance(value, torch.Tensor) else repr(value)


def _stretches(nodes: list[Node]) -> Iterator[list[Node]]:
    """Yield all nodes in order, cut where something repeats: at each place the period that covers most."""
    numbers: dict[Hashable, int] = {}
    kinds = np.asarray([numbers.setdefault((str(n.target), _told(n, lambda _: "-"), _value(n)), len(numbers)) for n in nodes])
    begun = i = 0
    while i < len(nodes):
        period, times = _period(kinds[i:])
        if times > 1:
            cuts = [begun, *range(i, i + (times + 1) * period, period)]
            yield from (nodes[a:b] for a, b in itertools.pairwise(cuts) if a < b)
            begun = i = cuts[-1]
        else:
            i += 1
    if begun < len(nodes):
        yield nodes[begun:]


def _told(node: Node, name: Callable[[Node], str]) -> str:
    """Return its arguments as text."""
    return repr(map_arg((node.args, node.kwargs), lambda other: _Name(name(other))))


class _Name(str):
    """A name that is written as it is: a text of the same letters is quoted."""

    def __repr__(self) -> str:
        return str(self)


def _period(kinds: Any) -> tuple[int, int]:
    """Return how long what begins here is, and how often it comes at once, such that most is covered; once where it does not come again."""
    best = (0, 1)
    for period in (np.flatnonzero(kinds[SHORTEST:] == kinds[0]) + SHORTEST).tolist():
        differs = np.flatnonzero(kinds[period:] != kinds[:-period])
        times = (int(differs[0]) if differs.size else len(kinds) - period) // period + 1
        if times > 1 and period * times > best[0] * best[1]:
            best = (period, times)
    return best


def _outside(stretch: Sequence[Node]) -> Callable[[Node], bool]:
    """Return whether a node is none of these."""
    own = set(stretch)
    return lambda node: node not in own


def _inputs(stretch: Sequence[Node]) -> list[Node]:
    """Return what comes from outside, in the order of its first use."""
    own = set(stretch)
    return list(dict.fromkeys(n for node in stretch for n in node.all_input_nodes if n not in own))


def _kind(stretch: Sequence[Node]) -> Hashable:
    """Return what stretches have in common that are the same function."""
    inputs = _inputs(stretch)
    names = {node: f"n{j}" for j, node in enumerate([*inputs, *stretch])}
    return tuple((str(n.target), _told(n, names.__getitem__)) for n in stretch), tuple(map(_value, inputs))


def _results(same: Sequence[Sequence[Node]]) -> list[int]:
    """Return the places whose values somebody needs outside, after any of these stretches."""
    own = [set(stretch) for stretch in same]
    return [j for j in range(len(same[0])) if any(not stretch[j].users.keys() <= mine for stretch, mine in zip(same, own, strict=True))]


def _function(stretch: Sequence[Node], results: Sequence[int]) -> GraphModule:
    """Return a stretch as a function of its inputs."""
    graph, at = Graph(), dict[Node, Node]()
    for j, node in enumerate(_inputs(stretch)):
        at[node] = graph.placeholder(f"a{j}")
        at[node].meta["val"] = node.meta["val"]
    for node in stretch:
        at[node] = graph.node_copy(node, at.__getitem__)
    graph.output(tuple(_contiguous(graph, at[stretch[j]]) for j in results))
    return GraphModule(torch.nn.Module(), graph)


def _contiguous(graph: Graph, node: Node) -> Node:
    """Return the value laid out row by row: of other layouts the compiler keeps the order of the strides and not the strides."""
    if node.meta["val"].is_contiguous():
        return node
    return graph.call_function(torch.ops.aten.clone.default, (node,), {"memory_format": torch.contiguous_format})
