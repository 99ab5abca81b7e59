"""Groups of training steps: one block beside normflows, the plane's flow beside the obvious torch code and zuko's couplings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import compiled_steps
import numpy as np
import torch
import training_steps
from timing import Group, Times, in_turn

import iresnet_ref as ir

FLOW = "8 blocks 2-32-32-2, batch 256"


def groups() -> Iterator[Group]:
    """Yield the groups of this file."""
    for case in (*training_steps.MLPS, "conv 3×16×16, 64 channels"):
        yield Group(f"step of one block with its proof, {case}, float32", "normflows", partial(block_steps, case))
    for dtype in ("float32", "float64"):
        yield Group(
            f"step of a flow with its proof, {FLOW}, {dtype}",
            "obvious torch",
            partial(flow_steps, dtype),
            note="RealNVP as zuko publishes it, of as many parameters, for scale",
        )
    yield Group(
        f"compiled step with its proof, {FLOW}, float32",
        "obvious torch",
        compiled,
        note="by JAX; the first step, with its compilation, is not counted",
    )


NAMES = {"step": "reference on NumPy", "σ and proof": "of these σ and proof", "step between proofs": "reference, between proofs",
         "normflows": "normflows"}  # fmt: skip


def block_steps(case: str) -> Times:
    """Time single steps with five terms of the series and one probe."""
    times = training_steps.measure(case)
    return {name: times[of] for of, name in NAMES.items()}


def flow_steps(dtype: str) -> Times:
    """Time single steps of AdamW on exact maximum likelihood."""
    work: dict[str, Callable[[], Any]] = {
        "obvious torch": compiled_steps.obvious(dtype=getattr(torch, dtype)),
        "zuko, coupling": coupling(dtype),
    }
    for name, to in {"reference on NumPy": np.asarray, "reference on torch": torch.from_numpy}.items():
        x = to(compiled_steps.ROWS.astype(dtype))
        flow = ir.Flow([ir.ResidualBlock(ir.mlp(compiled_steps.SIZES, seed=k, like=x)) for k in range(compiled_steps.BLOCKS)])
        work[name] = Steps(flow, x)
    return in_turn(work, rounds=25)


class Steps:
    """One step of a training a call."""

    def __init__(self, flow: ir.Flow, x: Any) -> None:
        self.state, self.x = ir.training.start(flow), x

    def __call__(self) -> None:
        """Go on by a step."""
        self.state = ir.training.fit(
            self.state, lambda model, step: ir.training.maximum_likelihood(model, self.x, step=step, check=False), 1
        )


def coupling(dtype: str) -> Callable[[], Any]:
    """Return a step of RealNVP."""
    import zuko

    flow = zuko.flows.RealNVP(2, transforms=8, hidden_features=(26, 26)).to(getattr(torch, dtype))
    optimiser, x = torch.optim.AdamW(flow.parameters(), 1e-3), torch.from_numpy(compiled_steps.ROWS.astype(dtype))

    def step() -> None:
        optimiser.zero_grad()
        (-flow().log_prob(x).mean()).backward()
        optimiser.step()

    return step


def compiled() -> Times:
    """Time the compiled step."""
    times = compiled_steps.measure(["jax"])
    return {"reference on JAX": times["jax"][6:], "obvious torch": times["obvious torch"][6:]}
