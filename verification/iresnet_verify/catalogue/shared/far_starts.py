"""Where a search for the largest stretch starts on all of ℝᵈ: steep points of every magnitude, and where layers are steep.

*Scan.* ‖J_g‖₂ by central differences at points whose norms are spread evenly in the logarithm from 1 to 300·√d: an estimate, good
to rank points. Rare steep points far out are met this way, where ascents from typical inputs end in the nearest maximum.

*Layers.* A torch layer without parameters that acts on each number by itself is measured over the line by itself. Where its
slope is largest, at t, an input is sought that brings one of its numbers to t: Newton steps x ← x + (t − z_i)∇z_i/‖∇z_i‖².
One that does not (a pooling, say) is measured by its Jacobian at a few inputs, at most 8×8 pixels of two channels, among them inputs
with one number that outweighs the others; such inputs of the whole network are starts then.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.map_errors import Rows, norms, residual, size
from iresnet_verify.subject.module_state import is_torch_module

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

FARTHEST = 300.0
DIMENSIONS = 32
"""Above, no scan: too few points of each magnitude would be affordable."""
WORK = 2**19
"""Differences of a scan × d, at most."""
LINE = np.concatenate([np.linspace(-100.0, 100.0, 20_001), np.linspace(-2.0, 2.0, 4_001), [-2e-5, 2e-5]])
"""Where a layer is measured: to .01, near 0 to .001, and beside a kink at 0."""
BANDS = 8
"""Magnitudes, evenly in the logarithm."""
CLIMB = 40
"""Random steps from the best of them, at first of length 1."""
NEWTON = 12
LARGEST_LAYER = 128
"""Numbers of the input at which a layer that mixes numbers is measured."""
PEAKS, PEAK = 4, 10.0


def scan(ctx: Context, count: int) -> HostArray:
    """Return the `count` steepest points (or fewer) of up to 4,096 of every magnitude, climbed from; none above d = 32."""
    n = min(4096, WORK // (2 * ctx.d**2)) if ctx.d <= DIMENSIONS else 0
    if n < 16 * BANDS:
        return ctx.inputs(1)[:0]
    rng, column = ctx.rng, (-1, *[1] * len(ctx.subject.event_shape))
    magnitude = np.sort(FARTHEST ** rng.uniform(size=n))
    x = (rng.standard_normal((n, *ctx.subject.event_shape)) * magnitude.reshape(column)).astype(ctx.inputs(1).dtype)
    value = _stretch(ctx, x)
    # the steepest of each magnitude: near the origin many points lead to one maximum, far out to a new one each
    bands = np.array_split(np.arange(n), BANDS)
    kept = np.concatenate([band[np.argsort(-value[band], kind="stable")[: len(band) // 16]] for band in bands])
    x, value, step = x[kept], value[kept], np.ones(len(kept))
    for _ in range(CLIMB):
        trial = (x + step.reshape(column) * rng.standard_normal(x.shape) / np.sqrt(ctx.d)).astype(x.dtype)
        found = _stretch(ctx, trial)
        better = found > value
        x[better], value[better] = trial[better], found[better]
        step *= np.where(better, 1.6, 0.8)
    return x[np.argsort(-value, kind="stable")[:count]]


def _stretch(ctx: Context, x: HostArray) -> Rows:
    """‖J_g‖₂ by central differences, to rank points by; 0 where it is not finite."""
    seed, h = ctx.caller.next_seed(), ctx.u ** (1.0 / 3.0) * size(x)
    columns = np.empty((len(x), ctx.d, ctx.d))
    for k in range(ctx.d):
        step = np.zeros((len(x), ctx.d))
        step[:, k] = h
        up, down = ((x + s * step.reshape(x.shape)).astype(x.dtype) for s in (1.0, -1.0))
        columns[:, :, k] = (residual(ctx, up, seed) - residual(ctx, down, seed)).reshape(len(x), -1) / (2.0 * h)[:, None]
    usable = np.isfinite(columns).all(axis=(1, 2))
    stretch = np.zeros(len(x))
    stretch[usable] = np.linalg.norm(columns[usable], 2, axis=(1, 2))
    return stretch


@dataclass(frozen=True)
class Steep:
    """A layer without parameters: its name, its largest slope, and where on the line that is attained; None: by no number alone."""

    name: str
    module: Any
    slope: float
    at: float | None


def steep_layers(ctx: Context) -> list[Steep]:
    """Return the layers of a torch module without parameters, measured on `LINE` or, where they mix numbers, at a few inputs."""
    module = ctx.subject.module
    if ctx.framework.name != "torch" or not is_torch_module(module):
        return []
    found = []
    with ctx.guard():
        bare = {name: layer for name, layer in module.named_modules()
                if not any(layer.children()) and not [*layer.parameters(), *layer.buffers()]}
        mixing = {}
        for name, layer in bare.items():
            measured = _on_the_line(ctx, layer)
            if measured is not None:
                found.append(Steep(name or type(layer).__name__, layer, *measured))
            else:
                mixing[name] = layer
        for name, shape in _shapes_met(ctx, mixing).items():
            slope = _of_the_jacobian(ctx, mixing[name], shape)
            if slope is not None:
                found.append(Steep(name or type(mixing[name]).__name__, mixing[name], slope, None))
    return found


def _shapes_met(ctx: Context, layers: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The event shapes at which one call of the residual passes these layers."""
    met: dict[str, tuple[int, ...]] = {}
    with ctx.guard(), ExitStack() as stack:
        for name, layer in layers.items():

            def note(_: Any, inputs: tuple[Any, ...], name: str = name) -> None:
                if len(inputs) == 1 and hasattr(inputs[0], "shape"):
                    met[name] = tuple(inputs[0].shape[1:])

            stack.callback(layer.register_forward_pre_hook(note).remove)
        if layers:
            ctx.caller.invoke("forward" if ctx.subject.residual is None else "residual", ctx.native(ctx.inputs(2)), seed=0)
    return met


def _of_the_jacobian(ctx: Context, layer: Any, shape: tuple[int, ...]) -> float | None:
    """The largest ‖J‖₂ of a layer at random inputs, at flat ones and at ones with a peak; None where it takes no smaller images."""
    import torch

    small = tuple(min(n, most) for n, most in zip(shape, (2, 8, 8), strict=False)) if len(shape) > 1 else shape
    size = int(np.prod(small, dtype=int))
    if not 0 < size <= LARGEST_LAYER:
        return None
    z = ctx.rng.standard_normal((2 + PEAKS, *small))
    z[1] = 1.0 + 1e-3 * z[1]
    z[(2, *(n // 2 for n in small))] += PEAK
    for k in range(1, PEAKS):
        z[2 + k].reshape(-1)[int(ctx.rng.integers(size))] += PEAK
    worst = 0.0
    try:
        with ctx.framework.call_context():
            for row in z.astype(ctx.inputs(1).dtype):
                J = torch.func.jacrev(layer)(ctx.native(row[None])).reshape(-1, size)
                worst = max(worst, float(torch.linalg.matrix_norm(J.double(), 2)))
    except Exception:  # a layer for other shapes, or without a gradient
        return None
    return worst if np.isfinite(worst) else None


def _on_the_line(ctx: Context, layer: Any) -> tuple[float, float] | None:
    """The largest difference quotient of a layer on the line and where; None where it does not act number by number."""
    line = LINE.astype(ctx.inputs(1).dtype)
    h = max(ctx.u ** (1.0 / 3.0), 1e-5)
    order = np.random.default_rng(0).permutation(len(line))
    try:
        with ctx.framework.call_context():
            up, down, mixed = (ctx.host(layer(ctx.native(t[:, None]))) for t in (line + h, line - h, line[order] + h))
    except Exception:  # a layer for other shapes, or for more than one argument
        return None
    if any(v.shape != (len(line), 1) for v in (up, down, mixed)) or not np.array_equal(up[order], mixed, equal_nan=True):
        return None
    slope = np.abs(up - down)[:, 0].astype(np.float64) / (2.0 * h)
    slope[~np.isfinite(slope)] = 0.0
    best = int(slope.argmax())
    return float(slope[best]), float(line[best])


def at_steep_layers(ctx: Context, count: int) -> HostArray:
    """Return up to `count` inputs for each layer that bring one of its numbers to its steepest point."""
    import torch

    x = ctx.inputs(1)[:0]
    steeps = steep_layers(ctx)
    if any(s.at is None and s.slope > 1.0 for s in steeps):
        peaks = ctx.inputs(count)
        peaks.reshape(count, -1)[np.arange(count), ctx.rng.integers(ctx.d, size=count)] += PEAK
        x = np.concatenate([x, peaks])
    for steep in steeps:
        if steep.at is None:
            continue
        point = ctx.inputs(count)
        which = ctx.rng.integers(2**31, size=count)
        try:
            for _ in range(NEWTON):
                z, slope = _number(ctx, torch, steep, point, which)
                length = norms(slope) ** 2
                step = np.where(length > 0.0, (steep.at - z) / np.where(length > 0.0, length, 1.0), 0.0)
                moved = point + step.reshape(-1, *[1] * (point.ndim - 1)) * slope
                point = np.where(np.isfinite(moved), moved, point).astype(point.dtype)
        except Exception:  # a layer that is not reached, or has no gradient, suggests nothing
            continue
        x = np.concatenate([x, point])
    return x


def _number(ctx: Context, torch: Any, steep: Steep, x: HostArray, which: HostArray) -> tuple[HostArray, HostArray]:
    """One number of what enters a layer, row by row, and its gradient in x."""
    met: list[Any] = []
    with ctx.guard(), ExitStack() as stack:
        handle = steep.module.register_forward_pre_hook(lambda _, inputs: met.append(inputs[0]))
        stack.callback(handle.remove)
        point = ctx.native(x, requires_grad=True)
        ctx.caller.invoke("forward" if ctx.subject.residual is None else "residual", point, seed=0)
        entering = met[0].reshape(len(x), -1)
        z = entering.gather(1, torch.as_tensor(which % entering.shape[1], device=entering.device)[:, None])
        (slope,) = torch.autograd.grad(z.sum(), point)
    return np.asarray(ctx.host(z), dtype=np.float64)[:, 0], np.asarray(ctx.host(slope), dtype=np.float64)
