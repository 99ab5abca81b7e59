"""Groups of one block: the forward pass with five terms, exact log-determinants, inverses of easy and of hard rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import peers
from bench_inverse import FAMILIES, LARGE, moons, trained
from networks import DENSE, IMAGES, Network, network, of
from timing import Group, Times, in_turn

import iresnet_backends
import iresnet_ref as ir
from iresnet_ref.block import in_float64

FLOAT32 = iresnet_backends.get("numpy", dtype="float32")
GOAL = 1e-5
"""The true error that every inverse reaches, in float32."""
OURS, OURS_ON_TORCH = "reference on NumPy", "reference on torch"


def groups() -> Iterator[Group]:
    """Yield the groups of this file."""
    for case in DENSE | IMAGES:
        yield Group(f"forward and {peers.TERMS} terms, {case}, float32", "obvious torch", partial(estimate, case))
    for case in DENSE:
        yield Group(f"exact log det, {case}, float64", "obvious torch", partial(exact, case), note="theirs: torch.func.jacrev and slogdet")
    note = f"each with the loosest tolerance that gives a true error ≤ {GOAL:g}"
    for name, build in {**{case: partial(network, case) for case in DENSE | IMAGES}, **HARD}.items():
        yield Group(f"inverse, {name}, float32", "obvious torch", partial(inverse, build), note=note)


def estimate(case: str) -> Times:
    """Time (F(x), five terms of the series with one probe), the value alone."""
    net, flow_options = network(case), ir.Options(logdet=ir.Series(terms=peers.TERMS))
    numpy, on_torch = ir.Flow([net.numpy]), ir.Flow([net.torch])
    work: dict[str, Callable[[], Any]] = {
        OURS: lambda: numpy.forward(net.x, options=flow_options),
        OURS_ON_TORCH: lambda: on_torch.forward(net.tx, options=flow_options),
    }
    return in_turn(work | {name: c for name, peer in peers.installed().items() if (c := peer(net).estimate)})


def exact(case: str) -> Times:
    """Time log det(I + J_g) by determinants."""
    net = network(case, "float64")
    work: dict[str, Callable[[], Any]] = {
        OURS: lambda: ir.logdet(net.numpy, net.x, "exact").value,
        OURS_ON_TORCH: lambda: ir.logdet(net.torch, net.tx, "exact").value,
    }
    return in_turn(work | {name: c for name, peer in peers.installed().items() if (c := peer(net).exact)}, rounds=15)


def family(name: str) -> Network:
    """A family of the tests whose I + J is nearly singular, at standard normal points."""
    block, y = (FAMILIES | LARGE)[name].build(FLOAT32)
    return of(block.branch, np.random.default_rng(0).standard_normal((len(y), *block.branch.event_shape)).astype(np.float32))


@cache
def fitted() -> list[ir.ResidualBlock]:
    """Eight blocks fitted to two moons, Lip(g) ≤ .97."""
    return trained()


def trained_block(k: int) -> Network:
    """One of them, at 256 points of the data sent through the blocks before it."""
    x = moons(256, seed=10**6).numpy()
    for block in fitted()[:k]:
        x = block(x)
    g = fitted()[k].branch
    narrow = g.with_parameters({key: FLOAT32.asarray(p) for key, p in g.parameters().items()})
    return of(narrow, x.astype(np.float32))


HARD: dict[str, Callable[[], Network]] = {
    **{name: partial(family, name) for name in ("sym− d=64 c=.9", "conv 3×32×32 sym− c=.9")},
    **{f"trained on moons, block {k}": partial(trained_block, k) for k in (0, 3, 6)},
}


def inverse(build: Callable[[], Network]) -> Times:
    """Time inverses, each with the loosest tolerance of its own that reaches the goal, if there is one."""
    net = build()
    y, ty = net.numpy(net.x), net.torch(net.tx)
    precise, (wide,) = in_float64(net.numpy, y)
    truth = ir.invert(precise, wide, rtol=1e-13).x
    solvers: dict[str, Callable[[float], Any]] = {
        OURS: lambda t: ir.invert(net.numpy, y, rtol=t, throw=False).x,
        OURS_ON_TORCH: lambda t: ir.invert(net.torch, ty, rtol=t, throw=False).x,
    }
    for name, peer in peers.installed().items():
        if solve := peer(net).inverse:
            solvers[name] = partial(solve, ty)
    work: dict[str, Callable[[], Any]] = {}
    for name, run in solvers.items():
        tolerances = (10.0**-k for k in np.arange(1.0, 17.0, 0.25))
        reached = (float(t) for t in tolerances if np.abs(np.asarray(run(float(t))) - truth).max() <= GOAL)
        if (loosest := next(reached, None)) is not None:
            work[name] = partial(run, loosest)
    return {name: [] for name in solvers} | in_turn(work)
