"""The audit of what the other tasks trained: subjects for every model in reports/examples/models, and in large-models.

    iresnet-verify audit examples/paper/audited.py:models --check-seconds 300 --html reports/examples/audit.html
    iresnet-verify audit examples/paper/audited.py:large_models --budget quick --check-seconds 600

Of a flow: inverse, exact log-determinant, density and samples, on held-out-like rows of the data it was trained on (behind the
logit, where there is one: a composition of the map with itself then makes sense). Of a
classifier: the same of its invertible features. Of both: the residual branch with the largest proved Lipschitz constant.
Large models (more than 256 numbers an event) are audited in float64 on torch, whose reverse passes give Jacobians of that size;
their log-determinant, which takes the reference minutes a batch there, is not among the promises.
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
from _running import EXACT_UP_TO, FOLDER

import iresnet_ref as ir
from iresnet_backends import get, load
from iresnet_ref.arrays import from_host, size, to_host
from iresnet_ref.flows.bijections.residual import Residual
from iresnet_ref.training.loop import State
from iresnet_verify import Subject

OPTIONS = ir.Options(logdet="exact", rtol=1e-12)


def models(folder: Path = FOLDER / "models") -> list[Subject]:
    """The subjects of every file. Raises FileNotFoundError where no task has left one."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"audited: expected models in {folder}, got none; run make examples first")
    return [subject for file in files for subject in subjects(file.stem, load(file))]


def large_models() -> list[Subject]:
    """The same for the models whose determinants are too large."""
    return models(FOLDER / "large-models")


def subjects(name: str, model: Any) -> list[Subject]:
    """The whole model, and the block with the largest Lipschitz constant."""
    model = model.averaged if isinstance(model, State) else model
    large = size(model.steps.in_shape) > EXACT_UP_TO
    steps, inputs = _on_torch(model.steps) if large else model.steps, rows(model.steps, name)
    if isinstance(steps.steps[0], ir.bijections.ZeroPad):  # what follows is onto
        steps = ir.bijections.Composition(steps.steps[1:])
        inputs = rows(steps, name)
    if isinstance(steps.steps[0], ir.bijections.Logit):  # what follows takes every x, not a bounded interval
        inputs = None if inputs is None else _through(steps.steps[0], inputs)
        steps = ir.bijections.Composition(steps.steps[1:])
    if large:
        whole = _of_map(f"{name}: {'flow' if isinstance(model, ir.Flow) else 'features'}", steps)
    elif isinstance(model, ir.Flow) and not isinstance(model.steps.steps[0], ir.bijections.ZeroPad):
        whole = _of_flow(f"{name}: flow", replace(model, steps=steps))
    else:
        whole = _with_log_det(f"{name}: features", steps)
    tightest = max(_blocks(steps), key=lambda block: block.certificate.bound)
    made = [replace(whole, inputs=inputs), _of_block(f"{name}: block with the largest constant", tightest, log_det=not large)]
    return [replace(subject, framework="torch" if large else "numpy") for subject in made]


def rows(steps: ir.bijections.Composition, name: str) -> Any:
    """(n, rng) -> points of the density that names the model; dequantised rows of digits or MNIST where the shape is theirs, in
    (0, 1) or what a logit takes; None elsewhere."""
    points = DENSITIES.get(name.removeprefix("densities_2d-"))
    if points is not None:
        return points
    shape = steps.in_shape
    scale = float(steps.steps[0].levels) if isinstance(steps.steps[0], ir.bijections.Logit) else 1.0
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


def _through(logit: ir.bijections.Logit, inputs: Any) -> Any:
    """The same rows behind a logit."""
    return lambda n, rng: logit.value(inputs(n, rng))


def _on_torch(steps: ir.bijections.Composition) -> ir.bijections.Composition:
    """The steps with their parameters as float64 tensors."""
    like = get("torch:cpu", dtype="float64").asarray(np.zeros(1))
    return steps.with_parameters({name: from_host(to_host(p).astype(np.float64), like) for name, p in steps.parameters().items()})


def _of_map(name: str, steps: ir.bijections.Composition) -> Subject:
    """y = F(x) with its inverse, y in the shape of x: a factor-out leaves a vector."""
    return Subject(
        name=name, event_shape=steps.in_shape, forward=lambda x: _event(steps.value(x), steps.in_shape),
        inverse=lambda y: steps.inverse(_event(y, steps.out_shape), options=OPTIONS).x,
    )


def _with_log_det(name: str, steps: ir.bijections.Composition) -> Subject:
    """The same with its exact log-determinants."""
    return replace(
        _of_map(name, steps), log_det=lambda x: steps.forward(x, options=OPTIONS)[1].value,
        inverse_log_det=lambda y: steps.inverse(_event(y, steps.out_shape), OPTIONS)[1].value,
    )


def _of_flow(name: str, flow: ir.Flow) -> Subject:
    """The same, with the density and its samples."""
    flow = replace(flow, options=OPTIONS)
    return replace(
        _with_log_det(name, flow.steps), log_prob=lambda x: flow.log_prob(x).value,
        base_log_prob=lambda y: flow.base.log_prob(_event(y, flow.base.event_shape)),
        sample=lambda n, seed=0: flow.sample(n, seed=seed, options=ir.Options()),  # to six digits: a law, not a preimage
    )


def _of_block(name: str, block: ir.ResidualBlock, *, log_det: bool) -> Subject:
    """F = id + g with the proved Lip(g), everywhere."""
    return Subject(
        name=name, event_shape=block.branch.event_shape, forward=block, residual=block.branch,
        lipschitz=block.certificate.bound, inverse=lambda y: ir.invert(block, y, rtol=1e-12).x,
        log_det=(lambda x: ir.logdet(block, x, method="exact").value) if log_det else None,
    )


def _event(x: Any, shape: tuple[int, ...]) -> Any:
    """The rows of x in another shape."""
    return x.reshape(x.shape[0], *shape)


def _blocks(step: Any) -> Iterator[ir.ResidualBlock]:
    if isinstance(step, Residual):
        yield step.block
    for inner in (*getattr(step, "steps", ()), *([step.rest] if hasattr(step, "rest") else [])):
        yield from _blocks(inner)
