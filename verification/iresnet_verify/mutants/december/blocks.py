"""Mistakes that issue trackers report, of residual blocks, estimates, gradients and states. Each address is beside the mutant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from iresnet_verify.mutants.fresh.flows import MAP_ALONE, NO_DENSITY
from iresnet_verify.mutants.fresh.networks import Roulette, of
from iresnet_verify.mutants.fresh.parts import BOUNDS, Layered, layered
from iresnet_verify.mutants.mutant import table
from iresnet_verify.mutants.unseen.networks import D, Network, Residual
from iresnet_verify.subject.subject import Subject


class Averaged(Layered):
    """σ = uᵀWv, u and v averages over the steps of training: of unit vectors, so they are shorter than 1."""

    def normalised(self, w: Tensor) -> Tensor:
        u, _, v = torch.linalg.svd(w)
        u, v = 0.93 * u[:, 0].detach(), 0.93 * v[0].detach()
        return 0.8**0.5 * w / (u @ w @ v)


class Heads(Network):
    """Two heads of 3×3 matrices, added up; the norms are taken over heads and rows, not over rows and columns."""

    shape = (3,)
    lipschitz = 0.8

    def __init__(self) -> None:
        super().__init__()
        rows = torch.randn(2, 3, 1, dtype=D)
        self.w = nn.Parameter(rows.expand(2, 3, 3) + 0.2 * torch.randn(2, 3, 3, dtype=D))

    def heads(self) -> Tensor:
        """Of norm .4 each."""
        return 0.4 * self.w / torch.linalg.matrix_norm(self.w, 2, dim=(0, 1))

    def g(self, x: Tensor) -> Tensor:
        """The branch."""
        return torch.tanh(torch.einsum("hoi,ni->nho", self.heads(), x)).sum(1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.g(x)

    def operators(self) -> list[tuple[Any, ...]]:
        """Both."""
        return [(f"head {i}", lambda v, i=i: v @ self.heads()[i].T, (3,), 0.4 * (1 + 1e-9)) for i in (0, 1)]


class NegativeScale(Network):
    """x + a·tanh(Ŵ tanh(x)), ‖Ŵ‖ = 1; a is kept below .9, and is −1.5."""

    shape = (3,)
    lipschitz = 0.9

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 3, dtype=D))
        self.a = nn.Parameter(torch.tensor(-1.5, dtype=D))

    def weight(self) -> Tensor:
        """Of norm 1."""
        return self.w / torch.linalg.matrix_norm(self.w, 2)

    def g(self, x: Tensor) -> Tensor:
        """The branch."""
        return self.a.clamp(max=0.9) * torch.tanh(torch.tanh(x) @ self.weight().T)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.g(x)


class NormDetached(Network):
    """x + .8·tanh(Ŵx + b): σ is a number to autograd."""

    shape = (3,)
    lipschitz = 0.8

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 3, dtype=D))
        self.b = nn.Parameter(torch.randn(3, dtype=D))

    def weight(self) -> Tensor:
        """Of norm 1."""
        with torch.no_grad():
            sigma = torch.linalg.matrix_norm(self.w, 2)
        return self.w / sigma

    def g(self, x: Tensor) -> Tensor:
        """The branch."""
        return 0.8 * torch.tanh(x @ self.weight().T + self.b)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.g(x)


class NormAssigned(NormDetached):
    """The normalised weight is assigned to the parameter at each call, out of autograd's sight."""

    def weight(self) -> Tensor:
        with torch.no_grad():
            self.w.div_(torch.linalg.matrix_norm(self.w, 2))
        return self.w.clone()


class Implicit(torch.autograd.Function):
    """The inverse, and its gradient by a linear system with J_g."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, J: Tensor, solve: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """x."""
        ctx.save_for_backward(J)
        ctx.solve = solve
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        """The gradient of y."""
        (J,) = ctx.saved_tensors
        return ctx.solve(J, upstream[0][:, :, None])[:, :, 0], None, None, None


class ImplicitBlock(Residual):
    """Its inverse's gradient is what `solve` makes of J_g and the gradient of x."""

    def solve(self, J: Tensor, grad: Tensor) -> Tensor:
        """(I + J)ᵀ u = grad, if it were right."""
        raise NotImplementedError

    def inverse(self, y: Tensor) -> Tensor:
        with torch.no_grad():
            x = super().inverse(y)
            J = self.jacobian(x)
        found: Tensor = Implicit.apply(y, x, J, self.solve)  # type: ignore[no-untyped-call]
        return found


class WithoutIdentity(ImplicitBlock):
    """Jᵀu = −grad: the term u itself is missing."""

    def solve(self, J: Tensor, grad: Tensor) -> Tensor:
        return torch.linalg.solve(J.transpose(1, 2), -grad)


class NotTransposed(ImplicitBlock):
    """(I + J) u = grad."""

    def solve(self, J: Tensor, grad: Tensor) -> Tensor:
        return torch.linalg.solve(torch.eye(3, dtype=J.dtype) + J, grad)


class FailedProbes(Roulette):
    """Two probes, the second of which always fails, and counts as 0 in their mean."""

    def log_det(self, x: Tensor) -> Tensor:
        law: Any = torch.distributions.Geometric(probs=torch.tensor(0.4))
        value = self.estimate(x, law.sample((len(x),)) + 1, torch.sign(torch.randn_like(x)))
        return torch.stack([value, torch.zeros_like(value)]).mean(0)


class Exchanged(Roulette):
    """Eight probes of one term each, where one probe of eight terms was asked for."""

    def series(self, x: Tensor, probes: int, terms: int) -> Tensor:
        """The mean over the probes of the series with so many terms."""
        total = torch.zeros(len(x), dtype=x.dtype)
        for _ in range(probes):
            v = torch.sign(torch.randn_like(x))
            w = v
            for k in range(1, terms + 1):
                w = self.product(x, w)
                total = total + (-1) ** (k + 1) * (w * v).sum(1) / k
        return total / probes

    def log_det(self, x: Tensor) -> Tensor:
        return self.series(x, 8, 1)


class Bent(torch.autograd.Function):
    """x inside [−1, 1], outside it with slope .2; its backward pass has slope 1 everywhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """y."""
        inside = x.clamp(-1, 1)
        return inside + 0.2 * (x - inside)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        """As if nothing were bent."""
        return upstream[0]


class BentMap(Network):
    """An affine map, bent."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.eye(3, dtype=D) + 0.3 * torch.randn(3, 3, dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = Bent.apply(x @ self.w.T)  # type: ignore[no-untyped-call]
        return found


class Padded(Network):
    """x + tanh(K * x)/4; how it is padded is an argument that the convolution never gets."""

    shape = (1, 4, 4)

    def __init__(self, padding: str = "circular") -> None:
        super().__init__()
        self.padding = padding
        self.kernel = nn.Parameter(0.3 * torch.randn(1, 1, 3, 3, dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        around = functional.pad(x, (1, 1, 1, 1), mode="circular")
        return x + torch.tanh(functional.conv2d(around, self.kernel)) / 4


def padded(seed: int, padding: str = "circular") -> Subject:
    """With the argument listed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Padded(padding)
    subject = Subject(name="padded", event_shape=(1, 4, 4), forward=net, module=net, modes=("eval",))
    return replace(subject, arguments={"padding": ("constant", "forward")},
                   fresh=lambda dtype=None, device=None, **changed: padded(seed, **{"padding": padding, **changed}))


BRANCH: dict[str, Any] = {"inverse": None, **MAP_ALONE}
THROUGH: dict[str, Any] = {"log_det": None, **NO_DENSITY, "made": lambda n: {"residual": n.g, "lipschitz": 0.7 * (1 + 1e-9)}}
MUTANTS = table("december", {
    # NCAR/miles-credit#394
    "averages of singular vectors": (BOUNDS, layered(Averaged)),
    # pytorch/pytorch#8590
    "a norm over the wrong two of three axes": (BOUNDS, of(Heads, **BRANCH, made=lambda n: {"linear_maps": n.operators})),
    # TomographicImaging/CIL#403
    "a negative coefficient": (BOUNDS, of(NegativeScale, **BRANCH, made=lambda n: {
        "linear_maps": lambda: [("linear", lambda v: v @ n.weight().T, (3,), 1 + 1e-9)]})),
    # pytorch/pytorch#7905
    "a norm that autograd does not see": (("gradient.forward", "gradient.forward-input"), of(NormDetached, **BRANCH)),
    # tensorflow/addons#2414
    "a normalised weight assigned to its parameter": (("gradient.forward", "gradient.forward-input"), of(NormAssigned, **BRANCH)),
    # locuslab/mdeq#8
    "an implicit gradient without the identity": ("gradient.through-inverse", of(WithoutIdentity, **THROUGH)),
    # JuliaDecisionFocusedLearning/ImplicitDifferentiation.jl#161
    "an implicit gradient not transposed": ("gradient.through-inverse", of(NotTransposed, **THROUGH)),
    # SauersML/gam#3553
    "probes that fail and count as zero": (("estimator.unbiased", "logdet.matches-determinant"), of(FailedProbes)),
    # deepinv/deepinv#1023
    "the numbers of terms and of probes exchanged": (("estimator.unbiased", "logdet.matches-determinant"), of(Exchanged)),
    # manuhuth/NoLimits.jl#337
    "a bend that the backward pass does not know": (("gradient.forward-input", "gradient.forward"), of(BentMap, **BRANCH)),
    # ColinQiyangLi/LConvNet#4
    "a padding that is ignored": ("state.arguments-act", padded),
})
