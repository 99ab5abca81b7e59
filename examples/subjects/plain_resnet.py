"""The negative control: an unnormalised residual network with the claims of an invertible one. It must fail."""

from __future__ import annotations

import torch
from _findings import UNNORMALISED
from _training import seeded
from torch import nn

from iresnet_verify import Subject


def subject() -> Subject:
    g = seeded(lambda: nn.Sequential(nn.Linear(8, 64), nn.ELU(), nn.Linear(64, 8)), noise=0.3)

    def inverse(y: torch.Tensor) -> torch.Tensor:
        x = y
        for _ in range(100):
            x = y - g(x)
        return x

    def log_det(x: torch.Tensor) -> torch.Tensor:
        """Ten terms of Σ (−1)^(k+1) tr(Jᵏ)/k."""
        with torch.enable_grad():
            x = x.detach().requires_grad_() if not x.requires_grad else x
            y = g(x)
            J = torch.stack([torch.autograd.grad(y[:, i].sum(), x, create_graph=True)[0] for i in range(8)], 1)
        power, total = J, 0.0
        for k in range(1, 11):
            total = total - (-1) ** k * power.diagonal(dim1=1, dim2=2).sum(1) / k
            power = power @ J
        return total

    return Subject(
        name="plain residual network, d=8", event_shape=(8,), forward=lambda x: x + g(x), inverse=inverse,
        log_det=log_det, residual=g, lipschitz=0.9, module=g, expected_failures=UNNORMALISED,
    )
