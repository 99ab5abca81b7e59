"""The audit of what the other tasks trained: a subject for every model in reports/examples/models.

    iresnet-verify audit examples/paper/audited.py:models --check-seconds 120 --html reports/examples/audit.html

Of a flow: inverse, exact log-determinant, density and samples, on held-out-like rows of the data it was trained on (behind the
logit, where there is one: a composition of the map with itself then makes sense). Of a
classifier: the same of its invertible features. Of both: the residual branch with the largest proved Lipschitz constant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from _data import Images, digits, mnist_5k
from _planar import DENSITIES
from _running import FOLDER

import iresnet_ref as ir
from iresnet_backends import load
from iresnet_ref.arrays import size
from iresnet_ref.bijections.residual import Residual
from iresnet_ref.training import State
from iresnet_verify import Subject

MODELS = FOLDER / "models"
OPTIONS = ir.Options(method="exact", rtol=1e-12)


def models(folder: Path = MODELS) -> list[Subject]:
    """The subjects of every file. Raises FileNotFoundError where no task has left one."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"audited: expected models in {folder}, got none; run make examples first")
    return [subject for file in files for subject in subjects(file.stem, load(file))]


def subjects(name: str, model: Any) -> list[Subject]:
    """The whole model, and the block with the largest Lipschitz constant."""
    model = model.averaged if isinstance(model, State) else model
    steps, inputs = model.steps, rows(model.steps, name)
    if isinstance(steps.steps[0], ir.Pad):  # what follows is onto
        steps = ir.Composition(steps.steps[1:])
        inputs = rows(steps, name)
    if isinstance(steps.steps[0], ir.Logit):  # what follows takes every x, not a bounded interval
        inputs = None if inputs is None else _through(steps.steps[0], inputs)
        steps = ir.Composition(steps.steps[1:])
    if isinstance(model, ir.Flow) and not isinstance(model.steps.steps[0], ir.Pad):
        whole = _of_flow(f"{name}: flow", replace(model, steps=steps))
    else:
        whole = _of_map(f"{name}: features", steps)
    whole = replace(whole, inputs=inputs)
    tightest = max(_blocks(steps), key=lambda block: block.certificate.bound)
    return [whole, _of_block(f"{name}: block with the largest constant", tightest)]


def rows(steps: ir.Composition, name: str) -> Any:
    """(n, rng) -> points of the density that names the model; dequantised rows of digits or MNIST where the shape is theirs, in
    (0, 1) or what a logit takes; None elsewhere."""
    points = DENSITIES.get(name.removeprefix("densities_2d-"))
    if points is not None:
        return points
    shape = steps.in_shape
    scale = float(steps.steps[0].levels) if isinstance(steps.steps[0], ir.Logit) else 1.0
    data = {64: digits, 784: mnist_5k}.get(size(shape))
    if data is None:
        return None
    found = _kept(data)  # now: a check's time is not for reading data

    def inputs(n: int, rng: np.random.Generator) -> Any:
        x = found.x[rng.integers(len(found), size=n)].reshape(n, *shape)
        return (x * (found.levels - 1) + rng.uniform(size=x.shape)) * (scale / found.levels)

    return inputs


@cache
def _kept(data: Callable[[], Images]) -> Images:
    """The data, read once in each process."""
    return data()


def _through(logit: ir.Logit, inputs: Any) -> Any:
    """The same rows behind a logit."""
    return lambda n, rng: logit.value(inputs(n, rng))


def _of_map(name: str, steps: ir.Composition) -> Subject:
    """y = F(x) with its inverse and log-determinant, y in the shape of x: a factor-out leaves a vector."""

    def shaped(y: Any) -> Any:
        return y.reshape(y.shape[0], *steps.in_shape)

    def vector(y: Any) -> Any:
        return y.reshape(y.shape[0], *steps.out_shape) if tuple(y.shape[1:]) == tuple(steps.in_shape) else y

    return Subject(
        name=name, event_shape=steps.in_shape, framework="numpy",
        forward=lambda x: shaped(steps.value(x)), inverse=lambda y: steps.preimage(vector(y), OPTIONS).x,
        log_det=lambda x: steps.forward(x, OPTIONS)[1].value, inverse_log_det=lambda y: steps.inverse(vector(y), OPTIONS)[1].value,
    )


def _of_flow(name: str, flow: ir.Flow) -> Subject:
    """The same, with the density and its samples."""
    flow = replace(flow, options=OPTIONS)
    return replace(
        _of_map(name, flow.steps), log_prob=lambda x: flow.log_prob(x).value,
        base_log_prob=lambda y: flow.base.log_prob(y.reshape(y.shape[0], *flow.base.event_shape)),
        sample=lambda n, seed=0: flow.sample(n, seed=seed, options=ir.Options()),  # to six digits: a law, not a preimage
    )


def _of_block(name: str, block: ir.ResidualBlock) -> Subject:
    """F = id + g with the proved Lip(g), everywhere."""
    shape = block.branch.event_shape
    return Subject(
        name=name, event_shape=shape, framework="numpy", forward=block, residual=block.branch, lipschitz=block.certificate.bound,
        inverse=lambda y: ir.invert(block, y, rtol=1e-12).x, log_det=lambda x: ir.logdet(block, x, method="exact").value,
    )


def _blocks(step: Any) -> Iterator[ir.ResidualBlock]:
    if isinstance(step, Residual):
        yield step.block
    for inner in (*getattr(step, "steps", ()), *([step.rest] if hasattr(step, "rest") else [])):
        yield from _blocks(inner)
