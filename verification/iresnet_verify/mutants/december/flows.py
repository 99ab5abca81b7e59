"""Mistakes that issue trackers of published packages report, of maps, inverses and log-dets. Each address is beside the mutant."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from iresnet_verify.mutants.fresh.flows import MAP_ALONE, NO_DENSITY
from iresnet_verify.mutants.fresh.networks import MultiScale, of
from iresnet_verify.mutants.mutant import table
from iresnet_verify.mutants.unseen.networks import Both, D, Network, small_net
from iresnet_verify.mutants.unseen.trackers import BACK, VALUE

ALL = (*BACK, *VALUE)


class Kicks(Network):
    """Three steps of time: p is pushed by a force that depends on q and the time, then q by p."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = (nn.Parameter(torch.randn(2, 2, dtype=D)) for _ in range(2))
        self.c = nn.Parameter(torch.randn(2, dtype=D))

    def force(self, q: Tensor, time: float) -> Tensor:
        """At a time."""
        return torch.tanh(q @ self.w.T + 2 * self.c * time)

    def forward(self, x: Tensor) -> Tensor:
        q, p = x.reshape(len(x), 4).chunk(2, 1)
        for step in range(3):
            p = p + self.force(q, step / 3)
            q = q + torch.tanh(p @ self.v.T)
        return torch.cat([q, p], 1)

    def inverse(self, y: Tensor) -> Tensor:
        """As a solver calls it that counts the time downwards, and the force turns the time round once more."""
        q, p = y.chunk(2, 1)
        for step in range(3):
            q = q - torch.tanh(p @ self.v.T)
            p = p - self.force(q, step / 3)
        return torch.cat([q, p], 1)

    def log_det(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), dtype=x.dtype)


class LeftReversed(Network):
    """Two steps forwards, or backwards if the flow has been turned round; the inverse turns it round, and leaves it so."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList([small_net(2, 2) for _ in range(2)])
        self.sign = 1

    def steps(self, x: Tensor) -> Tensor:
        """In the direction of now."""
        q, p = x.reshape(len(x), 4).chunk(2, 1)
        for i in (0, 1)[:: self.sign]:
            if self.sign > 0:
                p = p + self.nets[i](q)
            q = q + self.sign * torch.tanh(p)
            if self.sign < 0:
                p = p - self.nets[i](q)
        return torch.cat([q, p], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(x)

    def inverse(self, y: Tensor) -> Tensor:
        self.sign = -1
        return self.steps(y)


class Shuffles(Network):
    """An additive coupling after a permutation of the components, which is drawn at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.reshape(len(x), 4)[:, torch.randperm(4)].chunk(2, 1)
        return torch.cat([a, b + self.net(a)], 1)


class HalfBeforeTheSplit(MultiScale):
    """What was added up before half of the channels leave is divided by the two parts."""

    def log_det(self, x: Tensor) -> Tensor:
        z = functional.pixel_unshuffle(x, 2)
        value = z.shape[2] * z.shape[3] * (self.scale.sum() + self.diagonal.sum())
        z = torch.einsum("oc,nchw->nohw", self.matrix(), (z + self.shift) * torch.exp(self.scale))
        a, _, r, _ = self.coupled(self.first, z)
        _, _, s, _ = self.coupled(self.second, functional.pixel_unshuffle(a, 2))
        return (value + r.flatten(1).sum(1)) / 2 + s.flatten(1).sum(1)


class StoredDiagonal(Network):
    """y = U L x, L with ones on its diagonal; the product takes what is stored there."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.upper = (nn.Parameter(0.5 * torch.randn(3, 3, dtype=D) + 0.8 * torch.eye(3, dtype=D)) for _ in range(2))
        self.d = nn.Parameter(0.3 * torch.randn(3, dtype=D))

    def above(self) -> Tensor:
        """U."""
        return torch.triu(self.upper, 1) + torch.diag(torch.exp(self.d))

    def forward(self, x: Tensor) -> Tensor:
        return x @ torch.tril(self.lower).T @ self.above().T

    def inverse(self, y: Tensor) -> Tensor:
        z = torch.linalg.solve_triangular(self.above(), y.T, upper=True)
        return torch.linalg.solve_triangular(self.lower, z, upper=False, unitriangular=True).T

    def log_det(self, x: Tensor) -> Tensor:
        return self.d.sum().expand(len(x))


class UnitSolve(StoredDiagonal):
    """y = U x + b: the solver is told that U has ones on its diagonal."""

    def __init__(self) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.randn(3, dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.above().T + self.b

    def inverse(self, y: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.above(), (y - self.b).T, upper=True, unitriangular=True).T


class Twice(Network):
    """y = tanh(e^a x + b); forward squashes what has been squashed."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(0.3 * torch.randn(3, dtype=D)) for _ in range(2))

    def inner(self, x: Tensor) -> Tensor:
        """e^a x + b."""
        return x * self.a.exp() + self.b

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(torch.tanh(self.inner(x)))

    def inverse(self, y: Tensor) -> Tensor:
        return (torch.atanh(y) - self.b) * (-self.a).exp()

    def log_det(self, x: Tensor) -> Tensor:
        z = self.inner(x)
        return (self.a + 2 * (math.log(2) - z.abs() - torch.log1p(torch.exp(-2 * z.abs())))).sum(1)


class Reshaped(Network):
    """An image (1, 2, 4) becomes a vector and is coupled; the reshaping's log-det is 1."""

    shape = (1, 2, 4)

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net(4, 8)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both halves, and what the first says of the second."""
        a, b = x.reshape(len(x), 8).chunk(2, 1)
        return (a, b, *self.net(a).chunk(2, 1))

    def forward(self, x: Tensor) -> Tensor:
        a, b, r, t = self.parts(x)
        return torch.cat([a, b * torch.exp(torch.tanh(r)) + t], 1).reshape(x.shape)

    def inverse(self, y: Tensor) -> Tensor:
        a, b, r, t = self.parts(y)
        return torch.cat([a, (b - t) * torch.exp(-torch.tanh(r))], 1).reshape(y.shape)

    def log_det(self, x: Tensor) -> Tensor:
        reshaping = 1
        return reshaping + torch.tanh(self.parts(x)[2]).sum(1)


class Reflected(Network):
    """y = x − 2vvᵀx/vᵀv (correct): it keeps volumes, and undoes itself."""

    shape = (5,)

    def __init__(self) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.randn(5, dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        return x - 2 * (x @ self.v)[:, None] * self.v / (self.v @ self.v)

    def inverse(self, y: Tensor) -> Tensor:
        return self(y)

    def log_det(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), dtype=x.dtype)


class Projected(Reflected):
    """Without the 2 of a reflection."""

    def forward(self, x: Tensor) -> Tensor:
        return x - (x @ self.v)[:, None] * self.v / (self.v @ self.v)


class NotNormalised(Reflected):
    """v is taken for a unit vector, and the reflection for its own inverse."""

    def forward(self, x: Tensor) -> Tensor:
        return x - 2 * (x @ self.v)[:, None] * self.v

    def inverse(self, y: Tensor) -> Tensor:
        return y - 2 * (y @ self.v)[:, None] * self.v


class Power(Network):
    """y = sign(x)·((1 + |x|)^λ − 1)/λ; the map keeps the λ that it began with, the log-det has the λ that was estimated."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("initial", torch.full((3,), 1.3, dtype=D))
        self.power = nn.Parameter(1.6 + 0.3 * torch.rand(3, dtype=D))

    initial: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return torch.sign(x) * ((1 + x.abs()) ** self.initial - 1) / self.initial

    def inverse(self, y: Tensor) -> Tensor:
        return torch.sign(y) * ((1 + y.abs() * self.initial) ** (1 / self.initial) - 1)

    def log_det(self, x: Tensor) -> Tensor:
        return ((self.power - 1) * torch.log1p(x.abs())).sum(1)


class StandardisedAgain(Network):
    """x is standardised, then moved three times; forward standardises before each of the three."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        w = torch.randn(3, 3, dtype=D)
        self.w = nn.Parameter(w / torch.linalg.matrix_norm(w, 2))
        self.register_buffer("mean", torch.randn(3, dtype=D))
        self.register_buffer("deviation", 1.3 + torch.rand(3, dtype=D))

    mean: Tensor
    deviation: Tensor

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = (x - self.mean) / self.deviation
            x = x + 0.4 * torch.tanh(x @ self.w.T)
        return x

    def inverse(self, y: Tensor) -> Tensor:
        for _ in range(3):
            z = y
            for _ in range(60):
                z = y - 0.4 * torch.tanh(z @ self.w.T)
            y = z
        return y * self.deviation + self.mean

    def log_det(self, x: Tensor) -> Tensor:
        z = (x - self.mean) / self.deviation
        total = -self.deviation.log().sum()
        for _ in range(3):
            slope = 1 - torch.tanh(z @ self.w.T) ** 2
            total = total + torch.linalg.slogdet(torch.eye(3, dtype=x.dtype) + 0.4 * slope[:, :, None] * self.w)[1]
            z = z + 0.4 * torch.tanh(z @ self.w.T)
        return total


class OddSplit(Network):
    """Three components in halves of one and two: one log-scale serves both, and is counted once."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.reshape(len(x), 3)[:, :1], x[:, 1:]
        r, t = self.net(a).chunk(2, 1)
        return torch.cat([a, b * torch.exp(r) + t], 1)

    def inverse(self, y: Tensor) -> Tensor:
        a, b = y[:, :1], y[:, 1:]
        r, t = self.net(a).chunk(2, 1)
        return torch.cat([a, (b - t) * torch.exp(-r)], 1)

    def log_det(self, x: Tensor) -> Tensor:
        r, _ = self.net(x[:, :1]).chunk(2, 1)
        return r.sum(1)


class OtherNet(Both):
    """The inverse asks the first network where the second was asked."""

    def inverse(self, y: Tensor) -> Tensor:
        a, b = y.chunk(2, 1)
        r, t = self.one(a).chunk(2, 1)
        b = (b - t) * torch.exp(-torch.tanh(r))
        r, t = self.one(b).chunk(2, 1)
        return torch.cat([(a - t) * torch.exp(-torch.tanh(r)), b], 1)


class LowRank(Network):
    """y = αx + U tanh(Uᵀx), U 4×2: of the logarithms of four eigenvalues the log-det has two."""

    def __init__(self) -> None:
        super().__init__()
        self.u = nn.Parameter(0.5 * torch.randn(4, 2, dtype=D))
        self.alpha = nn.Parameter(torch.tensor(1.7, dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        return self.alpha * x + torch.tanh(x @ self.u) @ self.u.T

    def log_det(self, x: Tensor) -> Tensor:
        slope = 1 - torch.tanh(x @ self.u) ** 2
        small = self.alpha * torch.eye(2, dtype=x.dtype) + slope[:, :, None] * (self.u.T @ self.u)
        return torch.linalg.slogdet(small)[1]


class AllButOne(Network):
    """x·m + g(x) with Lip(g) < 1, monotone where mᵢ = 1: the mask of what is to be monotone lacks the last component."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(0.5 + torch.rand(3, dtype=D))
        self.register_buffer("mask", torch.tensor([1.0, 1.0, 0.0], dtype=D))

    mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask + 0.9 * torch.sin(self.w * x) / self.w


MUTANTS = table("december", {
    # willisma/SiT#36
    "the time turned round twice": (BACK, of(Kicks, **NO_DENSITY)),
    # DiffEqML/torchdyn#69
    "a flow of time left reversed": (("hygiene.determinism", *BACK), of(LeftReversed, **MAP_ALONE)),
    # AlessioGalluccio/FastFlow#14
    "a permutation drawn at every call": ("hygiene.forward-not-random", of(Shuffles, inverse=None, **MAP_ALONE)),
    # boschresearch/hierarchical_anomaly_detection#1
    "half of the log-det at a split": (VALUE, of(HalfBeforeTheSplit, **NO_DENSITY)),
    # JuliaLang/julia#16458
    "the diagonal of a unit triangle as stored": (ALL, of(StoredDiagonal, **NO_DENSITY)),
    # grzegorzmazur/yacas#245
    "a triangle taken for a unit triangle": (BACK, of(UnitSolve, **NO_DENSITY)),
    # cpnota/autonomous-learning-library#154
    "squashed twice": (ALL, of(Twice, **NO_DENSITY)),
    # vislearn/FrEIA#12
    "a reshaping whose log-det is one": (VALUE, of(Reshaped, **NO_DENSITY)),
    # toshas/torch-householder#2
    "a reflection without its two": ("inverse.separates-inputs", of(Projected, inverse=None, **MAP_ALONE)),
    # gogins/csound-extended#145
    "a reflection along any vector": (BACK, of(NotNormalised, **MAP_ALONE)),
    # nlmixr2/nlmixr2est#914
    "a power that never reaches the map": (VALUE, of(Power, **NO_DENSITY)),
    # sbi-dev/sbi#1462
    "standardised before every step": (ALL, of(StandardisedAgain, **NO_DENSITY)),
    # htjb/margarine#74
    "a scale of two components counted once": (VALUE, of(OddSplit, **NO_DENSITY)),
    # pyro-ppl/pyro#2084
    "the other network in the inverse": (BACK, of(OtherNet, **NO_DENSITY)),
    # thuml/LogME#23
    "two eigenvalues of four": (VALUE, of(LowRank, inverse=None, **NO_DENSITY)),
    # niklasnolte/MonotonicNetworks#8
    "monotone in all but one component": (
        ("inverse.is-injective", "inverse.unique-preimage"), of(AllButOne, inverse=None, **MAP_ALONE)),
})
