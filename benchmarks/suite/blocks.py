"""Groups of one block: the forward pass with five terms, exact log-determinants, inverses of easy and of hard rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import peers
from bench_inverse import moons
from networks import DENSE, IMAGES, Network, network, of
from timing import Group, Times, in_turn

import iresnet_ref as ir
from iresnet_ref.block import in_float64
from iresnet_ref.layers import activations
from iresnet_ref.layers.linear import Affine
from iresnet_ref.layers.pointwise import Pointwise

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


def symmetric(sign: float) -> Network:
    """g = ±.9 Wᵀφ(Wx + b) + b′, ‖W‖ = 1: eigenvalues of one sign, near −.9 or .9."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((128, 64))
    w /= np.linalg.norm(w, 2) * (1.0 + 1e-6)
    first, second = (Affine(v.astype(np.float32), (0.5 * rng.standard_normal(len(v))).astype(np.float32)) for v in (w, sign * 0.9 * w.T))
    g = ir.Branch((first, Pointwise(activations.get("elu")), second), (64,))
    return of(g, rng.standard_normal((256, 64)).astype(np.float32))


def trained(block: int = 5) -> Network:
    """A block 2-64-64-2 of a flow that was fitted to two moons by exact maximum likelihood, proved Lip(g) ≤ .97."""
    x = moons(256, 10**6).numpy().astype(np.float32)
    flow = ir.Flow([ir.ResidualBlock(ir.mlp((2, 64, 64, 2), activation="elu", lipschitz=0.97, seed=k, like=x)) for k in range(8)])
    state = ir.training.fit(
        ir.training.start(flow, lipschitz=0.97, settings=ir.training.Settings(learning_rate=5e-3)),
        lambda model, step: ir.training.maximum_likelihood(model, moons(256, step).numpy().astype(np.float32), step=step, check=False),
        200,
    )
    blocks = state.model.steps.steps
    for before in blocks[:block]:
        x = before(x)
    return of(blocks[block].block.branch, x)


HARD: dict[str, Callable[[], Network]] = {"eigenvalues near −.9": partial(symmetric, -1.0), "trained on moons": trained}


def inverse(build: Callable[[], Network]) -> Times:
    """Time inverses, each with the loosest tolerance of its own that reaches the goal; one that never does is left out."""
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
        tolerances = (10.0**-k for k in np.arange(1.0, 8.0, 0.25))
        reached = (float(t) for t in tolerances if np.abs(np.asarray(run(float(t))) - truth).max() <= GOAL)
        if (loosest := next(reached, None)) is not None:
            work[name] = partial(run, loosest)
    return in_turn(work)
