"""How costs grow: each law is measured, its exponent fitted, and set beside the theory.

    python benchmarks/scaling.py > docs/scaling.md

Times are CPU time of one thread, medians of rounds in which all sizes take turns; counts are exact. The exponent is the slope of a
least-squares line through the logarithms, with the spread of the slopes of the single rounds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import iresnet_ref as ir
from iresnet_ref.norms.dense import norm_bound
from iresnet_ref.norms.largest_pair import largest_pairs

ROUNDS = 9
SHORTEST = 4e-3
"""Seconds of CPU time of what is measured at once: shorter work is repeated."""


@dataclass(frozen=True)
class Law:
    """`measure(n)` is work to be timed, or a count, for each of `sizes`; the quantity grows like `along(n)` to the power `theory`."""

    quantity: str
    size: str
    sizes: Sequence[float]
    measure: Callable[[Any], Callable[[], Any] | float]
    theory: float
    why: str
    along: Callable[[float], float] = float


def block(d: int, *, width: int = 128, layers: int = 3, lipschitz: float = 0.9) -> ir.ResidualBlock:
    """Return a block of dense layers whose certificate is proved."""
    F = ir.ResidualBlock(ir.mlp((d, *[width] * (layers - 1), d), activation="elu", lipschitz=lipschitz, seed=1))
    F.contraction()
    return F


def rows(batch: int, d: int) -> Any:
    """Return standard normal rows."""
    return np.random.default_rng(0).standard_normal((batch, d))


def forward(F: ir.ResidualBlock, batch: int = 256) -> Callable[[], Any]:
    """Return F(x)."""
    x = rows(batch, F.branch.event_shape[0])
    return lambda: F(x, check=False)


def exact(d: int) -> Callable[[], Any]:
    """Return log det(I + J) of a block that is as wide as its events."""
    F, x = block(d, width=d), rows(64, d)
    return lambda: ir.logdet(F, x, "exact", check=False)


def series(terms: int) -> Callable[[], Any]:
    """Return the estimate by so many terms, none of them exact."""
    F, x = block(64, width=256), rows(256, 64)
    return lambda: ir.logdet(F, x, ir.Series(terms, exact_traces=0), check=False)


def step(blocks: int) -> Callable[[], Any]:
    """Return a training step with its proof."""
    flow = ir.Flow([ir.ResidualBlock(ir.mlp((8, 64, 64, 8), activation="elu", seed=k)) for k in range(blocks)])
    x = rows(128, 8)
    state = ir.training.start(flow)
    return lambda: ir.training.fit(state, lambda model, step: ir.training.maximum_likelihood(model, x, check=False), 1)


def evaluations(lipschitz: float, rtol: float, method: Any) -> float:
    """Return the mean evaluations to invert x − Lx, in float64: the slowest contraction for Banach's iteration."""
    d = 16
    linear = ir.Branch((ir.layers.Affine(-lipschitz * np.eye(d), np.zeros(d)),), (d,))
    F = ir.ResidualBlock(linear, lipschitz=lipschitz)
    return float(np.mean(ir.invert(F, rows(8, d), method=method, rtol=rtol, check_every=1).evaluations))


def bias_terms(lipschitz: float) -> float:
    """Return how many terms prove a bias of at most 1e-6 nats in 64 dimensions."""
    return next(float(n) for n in range(1, 10**6) if ir.bounds.truncation_bound(64, lipschitz, n) <= 1e-6)


def error(count: int) -> float:
    """Return the mean standard error of so many replicates."""
    F, x = block(64), rows(16, 64)
    method = ir.Series(8, exact_traces=0, probes=ir.Probes(count=count))
    return float(np.mean(ir.logdet(F, x, method).standard_error))


def square(n: int) -> Any:
    """Return a Gaussian matrix."""
    return np.random.default_rng(0).standard_normal((n, n)) / math.sqrt(n)


def anew(n: int) -> Callable[[], Any]:
    """Return the proof of a weight of which nothing is known."""
    w = square(n)
    return lambda: norm_bound(w)


def warm(n: int) -> Callable[[], Any]:
    """Return the proof of a weight a step of training after the last one."""
    w, moved = square(n), square(n) + 1e-4
    start = largest_pairs(w[None, ...]).block
    return lambda: largest_pairs(moved[None, ...], start)


def gap(lipschitz: float) -> float:
    """Return 1/(1 − L)."""
    return 1.0 / (1.0 - lipschitz)


LAWS = (
    Law("F(x)", "batch", (256, 512, 1024, 2048), lambda n: forward(block(64, width=256), n), 1.0, "products with all rows"),
    Law("F(x)", "width h", (128, 256, 512, 1024), lambda n: forward(block(8, width=n)), 2.0, "h² products beside 2dh"),
    Law("F(x)", "layers", (8, 16, 32, 64), lambda n: forward(block(64, layers=n)), 1.0, "one product a layer"),
    Law("exact log det", "d = h", (32, 64, 128, 256), exact, 3.0, "3d³ products and (2/3)d³ of the LU, a row"),
    Law("series", "terms", (4, 8, 16, 32), series, 1.0, "one product with Jᵀ a term"),
    Law("training step", "blocks", (2, 4, 8, 16), step, 1.0, "blocks one after another"),
    Law("proof of ‖W‖, anew", "side n", (128, 256, 512, 1024), anew, 3.0, "n³ of the Gram matrix and its eigenvalues"),
    Law("proof of ‖W‖, warm", "side n", (128, 256, 512, 1024), warm, 3.0, "n³ of the Gram matrix, n³/3 of Cholesky"),
    Law("Banach, evaluations", "1/(1 − L)", (0.9, 0.95, 0.98, 0.99), lambda s: evaluations(s, 1e-8, "banach"), 1.0,
        "log(rtol)/log L", gap),
    Law("Banach, evaluations", "log(1/rtol)", (1e-3, 1e-6, 1e-9, 1e-12), lambda r: evaluations(0.9, r, "banach"), 1.0,
        "log(rtol)/log L", lambda r: -math.log(r)),
    Law("auto, evaluations", "1/(1 − L)", (0.9, 0.95, 0.98, 0.99), lambda s: evaluations(s, 1e-8, "auto"), 0.0,
        "accelerated; no worse than Banach's a-priori count", gap),
    Law("series, terms to 1e-6 nats", "1/(1 − L)", (0.9, 0.95, 0.98, 0.99), bias_terms, 1.0, "the tail Σ Lᵏ/k, d = 64", gap),
    Law("standard error", "replicates", (16, 64, 256, 1024), error, -0.5, "independent replicates"),
)  # fmt: skip


def clocked(work: Callable[[], Any]) -> float:
    """Return the seconds of CPU time of one call."""
    calls, start = 0, time.process_time()
    while (spent := time.process_time() - start) < SHORTEST or not calls:
        work()
        calls += 1
    return spent / calls if spent else (time.process_time() - start) / calls


def fitted(law: Law) -> tuple[list[float], float, tuple[float, float]]:
    """Return the medians, the exponent, and the quartiles of the exponents of single rounds."""
    measured = [law.measure(n) for n in law.sizes]
    works = [m if callable(m) else None for m in measured]
    for work in works:
        if work is not None:
            work()
    rounds = [[m if w is None else clocked(w) for m, w in zip(measured, works, strict=True)] for _ in range(ROUNDS)]
    table = np.asarray(rounds, dtype=np.float64)
    along = np.log([law.along(n) for n in law.sizes])

    def slope(values: Any) -> float:
        return round(float(np.polyfit(along, np.log(values), 1)[0]), 3) + 0.0  # no −0

    low, high = np.quantile([slope(values) for values in table], (0.25, 0.75))
    medians = np.median(table, axis=0)
    return list(medians), slope(medians), (float(low), float(high))


PAGE = """# How costs grow

`python benchmarks/scaling.py` measures each line and writes this page: float64, NumPy, one thread. The exponent is the slope of a line
through the logarithms of what was measured, with the quartiles over {rounds} rounds in which all sizes took turns; a count is the same in
every round. Times are CPU time of one call. The theory is that of large sizes. A slope below it says that at the smaller ones something
else takes its time still: the calls around the products, activations; one above it, that the larger ones no longer fit the cache.
What a run takes on other hardware is predicted in [a model of cost](cost-model.md).

| quantity | grows with | from – to | measured | exponent | theory | because of |
|---|---|---|---|---|---|---|
{table}
"""


def shown(law: Law) -> str:
    """Return the line of the table."""
    values, slope, (low, high) = fitted(law)
    timed = callable(law.measure(law.sizes[0]))
    first, last = (f"{1e3 * v:.3g} ms" if timed else f"{v:.3g}" for v in (values[0], values[-1]))
    spread = f" ({low:.2f}–{high:.2f})" if timed else ""
    ends = f"{law.along(law.sizes[0]):.3g} – {law.along(law.sizes[-1]):.4g}"
    return f"| {law.quantity} | {law.size} | {ends} | {first} – {last} | {slope:.2f}{spread} | {law.theory:g} | {law.why} |"


def main() -> None:
    """Print the page."""
    print(PAGE.format(rounds=ROUNDS, table="\n".join(map(shown, LAWS))), end="")


if __name__ == "__main__":
    main()
