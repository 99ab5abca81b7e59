"""Correct networks of six kinds, each with its inverse, log-det and density, in which slips are made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from iresnet_verify.subject.subject import Subject

D = torch.float64


def small_net(inputs: int, outputs: int) -> nn.Sequential:
    """One hidden layer."""
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs)).double()


def normal(z: Tensor) -> Tensor:
    """The log-density of standard normal events."""
    return -0.5 * z.flatten(1).square().sum(1) - 0.5 * z[0].numel() * math.log(2 * math.pi)


class Network(nn.Module):
    """A flow: forward is x ↦ z, of which log p(x) = log p₀(z) + log|det dz/dx|."""

    shape: tuple[int, ...] = (4,)

    def inverse(self, y: Tensor) -> Tensor:
        """F⁻¹(y)."""
        raise NotImplementedError

    def log_det(self, x: Tensor) -> Tensor:
        """log|det dF/dx|."""
        raise NotImplementedError

    def inverse_log_det(self, y: Tensor) -> Tensor:
        """log|det dF⁻¹/dy|."""
        return -self.log_det(self.inverse(y))

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density."""
        return normal(self(x)) + self.log_det(x)


class Coupling(Network):
    """y = (a, b·s(a) + t(a)) with s = exp(tanh)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net(2, 4)

    def scale_and_shift(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """log s and t."""
        r, t = self.net(a).chunk(2, 1)
        return torch.tanh(r), t

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.reshape(len(x), 4).chunk(2, 1)
        r, t = self.scale_and_shift(a)
        return torch.cat([a, b * torch.exp(r) + t], 1)

    def inverse(self, y: Tensor) -> Tensor:
        a, b = y.chunk(2, 1)
        r, t = self.scale_and_shift(a)
        return torch.cat([a, (b - t) * torch.exp(-r)], 1)

    def log_det(self, x: Tensor) -> Tensor:
        a, _ = x.chunk(2, 1)
        r, _ = self.scale_and_shift(a)
        return r.sum(1)


class Both(Network):
    """Both halves are changed, one after the other: a' = a·s(b) + t(b), b' = b·s(a') + t(a')."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = small_net(2, 4), small_net(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        r, t = self.one(b).chunk(2, 1)
        a = a * torch.exp(torch.tanh(r)) + t
        r, t = self.two(a).chunk(2, 1)
        return torch.cat([a, b * torch.exp(torch.tanh(r)) + t], 1)

    def inverse(self, y: Tensor) -> Tensor:
        a, b = y.chunk(2, 1)
        r, t = self.two(a).chunk(2, 1)
        b = (b - t) * torch.exp(-torch.tanh(r))
        r, t = self.one(b).chunk(2, 1)
        return torch.cat([(a - t) * torch.exp(-torch.tanh(r)), b], 1)

    def log_det(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        r, t = self.one(b).chunk(2, 1)
        first = torch.tanh(r).sum(1)
        r, _ = self.two(a * torch.exp(torch.tanh(r)) + t).chunk(2, 1)
        return first + torch.tanh(r).sum(1)


class Autoregression(Network):
    """y_i = x_i·s_i(x_<i) + t_i(x_<i)."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.v, self.w = (nn.Parameter(0.7 * torch.randn(3, 3, dtype=D)) for _ in range(2))
        self.c = nn.Parameter(0.3 * torch.randn(3, dtype=D))

    def scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log s and t."""
        return torch.tanh(x @ self.v.tril(-1).T + self.c), x @ self.w.tril(-1).T + self.c

    def forward(self, x: Tensor) -> Tensor:
        r, t = self.scale_and_shift(x)
        return x * torch.exp(r) + t

    def inverse(self, y: Tensor) -> Tensor:
        x = torch.zeros_like(y)
        for _ in range(3):
            r, t = self.scale_and_shift(x)
            x = (y - t) * torch.exp(-r)
        return x

    def log_det(self, x: Tensor) -> Tensor:
        r, _ = self.scale_and_shift(x)
        return r.sum(1)


class Planar(Network):
    """y = x + u·tanh(w·x + c), inverted along u by bisection."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.w, self.u = (nn.Parameter(torch.randn(3, dtype=D)) for _ in range(2))
        self.c = nn.Parameter(torch.randn(1, dtype=D))

    def direction(self) -> Tensor:
        """u, moved until w·u > −1."""
        inner = self.w @ self.u
        return self.u + (nn.functional.softplus(inner) - 1 - inner) * self.w / self.w.square().sum()

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(x @ self.w + self.c)[:, None] * self.direction()

    def inverse(self, y: Tensor) -> Tensor:
        slope, target = self.w @ self.direction(), y @ self.w + self.c
        low, high = target - slope.abs(), target + slope.abs()
        for _ in range(80):
            middle = (low + high) / 2
            above = middle + slope * torch.tanh(middle) > target
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return y - torch.tanh(low)[:, None] * self.direction()

    def log_det(self, x: Tensor) -> Tensor:
        psi = (1 - torch.tanh(x @ self.w + self.c).square())[:, None] * self.w
        return torch.log(torch.abs(1 + psi @ self.direction()))


class Pixels(Network):
    """Images (2, 3, 3): a scale and a shift of each channel, then a 1×1 convolution."""

    shape = (2, 3, 3)

    def __init__(self) -> None:
        super().__init__()
        self.log_scale, self.shift = (nn.Parameter(0.4 * torch.randn(2, 1, 1, dtype=D)) for _ in range(2))
        self.weight = nn.Parameter(torch.eye(2, dtype=D) + 0.4 * torch.randn(2, 2, dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        z = x * torch.exp(self.log_scale) + self.shift
        return torch.einsum("oc,nchw->nohw", self.weight, z)

    def inverse(self, y: Tensor) -> Tensor:
        z = torch.einsum("oc,nchw->nohw", torch.linalg.inv(self.weight), y)
        return (z - self.shift) * torch.exp(-self.log_scale)

    def log_det(self, x: Tensor) -> Tensor:
        pixels = x.shape[2] * x.shape[3]
        value = pixels * self.log_scale.sum() + pixels * torch.linalg.slogdet(self.weight)[1]
        return value.expand(len(x))


class Residual(Network):
    """y = x + Ŵ₂ tanh(Ŵ₁x + c) with ‖Ŵ₁‖ = ‖Ŵ₂‖ = √.7, its log-det by 60 terms of the series."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Parameter(torch.randn(6, 3, dtype=D)), nn.Parameter(torch.randn(3, 6, dtype=D))
        self.c = nn.Parameter(0.5 * torch.randn(6, dtype=D))

    def weights(self) -> list[Tensor]:
        """Both, of norm √.7."""
        return [0.7**0.5 * w / torch.linalg.matrix_norm(w, 2) for w in (self.first, self.last)]

    def g(self, x: Tensor) -> Tensor:
        """The branch."""
        first, last = self.weights()
        return torch.tanh(x @ first.T + self.c) @ last.T

    def jacobian(self, x: Tensor) -> Tensor:
        """J_g."""
        first, last = self.weights()
        slope = 1 - torch.tanh(x @ first.T + self.c) ** 2
        return last @ (slope[:, :, None] * first)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.g(x)

    def inverse(self, y: Tensor) -> Tensor:
        x = y
        for _ in range(120):
            x = y - self.g(x)
        return x

    def log_det(self, x: Tensor) -> Tensor:
        J = self.jacobian(x)
        power, total = J, torch.zeros(len(x), dtype=x.dtype)
        for k in range(1, 61):
            total = total - (-1) ** k * power.diagonal(dim1=1, dim2=2).sum(1) / k
            power = power @ J
        return total


KINDS: tuple[type[Network], ...] = (Coupling, Both, Autoregression, Planar, Pixels, Residual)


def subject_of(kind: type[Network], seed: int, **changes: Any) -> Subject:
    """A subject with all that the network has; `changes` are fields, or functions of the network that give them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = kind()
    residual: dict[str, Any] = {"residual": net.g, "lipschitz": 0.7 * (1 + 1e-9)} if isinstance(net, Residual) else {}
    subject = Subject(name=f"{kind.__name__}-{seed}", event_shape=kind.shape, forward=net, inverse=net.inverse, log_det=net.log_det,
                      inverse_log_det=net.inverse_log_det, log_prob=net.log_prob, base_log_prob=normal, module=net, modes=("eval",),
                      **residual)
    return replace(subject, **{k: v(net) if callable(v) else v for k, v in changes.items()})


def of(kind: type[Network], **changes: Any) -> Callable[[int], Subject]:
    """The factory of `subject_of`."""
    return lambda seed: subject_of(kind, seed, **changes)
