"""Digits with few labels: an i-ResNet that also learns the density of the images without one, beside the purely supervised net.

    python examples/paper/semi_supervised.py                       five numbers of labels, several draws: minutes on NumPy
    python examples/paper/semi_supervised.py --labels 5 --draws 1  a short one

Both are flows of the same shape with a Gaussian mixture as base, one component for each digit (Izmailov et al., arXiv 1912.13025),
and start from the same weights and the same means, those of the labelled features. The supervised one is trained with the
cross-entropy of its posterior on the labelled rows, the other one with −λ log p(x) of rows without labels besides. A draw
takes so many labels of each class at random; both networks see the same, and are compared on the same held-out fold. The
interval of the difference is Student's over the draws. Writes semi_supervised.md, .json and .png, and the flow of the
last draw with the most labels to models/semi_supervised.safetensors.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from _classifiers import answers, dequantised, mixture, shifted, whole
from _data import Images, digits, folds
from _intervals import mean
from _running import keep, parser, progress, pyplot, write
from _running import like as array_of
from numpy.typing import NDArray

import iresnet_ref as ir
from iresnet_ref.arrays import from_host, namespace
from iresnet_ref.training import minibatch
from iresnet_ref.training.loop import Settings, State, fit, start
from iresnet_ref.training.losses import Loss, hybrid, maximum_likelihood

LIPSCHITZ = 0.9
OPTIONS = ir.Options(logdet="exact")


def labelled(data: Images, per_class: int, draw: int, seed: int) -> NDArray[np.int64]:
    """Rows with a label: so many of each class."""
    rng = np.random.default_rng([seed, draw])
    order = rng.permutation(len(data))
    return np.concatenate([order[data.labels[order] == y][:per_class] for y in range(10)])


def train(data: Images, rows: NDArray[np.int64], density: float, options: argparse.Namespace, title: str) -> State:
    """Train on half a batch of labelled rows and, where λ > 0, half a batch of any rows without their labels."""
    array, half = array_of(options), options.batch // 2
    known = np.full(len(data), -1)
    known[rows] = data.labels[rows]
    flow = mixture(whole(data.x), known, options.width, options.blocks, like=array, seed=options.seed)
    settings = Settings(options.learning_rate, weight_decay=1e-3, clip=100.0, warm_up=20, average=0.98)

    def loss(flow: ir.Flow, step: int) -> Loss:
        def cells(seen: NDArray[np.int64]) -> Any:
            x = shifted(data.x[seen], options.reach, np.random.default_rng([options.seed, step]))
            return dequantised(whole(x), step, array)

        seen = rows[minibatch(len(rows), half, step, seed=options.seed)]
        found = hybrid(flow, cells(seen), namespace(array).asarray(known[seen]), density=0.0)
        if density == 0.0:
            return found
        even = from_host(np.full(half, density / half), array)
        any_row = cells(minibatch(len(data), half, step, seed=options.seed + 1))
        more = maximum_likelihood(flow, any_row, weights=even, options=OPTIONS, step=step)
        return Loss(found.value + more.value, {k: g + more.gradients[k] for k, g in found.gradients.items()})

    with progress(title, options.steps) as callback:
        return fit(start(flow, lipschitz=LIPSCHITZ, settings=settings), loss, options.steps, callback=callback)


def draw_figure(found: dict[int, NDArray[np.float64]], path: Any) -> None:
    """Accuracy against the number of labels, a thin line for each draw, and the paired difference with its interval."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    x = np.array(list(found))
    for k, (name, colour) in enumerate((("labels only", "0.45"), ("labels and density", "C0"))):
        each = 100.0 * np.stack([a[:, k] for a in found.values()])
        left.plot(x, each, color=colour, lw=0.6, alpha=0.6)
        left.plot(x, each.mean(1), "o-" if k else "o--", color=colour, lw=2, label=name, zorder=3 - k)
    gains = [mean(a[:, 1] - a[:, 0]) for a in found.values()]
    middle = np.array([100.0 * g.value for g in gains])
    right.axhline(0.0, color="0.6", lw=0.8)
    if all(np.isfinite(g.low) for g in gains):
        ends = 100.0 * np.array([[g.value - g.low for g in gains], [g.high - g.value for g in gains]])
        right.errorbar(x, middle, yerr=ends, fmt="o", capsize=3, color="C0")
    for n, a in found.items():
        right.plot(np.full(len(a), 1.06 * n), 100.0 * (a[:, 1] - a[:, 0]), ".", color="0.45")
    for axis, title in ((left, "accuracy in %"), (right, "gain by the density in points: mean, draws")):
        axis.set(xscale="log", xlabel="labels per class", title=title, xticks=x, xticklabels=x)
        axis.minorticks_off()
    left.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    made = parser("Digits with few labels.", batch=96, blocks=3, width=32, steps=150, learning_rate=3e-3, density=1.0,
                  draws=5, reach=0.5)  # fmt: skip
    made.add_argument("--labels", default="1,2,5,10,20", help="labels per class, separated by commas")
    options = made.parse_args(arguments)
    array = array_of(options)
    data, test = next(folds(digits(), 5, seed=options.seed))
    x = whole(test.x)
    rows: list[dict[str, Any]] = []
    found: dict[int, NDArray[np.float64]] = {}
    for n in map(int, options.labels.split(",")):
        begun, accuracies = time.perf_counter(), []
        for draw in range(options.draws):
            seen = labelled(data, n, draw, options.seed)
            both = [train(data, seen, density, options, f"{n} labels, draw {draw}, λ = {density:g}").averaged
                    for density in (0.0, options.density)]  # fmt: skip
            accuracies.append([float((answers(flow, x, array) == test.labels).mean()) for flow in both])
        found[n] = np.array(accuracies)
        gain = mean(found[n][:, 1] - found[n][:, 0])
        rows.append({"labels per class": n, "labels only": str(mean(found[n][:, 0])), "labels and density": str(mean(found[n][:, 1])),
                     "gain": str(gain), "draws": options.draws, "seconds": round(time.perf_counter() - begun, 1)})  # fmt: skip
    write(options.folder, "semi_supervised", rows, accuracies={n: a.tolist() for n, a in found.items()}, seed=options.seed,
          backend=options.backend, dtype=options.dtype)  # fmt: skip
    keep(options.folder, "semi_supervised", both[1])
    if not options.no_figure:
        draw_figure(found, options.folder / "semi_supervised.png")
    return rows


if __name__ == "__main__":
    main()
