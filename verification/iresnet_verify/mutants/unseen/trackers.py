"""Mistakes that the issue trackers of published packages report, each remade in a small network. Written after the hypotheses."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.mutants.unseen.networks import Both, Coupling, D, Network, Pixels, Residual, normal, of, small_net
from iresnet_verify.subject.subject import Subject

BACK = ("inverse.recovers-input", "inverse.recovers-output", "inverse.keeps-tolerance")
VALUE, DENSITY = ("logdet.matches-determinant", "logdet.depends-on-input", "logdet.adds-up"), ("density.change-of-variables",)
OF_INVERSE = ("logdet.of-the-inverse",)


class MeanOfTheBatch(Coupling):
    """Sums the logarithms of the scales over the batch too, and divides by its size."""

    def log_det(self, x: Tensor) -> Tensor:
        return (super().log_det(x).sum() / len(x)).expand(len(x))


class Chain(Network):
    """An element-wise scale, a coupling, an element-wise scale."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Scale(), Coupling(), Squash()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x

    def inverse(self, y: Tensor) -> Tensor:
        for block in reversed(self.blocks):
            y = block.inverse(y)  # type: ignore[operator]
        return y

    def parts(self, x: Tensor) -> list[Tensor]:
        """Each block's log-det."""
        found = []
        for block in self.blocks:
            found.append(block.log_det(x))  # type: ignore[operator]
            x = block(x)
        return found

    def log_det(self, x: Tensor) -> Tensor:
        return torch.stack(self.parts(x)).sum(0)


class Scale(Network):
    """x·exp(a) + b."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(0.4 * torch.randn(4, dtype=D)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.a.exp() + self.b

    def inverse(self, y: Tensor) -> Tensor:
        return (y - self.b) * (-self.a).exp()

    def log_det(self, x: Tensor) -> Tensor:
        return self.a.sum().expand(len(x))


class Squash(Network):
    """The sigmoid of x/4."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x / 4)

    def inverse(self, y: Tensor) -> Tensor:
        return 4 * torch.logit(y)

    def log_det(self, x: Tensor) -> Tensor:
        return (-nn.functional.softplus(x / 4) - nn.functional.softplus(-x / 4) - math.log(4)).sum(1)


class LastAlone(Chain):
    """Each block's log-det overwrites the one before."""

    def log_det(self, x: Tensor) -> Tensor:
        return self.parts(x)[-1]


class SigmoidMinus(Chain):
    """The sigmoid's log-det has the sign of the logit's."""

    def log_det(self, x: Tensor) -> Tensor:
        first, second, third = self.parts(x)
        return first + second - third


class ShiftLast(Coupling):
    """b·exp(−r) − t."""

    def inverse(self, y: Tensor) -> Tensor:
        a, b = y.chunk(2, 1)
        r, t = self.scale_and_shift(a)
        return torch.cat([a, b * torch.exp(-r) - t], 1)


class Forwards(Coupling):
    """The inverse is a second forward pass."""

    def inverse(self, y: Tensor) -> Tensor:
        return self(y)

    def inverse_log_det(self, y: Tensor) -> Tensor:
        return -self.log_det(Coupling.inverse(self, y))


class Normalised(Network):
    """Batch normalisation as a flow: the statistics of the batch in training, the running ones in evaluation."""

    mean: Tensor
    variance: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", 0.1 * torch.randn(4, dtype=D))
        self.register_buffer("variance", 1 + 0.1 * torch.rand(4, dtype=D))
        self.a = nn.Parameter(0.3 * torch.randn(4, dtype=D))

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Those used now."""
        return (x.mean(0), x.var(0, unbiased=False) + 1e-5) if self.training and len(x) > 1 else (self.mean, self.variance)

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.statistics(x)
        return (x - mean) / variance.sqrt() * self.a.exp()

    def log_det(self, x: Tensor) -> Tensor:
        return (self.a.sum() - 0.5 * self.statistics(x)[1].log().sum()).expand(len(x))


class Attribute(Network):
    """The scale that the first batch gave is a plain attribute, neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = 1 + torch.rand(4, dtype=D)
        self.b = nn.Parameter(torch.randn(4, dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.kept + self.b

    def inverse(self, y: Tensor) -> Tensor:
        return (y - self.b) / self.kept

    def log_det(self, x: Tensor) -> Tensor:
        return self.kept.log().sum().expand(len(x))


class Dead(Scale):
    """The standard deviation of a dead channel is 0."""

    def forward(self, x: Tensor) -> Tensor:
        deviation = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=x.dtype)
        return (x - self.b) / deviation


class Tails(Network):
    """x + x(1 − x²)^{3/2}/5 inside [−1, 1] and x outside: the branch that is not taken has a root of what is negative."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.tensor(0.2, dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x.abs() < 1, x + self.c * x * (1 - x * x) ** 1.5, x)


class Box(Coupling):
    """The inverse clips its argument to the interval of its spline."""

    def inverse(self, y: Tensor) -> Tensor:
        return super().inverse(y.clamp(-1.0, 1.0))


class Cached(Coupling):
    """The log-det is that of the last call of forward."""

    last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.last = Coupling.log_det(self, x)
        return super().forward(x)

    def log_det(self, x: Tensor) -> Tensor:
        if self.last is None or len(self.last) != len(x):
            self(x)
        return self.last if self.last is not None else x[:, 0]


def unbiased(net: Residual, x: Tensor, probes: int = 1) -> Tensor:
    """Random lengths, weighted, with so many probes, added up."""
    total = torch.zeros(len(x), dtype=x.dtype)
    J = net.jacobian(x)
    for _ in range(probes):
        law: Any = torch.distributions.Geometric(probs=torch.tensor(0.3))
        n = law.sample((len(x),)) + 1
        v = torch.randn_like(x)
        w = v
        for k in range(1, int(n.max()) + 1):
            w = (w[:, None] @ J)[:, 0]
            total = total - (-1.0) ** k / k / 0.7 ** (k - 1) * torch.where(n >= k, (w * v).sum(1), torch.zeros_like(total))
    return total


class Probes(Residual):
    """Four probes are added up and not divided by their number."""

    def log_det(self, x: Tensor) -> Tensor:
        return unbiased(self, x, 4)


class NeumannForValue(Residual):
    """The exact traces are added up by the Neumann series of the gradient."""

    def log_det(self, x: Tensor) -> Tensor:
        J = self.jacobian(x)
        power, total = J, torch.zeros(len(x), dtype=x.dtype)
        for k in range(1, 61):
            total = total - (-1) ** k * power.diagonal(dim1=1, dim2=2).sum(1)
            power = power @ J
        return total


class Divided(Coupling):
    """The input is divided by 8 first, and its log-det does not say so."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x / 8)

    def inverse(self, y: Tensor) -> Tensor:
        return 8 * super().inverse(y)

    def log_det(self, x: Tensor) -> Tensor:
        return super().log_det(x / 8)


class Shrunk(Chain):
    """The image is moved into [.05, .95] before the logit, by a factor that the log-det does not have."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.logit(0.05 + 0.9 * super().forward(x))

    def inverse(self, y: Tensor) -> Tensor:
        return super().inverse((torch.sigmoid(y) - 0.05) / 0.9)

    def log_det(self, x: Tensor) -> Tensor:
        p = 0.05 + 0.9 * super().forward(x)
        return super().log_det(x) - p.log().sum(1) - (1 - p).log().sum(1)


class Fuzzed(Network):
    """x ↦ logit((x̃ + f)/(1 + 2f)) of x̃ = sigmoid(x/4); the constant of the division by 1 + 2f is left out."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.logit((torch.sigmoid(x / 4) + 0.02) / 1.04)

    def inverse(self, y: Tensor) -> Tensor:
        return 4 * torch.logit(1.04 * torch.sigmoid(y) - 0.02)

    def log_det(self, x: Tensor) -> Tensor:
        p = torch.sigmoid(x / 4)
        q = (p + 0.02) / 1.04
        return (p.log() + (1 - p).log() - math.log(4) - q.log() - (1 - q).log()).sum(1)


class NaturalOrder(Network):
    """The masks run from the last component to the first, the inverse from the first to the last."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.v, self.w = (nn.Parameter(0.7 * torch.randn(3, 3, dtype=D)) for _ in range(2))

    def scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log s and t of the components behind."""
        return torch.tanh(x @ self.v.triu(1).T), x @ self.w.triu(1).T

    def forward(self, x: Tensor) -> Tensor:
        r, t = self.scale_and_shift(x)
        return x * r.exp() + t

    def inverse(self, y: Tensor) -> Tensor:
        x = torch.zeros_like(y)
        for i in range(3):
            r, t = self.scale_and_shift(x)
            x = torch.cat([x[:, :i], ((y - t) * (-r).exp())[:, i : i + 1], x[:, i + 1 :]], 1)
        return x

    def log_det(self, x: Tensor) -> Tensor:
        return self.scale_and_shift(x)[0].sum(1)


class Negative(Network):
    """A scale of both signs, of which the logarithm is taken as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([0.7, -1.2, 0.9, 1.4], dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.a + 0.1 * torch.tanh(x)

    def log_det(self, x: Tensor) -> Tensor:
        return (self.a + 0.1 * (1 - torch.tanh(x) ** 2)).log().sum(1)


class ScaleOnce(Pixels):
    """The scale of a channel is counted once, not for each pixel."""

    def log_det(self, x: Tensor) -> Tensor:
        return (self.log_scale.sum() + x.shape[2] * x.shape[3] * torch.linalg.slogdet(self.weight)[1]).expand(len(x))


class Matrix(Pixels):
    """A 1×1 convolution alone, whose log-det is that of its matrix."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("oc,nchw->nohw", self.weight, x) + self.shift

    def inverse(self, y: Tensor) -> Tensor:
        return torch.einsum("oc,nchw->nohw", torch.linalg.inv(self.weight), y - self.shift)

    def log_det(self, x: Tensor) -> Tensor:
        return torch.linalg.slogdet(self.weight)[1].expand(len(x))


class Sines(nn.Module):
    """(sin z, sin(−z)), with no factor 1/√2."""

    def forward(self, z: Tensor) -> Tensor:
        """Return both."""
        return torch.cat([torch.sin(z), torch.sin(-z)], 1)


def sines(seed: int) -> Subject:
    """Linear, sines, linear, each layer normalised to √.7; .7 is claimed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, last = nn.Linear(3, 6).double(), nn.Linear(12, 3).double()
        net = nn.Sequential(first, Sines(), last)
        with torch.no_grad():
            last.weight.copy_(torch.cat([first.weight.T, -first.weight.T], 1))
            for layer in (first, last):
                layer.weight.mul_(0.7**0.5 / torch.linalg.matrix_norm(layer.weight, 2))
                layer.bias.zero_()
    return Subject(name="sines", event_shape=(3,), forward=lambda x: x + net(x), residual=net, module=net, lipschitz=0.7, modes=("eval",))


class Dropped(Network):
    """An additive coupling with dropout in its network."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 2)).double()

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.reshape(len(x), 4).chunk(2, 1)
        return torch.cat([a, b + self.net(a)], 1)

    def inverse(self, y: Tensor) -> Tensor:
        a, b = y.chunk(2, 1)
        return torch.cat([a, b - self.net(a)], 1)


class Softplus(Network):
    """log(1 + exp(2x))/2; the inverse has the 2 outside expm1."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(x, beta=2.0)

    def inverse(self, y: Tensor) -> Tensor:
        return torch.log(torch.expm1(y)) / 2


class LeakyPlanar(Network):
    """y = x + u·leaky(w·x + c); the log-det takes the slope twice where it is not 1."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.w, self.u = (nn.Parameter(0.5 * torch.rand(3, dtype=D) + 0.3) for _ in range(2))
        self.c = nn.Parameter(torch.randn(1, dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        return x + nn.functional.leaky_relu(x @ self.w + self.c, 0.3)[:, None] * self.u

    def log_det(self, x: Tensor) -> Tensor:
        slope = torch.where(x @ self.w + self.c < 0, 0.3, 1.0).to(x.dtype)
        return torch.log(torch.abs(1 + slope * slope * (self.w @ self.u)))


class SecondAlone(Both):
    """Of the two steps the second one's scales alone are counted."""

    def log_det(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        r, t = self.one(b).chunk(2, 1)
        r, _ = self.two(a * torch.exp(torch.tanh(r)) + t).chunk(2, 1)
        return torch.tanh(r).sum(1)


class Clamped(Coupling):
    """log s is 2 tanh(r/2) in the map and 2 tanh(r) in the log-det."""

    def scale_and_shift(self, a: Tensor) -> tuple[Tensor, Tensor]:
        r, t = self.net(a).chunk(2, 1)
        return 2 * torch.tanh(r / 2), t

    def log_det(self, x: Tensor) -> Tensor:
        return 2 * torch.tanh(self.net(x[:, :2])[:, :2]).sum(1)


class Backwards(Scale):
    """Forward divides and the inverse multiplies; the log-det is that of the multiplication."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.b) * (-self.a).exp()

    def inverse(self, y: Tensor) -> Tensor:
        return y * self.a.exp() + self.b


class Parametrised(Residual):
    """In evaluation mode the normalised weight is a kept copy, cut from the graph."""

    def weights(self) -> list[Tensor]:
        first, last = super().weights()
        return [first, last] if self.training else [first, last.detach()]


class NeverUpdated(Residual):
    """Evaluation uses the normalised weights of the day the network was built."""

    built: list[Tensor] | None = None

    def weights(self) -> list[Tensor]:
        if self.built is None:
            self.built = [w.detach() for w in super().weights()]
        return super().weights() if self.training else self.built


def conditional(seed: int) -> Subject:
    """x·exp(tanh(net(c))) + t(c); the inverse is not given c and takes 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = small_net(2, 6)

    def scale_and_shift(c: Tensor) -> tuple[Tensor, Tensor]:
        r, t = net(c).chunk(2, 1)
        return torch.tanh(r), t

    def forward(x: Tensor, c: Tensor) -> Tensor:
        r, t = scale_and_shift(c)
        return x * r.exp() + t

    def inverse(y: Tensor, c: Tensor) -> Tensor:
        r, t = scale_and_shift(torch.zeros_like(c))
        return (y - t) * (-r).exp()

    return Subject(name="conditional", event_shape=(3,), context_shape=(2,), forward=forward, inverse=inverse, module=net, modes=("eval",))


def both_modes(kind: type[Network], **changes: Any) -> Factory:
    """The network as it is in training and in evaluation."""
    return of(kind, modes=("train", "eval"), inverse_log_det=None, log_prob=None, base_log_prob=None, **changes)


def reloaded(kind: type[Network], *modes: str) -> Factory:
    """With a function that builds another one."""
    def make(seed: int) -> Subject:
        def fresh(dtype: str | None = None, device: str | None = None) -> Subject:
            return make(seed + 1000)

        return replace(of(kind, modes=modes or ("eval",))(seed), fresh=fresh)

    return make


MUTANTS = table("unseen", {
    # pkuxmq/Invertible-Image-Rescaling#5
    "mean of the logarithms over the batch": ((*VALUE, "hygiene.batch-independence"), of(MeanOfTheBatch)),
    # vislearn/FrEIA#66
    "log-det of the inverse is that of forward": (OF_INVERSE, of(Coupling, inverse_log_det=lambda n: lambda y: n.log_det(n.inverse(y)))),
    # rll/deepul#7
    "the inverse is not given its context": ((*BACK, "hygiene.context-of-each-row"), conditional),
    # tensorflow/models#7465
    "each log-det overwrites the one before": (VALUE, of(LastAlone)),
    # chrischute/real-nvp#15
    "the shift is undone after the scale": (BACK, of(ShiftLast)),
    # bayesiains/nflows#37
    "a second forward pass for the inverse": (BACK, of(Forwards)),
    # kamenbliznashki/normalizing_flows#13
    "batch normalisation with the statistics of the batch in training": (
        ("hygiene.batch-independence", "parity.train-and-eval"), both_modes(Normalised, inverse=None)),
    # bayesiains/nflows#4
    "scale of the first batch as a plain attribute": ("state.save-and-load", reloaded(Attribute)),
    # vislearn/FrEIA#121
    "deviation of a dead channel": ("hygiene.forward-finite", of(Dead)),
    # bayesflow-org/bayesflow#721
    "a root of what is negative in the branch not taken": (
        ("gradient.far-inputs", "gradient.forward-input", "gradient.forward"),
        of(Tails, inverse=None, log_det=None, inverse_log_det=None, log_prob=None, base_log_prob=None)),
    # pyro-ppl/pyro#3139
    "the inverse stays in the interval of its spline": ((*BACK, "convergence.is-reported"), of(Box)),
    # pyro-ppl/pyro#2384
    "log-det of the last call of forward": ((*VALUE, "hygiene.determinism", "hygiene.batch-independence"), of(Cached)),
    # pytorch/pytorch#62404
    "the log-det is subtracted in the density": (DENSITY, of(Coupling, log_prob=lambda n: lambda x: normal(n(x)) - n.log_det(x))),
    # bayesflow-org/bayesflow#772
    "four probes that are added up": ("estimator.unbiased", of(Probes, log_det_is="unbiased", inverse_log_det=None, log_prob=None)),
    # rtqichen/residual-flows#4
    "the Neumann series for the power series": (VALUE, of(NeumannForValue)),
    # openai/glow#51
    "the input divided by 8 without a word": (VALUE, of(Divided)),
    # phlippe/uvadlc_notebooks#93
    "the sigmoid with the sign of the logit": (VALUE, of(SigmoidMinus)),
    # phlippe/uvadlc_notebooks#135
    "alpha left out of the log-det of the logit": (VALUE, of(Shrunk)),
    # yang-song/score_sde_pytorch#51
    "bits a dimension with an offset": (DENSITY, of(Coupling, log_prob=lambda n: lambda x: 7.0 - n.__class__.log_prob(n, x) / (
        4 * math.log(2)))),
    # facebookincubator/flowtorch#6
    "components inverted in the order of another mask": (BACK, of(NaturalOrder)),
    # owlbarn/owl#357
    "logarithm of a negative scale": ((*VALUE, "logdet.finite"), of(Negative, inverse=None, inverse_log_det=None, log_prob=None)),
    # tensorflow/probability#238
    "the scale of a channel counted once": (VALUE, of(ScaleOnce)),
    # tensorflow/probability#554
    "the matrix of a 1x1 convolution counted once": (VALUE, of(Matrix)),
    # FabricioArendTorres/FlowConductor#1
    "two sines without 1/sqrt 2": (("lipschitz.bounds-jacobian", "lipschitz.bounds-stretch"), sines),
    # mj-will/nessai#105
    "the constant of the fuzz left out": (VALUE, of(Fuzzed)),
    # silvandeleemput/memcnn#56
    "dropout in an additive coupling": (
        "hygiene.forward-not-random", both_modes(Dropped, log_det=None)),
    # bayesflow-org/bayesflow#764
    "beta outside expm1": (BACK, of(Softplus, log_det=None, inverse_log_det=None, log_prob=None, base_log_prob=None)),
    # danielward27/flowjax#170
    "the slope of the leaky ReLU twice": (VALUE, of(LeakyPlanar, inverse=None, inverse_log_det=None, log_prob=None, base_log_prob=None)),
    # vislearn/FrEIA#53
    "the second step of a double coupling alone": (VALUE, of(SecondAlone)),
    # vislearn/FrEIA#165
    "clamped otherwise in the log-det": (VALUE, of(Clamped)),
    # vislearn/FrEIA#172
    "actnorm the other way round": (VALUE, of(Backwards)),
    # pytorch/pytorch#13350
    "no gradient for the weight in evaluation mode": (("gradient.forward", "gradient.log-det"), of(Parametrised)),
    # pytorch/pytorch#13350
    "the weight of the day it was built in evaluation mode": (
        ("state.after-optimiser-step", "parity.train-and-eval"), reloaded(NeverUpdated, "train", "eval")),
})
