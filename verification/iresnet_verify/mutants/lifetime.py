"""Mistakes that show in the life of a network: newly built, trained, used twice, resized, moved, narrowed, weighted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from iresnet_verify.mutants.block import Block, make
from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.mutants.networks import Effective, steeper
from iresnet_verify.mutants.volume import STAY, Net, lengths, powers
from iresnet_verify.subject.subject import Subject


class NotYetNormalised(Block):
    """σ is 1 until the first call in training mode."""

    def refresh(self) -> None:
        if getattr(self, "called", False):
            super().refresh()

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not getattr(self, "called", False):
            self.called = True
            self.refresh()
        return super().forward(x)


class CachedInEval(Effective):
    """Keeps the normalised weights of the first call in evaluation mode... and scales the current ones by them."""

    def g(self, x: Tensor) -> Tensor:
        if not hasattr(self, "norms"):
            self.norms = [float(torch.linalg.matrix_norm(w.detach(), 2)) for w in (self.first, self.last)]
        c = self.lipschitz**0.5
        first, last = self.first * (c / self.norms[0]), self.last * (c / self.norms[1])
        return torch.tanh(x @ first.T + self.shift) @ last.T


def cached(seed: int) -> Subject:
    """Claimed always; true until an optimiser steps."""
    module = steeper(CachedInEval(3, 0.9, seed, torch.float64), 1.0)
    return Subject(name="cached", event_shape=(3,), forward=module, residual=module.g, module=module, lipschitz=0.9,
                   lipschitz_holds="always", modes=("eval",))


class Images(nn.Module):
    """x + K ⋆ x on images: the norm of K is that on `grid` × `grid`, and the log-det counts `pixels`."""

    def __init__(self, seed: int, grid: int) -> None:
        super().__init__()
        made = torch.Generator().manual_seed(seed)
        kernel = 1 + 0.2 * torch.randn(1, 1, 3, 3, generator=made, dtype=torch.float64)
        self.kernel = nn.Parameter(0.7 * kernel / torch.linalg.matrix_norm(self.matrix(grid, kernel), 2))

    @staticmethod
    def matrix(grid: int, kernel: Tensor) -> Tensor:
        """The convolution on grid × grid images."""
        n = grid * grid
        return nn.functional.conv2d(torch.eye(n, dtype=kernel.dtype).reshape(n, 1, grid, grid), kernel, padding=1).reshape(n, n).T

    def g(self, x: Tensor) -> Tensor:
        """Return K ⋆ x."""
        return nn.functional.conv2d(x, self.kernel, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x + g(x)."""
        return x + self.g(x)

    def inverse(self, y: Tensor) -> Tensor:
        """Solve the linear system."""
        n = y.shape[2] * y.shape[3]
        a = torch.eye(n, dtype=y.dtype) + self.matrix(y.shape[2], self.kernel)
        return torch.linalg.solve(a, y.reshape(len(y), n).T).T.reshape(y.shape)

    def log_det(self, x: Tensor) -> Tensor:
        """One number for every image."""
        n = x.shape[2] * x.shape[3]
        return torch.linalg.slogdet(torch.eye(n, dtype=x.dtype) + self.matrix(x.shape[2], self.kernel))[1].expand(len(x))


def images(grid: int = 9, mistake: str = "") -> Factory:
    """4 × 4 images, and 3 × 3 and 8 × 8 declared beside them; correct where the norm is that of a larger grid."""

    def build(seed: int) -> Subject:
        net = Images(seed, grid)

        def inverse(y: Tensor) -> Tensor:
            x = net.inverse(y)
            return x + 0.1 * (y.shape[2] != 4) if mistake == "inverse" else x

        def log_det(x: Tensor) -> Tensor:
            value = net.log_det(x)
            return value * (16 / (x.shape[2] * x.shape[3])) if mistake == "pixels" else value

        return Subject(name="images", event_shape=(1, 4, 4), other_shapes=((1, 3, 3), (1, 8, 8)), forward=net, inverse=inverse,
                       residual=net.g, log_det=log_det, module=net, lipschitz=0.7, modes=("eval",))

    return build


class Overwrites(Block):
    """Returns the same tensor for its log-det in every call."""

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(y, the log-det in a buffer that the next call writes into)."""
        y, value = self(x), self.log_det(x)
        kept = self.__dict__.setdefault("kept", {})
        if value.shape not in kept:
            kept[value.shape] = value.detach().clone()
        else:
            kept[value.shape].copy_(value.detach())
        return y, kept[value.shape]


class MeanWeight(torch.autograd.Function):
    """The identity whose backward pass gives every row the mean of the upstream gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        """Return a copy."""
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        """Return the mean weight."""
        return upstream[0].mean(0, keepdim=True).expand_as(upstream[0])


class Averages(Block):
    """The branch's gradient is averaged over the batch."""

    def g(self, x: Tensor) -> Tensor:
        function: Any = MeanWeight
        return function.apply(super().g(x))


class VanishesInBfloat16(Block):
    """An eps of 1e-3 added to 1 and taken off again: nothing is left of it in bfloat16, and 1/0 is."""

    def g(self, x: Tensor) -> Tensor:
        one = torch.ones(1, 1, dtype=x.dtype) @ torch.ones(1, 1, dtype=x.dtype)
        eps = (one + 1e-3) - one if one.dtype == torch.bfloat16 else one
        return super().g(x) / eps.to(x.dtype)


class StaysBehind(Block):
    """A rotation kept as a plain attribute: .to() leaves it where it was."""

    def g(self, x: Tensor) -> Tensor:
        if not hasattr(self, "turn"):
            self.turn = torch.eye(x.shape[1], dtype=x.dtype).flip(0)
        return super().g(x) @ self.turn

    def log_det(self, x: Tensor) -> Tensor:
        w1, w2 = self.weights()
        slope = 1 - torch.tanh(x @ w1.T + self.b1) ** 2
        J = torch.eye(x.shape[1], dtype=x.dtype).flip(0) @ (w2 @ (slope[:, :, None] * w1))
        return torch.linalg.slogdet(torch.eye(x.shape[1], dtype=x.dtype) + J)[1]


def standard_error(how: str) -> Factory:
    """A mean of 16 roulettes with a standard error: "right", "shared" lengths, "one" draw's spread too small, "variance"."""

    def build(seed: int) -> Subject:
        net = Net(4, seed)

        def estimate(x: Tensor) -> tuple[Tensor, Tensor]:
            if how == "shared":  # nothing but the length is random, and it is the same in all sixteen
                draws = one(net, x, lengths(len(x), "numpy")).expand(16, -1)
            else:
                draws = one(net, x.repeat(16, 1), None).reshape(16, -1)
            value, variance = draws.mean(0), draws.var(0, unbiased=True) / 16
            if how == "variance":
                return value, variance
            return value, variance.sqrt() / (4 if how == "twice" else 1)

        return Subject(name=f"standard error, {how}", event_shape=(4,), forward=net, residual=net.g, lipschitz=0.8,
                       log_det=lambda x: estimate(x)[0], log_det_is="unbiased", standard_error=estimate)

    return build


def one(net: Net, x: Tensor, n: Tensor | None) -> Tensor:
    """One roulette; with given lengths n its traces are exact, so that nothing but n is random."""
    given = n is not None
    n = lengths(len(x), "numpy") if n is None else n
    probes = [torch.eye(x.shape[1], dtype=x.dtype)[i].expand_as(x) for i in range(x.shape[1])] if given else [torch.randn_like(x)]
    terms = [sum(t, torch.zeros(len(x), dtype=x.dtype)) for t in zip(*[powers(net, x, v, int(n.max())) for v in probes], strict=True)]
    total = torch.zeros(len(x), dtype=x.dtype)
    for k, t in enumerate(terms, start=1):
        total = total + (-1.0) ** (k + 1) / (k * STAY ** (k - 1)) * torch.where(n >= k, t, torch.zeros_like(t))
    return total.detach()


MUTANTS = table("lifetime", {
    "not normalised before the first training step": ("lipschitz.newly-built", lambda s: make(NotYetNormalised, s)),
    "norms kept from before the optimiser's step": ("lipschitz.after-optimiser-step", cached),
    "norm at a smaller image": ("lipschitz.other-shapes", images(grid=4)),
    "pixels of one image size in the log-det": ("logdet.other-shapes", images(mistake="pixels")),
    "an inverse for one image size": ("inverse.other-shapes", images(mistake="inverse")),
    "a log-det that the next call overwrites": (
        "logdet.adds-up", lambda s: make(Overwrites, s, forward=lambda block: block.both, log_det=None)),
    "the mean upstream gradient for every row": ("gradient.masked-rows", lambda s: make(Averages, s)),
    "an eps that bfloat16 does not see": ("hygiene.autocast", lambda s: make(VanishesInBfloat16, s)),
    "a tensor that .to leaves behind": ("state.moves-device", lambda s: make(StaysBehind, s)),
    "standard error of 16 draws divided by 4 twice": ("estimator.standard-error", standard_error("twice")),
    "standard error from draws that share a length": ("estimator.standard-error", standard_error("shared")),
    "variance for standard error": ("estimator.standard-error", standard_error("variance")),
})
