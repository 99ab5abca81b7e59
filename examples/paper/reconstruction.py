"""Reconstruction: images from the features of a trained i-ResNet, and of the standard ResNet of the same shape.

    python examples/paper/reconstruction.py                      MNIST and natural patches, four Lipschitz constants each
    python examples/paper/reconstruction.py --only mnist --constants .5,.9 --backend torch:cpu --steps 40

Both networks classify (MNIST its digits, patches which photograph they are cut from) from the same first weights by the same
steps; the i-ResNet's branches are certified to Lip(g) ≤ c after each. Then held-out images are computed back from F(x): by
`ir.invert` down to its rounding floor, and by k plain steps x ← y − g(x) a block, which is all that the standard ResNet
has. Writes the picture of [B19] Figure 2, reconstruction.png, reconstruction_error.png, and the table as JSON and Markdown,
and keeps the i-ResNets in large-models/ for audited.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _data import Images, mnist_5k, patches, split
from _running import keep, like, parser, progress, pyplot, write

import iresnet_ref as ir
from iresnet_backends import get
from iresnet_ref import rounding
from iresnet_ref.arrays import from_host, size, to_host
from iresnet_ref.training import minibatch
from iresnet_ref.training.classifier import Classifier
from iresnet_ref.training.loop import Settings, fit, start
from iresnet_ref.training.losses import Loss, classification

ITERATIONS = (1, 2, 3, 5, 10, 20, 50, 100)
PATCH = 24
SHOWN = 0.9
"""The constant of the i-ResNet in the picture, if it was trained; else the largest."""


@dataclass(frozen=True)
class Task:
    """Images to learn and others to reconstruct, what they are, and how often to squeeze them."""

    title: str
    train: Images
    held_out: Images
    squeezes: int

    def to_show(self, count: int) -> list[int]:
        """Ten of the first `count` images held out: one of each class where there are ten, else those of most contrast."""
        labels = self.held_out.labels[:count]
        if len(np.unique(labels)) == 10:
            return [int(np.argmax(labels == k)) for k in range(10)]
        contrast = self.held_out.x[:count].std(axis=(1, 2, 3))
        return sorted(np.argsort(-contrast)[:10].tolist())


@dataclass(frozen=True)
class Curve:
    """Largest error of a pixel and largest ‖x̂ − x‖₂ of an image after `ITERATIONS` steps a block, and [B19]'s bound on the latter.

    `images` are the reconstructions after the last.
    """

    pixel: list[float]
    norm: list[float]
    bound: list[float]
    images: Any


def tasks(options: argparse.Namespace) -> dict[str, Task]:
    """The patches that are held out come from the right quarter of each photograph, the others from the rest."""
    made = {}
    if "mnist" in options.only:
        train, held_out = split(mnist_5k(), 1000)
        made["mnist"] = Task("MNIST", train, held_out, squeezes=2)
    if "patches" in options.only:
        rng = np.random.default_rng(options.seed)
        train, held_out = (
            Images(patches(n, PATCH, rng, columns), np.arange(n) % 2, 256)
            for n, columns in ((4000, (0.0, 0.75)), (1000, (0.75, 1.0)))
        )
        made["patches"] = Task(f"natural patches, {PATCH}×{PATCH}", train, held_out, squeezes=2)
    return made


def network(task: Task, options: argparse.Namespace, like: Any) -> Classifier:
    """Squeezes, then residual blocks 3×3–1×1–3×3 with ELU; each kernel entry of variance 2/fan-in, as ResNets begin."""
    shape: tuple[int, ...] = task.train.x.shape[1:]
    steps: list[Any] = []
    for _ in range(task.squeezes):
        steps.append(ir.bijections.Squeeze(shape))
        shape = steps[-1].out_shape
    for k in range(options.blocks):
        seed = 1000 * options.seed + k
        branch = ir.convnet(shape, channels=options.channels, activation="elu", padding="circular", seed=seed, like=like)
        host = {name: to_host(p) for name, p in branch.parameters().items()}
        scale = {name: np.sqrt(2.0 / size(p.shape[1:]) / np.mean(p**2)) for name, p in host.items() if p.ndim == 4}
        first = {name: from_host(p * scale.get(name, 0.0), like) for name, p in host.items()}
        steps.append(ir.ResidualBlock(branch.with_parameters(first)))
    return Classifier.with_zero_head(steps, int(task.train.labels.max()) + 1)


def train(task: Task, lipschitz: float | None, options: argparse.Namespace) -> Classifier:
    """Return the classifier after the steps that were asked for; `lipschitz` None trains the standard ResNet."""
    made = like(options)
    settings = Settings(learning_rate=options.learning_rate, clip=1.0, warm_up=10)
    state = start(network(task, options, made), lipschitz=lipschitz, settings=settings)
    labels = get(options.backend, dtype=options.dtype).xp.asarray

    def loss(model: Classifier, step: int) -> Loss:
        rows = minibatch(len(task.train), options.batch, step, seed=options.seed)
        return classification(model, from_host(task.train.x[rows], made), labels(task.train.labels[rows], device=made.device))

    with progress(f"{task.title}, {'standard' if lipschitz is None else f'c = {lipschitz}'}", options.steps) as callback:
        return fit(state, loss, options.steps, callback=callback).model


def in_precision(model: Classifier, dtype: str, options: argparse.Namespace) -> ir.bijections.Composition:
    """The network up to its features, with its weights in `dtype`."""
    other = get(options.backend, dtype=dtype).asarray(np.zeros(1))
    steps: ir.bijections.Composition = model.steps
    return steps.with_parameters({name: from_host(to_host(p), other) for name, p in steps.parameters().items()})


def banach(steps: ir.bijections.Composition, images: Any, *, certified: bool) -> Curve:
    """Undo each block by k plain steps, for every k of `ITERATIONS`.

    The bound: x_k of a block is within ε = Lᵏ/(1 − L)·‖g(y)‖ of the preimage of y ([B19] Thm 1, x₁ − x₀ = −g(y)), and what y
    itself is off by grows by at most 1/(1 − L): E ← ε + E/(1 − L), from the last block to the first. Rounding comes on top.
    """
    flat = (len(images), -1)
    made = next(iter(steps.parameters().values()))
    truth, y = images.reshape(flat), steps(from_host(images, made))
    pixel, norm, bound = [], [], []
    for k in ITERATIONS:
        x, radius = y, np.zeros(len(images))
        for step in reversed(steps.steps):
            if isinstance(step, ir.bijections.Squeeze):
                x = step.inverse_value(x)
                continue
            g, goal = step.block.branch, x
            if certified:
                constant = step.block.contraction()
                first = np.linalg.norm(to_host(g(goal)).reshape(flat), axis=1)
                radius = constant**k / (1.0 - constant) * first + radius / (1.0 - constant)
            with np.errstate(over="ignore", invalid="ignore"):  # the standard ResNet's iterates may pass all numbers
                for _ in range(k):
                    x = goal - g(x)
        with np.errstate(over="ignore", invalid="ignore"):
            error = np.nan_to_num(np.abs(to_host(x).reshape(flat).astype(np.float64) - truth), nan=np.inf)
            pixel.append(float(error.max()))
            norm.append(float(np.linalg.norm(error, axis=1).max()))
        bound.append(float(radius.max()))
    return Curve(pixel, norm, bound if certified else [], to_host(x))


def inverted(steps: ir.bijections.Composition, images: Any) -> dict[str, Any]:
    """The inverse to the rounding floor of the least accurate image: reconstructions, their errors, and what explains them.

    `condition` is the composition's amplification estimate, per image: what a perturbation of F(x) is multiplied by.
    """
    made = next(iter(steps.parameters().values()))
    x = from_host(images, made)
    h, floors = x, []
    for step in steps.steps:
        y = step.value(h)
        if not isinstance(step, ir.bijections.Squeeze):
            floors.append(to_host(ir.bounds.rounding_floor(step.block, h, y)).max())
        h = y
    found = steps.inverse(h, options=ir.Options(rtol=float(max(floors))))
    error = np.abs(to_host(found.x).astype(np.float64) - to_host(x)).reshape(len(images), -1).max(axis=1)
    condition = to_host(steps.amplification(x)).astype(np.float64)
    return {
        "images": to_host(found.x),
        "error": error,
        "condition": condition,
        "in_units": error / (rounding.unit_roundoff(x) * condition),
        "error_bound": to_host(found.error_bound),
        "evaluations": to_host(found.evaluations),
    }


def examine(task: Task, model: Classifier, lipschitz: float | None, options: argparse.Namespace) -> dict[str, Any]:
    """Return a row of the table with the curve, and the reconstructions to show."""
    images = task.held_out.x[: options.images]
    precise, coarse = (in_precision(model, dtype, options) for dtype in ("float64", "float32"))
    blocks = [step.block for step in precise.steps if not isinstance(step, ir.bijections.Squeeze)]
    inputs = from_host(task.held_out.x, like(options))
    accuracy = float(np.mean(np.argmax(to_host(model(inputs)), axis=1) == task.held_out.labels))
    curve = banach(precise, images, certified=lipschitz is not None)
    row: dict[str, Any] = {
        "images": task.title.split(",")[0],
        "network": "standard ResNet" if lipschitz is None else f"i-ResNet, c = {lipschitz}",
        "Lip(g) ≤": max(float(block.certificate.bound) for block in blocks),
        "accuracy": accuracy,
    }
    if lipschitz is None:
        once_more = banach(coarse, images, certified=False)
        row |= {"max error, f64": curve.pixel[-1], "max error, f32": once_more.pixel[-1]}
    else:
        f64, f32 = (inverted(steps, images) for steps in (precise, coarse))
        row |= {
            "max error, f64": float(f64["error"].max()),
            "max error, f32": float(f32["error"].max()),
            "f32 in u·condition": float(f32["in_units"].max()),
            "condition": float(f32["condition"].max()),
            "evaluations a block": float(f64["evaluations"].mean() / len(blocks)),
        }
    shown = curve.images if lipschitz is None else f64["images"]
    return {"row": row, "curve": curve, "lipschitz": lipschitz, "images": shown}


def draw_images(found: dict[str, list[dict[str, Any]]], every: dict[str, Task], path: Any) -> None:
    """The picture of the paper: data, and what either network makes of its features; clipped to [0, 1]."""
    plt = pyplot()
    figure, panels = plt.subplots(len(found), 1, figsize=(8.4, 2.35 * len(found)), layout="constrained", squeeze=False)
    for panel, (name, results) in zip(panels[:, 0], found.items(), strict=True):
        held_out, standard = every[name].held_out, results[-1]
        invertible = [r for r in results if r["lipschitz"] is not None]
        ours = next((r for r in invertible if r["lipschitz"] == SHOWN), invertible[-1])
        rows = every[name].to_show(len(ours["images"]))
        lines = [("data", held_out.x, "max error")]
        lines += [(r["row"]["network"], r["images"], _figure(r["row"]["max error, f64"])) for r in (ours, standard)]
        side, gap = held_out.x.shape[-1], 2
        wall = np.ones((len(lines) * (side + gap) - gap, len(rows) * (side + gap) - gap, 3))
        for i, (_, images, _) in enumerate(lines):
            for j, row in enumerate(rows):
                tile = np.moveaxis(np.nan_to_num(images[row], nan=0.5, posinf=1.0, neginf=0.0), 0, 2).clip(0.0, 1.0)
                top, left = i * (side + gap), j * (side + gap)
                wall[top : top + side, left : left + side] = tile
        panel.imshow(wall, interpolation="nearest")
        centres = [i * (side + gap) + side / 2 for i in range(len(lines))]
        panel.set_yticks(centres, [label for label, _, _ in lines], fontsize=10)
        right = panel.secondary_yaxis("right")
        right.set_yticks(centres, [error for _, _, error in lines], fontsize=10)
        for axis in (panel, right):
            axis.tick_params(length=0)
            axis.spines[:].set_visible(False)
        panel.set_xticks([])
        panel.set_title(every[name].title, fontsize=11, loc="left")
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def _figure(error: float) -> str:
    return f"{error:.0e}" if np.isfinite(error) else "overflow"


def draw_curves(found: dict[str, list[dict[str, Any]]], every: dict[str, Task], path: Any) -> None:
    """Error against iterations for each constant, with the bound of the theory."""
    plt = pyplot()
    figure, panels = plt.subplots(1, len(found), figsize=(8.4, 3.6), sharey=True, layout="constrained", squeeze=False)
    for panel, (name, results) in zip(panels[0], found.items(), strict=True):
        colours = plt.get_cmap("viridis")(np.linspace(0.1, 0.8, max(1, len(results) - 1)))
        for result, colour in zip(results, [*colours, "#c44e52"], strict=False):
            curve, c = result["curve"], result["lipschitz"]
            label = "standard ResNet" if c is None else f"c = {c}"
            panel.plot(ITERATIONS, curve.norm, "o-", color="#c44e52" if c is None else colour, label=label, markersize=3.5)
            if c is not None:
                panel.plot(ITERATIONS, curve.bound, ":", color=colour, linewidth=1.2)
        panel.set(xscale="log", yscale="log", ylim=(1e-16, 1e10), xlabel="steps of each block", xticks=ITERATIONS, xticklabels=ITERATIONS)
        panel.minorticks_off()
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_title(every[name].title, fontsize=10)
    panels[0, 0].set_ylabel("largest ‖x̂ − x‖₂ of an image")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    bound = plt.Line2D([], [], color="#555555", linestyle=":", label="bound of the same c")
    figure.legend([*handles, bound], [*labels, bound.get_label()], loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return what `examine` found for each task, the standard ResNet last."""
    made = parser(__doc__.split("\n")[0], steps=60, batch=64, blocks=4, channels=16, images=32, learning_rate=3e-3)
    made.set_defaults(dtype="float32")  # then the weights are the same numbers when they are used in float64
    made.add_argument("--only", default="mnist,patches", help="mnist, patches")
    made.add_argument("--constants", default=".5,.7,.9,.97", help="Lip(g) of the i-ResNets")
    options = made.parse_args(arguments)
    every, found = tasks(options), {}
    for name, task in every.items():
        found[name] = []
        for c in [*(float(c) for c in options.constants.split(",")), None]:
            model = train(task, c, options)
            if c is not None:
                keep(options.folder, f"reconstruction-{name}-{c}", model)
            found[name].append(examine(task, model, c, options))
    rows = [result["row"] for results in found.values() for result in results]
    curves = {
        name: {r["row"]["network"]: [r["curve"].norm, r["curve"].bound] for r in results} for name, results in found.items()
    }
    write(options.folder, "reconstruction", rows, iterations=ITERATIONS, curves=curves, steps=options.steps, dtype=options.dtype)
    if not options.no_figure:
        draw_images(found, every, options.folder / "reconstruction.png")
        draw_curves(found, every, options.folder / "reconstruction_error.png")
    return found


if __name__ == "__main__":
    main()
