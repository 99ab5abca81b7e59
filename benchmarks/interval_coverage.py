"""Print how often the nominal 95 % interval of a roulette estimate holds, over branches that are hard on it (docs/estimators.md).

    nice python benchmarks/interval_coverage.py          the whole grid, about six minutes on one thread
    nice python benchmarks/interval_coverage.py 0.05     one Lipschitz constant, every cell of it

A cell is a branch, a Lipschitz constant, a kind of probes, with or without exact traces, and a number of replicates. 64 replicates
of 2,000 rows are drawn and cut into 16,000 intervals from 8, 8,000 from 16 or 2,000 from 64.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

import iresnet_ref as ir
from iresnet_ref.layers.linear import Affine
from iresnet_ref.log_determinant import length_distributions
from iresnet_ref.log_determinant.estimator import Estimator
from iresnet_ref.log_determinant.interval import error_and_skewness, replicates_needed
from iresnet_ref.log_determinant.result import LogDet
from iresnet_ref.log_determinant.roulette import RouletteEstimator
from iresnet_ref.log_determinant.series import exact_traces
from iresnet_ref.probes import ProbeKind

Host = np.ndarray[Any, Any]
LIPSCHITZ = (0.05, 0.2, 0.5, 0.7, 0.9, 0.95, 0.99)
COUNTS = (8, 16, 64)
KINDS: tuple[ProbeKind, ...] = get_args(ProbeKind)


def linear(jacobian: Host) -> ir.ResidualBlock:
    """g(x) = Jx, a hair smaller, so that the constant is proved."""
    return ir.ResidualBlock(ir.Branch((Affine(jacobian * (1.0 - 1e-9), np.zeros(len(jacobian))),), (len(jacobian),)))


def blocks(lipschitz: float) -> dict[str, ir.ResidualBlock]:
    """Lengths alone (one dimension, −L·I), one direction (rank one, spike), few values (cycles), and a network."""
    one, first = np.full((8, 8), 1.0 / 8.0), np.zeros((8, 8))
    first[0, 0] = 1.0
    return {
        "d = 1, +L": linear(np.array([[lipschitz]])),
        "d = 1, −L": linear(np.array([[-lipschitz]])),
        "−L·I, d = 4": linear(-lipschitz * np.eye(4)),
        "−L rank one, d = 8": linear(-lipschitz * one),
        "spike, d = 8": linear(lipschitz * first),
        "cycle of 3": linear(lipschitz * np.roll(np.eye(3), 1, axis=0)),
        "cycle of 6": linear(lipschitz * np.roll(np.eye(6), 1, axis=0)),
        "MLP 8-32-8": ir.ResidualBlock(ir.mlp((8, 32, 8), lipschitz=lipschitz)),
    }


@dataclass(frozen=True)
class Cell:
    """`coverage` is NaN where no interval is given; `width` is the median over that of the plain t interval."""

    branch: str
    lipschitz: float
    kind: ProbeKind
    exact_traces: int
    replicates: int
    intervals: int
    coverage: float
    width: float


def cells(lipschitz: float, seed: int = 5, rows: int = 2000) -> Iterator[Cell]:
    """Yield every cell of this Lipschitz constant."""
    for name, f in blocks(lipschitz).items():
        d = f.branch.event_shape[0]
        x = np.repeat(np.random.default_rng(2).standard_normal((1, d)), rows, axis=0)
        truth = float(ir.logdet(f, x[:1], method="exact").value[0])
        chain, bound = f.branch.jacobian(x), f.contraction()
        drawn = length_distributions.table(length_distributions.near_optimal(bound), bound)
        for kind in KINDS:
            block = min(4, 1 << (d - 1).bit_length()) if kind == "hadamard" else 1
            probes = ir.Probes(seed=seed, kind=kind, count=max(COUNTS), block=block)
            for traces in ((), exact_traces(chain)):
                estimator = RouletteEstimator(chain, bound, traces, 2.0, drawn)
                found = estimator.estimates(probes, x).values
                for n in COUNTS:
                    y = found.reshape(-1, n, rows).swapaxes(0, 1).reshape(n, -1)
                    yield cell(estimator, probes, y, truth, (name, lipschitz, kind, len(traces), n))


def cell(estimator: Estimator, probes: ir.Probes, y: Host, truth: float, of: tuple[str, float, ProbeKind, int, int]) -> Cell:
    mean, n = y.mean(axis=0), len(y)
    error, skewness = error_and_skewness(y, mean, estimator.noise, estimator.variance_bound(probes))
    result = LogDet(mean, error, estimator.bias_bound(1), 0, "roulette", n, len(estimator.traces), skewness, replicates_needed(probes))
    low, high = result.interval(0.95)
    if result.why_no_interval is not None:
        return Cell(*of, mean.size, np.nan, np.nan)
    covered = float(np.mean((low <= truth) & (truth <= high)))
    return Cell(*of, mean.size, covered, float(np.median((high - low) / error)) / (2.0 * {8: 2.365, 16: 2.131, 64: 1.998}[n]))


def show(found: list[Cell]) -> None:
    """Print, per branch, kind and number of replicates, the lowest coverage over L and exact traces, and the widths."""
    columns = [(kind, n) for kind in KINDS for n in COUNTS]
    print(f"| branch | {' | '.join(f'{kind}, {n}' for kind, n in columns)} | width |\n|---|{'---|' * (len(columns) + 1)}")
    for branch in dict.fromkeys(c.branch for c in found):
        of = {(kind, n): [c for c in found if (c.branch, c.kind, c.replicates) == (branch, kind, n)] for kind, n in columns}
        lowest = " | ".join(f"{min(c.coverage for c in of[column]):.3f}".replace("nan", "NaN") for column in columns)
        widths = ", ".join(f"{np.nanmedian([c.width for c in found if (c.branch, c.replicates) == (branch, n)]):.2f}" for n in COUNTS)
        print(f"| {branch} | {lowest} | {widths} |")
    given = [c for c in found if c.coverage == c.coverage]
    print(f"\n{len(given)} of {len(found)} cells have intervals; the lowest covers {min(c.coverage for c in given):.4f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        for c in cells(float(sys.argv[1])):
            print(c)
    else:
        show([c for lipschitz in LIPSCHITZ for c in cells(lipschitz)])
