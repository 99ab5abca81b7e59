"""Residual branches with Lip(g) ≤ .9 on identical weights: the reference's, and the same function as a module of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import iresnet_backends
import iresnet_ref as ir

DENSE = {"MLP d = 2": ((2, 128, 128, 2), 256), "MLP d = 64": ((64, 128, 128, 64), 256)}
IMAGES = {"conv 3×16×16, 64 channels": ((3, 64, 64, 3), 16)}
SIDE, KERNELS = 16, (3, 1, 3)


@dataclass(frozen=True)
class Network:
    """A branch, a batch of inputs, and both for torch."""

    numpy: ir.ResidualBlock
    torch: ir.ResidualBlock
    module: torch.nn.Sequential
    x: np.ndarray[Any, Any]

    @property
    def tx(self) -> torch.Tensor:
        """The inputs as a tensor."""
        return torch.from_numpy(self.x)


def network(case: str, dtype: str = "float32") -> Network:
    """Build one of the cases, ELU between its layers."""
    (sizes, batch), like = (DENSE | IMAGES)[case], np.zeros(1, dtype=dtype)
    g = (
        ir.mlp(sizes, activation="elu", lipschitz=0.9, seed=1, like=like)
        if case in DENSE
        else ir.convnet((sizes[0], SIDE, SIDE), channels=sizes[1:-1], kernels=KERNELS, activation="elu", lipschitz=0.9, seed=1, like=like)
    )
    x = np.random.default_rng(0).standard_normal((batch, *g.event_shape)).astype(dtype)
    return of(g, x)


class LipSwish(torch.nn.Module):
    """z σ(z)/1.1."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return the value."""
        return torch.nn.functional.silu(z) / 1.1


def of(g: ir.Branch, x: np.ndarray[Any, Any]) -> Network:
    """Return a dense or convolutional branch over ELU or LipSwish for everybody; that all agree to rounding is asserted."""
    backend = iresnet_backends.get("torch:cpu", dtype=str(x.dtype))
    on_torch = g.with_parameters({key: backend.asarray(p) for key, p in g.parameters().items()})
    modules: list[torch.nn.Module] = []
    activation = {"elu": torch.nn.ELU, "lipswish": LipSwish}[g.layers[1].name]
    for layer in g.layers[::2]:
        w, b = (torch.from_numpy(np.asarray(p)) for p in layer.parameters.values())
        outputs, inputs = w.shape[:2]
        linear: Any = (
            torch.nn.Linear(inputs, outputs) if w.ndim == 2 else torch.nn.Conv2d(inputs, outputs, w.shape[2], padding=w.shape[2] // 2)
        )
        linear.weight.data, linear.bias.data = w.clone(), b.clone()
        modules += [linear, activation()]
    module = torch.nn.Sequential(*modules[:-1]).requires_grad_(False)
    network = Network(ir.ResidualBlock(g), ir.ResidualBlock(on_torch), module, x)
    alpha, beta = g.rounding
    allowed = 4.0 * (alpha + beta * float(np.abs(x).max()) * x[0].size ** 0.5)  # two evaluations, each to its proved error
    apart = float((module(network.tx) - on_torch(network.tx)).abs().max())
    if not apart <= allowed:
        raise AssertionError(f"expected the module to agree with the branch on identical weights to {allowed:.1e}, got {apart:.1e}")
    return network
