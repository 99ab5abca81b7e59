"""The same residual block four times, on identical weights: the reference on NumPy and torch, normflows, plain torch.

Agreement is asserted before anything is timed; a benchmark of networks that differ would measure nothing.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

import iresnet_backends
import iresnet_ref as ir

torch.set_num_threads(1)
SHAPES = {
    "d=2, h=64, 3 layers": ((2, 64, 64, 2), 256),
    "d=64, h=256, 3 layers": ((64, 256, 256, 64), 256),
    "d=784, h=64, 2 layers": ((784, 64, 784), 64),
}
TRUE_ERROR = 1e-7
"""Every inverse is iterated until its largest error is below this; normflows stops near 1.6e-9 at d = 64, whatever it is asked."""


@dataclass(frozen=True)
class Contenders:
    """One shape: blocks, inputs, outputs, in float64."""

    numpy: ir.ResidualBlock
    torch: ir.ResidualBlock
    normflows: Any
    plain: torch.nn.Sequential
    x: np.ndarray[Any, Any]
    y: np.ndarray[Any, Any]

    @property
    def tx(self) -> torch.Tensor:
        """The inputs as a tensor."""
        return torch.from_numpy(self.x)


class LipSwish(torch.nn.Module):
    """z·σ(z)/1.1, as anybody would write it."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return the value."""
        return z * torch.sigmoid(z) / 1.1


@cache
def contenders(shape: str) -> Contenders:
    """Build the four blocks and assert that they agree to rounding."""
    sizes, batch = SHAPES[shape]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # normflows' imports
        import normflows

    g = ir.mlp(sizes, activation="lipswish", lipschitz=0.9, seed=3)
    be = iresnet_backends.get("torch:cpu")
    parameters = {k: be.asarray(v) for k, v in g.parameters().items()}
    modules: list[torch.nn.Module] = []
    weights = [(parameters[f"{2 * i}.weight"], parameters[f"{2 * i}.bias"]) for i in range(len(sizes) - 1)]
    for i, (w, b) in enumerate(weights):
        linear = torch.nn.Linear(w.shape[1], w.shape[0], dtype=torch.float64)
        linear.weight.data, linear.bias.data = w.clone(), b.clone()
        modules += [LipSwish(), linear] if i else [linear]
    plain = torch.nn.Sequential(*modules).requires_grad_(False)
    # normflows puts an activation before every linear layer; the first one is taken out, and β = softplus⁻¹(1)
    net = normflows.nets.LipschitzMLP(list(sizes), lipschitz_const=0.999999).double()
    net.net = net.net[1:]
    linears = [m for m in net.modules() if hasattr(m, "compute_weight")]
    for m, (w, b) in zip(linears, weights, strict=True):
        m.weight.data, m.bias.data = w.clone(), b.clone()
        m.scale.data = torch.ones_like(m.scale)  # below its bound nothing is divided
    for m in net.modules():
        if hasattr(m, "beta") and isinstance(m.beta, torch.nn.Parameter):
            m.beta.data = torch.full_like(m.beta, math.log(math.e - 1), dtype=torch.float64)
    block = normflows.flows.Residual(net, reverse=False).double().eval()
    x = np.random.default_rng(0).standard_normal((batch, sizes[0]))
    numpy, on_torch = ir.ResidualBlock(g), ir.ResidualBlock(g.with_parameters(parameters))
    y = numpy(x)
    size = 1e3 * sum(sizes) * 2.0**-53 * (1 + np.abs(y).max())
    for name, other in {
        "torch": on_torch(torch.from_numpy(x)),
        "plain": torch.from_numpy(x) + plain(torch.from_numpy(x)),
        "normflows": torch.from_numpy(x) + net(torch.from_numpy(x)),
    }.items():
        apart = float(np.abs(other.detach().numpy() - y).max())
        if not apart <= size:
            raise AssertionError(
                f"{shape}: expected {name} to agree with the reference on identical weights to {size:.1e}, got {apart:.1e}"
            )
    return Contenders(numpy, on_torch, block, plain, x, y)
