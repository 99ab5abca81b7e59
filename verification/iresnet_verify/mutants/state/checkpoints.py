"""Mistakes of state and parity: what a checkpoint, a copy, a mode or a precision changes and should not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from iresnet_verify.mutants.block import Block, D, make
from iresnet_verify.mutants.mutant import table


class ActNorm(Block):
    """Data-dependent scale whose flag is a plain attribute: it re-initialises after load_state_dict."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__(dtype)
        self.scale = nn.Parameter(torch.ones(D, dtype=dtype))
        self.ready = False

    def g(self, x: Tensor) -> Tensor:
        if not self.ready:
            with torch.no_grad():
                self.scale.copy_(1 / (1 + x.abs().amax(0)))
            self.ready = True
        return super().g(x) * self.scale

    def log_det(self, x: Tensor) -> Tensor:
        w1, w2 = self.weights()
        slope = 1 - torch.tanh(x @ w1.T + self.b1) ** 2
        J = self.scale[:, None] * (w2 @ (slope[:, :, None] * w1))
        return torch.linalg.slogdet(torch.eye(D, dtype=x.dtype) + J)[1]


class NormsNotSaved(Block):
    """σ is a plain attribute: a loaded network divides by the norms of the one it was built with."""

    def keep_norms(self, sigma: Tensor) -> None:
        self.sigma = sigma


class OtherInFloat32(Block):
    """Another map in float32."""

    def g(self, x: Tensor) -> Tensor:
        return super().g(x) * (0.999 if x.dtype == torch.float32 else 1.0)


class Unnormalised(Block):
    """Normalises in eval only."""

    def weights(self) -> tuple[Tensor, Tensor]:
        w1, w2 = super().weights()
        return (w1 * 0.999, w2) if self.training else (w1, w2)


class SinglePrecisionInside(Block):
    """Computes in float32 whatever it is given."""

    def g(self, x: Tensor) -> Tensor:
        return super().g(x).float().to(x.dtype)


class LateBuffer(Block):
    """Registers a buffer at the first call: a new network does not know it."""

    def g(self, x: Tensor) -> Tensor:
        if not hasattr(self, "seen"):
            self.register_buffer("seen", torch.ones((), dtype=x.dtype))
        return super().g(x)


class SharesItsCopy(Block):
    """A deep copy that is the same object."""

    def __deepcopy__(self, memo: dict[int, Any]) -> SharesItsCopy:
        return self


def _packed(block: Block) -> Callable[..., Any]:
    return lambda x: (block(x), -block.log_det(x))


def _same_when_new(seed: int) -> Callable[..., Any]:
    """A `fresh` that builds exactly the network that was delivered."""
    return lambda block: lambda dtype=None, device=None: make(type(block), seed, dtype)


MUTANTS = table("state", {
    "ActNorm flag lost": ("state.save-and-load", lambda s: make(ActNorm, s)),
    "buffer not saved": ("state.save-and-load", lambda s: make(NormsNotSaved, s)),
    "buffer not saved, same when new": ("state.save-and-load", lambda s: make(NormsNotSaved, s, fresh=_same_when_new(s))),
    "buffer registered late": ("state.save-and-load", lambda s: make(LateBuffer, s)),
    "float32 differs": ("parity.across-precisions", lambda s: make(OtherInFloat32, s)),
    "train differs from eval": ("parity.train-and-eval", lambda s: make(Unnormalised, s)),
    "float32 inside": ("parity.precision", lambda s: make(SinglePrecisionInside, s)),
    "packed sign": ("parity.packed-log-det", lambda s: make(Block, s, forward=_packed)),
    "shared copy": ("state.copies", lambda s: make(SharesItsCopy, s)),
})
