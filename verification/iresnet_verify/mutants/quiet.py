"""Mistakes that stay within every rough tolerance: maps that lose a part, rows that wait for each other, norms a little above."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from iresnet_verify.mutants.batches import stops
from iresnet_verify.mutants.block import Block, make
from iresnet_verify.mutants.bounds import BOUNDS, layered
from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.mutants.state.training import Rotation, rotating
from iresnet_verify.subject.subject import Subject

D = torch.float64
NOT_INJECTIVE = ("inverse.separates-inputs", "inverse.is-injective", "inverse.unique-preimage")


def turned(f: Callable[[Tensor], Tensor], d: int = 3) -> Factory:
    """f between two rotations, without an inverse."""

    def build(seed: int) -> Subject:
        made = torch.Generator().manual_seed(seed)
        q, r = (torch.linalg.qr(torch.randn(d, d, dtype=D, generator=made))[0] for _ in range(2))
        return Subject(name="turned", event_shape=(d,), forward=lambda x: f(x @ q) @ r)

    return build


def sums_of_pairs(z: Tensor) -> Tensor:
    """(a + b, b + c, a − c): the third is the difference of the others."""
    a, b, c = z.unbind(1)
    return torch.stack([a + b, b + c, a - c], 1)


def clipped(z: Tensor) -> Tensor:
    """The first coordinate ends at ±1."""
    return torch.cat([z[:, :1].clamp(-1.0, 1.0), z[:, 1:]], 1)


def one_sided(z: Tensor) -> Tensor:
    """The first coordinate is flat below 0."""
    return torch.cat([torch.relu(z[:, :1]), z[:, 1:]], 1)


def folded(z: Tensor) -> Tensor:
    """The first coordinate loses its sign."""
    return torch.cat([z[:, :1].abs(), z[:, 1:]], 1)


class ScaleKeptInInverse(Rotation):
    """The inverse in evaluation keeps the scale of its first call."""

    def inverse(self, y: Tensor) -> Tensor:
        if self.training:
            return super().inverse(y)
        if self.kept is None:
            self.kept = self.size.detach().clone()
        return (y * (-self.kept).exp()) @ self.weight()


class RemembersInputs(Block):
    """A table of what was seen, by the memory address of the input."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        self.__dict__.setdefault("seen", []).append(y.detach())
        return y


class RemembersGraphs(Block):
    """A sum of all outputs for the end of an epoch, in both modes."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        self.total = getattr(self, "total", 0.0) + y.mean()
        return y


def barely(excess: float, dtype: str = "float64") -> Factory:
    """A layer of norm .98·(1 + excess), claimed .98, for itself and for the branch."""

    def build(seed: int) -> Subject:
        made = torch.Generator().manual_seed(seed)
        layer = nn.Linear(4, 4, bias=False).double()
        with torch.no_grad():
            layer.weight.copy_(0.98 * (1 + excess) * torch.linalg.qr(torch.randn(4, 4, dtype=D, generator=made))[0])
        layer = layer.to(getattr(torch, dtype))
        maps: Any = [("w", layer, (4,), 0.98)]
        return Subject(name="barely over", event_shape=(4,), forward=lambda x: x + layer(x), residual=layer, module=layer, lipschitz=0.98,
                       dtype=dtype, linear_maps=lambda: maps)

    return build


MUTANTS = table("quiet", {
    "three sums of two": (NOT_INJECTIVE, turned(sums_of_pairs)),
    "a coordinate that is clipped": (NOT_INJECTIVE, turned(clipped)),
    "a coordinate that is flat below 0": (NOT_INJECTIVE, turned(one_sided)),
    "a coordinate that loses its sign": (NOT_INJECTIVE, turned(folded)),
    "smallest step decides": ("inverse.rows-are-independent", stops(lambda s: s.min())),
    "lower quartile of steps decides": ("inverse.rows-are-independent", stops(lambda s: s.quantile(0.25))),
    "first row decides": ("inverse.rows-are-independent", stops(lambda s: s[0])),
    "scale kept in the inverse": ("state.after-optimiser-step", rotating(ScaleKeptInInverse)),
    "outputs kept in a list": ("hygiene.memory", lambda s: make(RemembersInputs, s)),
    "sum of outputs with its graph": ("hygiene.memory", lambda s: make(RemembersGraphs, s)),
    "GELU taken for 1-Lipschitz": (BOUNDS, layered(3, 8, nn.GELU())),
    "SiLU taken for 1-Lipschitz": (BOUNDS, layered(3, 8, nn.SiLU())),
    "Mish taken for 1-Lipschitz": (BOUNDS, layered(3, 8, nn.Mish())),
    "Hardswish taken for 1-Lipschitz": (BOUNDS, layered(3, 8, nn.Hardswish())),
    "norm 1e-7 above its claim": ("lipschitz.bounds-jacobian", barely(1e-7)),
    "layer 1e-13 above its claim": ("lipschitz.layers", barely(1e-13)),
    "layer 1e-5 above its claim in float32": ("lipschitz.layers", barely(1e-5, "float32")),
})
