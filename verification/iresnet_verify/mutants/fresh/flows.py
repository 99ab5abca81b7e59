"""Mistakes that issue trackers of published packages report, of maps and their log-dets. Each address is beside the mutant."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from iresnet_verify.mutants.fresh.networks import (
    Conditioned,
    Monotone,
    MultiScale,
    Radial,
    Spline,
    Sylvester,
    Triangles,
    of,
    softplus,
)
from iresnet_verify.mutants.mutant import table
from iresnet_verify.mutants.unseen.networks import Autoregression, Both, Coupling, D, Network, Planar, normal

BACK = ("inverse.recovers-input", "inverse.recovers-output", "inverse.keeps-tolerance")
VALUE, DENSITY = ("logdet.matches-determinant", "logdet.depends-on-input", "logdet.adds-up"), ("density.change-of-variables",)
OF_INVERSE = ("logdet.of-the-inverse", "logdet.one-value")
NO_DENSITY: dict[str, Any] = {"inverse_log_det": None, "log_prob": None, "base_log_prob": None}
MAP_ALONE: dict[str, Any] = {**NO_DENSITY, "log_det": None}


class Interleaved(Coupling):
    """The halves are every second component, and stand one behind the other in y."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = x[:, ::2], x[:, 1::2]
        r, t = self.scale_and_shift(a)
        return torch.cat([a, b * torch.exp(r) + t], 1)

    def inverse(self, y: Tensor) -> Tensor:
        a, b = y[:, ::2], y[:, 1::2]
        r, t = self.scale_and_shift(a)
        return torch.cat([a, (b - t) * torch.exp(-r)], 1)

    def log_det(self, x: Tensor) -> Tensor:
        return self.scale_and_shift(x[:, ::2])[0].sum(1)


class Unsquared(Planar):
    """u is moved along w/‖w‖, not w/‖w‖²: of a short w not far enough."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.w.mul_(0.5 / self.w.norm())
            self.u.copy_(-3 * self.w / self.w.square().sum())

    def direction(self) -> Tensor:
        inner = self.w @ self.u
        return self.u + (softplus(inner) - 1 - inner) * self.w / self.w.norm()


class Mirror(Network):
    """y = Wx + tanh(x)/10 with det W < 0; the logarithm is that of the determinant with its sign."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        q = torch.linalg.qr(torch.randn(3, 3, dtype=D))[0]
        self.w = nn.Parameter(q * torch.where(torch.linalg.det(q) < 0, 1.0, -1.0) * 1.3)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w.T + 0.1 * torch.tanh(x)

    def log_det(self, x: Tensor) -> Tensor:
        return torch.log(torch.linalg.det(self.w + torch.diag_embed(0.1 * (1 - torch.tanh(x) ** 2))))


class SumOfAll(Monotone):
    """The logarithms of the slopes are added up over the batch too, and given to every row."""

    def log_det(self, x: Tensor) -> Tensor:
        return torch.log(self.value_and_slope(x)[1]).sum().expand(len(x))


class Standardised(Coupling):
    """(x − μ)/σ first, whose log-det has the other sign."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.randn(4, dtype=D))
        self.register_buffer("deviation", 1.5 + torch.rand(4, dtype=D))

    mean: Tensor
    deviation: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - self.mean) / self.deviation)

    def inverse(self, y: Tensor) -> Tensor:
        return super().inverse(y) * self.deviation + self.mean

    def log_det(self, x: Tensor) -> Tensor:
        return self.deviation.log().sum() + super().log_det((x - self.mean) / self.deviation)


class Unclipped(Spline):
    """The inverse evaluates its formula outside the interval too, before it is replaced by y."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.s.sub_(3)

    def inverse(self, y: Tensor) -> Tensor:
        left, width, low, height, a, b = self.pieces(self.knots(self.h), y)
        m, rest = height / width, y - low
        p = height * (m - a) + rest * (a + b - 2 * m)
        q, r = height * a - rest * (a + b - 2 * m), -m * rest
        t = 2 * r / (-q - torch.sqrt(q * q - 4 * p * r))
        return torch.where(y.abs() < 3, left + width * t, y)


class OnTheSphere(Radial):
    """The log-det is taken after x has been normalised."""

    def log_det(self, x: Tensor) -> Tensor:
        return super().log_det(x / torch.linalg.vector_norm(x, dim=1, keepdim=True))


class OrderTaken(Network):
    """The components are numbered by `order`; the inverse visits them as `order` lists them, not as it numbers them."""

    shape = (3,)
    order = (2, 0, 1)

    def __init__(self) -> None:
        super().__init__()
        self.v, self.w = (nn.Parameter(0.7 * torch.randn(3, 3, dtype=D)) for _ in range(2))

    def scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log s and t of the components with a smaller number."""
        number = torch.tensor(self.order)
        mask = (number[:, None] > number[None, :]).to(x.dtype)
        return torch.tanh(x @ (self.v * mask).T), x @ (self.w * mask).T

    def forward(self, x: Tensor) -> Tensor:
        r, t = self.scale_and_shift(x)
        return x * r.exp() + t

    def inverse(self, y: Tensor) -> Tensor:
        x = torch.zeros_like(y)
        for i in self.order:
            r, t = self.scale_and_shift(x)
            x = torch.cat([x[:, :i], ((y - t) * (-r).exp())[:, i : i + 1], x[:, i + 1 :]], 1)
        return x

    def log_det(self, x: Tensor) -> Tensor:
        return self.scale_and_shift(x)[0].sum(1)


class LastBatch(Network):
    """Batch normalisation by running statistics, whose inverse uses those of the batch that forward saw last."""

    mean: Tensor
    variance: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", 0.3 * torch.randn(4, dtype=D))
        self.register_buffer("variance", 0.5 + torch.rand(4, dtype=D))
        self.last = (self.mean, self.variance)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1:
            self.last = (x.detach().mean(0), x.detach().var(0, unbiased=False) + 1e-5)
        return (x - self.mean) / self.variance.sqrt()

    def inverse(self, y: Tensor) -> Tensor:
        mean, variance = self.last
        return y * variance.sqrt() + mean

    def log_det(self, x: Tensor) -> Tensor:
        return -0.5 * self.variance.log().sum().expand(len(x))

    def inverse_log_det(self, y: Tensor) -> Tensor:
        return 0.5 * self.variance.log().sum().expand(len(y))


class LogOfOne(Planar):
    """log(10⁻⁴ + |1 + ψ·u|)."""

    def log_det(self, x: Tensor) -> Tensor:
        return torch.log(1e-4 + torch.exp(super().log_det(x)))


class AbsoluteFirst(Sylvester):
    """log(1 + |x|) for log|1 + x|."""

    def log_det(self, x: Tensor) -> Tensor:
        q, r, s = self.orthogonal(), self.triangular(self.r), self.triangular(self.s)
        slope = 1 - torch.tanh(x @ q @ s.T + self.b) ** 2
        return torch.log1p((slope * torch.diagonal(r) * torch.diagonal(s)).abs()).sum(1)


class CachedCut(Both):
    """The half that the first step made is kept without its graph, and the second log-det starts from it."""

    def log_det(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        r, t = self.one(b).chunk(2, 1)
        kept = (a * torch.exp(torch.tanh(r)) + t).detach()
        return torch.tanh(r).sum(1) + torch.tanh(self.two(kept).chunk(2, 1)[0]).sum(1)


class Fold(Network):
    """x³/3 − x/25: between −.2 and .2 it falls."""

    shape = (2,)

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.tensor(0.04, dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        return x**3 / 3 - self.c * x


class AlphaNotUndone(Monotone):
    """y = logit(α/2 + (1 − α)·sigmoid(f(x))); the inverse leaves α out."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.logit(0.02 + 0.96 * torch.sigmoid(super().forward(x)))

    def inverse(self, y: Tensor) -> Tensor:
        return super().inverse(y)

    def log_det(self, x: Tensor) -> Tensor:
        p = torch.sigmoid(super().forward(x))
        q = 0.02 + 0.96 * p
        return super().log_det(x) + (torch.log(0.96 * p * (1 - p)) - torch.log(q * (1 - q))).sum(1)


class SecondTerm(Network):
    """The sigmoid of x/3; its log-det is log p − log(1 − p), not log p + log(1 − p)."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.tensor(3.0, dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x / self.c)

    def inverse(self, y: Tensor) -> Tensor:
        return self.c * torch.logit(y)

    def log_det(self, x: Tensor) -> Tensor:
        p = torch.sigmoid(x / self.c)
        return (torch.log(p) - torch.log(1 - p) - torch.log(self.c)).sum(1)


class AtTheSample(Monotone):
    """The slopes are those at y."""

    def log_det(self, x: Tensor) -> Tensor:
        return super().log_det(self(x))


class OtherSqueeze(MultiScale):
    """The inverse puts pixels and channels back in another order."""

    def inverse(self, y: Tensor) -> Tensor:
        z = nn.functional.pixel_unshuffle(super().inverse(y), 2)
        return z.view(-1, 2, 2, 2, 2).permute(0, 3, 2, 4, 1).reshape(y.shape)


class SumOfScales(Conditioned):
    """The log-det of the inverse adds up the inverse scales, not their logarithms."""

    def inverse_log_det(self, y: Tensor, c: Tensor) -> Tensor:  # type: ignore[override]
        return (1 / self.scale_and_shift(self.inverse(y, c), c)[0]).sum(1)


class YeoJohnson(Network):
    """Yeo's and Johnson's transformation with λ = 2; below 0 the inverse is 1 + eʸ, for 1 − e⁻ʸ."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(0.2 * torch.randn(3, dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.a.exp()
        up = x.clamp(min=0)
        return torch.where(x < 0, -torch.log1p(-x.clamp(max=0)), ((1 + up) ** 2 - 1) / 2)

    def inverse(self, y: Tensor) -> Tensor:
        up = torch.sqrt(1 + 2 * y.clamp(min=0)) - 1
        return torch.where(y < 0, -(-y.exp() - 1), up) * (-self.a).exp()

    def log_det(self, x: Tensor) -> Tensor:
        z = x * self.a.exp()
        slope = torch.where(z < 0, -torch.log1p(-z.clamp(max=0)), torch.log1p(z.clamp(min=0)))
        return (slope + self.a).sum(1)


class Sticks(Network):
    """The simplex of K = 3 parts without the last one: xᵢ = exp(yᵢ)/Σ; its log-det counts K − 1 parts for K."""

    shape = (2,)

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(0.2 * torch.randn(2, dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        z = x + x.sum(1, keepdim=True) + self.a
        return torch.softmax(nn.functional.pad(z, (0, 1)), 1)[:, :2]

    def inverse(self, y: Tensor) -> Tensor:
        z = torch.log(y) - torch.log(1 - y.sum(1, keepdim=True)) - self.a
        return z - z.sum(1, keepdim=True) / 3

    def log_det(self, x: Tensor) -> Tensor:
        z = x + x.sum(1, keepdim=True) + self.a
        total = torch.logsumexp(nn.functional.pad(z, (0, 1)), 1)
        return math.log(2) + (2 / 3) * (z.sum(1) - 3 * total)


class Upper(Triangles):
    """The lower factor is taken for an upper one by the inverse."""

    def inverse(self, y: Tensor) -> Tensor:
        z = torch.sinh(torch.asinh(y) * torch.exp(-self.t) - self.e)
        lower, upper = self.factors()
        z = (z - self.b)[:, torch.argsort(self.order)].T
        z = torch.linalg.solve_triangular(lower.T, z, upper=True, unitriangular=True)
        return torch.linalg.solve_triangular(upper, z, upper=True).T


class ProductFirst(Network):
    """48 small slopes are multiplied before the logarithm is taken."""

    shape = (48,)

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.full((48,), -18.0, dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        return torch.asinh(x) * self.a.exp()

    def inverse(self, y: Tensor) -> Tensor:
        return torch.sinh(y * (-self.a).exp())

    def log_det(self, x: Tensor) -> Tensor:
        return torch.log((self.a.exp() / torch.sqrt(1 + x * x)).prod(1))


class ShiftFirst(Network):
    """sinh(x·s + b), whose inverse is that of sinh(x·s) + b."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(0.3 * torch.randn(3, dtype=D)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sinh(x * self.a.exp() + self.b)

    def inverse(self, y: Tensor) -> Tensor:
        return torch.asinh(y - self.b) * (-self.a).exp()

    def log_det(self, x: Tensor) -> Tensor:
        return (self.a + torch.log(torch.cosh(x * self.a.exp() + self.b))).sum(1)


class ForwardAgain(Coupling):
    """A scale and a shift, then the coupling; the inverse undoes the coupling and scales and shifts again."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(0.4 * torch.randn(4, dtype=D)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.a.exp() + self.b)

    def inverse(self, y: Tensor) -> Tensor:
        return super().inverse(y) * self.a.exp() + self.b

    def log_det(self, x: Tensor) -> Tensor:
        return self.a.sum() + super().log_det(x * self.a.exp() + self.b)

    def inverse_log_det(self, y: Tensor) -> Tensor:
        return -self.a.sum() - super().log_det(Coupling.inverse(self, y))


class Augmented(Autoregression):
    """Every component is rescaled by tanh-like limits; the inverse rescales all but the last one."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.asinh(super().forward(x))

    def inverse(self, y: Tensor) -> Tensor:
        return super().inverse(torch.cat([torch.sinh(y[:, :2]), y[:, 2:]], 1))

    def log_det(self, x: Tensor) -> Tensor:
        return super().log_det(x) - 0.5 * torch.log1p(super().forward(x) ** 2).sum(1)


class Repeated(Conditioned):
    """The inverse repeats the contexts where it should repeat each of them: rows get those of others."""

    def inverse(self, y: Tensor, c: Tensor) -> Tensor:  # type: ignore[override]
        if len(c) % 2 == 0:
            c = c.view(2, -1, c.shape[1]).transpose(0, 1).reshape(c.shape)
        return super().inverse(y, c)


class Bounded(Network):
    """tanh of a triangular map: y stays inside (−1, 1), and the base is normal on all of the plane."""

    shape = (2,)

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(0.3 * torch.randn(3, dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        z = torch.stack([x[:, 0] * self.a[0].exp(), x[:, 1] * self.a[1].exp() + self.a[2] * x[:, 0]], 1)
        return torch.tanh(z / 2)

    def inverse(self, y: Tensor) -> Tensor:
        z = 2 * torch.atanh(y)
        first = z[:, 0] * (-self.a[0]).exp()
        return torch.stack([first, (z[:, 1] - self.a[2] * first) * (-self.a[1]).exp()], 1)

    def log_det(self, x: Tensor) -> Tensor:
        z = torch.stack([x[:, 0] * self.a[0].exp(), x[:, 1] * self.a[1].exp() + self.a[2] * x[:, 0]], 1) / 2
        return self.a[0] + self.a[1] + (2 * math.log(2) - math.log(2) - 2 * z.abs() - 2 * torch.log1p(torch.exp(-2 * z.abs()))).sum(1)


class OwnMean(Network):
    """A flow of the plane whose base is normal around a mean that a network makes of z itself."""

    shape = (2,)

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(0.3 * torch.randn(2, dtype=D))

    def base(self, z: Tensor) -> Tensor:
        """N(z; mean(z), 1)."""
        return normal(z - 0.5 * torch.tanh(z))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.a.exp()

    def inverse(self, y: Tensor) -> Tensor:
        return y * (-self.a).exp()

    def log_det(self, x: Tensor) -> Tensor:
        return self.a.sum().expand(len(x))

    def log_prob(self, x: Tensor) -> Tensor:
        return self.base(self(x)) + self.log_det(x)


MUTANTS = table("fresh", {
    # VincentStimper/normalizing-flows#27
    "log-dets are subtracted on the way": ((*VALUE, "density.change-of-variables"), of(
        Triangles, inverse_log_det=None, made=lambda n: {"log_det": lambda x: -Triangles.log_det(n, x)})),
    # danielward27/flowjax#208
    "a numerical inverse with the log-det of forward": (OF_INVERSE, of(
        Monotone, made=lambda n: {"inverse_log_det": lambda y: n.log_det(n.inverse(y))})),
    # karpathy/pytorch-normalizing-flows#10
    "interleaved halves one behind the other": (BACK, of(Interleaved, **NO_DENSITY)),
    # tonyduan/normalizing-flows#2, abdulfatir/planar-flow-pytorch#1
    "norm for squared norm in the direction": ("inverse.is-injective", of(Unsquared, inverse=None, **NO_DENSITY)),
    # aesara-devs/aeppl#111, kazewong/jim#126
    "logarithm of a negative determinant": (("logdet.finite", *VALUE), of(Mirror, inverse=None, **NO_DENSITY)),
    # pymc-devs/pymc#800
    "the sum of all log slopes for every row": ((*VALUE, "hygiene.batch-independence"), of(SumOfAll, **NO_DENSITY)),
    # wohlert/semi-supervised-pytorch#21
    "log-dets of the batch are added up in the density": ((*DENSITY, "hygiene.batch-independence"), of(
        Coupling, made=lambda n: {"log_prob": lambda x: normal(n(x)) + n.log_det(x).sum()})),
    # bayesflow-org/bayesflow#471
    "the sign of the log-det of a standardisation": (VALUE, of(Standardised)),
    # casperkaae/parmesan#21
    "the base at the first point for the last": (DENSITY, of(Sylvester, made=lambda n: {"log_prob": lambda x: normal(x) + n.log_det(x)})),
    # danielward27/flowjax#239
    "the root of a spline outside its interval": (("gradient.through-inverse", "gradient.far-inputs"), of(Unclipped, **NO_DENSITY)),
    # noegroup/rigid-flows#1
    "normalised before the log-det": (VALUE, of(OnTheSphere, **NO_DENSITY)),
    # rll/deepul#10
    "components visited as listed not as numbered": (BACK, of(OrderTaken)),
    # ikostrikov/pytorch-flows#8
    "statistics of the batch of the last forward pass": (("inverse.odd-inputs", *BACK, "hygiene.determinism"), of(LastBatch)),
    # rosinality/glow-pytorch#29
    "a base whose mean is made of its argument": ("density.integrates-to-one", of(
        OwnMean, made=lambda n: {"base_log_prob": n.base})),
    # chrischute/glow#11
    "no density of what is factored out": (DENSITY, of(
        MultiScale, made=lambda n: {"log_prob": lambda x: normal(n(x).flatten(1)[:, 8:]) + n.log_det(x)})),
    # abdulfatir/normalizing-flows#1
    "a small number inside the logarithm of a planar flow": (VALUE, of(LogOfOne)),
    # riannevdberg/sylvester-flows#8
    "absolute value before one is added": (VALUE, of(AbsoluteFirst, **NO_DENSITY)),
    # pytorch/pytorch#59822
    "the second step from a kept half without its graph": ("gradient.log-det", of(CachedCut, **NO_DENSITY)),
    # SauersML/gam#1361
    "a fold between the points that were looked at": (("inverse.is-injective", "inverse.unique-preimage"), of(
        Fold, inverse=None, **MAP_ALONE)),
    # phlippe/uvadlc_notebooks#57
    "alpha is not undone": (BACK, of(AlphaNotUndone, **NO_DENSITY)),
    # rosinality/glow-pytorch#17
    "255 levels for 256": (DENSITY, of(
        MultiScale, made=lambda n: {"log_prob": lambda x: n.__class__.log_prob(n, x) + 16 * math.log(255 / 256)})),
    # stan-dev/stan-dev.github.io#82
    "the sign of the second logarithm of a sigmoid": (VALUE, of(SecondTerm)),
    # vwxyzjn/cleanrl#428
    "the log-det at the transformed sample": (VALUE, of(AtTheSample, **NO_DENSITY)),
    # Unity-Technologies/ml-agents#4870
    "a density between -20 and 20": (DENSITY, of(
        MultiScale, made=lambda n: {"log_prob": lambda x: n.__class__.log_prob(n, x).clamp(-20, 20)})),
    # phlippe/uvadlc_notebooks#78
    "another order of pixels in the inverse of squeezing": (BACK, of(OtherSqueeze, **NO_DENSITY)),
    # pyro-ppl/pyro#2503
    "the inverse scales for their logarithms": (OF_INVERSE, of(SumOfScales, log_prob=None, base_log_prob=None)),
    # grafana/augurs#528
    "a minus that binds less than a call": (BACK, of(YeoJohnson, **NO_DENSITY)),
    # pymc-devs/pymc#3638
    "one part of the simplex too few": (VALUE, of(Sticks, **NO_DENSITY)),
    # pyro-ppl/pyro#686
    "a lower factor taken for an upper one": (BACK, of(Upper, **NO_DENSITY)),
    # ndeutschmann/zunis#28
    "the logarithm of a product that underflows": (("logdet.finite", *VALUE), of(ProductFirst, **NO_DENSITY)),
    # rs-station/careless#122
    "a shift before the last map for one after it": (BACK, of(ShiftFirst, **NO_DENSITY)),
    # CACTuS-AI/GlowIP#2
    "a normalisation that knows no inverse": (BACK, of(ForwardAgain)),
    # mj-will/nessai#444
    "one component is not scaled back": (BACK, of(Augmented, **NO_DENSITY)),
    # bayesiains/nflows#24
    "contexts repeated for each repeated": ((*BACK, "hygiene.context-of-each-row"), of(Repeated, **NO_DENSITY)),
    # pyro-ppl/numpyro#1897, danielward27/flowjax#102
    "a bounded image and a base on all of space": ("density.integrates-to-one", of(Bounded)),
})
