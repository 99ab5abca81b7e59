"""Backpropagation that stores no activations: memory against depth, and what it costs in time and in accuracy.

    python examples/paper/memory.py                              2 to 64 blocks on NumPy
    python examples/paper/memory.py --blocks 16 --batch 256

The gradient of −log p of a standard Gaussian behind the blocks, with and without its log-determinants, by each way of getting
at the activations: all of them stored, as autodiff does; the inputs of the blocks stored and the rest computed again;
backward-in-forward ([C19] §3.3); or everything rebuilt from the last output by inversion. Memory is the peak that
tracemalloc sees above the parameters and the gradients, which every way needs; beside it, what autograd keeps of the same
blocks written with torch modules. Writes memory.png, memory.json and memory.md to reports/examples/.
"""

from __future__ import annotations

import argparse
import gc
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from _data import mnist_5k
from _running import parser, pyplot, write

import iresnet_ref as ir
from iresnet_ref.training.optimiser import global_norm

Gradients = dict[str, Any]
Way = Callable[[Sequence[ir.ResidualBlock], Any, Any], Gradients]
"""(blocks, x, weights of the log-determinants or None) ↦ gradients of Σ_b ‖F(x_b)‖²/2n + Σ_b w_b log det, by parameter."""

PROBES = ir.Probes(seed=0)
SERIES = 10
"""Terms of the series that autograd is given: those of its memory are proportional to it."""


def stored(blocks: Sequence[ir.ResidualBlock], x: Any, weights: Any) -> Gradients:
    """Ordinary backpropagation: what every layer was given is kept until the reverse pass has come back to it."""
    if weights is not None:
        raise ValueError("stored: expected weights None, got some; ordinary backpropagation has no log-determinant here")
    tapes = []
    for block in blocks:
        tapes.append(block.branch.record(x, linearize=False))
        x = x + tapes[-1].value
    x_bar, found = x / x.shape[0], {}
    for k in reversed(range(len(blocks))):
        g_bar, _, own = tapes.pop().pullback(x_bar)
        x_bar = x_bar + g_bar
        found.update({f"{k}.{name}": gradient for name, gradient in own.items()})
    return found


def inputs_stored(blocks: Sequence[ir.ResidualBlock], x: Any, weights: Any) -> Gradients:
    """One array a block is kept, and its forward pass repeated: what a flow of the reference does in training."""
    steps = ir.bijections.Composition(tuple(blocks))
    y = steps.value(x)
    return steps.pullback(x, y / y.shape[0], weights, ir.Options(logdet=ir.Roulette(probes=PROBES)))[1]


def early(blocks: Sequence[ir.ResidualBlock], x: Any, weights: Any) -> Gradients:
    """Backward-in-forward: two arrays a block are kept, and nothing of the log-determinant's series."""
    kept = []
    for k, block in enumerate(blocks):
        x, gradient = ir.backward_in_forward(block, x, weights, method=ir.Roulette(probes=PROBES.on_stream(k)))
        kept.append(gradient)
    x_bar, found = x / x.shape[0], {}
    for k in reversed(range(len(blocks))):
        x_bar, own = kept.pop().backward(x_bar, weights)
        found.update({f"{k}.{name}": gradient for name, gradient in own.items()})
    return found


def rebuilt(blocks: Sequence[ir.ResidualBlock], x: Any, weights: Any) -> Gradients:
    """The last output is kept: every other activation is found again by inverting the block behind it."""
    for block in blocks:
        x = x + block.branch(x)
    gradient = ir.sequence_gradient(blocks, x, x / x.shape[0], weights=weights, method=ir.Roulette(probes=PROBES))
    return {f"{k}.{name}": g for k, own in enumerate(gradient.parameters) for name, g in own.items()}


WAYS: dict[str, Way] = {
    "all activations stored": stored,
    "inputs of blocks stored": inputs_stored,
    "backward-in-forward": early,
    "rebuilt by inversion": rebuilt,
}


def kept_by_autograd(blocks: Sequence[ir.ResidualBlock], x: Any, weights: Any) -> int:
    """Return the bytes that torch keeps for its reverse pass, parameters apart, of the same blocks as torch modules.

    With weights, log det is its series of `SERIES` terms, each a product with Jᵀ that is itself differentiated.
    """
    import torch

    from iresnet_backends import to_torch

    modules = [to_torch(block.branch) for block in blocks]
    parameters = {p.untyped_storage().data_ptr() for module in modules for p in module.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()  # kept until the end, so that no address comes twice
        return tensor

    h: Any = torch.tensor(np.asarray(x), requires_grad=weights is not None)
    log_det: Any = 0.0
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        for module in modules:
            g = module(h)
            if weights is not None:
                probe = w = torch.sign(torch.randn(h.shape, dtype=h.dtype, generator=torch.Generator().manual_seed(0)))
                for k in range(1, SERIES + 1):
                    (w,) = torch.autograd.grad(g, h, w, create_graph=True)
                    log_det = log_det + (-1.0) ** (k + 1) / k * (w * probe).sum()
            h = h + g
        loss: Any = 0.5 * (h * h).sum() + log_det
    loss.backward()
    return sum(kept.values())


def blocks_of(depth: int, options: argparse.Namespace) -> list[ir.ResidualBlock]:
    """Blocks on (16, 7, 7): MNIST, squeezed twice. Their constants are computed here, once: they are not activations."""
    like = np.zeros(1, dtype=options.dtype)
    made = []
    for k in range(depth):
        branch = ir.convnet((16, 7, 7), channels=options.channels, activation="elu", padding="circular",
                            lipschitz=options.lipschitz, seed=options.seed + k, like=like)  # fmt: skip
        made.append(ir.ResidualBlock(branch))
        made[-1].contraction(), branch.rounding
    return made


def peak(way: Way, *arguments: Any) -> tuple[Gradients, int]:
    """Return the gradients, and the most bytes that were in use at once beyond them and what there was before."""
    gc.collect()
    tracemalloc.start()
    gradients = way(*arguments)
    largest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return gradients, largest - sum(g.nbytes for g in gradients.values())


def measure(depth: int, images: Any, options: argparse.Namespace, *, volume: bool) -> dict[str, Any]:
    """Return one row of the table: `volume` counts the log-determinants in."""
    blocks = blocks_of(depth, options)
    weights = np.full(len(images), -1.0 / len(images), dtype=options.dtype) if volume else None
    row: dict[str, Any] = {"log-det": "yes" if volume else "no", "blocks": depth}
    seconds, found = {}, {}
    for name, way in WAYS.items():
        if way is (stored if volume else early):
            row[f"{name}, MB"] = "–"  # ordinary backpropagation through a series is what autograd is asked for
            continue
        found[name], size = peak(way, blocks, images, weights)
        begun = time.process_time()
        way(blocks, images, weights)
        seconds[name] = time.process_time() - begun
        row[f"{name}, MB"] = size / 1e6
    affordable = not volume or depth <= options.autograd
    row["kept by autograd, MB"] = kept_by_autograd(blocks, images, weights) / 1e6 if affordable else "–"
    first = next(iter(found))
    truth, last = found[first], found["rebuilt by inversion"]
    row["gradient error"] = float(global_norm({k: last[k] - g for k, g in truth.items()}) / global_norm(truth))
    row["time ratio"] = seconds["rebuilt by inversion"] / seconds[first]
    return row


def draw(rows: Sequence[dict[str, Any]], path: Any) -> None:
    """Memory against depth, a panel without and one with the log-determinants."""
    plt = pyplot()
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 3.6), sharex=True, sharey=True, layout="constrained")
    styles = {"all activations stored": ("#c44e52", "o-"), "kept by autograd": ("#8c8c8c", "s--"),
              "inputs of blocks stored": ("#dd8452", "^-"), "backward-in-forward": ("#8172b3", "v-"),
              "rebuilt by inversion": ("#1f6fb4", "o-")}  # fmt: skip
    depths = sorted({row["blocks"] for row in rows})
    for panel, volume in zip(panels, ("no", "yes"), strict=True):
        for name, (colour, style) in styles.items():
            points = [(r["blocks"], r[f"{name}, MB"]) for r in rows if r["log-det"] == volume and r[f"{name}, MB"] != "–"]
            if points:
                width = 2.4 if name == "rebuilt by inversion" else 1.4
                panel.plot(*zip(*points, strict=True), style, color=colour, label=name, markersize=4, linewidth=width)
        panel.set(xscale="log", yscale="log", xlabel="residual blocks", xticks=depths, xticklabels=depths)
        panel.set_title("loss of the features" if volume == "no" else "log-likelihood, with log det", fontsize=10)
        panel.minorticks_off()
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("memory of the gradient, MB")
    panels[0].yaxis.set_major_formatter("{x:g}")
    entries: dict[str, Any] = {}
    for panel in panels:
        entries.update(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    figure.legend([entries[name] for name in styles if name in entries], [name for name in styles if name in entries],
                  loc="outside lower center", ncols=3, frameon=False, fontsize=9)  # fmt: skip
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return the table's rows."""
    made = parser(__doc__.split("\n")[0], blocks=64, batch=32, channels=16, lipschitz=0.9, autograd=8)
    options = made.parse_args(arguments)
    if options.backend != "numpy":
        made.error(f"--backend: expected numpy, whose memory tracemalloc sees, got {options.backend}; try --dtype instead")
    images: Any = mnist_5k().x[: options.batch].astype(options.dtype)
    for _ in range(2):
        images = ir.bijections.Squeeze(images.shape[1:])(images)
    depths = [2**k for k in range(1, options.blocks.bit_length()) if 2**k <= options.blocks]
    rows = [measure(depth, images, options, volume=volume) for volume in (False, True) for depth in depths]
    write(options.folder, "memory", rows, batch=options.batch, dtype=options.dtype, lipschitz=options.lipschitz)
    if not options.no_figure:
        draw(rows, options.folder / "memory.png")
    return rows


if __name__ == "__main__":
    main()
