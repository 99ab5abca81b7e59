"""Claims that the layers of a module seem to prove and its forward pass breaks: each is .6 or .9 if read from attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.subject.subject import Subject

D = 3
Net = Callable[[Tensor], Tensor]


def orthogonal(seed: int, norm: float) -> nn.Linear:
    """A layer of `norm` times a rotation."""
    layer = nn.Linear(D, D, bias=False).double()
    made = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.copy_(norm * torch.linalg.qr(torch.randn(D, D, generator=made, dtype=torch.float64))[0])
    return layer


class Branch(nn.Module):
    """A rotation, tanh, its transpose: of norm `norm`, attained at 0."""

    def __init__(self, seed: int, norm: float) -> None:
        super().__init__()
        self.first, self.last = orthogonal(seed, norm), orthogonal(seed, 1.0)
        with torch.no_grad():
            self.last.weight.copy_(self.last.weight.T.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return g(x)."""
        z: Tensor = self.last(torch.tanh(self.first(x)))
        return z


class Twice(Branch):
    """One module used on two paths."""

    def forward(self, x: Tensor) -> Tensor:
        """Return g(x) + g(x)."""
        return super().forward(x) + super().forward(x)


class InPlace(Branch):
    """An activation in place on a value that a second name still has: the sum is of tanh z and tanh z."""

    def forward(self, x: Tensor) -> Tensor:
        """Return what looks like ½z + ½ tanh z, steeper where z is changed under its first name."""
        z = 0.5 * x
        kept = z
        z.mul_(2.2)
        w: Tensor = self.last(self.first(torch.tanh(z) + kept - z))
        return w


class Grows(Branch):
    """A buffer that every call changes. The audit puts it back after each call: this is no mutant, and nothing is proved of it."""

    gain: Tensor

    def __init__(self, seed: int, norm: float) -> None:
        super().__init__(seed, norm)
        self.register_buffer("gain", torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Return g(x), a little larger at every call."""
        self.gain.mul_(1.01)
        return self.gain * super().forward(x)


class Elsewhere(Branch):
    """The weight used is not the attribute."""

    def forward(self, x: Tensor) -> Tensor:
        """Return g(x) with one and a half times the weight."""
        z: Tensor = torch.func.functional_call(self.first, {"weight": 1.5 * self.first.weight}, (x,))
        w: Tensor = self.last(torch.tanh(z))
        return w


class Decides(Branch):
    """Steeper where x is large, decided on numbers that leave the graph."""

    def forward(self, x: Tensor) -> Tensor:
        """Return g(x), or far away 1.5x."""
        far = torch.tensor(x.detach().tolist(), dtype=x.dtype).norm(dim=1, keepdim=True) > 100.0
        y: Tensor = torch.where(far, 1.5 * x, super().forward(x))
        return y


class Copies(Branch):
    """The same by torch.tensor, which records nothing."""

    def forward(self, x: Tensor) -> Tensor:
        """Return g(x), or far away 1.5x."""
        y = super().forward(x)
        return 1.5 * x if float(torch.tensor(x).detach().abs().amax()) > 1000.0 else y


def subject(kind: type[Branch], norm: float = 0.6, changed: Callable[[Branch], object] = lambda net: None) -> Factory:
    """A residual block claimed to have the norm of its layers."""

    def build(seed: int) -> Subject:
        net = kind(seed, norm)
        changed(net)
        return Subject(name=f"careless {kind.__name__}", event_shape=(D,), forward=lambda x: x + net(x), residual=net, module=net,
                       lipschitz=norm * (1 + 1e-12), modes=("eval",))

    return build


def doubled(net: Branch) -> object:
    """A hook that nothing in the class shows."""

    def steeper(module: Any, inputs: Any, output: Any) -> Any:
        return 1.5 * output

    return net.last.register_forward_hook(steeper)


BOUNDS = ("lipschitz.bounds-jacobian", "lipschitz.bounds-pairs", "lipschitz.bounds-stretch")
MUTANTS = table("lipschitz", {
    "one module on two paths": (BOUNDS, subject(Twice)),
    "hook on the last layer": (BOUNDS, subject(Branch, 0.6, doubled)),
    "activation in place under a second name": (BOUNDS, subject(InPlace)),
    "functional call with another weight": (BOUNDS, subject(Elsewhere)),
    "steep where the numbers are large": (BOUNDS, subject(Decides)),
    "steep where a copy is large": ((*BOUNDS, "lipschitz.all-magnitudes"), subject(Copies)),
})
