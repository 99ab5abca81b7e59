"""The layers of `iresnet_backends.jax_layers` as subjects of the audit: one of every kind, away from where it was initialised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import iresnet_ref as ir
from iresnet_backends import jax_layers
from iresnet_ref import bijections
from iresnet_verify import Subject

L, TERMS = 0.5, 48
"""A series of so many terms is off by 1e-16 at this L: its value and its gradient are right to rounding."""


def noisy(layer: Any, seed: int = 0) -> Any:
    """The layer with normal noise of .1 on its parameters."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + 0.1 * jnp.asarray(rng.standard_normal(p.shape), dtype=p.dtype), layer)


def actnorm(event_shape: tuple[int, ...], seed: int = 0) -> bijections.ActNorm:
    """An ActNorm that has seen a batch."""
    batch = np.random.default_rng(seed).normal(1.0, 2.0, size=(9, *event_shape))
    return bijections.ActNorm.uninitialised(event_shape).initialise(batch)


def block(branch: ir.Branch, logdet: Any = "auto") -> Any:
    """A block with Lip(g) ≤ L whose inverse stops where its rounding floor is not in the way."""
    return noisy(jax_layers.ResidualBlock(branch, L, ir.Options(logdet=logdet, rtol=1e-12)))


def planar() -> Any:
    """A flow in the plane."""
    a, b = (ir.ResidualBlock(ir.mlp((2, 8, 2), seed=seed)) for seed in (0, 1))
    return noisy(jax_layers.Flow(ir.Flow([actnorm((2,)), a, bijections.PLULinear.rotation((2,)), bijections.Permutation((2,), (1, 0)), b])))


def images() -> Any:
    """A flow of images with two scales."""
    first, second = (ir.ResidualBlock(ir.convnet(shape, channels=3, kernels=(3, 1))) for shape in ((4, 3, 3), (2, 3, 3)))
    steps = [bijections.Squeeze((1, 6, 6)), first, bijections.FactorOut((4, 3, 3), [actnorm((2, 3, 3)), second])]
    return noisy(jax_layers.Flow(ir.Flow(steps)))


LAYERS: dict[str, Callable[[], Any]] = {
    "exact": lambda: block(ir.mlp((3, 8, 8, 3))),
    "roulette": lambda: block(ir.mlp((3, 8, 8, 3)), ir.Roulette()),
    "series": lambda: block(ir.mlp((3, 8, 8, 3)), ir.Series(TERMS)),
    "convolutional": lambda: block(ir.convnet((2, 3, 3), channels=3, kernels=(3, 1), activation="elu")),
    "densely connected": lambda: block(ir.densenet(3, depth=2, growth=4)),
    "actnorm": lambda: noisy(jax_layers.Layer(actnorm((3,)))),
    "linear": lambda: noisy(jax_layers.Layer(bijections.PLULinear.rotation((3,), seed=1))),
    "planar flow": planar,
    "flow of images": images,
}
LOG_DET_IS = {"roulette": "unbiased", "series": "unbiased"}


def subject(name: str) -> Subject:
    """One of LAYERS as a subject with every field that it can have. It needs 64 bits of JAX."""
    return _subject(name, LAYERS[name]())


def _subject(name: str, layer: Any) -> Subject:
    more: dict[str, Any] = {}
    random = name in LOG_DET_IS
    if isinstance(layer, jax_layers.ResidualBlock):
        more = {"lipschitz": L, "lipschitz_holds": "always", "residual": lambda x: layer(x, options=ir.Options(logdet=ir.Exact()))[0] - x}
    if isinstance(layer, jax_layers.Flow):
        more = {"log_prob": layer.log_prob, "sample": layer.sample, "base_log_prob": lambda y: layer.base_log_prob(as_z(y))}

    def as_z(y: Any) -> Any:
        return y.reshape(y.shape[0], *layer.steps.out_shape)

    def forward(x: Any) -> Any:
        z, log_det = layer(x)
        return z.reshape(x.shape), log_det  # the z of images is a vector; a subject's y has the shape of x

    def inverse(y: Any) -> Any:
        return layer.inverse(as_z(y))

    def drawn_forward(x: Any, seed: int) -> Any:
        return layer(x, key=jax.random.key(seed))

    def drawn_inverse(y: Any, seed: int) -> Any:
        return layer.inverse(y, key=jax.random.key(seed))

    return Subject(
        name=f"JAX layer: {name}", event_shape=layer.event_shape, forward=drawn_forward if random else forward,
        inverse=drawn_inverse if random else inverse, framework="jax", dtype="float64", log_det_is=LOG_DET_IS.get(name, "exact"),
        from_parameters=lambda parameters: _subject(name, parameters), parameters=layer, **more,
    )  # fmt: skip
