"""Print the tables of docs/estimators.md: what an estimate of the log-determinant costs, and how often its interval holds.

    python benchmarks/estimator_tables.py            both tables, about five minutes on one thread
    python benchmarks/estimator_tables.py cost       mean-squared error × cost
    python benchmarks/estimator_tables.py coverage   coverage of the nominal 95 % interval from 16 replicates
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

import iresnet_ref as ir
from iresnet_ref.layers import activations
from iresnet_ref.layers.linear import Affine
from iresnet_ref.layers.pointwise import Pointwise

Host = np.ndarray[Any, Any]


def rand(sizes: tuple[int, ...], c: float, seed: int = 0) -> ir.ResidualBlock:
    """Gaussian weights, each of norm c^(1/layers)."""
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((m, n)) for n, m in pairwise(sizes)]
    return block([w * (c ** (1 / len(weights)) / np.linalg.norm(w, 2)) for w in weights], rng, 0.0)


def symmetric(d: int, h: int, c: float, sign: float, seed: int = 0) -> ir.ResidualBlock:
    """g = ±c Wᵀφ(Wx + b) + b′ with ‖W‖ = 1: real eigenvalues of one sign."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((h, d))
    w /= np.linalg.norm(w, 2)
    return block([w, sign * c * w.T], rng, 1.0)


def ortho(d: int, layers: int, c: float, seed: int = 0) -> ir.ResidualBlock:
    """Weights with equal singular values: eigenvalues fill the disc of radius c."""
    rng = np.random.default_rng(seed)
    turns = [np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(layers)]
    return block([turn * c ** (1 / layers) for turn in turns], rng, 2.0)


def block(weights: list[Host], rng: np.random.Generator, shift: float) -> ir.ResidualBlock:
    """ELU between the layers; the weights a hair smaller, so that the constant is proved."""
    layers: list[Any] = []
    for w in weights:
        layers += [Pointwise(activations.get("elu"))] * bool(layers)
        layers.append(Affine(w * (1.0 - 1e-9), 0.5 * rng.standard_normal(len(w)) + shift))
    return ir.ResidualBlock(ir.Branch(tuple(layers), (weights[0].shape[1],)))


def estimate(f: ir.ResidualBlock, x: Host, rows: int, **options: Any) -> ir.LogDet:
    """Return the estimates at one point, `rows` times: every row has draws of its own."""
    return ir.logdet(f, np.repeat(x[None], rows, axis=0), ir.Roulette(**options))


@dataclass(frozen=True)
class ErrorAndCost:
    """Mean-squared error in nats² and mean cost in products with J, exact traces counted as one product each."""

    error: float
    cost: float

    @property
    def product(self) -> float:
        """Smaller is better; the same for any number of independent repetitions."""
        return self.error * self.cost


def error_and_cost(f: ir.ResidualBlock, x: Host, rows: int, **options: Any) -> ErrorAndCost:
    truth = float(ir.logdet(f, x[None], method="exact").value[0])
    result = estimate(f, x, rows, **options)
    error = float(np.mean((np.asarray(result.value) - truth) ** 2))
    return ErrorAndCost(error, float(np.mean(result.evaluations)) + result.exact_traces)


BRANCHES: dict[str, ir.ResidualBlock] = {
    "rand 64-128-64, c = .5": rand((64, 128, 64), 0.5),
    "rand 64-128-64, c = .9": rand((64, 128, 64), 0.9),
    "sym− 64-128-64, c = .9": symmetric(64, 128, 0.9, -1.0),
    "sym+ 64-128-64, c = .9": symmetric(64, 128, 0.9, 1.0),
    "sym− 64-128-64, c = .7": symmetric(64, 128, 0.7, -1.0),
    "ortho 64-64-64, c = .5": ortho(64, 2, 0.5),
    "ortho 64-64-64, c = .7": ortho(64, 2, 0.7),
    "ortho 64-64-64, c = .9": ortho(64, 2, 0.9),
    "rand 64-128-128-64, c = .9": rand((64, 128, 128, 64), 0.9),
    "ortho 64-64-64-64, c = .9": ortho(64, 3, 0.9),
}


def cost_table(rows: int = 4000) -> dict[str, dict[str, float]]:
    """Return, per branch, how many times smaller error × cost is than with one Gaussian probe and geometric(½)."""
    table: dict[str, dict[str, float]] = {}
    for name, f in BRANCHES.items():
        x = np.random.default_rng(1).standard_normal(f.branch.event_shape)
        gaussian = ir.Probes(seed=1, kind="gaussian")
        naive = {
            f"geometric(½), {n} certain": error_and_cost(
                f, x, rows, lengths=ir.roulette.geometric(0.5, n), probes=gaussian, exact_traces=0, allow_infinite_variance=True
            )
            for n in (1, 20)
        }
        ours = {
            "default": error_and_cost(f, x, rows, probes=ir.Probes(seed=2)),
            "4 Hadamard": error_and_cost(f, x, rows // 4, probes=ir.Probes(seed=2, kind="hadamard", block=4)),
            "16 Hadamard": error_and_cost(f, x, rows // 8, probes=ir.Probes(seed=2, kind="hadamard", block=16)),
        }
        table[name] = {
            f"{mine} / {theirs}": q.product / p.product for mine, p in ours.items() for theirs, q in naive.items()
        }
    return table


COVERED = {
    "two layers, rand 64-128-64, c = .9": rand((64, 128, 64), 0.9),
    "two layers, sym− 64-128-64, c = .9": symmetric(64, 128, 0.9, -1.0),
    "two layers, ortho 16-16-16, c = .5": ortho(16, 2, 0.5),
    "two layers, ortho 16-16-16, c = .9": ortho(16, 2, 0.9),
    "two layers, sym− 8-16-8, c = .97": symmetric(8, 16, 0.97, -1.0),
    "three layers, rand 16-32-32-16, c = .9": rand((16, 32, 32, 16), 0.9),
    "three layers, ortho 16, c = .97": ortho(16, 3, 0.97),
    "four layers, ortho 8, c = .9": ortho(8, 4, 0.9),
}


def coverage(f: ir.ResidualBlock, trials: int, seed: int = 3, **options: Any) -> float:
    """Return the fraction of nominal 95 % intervals, each from 16 replicates, that contain the exact value."""
    x = np.random.default_rng(2).standard_normal(f.branch.event_shape)
    truth = float(ir.logdet(f, x[None], method="exact").value[0])
    options = {"probes": ir.Probes(seed=seed, count=16), **options}
    low, high = estimate(f, x, trials, **options).interval(0.95)
    return float(np.mean((np.asarray(low) <= truth) & (truth <= np.asarray(high))))


def coverage_table(trials: int = 4000) -> dict[str, dict[str, float]]:
    """Return the coverage per branch: with the default, without exact traces, with blocks of four Hadamard probes."""
    return {
        name: {
            "default": coverage(f, trials),
            "no exact traces": coverage(f, trials, exact_traces=0),
            "4 Hadamard": coverage(f, trials // 4, probes=ir.Probes(seed=3, count=16, kind="hadamard", block=4)),
        }
        for name, f in COVERED.items()
    }


def show(title: str, table: dict[str, dict[str, float]], form: str) -> None:
    """Print a table in Markdown."""
    columns = list(next(iter(table.values())))
    print(f"\n{title}\n\n| branch | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, row in table.items():
        print(f"| {name} | {' | '.join(format(row[c], form) for c in columns)} |", flush=True)


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["cost", "coverage"]
    if "cost" in wanted:
        show("error × cost of one Gaussian probe over ours", cost_table(), ".3g")
    if "coverage" in wanted:
        show("coverage of the nominal 95 % interval from 16 replicates", coverage_table(), ".3f")
