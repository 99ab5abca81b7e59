"""The linear layers of g as it applies them: weights that a run multiplies data by, after whatever normalises them.

Two runs at different x are compared: in a product A·B, or a convolution, the factor that is the same in both is a weight, the one that
differs is data; where neither differs it is a norm that is computed. g is a chain of its layers if it does not depend on x once the
output of any one of them is held fixed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from iresnet_verify.diagnosis.case import SEED, Case
from iresnet_verify.diagnosis.hypothesis import Array, as_far_as_made
from iresnet_verify.subject.module_state import is_torch_module
from iresnet_verify.subject.subject import HostArray

LARGEST = 1500
"""Numbers of an image of which the operator of a convolution is written out as a matrix."""
MOST = 12
"""Layers of a branch, at most."""
PADDED = ("constant", "wrap", "reflect", "edge")


@dataclass(frozen=True)
class Layer:
    """One layer of g."""

    weight: Array
    """The matrix (out, in), or the kernel (out, in, height, width), as it is used."""
    matrix: Array
    """The map, written out."""

    @property
    def norm(self) -> float:
        """Its spectral norm."""
        return float(np.linalg.norm(self.matrix, 2))


@dataclass(frozen=True)
class _Step:
    """A product that a run makes: its factors, and how they are put together."""

    kind: str
    left: Any
    right: Any
    options: tuple[Any, ...] = ()


def layers(case: Case) -> list[Layer]:
    """The layers of which g is a chain, first to last; none where it is none, no torch module's, or cannot be watched."""
    return next(as_far_as_made(_layers(case)), [])


def _layers(case: Case) -> Iterator[list[Layer]]:
    module = case.ctx.subject.module
    if not is_torch_module(module) or case.ctx.framework.name != "torch":
        return
    first, _ = _run(case, case.x)
    second, _ = _run(case, (0.7 * case.x[::-1]).astype(case.x.dtype))
    if len(first) != len(second):
        return
    found: list[Layer] = []
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        layer = _layer(a, b)
        if layer is None:
            continue
        found.append(layer)
        _, g = _run(case, case.x, held=i)
        if len(found) > MOST or np.abs(g - g[:1]).max() > 1e-9 * (1.0 + np.abs(g).max()):
            return
    yield found


def _run(case: Case, x: HostArray, held: int | None = None) -> tuple[list[_Step], Array]:
    """The products of a run of g, and g(x); with the output of number `held` the same for all rows."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    steps: list[_Step] = []

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not annotate it
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name, result = func.overloadpacket.__name__, func(*args, **(kwargs or {}))
            pair = {"mm": args[:2], "addmm": args[1:3], "convolution": args[:2]}.get(name)
            if pair is not None:
                steps.append(_Step(name, pair[0].detach().clone(), pair[1].detach().clone(), tuple(args[3:])))
                if held == len(steps) - 1:
                    return torch.ones_like(result)
            return result

    ctx = case.ctx
    name = "forward" if ctx.subject.residual is None else "residual"
    watch = Watch()  # type: ignore[no-untyped-call]  # torch does not annotate it
    with ctx.guard(), torch.no_grad(), watch:
        native = ctx.native(x)
        value = ctx.caller.event(name, native, seed=SEED)[0]
    g = ctx.host(value).astype(np.float64).reshape(len(x), -1)
    return steps, g - (x.reshape(len(x), -1) if name == "forward" else 0.0)


def _layer(a: _Step, b: _Step) -> Layer | None:
    """The layer that two runs make of one product; None where both of its factors are data, or neither is."""
    same = [p.shape == q.shape and bool(p.equal(q)) for p, q in ((a.left, b.left), (a.right, b.right))]
    if a.kind != b.kind or same[0] == same[1]:
        return None
    if a.kind != "convolution":
        weight = a.left if same[0] else a.right.T
        matrix = weight.double().cpu().numpy()
        return Layer(matrix, matrix)
    return None if same[0] else _convolution(a)


def _convolution(step: _Step) -> Layer | None:
    """The convolution on the grid of its input, without the border that padded it."""
    import torch

    stride, padding, dilation, transposed, _, groups = step.options
    z, kernel = step.left.double(), step.right.double()
    if transposed or groups != 1 or kernel.ndim != 4:
        return None
    border, mode = _border(z.cpu().numpy(), kernel.shape[2] // 2 if not any(padding) else 0)
    shape = (z.shape[1], z.shape[2] - 2 * border, z.shape[3] - 2 * border)
    size = int(np.prod(shape))
    if size > LARGEST:
        return None
    basis = np.eye(size).reshape(size, *shape)
    padded = np.pad(basis, ((0, 0), (0, 0), (border, border), (border, border)), mode=mode) if border else basis  # type: ignore[call-overload]
    image = torch.nn.functional.conv2d(torch.tensor(padded), kernel, None, stride, padding, dilation)
    return Layer(kernel.cpu().numpy(), image.reshape(size, -1).T.cpu().numpy())


def _border(z: Array, width: int) -> tuple[int, str]:
    """(width, mode) of the border that was put around images."""
    if width and min(z.shape[2:]) > 3 * width:
        inner = z[:, :, width:-width, width:-width]
        for mode in PADDED:
            if np.array_equal(np.pad(inner, ((0, 0), (0, 0), (width, width), (width, width)), mode=mode), z):  # type: ignore[call-overload]
                return width, mode
    return 0, ""
