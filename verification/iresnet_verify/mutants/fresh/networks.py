"""Correct networks of ten kinds, each with its inverse, log-det and density, in which slips are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from iresnet_verify.mutants.unseen.networks import D, Network, normal
from iresnet_verify.subject.subject import Subject

softplus = nn.functional.softplus


class Spline(Network):
    """Rational-quadratic splines of 4 pieces on [−3, 3], a component each, and x outside (Durkan et al. 2019)."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.w, self.h = (nn.Parameter(torch.randn(3, 4, dtype=D)) for _ in range(2))
        self.s = nn.Parameter(torch.randn(3, 3, dtype=D))

    def knots(self, widths: Tensor) -> Tensor:
        """The ends of the pieces."""
        parts = 0.05 + 0.8 * torch.softmax(widths, 1)
        return nn.functional.pad(6 * torch.cumsum(parts, 1) - 3, (1, 0), value=-3.0)

    def slopes(self) -> Tensor:
        """Those at the ends, 1 at the outer ones."""
        return nn.functional.pad(0.1 + softplus(self.s), (1, 1), value=1.0)

    def pieces(self, along: Tensor, at: Tensor) -> tuple[Tensor, ...]:
        """(left end, width, lower end, height, slope at the left, at the right) of the piece with the point."""
        x, y, s = self.knots(self.w), self.knots(self.h), self.slopes()
        inside = at.T.contiguous()
        k = torch.searchsorted(along[:, 1:-1].contiguous(), inside)
        left, right = (torch.gather(x, 1, k + i).T for i in (0, 1))
        low, high = (torch.gather(y, 1, k + i).T for i in (0, 1))
        a, b = (torch.gather(s, 1, k + i).T for i in (0, 1))
        return left, right - left, low, high - low, a, b

    def forward(self, x: Tensor) -> Tensor:
        at = x.clamp(-3, 3)
        left, width, low, height, a, b = self.pieces(self.knots(self.w), at)
        m, t = height / width, (at - left) / width
        down = m + (a + b - 2 * m) * t * (1 - t)
        return torch.where(x.abs() < 3, low + height * (m * t * t + a * t * (1 - t)) / down, x)

    def inverse(self, y: Tensor) -> Tensor:
        at = y.clamp(-3, 3)
        left, width, low, height, a, b = self.pieces(self.knots(self.h), at)
        m, rest = height / width, at - low
        bend = a + b - 2 * m
        p = height * (m - a) + rest * bend
        q = height * a - rest * bend
        r = -m * rest
        t = 2 * r / (-q - torch.sqrt(q * q - 4 * p * r))
        return torch.where(y.abs() < 3, left + width * t, y)

    def log_det(self, x: Tensor) -> Tensor:
        at = x.clamp(-3, 3)
        left, width, _, height, a, b = self.pieces(self.knots(self.w), at)
        m, t = height / width, (at - left) / width
        down = m + (a + b - 2 * m) * t * (1 - t)
        up = b * t * t + 2 * m * t * (1 - t) + a * (1 - t) ** 2
        value = 2 * torch.log(m) + torch.log(up) - 2 * torch.log(down)
        return torch.where(x.abs() < 3, value, torch.zeros_like(x)).sum(1)


class Monotone(Network):
    """y = x + Σ_j a_j tanh(b_j x + c_j), a component each, inverted by Newton's method in a bracket."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(torch.randn(3, 4, dtype=D)) for _ in range(3))

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both, of every component."""
        a, b = softplus(self.a), softplus(self.b)
        t = torch.tanh(b * x[:, :, None] + self.c)
        return x + (a * t).sum(2), 1 + (a * b * (1 - t * t)).sum(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.value_and_slope(x)[0]

    def inverse(self, y: Tensor) -> Tensor:
        reach = softplus(self.a).sum(1)
        low, high = y - reach, y + reach
        x = y
        for _ in range(60):
            value, slope = self.value_and_slope(x)
            low, high = torch.where(value < y, x, low), torch.where(value < y, high, x)
            new = x - (value - y) / slope
            x = torch.where((new < low) | (new > high), (low + high) / 2, new)
        return x

    def log_det(self, x: Tensor) -> Tensor:
        return torch.log(self.value_and_slope(x)[1]).sum(1)


class MultiScale(Network):
    """Images (1, 4, 4): squeezed, scaled, mixed by a PLU convolution and coupled; half of the channels is factored out, once more."""

    shape = (1, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = (nn.Parameter(0.4 * torch.randn(4, 1, 1, dtype=D)) for _ in range(2))
        self.lower, self.upper = (nn.Parameter(0.4 * torch.randn(4, 4, dtype=D)) for _ in range(2))
        self.diagonal = nn.Parameter(0.3 * torch.randn(4, dtype=D))
        self.first, self.second = (nn.Conv2d(c, 2 * c, 1, dtype=D) for c in (2, 4))
        self.register_buffer("order", torch.randperm(4))

    order: Tensor

    def matrix(self) -> Tensor:
        """P L U."""
        lower = torch.tril(self.lower, -1) + torch.eye(4, dtype=self.lower.dtype)
        upper = torch.triu(self.upper, 1) + torch.diag(torch.exp(self.diagonal))
        return (lower @ upper)[self.order]

    def coupled(self, net: nn.Module, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both halves of the channels, log s and t of the second."""
        a, b = z.chunk(2, 1)
        r, t = net(a).chunk(2, 1)
        return a, b, torch.tanh(r), t

    def forward(self, x: Tensor) -> Tensor:
        z = nn.functional.pixel_unshuffle(x, 2)
        z = (z + self.shift) * torch.exp(self.scale)
        z = torch.einsum("oc,nchw->nohw", self.matrix(), z)
        a, b, r, t = self.coupled(self.first, z)
        out = b * torch.exp(r) + t
        z = nn.functional.pixel_unshuffle(a, 2)
        a, b, r, t = self.coupled(self.second, z)
        z = torch.cat([a, b * torch.exp(r) + t], 1)
        return torch.cat([out.flatten(1), z.flatten(1)], 1).view(x.shape)

    def inverse(self, y: Tensor) -> Tensor:
        flat = y.flatten(1)
        out, z = flat[:, :8].reshape(-1, 2, 2, 2), flat[:, 8:].reshape(-1, 8, 1, 1)
        a, b, r, t = self.coupled(self.second, z)
        z = torch.cat([a, (b - t) * torch.exp(-r)], 1)
        a = nn.functional.pixel_shuffle(z, 2)
        r, t = self.first(a).chunk(2, 1)
        z = torch.cat([a, (out - t) * torch.exp(-torch.tanh(r))], 1)
        z = torch.einsum("oc,nchw->nohw", torch.linalg.inv(self.matrix()), z)
        z = z * torch.exp(-self.scale) - self.shift
        return nn.functional.pixel_shuffle(z, 2)

    def log_det(self, x: Tensor) -> Tensor:
        z = nn.functional.pixel_unshuffle(x, 2)
        pixels = z.shape[2] * z.shape[3]
        value = pixels * (self.scale.sum() + self.diagonal.sum())
        z = torch.einsum("oc,nchw->nohw", self.matrix(), (z + self.shift) * torch.exp(self.scale))
        a, _, r, _ = self.coupled(self.first, z)
        _, _, s, _ = self.coupled(self.second, nn.functional.pixel_unshuffle(a, 2))
        return value + r.flatten(1).sum(1) + s.flatten(1).sum(1)


class Convolutions(Network):
    """y = x + K₂ * tanh(K₁ * x + c) on images (2, 4, 4) that wrap around, ‖K₁‖ = ‖K₂‖ = √.8 by Fourier transforms."""

    shape = (2, 4, 4)
    lipschitz = 0.8

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Parameter(torch.randn(3, 2, 3, 3, dtype=D)), nn.Parameter(torch.randn(2, 3, 3, 3, dtype=D))
        self.c = nn.Parameter(0.5 * torch.randn(3, 1, 1, dtype=D))

    def normalised(self, kernel: Tensor) -> Tensor:
        """The kernel of norm √.8 on 4×4 pixels."""
        blocks = torch.fft.fft2(kernel, s=(4, 4)).permute(2, 3, 0, 1)
        return kernel * (0.8**0.5 / torch.linalg.svdvals(blocks).max())

    def convolve(self, x: Tensor, kernel: Tensor) -> Tensor:
        """K * x, around the edges."""
        return nn.functional.conv2d(nn.functional.pad(x, (1, 1, 1, 1), mode="circular"), kernel)

    def g(self, x: Tensor) -> Tensor:
        """The branch."""
        first, last = self.normalised(self.first), self.normalised(self.last)
        return self.convolve(torch.tanh(self.convolve(x, first) + self.c), last)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.g(x)

    def inverse(self, y: Tensor) -> Tensor:
        x = y
        for _ in range(150):
            x = y - self.g(x)
        return x

    def log_det(self, x: Tensor) -> Tensor:
        first, last = self.normalised(self.first), self.normalised(self.last)
        basis = torch.eye(32, dtype=x.dtype).reshape(32, 2, 4, 4)
        inner = torch.eye(48, dtype=x.dtype).reshape(48, 3, 4, 4)
        down, up = self.convolve(basis, first).flatten(1), self.convolve(inner, last).flatten(1)
        slope = 1 - torch.tanh(self.convolve(x, first) + self.c) ** 2
        J = (down * slope.flatten(1)[:, None]) @ up
        return torch.linalg.slogdet(torch.eye(32, dtype=x.dtype) + J)[1]


class Roulette(Network):
    """y = x + W₂ sin(W₁x + c)/…, Lip .6; its log-det by a series of random length for each row, two probes of signs each."""

    shape = (3,)
    lipschitz = 0.6

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Parameter(torch.randn(5, 3, dtype=D)), nn.Parameter(torch.randn(3, 5, dtype=D))
        self.c = nn.Parameter(torch.randn(5, dtype=D))

    def weights(self) -> list[Tensor]:
        """Both, of norm √.6."""
        return [0.6**0.5 * w / torch.linalg.matrix_norm(w, 2) for w in (self.first, self.last)]

    def g(self, x: Tensor) -> Tensor:
        """The branch."""
        first, last = self.weights()
        return torch.sin(x @ first.T + self.c) @ last.T

    def forward(self, x: Tensor) -> Tensor:
        return x + self.g(x)

    def inverse(self, y: Tensor) -> Tensor:
        x = y
        for _ in range(100):
            x = y - self.g(x)
        return x

    def product(self, x: Tensor, v: Tensor) -> Tensor:
        """J_gᵀ v."""
        first, last = self.weights()
        return ((v @ last) * torch.cos(x @ first.T + self.c)) @ first

    def estimate(self, x: Tensor, lengths: Tensor, v: Tensor) -> Tensor:
        """Σ_{k ≤ n} (−1)^{k+1} vᵀJᵏv/(k·P(N ≥ k)), P(N ≥ k) = .6^{k−1}."""
        w, total = v, torch.zeros(len(x), dtype=x.dtype)
        for k in range(1, int(lengths.max()) + 1):
            w = self.product(x, w)
            term = (-1) ** (k + 1) * (w * v).sum(1) / (k * 0.6 ** (k - 1))
            total = total + torch.where(lengths >= k, term, torch.zeros_like(term))
        return total

    def log_det(self, x: Tensor) -> Tensor:
        law: Any = torch.distributions.Geometric(probs=torch.tensor(0.4))
        total = torch.zeros(len(x), dtype=x.dtype)
        for _ in range(2):
            lengths = law.sample((len(x),)) + 1
            v = torch.sign(torch.randn_like(x))
            total = total + self.estimate(x, lengths, v)
        return total / 2


class Conditioned(Network):
    """y_i = x_i·s_i(x_<i, c) + t_i(x_<i, c), s = softplus, one component after the other."""

    shape = (3,)
    context_shape = (2,)

    def __init__(self) -> None:
        super().__init__()
        self.v, self.w = (nn.Parameter(0.7 * torch.randn(3, 3, dtype=D)) for _ in range(2))
        self.a, self.b = (nn.Parameter(0.7 * torch.randn(3, 2, dtype=D)) for _ in range(2))

    def scale_and_shift(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Both."""
        s = softplus(x @ self.v.tril(-1).T + c @ self.a.T) + 0.1
        return s, torch.tanh(x @ self.w.tril(-1).T) + c @ self.b.T

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        s, t = self.scale_and_shift(x, c)
        return x * s + t

    def inverse(self, y: Tensor, c: Tensor) -> Tensor:  # type: ignore[override]
        x = torch.zeros_like(y)
        for i in range(3):
            s, t = self.scale_and_shift(x, c)
            x = torch.cat([x[:, :i], ((y - t) / s)[:, i : i + 1], x[:, i + 1 :]], 1)
        return x

    def log_det(self, x: Tensor, c: Tensor) -> Tensor:  # type: ignore[override]
        return torch.log(self.scale_and_shift(x, c)[0]).sum(1)

    def inverse_log_det(self, y: Tensor, c: Tensor) -> Tensor:  # type: ignore[override]
        return -self.log_det(self.inverse(y, c), c)

    def log_prob(self, x: Tensor, c: Tensor) -> Tensor:  # type: ignore[override]
        return normal(self(x, c)) + self.log_det(x, c)


class Stack(Network):
    """Two residual blocks with dense connections and ELU, inverted by fixed points until no row moves."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (nn.Parameter(torch.randn(9, 3, dtype=D)) for _ in range(2))
        self.shifts = nn.Parameter(0.5 * torch.randn(2, 3, dtype=D))

    def branch(self, i: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """g and J_g: W₂(x, elu(W₁x + b)) with ‖W₁‖ = 1 and ‖W₂‖ = .6."""
        w = (self.one, self.two)[i]
        first, last = w[:3] / torch.linalg.matrix_norm(w[:3], 2), 0.6 * w[3:] / torch.linalg.matrix_norm(w[3:], 2)
        z = x @ first.T + self.shifts[i]
        slope = torch.where(z > 0, torch.ones_like(z), torch.exp(z.clamp(max=0)))
        value = x @ last[:3] + nn.functional.elu(z) @ last[3:]
        return value, last[:3].T + last[3:].T @ (slope[:, :, None] * first)

    def forward(self, x: Tensor) -> Tensor:
        for i in (0, 1):
            x = x + self.branch(i, x)[0]
        return x

    def inverse(self, y: Tensor) -> Tensor:
        for i in (1, 0):
            x = y
            for _ in range(400):
                new = y - self.branch(i, x)[0]
                moved = (new - x).abs().max()
                x = new
                if moved < 1e-13:
                    break
            y = x
        return y

    def log_det(self, x: Tensor) -> Tensor:
        total = torch.zeros(len(x), dtype=x.dtype)
        for i in (0, 1):
            value, J = self.branch(i, x)
            total = total + torch.linalg.slogdet(torch.eye(3, dtype=x.dtype) + J)[1]
            x = x + value
        return total


class Sylvester(Network):
    """y = x + QR tanh(SQᵀx + b), Q of reflections, R and S triangular with |r_ii s_ii| < 1, inverted by Newton's method."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(2, 3, dtype=D))
        self.r, self.s = (nn.Parameter(0.4 * torch.randn(3, 3, dtype=D)) for _ in range(2))
        self.b = nn.Parameter(torch.randn(3, dtype=D))

    def orthogonal(self) -> Tensor:
        """The product of the reflections."""
        q = torch.eye(3, dtype=self.b.dtype)
        for v in self.vectors:
            q = q - 2 * (q @ v)[:, None] * v / (v @ v)
        return q

    def triangular(self, w: Tensor) -> Tensor:
        """The upper part of w, its diagonal inside (−.9, .9)."""
        return torch.triu(w, 1) + torch.diag(0.9 * torch.tanh(torch.diagonal(w)))

    def forward(self, x: Tensor) -> Tensor:
        q = self.orthogonal()
        z = x @ q @ self.triangular(self.s).T + self.b
        return x + torch.tanh(z) @ self.triangular(self.r).T @ q.T

    def inverse(self, y: Tensor) -> Tensor:
        q, r, s = self.orthogonal(), self.triangular(self.r), self.triangular(self.s)
        u = target = y @ q
        for i in (2, 1, 0):
            slope = r[i, i] * s[i, i]
            for _ in range(40):
                t = torch.tanh(u @ s.T + self.b)
                wrong = u[:, i] + t @ r[i] - target[:, i]
                step = wrong / (1 + slope * (1 - t[:, i] ** 2))
                u = torch.cat([u[:, :i], (u[:, i] - step)[:, None], u[:, i + 1 :]], 1)
        return u @ q.T

    def log_det(self, x: Tensor) -> Tensor:
        q, r, s = self.orthogonal(), self.triangular(self.r), self.triangular(self.s)
        slope = 1 - torch.tanh(x @ q @ s.T + self.b) ** 2
        return torch.log1p(slope * torch.diagonal(r) * torch.diagonal(s)).sum(1)


class Triangles(Network):
    """z = P L U x + b, then sinh((asinh(z) + e)·t), a component each."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.upper = (nn.Parameter(0.5 * torch.randn(3, 3, dtype=D)) for _ in range(2))
        self.d, self.b, self.e, self.t = (nn.Parameter(0.3 * torch.randn(3, dtype=D)) for _ in range(4))
        self.register_buffer("order", torch.tensor([2, 0, 1]))

    order: Tensor

    def factors(self) -> tuple[Tensor, Tensor]:
        """L and U."""
        unit = torch.eye(3, dtype=self.b.dtype)
        return torch.tril(self.lower, -1) + unit, torch.triu(self.upper, 1) + torch.diag(torch.exp(self.d))

    def linear(self, x: Tensor) -> Tensor:
        """P L U x + b."""
        lower, upper = self.factors()
        return (x @ upper.T @ lower.T)[:, self.order] + self.b

    def forward(self, x: Tensor) -> Tensor:
        return torch.sinh((torch.asinh(self.linear(x)) + self.e) * torch.exp(self.t))

    def inverse(self, y: Tensor) -> Tensor:
        z = torch.sinh(torch.asinh(y) * torch.exp(-self.t) - self.e)
        lower, upper = self.factors()
        z = (z - self.b)[:, torch.argsort(self.order)].T
        z = torch.linalg.solve_triangular(lower, z, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, z, upper=True).T

    def log_det(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        inner = (torch.asinh(z) + self.e) * torch.exp(self.t)
        slope = torch.log(torch.cosh(inner)) + self.t - 0.5 * torch.log1p(z * z)
        return self.d.sum() + slope.sum(1)


class Radial(Network):
    """y = x + β(x − m)/(α + r), r = ‖x − m‖, inverted along the ray."""

    shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.randn(3, dtype=D))
        self.a, self.b = (nn.Parameter(torch.randn(1, dtype=D)) for _ in range(2))

    def constants(self) -> tuple[Tensor, Tensor]:
        """α > 0 and β > −α."""
        alpha = 0.2 + softplus(self.a)
        return alpha, softplus(self.b) - alpha + 0.1

    def forward(self, x: Tensor) -> Tensor:
        alpha, beta = self.constants()
        away = x - self.m
        r = torch.linalg.vector_norm(away, dim=1, keepdim=True)
        return x + beta * away / (alpha + r)

    def inverse(self, y: Tensor) -> Tensor:
        alpha, beta = self.constants()
        away = y - self.m
        q = torch.linalg.vector_norm(away, dim=1, keepdim=True)
        p = alpha + beta - q
        r = (torch.sqrt(p * p + 4 * alpha * q) - p) / 2
        return self.m + away / (1 + beta / (alpha + r))

    def log_det(self, x: Tensor) -> Tensor:
        alpha, beta = self.constants()
        r = torch.linalg.vector_norm(x - self.m, dim=1)
        h = 1 / (alpha + r)
        return 2 * torch.log1p(beta * h) + torch.log1p(beta * h - beta * r * h * h)


KINDS: tuple[type[Network], ...] = (
    Spline, Monotone, MultiScale, Convolutions, Roulette, Conditioned, Stack, Sylvester, Triangles, Radial)


def subject_of(kind: type[Network], seed: int, **changes: Any) -> Subject:
    """A subject with all that the network has; `changes` are fields, or functions of the network that give them, in `made`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net: Any = kind()
    given: dict[str, Any] = {"inverse_log_det": net.inverse_log_det, "log_prob": net.log_prob, "base_log_prob": normal}
    if hasattr(net, "lipschitz"):
        given |= {"residual": net.g, "lipschitz": net.lipschitz * (1 + 1e-9)}
    if isinstance(net, Roulette):
        given = {k: given[k] for k in ("residual", "lipschitz")} | {"log_det_is": "unbiased"}
    if isinstance(net, Conditioned):
        given |= {"context_shape": net.context_shape}
    made: Callable[[Any], dict[str, Any]] = changes.pop("made", lambda net: {})
    subject = Subject(name=f"{kind.__name__}-{seed}", event_shape=kind.shape, forward=net, inverse=net.inverse, log_det=net.log_det,
                      module=net, modes=("eval",), **given)
    return replace(subject, **changes, **made(net))


def of(kind: type[Network], **changes: Any) -> Callable[[int], Subject]:
    """The factory of `subject_of`."""
    return lambda seed: subject_of(kind, seed, **dict(changes))
