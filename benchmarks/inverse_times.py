"""What an inverse costs in float32 beside normflows' plain loop, on identical weights and to the same true error: easy rows and hard ones.

    python benchmarks/inverse_times.py ['MLP, d = 2' …]

Each with the loosest tolerance of its own whose largest error is 1e-5. Both take turns, CPU time, medians; one evaluation of g by each is
in the table as well. A radius is proved of every row of ours; the loop promises nothing.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from bench_inverse import FAMILIES, LARGE, moons, trained

import iresnet_backends
import iresnet_ref as ir

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from normflows.flows.residual import iResBlock

GOAL = 1e-5
ROUNDS = 41
FLOAT32 = iresnet_backends.get("numpy", dtype="float32")
Problem = tuple[ir.ResidualBlock, np.ndarray[Any, np.dtype[np.float32]]]


def normal(branch: ir.Branch, rows: int) -> Problem:
    """Return a block and standard normal points."""
    return ir.ResidualBlock(branch), np.random.default_rng(0).standard_normal((rows, *branch.event_shape)).astype(np.float32)


def mlp(d: int) -> Problem:
    """Return an untrained d-128-128-d block of Lip(g) ≤ .9 and 256 points."""
    return normal(ir.mlp((d, 128, 128, d), activation="elu", lipschitz=0.9, seed=1, like=FLOAT32.asarray([0.0])), 256)


def images() -> Problem:
    """Return an untrained convolutional block of Lip(g) ≤ .9 and 16 images."""
    g = ir.convnet((3, 16, 16), channels=(64, 64), kernels=(3, 1, 3), activation="elu", lipschitz=0.9, seed=1, like=FLOAT32.asarray([0.0]))
    return normal(g, 16)


def family(name: str) -> Problem:
    """Return a family of the tests whose I + J is nearly singular, and its points."""
    block, y = (FAMILIES | LARGE)[name].build(FLOAT32)
    return normal(block.branch, len(y))


@cache
def fitted() -> list[ir.ResidualBlock]:
    """Return eight blocks fitted to two moons, Lip(g) ≤ .97."""
    return trained()


def trained_block(k: int) -> Problem:
    """Return a fitted block and 256 points of the data, sent through the blocks before it."""
    x = moons(256, seed=10**6).numpy()
    for block in fitted()[:k]:
        x = block(x)
    g = fitted()[k].branch
    narrow = g.of_layers([layer.with_parameters({k: FLOAT32.asarray(p) for k, p in layer.parameters.items()}) for layer in g.layers])
    return ir.ResidualBlock(narrow), x.astype(np.float32)


CASES: dict[str, Callable[[], Problem]] = {
    "MLP, d = 2": lambda: mlp(2), "MLP, d = 64": lambda: mlp(64), "conv 3×16×16, 64 channels": images,
    **{name: lambda name=name: family(name) for name in ("sym− d=64 c=.9", "sym− d=64 c=.97", "conv 3×32×32 sym− c=.9")},
    **{f"moons, trained, block {k}": lambda k=k: trained_block(k) for k in range(8)},
}  # fmt: skip


class LipSwish(torch.nn.Module):
    """z σ(z)/1.1."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return the value."""
        return torch.nn.functional.silu(z) / 1.1


def module(g: ir.Branch) -> torch.nn.Sequential:
    """Return the same function as a module of torch."""
    modules: list[torch.nn.Module] = []
    activation = {"elu": torch.nn.ELU, "lipswish": LipSwish}[g.layers[1].name]
    for layer in g.layers[::2]:
        w, b = (torch.from_numpy(p) for p in layer.parameters.values())
        out, into = w.shape[:2]
        own: Any = torch.nn.Linear(into, out) if w.ndim == 2 else torch.nn.Conv2d(into, out, w.shape[2], padding=w.shape[2] // 2)
        own.weight.data, own.bias.data = w.clone(), b.clone()
        modules += [own, activation()]
    return torch.nn.Sequential(*modules[:-1]).requires_grad_(False)


def measure(case: str) -> None:
    """Print the lines of one case."""
    F, x = CASES[case]()
    g = F.branch
    net, be = module(g), iresnet_backends.get("torch:cpu", dtype="float32")
    loop = iResBlock(net)
    on_torch = ir.ResidualBlock(g.with_parameters({key: be.asarray(p) for key, p in g.parameters().items()}))
    y, tx = F(x), torch.from_numpy(x)
    ty = torch.from_numpy(y)
    inverses: dict[str, Callable[[float], Any]] = {
        "reference on NumPy": lambda t: ir.invert(F, y, rtol=t).x,
        "reference on torch": lambda t: ir.invert(on_torch, ty, rtol=t).x,
        "normflows": lambda t: loop._inverse_fixed_point(ty, atol=t, rtol=t),
    }
    loosest = {}
    for name, run in inverses.items():
        tolerances = 10.0 ** -np.arange(1.0, 17.0, 0.25)  # the loop stops on the square of a step
        loosest[name] = next(float(t) for t in tolerances if np.abs(np.asarray(run(float(t))) - x).max() <= GOAL)
    work: dict[str, Callable[[], Any]] = {name: lambda run=run, t=loosest[name]: run(t) for name, run in inverses.items()}
    work |= {"g on NumPy": lambda: g(x), "g on torch": lambda: on_torch.branch(tx), "g, plain torch": lambda: net(tx)}
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, run_once in work.items():
            before = time.process_time()
            run_once()
            times[name].append(1e3 * (time.process_time() - before))
    evaluations = {name: int(np.max(np.asarray(ir.invert(b, v, rtol=loosest[name]).evaluations))) for name, b, v in (
        ("reference on NumPy", F, y), ("reference on torch", on_torch, ty))}
    base = float(np.median(times["normflows"][8:]))
    for name, t in times.items():
        low, middle, high = np.quantile(t[8:], (0.25, 0.5, 0.75))
        count = f"{evaluations[name]} evaluations" if name in evaluations else ""
        print(f"| {case} | {name} | {middle:.2f} ({low:.2f}–{high:.2f}) | {middle / base:.2f} | {count} |", flush=True)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    np.empty(2**25 - 2**16, dtype=np.uint8)  # glibc keeps freed memory of this size from now on: none of them pays for pages
    print("| case | | ms, median (quartiles) | / normflows | |\n|---|---|---|---|---|")
    for case in sys.argv[1:] or CASES:
        measure(case)


if __name__ == "__main__":
    main()
