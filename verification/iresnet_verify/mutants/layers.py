"""Mistakes in the norm of a single linear layer, claimed layer by layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.mutants.networks import Residual
from iresnet_verify.subject.subject import Subject

C, GRID, CLAIMED = 2, 6, 0.8


class Strided(nn.Module):
    """x + A₂ φ(A₁x): A₁ a convolution with stride 2, A₂ its transpose, both divided by the norm of A₁ that `norm` gives."""

    def __init__(self, seed: int, how: str) -> None:
        super().__init__()
        made = torch.Generator().manual_seed(seed)
        kernel = torch.randn(4, C, 3, 3, generator=made, dtype=torch.float64)
        self.kernel = nn.Parameter(kernel * math.sqrt(CLAIMED) / norm_of(kernel, how))

    def down(self, x: Tensor) -> Tensor:
        """A₁x."""
        return nn.functional.conv2d(x, self.kernel, stride=2, padding=1)

    def up(self, z: Tensor) -> Tensor:
        """A₂z = A₁ᵀz."""
        return nn.functional.conv_transpose2d(z, self.kernel, stride=2, padding=1, output_padding=1)

    def g(self, x: Tensor) -> Tensor:
        """Return A₂ tanh(A₁x)."""
        return self.up(torch.tanh(self.down(x)))

    def forward(self, x: Tensor) -> Tensor:
        """Return x + g(x)."""
        return x + self.g(x)


def norm_of(kernel: Tensor, how: str) -> Tensor:
    """The norm of A₁, right ("operator") or mistaken in a known way."""
    grid, stride, padding = {"small grid": 2}.get(how, GRID), {"stride 4": 4}.get(how, 2), {"no padding": 0}.get(how, 1)
    if how == "kernel":
        return torch.linalg.matrix_norm(kernel.reshape(len(kernel), -1), 2)
    n = C * grid * grid
    a = nn.functional.conv2d(torch.eye(n, dtype=kernel.dtype).reshape(n, C, grid, grid), kernel, stride=stride, padding=padding)
    a = a.reshape(n, -1).T
    if how == "one iteration":
        v = torch.ones(n, dtype=kernel.dtype)
        return (a @ (v / v.norm())).norm()
    return torch.linalg.matrix_norm(a, 2)


def strided(how: str, claimed: bool = True) -> Factory:
    """A block that shows its layers, each with the norm it was divided for."""

    def build(seed: int) -> Subject:
        block = Strided(seed, how)
        c = (math.sqrt(CLAIMED),) if claimed else ()
        return Subject(
            name=f"strided, {how}", event_shape=(C, GRID, GRID), forward=block, residual=block.g, module=block, lipschitz=CLAIMED,
            modes=("eval",),
            linear_maps=lambda: [("down", block.down, (C, GRID, GRID), *c), ("up", block.up, (4, GRID // 2, GRID // 2), *c)],
        )

    return build


def one_layer_too_large(seed: int) -> Subject:
    """The second layer has 1.05 of its norm, the first is small: the product keeps L, and the layer breaks its own claim."""
    module, c = Residual(3, 0.8, seed, torch.float64), math.sqrt(0.8)
    with torch.no_grad():
        module.first.mul_(0.9)
        module.last.mul_(1.05)
    return Subject(
        name="one layer", event_shape=(3,), forward=module, residual=module.g, module=module, lipschitz=0.8, modes=("eval",),
        linear_maps=lambda: [("first", lambda v: v @ module.first.T, (3,), c), ("last", lambda v: v @ module.last.T, (16,), c)],
    )


MUTANTS = table("layers", {
    "norm of the reshaped kernel": ("lipschitz.layers", strided("kernel")),
    "norm at a smaller grid": ("lipschitz.layers", strided("small grid")),
    "norm with another stride": ("lipschitz.layers", strided("stride 4")),
    "norm without the padding": ("lipschitz.layers", strided("no padding")),
    "norm by one power iteration": ("lipschitz.layers", strided("one iteration")),
    "one layer above its own norm, the product below": ("lipschitz.layers", one_layer_too_large),
})
