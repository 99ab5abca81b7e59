"""Correct small residual networks in PyTorch, whose every constant is known: what the mutants of maps start from.

`mlp(...)`: g = W₂ tanh(W₁x + b₁) with every ‖W‖₂ set by an SVD, so Lip(g) ≤ L exactly (to rounding); its inverse is the
Banach iteration, stopped by ‖r‖/(1−L).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from iresnet_verify.subject.subject import Subject

TOLERANCE = {"float64": 1e-10, "float32": 1e-3}


class Residual(nn.Module):
    """x + g(x) with g a two-layer perceptron of spectral norms √L each."""

    def __init__(self, d: int, lipschitz: float, seed: int, dtype: torch.dtype, hidden: int = 16) -> None:
        super().__init__()
        made = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(scaled(torch.randn(hidden, d, generator=made, dtype=torch.float64), lipschitz).to(dtype))
        self.last = nn.Parameter(scaled(torch.randn(d, hidden, generator=made, dtype=torch.float64), lipschitz).to(dtype))
        self.shift = nn.Parameter(torch.randn(hidden, generator=made, dtype=torch.float64).to(dtype))
        self.lipschitz = lipschitz

    def g(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.first.T + self.shift) @ self.last.T

    def forward(self, x: Tensor) -> Tensor:
        return x + self.g(x)

    def inverse(self, y: Tensor) -> Tensor:
        return banach(self.g, y, self.lipschitz)


def scaled(w: Tensor, lipschitz: float) -> Tensor:
    return w * (lipschitz**0.5 / torch.linalg.matrix_norm(w, 2))


def banach(g: Any, y: Tensor, lipschitz: float, most: int = 3000) -> Tensor:
    """Iterate x ← y − g(x) until ‖r‖ ≤ (1−L)·tol·max(1, ‖y‖), tol a hundredth of what the subjects here promise."""
    x = y.clone()
    wanted = 1e-2 * TOLERANCE[str(y.dtype).removeprefix("torch.")] * y.norm(dim=1).clamp(min=1)
    for _ in range(most):
        step = y - g(x) - x
        x = x + step
        if bool((step.norm(dim=1) <= (1 - lipschitz) * wanted).all()):
            break
    return x


def dtype_of(name: str) -> torch.dtype:
    return torch.float32 if name == "float32" else torch.float64


def mlp(d: int = 3, seed: int = 0, dtype: str = "float64", lipschitz: float = 0.9, **fields: Any) -> Subject:
    """A correct subject with every field that these checks read."""
    module = fields.pop("module", None) or Residual(d, lipschitz, seed, dtype_of(dtype))
    given: dict[str, Any] = {
        "name": f"mlp{d}", "event_shape": (d,), "forward": module, "inverse": module.inverse, "residual": module.g,
        "lipschitz": lipschitz, "inverse_tolerance": TOLERANCE[dtype], "module": module, "dtype": dtype,
        "modes": ("eval",),
    }
    return Subject(**{**given, **fields})


def steeper(module: Residual, factor: float) -> Residual:
    """Make the layers a rotation and its transpose, so that the norm is attained at the bias, times `factor`."""
    with torch.no_grad():
        q, _ = torch.linalg.qr(module.first.T)  # (d, d) where hidden ≥ d
        module.first.zero_()
        module.first[: q.shape[0]] = q.T * (factor * module.lipschitz) ** 0.5
        module.last.zero_()
        module.last[:, : q.shape[0]] = q * (factor * module.lipschitz) ** 0.5
    return module


class Effective(Residual):
    """Normalised at every use."""

    def g(self, x: Tensor) -> Tensor:
        first, last = scaled(self.first, self.lipschitz), scaled(self.last, self.lipschitz)
        return torch.tanh(x @ first.T + self.shift) @ last.T


class Frozen(Residual):
    """Normalised by `renew` alone, or never."""

    def renew(self) -> None:
        with torch.no_grad():
            for w in (self.first, self.last):
                w.copy_(scaled(w, self.lipschitz))
