"""Six densities in the plane: i-ResNet flows learnt with our own gradients, with products of norms and with sandwich branches (bounds of
whole branches, `ir.sandwich`), beside RealNVP, Glow and FFJORD at equal budgets.

    python examples/paper/densities_2d.py                                one seed, 20 s of CPU time for each model and density
    python examples/paper/densities_2d.py --seeds 0,1,2 --seconds 20,300
    python examples/paper/densities_2d.py --backend torch:cpu --models i-ResNet --only moons --steps 500

All models have the same number of parameters, see the same points and get the same budget, CPU seconds of one thread, one
after the other on each density. Every finished run is a file in reports/examples/densities_2d/ and is not repeated: stop
when you like, continue with the same command; `--part 1 --parts 2` does every second of them, for two processes. Several
budgets, `--seconds 20,300`, show what is equal time and what is convergence. The last i-ResNet of each density stays in
reports/examples/models, for audited.py.

Writes densities_2d.md and .json: the held-out negative log-likelihood in nats with its standard error; the difference of each
model to the i-ResNet on the same points with a 95 % interval (Student's over seeds, or normal over the points of one
seed); the integral of each density by quadrature over the whole plane, and its error; how often
each network is evaluated to draw a sample (a block of the i-ResNet, the vector field of FFJORD); the largest proved Lip(g).
And densities_2d.png: data, samples and densities of the first seed.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _learnt import CLIP, Learnt, rates
from _planar import DENSITIES, Points, drawn
from _running import Rows, like, parser, progress, pyplot, write

import iresnet_ref as ir
from iresnet_backends import save
from iresnet_ref.arrays import from_host, to_host
from iresnet_ref.log_determinant.student import student_quantile
from iresnet_ref.training import minibatch
from iresnet_ref.training.loop import Settings, fit, start
from iresnet_ref.training.losses import Loss, maximum_likelihood
from iresnet_verify.statistics.quadrature import integrate

OURS, SANDWICH = "i-ResNet", "sandwich"
MODELS = (OURS, SANDWICH, "RealNVP", "Glow", "FFJORD")
LIPSCHITZ = 0.97
HELD_OUT = 5_000
SETTINGS = ("backend", "dtype", "steps", "batch", "blocks", "width", "samples", "panels", "learning_rate", "seconds", "tolerance",
            "zoom", "activation")  # fmt: skip
"""What a run depends on beside density, model and seed: its file's name ends with their digest."""
HALF, PIXELS = 4.0, 160


def flow(data: Points, options: argparse.Namespace, like: Any, *, sandwich: bool = False) -> ir.Flow:
    """Blocks on standardised data, enlarged `zoom` times; an ActNorm between any two, and one back to variance 1 at the end.

    Curvature is bounded in such a block, |g″| ≤ the norms of its layers to a power: structure as fine as a ring's width needs
    room. Enlarging costs nothing: Lip(g) does not change, and the ActNorms count it in the log-determinant.
    """
    x = from_host(data[:2048], like)
    first = ir.bijections.ActNorm.uninitialised((2,), like).initialise(x)
    steps: list[Any] = [replace(first, log_scale=first.log_scale + math.log(options.zoom))]
    for i in range(options.blocks):
        seed, width = 1000 * options.seed + i, options.width
        if sandwich:  # its scales are parameters too
            branch: ir.Branch = ir.sandwich((2, width - 1, width - 1, 2), lipschitz=LIPSCHITZ, seed=seed, like=like)
        else:
            branch = ir.mlp((2, width, width, 2), activation=options.activation, lipschitz=LIPSCHITZ, seed=seed, like=like)
        between = replace(ir.bijections.ActNorm.uninitialised((2,), like), initialised=i + 1 < options.blocks)
        steps += [ir.ResidualBlock(branch), between]
    return ir.Flow(steps).initialise(x)


def train(data: Points, options: argparse.Namespace, like: Any, kept: Path, *, sandwich: bool) -> Learnt:
    """Train an i-ResNet on minibatches of the data until the budget is spent, and keep it in a file for the audit."""
    settings = Settings(clip=CLIP)
    state = start(flow(data, options, like, sandwich=sandwich), lipschitz=LIPSCHITZ, settings=settings)
    begun = time.process_time()

    def loss(flow: ir.Flow, step: int) -> Loss:
        rows = data[minibatch(len(data), options.batch, step, seed=options.seed)]
        return maximum_likelihood(flow, from_host(rows, like), step=step)

    with progress(SANDWICH if sandwich else OURS, options.steps) as bar:
        for rate in rates(options):
            state = fit(replace(state, settings=replace(settings, learning_rate=rate)), loss, 1, callback=bar)
    seconds, model = time.process_time() - begun, state.model
    kept.parent.mkdir(parents=True, exist_ok=True)
    save(kept, model)

    def log_prob(x: Points) -> Points:
        return to_host(model.log_prob(from_host(x, like)).value).astype(np.float64)

    def sample(n: int, seed: int) -> tuple[Points, float]:
        found = model.inverse(model.base.sample(n, seed=seed))
        return to_host(found.x), float(to_host(found.evaluations).mean()) / options.blocks

    bound = max(step.block.certificate.bound for step in model.steps.steps if hasattr(step, "block"))
    return Learnt(size(model), state.step, seconds, log_prob, sample, bound)


def size(model: Any) -> int:
    return sum(math.prod(p.shape) for p in model.parameters().values())


def learn(name: str, model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train one model on one density and return all that is reported of it."""
    data, held_out = drawn(name, options.seed, 20_000, HELD_OUT)
    if model in (OURS, SANDWICH):
        kept = options.folder / "models" / f"densities_2d-{name}{'-sandwich' * (model == SANDWICH)}.safetensors"
        learnt = train(data, options, like(options), kept, sandwich=model == SANDWICH)
    else:
        from _peers import train as train_peer

        parameters = size(flow(data, options, like(options)))
        learnt = train_peer(model, data, parameters, options)
    log_p = learnt.log_prob(held_out)
    integral, change, panels, _ = integrate(
        lambda x: np.exp(learnt.log_prob(x)), data.mean(0), 2.0 * data.std(0), options.panels, 5e-4
    )
    line = (np.arange(PIXELS) + 0.5) * (2.0 * HALF / PIXELS) - HALF
    screen = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    samples, evaluations = learnt.sample(options.samples, options.seed)
    return {
        "density": name, "model": model, "seed": options.seed, "nats": -float(log_p.mean()), "integral": integral,
        "change": change, "panels": panels, "evaluations": evaluations, "lipschitz": learnt.lipschitz, "steps": learnt.steps,
        "seconds": learnt.seconds, "parameters": learnt.parameters, "log_p": log_p.tolist(),
        "picture": np.exp(learnt.log_prob(screen)).round(5).tolist(), "samples": samples.round(3).tolist(),
    }  # fmt: skip


def runs(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield every run that is asked for, from its file where there is one; models of a density follow one another."""
    folder = options.folder / "densities_2d"
    folder.mkdir(parents=True, exist_ok=True)
    budgets = [float(seconds) for seconds in options.seconds.split(",")]
    cases = list(itertools.product(budgets, map(int, options.seeds.split(",")), options.only))
    for i, (seconds, seed, name) in enumerate(cases):
        own = argparse.Namespace(**{**vars(options), "seed": seed, "seconds": seconds})
        settings = json.dumps({key: getattr(own, key) for key in SETTINGS})
        for model in options.models:
            file = folder / f"{name}-{model}-{seed}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}.json"
            if i % options.parts == options.part and not file.exists():
                found = {**learn(name, model, own), "budget": seconds}
                unfinished = file.with_suffix(".unfinished")
                unfinished.write_text(json.dumps(found), encoding="utf-8")
                unfinished.replace(file)
                print(name, model, f"seed {seed}: {found['nats']:.3f} nats after {found['steps']} steps, "
                      f"{found['seconds']:.0f} s; ∫ = {found['integral']:.5f}", flush=True)  # fmt: skip
            if file.exists():
                yield json.loads(file.read_text("utf-8"))


def interval(differences: list[Points]) -> float:
    """Return the half-width of the 95 % interval of the mean difference, one array of paired differences for each seed."""
    if len(differences) > 1:
        means = np.asarray([d.mean() for d in differences])
        return float(student_quantile(0.975, len(means) - 1) * means.std(ddof=1) / math.sqrt(len(means)))
    return float(1.96 * differences[0].std(ddof=1) / math.sqrt(differences[0].size))


def table(found: list[dict[str, Any]]) -> Rows:
    """One row for each density and model, over the seeds that there are; likelihoods for each budget, the rest for the longest."""
    rows = []
    for name in dict.fromkeys(run["density"] for run in found):
        of_name = [run for run in found if run["density"] == name]
        for model in dict.fromkeys(run["model"] for run in of_name):
            row: dict[str, Any] = {"density": name.replace("_", " "), "model": model}
            counts = []
            for budget in sorted({run["budget"] for run in found}):
                in_time = f" in {budget:g} s" if math.isfinite(budget) else ""
                of_budget = [run for run in of_name if run["budget"] == budget]
                ours = {run["seed"]: np.asarray(run["log_p"]) for run in of_budget if run["model"] == OURS}
                mine = [run for run in of_budget if run["model"] == model]
                counts.append(str(len(mine)))
                paired = [ours[run["seed"]] - np.asarray(run["log_p"]) for run in mine if run["seed"] in ours]
                row[f"nats{in_time}"] = f"{np.mean([run['nats'] for run in mine]):.3f}" if mine else "–"
                row[f"minus {OURS}{in_time}"] = (
                    f"{np.mean([d.mean() for d in paired]):+.3f} ± {interval(paired):.3f}" if model != OURS and paired else "–"
                )
            longest = max(run["budget"] for run in of_name if run["model"] == model)
            mine = [run for run in of_name if run["model"] == model and run["budget"] == longest]
            rows.append(row | {
                "seeds": ", ".join(counts),
                "|∫p − 1| ≤": f"{max(abs(run['integral'] - 1.0) for run in mine):.1e}",
                "by quadrature to": f"{max(run['change'] for run in mine):.1e}",
                "evaluations a sample": f"{np.mean([run['evaluations'] for run in mine]):.1f}",
                "Lip(g) ≤": max(run["lipschitz"] for run in mine) if model in (OURS, SANDWICH) else "–",
                "steps": round(float(np.mean([run["steps"] for run in mine]))),
                "CPU s": round(float(np.mean([run["seconds"] for run in mine]))),
                "parameters": mine[0]["parameters"],
            })  # fmt: skip
    return rows


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Columns: the densities. Rows: data, samples of the i-ResNet, then the density of each model, after the longest budget."""
    found = sorted(found, key=lambda run: (run["seed"], -run["budget"]))
    names = [name for name in DENSITIES if any(run["density"] == name for run in found)]
    models = [model for model in MODELS if any(run["model"] == model for run in found)]
    first = {(run["density"], run["model"]): run for run in reversed(found)}
    from PIL import Image

    plt = pyplot()
    rows = ["data", *([f"{OURS}\nsamples"] if OURS in models else []), *models]
    figure, axes = plt.subplots(len(rows), len(names), figsize=(1.55 * len(names), 1.55 * len(rows)), squeeze=False)
    edges = np.linspace(-HALF, HALF, PIXELS // 2 + 1)
    for column, name in zip(axes.T, names, strict=True):
        seed = min(run["seed"] for run in found if run["density"] == name)
        data = np.histogram2d(*DENSITIES[name](1_000_000, np.random.default_rng(seed)).T, bins=[edges, edges], density=True)[0]
        brightest = np.quantile(data, 0.997)
        for axis, row in zip(column, rows, strict=True):
            if row == "data":
                picture = data
            elif row in models:
                if (name, row) not in first:
                    axis.set_visible(False)
                    continue
                picture = np.asarray(first[name, row]["picture"]).reshape(PIXELS, PIXELS)
            else:
                samples = np.asarray(first[name, OURS]["samples"])
                picture = np.histogram2d(*samples.T, bins=[edges, edges], density=True)[0]
            axis.imshow(picture.T, extent=(-HALF, HALF, -HALF, HALF), origin="lower", cmap="magma", vmin=0.0, vmax=brightest)
        column[0].set_title(name.replace("_", " "), fontsize=9)
    for axis in axes.ravel():
        axis.set(xticks=[], yticks=[], aspect="equal", xlim=(-3.2, 3.2), ylim=(-3.2, 3.2))
    for axis, label in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(label, fontsize=9)
    figure.subplots_adjust(left=0.07, right=0.995, top=0.955, bottom=0.005, wspace=0.03, hspace=0.03)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)  # half the size


def some_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """Return what reads names separated by commas, and refuses others before anything is learnt."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}; got {', '.join(unknown)}")
        return names

    return read


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    numbers = {"steps": 100_000, "batch": 256, "blocks": 8, "width": 32, "samples": 10_000, "panels": 64, "part": 0, "parts": 1}
    made = parser("Six densities in the plane, learnt by i-ResNet flows and their peers.",
                  **numbers, learning_rate=5e-3, tolerance=1e-4, zoom=8.0)  # fmt: skip
    made.add_argument("--seconds", default="20", help="of CPU time for each run, or several such budgets, separated by commas")
    made.add_argument("--seeds", default="0", help="separated by commas")
    made.add_argument("--only", default=",".join(DENSITIES), type=some_of(DENSITIES), help="densities, separated by commas")
    made.add_argument("--models", default=",".join(MODELS), type=some_of(MODELS), help="separated by commas")
    made.add_argument("--activation", default="sine")
    return made.parse_args(arguments)


def main(arguments: list[str] | None = None) -> Rows:
    options = options_of(arguments)
    found = list(runs(options))
    rows = table(found)
    if options.part == 0:
        write(options.folder, "densities_2d", rows)
        if not options.no_figure:
            draw(found, options.folder / "densities_2d.png")
    return rows


if __name__ == "__main__":
    main()
