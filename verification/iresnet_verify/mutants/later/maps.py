"""Inverses, bounds and manners with one mistake each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iresnet_verify.mutants.afterwards.maps import BOUNDS, divided, three_blocks, with_parameters
from iresnet_verify.mutants.block import Block, make
from iresnet_verify.mutants.bounds import layered
from iresnet_verify.mutants.convolutions import matrix, normalised_by
from iresnet_verify.mutants.inverse.round_trips import SEEN, with_inverse
from iresnet_verify.mutants.mutant import table
from iresnet_verify.mutants.networks import Residual, banach


def from_zero(module: Residual, y: Tensor) -> Tensor:
    """Two steps from 0."""
    x = torch.zeros_like(y)
    for _ in range(2):
        x = y - module.g(x)
    return x


class ScaledByTheBatch(Block):
    """The branch grows with the number of rows."""

    def g(self, x: Tensor) -> Tensor:
        return super().g(x) * (1.0 - 0.01 / max(len(x), 1))


class SeedsTorch(Block):
    """The map seeds torch."""

    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return super().forward(x)


class InverseInSingle(Block):
    """The inverse answers in float32."""

    def inverse(self, y: Tensor) -> Tensor:
        return super().inverse(y).float()


class EmptiesItsArgument(Block):
    """The inverse works in its argument."""

    def inverse(self, y: Tensor) -> Tensor:
        x = super().inverse(y)
        with torch.no_grad():
            y.zero_()
        return x


class Counts(Block):
    """The branch fades with every call."""

    calls = 0

    def g(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().g(x) * 0.9999**self.calls


class ShiftedInTraining(Block):
    """A shift in training only."""

    def g(self, x: Tensor) -> Tensor:
        return super().g(x) + (0.01 if self.training else 0.0)


class TwiceTanh(nn.Module):
    """2 tanh."""

    def forward(self, x: Tensor) -> Tensor:
        """Return 2 tanh x."""
        return 2 * torch.tanh(x)


MUTANTS = table("later", {
    "seven steps": (SEEN, with_inverse(lambda m, y: banach(m.g, y, 0.9, most=7))),
    "two steps from 0": (SEEN, with_inverse(from_zero)),
    "y minus g of y": (SEEN, with_inverse(lambda m, y: y - m.g(y))),
    "rows turned round": (SEEN, with_inverse(lambda m, y: m.inverse(y).flip(0))),
    "components rolled": (SEEN, with_inverse(lambda m, y: m.inverse(y).roll(1, 1))),
    "twice the bias": (SEEN, with_inverse(with_parameters(shift=2.0))),
    "last layer of another epoch": (SEEN, with_inverse(with_parameters(last=0.98))),
    "first block left out": (SEEN, three_blocks(lambda b: [b[2], b[1]])),
    "two blocks exchanged": (SEEN, three_blocks(lambda b: [b[1], b[2], b[0]])),
    "clipped to one": (SEEN, with_inverse(lambda m, y: m.inverse(y.clamp(-1.0, 1.0)))),
    "returned through float16": (SEEN, with_inverse(lambda m, y: m.inverse(y).half().double())),
    "a shift of a thousandth": (SEEN, with_inverse(lambda m, y: m.inverse(y) - 1e-3)),
    "the preimage negated": (SEEN, with_inverse(lambda m, y: -m.inverse(y))),
    "the preimage a thousandth too large": (SEEN, with_inverse(lambda m, y: 1.001 * m.inverse(y))),
    "norm on 4 by 4 for 6 by 6": (BOUNDS, normalised_by(lambda k: torch.linalg.matrix_norm(matrix(k, 4), 2))),
    "smallest column": (BOUNDS, divided(lambda w: w.norm(dim=0).min())),
    "ELU with alpha 2": (BOUNDS, layered(3, 8, nn.ELU(2.0))),
    "twice tanh": (BOUNDS, layered(3, 8, TwiceTanh())),
    "scaled by the size of the batch": ("hygiene.batch-independence", lambda s: make(ScaledByTheBatch, s)),
    "forward seeds torch": ("hygiene.global-randomness-kept", lambda s: make(SeedsTorch, s)),
    "the inverse answers in float32": ("hygiene.dtype-kept", lambda s: make(InverseInSingle, s)),
    "the inverse empties its argument": ("hygiene.input-kept", lambda s: make(EmptiesItsArgument, s)),
    "a branch that fades": ("hygiene.determinism", lambda s: make(Counts, s)),
    "a shift in training only": ("parity.train-and-eval", lambda s: make(ShiftedInTraining, s)),
})
