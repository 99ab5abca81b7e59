"""Correct maps of JAX arrays, in which slips are made: functions of a dictionary of parameters. JAX is imported when one is built."""

from __future__ import annotations

from typing import Any

import numpy as np

from iresnet_verify.subject.subject import Subject

Array = Any
Parameters = dict[str, Any]


def parameters(seed: int) -> Parameters:
    """Of a block with one hidden layer of six, and of a diagonal map after it."""
    import jax.numpy as jnp

    rng = np.random.default_rng(seed)
    shapes = {"first": (6, 3), "last": (3, 6), "bias": (6,), "scale": (3,), "shift": (3,)}
    values = {name: rng.normal(size=shape) * (0.4 if name == "scale" else 1) for name, shape in shapes.items()}
    return {name: jnp.asarray(value, dtype=jnp.float32) for name, value in values.items()}


def bounded(weight: Array) -> Array:
    """The weight divided by √(‖·‖₁‖·‖∞), which is no less than its norm, times √.6."""
    import jax.numpy as jnp

    rows, columns = jnp.abs(weight).sum(1).max(), jnp.abs(weight).sum(0).max()
    return weight * jnp.sqrt(0.6 / (rows * columns))


def branch(p: Parameters, x: Array) -> Array:
    """g(x) = W₂ tanh(W₁x + b)."""
    import jax.numpy as jnp

    return jnp.tanh(x @ bounded(p["first"]).T + p["bias"]) @ bounded(p["last"]).T


def jacobian(p: Parameters, x: Array) -> Array:
    """That of g, by hand."""
    import jax.numpy as jnp

    slope = 1 - jnp.tanh(x @ bounded(p["first"]).T + p["bias"]) ** 2
    return bounded(p["last"]) @ (slope[:, :, None] * bounded(p["first"]))


def forward(p: Parameters, x: Array) -> Array:
    """A residual block, then a scale and a shift."""
    import jax.numpy as jnp

    return (x + branch(p, x)) * jnp.exp(p["scale"]) + p["shift"]


def inverse(p: Parameters, y: Array) -> Array:
    """The shift, the scale, and the fixed point."""
    import jax.numpy as jnp

    x = z = (y - p["shift"]) * jnp.exp(-p["scale"])
    for _ in range(60):
        x = z - branch(p, x)
    return x


def log_det(p: Parameters, x: Array) -> Array:
    """Both."""
    import jax.numpy as jnp

    return p["scale"].sum() + jnp.linalg.slogdet(jnp.eye(3, dtype=x.dtype) + jacobian(p, x))[1]


def of_parameters(p: Parameters) -> Subject:
    """The subject with these."""
    return Subject(name="traced", event_shape=(3,), forward=lambda x: forward(p, x), inverse=lambda y: inverse(p, y),
                   log_det=lambda x: log_det(p, x), framework="jax", dtype="float32", from_parameters=of_parameters, parameters=p)


def residual(seed: int) -> Subject:
    """A block and a diagonal map."""
    return of_parameters(parameters(seed))
