"""What a gradient computation returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LogDetGradient:
    """The gradient of Σ_b w_b log det(I + J_g(x_b)), and of Σ ȳᵀF(x) where a cotangent of F(x) was given.

    `parameters` {name: gradient, summed over rows}; `x` (batch, *event), the gradient at each row's own x. `truncation`
    bounds the bias: |E[∂θ] − truth| ≤ truncation·Σ_b |w_b| ‖∂J/∂θ‖_*, the nuclear norm (0 for exact and unbiased methods).
    `evaluations` per row: products with Jᵀ, or the size of the matrix for `exact`. There is no value here: the Neumann
    series estimates tr(J(I + J)⁻¹), which is not the log-determinant.
    """

    parameters: dict[str, Any]
    x: Any
    truncation: float
    evaluations: Any
    method: str


@dataclass(frozen=True)
class InverseGradient:
    """The gradient through x = F⁻¹(y): `parameters` {name: gradient}, `y` (batch, *event) the cotangent of y.

    `residual_norm` = ‖x̄ − (I + J)ᵀȳ‖₂ per row as computed, `error_bound` ≥ ‖ȳ − (I + J)⁻ᵀx̄‖₂ from it in exact arithmetic,
    `evaluations`: products with Jᵀ.
    """

    parameters: dict[str, Any]
    y: Any
    residual_norm: Any
    error_bound: Any
    evaluations: Any
    method: str
