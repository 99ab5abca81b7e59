"""Correct networks of torch, in which slips are made: modules that call each other, and functions of a module's parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from iresnet_verify.subject.subject import Subject

D = torch.float64


class Rotation(nn.Module):
    """x ↦ Qx with Q = (I + A)⁻¹(I − A) and A skew (Cayley)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.6 * torch.randn(d, d, dtype=D))

    def matrix(self) -> Tensor:
        """Q."""
        skew = self.weight - self.weight.T
        unit = torch.eye(len(skew), dtype=skew.dtype)
        return torch.linalg.solve(unit + skew, unit - skew)

    def forward(self, x: Tensor) -> Tensor:
        """Qx."""
        return x @ self.matrix().T

    def inverse(self, y: Tensor) -> Tensor:
        """Qᵀy."""
        return y @ self.matrix()


class Kinked(nn.Module):
    """Two layers of: a rotation, scales, a shift, and a leaky ReLU."""

    slope = 0.3

    def __init__(self) -> None:
        super().__init__()
        self.rotations = nn.ModuleList([Rotation(4) for _ in range(2)])
        self.scales, self.shifts = (nn.Parameter(0.4 * torch.randn(2, 4, dtype=D)) for _ in range(2))

    def layer(self, i: int, x: Tensor) -> Tensor:
        """Before the kink."""
        return self.rotations[i](x) * torch.exp(self.scales[i]) + self.shifts[i]

    def forward(self, x: Tensor) -> Tensor:
        """Both."""
        for i in range(2):
            x = functional.leaky_relu(self.layer(i, x), self.slope)
        return x

    def inverse(self, y: Tensor) -> Tensor:
        """Both, the last one first."""
        for i in (1, 0):
            z = torch.where(y < 0, y / self.slope, y)
            rotation: Any = self.rotations[i]
            y = rotation.inverse((z - self.shifts[i]) * torch.exp(-self.scales[i]))
        return y

    def log_det(self, x: Tensor) -> Tensor:
        """The scales, and the slope for each component below the kink."""
        total = self.scales.sum()
        for i in range(2):
            z = self.layer(i, x)
            total = total + (z < 0).sum(1) * torch.log(torch.tensor(self.slope, dtype=x.dtype))
            x = functional.leaky_relu(z, self.slope)
        return total


class Raster(nn.Module):
    """Images (2, 3, 3): y = x·exp(s) + tanh(K * x + c), where K sees only pixels that come before, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(0.5 * torch.randn(2, 2, 3, 3, dtype=D))
        self.s, self.c = (nn.Parameter(0.3 * torch.randn(2, 1, 1, dtype=D)) for _ in range(2))
        mask = torch.ones(3, 3, dtype=D)
        mask[1, 1:], mask[2] = 0, 0
        self.register_buffer("mask", mask)

    mask: Tensor

    def before(self, x: Tensor) -> Tensor:
        """What the pixels before add."""
        return torch.tanh(functional.conv2d(x, self.kernel * self.mask, padding=1) + self.c)

    def forward(self, x: Tensor) -> Tensor:
        """y."""
        return x * torch.exp(self.s) + self.before(x)

    def inverse(self, y: Tensor) -> Tensor:
        """Each sweep makes one more pixel right."""
        x = y
        for _ in range(9):
            x = (y - self.before(x)) * torch.exp(-self.s)
        return x

    def log_det(self, x: Tensor) -> Tensor:
        """The scales, at every pixel."""
        return (x.shape[2] * x.shape[3] * self.s.sum()).expand(len(x))


class Series(nn.Module):
    """Four steps of time, given a number h: z_t = (x_t − a·tanh(x_{t−1} + h))·exp(−b·tanh(x_{t−1}) − c)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(0.6 * torch.randn(4, dtype=D)) for _ in range(3))

    def mean_and_log_scale(self, before: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Of all steps, from those before."""
        return self.a * torch.tanh(before + h), self.b * torch.tanh(before) + self.c

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """z."""
        mean, log_scale = self.mean_and_log_scale(functional.pad(x[:, :-1], (1, 0)), h)
        return (x - mean) * torch.exp(-log_scale)

    def inverse(self, z: Tensor, h: Tensor) -> Tensor:
        """x, one step of time after the other."""
        last, found = torch.zeros_like(h), []
        for t in range(4):
            mean, log_scale = self.mean_and_log_scale(last, h)
            last = mean[:, t : t + 1] + z[:, t : t + 1] * torch.exp(log_scale[:, t : t + 1])
            found.append(last)
        return torch.cat(found, 1)

    def log_det(self, x: Tensor, h: Tensor) -> Tensor:
        """Minus all logarithms of scales."""
        _, log_scale = self.mean_and_log_scale(functional.pad(x[:, :-1], (1, 0)), h)
        return -log_scale.sum(1)


class Potential(nn.Module):
    """The gradient of ½e‖x‖² + Σ log cosh(Ax + b), a convex potential."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(0.8 * torch.randn(4, 2, dtype=D)), nn.Parameter(torch.randn(4, dtype=D))
        self.e = nn.Parameter(torch.tensor(0.7, dtype=D))


def gradient(net: Potential, x: Tensor) -> Tensor:
    """ex + Aᵀ tanh(Ax + b)."""
    return net.e * x + torch.tanh(x @ net.a.T + net.b) @ net.a


def hessian(net: Potential, x: Tensor) -> Tensor:
    """eI + Aᵀ diag(1 − tanh²) A."""
    slope = 1 - torch.tanh(x @ net.a.T + net.b) ** 2
    return net.e * torch.eye(2, dtype=x.dtype) + net.a.T @ (slope[:, :, None] * net.a)


def descent(net: Potential, y: Tensor) -> Tensor:
    """Gradient steps, then Newton's."""
    x = torch.zeros_like(y)
    rate = 1 / (net.e + torch.linalg.matrix_norm(net.a, 2) ** 2)
    for _ in range(60):
        x = x - rate * (gradient(net, x) - y)
    for _ in range(6):
        step = torch.linalg.solve(hessian(net, x), (gradient(net, x) - y)[:, :, None])
        x = x - step[:, :, 0]
    return x


def log_volume(net: Potential, x: Tensor) -> Tensor:
    """By Cholesky's factor."""
    factor = torch.linalg.cholesky(hessian(net, x))
    return 2 * torch.log(factor.diagonal(dim1=1, dim2=2)).sum(1)


def built(kind: type[nn.Module], seed: int) -> Any:
    """One, from this seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind()


def of_module(kind: type[nn.Module], shape: tuple[int, ...], seed: int, **fields: Any) -> Subject:
    """The subject of a module with forward, inverse and log_det."""
    net = built(kind, seed)
    return Subject(name=f"{kind.__name__}-{seed}", event_shape=shape, forward=net, inverse=net.inverse, log_det=net.log_det, module=net,
                   modes=("eval",), **fields)


def kinked(seed: int) -> Subject:
    """Two layers."""
    return of_module(Kinked, (4,), seed)


def raster(seed: int) -> Subject:
    """Of images."""
    return of_module(Raster, (2, 3, 3), seed)


def series(seed: int) -> Subject:
    """Of four steps; another number of them is refused."""
    subject = of_module(Series, (4,), seed, context_shape=(1,))
    return replace(subject, forward=lambda x, h: subject.forward(x.reshape(len(x), 4), h))


def potential(seed: int) -> Subject:
    """In the plane."""
    net = built(Potential, seed)
    return Subject(name=f"Potential-{seed}", event_shape=(2,), forward=lambda x: gradient(net, x), inverse=lambda y: descent(net, y),
                   log_det=lambda x: log_volume(net, x), module=net, modes=("eval",))
