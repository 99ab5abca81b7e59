"""Inverses, bounds and manners with one mistake each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from iresnet_verify.mutants.batches import stops
from iresnet_verify.mutants.block import Block, make
from iresnet_verify.mutants.bounds import layered
from iresnet_verify.mutants.convolutions import GRID, matrix, normalised_by
from iresnet_verify.mutants.inverse.round_trips import SEEN, Leaning, with_inverse
from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.mutants.networks import Residual, banach, mlp, steeper
from iresnet_verify.subject.subject import Subject

BOUNDS = ("lipschitz.bounds-jacobian", "lipschitz.bounds-pairs", "lipschitz.bounds-stretch")


def with_parameters(first: float = 1.0, shift: float = 1.0, last: float = 1.0) -> Callable[[Residual, Tensor], Tensor]:
    """The inverse of the network with its parameters multiplied."""
    return lambda m, y: banach(lambda x: torch.tanh(x @ (first * m.first).T + shift * m.shift) @ (last * m.last).T, y, 0.95)


def three_blocks(undo: Callable[[list[Any]], list[Any]]) -> Factory:
    """Three blocks, undone as `undo` says."""

    def build(seed: int) -> Subject:
        net = nn.Sequential(*[Residual(3, 0.6, 10 * seed + k, torch.float64) for k in range(3)])

        def inverse(y: Tensor) -> Tensor:
            for block in undo(list(net)):
                y = block.inverse(y)
            return y

        return Subject(name="three blocks", event_shape=(3,), forward=net, inverse=inverse, module=net, modes=("eval",))

    return build


def own_steps(module: Residual, y: Tensor) -> Tensor:
    """Each row stops by itself, at a step of 1e-3."""
    x, going = y.clone(), torch.ones(len(y), dtype=torch.bool)
    for _ in range(3000):
        step = (y - module.g(x) - x) * going[:, None]
        x = x + step
        going = going & (step.norm(dim=1) > 1e-3)
        if not bool(going.any()):
            break
    return x


def divided(norm: Callable[[Tensor], Tensor], d: int = 6) -> Factory:
    """A perceptron whose weights are divided by what `norm` says, and claimed .9."""

    def build(seed: int) -> Subject:
        module = Residual(d, 0.9, seed, torch.float64)
        with torch.no_grad():
            for w in (module.first, module.last):
                w.mul_(0.9**0.5 / norm(w))
        return mlp(d, seed, module=module, inverse=None)

    return build


def after(n: int) -> Callable[[Tensor], Tensor]:
    """‖Wv‖ after n power iterations from ones."""

    def norm(w: Tensor) -> Tensor:
        v = torch.ones(w.shape[1], dtype=w.dtype) / w.shape[1] ** 0.5
        for _ in range(n):
            v = w.T @ (w @ v)
            v = v / v.norm()
        return (w @ v).norm()

    return norm


class DividesByTheBatch(Block):
    """Each component is divided by its spread over the batch."""

    def g(self, x: Tensor) -> Tensor:
        return super().g(x / (1 + x.var(0, unbiased=False)))


class Noise(Block):
    """Noise of a hundred-thousandth in every mode."""

    def g(self, x: Tensor) -> Tensor:
        return super().g(x) + 1e-5 * torch.rand_like(x)


class Halves(Block):
    """Returns float16."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).half()


class DoublesItsArgument(Block):
    """The log-det works in its argument."""

    def log_det(self, x: Tensor) -> Tensor:
        value = super().log_det(x)
        with torch.no_grad():
            x.mul_(2.0)
        return value


class SeedsNumpy(Block):
    """The inverse seeds NumPy."""

    def inverse(self, y: Tensor) -> Tensor:
        np.random.seed(0)  # noqa: NPY002 - the mistake itself
        return super().inverse(y)


class DividesByZero(Block):
    """A division by the first component less itself."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.0 / (x[:, :1] - x[:, :1])


class EvaluationIsSmaller(Block):
    """Another scale in evaluation."""

    def g(self, x: Tensor) -> Tensor:
        return super().g(x) * (1.0 if self.training else 0.99)


class ShiftNotSaved(Block):
    """A plain attribute that belongs to the map."""

    def g(self, x: Tensor) -> Tensor:
        if not hasattr(self, "offset"):
            self.offset = 0.1 * torch.randn(x.shape[1], dtype=x.dtype, generator=torch.Generator().manual_seed(id(self) % 2**31))
        return super().g(x) + self.offset


class Autograd(Block):
    """Switches autograd off in forward and leaves it so."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        torch.set_grad_enabled(False)
        return y


MUTANTS = table("afterwards", {
    "three steps": (SEEN, with_inverse(lambda m, y: banach(m.g, y, 0.9, most=3))),
    "fifty steps": (SEEN, with_inverse(lambda m, y: banach(m.g, y, 0.95, most=50), Leaning)),
    "y plus g of y": (SEEN, with_inverse(lambda m, y: y + m.g(y))),
    "y itself": (SEEN, with_inverse(lambda m, y: y.clone())),
    "rows rolled": (SEEN, with_inverse(lambda m, y: m.inverse(y).roll(1, 0))),
    "components backwards": (SEEN, with_inverse(lambda m, y: m.inverse(y).flip(1))),
    "half of the bias": (SEEN, with_inverse(with_parameters(shift=0.5))),
    "first layer of another epoch": (SEEN, with_inverse(with_parameters(first=1.02))),
    "bias left out of the inverse": (SEEN, with_inverse(with_parameters(shift=0.0))),
    "one block left out": (SEEN, three_blocks(lambda b: [b[2], b[0]])),
    "three blocks in forward order": (SEEN, three_blocks(lambda b: b)),
    "clipped to two": (SEEN, with_inverse(lambda m, y: m.inverse(y.clamp(-2.0, 2.0)))),
    "in bfloat16": (SEEN, with_inverse(lambda m, y: m.inverse(y).bfloat16().double())),
    "quickest row decides": ("inverse.rows-are-independent", stops(lambda s: s.min())),
    "each row by a step of a thousandth": (SEEN, with_inverse(own_steps)),
    "noise in the inverse": (SEEN, with_inverse(lambda m, y: m.inverse(y) + 1e-4 * torch.randn_like(y))),
    "a shift in the inverse": (SEEN, with_inverse(lambda m, y: m.inverse(y) + 0.01)),
    "norm on 3 by 3": (BOUNDS, normalised_by(lambda k: torch.linalg.matrix_norm(matrix(k, 3), 2))),
    "three power iterations of a convolution": (BOUNDS, normalised_by(lambda k: after(3)(matrix(k, GRID)))),
    "largest entry of the kernel": (BOUNDS, normalised_by(lambda k: k.abs().max())),
    "largest column": (BOUNDS, divided(lambda w: w.norm(dim=0).max())),
    "claimed a twentieth too low": (BOUNDS, lambda s: mlp(3, s, lipschitz=0.85, module=steeper(Residual(3, 0.9, s, torch.float64), 1.0),
                                                          inverse=None)),
    "ELU with alpha 1.5": (BOUNDS, layered(3, 8, nn.ELU(1.5))),
    "hard swish": (BOUNDS, layered(3, 8, nn.Hardswish())),
    "divided by the spread of the batch": ("hygiene.batch-independence", lambda s: make(DividesByTheBatch, s)),
    "a little noise in every mode": ("hygiene.forward-not-random", lambda s: make(Noise, s)),
    "returned in half precision": ("hygiene.dtype-kept", lambda s: make(Halves, s)),
    "log-det doubles its argument": ("hygiene.input-kept", lambda s: make(DoublesItsArgument, s)),
    "inverse seeds NumPy": ("hygiene.global-randomness-kept", lambda s: make(SeedsNumpy, s)),
    "nought over nought": ("hygiene.forward-finite", lambda s: make(DividesByZero, s)),
    "another scale in evaluation": ("parity.train-and-eval", lambda s: make(EvaluationIsSmaller, s)),
    "offset not saved": ("state.save-and-load", lambda s: make(ShiftNotSaved, s)),
    "autograd left off by forward": ("hygiene.global-settings-kept", lambda s: make(Autograd, s)),
})
