"""Strategies for property tests: what they draw is what they say, in the library asked for, and shrinks to the simplest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from tables import backend

import iresnet_ref as ir
from iresnet_ref.arrays import namespace, to_host
from iresnet_verify import strategies


@pytest.mark.parametrize("key", ["numpy-f64", "numpy-f32", "torch-f32", "strict-device2-f64"])
def test_what_is_drawn_is_contractive_finite_and_of_the_library_asked_for(key: str) -> None:
    like = backend(key).asarray(np.zeros(1))
    kinds: set[str] = set()

    @settings(max_examples=30)
    @given(strategies.blocks_and_inputs(like=like, activation=strategies.activations(learnable=False)))
    def law(drawn: tuple[ir.ResidualBlock, Any]) -> None:
        block, x = drawn
        assert namespace(x) is namespace(like)
        assert x.dtype == like.dtype
        y = block(x)
        assert y.dtype == like.dtype
        assert block.contraction() < 1
        assert np.isfinite(to_host(y)).all()
        kinds.update(type(layer).__name__ for layer in block.branch.layers)

    law()
    assert {"Affine", "Conv", "Pointwise"} <= kinds


def test_every_kind_of_branch_activation_step_and_input_can_be_drawn() -> None:
    def drawn(strategy: Any, wanted: Callable[[Any], bool]) -> Any:
        return find(strategy, wanted, settings=settings(max_examples=400, phases=(Phase.generate,)))

    for kind in ("Conv", "Concatenation", "GroupSort", "CLipSwish", "LipSwish", "Pointwise"):
        drawn(strategies.branches(), lambda g, kind=kind: any(type(layer).__name__ == kind for layer in g.layers))
    for step in ("ActNorm", "Permutation", "PLULinear"):
        flow = drawn(strategies.flows(), lambda flow, step=step: any(type(s).__name__ == step for s in flow.steps.steps))
        assert np.isfinite(flow.log_prob(flow.sample(3, seed=0)).value).all()
    assert np.abs(drawn(strategies.inputs((3,)), lambda x: float(np.abs(x).max()) > 1e6)).max() > 1e6
    assert drawn(strategies.probes(), lambda p: p.kind == "hadamard" and p.count > 1).count > 1


def test_the_simplest_example_is_one_linear_layer_and_zeros() -> None:
    g = find(strategies.branches(), lambda g: True)
    assert (g.event_shape, len(g.layers)) == ((1,), 1)
    assert not find(strategies.inputs((2,)), lambda x: True).any()
