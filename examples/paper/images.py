"""A density of images learnt by an i-ResNet flow with our own gradients: bits per dimension, samples, any backend.

    python examples/paper/images.py digits
    python examples/paper/images.py mnist --backend torch:cpu --resume
    python examples/paper/images.py cifar10 --cost              what the full recipe would take on this machine
    python examples/paper/images.py cifar10 --data FOLDER       the full recipe on cifar-10-python.tar.gz in FOLDER

The first argument names a file of recipes/, or is one of your own: the model and its training, readable. Written to
reports/examples/: `images-<recipe>.png` (data beside samples), `images-<recipe>.json` and `.md` (bits per dimension of held-out
images with their standard error, by the exact determinant where it is feasible, by the unbiased estimate, by the truncated
series), and the model, in models/ (in large-models/ above 256 numbers). With `--resume` checkpoints are kept: kill it anywhere,
it continues bit for bit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import _recipes
import numpy as np
from _data import Array
from _image_cost import predicted
from _image_measures import Bits, bits, dequantised
from _running import EXACT_UP_TO, keep, parser, progress, pyplot, write
from _running import like as array_of

import iresnet_ref as ir
from iresnet_backends import checkpoint, get, resume
from iresnet_ref.arrays import size, to_host
from iresnet_ref.training import minibatch
from iresnet_ref.training.loop import State, fit, start
from iresnet_ref.training.losses import Loss, maximum_likelihood


def train(
    recipe: _recipes.Recipe,
    pixels: Array,
    levels: int,
    like: Any,
    *,
    path: Path | None = None,
    title: str = "",
    each: Callable[[State], object] = lambda state: None,
) -> State:
    """Return the state after the recipe's steps on integer images, or on from the checkpoint at `path`.

    `each` is called with the first state and with that after each step.
    """
    training, seed = recipe.training, recipe.seed
    model = _recipes.flow(recipe, tuple(pixels.shape[1:]), levels, like)
    model = model.initialise(dequantised(pixels[minibatch(len(pixels), 512, 0, seed=seed)], like, noise(seed, 0)))
    state = start(model, lipschitz=recipe.lipschitz, settings=_recipes.settings(training))
    state = state if path is None else resume(path, state)
    estimate = _recipes.options(training, recipe.lipschitz, seed)

    def loss(flow: ir.Flow, step: int) -> Loss:
        rows = pixels[minibatch(len(pixels), training.batch, step, seed=seed)]
        if training.flip and step % 2:
            rows = rows[..., ::-1]
        return maximum_likelihood(flow, dequantised(rows, like, noise(seed, step)), step=step, options=estimate, check=False)

    with progress(title or recipe.data, training.steps) as moved:
        keep = None if path is None else checkpoint(path, every=max(25, training.certify_every))

        def callback(state: State, value: float) -> None:
            if state.step % training.certify_every == 0:  # between two proofs the loss stays where it is
                moved(state, float(value) / (pixels[0].size * 0.6931471805599453))
            if keep is not None:
                keep(state, value)
            each(state)

        each(state)
        return fit(state, loss, max(0, training.steps - state.step), callback=callback)


def noise(seed: int, step: int) -> int:
    """Return the seed of one step's dequantisation."""
    return (seed << 32) + step


def measured(flow: ir.Flow, held_out: Array, like: Any, draws: int) -> dict[str, Bits]:
    """Return the bits per dimension of the held-out images by each estimator that is feasible, the same noise in all of them."""
    lipschitz = max(block.certificate.bound for block in blocks(flow.steps))
    lengths = ir.roulette.near_optimal(lipschitz, 8.0)
    ways = {
        "exact": ir.Options(logdet="exact"),
        "unbiased": ir.Options(logdet=ir.Roulette(lengths, probes=ir.Probes(seed=1, count=8))),
        "5 terms": ir.Options(logdet=ir.Series(5, probes=ir.Probes(seed=2, count=8))),
        "10 terms": ir.Options(logdet=ir.Series(10, probes=ir.Probes(seed=3, count=8))),
    }
    if flow.dimensions > EXACT_UP_TO:
        ways.pop("exact")
    return {name: bits(flow, held_out, like, way, draws=draws) for name, way in ways.items()}


def blocks(steps: Any) -> list[ir.ResidualBlock]:
    """Return every residual block of a composition, also those behind a factor-out."""
    found = []
    for step in steps.steps:
        found += [step.block] if hasattr(step, "block") else blocks(step.rest) if isinstance(step, ir.bijections.FactorOut) else []
    return found


def draw(data: Array, samples: Array, levels: int, title: str, path: Path, side: int = 8) -> None:
    """Write side² images of the data beside side² samples, pixels as integers."""
    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(8.0, 4.5))
    for axis, pixels, name in zip(axes, (data, samples), ("held-out data", "samples"), strict=True):
        gap = max(1, pixels.shape[-1] // 8)
        tiles = np.pad(pixels[: side * side] / (levels - 1.0), ((0, 0), (0, 0), (0, gap), (0, gap)), constant_values=np.nan)
        _, channels, height, width = tiles.shape
        grid = tiles.reshape(side, side, channels, height, width).transpose(0, 3, 1, 4, 2)
        grid = grid.reshape(side * height, side * width, channels)[:-gap, :-gap]
        if channels == 1:
            axis.imshow(grid[..., 0], cmap="gray_r", vmin=0.0, vmax=1.0)
        else:
            axis.imshow(np.nan_to_num(grid, nan=1.0))
        axis.set(xticks=[], yticks=[], facecolor="lightsteelblue")
        axis.set_title(name, fontsize=10)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout(pad=0.8)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    made = parser("A density of images learnt by an i-ResNet flow.", draws=2, samples=64)
    made.set_defaults(dtype=None, seed=None)
    made.add_argument("recipe", help="a file of recipes/ without its ending, or a path")
    made.add_argument("--data", type=Path, help="a folder with the original files of MNIST or CIFAR-10")
    made.add_argument("--steps", type=int, help="instead of the recipe's")
    made.add_argument("--resume", action="store_true", help="keep checkpoints in the folder and continue from them")
    made.add_argument("--cost", action="store_true", help="predict what the whole takes on the backend; train nothing (needs torch)")
    asked = made.parse_args(arguments)
    recipe = _recipes.read(asked.recipe)
    recipe = replace(recipe, dtype=asked.dtype or recipe.dtype, seed=recipe.seed if asked.seed is None else asked.seed)
    if asked.steps is not None:
        recipe = replace(recipe, training=replace(recipe.training, steps=asked.steps))
    like = array_of(argparse.Namespace(backend=asked.backend, dtype=recipe.dtype))
    name = f"images-{Path(asked.recipe).stem}"
    train_images, held_out, levels, what = _recipes.images(recipe, asked.data)
    if asked.cost:
        rows, facts = predicted(recipe, tuple(train_images.shape[1:]), get(asked.backend, recipe.dtype))
        write(asked.folder, f"{name}-cost", rows, **facts)
        print(
            f"{facts['seconds a step']:.3g} s a step of {facts['batch']} images, {facts['steps']} steps: {facts['hours']:.3g} hours, "
            f"{facts['GB of memory']:.3g} GB of memory: predicted from a step that is counted and rates that were measured now"
        )
        return rows
    asked.folder.mkdir(parents=True, exist_ok=True)
    begun = time.process_time()
    state = train(recipe, train_images, levels, like, path=asked.folder / f"{name}.run" if asked.resume else None)
    seconds = time.process_time() - begun
    model: ir.Flow = state.averaged
    measured_images = held_out[: recipe.measured]
    found = measured(model, measured_images, like, asked.draws)
    rows = [{"estimate": way, **b.facts()} for way, b in found.items()]
    facts = {
        "data": what, "held out": len(measured_images), "draws": asked.draws, "steps": state.step,
        "CPU seconds of training": round(seconds, 1),
        "lipschitz": max(block.certificate.bound for block in blocks(model.steps)),
        "numbers": sum(size(tuple(p.shape)) for p in model.parameters().values()),
    }  # fmt: skip
    print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)
    write(asked.folder, name, rows, **facts)
    keep(asked.folder, name, model)
    if not asked.no_figure:
        x = to_host(model.sample(asked.samples, seed=recipe.seed))
        best = rows[0]
        title = f"{what}: {best['bits per dimension']:.2f} ± {best['standard error']:.2f} bits per dimension, held out"
        draw(held_out, x.clip(0, levels - 1e-6) // 1, levels, title, asked.folder / f"{name}.png", int(asked.samples**0.5))
    return rows


if __name__ == "__main__":
    main()
