"""Further correct networks, each of a kind that an audit may take for a wrong one: drawn anew for every seed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from iresnet_verify import Subject
from iresnet_verify.mutants import batches
from iresnet_verify.mutants.block import Block, make
from iresnet_verify.mutants.quiet import barely
from iresnet_verify.mutants.volume import Net, powers, subject

D = torch.float64
STOP = 0.25
"""Probability that a series ends after a term; the variance is finite as (1 − STOP) > L²."""


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_torch_rand() -> int:
    return math.floor(math.log(torch.rand(()).item()) / math.log(1 - STOP)) + 1


def by_random() -> int:
    return math.floor(math.log(random.random()) / math.log(1 - STOP)) + 1


def by_coins() -> int:
    n = 1
    while float(torch.rand(())) > STOP:
        n += 1
    return n


def by_exponential() -> int:
    return math.floor(torch.empty(()).exponential_(-math.log(1 - STOP)).item()) + 1


def roulette(draw: Callable[[], int]) -> Callable[[int], Subject]:
    """An unbiased log-det whose number of terms is drawn for each row by `draw`."""

    def build(seed: int) -> Subject:
        def log_det(net: Net, x: Tensor) -> Tensor:
            n = torch.tensor([draw() for _ in range(len(x))])
            total = torch.zeros(len(x), dtype=x.dtype)
            for k, term in enumerate(powers(net, x, torch.randn_like(x), int(n.max())), start=1):
                total = total + (-1.0) ** (k + 1) / (k * (1 - STOP) ** (k - 1)) * torch.where(n >= k, term, torch.zeros_like(term))
            return total

        made = subject(d=2 + seed % 3, seed=seed, log_det=log_det, claim="unbiased")
        return Subject(**{**vars(made), "inverse_log_det": None})

    return build


class Coupling(nn.Module):
    """Affine coupling whose conditioner is `net`."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def parts(self, a: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self.net(a).chunk(2, 1)
        return torch.tanh(s), t

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.chunk(2, 1)
        s, t = self.parts(a)
        return torch.cat([a, b * torch.exp(s) + t], 1), s.sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        a, b = y.chunk(2, 1)
        s, t = self.parts(a)
        return torch.cat([a, (b - t) * torch.exp(-s)], 1)


def coupling(middle: Callable[[], nn.Module], **fields: Any) -> Callable[[int], Subject]:
    """A coupling in six dimensions with a layer of some kind in the middle of its conditioner."""

    def build(seed: int) -> Subject:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = Coupling(nn.Sequential(nn.Linear(3, 16), nn.Tanh(), middle(), nn.Linear(16, 6)).double())
        return Subject(name=f"coupling {seed}", event_shape=(6,), forward=module, inverse=module.inverse, module=module, **fields)

    return build


class FixedMask(nn.Module):
    """Dropout whose mask is drawn from a generator of its own, seeded alike at every call: a fixed function."""

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.rand(x.shape[1], dtype=x.dtype, generator=generator(5)) > 0.3
        return x * mask


def batch_norm() -> nn.Module:
    layer = nn.BatchNorm1d(16)
    with torch.no_grad():
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2.0)
    return layer


def elementwise(f: Callable[[Tensor], Tensor], inverse: Callable[[Tensor], Tensor] | None, slope: Callable[[Tensor], Tensor]) -> Any:
    """x ↦ f(a∘x + b) with its log-det Σ log a f′."""

    def build(seed: int) -> Subject:
        made = generator(seed)
        a, b = 0.5 + torch.rand(3, dtype=D, generator=made), torch.randn(3, dtype=D, generator=made)
        back = None if inverse is None else lambda y: (inverse(y) - b) / a
        return Subject(name=f"elementwise {seed}", event_shape=(3,), forward=lambda x: f(a * x + b), inverse=back,
                       log_det=lambda x: (slope(a * x + b) + a.log()).sum(1), inputs=lambda n, rng: rng.standard_normal((n, 3)))

    return build


def constant(seed: int) -> Subject:
    """A rotation and a scale, whose log-det is one number for all rows."""
    made = generator(seed)
    q = torch.linalg.qr(torch.randn(4, 4, dtype=D, generator=made))[0]
    scale = 0.5 + torch.rand(4, dtype=D, generator=made)
    return Subject(name="constant log-det", event_shape=(4,), forward=lambda x: (x @ q * scale, scale.log().sum()),
                   inverse=lambda y: (y / scale) @ q.T)


def transposed(seed: int) -> Subject:
    """A block whose results have their memory in another order."""
    made = make(Block, seed)
    block = made.module
    return Subject(name="transposed", event_shape=(3,), forward=lambda x: block(x).T.contiguous().T, residual=block.g, module=block,
                   inverse=lambda y: block.inverse(y).T.contiguous().T, log_det=block.log_det, lipschitz=made.lipschitz,
                   lipschitz_holds="after-refresh", refresh=block.refresh)


def bisected(seed: int) -> Subject:
    """x + c sin x, inverted by bisection on [y − 1, y + 1], which carries no gradient."""
    c = 0.3 + 0.1 * (seed % 6)

    def inverse(y: Tensor) -> Tensor:
        low, high = y.detach() - 1.0, y.detach() + 1.0
        for _ in range(60):
            middle = (low + high) / 2
            above = middle + c * torch.sin(middle) > y
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (low + high) / 2

    return Subject(name="bisected", event_shape=(3,), forward=lambda x: x + c * torch.sin(x), inverse=inverse,
                   residual=lambda x: c * torch.sin(x), lipschitz=c, log_det=lambda x: torch.log1p(c * torch.cos(x)).sum(1))


def overflowing(seed: int) -> Subject:
    """sinh, which overflows from 710 on, promised for ordinary rows."""
    del seed
    return Subject(name="sinh", event_shape=(3,), forward=torch.sinh, inverse=torch.asinh,
                   log_det=lambda x: torch.log(torch.cosh(x)).sum(1), inputs=lambda n, rng: rng.standard_normal((n, 3)))


def picture(seed: int) -> Subject:
    """A scale for each channel of 3×32×32 images and a 1×1 rotation."""
    made = generator(seed)
    q = torch.linalg.qr(torch.randn(3, 3, dtype=D, generator=made))[0]
    scale = 0.5 + torch.rand(3, dtype=D, generator=made)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.einsum("oi,bihw->bohw", q, x * scale[:, None, None]), (1024 * scale.log().sum()).expand(len(x))

    def inverse(y: Tensor) -> Tensor:
        return torch.einsum("io,bihw->bohw", q, y) / scale[:, None, None]

    return Subject(name="picture", event_shape=(3, 32, 32), forward=forward, inverse=inverse)


CORRECT: dict[str, Callable[[int], Subject]] = {
    "length by torch.rand": roulette(by_torch_rand),
    "length by random.random": roulette(by_random),
    "length by coin flips": roulette(by_coins),
    "length by exponential_": roulette(by_exponential),
    "dropout under a fixed mask": coupling(FixedMask),
    "dropout in evaluation": coupling(lambda: nn.Dropout(0.2), modes=("eval",)),
    "batch norm in evaluation": coupling(batch_norm, modes=("eval",)),
    "softplus": elementwise(nn.functional.softplus, lambda y: y + torch.log(-torch.expm1(-y)), nn.functional.logsigmoid),
    "sigmoid": elementwise(torch.sigmoid, torch.logit, lambda z: nn.functional.logsigmoid(z) + nn.functional.logsigmoid(-z)),
    "tanh": elementwise(torch.tanh, torch.atanh, lambda z: 2 * (math.log(2.0) - z - nn.functional.softplus(-2 * z))),
    "constant log-det": constant,
    "transposed memory": transposed,
    "inverse by bisection": bisected,
    "conditional": batches.conditional(),
    "overflow outside of what is declared": overflowing,
    "float32 at its bound": barely(0.0, "float32"),
    "images 3×32×32": picture,
}
