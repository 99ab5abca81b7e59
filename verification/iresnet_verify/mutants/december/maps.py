"""Correct maps of NumPy arrays, in which slips are made: classes, and plain functions of a dictionary of parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from iresnet_verify.subject.subject import HostArray, Subject

Draw = np.random.Generator


def sigmoid(z: HostArray) -> HostArray:
    """1/(1 + e⁻ᶻ)."""
    return np.exp(-np.logaddexp(0, -z))


class Leapfrog:
    """Two damped leapfrog steps of positions q and momenta p in the potential Σ log cosh(Wq + b)."""

    def __init__(self, rng: Draw) -> None:
        self.w, self.b = rng.normal(size=(3, 2)), rng.normal(size=3)
        self.step, self.damping = 0.4, 0.85

    def force(self, q: HostArray) -> HostArray:
        """Minus the gradient of the potential."""
        return -np.tanh(q @ self.w.T + self.b) @ self.w

    def forward(self, x: HostArray) -> HostArray:
        """(q, p) after both steps."""
        q, p = x[:, :2], x[:, 2:]
        for _ in range(2):
            p = self.damping * p + self.step * self.force(q)
            q = q + self.step * p
        return np.concatenate([q, p], 1)

    def inverse(self, y: HostArray) -> HostArray:
        """(q, p) before them."""
        q, p = y[:, :2], y[:, 2:]
        for _ in range(2):
            q = q - self.step * p
            p = (p - self.step * self.force(q)) / self.damping
        return np.concatenate([q, p], 1)

    def log_det(self, x: HostArray) -> HostArray:
        """Two steps of two momenta."""
        return np.full(len(x), 2 * x.shape[1] / 2 * np.log(self.damping))


class Cubic:
    """y = c + ∫₀ˣ ((a + bt)² + e) dt, a component each, inverted by bisection."""

    def __init__(self, rng: Draw) -> None:
        self.a, self.b, self.c = rng.normal(size=(3, 3))
        self.e = 0.3 + rng.uniform(size=3)

    def value(self, x: HostArray) -> HostArray:
        """The integral, multiplied out."""
        linear = (self.a**2 + self.e) * x
        return linear + self.a * self.b * x**2 + self.b**2 * x**3 / 3

    def forward(self, x: HostArray) -> HostArray:
        """y."""
        return self.value(x) + self.c

    def inverse(self, y: HostArray) -> HostArray:
        """The root lies within |y − c|/e of 0."""
        wanted = y - self.c
        reach = np.abs(wanted) / self.e
        low, high = -reach, reach
        for _ in range(120):
            middle = (low + high) / 2
            below = self.value(middle) < wanted
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return (low + high) / 2

    def log_det(self, x: HostArray) -> HostArray:
        """The integrand's logarithm."""
        return np.log((self.a + self.b * x) ** 2 + self.e).sum(1)


class Pieces:
    """A piecewise linear function of the whole line, the same for both components, with five knots."""

    def __init__(self, rng: Draw) -> None:
        self.slopes = np.exp(0.8 * rng.normal(size=6))
        self.knots = np.cumsum(0.3 + rng.uniform(size=5)) - 2
        self.heights = 0.4 + np.concatenate([[0], np.cumsum(self.slopes[1:5] * np.diff(self.knots))])

    def forward(self, x: HostArray) -> HostArray:
        """From the knot below, or from the first one."""
        k = np.searchsorted(self.knots, x)
        j = np.maximum(k - 1, 0)
        return self.heights[j] + self.slopes[k] * (x - self.knots[j])

    def inverse(self, y: HostArray) -> HostArray:
        """The same, with knots and heights exchanged."""
        k = np.searchsorted(self.heights, y)
        j = np.maximum(k - 1, 0)
        return self.knots[j] + (y - self.heights[j]) / self.slopes[k]

    def log_det(self, x: HostArray) -> HostArray:
        """The slopes' logarithms."""
        return np.log(self.slopes[np.searchsorted(self.knots, x)]).sum(1)


def mixture_parameters(rng: Draw) -> dict[str, HostArray]:
    """Of three logistic distributions for each of two components."""
    weights = np.exp(rng.normal(size=(2, 3)))
    return {"weights": weights / weights.sum(1, keepdims=True), "means": 2 * rng.normal(size=(2, 3)),
            "scales": np.exp(0.3 * rng.normal(size=(2, 3)))}


def mixture(p: dict[str, HostArray], x: HostArray) -> tuple[HostArray, HostArray, HostArray]:
    """The distribution function, its complement and the density."""
    z = (x[:, :, None] - p["means"]) / p["scales"]
    lower, upper = sigmoid(z), sigmoid(-z)
    below, above = (p["weights"] * lower).sum(2), (p["weights"] * upper).sum(2)
    return below, above, (p["weights"] * lower * upper / p["scales"]).sum(2)


def mixture_forward(p: dict[str, HostArray], x: HostArray) -> HostArray:
    """The logit of the distribution function."""
    below, above, _ = mixture(p, x)
    return np.log(below) - np.log(above)


def mixture_inverse(p: dict[str, HostArray], y: HostArray) -> HostArray:
    """Bisection between the quantiles of the three."""
    ends = p["means"] + p["scales"] * y[:, :, None]
    low, high = ends.min(2), ends.max(2)
    for _ in range(80):
        middle = 0.5 * (low + high)
        beyond = mixture_forward(p, middle) > y
        high = np.where(beyond, middle, high)
        low = np.where(beyond, low, middle)
    return 0.5 * (low + high)


def mixture_log_det(p: dict[str, HostArray], x: HostArray) -> HostArray:
    """log f − log F − log(1 − F)."""
    below, above, density = mixture(p, x)
    return (np.log(density) - np.log(below) - np.log(above)).sum(1)


def turning_parameters(rng: Draw) -> dict[str, HostArray]:
    """Two angles that depend on the third component, and three scales."""
    return {"a": rng.normal(size=2), "b": rng.normal(size=2), "s": 0.5 * rng.normal(size=3)}


def turned(u: HostArray, v: HostArray, angle: HostArray) -> tuple[HostArray, HostArray]:
    """The plane (u, v), turned."""
    return np.cos(angle) * u - np.sin(angle) * v, np.sin(angle) * u + np.cos(angle) * v


def turning_forward(p: dict[str, HostArray], x: HostArray) -> HostArray:
    """(x₀, x₁) is turned by an angle that x₂ makes, (x₁, x₂) by one that x₀ makes; then all are scaled."""
    u, v, w = x.T
    u, v = turned(u, v, p["a"][0] * np.tanh(w) + p["b"][0])
    v, w = turned(v, w, p["a"][1] * np.tanh(u) + p["b"][1])
    return np.stack([u, v, w], 1) * np.exp(p["s"])


def turning_inverse(p: dict[str, HostArray], y: HostArray) -> HostArray:
    """Back, the other way round."""
    u, v, w = (y * np.exp(-p["s"])).T
    v, w = turned(v, w, -(p["a"][1] * np.tanh(u) + p["b"][1]))
    u, v = turned(u, v, -(p["a"][0] * np.tanh(w) + p["b"][0]))
    return np.stack([u, v, w], 1)


def turning_log_det(p: dict[str, HostArray], x: HostArray) -> HostArray:
    """That of the scales."""
    return np.full(len(x), p["s"].sum())


class Thinned:
    """y = x + ½ Bᵀ sin(Ax + c) with ‖A‖ = ‖B‖ = 1; its log-det by the series, each next term kept with probability ⅔."""

    lipschitz, stay = 0.5, 2 / 3

    def __init__(self, rng: Draw) -> None:
        self.a, self.b, self.c = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.normal(size=4)
        self.a /= np.linalg.norm(self.a, 2)
        self.b /= np.linalg.norm(self.b, 2)

    def g(self, x: HostArray) -> HostArray:
        """The branch."""
        return 0.5 * np.sin(x @ self.a.T + self.c) @ self.b

    def forward(self, x: HostArray) -> HostArray:
        """y."""
        return x + self.g(x)

    def inverse(self, y: HostArray) -> HostArray:
        """Banach's iteration."""
        x = y
        for _ in range(70):
            x = y - self.g(x)
        return x

    def log_det(self, x: HostArray) -> HostArray:
        """An estimate with a normal probe for each row, and a length for each."""
        lengths = np.random.geometric(1 - self.stay, size=len(x))  # noqa: NPY002  as packages draw
        v = np.random.standard_normal(x.shape)  # noqa: NPY002
        slope = 0.5 * np.cos(x @ self.a.T + self.c)
        w, total, sign = v, np.zeros(len(x)), 1.0
        for k in range(1, lengths.max() + 1):
            w = (slope * (w @ self.a.T)) @ self.b
            term = sign * (w * v).sum(1) / k
            total = total + np.where(lengths >= k, term / self.stay ** (k - 1), 0)
            sign = -sign
        return total


def of_class(kind: Callable[[Draw], Any], shape: tuple[int, ...], seed: int, **fields: Any) -> Subject:
    """The subject of an instance with forward, inverse and log_det."""
    net = kind(np.random.default_rng(seed))
    return Subject(name=f"{kind.__name__}-{seed}", event_shape=shape, forward=net.forward, inverse=net.inverse, log_det=net.log_det,
                   framework="numpy", **fields)


def leapfrog(seed: int) -> Subject:
    """Two steps; another number of components is refused."""
    subject = of_class(Leapfrog, (4,), seed)
    return replace(subject, forward=lambda x: subject.forward(x.reshape(len(x), 4)))


def cubic(seed: int) -> Subject:
    """Three polynomials."""
    return of_class(Cubic, (3,), seed)


def pieces(seed: int) -> Subject:
    """Two piecewise linear functions."""
    return of_class(Pieces, (2,), seed)


def thinned(seed: int) -> Subject:
    """A residual block with an unbiased estimate."""
    net = Thinned(np.random.default_rng(seed))
    return Subject(name=f"Thinned-{seed}", event_shape=(3,), forward=net.forward, inverse=net.inverse, log_det=net.log_det, residual=net.g,
                   lipschitz=net.lipschitz * (1 + 1e-9), log_det_is="unbiased", framework="numpy")


def logistic(seed: int) -> Subject:
    """Two mixtures."""
    p = mixture_parameters(np.random.default_rng(seed))
    return Subject(name=f"mixture-{seed}", event_shape=(2,), forward=lambda x: mixture_forward(p, x),
                   inverse=lambda y: mixture_inverse(p, y), log_det=lambda x: mixture_log_det(p, x), framework="numpy")


def turning(seed: int) -> Subject:
    """Two rotations."""
    p = turning_parameters(np.random.default_rng(seed))
    return Subject(name=f"turning-{seed}", event_shape=(3,), forward=lambda x: turning_forward(p, x),
                   inverse=lambda y: turning_inverse(p, y), log_det=lambda x: turning_log_det(p, x), framework="numpy")
