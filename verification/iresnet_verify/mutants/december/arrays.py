"""Mistakes that issue trackers report, remade in NumPy and JAX. Each address is beside the mutant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from iresnet_verify.mutants.december.maps import Draw
from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.mutants.unseen.trackers import BACK, VALUE
from iresnet_verify.subject.subject import HostArray, Subject


class Relaxed:
    """y = x + ½(tanh(Wx) − x), a step of the drift tanh(Wx) − x; its log-det has the drift's Jacobian without the −I."""

    shape: tuple[int, ...] = (3,)

    def __init__(self, rng: Draw) -> None:
        self.w = rng.normal(size=(3, 3))
        self.w *= 0.8 / np.linalg.norm(self.w, 2)

    def forward(self, x: HostArray) -> HostArray:
        """y."""
        return x + 0.5 * (np.tanh(x @ self.w.T) - x)

    def log_det(self, x: HostArray) -> HostArray:
        """log det(I + ½J), J the Jacobian of tanh(Wx)."""
        slope = 1 - np.tanh(x @ self.w.T) ** 2
        return np.linalg.slogdet(np.eye(3) + 0.5 * slope[:, :, None] * self.w)[1]


class Correlations:
    """The three numbers below the diagonal of a correlation matrix's Cholesky factor, of any three."""

    shape = (3,)

    def __init__(self, rng: Draw) -> None:
        self.scale = np.exp(0.2 * rng.normal(size=3))

    def forward(self, x: HostArray) -> HostArray:
        """(z₀, z₁, z₂·√(1 − z₁²)), z = tanh."""
        z = np.tanh(self.scale * x)
        return np.stack([z[:, 0], z[:, 1], z[:, 2] * np.sqrt(1 - z[:, 1] ** 2)], 1)

    def log_det(self, x: HostArray) -> HostArray:
        """The squashings alone: the root's logarithm is not there."""
        return (np.log(self.scale) + np.log1p(-np.tanh(self.scale * x) ** 2)).sum(1)


class Shells:
    """y = x·asinh(r)/r, r = ‖x‖, in four dimensions; the log-det counts one direction across the radius for three."""

    shape = (4,)

    def __init__(self, rng: Draw) -> None:
        self.scale = float(np.exp(0.2 * rng.normal()))

    def forward(self, x: HostArray) -> HostArray:
        """y; 0 stays where it is."""
        r = self.scale * np.linalg.norm(x, axis=1, keepdims=True)
        return x * np.arcsinh(r) / np.where(r > 0, r, 1)

    def inverse(self, y: HostArray) -> HostArray:
        """x = y·sinh(q)/q, both times the scale."""
        q = self.scale * np.linalg.norm(y, axis=1, keepdims=True)
        return y * np.sinh(q) / np.where(q > 0, q, 1)

    def log_det(self, x: HostArray) -> HostArray:
        """(d − 3)·log(asinh(r)/r) + log asinh′(r)."""
        r = np.maximum(self.scale * np.linalg.norm(x, axis=1), 1e-12)
        return (x.shape[1] - 3) * np.log(np.arcsinh(r) / r) - 0.5 * np.log1p(r**2)


class Standardised:
    """Batch normalisation by eight stored events; the map divides by n, the log-det by n − 1."""

    shape = (3,)

    def __init__(self, rng: Draw) -> None:
        self.seen = rng.normal(size=(8, 3)) * np.array([0.5, 1.0, 2.0])

    def forward(self, x: HostArray) -> HostArray:
        """(x − mean)/√variance."""
        return (x - self.seen.mean(0)) / np.sqrt(self.seen.var(0))

    def inverse(self, y: HostArray) -> HostArray:
        """x."""
        return y * np.sqrt(self.seen.var(0)) + self.seen.mean(0)

    def log_det(self, x: HostArray) -> HostArray:
        """Minus the halves of the logarithms of the variances."""
        return np.full(len(x), -0.5 * np.log(self.seen.var(0, ddof=1)).sum())


class SmallForgotten:
    """(x − m)/√(v + 10⁻³); the inverse multiplies by √v."""

    shape = (3,)

    def __init__(self, rng: Draw) -> None:
        self.mean, self.variance = rng.normal(size=3), 0.02 + 0.1 * rng.uniform(size=3)

    def forward(self, x: HostArray) -> HostArray:
        """y."""
        return (x - self.mean) / np.sqrt(self.variance + 1e-3)

    def inverse(self, y: HostArray) -> HostArray:
        """x."""
        return y * np.sqrt(self.variance) + self.mean

    def log_det(self, x: HostArray) -> HostArray:
        """With the small number."""
        return np.full(len(x), -0.5 * np.log(self.variance + 1e-3).sum())


class Positive:
    """log(1 + eˣ), as it is written."""

    shape = (2,)

    def __init__(self, rng: Draw) -> None:
        self.shift = rng.normal(size=2)

    def forward(self, x: HostArray) -> HostArray:
        """y."""
        with np.errstate(over="ignore"):
            return np.log(1 + np.exp(x + self.shift))


def numpy_map(kind: Callable[[Draw], Any], **fields: Any) -> Factory:
    """The subject of what the map has."""
    def make(seed: int) -> Subject:
        net = kind(np.random.default_rng(seed))
        given = {name: getattr(net, name) for name in ("inverse", "log_det") if hasattr(net, name)}
        return Subject(name=f"{type(net).__name__}-{seed}", event_shape=net.shape, forward=net.forward, framework="numpy",
                       **given, **fields)

    return make


def rooted(seed: int) -> Subject:
    """y solves y + tanh(Wy)/2 = x + b in JAX; the backward pass of the solver gives its parameters no gradient."""
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(seed)
    w = rng.normal(size=(3, 3))
    first = {"w": jnp.asarray(w / np.linalg.norm(w, 2), dtype=jnp.float32), "b": jnp.asarray(rng.normal(size=3), dtype=jnp.float32)}

    def function(p: Any, y: Any) -> Any:
        return y + 0.5 * jnp.tanh(y @ p["w"].T) - p["b"]

    def iterated(p: Any, x: Any) -> Any:
        y = x
        for _ in range(24):
            y = x + p["b"] - 0.5 * jnp.tanh(y @ p["w"].T)
        return y

    def with_residuals(p: Any, x: Any) -> Any:
        y = iterated(p, x)
        return y, (p, y)

    def backwards(kept: Any, grad: Any) -> Any:
        p, y = kept
        slope = 0.5 * (1 - jnp.tanh(y @ p["w"].T) ** 2)
        jacobian = jnp.eye(3, dtype=y.dtype) + slope[:, :, None] * p["w"]
        found = jnp.linalg.solve(jnp.swapaxes(jacobian, 1, 2), grad[:, :, None])[:, :, 0]
        return jax.tree.map(jnp.zeros_like, p), found

    solved: Any = jax.custom_vjp(iterated)
    solved.defvjp(with_residuals, backwards)

    def subject_of(p: Any) -> Subject:
        return Subject(name="rooted", event_shape=(3,), forward=lambda x: solved(p, x),
                       inverse=lambda y: function(p, y), framework="jax", dtype="float32", from_parameters=subject_of,
                       parameters=p)

    return subject_of(first)


MUTANTS = table("december", {
    # rtqichen/torchdiffeq#67
    "a drift without its minus x in the log-det": (VALUE, numpy_map(Relaxed)),
    # tpapp/TransformVariables.jl#103
    "a root left out of the log-det of correlations": (VALUE, numpy_map(Correlations)),
    # nicola-decao/power_spherical#6
    "d less three for d less one": (VALUE, numpy_map(Shells)),
    # pytorch/pytorch#3122
    "two estimates of one variance": (VALUE, numpy_map(Standardised)),
    # chainer/chainer#2214
    "the small number of a normalisation forgotten in the inverse": (BACK, numpy_map(SmallForgotten)),
    # GPflow/GPflow#302
    "a softplus that overflows": ("hygiene.forward-finite", numpy_map(Positive, inputs=lambda n, rng: rng.normal(0, 900, (n, 2)))),
    # google/jaxopt#141
    "a root whose parameters get no gradient": ("gradient.forward", rooted),
})
