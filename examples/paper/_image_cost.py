"""What the whole of a recipe would take: one training step of one block of each scale, measured, times their number.

Extrapolation, linear in three things: the steps, the blocks of each scale, and the rows of a batch (from two measured batches: the
part that does not depend on them is the certificate and the optimiser). Nothing else is extrapolated: channels and
image sizes are those of the recipe.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from _recipes import Dense, Recipe, Scale, options

import iresnet_ref as ir
from iresnet_ref.arrays import from_host, to_host
from iresnet_ref.training.loop import fit, start
from iresnet_ref.training.losses import maximum_likelihood

ROWS = (1, 6)
"""The batches that are measured."""


def extrapolated(recipe: Recipe, event_shape: tuple[int, ...], like: Any) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Return one row for each kind of block, and the seconds of a step and core-hours of the whole recipe."""
    rows, total = [], 0.0
    for name, count, make, shape in kinds(recipe, event_shape, like):
        few, many = (step_seconds(make(), shape, n, recipe, like) for n in ROWS)
        per_row = max(0.0, (many - few) / (ROWS[1] - ROWS[0]))
        fixed = max(0.0, few - ROWS[0] * per_row)
        seconds = count * (fixed + recipe.training.batch * per_row)
        rows.append({"block": name, "blocks": count, "s for each image": per_row, "s besides": fixed, "s a step": seconds})
        total += seconds
    steps, batch = recipe.training.steps, recipe.training.batch
    return rows, {"seconds a step": total, "steps": steps, "batch": batch, "core-hours": total * steps / 3600.0}


def kinds(
    recipe: Recipe, shape: tuple[int, ...], like: Any
) -> list[tuple[str, int, Callable[[], ir.ResidualBlock], tuple[int, ...]]]:
    """Return (name, how many, one of them, its events) for each scale and for the dense blocks."""
    found: list[tuple[str, int, Callable[[], ir.ResidualBlock], tuple[int, ...]]] = []
    numbers = int(np.prod(shape))

    def convolutional(shape: tuple[int, ...], scale: Scale) -> Callable[[], ir.ResidualBlock]:
        common: dict[str, Any] = {"activation": recipe.activation, "lipschitz": recipe.lipschitz, "like": like}
        return lambda: ir.ResidualBlock(ir.convnet(shape, channels=scale.channels, kernels=scale.kernels, **common))

    def dense(part: Dense) -> ir.ResidualBlock:
        return ir.ResidualBlock(ir.mlp((numbers, part.width, numbers), activation=recipe.activation, lipschitz=recipe.lipschitz, like=like))

    for scale in recipe.scales:
        channels, height, width = shape
        shape = (4 * channels, height // 2, width // 2) if scale.squeeze else shape
        kernels = "–".join(str(k) for k in scale.kernels)
        name = f"{kernels} on {'×'.join(map(str, shape))}, {scale.channels} channels"
        found.append((name, scale.blocks, convolutional(shape, scale), shape))
        shape = (shape[0] - shape[0] // 2, *shape[1:]) if scale.factor_out else shape
    if recipe.dense.blocks:
        found.append((f"dense {numbers}, width {recipe.dense.width}", recipe.dense.blocks, lambda: dense(recipe.dense), (numbers,)))
    return found


def step_seconds(block: ir.ResidualBlock, shape: tuple[int, ...], rows: int, recipe: Recipe, like: Any) -> float:
    """Return the processor's seconds of one step on this block alone, behind an ActNorm: the least of two.

    The series has as many terms as the recipe expects of the roulette, so that two batches differ by their rows alone.
    """
    x = from_host(np.random.default_rng(0).standard_normal((rows, *shape)), like)
    flow = ir.Flow([ir.bijections.ActNorm.uninitialised(shape, like), block]).initialise(x)
    state = start(flow, lipschitz=recipe.lipschitz)
    estimate = options(replace(recipe.training, estimator="series"), recipe.lipschitz)
    found = []
    for _ in range(2):
        begun = time.process_time()
        state = fit(state, lambda flow, step: maximum_likelihood(flow, x, step=step, options=estimate), 1)
        to_host(state.model.parameters()["0.shift"])  # the certificate of the new weights included, and whatever is still running
        found.append(time.process_time() - begun)
    return min(found)
