"""What a training step costs, and of it σ and the proof: the loop with its warm proofs, with every proof anew, and normflows.

    python benchmarks/training_steps.py [case …]

One residual block, ELU, five terms of the series, one probe, float32, AdamW. All take the same rows of one batch in turn, and the
median is over single steps of CPU time, so that other work on the machine disturbs all alike. One thread, as `make bench` sets it.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import iresnet_ref as ir
from iresnet_ref.training import Settings, State, fit, maximum_likelihood, start

RATE = 1e-3
STEPS = 30
"""Of each contender; the first third is not counted."""
TERMS = 5
OPTIONS = ir.Options(logdet=ir.Series(terms=TERMS))
MLPS = {"d = 2, hidden 128": (2, 128, 128, 2), "d = 64, hidden 128": (64, 128, 128, 64), "d = 64, hidden 512": (64, 512, 512, 64)}
CONVNETS = {"conv 3×16×16, 64 channels": (3, 64, 64, 3), "conv 64×16×16, 64 channels": (64, 64, 64, 64)}
BATCH = {**dict.fromkeys(MLPS, 256), **dict.fromkeys(CONVNETS, 16)}
KERNELS = (3, 1, 3)
IMAGE = (16, 16)


class Ours:
    """One training of ours; `warm` None proves every weight anew."""

    def __init__(self, case: str, *, cold: bool = False, every: int = 1) -> None:
        like = np.zeros(1, dtype=np.float32)
        if case in MLPS:
            branch: ir.Branch = ir.mlp(MLPS[case], activation="elu", seed=1, like=like)
        else:
            channels = CONVNETS[case]
            branch = ir.convnet((channels[0], *IMAGE), channels=channels[1:-1], kernels=KERNELS, activation="elu", seed=1, like=like)
        branch = branch.with_parameters({k: 2.0 * p if k.endswith("weight") else p for k, p in branch.parameters().items()})
        flow = ir.Flow([ir.ResidualBlock(branch)], options=OPTIONS)
        self.state: State = start(flow, settings=Settings(learning_rate=RATE, certify_every=every))
        if cold:
            self.state = replace(self.state, normalised=replace(self.state.normalised, warm=None))
        self.rows = np.random.default_rng(0).standard_normal((BATCH[case], *branch.event_shape)).astype(np.float32)
        self.last = self.state

    def step(self) -> None:
        """One step of `fit`."""
        self.last = self.state
        self.state = self.steps(1)

    def steps(self, count: int) -> State:
        """Return the state after so many steps."""
        return fit(self.state, lambda flow, step: maximum_likelihood(flow, self.rows, step=step, check=False), count)

    def between_proofs(self) -> float:
        """Return the milliseconds of a step without a proof: four steps less two, each with the proof at the end of the call."""
        marks = [time.process_time()]
        for count in (2, 4):
            self.steps(count)
            marks.append(time.process_time())
        return 500.0 * (marks[2] - 2.0 * marks[1] + marks[0])

    def proof(self) -> None:
        """σ and the proof of the weights of the last step, from the state before it."""
        parameters = self.state.normalised.parameters()
        self.last.normalised.with_parameters(parameters).require_certified()


class Normflows:
    """normflows' block with its memory saving, trained by torch's AdamW; its norms are estimated once a step."""

    def __init__(self, case: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import normflows
        torch.manual_seed(0)
        if case in MLPS:
            self.net: Any = normflows.nets.LipschitzMLP(list(MLPS[case]), lipschitz_const=0.97)
            shape: tuple[int, ...] = (MLPS[case][0],)
        else:
            self.net = normflows.nets.LipschitzCNN(list(CONVNETS[case]), list(KERNELS), lipschitz_const=0.97, max_lipschitz_iter=1)
            shape = (CONVNETS[case][0], *IMAGE)
        self.block = normflows.flows.Residual(self.net, reverse=False, reduce_memory=True, n_power_series=TERMS)
        self.block.train()
        self.update: Callable[..., Any] = normflows.utils.update_lipschitz
        x = np.random.default_rng(0).standard_normal((BATCH[case], *shape)).astype(np.float32)
        self.rows = torch.from_numpy(x)
        self.block(self.rows)
        self.optimiser = torch.optim.AdamW(self.block.parameters(), lr=RATE, weight_decay=0.0)

    def step(self) -> None:
        """One step: loss, gradient, AdamW, one power iteration of every layer."""
        self.optimiser.zero_grad()
        y, log_det = self.block(self.rows)
        (0.5 * (y.flatten(1) ** 2).sum(dim=1) - log_det).mean().backward()
        self.optimiser.step()
        self.update(self.block, 1)


def measure(case: str) -> dict[str, list[float]]:
    """Return milliseconds of CPU time of every step, contender by contender, interleaved."""
    ours, cold, seldom, other = Ours(case), Ours(case, cold=True), Ours(case, every=100), Normflows(case)
    runs: dict[str, Callable[[], None]] = {
        "step": ours.step,
        "σ and proof": ours.proof,
        "step, every proof anew": cold.step,
        "σ and proof anew": cold.proof,
        "normflows": other.step,
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(STEPS if case in MLPS else STEPS // 2):
        for name, run in runs.items():
            if "anew" in name and i % 5:  # up to seconds each
                continue
            before = time.process_time()
            run()
            times[name].append(1e3 * (time.process_time() - before))
        times.setdefault("step between proofs", []).append(seldom.between_proofs())
    return {name: t[len(t) // 3 :] for name, t in times.items()}


def main() -> None:
    """Print medians, quartiles and ratios to normflows' step."""
    torch.set_num_threads(1)
    print("| case | | ms, median (quartiles) | / normflows' step |\n|---|---|---|---|")
    for case in sys.argv[1:] or [*MLPS, *CONVNETS]:
        times = measure(case)
        for name, t in times.items():
            low, middle, high = np.quantile(t, (0.25, 0.5, 0.75))
            print(f"| {case} | {name} | {middle:.2f} ({low:.2f}–{high:.2f}) | {middle / np.median(times['normflows']):.2f} |", flush=True)


if __name__ == "__main__":
    main()
