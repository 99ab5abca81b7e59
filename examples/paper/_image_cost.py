"""What the whole of a recipe would take on a backend, predicted: its steps are counted, the backend's rates are measured.

One training step of the blocks of each scale, at the recipe's batch, is counted on torch's device without numbers and predicted from the
rates of the backend (`iresnet_verify.machine.prediction`; docs/cost-model.md says how good that is); what is multiplied is the number of
blocks and of steps. Measured beside it: the proof of one block, which runs on the host, once in `certify_every` steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from _recipes import Dense, Recipe, Scale, options, settings

import iresnet_ref as ir
from iresnet_backends import Backend, get
from iresnet_ref.training import State, maximum_likelihood, start
from iresnet_ref.training.normalised_model import AWAITED, NormalisedModel
from iresnet_ref.training.optimiser import Moments
from iresnet_verify.machine.counting import Count, on_meta, training_step
from iresnet_verify.machine.prediction import Rates


def predicted(recipe: Recipe, event_shape: tuple[int, ...], backend: Backend) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Return one row for each kind of block, and the seconds and the memory of a step and the hours of the whole recipe."""
    rates, rows, kept, besides = Rates(backend), list[dict[str, Any]](), 0, 0
    every = max(2, recipe.training.certify_every)
    for name, count, make, shape in kinds(recipe, event_shape, get("torch:cpu", recipe.dtype).asarray(np.zeros(1))):
        state = begun(make(), shape, recipe, every)
        proof = proof_seconds(state)
        one, two = (step_count(repeated(state, copies), shape, recipe) for copies in (1, 2))
        found = rates.predicted(one)
        rows.append({
            "block": name, "blocks": count, "Gflop": one.flops / 1e9, "GB": one.bytes / 1e9, "calls": one.calls,
            "s of products": found.products, "of the rest": found.seconds - found.products, "of a proof": proof,
            "s a step": count * (found.seconds + proof / every), "GB kept": (two.peak - one.peak) / 1e9,
        })  # fmt: skip
        kept, besides = kept + count * (two.peak - one.peak), max(besides, 2 * one.peak - two.peak)
    steps, total = recipe.training.steps, sum(row["s a step"] for row in rows)
    return rows, {
        "seconds a step": total, "steps": steps, "batch": recipe.training.batch, "hours": total * steps / 3600.0,
        "GB of memory": (kept + besides) / 1e9,
    }  # fmt: skip


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


def begun(block: ir.ResidualBlock, shape: tuple[int, ...], recipe: Recipe, every: int) -> State:
    """Return the beginning of a training of this block alone, behind an ActNorm, on the host."""
    like = next(iter(block.branch.parameters().values()))
    rows = get("torch:cpu", recipe.dtype).asarray(np.random.default_rng(0).standard_normal((2, *shape)))
    flow = ir.Flow([ir.bijections.ActNorm.uninitialised(shape, like), block]).initialise(rows)
    return start(flow, lipschitz=recipe.lipschitz, settings=replace(settings(recipe.training), certify_every=every))


def repeated(state: State, copies: int) -> State:
    """Return the same training of so many such blocks one behind the other, on the device without numbers."""
    models = [on_meta(state).normalised for _ in range(copies)]
    prefixes = [(f"{2 * i + 1}.", model) for i, model in enumerate(models)]
    raw = ir.Flow([step for model in models for step in model.raw.steps.steps])
    warm = {prefix: model.warm["1."] for prefix, model in prefixes}
    normalised = NormalisedModel(raw, state.normalised.lipschitz, warm, {p: model.estimates["1."] for p, model in prefixes}, AWAITED)
    parameters = normalised.parameters()
    return State(normalised, state.settings, Moments.zero(parameters), parameters if state.settings.average else {})


def step_count(state: State, shape: tuple[int, ...], recipe: Recipe) -> Count:
    """Return the count of a step at the recipe's batch."""
    import torch

    x = torch.empty((recipe.training.batch, *shape), dtype=getattr(torch, recipe.dtype), device="meta")
    estimate = options(recipe.training, recipe.lipschitz)
    return training_step(state, lambda flow, step: maximum_likelihood(flow, x, step=step, options=estimate, check=False))


def proof_seconds(state: State) -> float:
    """Return the seconds of the processor for the proof of weights near those that were proved last."""
    near = state.normalised.with_parameters({k: 1.001 * p for k, p in state.normalised.parameters().items()})
    started = time.process_time()
    near.require_certified()
    return time.process_time() - started
