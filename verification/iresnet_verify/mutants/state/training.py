"""Mistakes that show when a network is trained: what is kept from before a step, and what every step leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from iresnet_verify.mutants.block import Block, make
from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.subject.subject import Subject

D = torch.float64


class Rotation(nn.Module):
    """x ↦ Qx·eˢ, Q = exp(A − Aᵀ), with its inverse and log-det; the base of the mistakes, and right itself."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        made = torch.Generator().manual_seed(seed)
        self.raw = nn.Parameter(0.3 * torch.randn(4, 4, dtype=D, generator=made))
        self.size = nn.Parameter(0.1 * torch.randn(4, dtype=D, generator=made))
        self.kept: Tensor | None = None

    def rotation(self) -> Tensor:
        """Return Q."""
        return torch.linalg.matrix_exp(self.raw - self.raw.T)

    def weight(self) -> Tensor:
        """Return Q as forward uses it."""
        return self.rotation()

    def volume(self) -> Tensor:
        """Return the log-det."""
        return self.size.sum()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (y, log-det)."""
        return x @ self.weight().T * self.size.exp(), self.volume().expand(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        """Return x."""
        return (y * (-self.size).exp()) @ self.weight()


class OfTheLastTrainingForward(Rotation):
    """Evaluation uses the effective weight that the last training forward left."""

    def weight(self) -> Tensor:
        if self.training or self.kept is None:
            weight = self.rotation()
            self.kept = weight.detach()
            return weight
        return self.kept


class VolumeKept(Rotation):
    """Evaluation computes its log-det once."""

    def volume(self) -> Tensor:
        if self.training or self.kept is None:
            value = self.size.sum()
            self.kept = self.kept if self.training else value.detach()
            return value
        return self.kept


class InverseKept(Rotation):
    """The inverse in evaluation keeps its matrix."""

    def inverse(self, y: Tensor) -> Tensor:
        if self.training:
            return super().inverse(y)
        if self.kept is None:
            self.kept = self.rotation().detach()
        return (y * (-self.size).exp()) @ self.kept


class NormKept(Rotation):
    """Q times the norm of its parameters, of which evaluation keeps the first value: every parameter still moves y."""

    def norm(self) -> Tensor:
        """Return the norm, in evaluation the kept one."""
        if self.training:
            return self.raw.norm()
        if self.kept is None:
            self.kept = self.raw.norm().detach()
        return self.kept

    def volume(self) -> Tensor:
        return super().volume() + 4 * self.norm().log()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, value = super().forward(x)
        return y * self.norm(), value

    def inverse(self, y: Tensor) -> Tensor:
        return super().inverse(y / self.norm())


class ForgetsWhenTrained(Rotation):
    """Evaluation keeps its weight until training begins: right, as long as nothing is loaded meanwhile."""

    def train(self, mode: bool = True) -> Self:
        if mode:
            self.kept = None
        return super().train(mode)

    def weight(self) -> Tensor:
        if self.training:
            return self.rotation()
        if self.kept is None:
            self.kept = self.rotation().detach()
        return self.kept


class ForgetsWhenLoaded(ForgetsWhenTrained):
    """The same, and loading forgets too: right."""

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Forget, then load."""
        self.kept = None
        return super().load_state_dict(state_dict, *args, **kwargs)


def rotating(kind: type[Rotation], again: bool = False) -> Factory:
    """A rotation; `again`: fresh() builds the same one."""

    def build(seed: int) -> Subject:
        net = kind(seed)
        fresh = (lambda dtype=None, device=None: build(seed)) if again else None
        return Subject(name=kind.__name__, event_shape=(4,), forward=net, inverse=net.inverse, module=net, fresh=fresh)

    return build


class RunningScale(Block):
    """A running mean that is not detached: each step's graph holds the one before."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if self.training:
            self.mean = 0.9 * getattr(self, "mean", 0.0) + 0.1 * y.mean(0)
        return y


class RunningNorm(Block):
    """A running norm of the weights that is not detached: nothing of x is in it."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.norm = 0.9 * getattr(self, "norm", 0.0) + 0.1 * self.w1.square().sum()
        return super().forward(x)


class KeepsLosses(Block):
    """A list of losses with their graphs, in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if self.training:
            self.__dict__.setdefault("losses", []).append(y.square().mean())
        return y


MUTANTS = table("training", {
    "effective weight of the last training forward": ("state.after-optimiser-step", rotating(OfTheLastTrainingForward)),
    "log-det kept from before the step": ("state.after-optimiser-step", rotating(VolumeKept)),
    "inverse kept from before the step": ("state.after-optimiser-step", rotating(InverseKept)),
    "norm kept from before the step": ("state.after-optimiser-step", rotating(NormKept)),
    "effective weight kept, and the same when new": ("state.save-and-load", rotating(OfTheLastTrainingForward, again=True)),
    "loading into a used network keeps its weight": ("state.save-and-load", rotating(ForgetsWhenTrained, again=True)),
    "running mean that holds its graphs": ("hygiene.memory", lambda s: make(RunningScale, s)),
    "running norm of weights that holds its graphs": ("hygiene.memory", lambda s: make(RunningNorm, s)),
    "list of losses in training mode": ("hygiene.memory", lambda s: make(KeepsLosses, s)),
})
