"""Constructor arguments that are stored and never read, in a network all of whose arguments act when it is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.subject.subject import Subject

D, HIDDEN = 3, 8


@dataclass(frozen=True)
class Arguments:
    """What the network is built with."""

    coefficient: float = 0.9
    """Bound on the norm of each branch."""
    depth: int = 2
    clamp: float = 50.0
    """Entries of x are clamped to it before a branch sees them."""
    terms: int = 6
    probes: int = 1
    iterations: int = 200
    tolerance: float = 1e-12
    """Of the largest step."""


OTHER: Mapping[str, tuple[Any, str]] = {
    "coefficient": (0.3, "forward"), "depth": (3, "forward"), "clamp": (20.0, "forward"), "terms": (2, "log_det"),
    "probes": (4, "variance"), "iterations": (2, "inverse"), "tolerance": (1e-3, "inverse"),
}


class Chain(nn.Module):
    """Blocks x + g(clamp(x)), g = c₂W₂ tanh(c₁W₁x), c = min(1, √coefficient/‖W‖): the bound is idle while weights are small."""

    def __init__(self, arguments: Arguments, ignored: str = "", dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.given = arguments
        read = replace(arguments, **{ignored: getattr(Arguments(), ignored)}) if ignored in OTHER else arguments
        self.read, self.ignored = read, ignored
        self.first, self.last = (
            nn.ParameterList(nn.Parameter(0.1 * torch.randn(shape, dtype=dtype)) for _ in range(read.depth))
            for shape in ((HIDDEN, D), (D, HIDDEN))
        )
        if ignored == "coefficient, later":
            with torch.no_grad():
                for w in (*self.first, *self.last):
                    w.mul_(arguments.coefficient**0.5 / torch.linalg.matrix_norm(w, 2))

    def weight(self, w: Tensor) -> Tensor:
        """W with its bound."""
        c = Arguments().coefficient if self.ignored == "coefficient, later" else self.read.coefficient
        return w * torch.clamp(c**0.5 / torch.linalg.matrix_norm(w, 2), max=1.0)

    def g(self, k: int, x: Tensor) -> Tensor:
        """The k-th branch."""
        x = x.clamp(-self.read.clamp, self.read.clamp)
        return torch.tanh(x @ self.weight(self.first[k]).T) @ self.weight(self.last[k]).T

    def forward(self, x: Tensor) -> Tensor:
        """The composition."""
        for k in range(self.read.depth):
            x = x + self.g(k, x)
        return x

    def inverse(self, y: Tensor) -> Tensor:
        """Banach's iteration block by block, until a step is small."""
        for k in reversed(range(self.read.depth)):
            x = y
            for _ in range(self.read.iterations):
                x, before = y - self.g(k, x), x
                if float((x - before).abs().max()) <= self.read.tolerance:
                    break
            y = x
        return y

    def log_det(self, x: Tensor) -> Tensor:
        """The truncated series of every block, by Gaussian probes."""
        total = torch.zeros(len(x), dtype=x.dtype)
        for k in range(self.read.depth):
            at = x.detach().requires_grad_(True)
            with torch.enable_grad():
                g = self.g(k, at)
                drawn = torch.randn(self.read.probes, *x.shape, dtype=x.dtype)
                used = drawn[:1] if self.ignored == "probes but the first" else drawn
                for v in used:
                    w = v
                    for j in range(1, self.read.terms + 1):
                        w = torch.autograd.grad(g, at, w, retain_graph=True)[0]
                        total = total + (-1.0) ** (j + 1) / j * (w * v).sum(1) / len(used)
            x = x + self.g(k, x)
        return total


def subject(seed: int, ignored: str = "", listed: tuple[str, ...] = tuple(OTHER), **arguments: Any) -> Subject:
    """A network that ignores one of its arguments, or none, and lists some."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Chain(Arguments(**arguments), ignored)
    return Subject(
        name=f"arguments, {ignored or 'none'} ignored", event_shape=(D,), forward=net, inverse=net.inverse, log_det=net.log_det, module=net,
        log_det_is=1.0, modes=("eval",), arguments={name: OTHER[name] for name in listed},
        fresh=lambda dtype=None, device=None, **changed: subject(seed, ignored, listed, **{**arguments, **changed}),
    )


def ignoring(name: str, listed: str | None = None) -> Factory:
    """The network that ignores an argument and lists it."""
    return lambda seed: subject(seed, name, (listed or name,))


ACT = "state.arguments-act"
MUTANTS = table("arguments", {
    "a coefficient that is never read": (ACT, ignoring("coefficient")),
    "a coefficient that is read at construction only": (ACT, ignoring("coefficient, later", "coefficient")),
    "a depth that is never read": (ACT, ignoring("depth")),
    "a number of terms that is never read": (ACT, ignoring("terms")),
    "a number of probes that is never read": (ACT, ignoring("probes")),
    "probes that are drawn and not used": (ACT, ignoring("probes but the first", "probes")),
    "a number of iterations that is never read": (ACT, ignoring("iterations")),
    "a tolerance of the inverse that is never read": (ACT, ignoring("tolerance")),
})
