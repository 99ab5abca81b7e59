"""What an inverse costs: `python benchmarks/bench_inverse.py` prints evaluations, convergence and method for each family.

Every family of verification/tests/support/laws/contractive_families.py to 1e-12 in float64 and 1e-6 in float32 with default settings. A
row whose rounding floor is not below the tolerance is counted, but nothing is asked of it. `limit` is the mean number of
evaluations that is promised. The trained network is fitted here, to two moons, by exact maximum likelihood.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import iresnet_backends
import iresnet_ref as ir
from iresnet_ref.layers import activations
from iresnet_ref.layers.linear import Affine
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_ref.normalisation.division import normalise
from iresnet_ref.normalisation.shares import lipschitz_shares

sys.path.insert(0, str(Path(__file__).parents[1] / "verification/tests/support/laws"))
from contractive_families import FAMILIES, LARGE, MEAN_EVALUATIONS

TRAINED = "moons, trained"
TOLERANCE = {"float64": 1e-12, "float32": 1e-6}
WIDTHS = (-24, -8, -16, 11, 9, 6, 4, 5, 8)
HEAD = ("family", "dtype", "method", "above floor", "converged", "mean", "max", "limit", "µs/row")


def moons(count: int, seed: int = 0) -> torch.Tensor:
    """Two interleaved half circles with noise .1, centred and of unit size."""
    rng = np.random.default_rng(seed)
    angle, upper = np.pi * rng.random(count), rng.random(count) < 0.5
    x = np.where(upper, np.cos(angle), 1.0 - np.cos(angle))
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle))
    points = np.stack([x - 0.5, y - 0.25], axis=1) + 0.1 * rng.standard_normal((count, 2))
    return torch.from_numpy(points / np.asarray([0.87, 0.49]))


def trained(depth: int = 8, width: int = 64, lipschitz: float = 0.97, steps: int = 300) -> list[ir.ResidualBlock]:
    """Return the blocks x + W₃φ(W₂φ(W₁x)) of a density model of the moons, each with proved Lip(g) ≤ `lipschitz`."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    sizes, share = (2, width, width, 2), lipschitz_shares(lipschitz, 3)
    weights = [
        [torch.nn.Parameter(torch.randn(m, n).double() / n**0.5) for n, m in itertools.pairwise(sizes)]
        for _ in range(depth)
    ]
    biases = [[torch.nn.Parameter(torch.zeros(m).double()) for m in sizes[1:]] for _ in range(depth)]
    optimiser = torch.optim.Adam([p for block in (*weights, *biases) for p in block], lr=5e-3)

    def contractive(w: torch.Tensor) -> torch.Tensor:
        return w * torch.clamp(share / torch.linalg.matrix_norm(w, 2), max=1.0)

    for step in range(steps):
        x = moons(256, seed=step)
        log_det = torch.zeros(len(x), dtype=torch.float64)
        for ws, bs in zip(weights, biases, strict=True):
            h, tangents = x, torch.eye(2, dtype=torch.float64)[:, None, :].expand(2, len(x), 2)
            for i, (w, b) in enumerate(zip(map(contractive, ws), bs, strict=True)):
                if i:
                    s = torch.sigmoid(h)
                    h, tangents = h * s / 1.1, tangents * (s * (1.0 + h * (1.0 - s)) / 1.1)
                h, tangents = h @ w.T + b, tangents @ w.T
            (a, b), (c, d) = tangents[0].T, tangents[1].T
            x, log_det = x + h, log_det + torch.log((1.0 + a) * (1.0 + d) - b * c)
        loss = (0.5 * (x * x).sum(dim=1) - log_det).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    blocks = []
    for ws, bs in zip(weights, biases, strict=True):
        layers: list[Any] = []
        for w, b in zip(ws, bs, strict=True):
            layers += [Pointwise(activations.get("lipswish"))] * bool(layers)
            layers.append(normalise(Affine(contractive(w).detach().numpy(), b.detach().numpy()), share))
        blocks.append(ir.ResidualBlock(ir.Branch(tuple(layers), (2,))))
    return blocks


def report(name: str, dtype: str, block: ir.ResidualBlock, y: Any, limit: float | None) -> tuple[str, ...]:
    """Return the line of one family."""
    tol = TOLERANCE[dtype]
    block.contraction()  # the certificate is computed once, outside the clock
    start = time.perf_counter()
    found = ir.invert(block, y, rtol=tol, throw=False)
    elapsed = time.perf_counter() - start
    above = ir.bounds.rounding_floor(block, found.x, y) < tol
    spent = found.evaluations[above]
    shares = (
        (f"{found.converged[above].mean():.0%}", f"{spent.mean():.1f}", f"{spent.max()}") if above.any() else ("–",) * 3
    )
    promised = "–" if limit is None else f"{limit:.0f}"
    return name, dtype, found.method, f"{above.sum()}/{len(y)}", *shares, promised, f"{1e6 * elapsed / len(y):.1f}"


def lines() -> Iterator[tuple[str, ...]]:
    """Yield the table."""
    yield HEAD
    for dtype in TOLERANCE:
        for name, family in (FAMILIES | LARGE).items():
            block, y = family.build(iresnet_backends.get("numpy", dtype=dtype))
            yield report(name, dtype, block, y, MEAN_EVALUATIONS.get(name) if dtype == "float64" else None)
    x = moons(256, seed=10**6).numpy()
    for k, block in enumerate(trained()):
        y = block(x)
        yield report(f"{TRAINED}, block {k}", "float64", block, y, MEAN_EVALUATIONS[TRAINED])
        x = y


if __name__ == "__main__":
    for line in lines():
        print(
            "  ".join(f"{cell:<{-w}}" if w < 0 else f"{cell:>{w}}" for cell, w in zip(line, WIDTHS, strict=True)),
            flush=True,
        )
