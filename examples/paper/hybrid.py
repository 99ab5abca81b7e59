"""One network, a classifier and a density: λ log p(x) + log p(y | x) on scikit-learn's digits, and what log p(x) says of strangers.

    python examples/paper/hybrid.py                        four values of λ, a few minutes on NumPy
    python examples/paper/hybrid.py --weights 0.015625     one of them

The flow's base is a Gaussian mixture with a component for each digit, so that the posterior of the class is a linear classifier
on invertible features ([C19] §5.4; Nalisnick et al., arXiv 1902.02767). Log-determinants are Russian-roulette estimates while
it trains, exact in the tables. The first table: accuracy and bits per dimension against λ. The second: the area under the ROC
curve of two scores that are meant to tell held-out digits from other images, log p(x) itself, and how near log p(x) is to what
digits have (typicality, after Nalisnick et al., arXiv 1906.02994). Writes hybrid.md, hybrid_strangers.md, .json and .png,
and the flow of the last λ to models/hybrid.safetensors.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import numpy as np
from _classifiers import LEVELS, answers, dequantised, mixture, whole
from _data import Images, digits, folds, mnist_5k, patches
from _intervals import area_under_roc, proportion
from _running import keep, parser, progress, pyplot, write
from _running import like as array_of

import iresnet_ref as ir
from iresnet_ref.arrays import namespace, to_host
from iresnet_ref.training import minibatch
from iresnet_ref.training.loop import Settings, State, fit, start
from iresnet_ref.training.losses import Loss, hybrid

LIPSCHITZ = 0.9


def train(data: Images, density: float, options: argparse.Namespace) -> State:
    array, x = array_of(options), whole(data.x)
    flow = mixture(x, data.labels, options.width, options.blocks, like=array, seed=options.seed)
    settings = Settings(options.learning_rate, weight_decay=1e-3, clip=100.0, warm_up=20, average=0.98)
    estimate = ir.Options(logdet=ir.Roulette(probes=ir.Probes(seed=options.seed)))

    def loss(flow: ir.Flow, step: int) -> Loss:
        rows = minibatch(len(data), options.batch, step, seed=options.seed)
        cells = dequantised(x[rows], step, array)
        labels = namespace(array).asarray(data.labels[rows])
        return hybrid(flow, cells, labels, density=density, options=estimate, step=step)

    with progress(f"λ = {density:g}", options.steps) as callback:
        return fit(start(flow, lipschitz=LIPSCHITZ, settings=settings), loss, options.steps, callback=callback)


def log_prob(flow: ir.Flow, x: Any, array: Any) -> Any:
    """log p of whole rows with the noise of their dequantisation, in nats per cell of width 1; exact log-determinants."""
    found = flow.log_prob(dequantised(x, 1, array), options=ir.Options(logdet="exact"))
    return to_host(found.value).astype(np.float64) - x.shape[1] * np.log(LEVELS)


def strangers(n: int, rng: np.random.Generator, test: Images) -> dict[str, Any]:
    """Whole rows that are no digits of this source, n of each kind."""
    wide = np.pad(mnist_5k().x[rng.permutation(5000)[:n]], ((0, 0), (0, 0), (2, 2), (2, 2)))
    pixels = whole(test.x)
    of_class = [pixels[rng.permutation(np.flatnonzero(test.labels == i % 10))[:10]].mean(0) for i in range(n)]
    return {
        "MNIST at 8×8": whole(wide.reshape(n, 1, 8, 4, 8, 4).mean((3, 5))),
        "natural patches": whole(patches(n, 8, rng).mean(1)),
        "uniform noise": rng.integers(LEVELS, size=(n, 64)).astype(np.float64),
        "digits, pixels permuted": pixels[:, rng.permutation(64)],
        "digits at a quarter of their contrast": np.rint(pixels / 4.0),
        "empty": np.zeros((n, 64)),
        "means of ten digits of a class": np.rint(np.stack(of_class)),
    }


def draw(scores: dict[str, Any], flow: ir.Flow, images: dict[str, Any], options: argparse.Namespace) -> None:
    """Histograms of −log p(x), one line and one example for each kind of image; below, samples of each class."""
    plt = pyplot()
    figure = plt.figure(figsize=(9, 7.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.5, 1.0])
    bits = {name: np.maximum(-s / (64.0 * np.log(2.0)), 0.1) for name, s in scores.items()}
    bins = np.geomspace(0.9 * min(b.min() for b in bits.values()), 1.1 * max(b.max() for b in bits.values()), 120)
    axes = top.subplots(len(scores), 2, width_ratios=[1, 11], squeeze=False)
    for (left, axis), (name, b) in zip(axes, bits.items(), strict=True):
        left.imshow(images[name][3].reshape(8, 8), cmap="gray_r", vmin=0, vmax=LEVELS - 1)
        left.axis("off")
        axis.hist(b, bins=bins, color="C0" if name == "digits" else "C3")
        axis.set(xscale="log", yticks=[], xlim=(bins[0], bins[-1]))
        axis.text(0.99, 0.9, "held-out digits" if name == "digits" else name, transform=axis.transAxes, va="top", ha="right", fontsize=9,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.85})  # fmt: skip
        axis.axvline(np.median(bits["digits"]), color="C0", lw=0.8)
        axis.tick_params(labelbottom=axis is axes[-1, 1], which="both")
    axes[-1, 1].set_xlabel("bits per dimension, −log₂ p(x)/64: left is more probable; the line is the median of held-out digits")
    bottom.suptitle("samples of p(x | y), y = 0, …, 9", fontsize=9)
    panels = bottom.subplots(4, 10)
    for y in range(10):
        drawn = replace(flow, base=flow.base.component(y)).sample(4, seed=options.seed)
        for axis, x in zip(panels[:, y], to_host(drawn), strict=True):
            axis.imshow(np.clip(x, 0.0, 1.0).reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            axis.axis("off")
    figure.savefig(options.folder / "hybrid.png", dpi=90)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    made = parser("A classifier and a density in one network.", batch=128, blocks=3, width=96, steps=500, learning_rate=3e-3)
    made.add_argument("--weights", default=f"0,{1 / 640},{1 / 64},1", help="values of λ, separated by commas, the last is looked at")
    options = made.parse_args(arguments)
    array = array_of(options)
    data, test = next(folds(digits(), 5, seed=options.seed))
    x = whole(test.x)
    rows: list[dict[str, Any]] = []
    for density in map(float, options.weights.split(",")):
        begun = time.perf_counter()
        flow = train(data, density, options).averaged
        seconds = time.perf_counter() - begun
        held_out = log_prob(flow, x, array)
        bits = -held_out / (64.0 * np.log(2.0))
        rows.append({"λ": density, "accuracy": str(proportion(answers(flow, x, array) == test.labels)),
                     "bits per dimension": float(bits.mean()), "standard error": float(bits.std(ddof=1) / np.sqrt(len(bits))),
                     "training": float(-log_prob(flow, whole(data.x), array).mean() / (64.0 * np.log(2.0))),
                     "proved Lip(g)": max(s.block.certificate.bound for s in flow.steps.steps if hasattr(s, "block")),
                     "seconds": round(seconds, 1)})  # fmt: skip
    write(options.folder, "hybrid", rows, seed=options.seed, backend=options.backend, dtype=options.dtype)
    typical = float(np.mean(log_prob(flow, whole(data.x), array)))
    images = {"digits": x, **strangers(len(x), np.random.default_rng(options.seed), test)}
    scores = {name: log_prob(flow, rows_of, array) for name, rows_of in images.items()}
    found = [
        {"images": name, "mean log p in nats": float(s.mean()), "AUROC of log p": area_under_roc(scores["digits"], s).plain,
         "AUROC of typicality": area_under_roc(-np.abs(scores["digits"] - typical), -np.abs(s - typical)).plain}
        for name, s in scores.items() if name != "digits"
    ]  # fmt: skip
    write(options.folder, "hybrid_strangers", found, seed=options.seed)
    keep(options.folder, "hybrid", flow)
    if not options.no_figure:
        draw(scores, flow, images, options)
    return rows, found


if __name__ == "__main__":
    main()
