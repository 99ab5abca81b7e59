"""One correct block, and blocks that misbehave: each subject here makes one mistake and is otherwise the correct one.

`correct(seed)` supplies every field of `Subject`. `BROKEN` maps a name to (the check meant for it, a factory).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from iresnet_verify.subject import Subject

D, HIDDEN, LIPSCHITZ = 3, 6, 0.8


class Block(nn.Module):
    """F(x) = x + g(x), g(x) = Ŵ₂ tanh(Ŵ₁x + b₁), Ŵ = W·min(1, c/σ) with c = √(L(1 − 1e-6)), σ = ‖W‖₂ at the last refresh."""

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
            ("w1", lambda v: v @ block.weights()[0].T, (D,)),
            ("w2", lambda v: v @ block.weights()[1].T, (HIDDEN,)),
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


# -- one mistake each ----------------------------------------------------------------------------------------------


class CentredRows(Block):
    """Rows are coupled, as by a batch norm that forgot its running statistics."""

    def g(self, x: Tensor) -> Tensor:
        return super().g(x - 0.1 * x.mean(0))


class InPlace(Block):
    """Adds the residual into the caller's array."""

    def forward(self, x: Tensor) -> Tensor:
        x += self.g(x)
        return x


class FreesInput(Block):
    """Frees its input, as memory-saving blocks do."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if not torch.is_grad_enabled() or not x.requires_grad:
            x.untyped_storage().resize_(0)
        return y


class Narrows(Block):
    """Returns float32 for float64."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).float()


class Seeds(Block):
    """Seeds the global generator to be "reproducible"."""

    def log_det(self, x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return super().log_det(x)


class DrawsNumpy(Block):
    """Consumes the caller's NumPy generator for nothing."""

    def forward(self, x: Tensor) -> Tensor:
        np.random.rand()  # noqa: NPY002 — the mistake itself
        return super().forward(x)


class HidesNan(Block):
    """Replaces NaN by 0."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.nan_to_num(x))


class SpreadsNan(Block):
    """One bad row spoils the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.0 * x.sum()


class EmptyIsOne(Block):
    """An empty batch comes back with one row."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if len(x) else x.new_zeros(1, D))


class Squeezes(Block):
    """A single row loses its batch axis."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze()


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


class AlwaysDrops(Block):
    """Dropout stays active in eval."""

    def g(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().g(x), 0.05, training=True)


class Requires(Block):
    """Leaves requires_grad set on the caller's tensor."""

    def log_det(self, x: Tensor) -> Tensor:
        x.requires_grad_(True)
        return super().log_det(x)


class Accumulates(Block):
    """Calls backward inside forward, so that gradients pile up in .grad."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            super().forward(x.detach()).sum().backward()
        return super().forward(x)


class ChangesDefault(Block):
    """Sets the default dtype."""

    def forward(self, x: Tensor) -> Tensor:
        torch.set_default_dtype(torch.float64)
        return super().forward(x)


class SwitchesMode(Block):
    """Evaluates its log-det in eval mode and stays there."""

    def log_det(self, x: Tensor) -> Tensor:
        self.train(not self.training)
        return super().log_det(x)


class ZeroUnderInference(Block):
    """Needs autograd for its log-det, and says 0 where it is off."""

    def log_det(self, x: Tensor) -> Tensor:
        value = super().log_det(x)
        return value if value.requires_grad else torch.zeros_like(value)


class ZeroUnderInferenceOnly(Block):
    """Turns autograd on by itself, which inference_mode ignores."""

    def log_det(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            value = super().log_det(x)
        return value if value.requires_grad else torch.zeros_like(value)


class Counts(Block):
    """The value depends on how often it was called."""

    calls = 0

    def g(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().g(x) * (1 - 1e-9 * self.calls)


class RandomLogDet(Block):
    """A log-det that is declared exact and is not."""

    def log_det(self, x: Tensor) -> Tensor:
        return super().log_det(x) + 1e-6 * torch.randn(len(x), dtype=x.dtype)


class Unnormalised(Block):
    """Normalises in eval only."""

    def weights(self) -> tuple[Tensor, Tensor]:
        w1, w2 = super().weights()
        return (w1 * 0.999, w2) if self.training else (w1, w2)


class SinglePrecisionInside(Block):
    """Computes in float32 whatever it is given."""

    def g(self, x: Tensor) -> Tensor:
        return super().g(x).float().to(x.dtype)


class NoGradientsAnyMore(Block):
    """Turns autograd off and leaves it so."""

    def inverse(self, y: Tensor) -> Tensor:
        torch.set_grad_enabled(False)
        return super().inverse(y)


class TakesThreads(Block):
    """Sets the number of threads of the process."""

    def forward(self, x: Tensor) -> Tensor:
        torch.set_num_threads(torch.get_num_threads() % 2 + 1)
        return super().forward(x)


class SeedsItsEstimate(Block):
    """An estimate that always draws the same numbers."""

    def log_det(self, x: Tensor) -> Tensor:
        value = super().log_det(x)
        noise = torch.randn_like(value)
        torch.manual_seed(0)
        return value + noise


class EstimateZeroWithoutAutograd(Block):
    """An estimate that is 0 where autograd is off."""

    def log_det(self, x: Tensor) -> Tensor:
        value = super().log_det(x)
        return value + 0.1 * torch.randn_like(value) if value.requires_grad else torch.zeros_like(value)


class LateBuffer(Block):
    """Registers a buffer at the first call: a new network does not know it."""

    def g(self, x: Tensor) -> Tensor:
        if not hasattr(self, "seen"):
            self.register_buffer("seen", torch.ones((), dtype=x.dtype))
        return super().g(x)


class OtherInFloat32(Block):
    """Another map in float32."""

    def g(self, x: Tensor) -> Tensor:
        return super().g(x) * (0.999 if x.dtype == torch.float32 else 1.0)


class Truncates(Block):
    """Takes the first coordinates of whatever it gets."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, :D])


class IgnoresStrides(Block):
    """Reads memory as if it were contiguous."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.as_strided(x, tuple(x.shape), (x[0].numel(), 1)))


class SharesItsCopy(Block):
    """A deep copy that is the same object."""

    def __deepcopy__(self, memo: dict[int, Any]) -> SharesItsCopy:
        return self


def _packed(block: Block) -> Callable[..., Any]:
    return lambda x: (block(x), -block.log_det(x))


def _same_when_new(seed: int) -> Callable[..., Any]:
    """A `fresh` that builds exactly the network that was delivered."""
    return lambda block: lambda dtype=None, device=None: make(type(block), seed, dtype)


BROKEN: dict[str, tuple[str, Callable[[int], Subject]]] = {
    "rows coupled": ("hygiene.batch-independence", lambda s: make(CentredRows, s)),
    "input mutated": ("hygiene.input-kept", lambda s: make(InPlace, s)),
    "input freed": ("hygiene.input-kept", lambda s: make(FreesInput, s)),
    "float32 for float64": ("hygiene.dtype-kept", lambda s: make(Narrows, s)),
    "global seeding": ("hygiene.global-randomness-kept", lambda s: make(Seeds, s)),
    "global draw": ("hygiene.global-randomness-kept", lambda s: make(DrawsNumpy, s)),
    "NaN hidden": ("hygiene.non-finite-rows", lambda s: make(HidesNan, s)),
    "NaN spread": ("hygiene.non-finite-rows", lambda s: make(SpreadsNan, s)),
    "empty batch": ("hygiene.empty-batch", lambda s: make(EmptyIsOne, s)),
    "single row": ("hygiene.single-row", lambda s: make(Squeezes, s)),
    "ActNorm flag lost": ("state.save-and-load", lambda s: make(ActNorm, s)),
    "buffer not saved": ("state.save-and-load", lambda s: make(NormsNotSaved, s)),
    "buffer not saved, same when new": (
        "state.save-and-load", lambda s: make(NormsNotSaved, s, fresh=_same_when_new(s))),
    "buffer registered late": ("state.save-and-load", lambda s: make(LateBuffer, s)),
    "gradient mode left off": ("hygiene.global-settings-kept", lambda s: make(NoGradientsAnyMore, s)),
    "threads": ("hygiene.global-settings-kept", lambda s: make(TakesThreads, s)),
    "estimate seeds globally": (
        "hygiene.global-randomness-kept", lambda s: make(SeedsItsEstimate, s, log_det_is="unbiased")),
    "estimate zero under no_grad": (
        "hygiene.no-grad", lambda s: make(EstimateZeroWithoutAutograd, s, log_det_is="unbiased")),
    "float32 differs": ("parity.across-precisions", lambda s: make(OtherInFloat32, s)),
    "dropout in eval": ("hygiene.forward-not-random", lambda s: make(AlwaysDrops, s)),
    "requires_grad left": ("hygiene.caller-tensors-kept", lambda s: make(Requires, s)),
    ".grad left": ("hygiene.caller-tensors-kept", lambda s: make(Accumulates, s)),
    "default dtype": ("hygiene.global-settings-kept", lambda s: make(ChangesDefault, s)),
    "mode switched": ("hygiene.global-settings-kept", lambda s: make(SwitchesMode, s)),
    "zero under no_grad": ("hygiene.no-grad", lambda s: make(ZeroUnderInference, s)),
    "zero under inference_mode": ("hygiene.inference-mode", lambda s: make(ZeroUnderInferenceOnly, s)),
    "call count": ("hygiene.determinism", lambda s: make(Counts, s)),
    "exact log-det is random": ("hygiene.exact-log-det-not-random", lambda s: make(RandomLogDet, s)),
    "train differs from eval": ("parity.train-and-eval", lambda s: make(Unnormalised, s)),
    "float32 inside": ("parity.precision", lambda s: make(SinglePrecisionInside, s)),
    "packed sign": ("parity.packed-log-det", lambda s: make(Block, s, forward=_packed)),
    "wrong shape accepted": ("hygiene.wrong-event-shape", lambda s: make(Truncates, s)),
    "strides ignored": ("hygiene.non-contiguous", lambda s: make(IgnoresStrides, s)),
    "shared copy": ("state.copies", lambda s: make(SharesItsCopy, s)),
}
