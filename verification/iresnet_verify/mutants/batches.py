"""Mistakes of batches: rows that stop together, share a context, or have another shape alone; image sizes that share a norm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from iresnet_verify.mutants.block import Block, make
from iresnet_verify.mutants.lifetime import Images
from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.subject.subject import Subject

D = torch.float64


def stops(rule: Callable[[Tensor], Tensor]) -> Factory:
    """y = x + tanh(Wx), ‖W‖ = .9 and W symmetric, whose inverse stops where rule(steps of all rows) < 1e-5, promised 1e-4."""

    def build(seed: int) -> Subject:
        q = torch.linalg.qr(torch.randn(4, 4, dtype=D, generator=torch.Generator().manual_seed(seed)))[0]
        w = q @ torch.diag(torch.tensor([-0.9, 0.5, 0.2, 0.1], dtype=D)) @ q.T

        def inverse(y: Tensor) -> Tensor:
            x = y
            for _ in range(500):
                x, before = y - torch.tanh(x @ w.T), x
                if bool(rule((x - before).norm(dim=1)) < 1e-5):
                    break
            return x

        return Subject(name="stops", event_shape=(4,), forward=lambda x: x + torch.tanh(x @ w.T), inverse=inverse,
                       inverse_tolerance=1e-4, lipschitz=0.9)

    return build


def conditional(mistake: str = "") -> Factory:
    """y = x·eˢ⁽ᶜ⁾ + t(c), with its inverse and log-det; mistakes: "first" row's context, their "mean", "inverse" by the first."""

    def build(seed: int) -> Subject:
        made = torch.Generator().manual_seed(seed)
        a, b = (0.5 * torch.randn(2, 3, dtype=D, generator=made) for _ in range(2))

        def parts(c: Tensor, how: str) -> tuple[Tensor, Tensor]:
            if how == "mean":
                c = c.mean(0, keepdim=True).expand_as(c)
            c = c[:1].expand_as(c) if how == "first" else c
            return torch.tanh(c @ a), c @ b

        def forward(x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
            s, t = parts(c, mistake)
            return x * s.exp() + t, s.sum(1)

        def inverse(y: Tensor, c: Tensor) -> Tensor:
            s, t = parts(c, "first" if mistake == "inverse" else mistake)
            return (y - t) * (-s).exp()

        return Subject(name=f"conditional {mistake}", event_shape=(3,), context_shape=(2,), forward=forward, inverse=inverse)

    return build


class CentredResidual(Block):
    """A residual, beside the right forward, from which the mean over the batch has been taken."""

    def centred(self, x: Tensor) -> Tensor:
        """Return g(x) − mean g + g of the first row."""
        g = self.g(x)
        return g - g.mean(0) + g[:1]


class FirstSize(Images):
    """Divides by the norm at the first image size it meets."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, 3)
        self.norm: Tensor | None = None

    def g(self, x: Tensor) -> Tensor:
        norm = torch.linalg.matrix_norm(self.matrix(x.shape[2], self.kernel.detach()), 2) if self.norm is None else self.norm
        self.norm = norm
        return nn.functional.conv2d(x, 0.7 * self.kernel / norm, padding=1)


def first_size(seed: int) -> Subject:
    """Right for one image size after the other, if each has a network of its own."""
    net = FirstSize(seed)
    return Subject(name="first size", event_shape=(1, 3, 3), other_shapes=((1, 4, 4), (1, 8, 8)), forward=net, residual=net.g, module=net,
                   lipschitz=0.7, modes=("eval",))


MUTANTS = table("batches", {
    "root mean square of all steps decides": ("inverse.rows-are-independent", stops(lambda s: s.square().mean().sqrt())),
    "mean step decides": ("inverse.rows-are-independent", stops(lambda s: s.mean())),
    "median step decides": ("inverse.rows-are-independent", stops(lambda s: s.median())),
    "last row decides": ("inverse.rows-are-independent", stops(lambda s: s[-1])),
    "the first row's context for all": ("hygiene.context-of-each-row", conditional("first")),
    "the mean context for all": ("hygiene.context-of-each-row", conditional("mean")),
    "the first row's context for all in the inverse": ("hygiene.context-of-each-row", conditional("inverse")),
    "log-det squeezed to no axis": (
        "hygiene.single-row", lambda s: make(Block, s, log_det=lambda block: lambda x: block.log_det(x).squeeze())),
    "packed log-det squeezed to no axis": (
        "hygiene.single-row", lambda s: make(Block, s, log_det=None, forward=lambda b: lambda x: (b(x), b.log_det(x)[:, None].squeeze()))),
    "residual centred over the batch": ("hygiene.batch-independence", lambda s: make(CentredResidual, s, residual=lambda b: b.centred)),
    "norm at the first image size met": ("lipschitz.other-shapes", first_size),
})
