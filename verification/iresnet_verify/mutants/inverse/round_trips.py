"""Mistakes of the inverse: each mutant is the correct network of `networks` with one thing replaced."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.mutants.networks import Residual, banach, mlp, steeper
from iresnet_verify.subject.subject import Subject


def five_iterations(seed: int = 0) -> Subject:
    """Five steps whatever the input."""
    module = Residual(3, 0.9, seed, torch.float64)
    return mlp(3, seed, inverse=lambda y: banach(module.g, y, 0.9, most=5), module=module)


def squared_step(seed: int = 0) -> Subject:
    """Stops when the *squared* step is below the tolerance: the error is about its square root."""
    module = Residual(3, 0.9, seed, torch.float64)

    def inverse(y: Tensor) -> Tensor:
        x = y.clone()
        for _ in range(3000):
            step = y - module.g(x) - x
            x = x + step
            if bool((step.square().sum(dim=1) <= 1e-12).all()):
                break
        return x

    return mlp(3, seed, inverse=inverse, inverse_tolerance=1e-12, module=module)


def garbage_far_away(seed: int = 0) -> Subject:
    """Bisection-like clamping: beyond 30 the answer is clipped, without a word."""
    module = Residual(3, 0.9, seed, torch.float64)
    return mlp(3, seed, inverse=lambda y: module.inverse(y.clamp(-30.0, 30.0)), module=module)


class Slow(Residual):
    """Beyond 14, far from typical inputs, g' goes from ±.3 to −.95 and the iteration is slow there alone."""

    def g(self, x: Tensor) -> Tensor:
        return 0.3 * torch.sin(x) - 0.65 * torch.nn.functional.softplus(x - 14.0)


def hides_failure(seed: int = 0) -> Subject:
    """At most 60 steps, and silence when they do not suffice; typical inputs never need them."""
    module = Slow(3, 0.95, seed, torch.float64)
    return mlp(3, seed, lipschitz=0.95, inverse=lambda y: banach(module.g, y, 0.95, most=60), module=module,
               inverse_tolerance=1e-8)


def wrong_sign(seed: int = 0) -> Subject:
    """Iterates x ← y + g(x)."""
    module = Residual(3, 0.9, seed, torch.float64)
    return mlp(3, seed, inverse=lambda y: banach(lambda x: -module.g(x), y, 0.9), module=module)


def single_inside(seed: int = 0) -> Subject:
    """A float64 inverse that computes in float32."""
    module = Residual(3, 0.9, seed, torch.float64)
    narrow = Residual(3, 0.9, seed, torch.float32)
    return mlp(3, seed, inverse=lambda y: narrow.inverse(y.float()).double(), inverse_tolerance=None, module=module)


def cached(seed: int = 0) -> Subject:
    """The inverse answers with the input of the last forward call, whatever it is asked."""
    module = Residual(3, 0.9, seed, torch.float64)
    last: dict[str, Tensor] = {}

    def forward(x: Tensor) -> Tensor:
        last["x"] = x.clone()
        return module(x)

    return mlp(3, seed, forward=forward, inverse=lambda y: last["x"].clone() if last["x"].shape == y.shape else
               module.inverse(y), module=module)


def folded(d: int = 3, seed: int = 0) -> Subject:
    """A plain residual network with norm 3 and no claim: not injective."""
    module = steeper(Residual(d, 3.0, seed, torch.float64), 1.0)
    with torch.no_grad():
        module.last.neg_()
    return Subject(name="folded", event_shape=(d,), forward=module, module=module, modes=("eval",))


class Leaning(Residual):
    """g(x) = −.95 softplus(x): fixed-point steps shrink by .95 where x is large, and at once where it is small."""

    def g(self, x: Tensor) -> Tensor:
        return -0.95 * torch.nn.functional.softplus(x)


def with_inverse(invert: Callable[[Residual, Tensor], Tensor], kind: type[Residual] = Residual) -> Factory:
    """The correct network with this inverse."""
    lipschitz = 0.95 if kind is Leaning else 0.9

    def build(seed: int) -> Subject:
        module = kind(3, lipschitz, seed, torch.float64)
        return mlp(3, seed, lipschitz=lipschitz, inverse=lambda y: invert(module, y), module=module)

    return build


def on_the_step(module: Residual, y: Tensor) -> Tensor:
    """Stops when the *step* is below the tolerance: the error is up to L/(1 − L) times that."""
    x = y.clone()
    for _ in range(3000):
        step = y - module.g(x) - x
        x = x + step
        if bool((step.norm(dim=1) <= 1e-10).all()):
            break
    return x


def first_row_decides(module: Residual, y: Tensor) -> Tensor:
    """Stops when the first row has converged."""
    x = y.clone()
    for _ in range(3000):
        step = y - module.g(x) - x
        x = x + step
        if bool(step[0].norm() <= 1e-13 * y[0].norm().clamp(min=1)):
            break
    return x


def mean_decides(module: Residual, y: Tensor) -> Tensor:
    """Stops when the mean residual of the batch is below the tolerance, relative to the largest row."""
    x = y.clone()
    for _ in range(3000):
        step = y - module.g(x) - x
        x = x + step
        if bool(step.norm(dim=1).mean() <= 1e-7 * y.norm(dim=1).max()):
            break
    return x


def without_bias(module: Residual, y: Tensor) -> Tensor:
    """Inverts the branch without its bias."""
    return banach(lambda x: torch.tanh(x @ module.first.T) @ module.last.T, y, 0.9)


def old_weights(seed: int) -> Subject:
    """The inverse keeps a copy of the weights from before they were changed."""
    module = Residual(3, 0.9, seed, torch.float64)
    before = module.last.detach().clone()
    with torch.no_grad():
        module.last.mul_(0.9)
    return mlp(3, seed, inverse=lambda y: banach(lambda x: torch.tanh(x @ module.first.T + module.shift) @ before.T, y, 0.9),
               module=module)


class Noisy(Residual):
    """Adds noise to the branch in training, as dropout does."""

    def g(self, x: Tensor) -> Tensor:
        """Return g(x), with noise in training."""
        return super().g(x) + (1e-3 * torch.randn_like(x) if self.training else 0.0)


def in_training_mode(seed: int) -> Subject:
    """The inverse switches to training mode, where the branch is random."""
    module = Noisy(3, 0.9, seed, torch.float64)
    module.eval()

    def inverse(y: Tensor) -> Tensor:
        mode = module.training
        module.train()
        x = banach(module.g, y, 0.9, most=200)
        module.train(mode)
        return x

    return mlp(3, seed, inverse=inverse, module=module)


def blocks(order: int) -> Factory:
    """Two blocks; the inverse undoes them in the order of the forward pass (+1) or rightly in reverse (−1)."""

    def build(seed: int) -> Subject:
        two = nn.ModuleList([Residual(3, 0.7, 10 * seed + k, torch.float64) for k in range(2)])

        def forward(x: Tensor) -> Tensor:
            for block in two:
                x = block(x)
            return x

        def inverse(y: Tensor) -> Tensor:
            for block in list(two)[::order]:
                assert isinstance(block, Residual)
                y = block.inverse(y)
            return y

        return Subject(name="two blocks", event_shape=(3,), forward=forward, inverse=inverse, module=two, modes=("eval",))

    return build


SEEN = ("inverse.recovers-input", "inverse.recovers-output", "inverse.keeps-tolerance")
MUTANTS = table("inverse", {
    "five iterations": ("inverse.keeps-tolerance", five_iterations),
    "wrong sign": ("inverse.recovers-input", wrong_sign),
    "squared step": ("inverse.keeps-tolerance", squared_step),
    "step instead of residual": ("inverse.keeps-tolerance", with_inverse(on_the_step, Leaning)),
    "garbage far away": ("convergence.is-reported", garbage_far_away),
    "hides failure": ("convergence.worst-input", hides_failure),
    "float32 inside": ("inverse.keeps-precision", single_inside),
    "cached": ("inverse.recovers-output", cached),
    "folded": ("inverse.is-injective", lambda s: folded(3, s)),
    "folded in eight dimensions": ("inverse.is-injective", lambda s: folded(8, s)),
    "first row decides for all": (SEEN, with_inverse(first_row_decides, Leaning)),
    "mean residual decides": (SEEN, with_inverse(mean_decides)),
    "one step": (SEEN, with_inverse(lambda m, y: y - m.g(y))),
    "twenty iterations whatever the constant": (SEEN, with_inverse(lambda m, y: banach(m.g, y, 0.95, most=20), Leaning)),
    "bias forgotten": (SEEN, with_inverse(without_bias)),
    "old weights": (SEEN, old_weights),
    "in training mode": (SEEN, in_training_mode),
    "blocks in the order of the forward pass": (SEEN, blocks(1)),
    "rows in reverse order": (SEEN, with_inverse(lambda m, y: m.inverse(y).flip(0))),
    "rounded to half precision": (SEEN, with_inverse(lambda m, y: m.inverse(y).half().double())),
})
