"""Sorting layers: per-sample permutations that keep every norm, on vectors and on channels of images; ties; spread; traces."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seeds import SEEDS
from tables import backend

import iresnet_ref as ir
from iresnet_ref.arrays import to_host
from iresnet_ref.error_analysis.forward import ForwardError, forward_error
from iresnet_ref.layers.sorting import GroupSort

KEYS = ["numpy-f64", "torch-f32", "strict-device1-f32"]


def by_numpy(x: Any, layer: GroupSort) -> Any:
    """Groups of neighbouring channels, sorted pixel by pixel."""
    k = x.shape[1] if layer.group is None else layer.group
    groups = np.sort(x.reshape(x.shape[0], x.shape[1] // k, k, -1), axis=2)
    return (np.flip(groups, axis=2) if layer.descending else groups).reshape(x.shape)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("group", [2, 3, 6, None])
@given(seed=SEEDS, event=st.sampled_from([(6,), (6, 2, 3), (12,)]), descending=st.booleans())
def test_it_sorts_and_its_jacobian_is_a_permutation(
    key: str, group: int | None, seed: int, event: tuple[int, ...], descending: bool
) -> None:
    b, rng, layer = backend(key), np.random.default_rng(seed), GroupSort(group, descending)
    x = b.asarray(np.round(rng.standard_normal((4, *event)), 1))  # ties
    y, factor = layer.linearize(x)
    host = to_host(x)
    assert (to_host(y) == by_numpy(host, layer)).all()
    assert (to_host(layer(x)) == to_host(y)).all()
    v = b.asarray(rng.standard_normal((3, 4, *event)))
    w, back = to_host(factor.apply(v)), to_host(factor.transpose(v))
    # ‖Jv‖ = ‖Jᵀv‖ = ‖v‖ entry for entry, and JᵀJ = I: nothing is lost of the gradient
    assert (np.sort(w.reshape(12, -1)) == np.sort(to_host(v).reshape(12, -1))).all()
    assert (np.sort(back.reshape(12, -1)) == np.sort(to_host(v).reshape(12, -1))).all()
    assert (to_host(factor.transpose(factor.apply(v))) == to_host(v)).all()
    # J x = y: the permutation is the one that sorts
    assert (to_host(factor.apply(x)) == to_host(y)).all()
    kept = factor.take(slice(1, 3))
    assert (to_host(kept.apply(v[:, 1:3, ...])) == w[:, 1:3]).all()


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("group", [2, 4])
def test_ties_keep_the_order_of_the_input(key: str, group: int, descending: bool) -> None:
    x = backend(key).asarray(np.ones((1, 4)))
    index = to_host(GroupSort(group, descending).linearize(x)[1].index)
    assert index.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
@given(seed=SEEDS)
def test_sorting_is_1_lipschitz_in_every_norm_and_spreads_errors_safely(p: float, seed: int) -> None:
    rng, layer = np.random.default_rng(seed), GroupSort(3)
    h = np.round(rng.standard_normal((5, 6)), 1)
    nearby = h + rng.standard_normal(h.shape) * rng.choice([0.01, 0.3], (5, 1))
    gap = np.linalg.norm(layer(nearby) - layer(h), p, axis=1)
    before = ForwardError(np.linalg.norm(nearby - h, p, axis=1), 2.0, np.ones(5), 0.7, p)
    after = forward_error(layer, nearby, layer(nearby), before)
    assert (gap <= after.error * (1 + 1e-15)).all()
    assert after == before


def test_groups_must_fit() -> None:
    with pytest.raises(ir.ShapeError, match=r"groupsort 4: expected channels in groups of 4, got 6; try a multiple of 4"):
        GroupSort(4)(np.ones((1, 6)))


@given(seed=SEEDS)
def test_clipswish_has_its_exact_traces(seed: int) -> None:
    for sizes in ((3, 4, 3), (3, 4, 5, 3)):
        g = ir.mlp(sizes, activation="clipswish", lipschitz=0.9, seed=seed)
        x = np.random.default_rng(seed).standard_normal((4, 3))
        chain = g.linearize(x)[1]
        dense = chain.dense()
        trace, square = chain.trace(), chain.trace_of_square()
        assert np.abs(trace - np.trace(dense, axis1=1, axis2=2)).max() <= 1e-14
        assert (square is None) == (len(sizes) > 3)
        if square is not None:
            assert np.abs(square - np.trace(dense @ dense, axis1=1, axis2=2)).max() <= 1e-14
