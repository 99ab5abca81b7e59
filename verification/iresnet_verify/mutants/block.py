"""One correct block that supplies every field of `Subject`: what the mutants of behaviour and state start from."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from iresnet_verify.subject.subject import Subject

D, HIDDEN, LIPSCHITZ = 3, 6, 0.8


class Block(nn.Module):
    """F(x) = x + g(x), g(x) = Ŵ₂ tanh(Ŵ₁x + b₁), Ŵ = W·min(1, c/σ) with c = √(L(1 − 1e-6)), σ = ‖W‖₂ at the last refresh."""

    sigma: Tensor

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(HIDDEN, D, dtype=dtype))
        self.b1 = nn.Parameter(torch.randn(HIDDEN, dtype=dtype) * 0.5)
        self.w2 = nn.Parameter(torch.randn(D, HIDDEN, dtype=dtype))
        self.keep_norms(torch.ones(2, dtype=dtype))
        self.refresh()

    def keep_norms(self, sigma: Tensor) -> None:
        self.register_buffer("sigma", sigma)

    def refresh(self) -> None:
        with torch.no_grad():
            for k, w in enumerate((self.w1, self.w2)):
                self.sigma[k] = torch.linalg.matrix_norm(w, 2)

    def weights(self) -> tuple[Tensor, Tensor]:
        c = math.sqrt(LIPSCHITZ * (1 - 1e-6))
        scale = torch.clamp(c / self.sigma, max=1.0)
        return self.w1 * scale[0], self.w2 * scale[1]

    def g(self, x: Tensor) -> Tensor:
        w1, w2 = self.weights()
        return torch.tanh(x @ w1.T + self.b1) @ w2.T

    def forward(self, x: Tensor) -> Tensor:
        return x + self.g(x)

    def log_det(self, x: Tensor) -> Tensor:
        w1, w2 = self.weights()
        slope = 1 - torch.tanh(x @ w1.T + self.b1) ** 2
        J = w2 @ (slope[:, :, None] * w1)
        return torch.linalg.slogdet(torch.eye(D, dtype=x.dtype, device=x.device) + J)[1]

    def inverse(self, y: Tensor) -> Tensor:
        """Banach's iteration, until steps stop shrinking near rounding; rows that have not converged raise."""
        x = y
        u = torch.finfo(y.dtype).eps
        for _ in range(400):
            x, before = y - self.g(x), x
            step, size = (x - before).abs().amax(1), 1 + y.abs().amax(1)
            if bool((step <= 4 * u * size).all()):
                return x
        if bool(torch.isfinite(y).all()):
            raise RuntimeError("Banach's iteration did not converge in 400 steps: is g a contraction?")
        return x


def base_log_prob(y: Tensor) -> Tensor:
    return -0.5 * (y**2).sum(1) - 0.5 * D * math.log(2 * math.pi)


def subject_of(block: Block, name: str, remake: Callable[..., Subject]) -> Subject:
    """Every field of `Subject`, bound to one block."""

    def sample(n: int) -> Tensor:
        return block.inverse(torch.randn(n, D, dtype=block.w1.dtype))

    @contextlib.contextmanager
    def randomness(draw: Callable[..., Any]) -> Iterator[None]:
        yield  # nothing here is random

    return Subject(
        name=name,
        event_shape=(D,),
        forward=block,
        inverse=block.inverse,
        log_det=block.log_det,
        inverse_log_det=lambda y: -block.log_det(block.inverse(y)),
        residual=block.g,
        lipschitz=LIPSCHITZ,
        lipschitz_holds="after-refresh",
        log_prob=lambda x: base_log_prob(block(x)) + block.log_det(x),
        base_log_prob=base_log_prob,
        sample=sample,
        module=block,
        fresh=remake,
        refresh=block.refresh,
        linear_maps=lambda: [
            ("w1", lambda v: v @ block.weights()[0].T, (D,), math.sqrt(LIPSCHITZ)),
            ("w2", lambda v: v @ block.weights()[1].T, (HIDDEN,), math.sqrt(LIPSCHITZ)),
        ],
        randomness=randomness,
        dtype=str(block.w1.dtype).removeprefix("torch."),
    )


def make(kind: type[Block] = Block, seed: int = 0, dtype: str | None = None, **changes: Any) -> Subject:
    """A subject around a new block; `changes` are fields, or functions of the block that give them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        block = kind(getattr(torch, dtype or "float64"))

    def remake(dtype: str | None = None, device: str | None = None) -> Subject:
        return make(kind, seed + 1000, dtype, **changes)

    subject = subject_of(block, f"{kind.__name__}-{seed}", remake)
    fields: dict[str, Any] = {k: v(block) if callable(v) else v for k, v in changes.items()}
    return replace(subject, **fields)


def correct(seed: int = 0) -> Subject:
    """The correct one."""
    return make(Block, seed)
