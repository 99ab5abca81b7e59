"""Hypothesis strategies for invertible residual networks: certified branches, blocks, flows, inputs and probes on any array library.

For property tests of code that takes such a network: every branch comes with its proved Lip(g) < 1, so that whatever the test computes
has a truth to be compared with. `like` is an array of the library, dtype and device to draw in (default: NumPy float64). Examples shrink
towards one layer in one dimension at L = 1/2 and inputs of zeros.

>>> from hypothesis import given, settings
>>> import numpy as np, iresnet_ref as ir
>>> @settings(max_examples=20, database=None)
... @given(blocks_and_inputs())
... def inverse_undoes_forward(drawn):
...     block, x = drawn
...     inverse = ir.invert(block, block(x), throw=False)
...     error = np.linalg.norm((inverse.x - x).reshape(len(x), -1), axis=1)
...     assert (error <= inverse.error_bound)[inverse.covers_computed].all()
>>> inverse_undoes_forward()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

try:
    from hypothesis import strategies as st
    from hypothesis.strategies import DrawFn, SearchStrategy
except ImportError as missing:
    raise ImportError("iresnet_verify.strategies needs Hypothesis; try: pip install 'iresnet-ref[verify]'") from missing

import iresnet_ref as ir
from iresnet_ref.arrays import from_host
from iresnet_ref.layers.by_name import LAYERS

__all__ = ["activations", "blocks", "blocks_and_inputs", "branches", "flows", "inputs", "lipschitz_bounds", "probes"]

SEEDS = st.integers(0, 2**32 - 1)
DIMENSIONS = st.integers(1, 6)
MAGNITUDES = (1.0, 1e-3, 1e3, 1e-8, 1e8)
"""What inputs are multiplied by; float32 and float64 hold all of them."""


def lipschitz_bounds() -> SearchStrategy[float]:
    """Return bounds in (0, 1), small, ordinary and near to 1."""
    return st.sampled_from((0.5, 0.9, 0.1, 0.97, 0.999, 1e-6))


def activations(*, learnable: bool = True) -> SearchStrategy[str]:
    """Return names that `activation=` of a branch takes; without `learnable` those that have no parameters."""
    named = [n for n in (*ir.activations.ACTIVATIONS, *LAYERS) if learnable or not n.startswith("learnable")]
    return st.sampled_from([n for n in named if n != "half of clipswish"])


@st.composite
def branches(
    draw: DrawFn, *, event_shape: Sequence[int] | None = None, like: Any = None, activation: SearchStrategy[str] | None = None,
    lipschitz: SearchStrategy[float] | None = None,
) -> ir.Branch:
    """Return certified branches g: dense and densely connected for events (d,), convolutional for (channels, height, width).

    Without `event_shape` both kinds, d ≤ 6 or up to 2 × 4 × 4. `activation` and `lipschitz` are strategies for the arguments of `ir.mlp`.
    """
    shape = draw(events()) if event_shape is None else tuple(event_shape)
    L, seed = draw(lipschitz_bounds() if lipschitz is None else lipschitz), draw(SEEDS)
    phi = draw(activations() if activation is None else activation)
    if len(shape) == 1:
        d = shape[0]
        if draw(st.integers(0, 3)) == 3:
            return ir.densenet(d, depth=draw(st.integers(1, 3)), growth=2 * draw(st.integers(1, 3)), lipschitz=L, seed=seed, like=like)
        hidden = draw(st.lists(st.integers(1, 4).map(lambda k: 2 * k), max_size=3))
        return ir.mlp((d, *hidden, d), activation=phi, lipschitz=L, seed=seed, like=like)
    sides = st.sampled_from([k for k in (1, 3) if k <= min(shape[1:])])
    return ir.convnet(
        shape, channels=2 * draw(st.integers(1, 2)), kernels=tuple(draw(st.lists(sides, min_size=1, max_size=3))), activation=phi,
        padding=draw(st.sampled_from(("zero", "circular"))), lipschitz=L, seed=seed, like=like,
    )


def events() -> SearchStrategy[tuple[int, ...]]:
    """Return shapes of an event: (d,) with d ≤ 6, or images up to 2 × 4 × 4."""
    return st.one_of(st.tuples(DIMENSIONS), st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 4)))


def blocks(**options: Any) -> SearchStrategy[ir.ResidualBlock]:
    """Return blocks F = id + g with proved Lip(g) < 1; options as for `branches`."""
    return branches(**options).map(ir.ResidualBlock)


@st.composite
def flows(draw: DrawFn, *, d: int | None = None, like: Any = None, steps: int = 4) -> ir.Flow:
    """Return flows on (d,) of up to `steps` residual blocks, ActNorms, invertible linear maps and permutations, at least one block."""
    d = draw(DIMENSIONS) if d is None else d
    like = np.zeros(1) if like is None else like
    kinds: dict[str, Callable[[], Any]] = {
        "block": lambda: draw(blocks(event_shape=(d,), like=like)),
        "actnorm": lambda: ir.bijections.ActNorm.uninitialised((d,), like=like).initialise(
            from_host(np.random.default_rng(draw(SEEDS)).standard_normal((8, d)), like)),
        "permutation": lambda: ir.bijections.Permutation((d,), tuple(draw(st.permutations(range(d))))),
        "linear": lambda: ir.bijections.PLULinear.rotation((d,), seed=draw(SEEDS), like=like),
    }
    chosen = draw(st.lists(st.sampled_from(tuple(kinds)), max_size=steps - 1))
    return ir.Flow([kinds[k]() for k in ("block", *chosen)])


@st.composite
def inputs(draw: DrawFn, event_shape: Sequence[int], *, like: Any = None, rows: int | None = None) -> Any:
    """Return batches of 1 to 4 rows (or `rows`): normal numbers times a magnitude from 1e-8 to 1e8, zeros, one spike, equal entries."""
    n = draw(st.integers(1, 4)) if rows is None else rows
    shape = (n, *event_shape)
    kind = draw(st.sampled_from(("zeros", "ones", "spike", "normal")))
    x = np.zeros(shape) if kind in ("zeros", "spike") else np.ones(shape)
    if kind == "spike":
        x.reshape(n, -1)[:, draw(st.integers(0, x[0].size - 1))] = 1.0
    elif kind == "normal":
        x = np.random.default_rng(draw(SEEDS)).standard_normal(shape)
    return from_host(draw(st.sampled_from(MAGNITUDES)) * x, np.zeros(1) if like is None else like)


@st.composite
def blocks_and_inputs(draw: DrawFn, /, **options: Any) -> tuple[ir.ResidualBlock, Any]:
    """Return a block and a batch of its events; options as for `branches`."""
    block = draw(blocks(**options))
    return block, draw(inputs(block.branch.event_shape, like=options.get("like")))


def probes(*, count: int = 8) -> SearchStrategy[ir.Probes]:
    """Return probes of every kind with up to `count` replicates."""
    return st.builds(ir.Probes, seed=SEEDS, stream=st.integers(0, 9), kind=st.sampled_from(("rademacher", "gaussian", "hadamard")),
                     count=st.integers(1, count))
