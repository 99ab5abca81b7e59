"""Mistakes that issue trackers report, of residual blocks, estimates and states of a network. Each address is beside the mutant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from iresnet_verify.mutants.fresh.flows import NO_DENSITY, VALUE
from iresnet_verify.mutants.fresh.networks import Convolutions, Roulette, Stack, of
from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.mutants.unseen.networks import Coupling, D, Network, Residual
from iresnet_verify.subject.subject import Subject

BOUNDS = ("lipschitz.bounds-jacobian", "lipschitz.bounds-stretch", "lipschitz.layers")


class Layered(Network):
    """x + tanh(Ŵ₂ tanh(Ŵ₁x)), two linear layers of norm √.8 by `normalised`."""

    shape = (4,)
    lipschitz = 0.8

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Parameter(torch.randn(4, 4, dtype=D)), nn.Parameter(torch.randn(4, 4, dtype=D))

    def normalised(self, w: Tensor) -> Tensor:
        """w at norm √.8."""
        return 0.8**0.5 * w / torch.linalg.matrix_norm(w, 2)

    def weights(self) -> list[Tensor]:
        """Both."""
        return [self.normalised(self.first), self.normalised(self.last)]

    def g(self, x: Tensor) -> Tensor:
        """The branch."""
        first, last = self.weights()
        return torch.tanh(torch.tanh(x @ first.T) @ last.T)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.g(x)


def layered(kind: type[Layered], **changes: Any) -> Factory:
    """The branch and its bound; its layers are those of `weights`."""
    def maps(net: Layered) -> dict[str, Any]:
        def found() -> list[tuple[Any, ...]]:
            return [(f"layer {i}", lambda v, i=i: v @ net.weights()[i].T, (4,)) for i in (0, 1)]

        return {"linear_maps": found}

    return of(kind, **{**NO_DENSITY, "inverse": None, "log_det": None, "made": maps, **changes})


class SmallAdded(Layered):
    """Power iteration divides vectors by their norms plus 10⁻⁹, and the weights are as small as that."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.first.mul_(1e-9)

    def normalised(self, w: Tensor) -> Tensor:
        v = torch.ones(4, dtype=w.dtype)
        for _ in range(20):
            u = w @ v
            u = u / (u.norm() + 1e-9)
            v = w.T @ u
            v = v / (v.norm() + 1e-9)
        return 0.8**0.5 * w / (u @ w @ v)


class OneIteration(Layered):
    """One power iteration, from the same vector each time."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.last.copy_(self.first.T)

    def normalised(self, w: Tensor) -> Tensor:
        v = torch.ones(4, dtype=w.dtype)
        v = w.T @ (w @ v)
        v = v / v.norm()
        return 0.8**0.5 * w / (w @ v).norm()


class NeverBegun(Layered):
    """σ = uᵀWv with the vectors of the day it was built: in evaluation mode no iteration has ever run."""

    u: Tensor
    v: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in "uv":
            self.register_buffer(name, nn.functional.normalize(torch.randn(4, dtype=D), dim=0))

    def normalised(self, w: Tensor) -> Tensor:
        return 0.8**0.5 * w / (self.u @ w @ self.v).abs()


class WithoutCoefficient(Layered):
    """Every layer is normalised to 1, the bound claimed is .8."""

    def normalised(self, w: Tensor) -> Tensor:
        return w / torch.linalg.matrix_norm(w, 2)


class ScaledInside(Layered):
    """An activation normalisation between the layers, whose scale nobody bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(0.5 + 0.4 * torch.rand(4, dtype=D))

    def g(self, x: Tensor) -> Tensor:
        first, last = self.weights()
        return torch.tanh((torch.tanh(x @ first.T) * self.a.exp()) @ last.T)


class StillIterating(Layered):
    """Every evaluation makes one more power iteration, and starts from where the last one stopped."""

    v: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("v", torch.ones(4, dtype=D))

    def normalised(self, w: Tensor) -> Tensor:
        with torch.no_grad():
            v = w.T @ (w @ self.v)
            self.v.copy_(v / v.norm())
        return 0.7**0.5 * w / (w @ self.v.clone()).norm()


class Reshaped(Convolutions):
    """The norm of a convolution is that of its kernel, reshaped to a matrix."""

    def normalised(self, kernel: Tensor) -> Tensor:
        return 0.8**0.5 * kernel / torch.linalg.matrix_norm(kernel.flatten(1), 2)

    def operators(self) -> list[tuple[Any, ...]]:
        """Both."""
        return [(f"layer {i}", lambda v, i=i: self.convolve(v, self.normalised((self.first, self.last)[i])), shape)
                for i, shape in enumerate([(2, 4, 4), (3, 4, 4)])]


class FiveTerms(Stack):
    """The evaluation's number of terms has not reached the blocks, which keep the 5 of training."""

    def log_det(self, x: Tensor) -> Tensor:
        total = torch.zeros(len(x), dtype=x.dtype)
        for i in (0, 1):
            value, J = self.branch(i, x)
            power = J
            for k in range(1, 6):
                total = total - (-1) ** k * power.diagonal(dim1=1, dim2=2).sum(1) / k
                power = power @ J
            x = x + value
        return total


class LastStep(Residual):
    """The gradient of the inverse is that of its last step."""

    def inverse(self, y: Tensor) -> Tensor:
        with torch.no_grad():
            x = super().inverse(y)
        return y - self.g(x)


class ClampedEstimate(Roulette):
    """Forty terms with one probe of signs; an estimate below 0 is taken for 0."""

    def log_det(self, x: Tensor) -> Tensor:
        v = torch.sign(torch.randn_like(x))
        w, total = v, torch.zeros(len(x), dtype=x.dtype)
        for k in range(1, 41):
            w = self.product(x, w)
            total = total - (-1) ** k * (w * v).sum(1) / k
        return total.clamp(min=0)


class SameProbes(Roulette):
    """The probes are drawn once, when the network is built, and the series is long."""

    v: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("v", torch.sign(torch.randn(3, dtype=D)))

    def log_det(self, x: Tensor) -> Tensor:
        v = self.v.expand_as(x)
        w, total = v, torch.zeros(len(x), dtype=x.dtype)
        for k in range(1, 60):
            w = self.product(x, w)
            total = total - (-1) ** k * (w * v).sum(1) / k
        return total


class Shuffled(Coupling):
    """A random permutation, then a coupling; the permutation is an attribute that no state has."""

    def __init__(self) -> None:
        super().__init__()
        self.order = torch.randperm(4).tolist()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, self.order])

    def inverse(self, y: Tensor) -> Tensor:
        x = super().inverse(y)
        return torch.stack([x[:, self.order.index(i)] for i in range(4)], 1)

    def log_det(self, x: Tensor) -> Tensor:
        return super().log_det(x[:, self.order])


def reloaded(kind: type[Network], *modes: str, **changes: Any) -> Factory:
    """With a function that builds another one."""
    def make(seed: int) -> Subject:
        def fresh(dtype: str | None = None, device: str | None = None) -> Subject:
            return make(seed + 1000)

        return replace(of(kind, modes=modes or ("eval",), **changes)(seed), fresh=fresh)

    return make


class KeptInverse(Network):
    """y = Wx + b; in evaluation the inverse matrix is the one of the first time it was asked for."""

    shape = (3,)
    kept: Tensor | None = None

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.eye(3, dtype=D) + 0.4 * torch.randn(3, 3, dtype=D))
        self.b = nn.Parameter(torch.randn(3, dtype=D))
        self.kept = torch.linalg.inv(self.w).detach()

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w.T + self.b

    def inverse(self, y: Tensor) -> Tensor:
        inverse = torch.linalg.inv(self.w) if self.training or self.kept is None else self.kept
        return (y - self.b) @ inverse.T

    def log_det(self, x: Tensor) -> Tensor:
        return torch.linalg.slogdet(self.w)[1].expand(len(x))


class Wavelet(Network):
    """Steps of a wavelet around the edges of an image; the inverse of a small image cuts the filter at its edge."""

    shape = (1, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.tensor([0.4, -0.3, 0.2], dtype=D))

    def lifted(self, even: Tensor, circular: bool) -> Tensor:
        """What every second row is lifted by: three of its neighbours in the others."""
        reach = nn.functional.pad(even, (0, 0, 1, 1), mode="circular" if circular else "constant")
        return torch.tanh(torch.stack([c * reach[:, :, i : i + even.shape[2]] for i, c in enumerate(self.c)]).sum(0))

    def forward(self, x: Tensor) -> Tensor:
        even, odd = x[:, :, ::2], x[:, :, 1::2]
        return torch.stack([even, odd + self.lifted(even, True)], 3).reshape(x.shape)

    def inverse(self, y: Tensor) -> Tensor:
        even, odd = y[:, :, ::2], y[:, :, 1::2]
        return torch.stack([even, odd - self.lifted(even, y.shape[2] > 4)], 3).reshape(y.shape)

    def log_det(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), dtype=x.dtype)


class Interval(Network):
    """x + b·sin(πx/b)/8 inside [−b, b] and x outside, where b is 5 whatever was asked for."""

    shape = (3,)

    def __init__(self, bound: float = 2.0) -> None:
        super().__init__()
        self.bound = bound
        self.c = nn.Parameter(torch.full((3,), 0.1, dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        b = 5.0
        inside = x.clamp(-b, b)
        return x + self.c * b * torch.sin(torch.pi * inside / b)


def interval(seed: int, bound: float = 2.0) -> Subject:
    """With the argument listed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Interval(bound)
    return Subject(name="interval", event_shape=(3,), forward=net, module=net, modes=("eval",), arguments={"bound": (0.5, "forward")},
                   fresh=lambda dtype=None, device=None, **changed: interval(seed, **{"bound": bound, **changed}))


class InPlace(Coupling):
    """The shift is added in place to what the exponential has saved for its backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.reshape(len(x), 4).chunk(2, 1)
        r, t = self.scale_and_shift(a)
        scale = torch.exp(r)
        moved = b * scale
        scale += t
        return torch.cat([a, moved + t], 1)


MUTANTS = table("fresh", {
    # klasleino/gloro#8
    "a small number added to the norms of power iteration": (BOUNDS, layered(SmallAdded)),
    # jhjacobsen/invertible-resnet#3
    "too few power iterations": (BOUNDS, layered(OneIteration)),
    # pytorch/pytorch#51800
    "evaluated before a power iteration has run": (BOUNDS, layered(NeverBegun)),
    # stevenygd/NFGP#2
    "no coefficient below one": (BOUNDS, layered(WithoutCoefficient)),
    # jhjacobsen/invertible-resnet#11
    "an activation normalisation inside the branch": (BOUNDS, layered(ScaledInside)),
    # pytorch/pytorch#8208
    "power iterations in evaluation": (("hygiene.determinism", "hygiene.batch-independence"), layered(StillIterating)),
    # pytorch/pytorch#99149, pfnet-research/sngan_projection#37
    "a kernel reshaped to a matrix": (BOUNDS, of(
        Reshaped, inverse=None, log_det=None, **NO_DENSITY, made=lambda n: {"linear_maps": n.operators})),
    # jhjacobsen/invertible-resnet#18
    "the number of terms does not reach the blocks": (VALUE, of(FiveTerms, **NO_DENSITY)),
    # bwilder0/clusternet#1
    "back through the last iteration": ("gradient.through-inverse", of(
        LastStep, log_det=None, **NO_DENSITY, made=lambda n: {"residual": n.g, "lipschitz": 0.7 * (1 + 1e-9)})),
    # SauersML/gam#4151
    "an estimate that is never negative": (("estimator.unbiased", "logdet.matches-determinant"), of(ClampedEstimate)),
    # stevenygd/PointFlow#25
    "the same probe for ever": (("estimator.unbiased", *VALUE), of(SameProbes)),
    # ikostrikov/pytorch-flows#17
    "a permutation that is not saved": ("state.save-and-load", reloaded(Shuffled)),
    # NVIDIA/waveglow#8
    "the inverse matrix of the first inference": ("state.after-optimiser-step", reloaded(KeptInverse, "train", "eval", **NO_DENSITY)),
    # fbcotter/pytorch_wavelets#42
    "small images are cut at their edges": ("inverse.other-shapes", of(Wavelet, **NO_DENSITY, other_shapes=((1, 4, 4), (1, 8, 8)))),
    # TuringLang/NormalizingFlows.jl#63
    "an interval that is always the same": ("state.arguments-act", interval),
    # chaiyujin/glow-pytorch#6
    "added in place to what is needed again": (("gradient.forward", "gradient.forward-input"), of(
        InPlace, log_det=None, **NO_DENSITY)),
})
