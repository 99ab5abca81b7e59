"""Mistakes of behaviour: what a network does to its input, to its neighbours and to the process it runs in."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor, nn

from iresnet_verify.mutants.block import Block, D, make
from iresnet_verify.mutants.mutant import table


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


class AlwaysDrops(Block):
    """Dropout stays active in eval."""

    def g(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().g(x), 0.05, training=True)


class DropsInTraining(Block):
    """Dropout inside the residual branch in training mode, where an inverse and a log-det are promised as well."""

    def g(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().g(x), 0.2, training=self.training)


class InfiniteScale(Block):
    """One component is multiplied by exp(∞), as after a step that diverged."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return torch.cat([y[:, :-1], y[:, -1:] * torch.inf], dim=1)


class Requires(Block):
    """Leaves requires_grad set on the caller's tensor."""

    def log_det(self, x: Tensor) -> Tensor:
        x.requires_grad_(True)
        return super().log_det(x)


class Accumulates(Block):
    """Calls backward inside forward, so that gradients pile up in .grad."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            torch.autograd.backward(super().forward(x.detach()).sum())
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
    """Needs autograd for its log-det, and returns 0 where it is off."""

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


class Truncates(Block):
    """Takes the first coordinates of whatever it gets."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, :D])


class IgnoresStrides(Block):
    """Reads memory as if it were contiguous."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.as_strided(x, tuple(x.shape), (x[0].numel(), 1)))


class KeepsBetweenLines(Block):
    """Keeps its input on itself and reads it again: another thread may have come between."""

    def g(self, x: Tensor) -> Tensor:
        self.seen = x
        time.sleep(2e-3)
        return super().g(self.seen[: len(x)])


class KeepsResults(Block):
    """Appends every result to a list."""

    kept: list[Tensor]

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        self.__dict__.setdefault("kept", []).append(y)
        return y


class KeepsGraph(Block):
    """Chains each result to the one before, so that no graph is ever freed."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        self.__dict__["last"] = (y, self.__dict__.get("last"))
        return y


class TurnsItsShift(Block):
    """y = x + g(x) + c, whose inverse negates c in place: right once."""

    shift: Tensor

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__(dtype)
        self.register_buffer("shift", torch.full((), 0.5, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.shift

    def inverse(self, y: Tensor) -> Tensor:
        return super().inverse(y + self.shift.neg_())


class RemembersTheBatch(Block):
    """The inverse undoes what the mean of the last batch was, not its own."""

    mean: Tensor

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__(dtype)
        self.register_buffer("mean", torch.zeros((), dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.copy_(x.detach().mean())
        return super().forward(x)

    def inverse(self, y: Tensor) -> Tensor:
        return super().inverse(y) + 1e-3 * self.mean


class LogDetMovesTheWeights(Block):
    """The log-det shrinks the weights a little, to be safe."""

    def log_det(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            for p in self.parameters():
                p.mul_(1.0 - 1e-6)
        return super().log_det(x)


class WritesItsWeight(Block):
    """The normalised weight is written into the parameter, behind autograd."""

    def weights(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            self.w2.div_(torch.linalg.matrix_norm(self.w2, 2))
            self.sigma[1] = 1.0
        w1, w2 = super().weights()
        return w1, w2.clone()


MUTANTS = table("hygiene", {
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
    "gradient mode left off": ("hygiene.global-settings-kept", lambda s: make(NoGradientsAnyMore, s)),
    "threads": ("hygiene.global-settings-kept", lambda s: make(TakesThreads, s)),
    "estimate seeds globally": ("hygiene.global-randomness-kept", lambda s: make(SeedsItsEstimate, s, log_det_is="unbiased")),
    "estimate zero under no_grad": ("hygiene.no-grad", lambda s: make(EstimateZeroWithoutAutograd, s, log_det_is="unbiased")),
    "dropout in eval": ("hygiene.forward-not-random", lambda s: make(AlwaysDrops, s)),
    "dropout in training": ("hygiene.forward-not-random", lambda s: make(DropsInTraining, s)),
    "infinite scale": ("hygiene.forward-finite", lambda s: make(InfiniteScale, s)),
    "requires_grad left": ("hygiene.caller-tensors-kept", lambda s: make(Requires, s)),
    ".grad left": ("hygiene.caller-tensors-kept", lambda s: make(Accumulates, s)),
    "weight written back": ("hygiene.caller-tensors-kept", lambda s: make(WritesItsWeight, s)),
    "default dtype": ("hygiene.global-settings-kept", lambda s: make(ChangesDefault, s)),
    "mode switched": ("hygiene.global-settings-kept", lambda s: make(SwitchesMode, s)),
    "zero under no_grad": ("hygiene.no-grad", lambda s: make(ZeroUnderInference, s)),
    "zero under inference_mode": ("hygiene.inference-mode", lambda s: make(ZeroUnderInferenceOnly, s)),
    "call count": ("hygiene.determinism", lambda s: make(Counts, s)),
    "inverse negates a buffer": ("hygiene.determinism", lambda s: make(TurnsItsShift, s)),
    "inverse by the last batch": ("hygiene.determinism", lambda s: make(RemembersTheBatch, s)),
    "log-det moves the weights": ("hygiene.determinism", lambda s: make(LogDetMovesTheWeights, s)),
    "exact log-det is random": ("hygiene.exact-log-det-not-random", lambda s: make(RandomLogDet, s, log_det_is="exact")),
    "wrong shape accepted": ("hygiene.wrong-event-shape", lambda s: make(Truncates, s)),
    "input kept between lines": ("hygiene.threads", lambda s: make(KeepsBetweenLines, s)),
    "results kept": ("hygiene.memory", lambda s: make(KeepsResults, s)),
    "graphs kept": ("hygiene.memory", lambda s: make(KeepsGraph, s)),
    "strides ignored": ("hygiene.non-contiguous", lambda s: make(IgnoresStrides, s)),
})
