"""Maps that are not injective although nothing changes sign: flat along a line, or saturated behind the back of their log-det."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iresnet_verify.mutants.mutant import table
from iresnet_verify.subject.subject import Subject

D = torch.float64


def generator(seed: int) -> torch.Generator:
    """A generator of its own for each seed."""
    return torch.Generator().manual_seed(seed)


def projection(seed: int = 0) -> Subject:
    """Orthogonal projection of ℝ³ onto a plane."""
    q = torch.linalg.qr(torch.randn(3, 3, dtype=D, generator=generator(seed)))[0]
    P = q[:, :2] @ q[:, :2].T
    return Subject(name="projection", event_shape=(3,), forward=lambda x: x @ P)


def rectifier(seed: int = 0) -> Subject:
    """ReLU: flat on half of each axis."""
    return Subject(name="ReLU", event_shape=(3 + seed % 2,), forward=torch.relu)


def bottleneck(seed: int = 0) -> Subject:
    """ℝ⁴ through a hidden layer of width 2."""
    rng = generator(seed)
    a, b = torch.randn(4, 2, dtype=D, generator=rng), torch.randn(2, 4, dtype=D, generator=rng)
    return Subject(name="bottleneck", event_shape=(4,), forward=lambda x: torch.tanh(x @ a) @ b)


def residual_bottleneck(seed: int = 0) -> Subject:
    """x − Wᵀ(WWᵀ)⁻¹Wx: a residual branch of norm 1 that takes two directions away."""
    w = torch.randn(2, 5, dtype=D, generator=generator(seed))
    P = w.T @ torch.linalg.solve(w @ w.T, w)
    return Subject(name="residual bottleneck", event_shape=(5,), forward=lambda x: x - x @ P, residual=lambda x: -x @ P)


class Convolution1x1(nn.Module):
    """A 1×1 convolution with singular values 1.5, 1 and 1e-17."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        u, _, v = torch.linalg.svd(torch.randn(3, 3, dtype=D, generator=generator(seed)))
        self.w = nn.Parameter(u @ torch.diag(torch.tensor([1.5, 1.0, 1e-17], dtype=D)) @ v)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.einsum("oi,bihw->bohw", self.w, x)
        return y, (torch.linalg.slogdet(self.w)[1] * x.shape[2] * x.shape[3]).expand(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        return torch.einsum("oi,bihw->bohw", torch.linalg.inv(self.w), y)


def singular_convolution(seed: int = 0) -> Subject:
    """Its log-det knows, its inverse is off by tens."""
    module = Convolution1x1(seed)
    return Subject(name="singular 1×1 convolution", event_shape=(3, 2, 2), forward=module, inverse=module.inverse, module=module)


def clamped_logit(seed: int = 0) -> Subject:
    """A clamp inside logit(sigmoid(x/3)), whose log-det is that of x/3·3 everywhere: beyond 35 all inputs have one image."""

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        u = torch.sigmoid(x / 3).clamp(1e-5, 1 - 1e-5)
        return 3 * (torch.log(u) - torch.log1p(-u)), torch.zeros(len(x), dtype=x.dtype)

    return Subject(name="clamped logit", event_shape=(3 + seed % 2,), forward=forward)


def hard_limit(seed: int = 0) -> Subject:
    """x clamped to [−50, 50] with log-det 0."""
    return Subject(name="clamp", event_shape=(4 + seed % 2,),
                   forward=lambda x: (x.clamp(-50.0, 50.0), torch.zeros(len(x), dtype=x.dtype)))


MUTANTS = table("inverse", {
    "projection onto a plane": ("inverse.separates-inputs", projection),
    "ReLU": ("inverse.separates-inputs", rectifier),
    "hidden layer narrower than the input": ("inverse.separates-inputs", bottleneck),
    "residual branch that takes directions away": ("inverse.separates-inputs", residual_bottleneck),
    "singular 1×1 convolution": ("inverse.separates-inputs", singular_convolution),
}) | table("logdet", {
    "clamp inside a squashing function": ("logdet.accounts-for-saturation", clamped_logit),
    "clamped output": ("logdet.accounts-for-saturation", hard_limit),
})
