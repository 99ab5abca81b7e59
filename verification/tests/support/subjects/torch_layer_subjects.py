"""The modules of `iresnet_backends.torch_layers` as subjects of the audit: one of every kind, away from where it was initialised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import iresnet_ref as ir
from iresnet_backends import torch_layers
from iresnet_ref import bijections
from iresnet_verify import Subject

L, TERMS = 0.5, 48
"""A series of so many terms is off by 1e-16 at this L: its value and its gradient are right to rounding."""


def noisy(module: Any) -> Any:
    """The module with normal noise of .1 on its parameters."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return module


def actnorm(event_shape: tuple[int, ...], seed: int = 0) -> bijections.ActNorm:
    """An ActNorm that has seen a batch."""
    batch = np.random.default_rng(seed).normal(1.0, 2.0, size=(9, *event_shape))
    return bijections.ActNorm.uninitialised(event_shape).initialise(batch)


def block(branch: ir.Branch, logdet: Any = "auto") -> Any:
    """A block with Lip(g) ≤ L whose inverse stops where its rounding floor is not in the way."""
    return noisy(torch_layers.ResidualBlock(branch, lipschitz=L, options=ir.Options(logdet=logdet, rtol=1e-12)))


def flow(*steps: Any, **options: Any) -> Any:
    """A flow of these steps."""
    return noisy(torch_layers.Flow(ir.Flow(list(steps)), **options))


def planar(**options: Any) -> Any:
    """A flow in the plane."""
    a, b = (ir.ResidualBlock(ir.mlp((2, 8, 2), seed=seed)) for seed in (0, 1))
    return flow(actnorm((2,)), a, bijections.PLULinear.rotation((2,)), bijections.Permutation((2,), (1, 0)), b, **options)


def images(**options: Any) -> Any:
    """A flow of images with two scales."""
    first, second = (ir.ResidualBlock(ir.convnet(shape, channels=3, kernels=(3, 1))) for shape in ((4, 3, 3), (2, 3, 3)))
    return flow(bijections.Squeeze((1, 6, 6)), first, bijections.FactorOut((4, 3, 3), [actnorm((2, 3, 3)), second]), **options)


MODULES: dict[str, Callable[[], Any]] = {
    "exact": lambda: block(ir.mlp((3, 8, 8, 3))),
    "roulette": lambda: block(ir.mlp((3, 8, 8, 3)), ir.Roulette()),
    "series": lambda: block(ir.mlp((3, 8, 8, 3)), ir.Series(TERMS)),
    "convolutional": lambda: block(ir.convnet((2, 3, 3), channels=3, kernels=(3, 1), activation="elu")),
    "densely connected": lambda: block(ir.densenet(3, depth=2, growth=4)),
    "actnorm": lambda: noisy(torch_layers.layer(actnorm((3,)))),
    "linear": lambda: noisy(torch_layers.layer(bijections.PLULinear.rotation((3,), seed=1))),
    "planar flow": planar,
    "rebuilt flow": lambda: planar(rebuild=True),
    "flow of images": images,
}
LOG_DET_IS = {"roulette": "unbiased", "series": "unbiased"}


def subject(name: str, dtype: str = "float64", device: str = "cpu") -> Subject:
    """One of MODULES as a subject with every field that it can have."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = MODULES[name]().to(device=device, dtype=getattr(torch, dtype))
    more: dict[str, Any] = {}
    if isinstance(module, torch_layers.ResidualBlock):
        more = {"lipschitz": L, "lipschitz_holds": "always", "residual": lambda x: module(x, options=ir.Options(logdet=ir.Exact()))[0] - x}
    if isinstance(module, torch_layers.Flow):
        more = {"log_prob": module.log_prob, "sample": lambda n: module.sample(n).detach(), "base_log_prob": module.base_log_prob}
    forward, inverse = module, module.inverse
    if name == "flow of images":  # its z is a vector; a subject's y has the shape of x
        def forward(x: Any) -> Any:
            z, log_det = module(x)
            return z.reshape(x.shape), log_det

        def inverse(z: Any) -> Any:
            return module.inverse(z.flatten(1))

        more["base_log_prob"] = lambda z: module.base_log_prob(z.flatten(1))

    def fresh(dtype: str | None = None, device: str | None = None) -> Subject:
        return subject(name, dtype or "float64", device or "cpu")

    return Subject(
        name=f"torch layer: {name}", event_shape=module.event_shape, forward=forward, inverse=inverse, module=module, fresh=fresh,
        log_det_is=LOG_DET_IS.get(name, "exact"), dtype=dtype, device=device, **more,
    )
