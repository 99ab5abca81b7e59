"""Mistakes of the spectral norm of a convolution: the norm is that of the operator on the grid it is used on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.subject.subject import Subject

Norm = Callable[[Tensor], Tensor]
L, CHANNELS, GRID = 0.9, 2, 5


def matrix(kernel: Tensor, grid: int) -> Tensor:
    """The zero-padded convolution on grid × grid images as a matrix."""
    n = kernel.shape[1] * grid * grid
    basis = torch.eye(n, dtype=kernel.dtype).reshape(n, kernel.shape[1], grid, grid)
    return nn.functional.conv2d(basis, kernel, padding=kernel.shape[2] // 2).reshape(n, -1).T


def true_norm(kernel: Tensor) -> Tensor:
    """‖A‖₂ on the grid in use."""
    return torch.linalg.matrix_norm(matrix(kernel, GRID), 2)


def reshaped(kernel: Tensor) -> Tensor:
    """The norm of the kernel reshaped to a matrix (out, in·k·k)."""
    return torch.linalg.matrix_norm(kernel.reshape(kernel.shape[0], -1), 2)


def another_grid(kernel: Tensor) -> Tensor:
    """The norm on 2 × 2 images."""
    return torch.linalg.matrix_norm(matrix(kernel, 2), 2)


def unpadded(kernel: Tensor) -> Tensor:
    """The norm of the convolution without padding."""
    n = CHANNELS * GRID * GRID
    basis = torch.eye(n, dtype=kernel.dtype).reshape(n, CHANNELS, GRID, GRID)
    return torch.linalg.matrix_norm(nn.functional.conv2d(basis, kernel).reshape(n, -1), 2)


def strided(kernel: Tensor) -> Tensor:
    """The norm of every second row and column of the result."""
    n = CHANNELS * GRID * GRID
    basis = torch.eye(n, dtype=kernel.dtype).reshape(n, CHANNELS, GRID, GRID)
    return torch.linalg.matrix_norm(nn.functional.conv2d(basis, kernel, padding=1, stride=2).reshape(n, -1), 2)


def two_iterations(kernel: Tensor) -> Tensor:
    """Two power iterations from one pixel in a corner."""
    a = matrix(kernel, GRID)
    v = torch.zeros(a.shape[1], dtype=a.dtype)
    v[0] = 1.0
    for _ in range(2):
        u = a @ v
        v = a.T @ (u / u.norm())
        v = v / v.norm()
    return (a @ v).norm()


def transposed_padding(kernel: Tensor) -> Tensor:
    """A hundred power iterations whose transposed convolution is cropped at a corner, where the padding took both sides."""
    v = torch.ones(1, CHANNELS, GRID, GRID, dtype=kernel.dtype)
    for _ in range(100):
        u = nn.functional.conv2d(v, kernel, padding=1)
        v = nn.functional.conv_transpose2d(u, kernel)[..., :GRID, :GRID]
        v = v / v.norm()
    return nn.functional.conv2d(v, kernel, padding=1).norm()


def centre_only(kernel: Tensor) -> Tensor:
    """The norm of the kernel's centre, as for a 1 × 1 convolution."""
    return torch.linalg.matrix_norm(kernel[:, :, 1, 1], 2)


class Block(nn.Module):
    """x + K ⋆ x with K smooth and divided by `norm`(K), so that g attains its norm everywhere."""

    def __init__(self, seed: int, norm: Norm) -> None:
        super().__init__()
        made = torch.Generator().manual_seed(seed)
        mix = torch.randn(CHANNELS, CHANNELS, generator=made, dtype=torch.float64)
        kernel = mix[:, :, None, None] * (1 + 0.2 * torch.randn(CHANNELS, CHANNELS, 3, 3, generator=made, dtype=torch.float64))
        self.kernel = nn.Parameter(L * kernel / norm(kernel))

    def g(self, x: Tensor) -> Tensor:
        """Return K ⋆ x."""
        return nn.functional.conv2d(x, self.kernel, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x + g(x)."""
        return x + self.g(x)


def normalised_by(norm: Norm) -> Factory:
    """The block whose kernel K is divided by `norm`(K), claimed to have Lip(g) ≤ L."""

    def build(seed: int) -> Subject:
        block = Block(seed, norm)
        return Subject(name="convolution", event_shape=(CHANNELS, GRID, GRID), forward=block, residual=block.g, module=block,
                       lipschitz=L * (1 + 1e-12), modes=("eval",))

    return build


BOUNDS = ("lipschitz.bounds-jacobian", "lipschitz.bounds-pairs", "lipschitz.bounds-stretch")
MUTANTS = table("convolution", {
    "norm of the reshaped kernel": (BOUNDS, normalised_by(reshaped)),
    "norm at another grid": (BOUNDS, normalised_by(another_grid)),
    "padding forgotten in the norm": (BOUNDS, normalised_by(unpadded)),
    "padding of the transpose": (BOUNDS, normalised_by(transposed_padding)),
    "norm with a stride that is not used": (BOUNDS, normalised_by(strided)),
    "two power iterations": (BOUNDS, normalised_by(two_iterations)),
    "norm of the centre": (BOUNDS, normalised_by(centre_only)),
})
