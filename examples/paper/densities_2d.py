"""Six densities in the plane, each learnt by an i-ResNet flow with our own gradients: no autodiff, any backend.

    python examples/densities_2d.py                                  all six on NumPy, about two minutes each
    python examples/densities_2d.py --backend torch:cpu --steps 500 --only moons,rings

Writes `densities_2d.png` (data, samples, learnt density) and `densities_2d.json` to reports/examples/. The table: negative
log-likelihood of held-out data in nats with its standard error, the integral of the density over the plane by quadrature
and by how much halving the panels changes it, the largest proved Lip(g), and the seconds spent. With `--seconds` training
stops at the first step after that time; checkpoints make a killed run continue (`--resume`, needs the extra `saving`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import iresnet_ref as ir
from iresnet_backends import checkpoint, get, resume
from iresnet_ref.arrays import from_host, to_host
from iresnet_ref.training import Loss, Settings, State, fit, maximum_likelihood, minibatch, start
from iresnet_verify.catalogue.quadrature import integrate

Points = NDArray[np.float64]
FOLDER = Path(__file__).resolve().parents[2] / "reports" / "examples"
LIPSCHITZ = 0.97


def eight_gaussians(n: int, rng: np.random.Generator) -> Points:
    angle = rng.integers(8, size=n) * np.pi / 4.0
    return 2.0 * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.2 * rng.standard_normal((n, 2))


def checkerboard(n: int, rng: np.random.Generator) -> Points:
    x, y = rng.uniform(-2.0, 2.0, n), rng.uniform(0.0, 1.0, n) + rng.integers(2, size=n) * 2.0 - 2.0
    return np.stack([x, y + np.floor(x) % 2.0], 1)


def moons(n: int, rng: np.random.Generator) -> Points:
    angle, side = rng.uniform(0.0, np.pi, n), rng.integers(2, size=n) * 2.0 - 1.0
    x, y = side * (np.cos(angle) - 0.5), side * (np.sin(angle) - 0.25)
    return 1.5 * np.stack([x, y], 1) + 0.12 * rng.standard_normal((n, 2))


def rings(n: int, rng: np.random.Generator) -> Points:
    angle, radius = rng.uniform(0.0, 2.0 * np.pi, n), rng.integers(1, 5, size=n) * 0.6
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.06 * rng.standard_normal((n, 2))


def two_spirals(n: int, rng: np.random.Generator) -> Points:
    angle, side = 3.0 * np.pi * np.sqrt(rng.uniform(size=n)), rng.integers(2, size=n) * 2.0 - 1.0
    radius = side * angle / 4.0
    return np.stack([-radius * np.cos(angle), radius * np.sin(angle)], 1) + 0.1 * rng.standard_normal((n, 2))


def pinwheel(n: int, rng: np.random.Generator) -> Points:
    radius, across = 1.0 + 0.3 * rng.standard_normal(n), 0.1 * rng.standard_normal(n)
    angle = rng.integers(5, size=n) * 2.0 * np.pi / 5.0 + 0.25 * np.exp(radius)
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], 1).reshape(n, 2, 2)
    return 2.0 * np.einsum("ni,nij->nj", np.stack([radius, across], 1), turn) / 1.5


DENSITIES: dict[str, Callable[[int, np.random.Generator], Points]] = {
    f.__name__: f for f in (eight_gaussians, checkerboard, moons, rings, two_spirals, pinwheel)
}


class OutOfTimeError(Exception):
    """Carries the state at which the time was spent."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state = state


def flow(like: Any, blocks: int, width: int, seed: int) -> ir.Flow:
    """An ActNorm before every block, and one at the end."""
    steps: list[Any] = []
    for i in range(blocks):
        branch = ir.mlp((2, width, width, 2), lipschitz=LIPSCHITZ, seed=1000 * seed + i, like=like)
        steps += [ir.ActNorm.fresh((2,), like), ir.ResidualBlock(branch)]
    return ir.Flow([*steps, ir.ActNorm.fresh((2,), like)])


def train(data: Points, options: argparse.Namespace, like: Any, path: Path | None) -> State:
    """Train on minibatches of the data until the steps or the seconds are spent."""
    settings = Settings(learning_rate=options.learning_rate, clip=10.0, warm_up=20, average=0.99)
    model = flow(like, options.blocks, options.width, options.seed).initialise(from_host(data[:512], like))
    state = start(model, lipschitz=LIPSCHITZ, settings=settings)
    state = state if path is None else resume(path, state)
    keep = None if path is None else checkpoint(path, every=100)
    begun = time.perf_counter()

    def loss(flow: ir.Flow, step: int) -> Loss:
        rows = data[minibatch(len(data), options.batch, step, seed=options.seed)]
        return maximum_likelihood(flow, from_host(rows, like), step=step)

    def callback(state: State, value: float) -> None:
        if keep is not None:
            keep(state, value)
        if state.step % 200 == 0:
            print(f"  step {state.step}: {value:.3f} nats", flush=True)
        if time.perf_counter() - begun > options.seconds:
            raise OutOfTimeError(state)

    try:
        return fit(state, loss, max(0, options.steps - state.step), callback=callback)
    except OutOfTimeError as late:
        return late.state


def evaluate(flow: ir.Flow, data: Points, like: Any, panels: int) -> dict[str, float]:
    """Return the held-out negative log-likelihood, the integral of the density, and the certificate."""
    log_p = to_host(flow.log_prob(from_host(data, like)).value)

    def density(x: Points) -> Points:
        return np.exp(to_host(flow.log_prob(from_host(x, like)).value).astype(np.float64))

    integral, change, _, _ = integrate(density, data.mean(0), 2.0 * data.std(0), panels, 1e-4)
    bound = max(step.block.certificate.bound for step in flow.steps.steps if hasattr(step, "block"))
    error = float(log_p.std(ddof=1) / np.sqrt(len(log_p)))
    return {"nats": -float(log_p.mean()), "standard_error": error, "integral": integral, "change": change, "lipschitz": bound}


def draw(pictures: dict[str, tuple[Points, Points, Points]], half: float, path: Path) -> None:
    """Write data, samples and density of each name side by side."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(3, len(pictures), figsize=(2.2 * len(pictures), 6.6), squeeze=False)
    for column, (name, panels) in zip(axes.T, pictures.items(), strict=True):
        for axis, points in zip(column, panels[:2], strict=False):
            axis.hist2d(points[:, 0], points[:, 1], bins=100, range=[[-half, half]] * 2, cmap="magma")
        column[2].imshow(panels[2].T, extent=(-half, half, -half, half), origin="lower", cmap="magma")
        column[0].set_title(name.replace("_", " "))
    for axis in axes.ravel():
        axis.set(xticks=[], yticks=[], aspect="equal")
    for axis, label in zip(axes[:, 0], ("data", "samples", "density"), strict=True):
        axis.set_ylabel(label)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description="Six densities in the plane, learnt by i-ResNet flows.")
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--dtype", default="float64")
    parser.add_argument("--only", default=",".join(DENSITIES), help="names, separated by commas")
    for name, value in {"steps": 1500, "batch": 256, "blocks": 8, "width": 32, "seed": 0, "samples": 20_000, "panels": 32}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seconds", type=float, default=np.inf, help="of training for each density")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--resume", action="store_true", help="keep checkpoints in the folder and continue from them")
    parser.add_argument("--no-figure", action="store_true")
    options = parser.parse_args(arguments)
    like = get(options.backend, dtype=options.dtype).asarray(np.zeros(1))
    options.folder.mkdir(parents=True, exist_ok=True)
    table: dict[str, dict[str, float]] = {}
    pictures, half, pixels = {}, 4.0, 160
    line = (np.arange(pixels) + 0.5) * (2.0 * half / pixels) - half
    screen = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    for name in options.only.split(","):
        rng = np.random.default_rng([options.seed, list(DENSITIES).index(name)])
        data, held_out = DENSITIES[name](20_000, rng), DENSITIES[name](5_000, rng)
        begun = time.perf_counter()
        state = train(data, options, like, options.folder / f"{name}.safetensors" if options.resume else None)
        seconds = time.perf_counter() - begun
        model = state.averaged
        table[name] = {**evaluate(model, held_out, like, options.panels), "steps": state.step, "seconds": round(seconds, 1)}
        print(name, *(f"{key} {value:.4g}" for key, value in table[name].items()), sep="  ", flush=True)
        if not options.no_figure:
            picture = np.exp(to_host(model.log_prob(from_host(screen, like)).value)).reshape(pixels, pixels)
            pictures[name] = (data, to_host(model.sample(options.samples, seed=options.seed)), picture)
    if pictures:
        draw(pictures, half, options.folder / "densities_2d.png")
    (options.folder / "densities_2d.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return table


if __name__ == "__main__":
    main()
