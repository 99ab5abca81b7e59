"""The reference as a torch module, with every promise a subject can make: trained by autograd, renormalised by refresh."""

from __future__ import annotations

import math
from typing import Any

import torch

import iresnet_ref as ir
from iresnet_verify import Subject

L, C = 0.9, 0.9**0.5 * (1 - 2**-40)


class Block(torch.nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.branch = ir.mlp((8, 16, 8), activation="elu", lipschitz=L, seed=1, like=torch.zeros(1, dtype=dtype))
        parameters = {name.replace(".", "_"): p for name, p in self.branch.parameters().items()}
        self.weights = torch.nn.ParameterDict({name: torch.nn.Parameter(p) for name, p in parameters.items()})

    def block(self) -> ir.ResidualBlock:
        now = {name: self.weights[name.replace(".", "_")] for name in self.branch.parameters()}
        return ir.ResidualBlock(self.branch.with_parameters(now))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.block()(x), ir.logdet(self.block(), x, method="exact").value

    @torch.no_grad()
    def refresh(self) -> None:
        for name, p in self.weights.items():
            if name.endswith("weight"):
                p.copy_(ir.spectral.normalise(p.detach(), C))


def subject(dtype: str | None = None, device: str | None = None) -> Subject:
    net, rtol = Block(getattr(torch, dtype or "float64")).to(device or "cpu"), {"float32": 1e-5}.get(dtype or "", 1e-12)

    def inverse(y: Any) -> Any:
        return ir.invert(net.block(), y, rtol=rtol).x

    def log_det(x: Any) -> Any:
        return net(x)[1]

    def base_log_prob(z: Any) -> Any:
        return -0.5 * (z * z).sum(-1) - 4 * math.log(2 * math.pi)

    return Subject(
        name="iresnet-ref as a torch module, exact", event_shape=(8,), forward=net, inverse=inverse,
        log_det=log_det, inverse_log_det=lambda y: -log_det(inverse(y)), residual=lambda x: net.block().branch(x),
        lipschitz=L, lipschitz_holds="after-refresh", refresh=net.refresh, inverse_tolerance=rtol * 4 / (1 - L),
        log_prob=lambda x: base_log_prob(net(x)[0]) + log_det(x), base_log_prob=base_log_prob,
        sample=lambda n: inverse(torch.randn(n, 8, dtype=net.weights["0_weight"].dtype)), module=net, fresh=subject,
        dtype=dtype or "float64", device=device or "cpu",
    )
