"""What a compiled training step costs, proofs included, beside the obvious torch code: eight blocks 2-32-32-2, batch 256.

    python benchmarks/compiled_steps.py [jax] [torch] [obvious-compiled]

Each in turn after the others, CPU time of single steps, medians; `first` is the first step, with its compilation, by the clock, and torch's
compiler keeps on disk what it compiled: TORCHINDUCTOR_CACHE_DIR=$(mktemp -d) shows what it takes the first time. By default JAX alone; the
obvious code compiled takes minutes.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
import numpy as np
import torch

import iresnet_ref as ir
from iresnet_backends import compiled_training

BLOCKS, SIZES, BATCH, STEPS = 8, (2, 32, 32, 2), 256, 40
ROWS = np.random.default_rng(0).standard_normal((BATCH, 2)).astype(np.float32) * np.asarray([1.5, 0.5], dtype=np.float32)


class Obvious(torch.nn.Module):
    """A block as anybody would write it: weights over one power iteration, the Jacobian multiplied out, its 2×2 determinant by formula."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(n, m, dtype=dtype) for n, m in itertools.pairwise(SIZES))
        for i, layer in enumerate(self.layers):
            self.register_buffer(f"u{i}", torch.randn(layer.weight.shape[0], dtype=dtype))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (F(x), log det)."""
        h, jacobian = x, torch.eye(2, dtype=x.dtype).expand(len(x), 2, 2)
        for i, layer in enumerate(self.layers):
            u = getattr(self, f"u{i}")
            with torch.no_grad():
                v = torch.nn.functional.normalize(layer.weight.T @ u, dim=0)
                u.copy_(torch.nn.functional.normalize(layer.weight @ v, dim=0))
            weight = layer.weight / torch.clamp(u @ (layer.weight @ v) / 0.965, min=1.0)
            h, jacobian = h @ weight.T + layer.bias, weight @ jacobian
            if i + 1 < len(self.layers):
                s = torch.sigmoid(h)
                jacobian = ((s + h * s * (1 - s)) / 1.1)[:, :, None] * jacobian
                h = h * s / 1.1
        m = torch.eye(2, dtype=x.dtype) + jacobian
        return x + h, torch.log(m[:, 0, 0] * m[:, 1, 1] - m[:, 0, 1] * m[:, 1, 0])


def obvious(compiled: bool = False, dtype: torch.dtype = torch.float32) -> Callable[[], Any]:
    """Return a step of the obvious code."""
    blocks = torch.nn.ModuleList(Obvious(dtype) for _ in range(BLOCKS))
    optimiser, x = torch.optim.AdamW(blocks.parameters(), 1e-3), torch.from_numpy(ROWS).to(dtype)

    def loss() -> torch.Tensor:
        z, total = x, x.new_zeros(BATCH)
        for block in blocks:
            z, log_det = block(z)
            total = total + log_det
        return (0.5 * (z**2).sum(1) - total).mean()

    value = torch.compile(loss) if compiled else loss

    def step() -> None:
        optimiser.zero_grad()
        value().backward()
        optimiser.step()

    return step


def ours(to: Callable[[Any], Any]) -> list[float]:
    """Return CPU milliseconds of each step, the seconds of the first one in front."""
    x, marks, clock = to(ROWS), list[float](), time.perf_counter()
    flow = ir.Flow([ir.ResidualBlock(ir.mlp(SIZES, seed=k, like=x)) for k in range(BLOCKS)])
    state, first = ir.training.start(flow), list[float]()

    def rows(step: int) -> Any:
        del step
        marks.append(time.process_time())
        first.append(time.perf_counter() - clock)
        return x

    compiled_training.fit(state, rows, STEPS)
    return [first[1] - first[0], *(1e3 * np.diff(marks[1:]))]


def measure(contenders: Sequence[str]) -> dict[str, list[float]]:
    """Return CPU milliseconds of single steps; of the contenders the seconds of the first one by the clock in front, of eager torch 0."""
    step, eager = obvious(), list[float]()
    runs = {"obvious torch": [0.0]}
    for name in contenders:
        if name == "obvious-compiled":
            clock, compiled = time.perf_counter(), obvious(compiled=True)
            compiled()
            runs[name] = [time.perf_counter() - clock, *(_clocked(compiled) for _ in range(STEPS))]
        else:
            runs[name] = ours(__import__("jax.numpy").numpy.asarray if name == "jax" else torch.from_numpy)
        eager += [_clocked(step) for _ in range(STEPS)]
    runs["obvious torch"] += eager
    return runs


def _clocked(step: Callable[[], Any]) -> float:
    before = time.process_time()
    step()
    return 1e3 * (time.process_time() - before)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    runs = measure(sys.argv[1:] or ["jax"])
    base = float(np.median(runs["obvious torch"][6:]))
    for name, times in runs.items():
        low, middle, high = np.quantile(times[6:], (0.25, 0.5, 0.75))
        print(f"{name:<18} first {times[0]:5.1f} s   {middle:6.2f} ms ({low:.2f}–{high:.2f})   {middle / base:.2f}", flush=True)


if __name__ == "__main__":
    main()
