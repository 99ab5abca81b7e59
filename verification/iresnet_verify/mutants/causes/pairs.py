"""Two mistakes in one network: each replaces a callable of the correct block of `block`, or the block itself."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor

from iresnet_verify.mutants import hygiene
from iresnet_verify.mutants.block import Block, make
from iresnet_verify.mutants.mutant import Mutant
from iresnet_verify.mutants.state.checkpoints import NormsNotSaved
from iresnet_verify.subject.subject import Subject

Change = Callable[[Block], Any]


def steps(n: int) -> Change:
    """An inverse of n steps."""

    def of(block: Block) -> Any:
        def inverse(y: Tensor) -> Tensor:
            x = y
            for _ in range(n):
                x = y - block.g(x)
            return x

        return inverse

    return of


def minus_g(block: Block) -> Any:
    """x − g(x) = y."""

    def inverse(y: Tensor) -> Tensor:
        x = y
        for _ in range(200):
            x = y + block.g(x)
        return x

    return inverse


def jacobian(block: Block, x: Tensor) -> Tensor:
    """J_g."""
    w1, w2 = block.weights()
    slope = 1 - torch.tanh(x @ w1.T + block.b1) ** 2
    return w2 @ (slope[:, :, None] * w1)


def first_row(value: Tensor) -> Tensor:
    """One value for all."""
    return value[:1].expand(len(value))


LOG_DETS: dict[str, tuple[str, Change]] = {
    "minus": ("sign", lambda b: lambda x: -b.log_det(x)),
    "per dimension": ("factor", lambda b: lambda x: b.log_det(x) / x.shape[1]),
    "trace": ("cut-short", lambda b: lambda x: jacobian(b, x).diagonal(dim1=1, dim2=2).sum(1)),
    "at y": ("at-another-point", lambda b: lambda x: b.log_det(b(x))),
    "diagonal": ("diagonal-only", lambda b: lambda x: torch.log1p(jacobian(b, x).diagonal(dim1=1, dim2=2)).sum(1)),
    "first row": ("one-row-for-all", lambda b: lambda x: first_row(b.log_det(x))),
}
INVERSES: dict[str, tuple[str, Change]] = {
    "five steps": ("fixed-number-of-steps", steps(5)),
    "minus g": ("inverse-sign", minus_g),
    "reversed": ("rows-permuted", lambda b: lambda y: b.inverse(y).flip(0)),
    "float32": ("float32-inside", lambda b: lambda y: b.inverse(y).float().to(y.dtype)),
}
BLOCKS: dict[str, tuple[str, type[Block]]] = {
    "rows coupled": ("hygiene.batch-independence", hygiene.CentredRows),
    "input mutated": ("hygiene.input-kept", hygiene.InPlace),
    "results kept": ("hygiene.memory", hygiene.KeepsResults),
    "NaN hidden": ("hygiene.non-finite-rows", hygiene.HidesNan),
    "squeezed": ("hygiene.single-row", hygiene.Squeezes),
    "global seed": ("hygiene.global-randomness-kept", hygiene.DrawsNumpy),
    "norms not saved": ("state.save-and-load", NormsNotSaved),
}


def pairs() -> tuple[dict[str, Mutant], dict[str, str]]:
    """Return {id: mutant} and {id: both causes} of 52 pairs: log-det × inverse, and each of those with a block in turn."""
    found: dict[str, Mutant] = {}
    causes: dict[str, str] = {}

    def add(names: tuple[str, str], both: tuple[str, str], kind: type[Block], **changes: Change) -> None:
        id = "pairs/" + "--".join(n.replace(" ", "-").lower() for n in names)
        found[id] = Mutant(id, " and ".join(names), both, lambda seed: _built(kind, seed, **changes))
        causes[id] = " + ".join(both)

    for (a, (ca, log_det)), (b, (cb, inverse)) in product(LOG_DETS.items(), INVERSES.items()):
        add((a, b), (ca, cb), Block, log_det=log_det, inverse=inverse)
    for i, (a, (ca, kind)) in enumerate(BLOCKS.items()):
        for b, (cb, log_det) in list(LOG_DETS.items())[i % 2 :: 2]:
            add((a, b), (ca, cb), kind, log_det=log_det)
        for b, (cb, inverse) in list(INVERSES.items())[i % 4 :][:1]:
            add((a, b), (ca, cb), kind, inverse=inverse)
    return found, causes


def _built(kind: type[Block], seed: int, **changes: Any) -> Subject:
    """The block with these callables; what is made of them (the inverse's log-det, densities) follows."""
    value: Change | None = changes.get("log_det")
    if value is not None:
        changes |= {"inverse_log_det": lambda b: lambda y: -value(b)(b.inverse(y)),
                    "log_prob": lambda b: lambda x: _normal(b(x)) + value(b)(x)}
    return make(kind, seed, **changes)


def _normal(y: Tensor) -> Tensor:
    return -0.5 * (y**2).sum(1) - 0.5 * y.shape[1] * float(torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64)))


PAIRS, PAIR_CAUSES = pairs()
