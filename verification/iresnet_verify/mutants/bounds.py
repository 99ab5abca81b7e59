"""Mistakes of a claimed Lipschitz bound."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.mutants.networks import Frozen, Residual, dtype_of, mlp, steeper
from iresnet_verify.subject.subject import Subject


def attained(factor: float, seed: int = 0, dtype: str = "float64") -> Subject:
    """g(x) = .9·factor·Q tanh(Qᵀx + b), norm .9·factor in one point; claimed .9: true for factor 1, to the last digit."""
    module = steeper(Residual(3, 0.9, seed, torch.float64), factor).to(dtype_of(dtype))
    return mlp(3, seed, dtype, module=module, inverse=None)


def jump(seed: int = 0) -> Subject:
    """g jumps by .3 across a plane: its Jacobian is small wherever it exists."""
    module = Residual(3, 0.5, seed, torch.float64)

    def g(x: Tensor) -> Tensor:
        return module.g(x) + 0.3 * (x[:, :1] > 0.2).to(x.dtype)

    return Subject(name="jump", event_shape=(3,), forward=lambda x: x + g(x), residual=g, lipschitz=0.9)


def one_power_iteration(seed: int = 0) -> Subject:
    """Normalised by one power iteration: claimed .9, in truth about 1.2."""
    module = Residual(8, 0.9, seed, torch.float64)
    return mlp(8, seed, lipschitz=0.9, module=steeper(module, 1.2 / 0.9), inverse=None)


def small_region(seed: int = 0) -> Subject:
    """‖J_g‖ ≤ .9 but in a small region, where it reaches 1; the slope leads there."""
    rng = np.random.default_rng(seed)
    w = torch.tensor(rng.standard_normal(6))
    w = w / w.norm()

    def g(x: Tensor) -> Tensor:
        s = x @ w
        away = (x - s[:, None] * w).square().sum(dim=1)
        bump = 0.09 * torch.erf((s - 2.5) / 0.4) * torch.exp(-0.5 * away)
        return (0.75 * torch.sin(0.2 * (s - 2.5)) / 0.2 + bump)[:, None] * w

    return Subject(name="small region", event_shape=(6,), forward=lambda x: x + g(x), residual=g, lipschitz=0.9)


def scaled_skip(seed: int = 0) -> Subject:
    """F(x) = 1.5x + g(x): the bound is that of a g which is not F − id, though .9 bounds .5x + g(x) too."""
    module = Residual(3, 0.35, seed, torch.float64)
    return mlp(3, seed, forward=lambda x: 1.5 * x + module.g(x), module=module, lipschitz=0.9, inverse=None)


def stale(seed: int = 0) -> Subject:
    """A refresh that does nothing."""
    return mlp(3, seed, module=Frozen(3, 0.9, seed, torch.float64), refresh=lambda: None, lipschitz_holds="after-refresh")


def pretends(seed: int = 0) -> Subject:
    """Normalised once and claimed for ever."""
    return mlp(3, seed, module=Frozen(3, 0.9, seed, torch.float64), lipschitz_holds="always")


class Swish(Residual):
    """g = W₂ swish(W₁x + b) with ‖W₂‖‖W₁‖ = .9: swish has slopes up to 1.0998, attained on purpose."""

    def g(self, x: Tensor) -> Tensor:
        """Return g(x)."""
        z = x @ self.first.T + self.shift
        return (z * torch.sigmoid(z)) @ self.last.T


def activation_constant_forgotten(seed: int) -> Subject:
    """Claimed .9 for a branch whose activation has the constant 1.1."""
    module = steeper(Swish(3, 0.9, seed, torch.float64), 1.0)
    with torch.no_grad():
        module.shift.fill_(2.3994)  # where the slope of swish is largest
    return mlp(3, seed, module=module, inverse=None)


class Sum(nn.Module):
    """x + (g₁ + g₂)(x), each branch .6-Lipschitz and both steepest in the same direction."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.one = steeper(Residual(3, 0.6, seed, torch.float64), 1.0)
        self.two = steeper(Residual(3, 0.6, seed, torch.float64), 1.0)

    def g(self, x: Tensor) -> Tensor:
        """Return both branches' sum."""
        return self.one.g(x) + self.two.g(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return x + g(x)."""
        return x + self.g(x)


def sum_of_branches(seed: int) -> Subject:
    """The larger constant claimed for a sum."""
    module = Sum(seed)
    return Subject(name="sum", event_shape=(3,), forward=module, residual=module.g, module=module, lipschitz=0.6, modes=("eval",))


class Concatenated(Residual):
    """A densely connected layer, h = [x; ηφ(Wx + b)]: its constant is √(1 + η²), not 1."""

    def g(self, x: Tensor) -> Tensor:
        """Return W₂[x; φ(W₁x + b)], both blocks of W₂ of norm .9/√2."""
        return 0.5**0.5 * 0.9**0.5 * (0.9**0.5 * x + torch.tanh(x @ self.first.T + self.shift) @ self.last.T / 0.9**0.5)


def concatenation_forgotten(seed: int) -> Subject:
    """Claimed as if concatenation did not add up: both parts are steepest in one direction."""
    module = steeper(Concatenated(3, 0.9, seed, torch.float64), 1.0)
    return mlp(3, seed, module=module, lipschitz=0.9, inverse=None)


def of_one_layer(seed: int) -> Subject:
    """Each of two layers normalised to .9 and √.9 claimed... for a branch without any normalisation of the second."""
    module = steeper(Residual(3, 0.9, seed, torch.float64), 1.0)
    with torch.no_grad():
        module.last.mul_(1.2)
    return mlp(3, seed, module=module, inverse=None)


class Fading(Frozen):
    """A refresh that runs one power iteration from a vector of another network: σ is far too small."""

    def renew(self) -> None:
        """Divide by an under-estimated norm."""
        with torch.no_grad():
            for w in (self.first, self.last):
                stale = torch.zeros(w.shape[1], dtype=w.dtype)
                stale[0] = 1.0
                u = w @ stale
                w.mul_(self.lipschitz**0.5 / u.norm())


def stale_vector(seed: int) -> Subject:
    """σ = ‖Wv‖ at a stale v."""
    module = Fading(6, 0.9, seed, torch.float64)
    module.renew()
    return mlp(6, seed, module=module, refresh=module.renew, lipschitz_holds="after-refresh", inverse=None)


def largest_entry(seed: int) -> Subject:
    """Divided by the largest entry instead of the norm."""
    module = Residual(6, 0.9, seed, torch.float64)
    with torch.no_grad():
        for w in (module.first, module.last):
            w.mul_(0.9**0.5 / w.abs().max())
    return mlp(6, seed, module=module, inverse=None)


class Overflows(Residual):
    """log(1 + exp(x)) written out: inf where x is large."""

    def g(self, x: Tensor) -> Tensor:
        return 0.9 * torch.log1p(torch.exp(x))


class Bends(Residual):
    """Linear near the data, quadratic beyond a thousand."""

    def g(self, x: Tensor) -> Tensor:
        return 0.5 * x + 1e-3 * torch.relu(x.abs() - 1e3).square()


class Sine(nn.Module):
    """√2 sin z."""

    def forward(self, z: Tensor) -> Tensor:
        """Return √2 sin z."""
        return 2**0.5 * torch.sin(z)


class SteepAt40(nn.Module):
    """.6z, but with slope 1.4 nearer than `width` to 40."""

    def __init__(self, width: float = 0.05) -> None:
        super().__init__()
        self.width = width

    def forward(self, z: Tensor) -> Tensor:
        """Return φ(z)."""
        return 0.6 * z + 0.8 * ((z - 40.0).clamp(-self.width, self.width))


def layered(d: int, width: int, activation: nn.Module, norm: float = 0.9, gain: float = 1.0) -> Factory:
    """Wᵀφ(Wx + b), ‖W‖² = norm, claimed norm·gain: right where φ is gain-Lipschitz. The shifts b keep steep points of φ apart."""

    def build(seed: int) -> Subject:
        made = torch.Generator().manual_seed(seed)
        w, b = (torch.randn(shape, generator=made, dtype=torch.float64) for shape in ((width, d), (width,)))
        w = norm**0.5 * w / torch.linalg.matrix_norm(w, 2)
        first, last = nn.Linear(d, width).double(), nn.Linear(width, d).double()
        net = nn.Sequential(first, activation, last)
        with torch.no_grad():
            first.weight.copy_(w)
            first.bias.copy_(b)
            last.weight.copy_(w.T)
        return Subject(name=f"layered {type(activation).__name__}", event_shape=(d,), forward=lambda x: x + net(x), residual=net,
                       module=net, lipschitz=norm * gain)

    return build


def parallel(seed: int) -> Subject:
    """Q φ(.9Qᵀx) in 40 dimensions, claimed .9, with the φ of `SteepAt40`: true but in thin slabs 44 away from the origin."""
    made = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(40, 40, generator=made, dtype=torch.float64))[0]
    first, last = (nn.Linear(40, 40, bias=False).double() for _ in range(2))
    net = nn.Sequential(first, SteepAt40(), last)
    with torch.no_grad():
        first.weight.copy_(0.9 * q.T)
        last.weight.copy_(q)
    return Subject(name="steep at 40", event_shape=(40,), forward=lambda x: x + net(x), residual=net, module=net, lipschitz=0.9)


def unseen(seed: int) -> Subject:
    """A wider one in two dimensions, without a module that shows it."""
    made = torch.Generator().manual_seed(seed)
    q, phi = torch.linalg.qr(torch.randn(2, 2, generator=made, dtype=torch.float64))[0], SteepAt40(0.5)

    def g(x: Tensor) -> Tensor:
        z: Tensor = phi(0.9 * x @ q)
        return z @ q.T

    return Subject(name="steep at 40, unseen", event_shape=(2,), forward=lambda x: x + g(x), residual=g, lipschitz=0.9)


def pooling(seed: int) -> Subject:
    """.9·max over 3 × 3 neighbourhoods at stride 1, claimed .9: a pixel that is the largest of all of them counts nine times."""
    pool = nn.MaxPool2d(3, stride=1, padding=1)
    return Subject(name="max-pooling", event_shape=(1, 3, 3 + seed % 2), forward=lambda x: x + 0.9 * pool(x), module=pool, lipschitz=0.9,
                   residual=lambda x: 0.9 * pool(x))


def far_away(kind: type[Residual]) -> Factory:
    """A residual that breaks its bound far away only."""
    return lambda seed: mlp(3, seed, module=kind(3, 0.9, seed, torch.float64), inverse=None)


BOUNDS = ("lipschitz.bounds-jacobian", "lipschitz.bounds-pairs", "lipschitz.bounds-stretch")
def reflection(seed: int) -> Subject:
    """x ↦ (−x₁, x₂, x₃): |det| = 1 is within every bound, but no residual block with Lip(g) < 1 has det < 0."""
    sign = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    return Subject(name="reflection", event_shape=(3,), forward=lambda x: (x * sign, 0.0 * x.sum(1)), inverse=lambda y: y * sign,
                   lipschitz=0.5)


MUTANTS = table("lipschitz", {
    "norm 1.2 claimed .9": ("lipschitz.bounds-jacobian", one_power_iteration),
    "norm .90001 claimed .9": ("lipschitz.bounds-jacobian", lambda s: attained(1.00001, s)),
    "steep in a small region": ("lipschitz.bounds-jacobian", small_region),
    "scaled skip": ("lipschitz.residual-of-forward", scaled_skip),
    "reflection": ("logdet.positive-determinant", reflection),
    "jump": ("lipschitz.bounds-pairs", jump),
    "stale refresh": ("lipschitz.survives-parameters", stale),
    "normalised once, claimed always": ("lipschitz.survives-parameters", pretends),
    "exponential overflows": ("lipschitz.all-magnitudes", far_away(Overflows)),
    "quadratic tails": ("lipschitz.all-magnitudes", far_away(Bends)),
    "activation constant forgotten": (BOUNDS, activation_constant_forgotten),
    "larger constant for a sum": (BOUNDS, sum_of_branches),
    "concatenation constant forgotten": (BOUNDS, concatenation_forgotten),
    "second layer not normalised": (BOUNDS, of_one_layer),
    "norm at a stale vector": (BOUNDS, stale_vector),
    "sine of slope √2 between layers": (BOUNDS, layered(3, 8, Sine())),
    "activation that is steep at 40 only": (BOUNDS, parallel),
    "branch that is steep at 40 only": (BOUNDS, unseen),
    "SELU taken for 1-Lipschitz": (BOUNDS, layered(3, 6, nn.SELU())),
    "max-pooling at stride 1": (BOUNDS, pooling),
    "largest entry for the norm": (BOUNDS, largest_entry),
})
