"""What a gradient computation returns."""

from __future__ import annotations

from dataclasses import dataclass

from iresnet_ref.arrays import Array
from iresnet_ref.inversion.result import Inverse


@dataclass(frozen=True, eq=False)
class LogDetGradient:
    """The gradient of Σ_b w_b log det(I + J_g(x_b)), and of Σ ȳᵀF(x) where a cotangent of F(x) was given.

    `parameters` {name: gradient, summed over rows}; `x_bar` (batch, *event), the gradient with respect to each row of x. `truncation`
    bounds the bias: |E[∂θ] − truth| ≤ truncation·Σ_b |w_b| ‖∂J/∂θ‖_*, the norm dual to the operator norm of the block, the
    nuclear norm for the 2-norm (0 for the exact method; for series of random length what the longest one leaves out, below 1e-19 up to
    L = .9997).
    `evaluations` per row: products with Jᵀ, or the size of the matrix for `exact`. There is no value here: the Neumann
    series estimates tr(J(I + J)⁻¹), which is not the log-determinant.

    Units: nats for each unit of the parameter. Reference: [C19] eq. 8.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> found = ir.logdet_gradient(F, np.ones((3, 2)))
    >>> tuple(found.x_bar.shape), sorted(found.parameters)[:2], found.truncation
    ((3, 2), ['0.bias', '0.weight'], 0.0)
    """

    parameters: dict[str, Array]
    x_bar: Array
    truncation: float
    evaluations: Array
    method: str


@dataclass(frozen=True, eq=False)
class InverseGradient:
    """The gradient through x = F⁻¹(y): `parameters` {name: gradient}, `y_bar` (batch, *event) the cotangent ȳ of y.

    `residual_norm` = ‖x̄ − (I + J)ᵀȳ‖ per row as computed, `error_bound` ≥ ‖ȳ − (I + J)⁻ᵀx̄‖ from it in exact arithmetic, in the
    norm dual to the block's; `evaluations`: products with Jᵀ.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> found = ir.inverse_gradient(F, ir.invert(F, np.ones((3, 2))).x, np.ones((3, 2)))
    >>> tuple(found.y_bar.shape), sorted(found.parameters)[:2]
    ((3, 2), ['0.bias', '0.weight'])
    """

    parameters: dict[str, Array]
    y_bar: Array
    residual_norm: Array
    error_bound: Array
    evaluations: Array
    method: str


@dataclass(frozen=True, eq=False)
class SequenceGradient:
    """The gradient of a sequence of blocks whose activations were rebuilt by inversion, first block first.

    `parameters` one {name: gradient} for each block; `x_bar` (batch, *event) the cotangent of the first block's input, and
    `x` that input as rebuilt. `reconstructions` one `Inverse` for each block, its `x` dropped (None): residual, and radius
    about the preimage of the y that was itself rebuilt. `radius`, one array of rows for each block, bounds the distance
    from the rebuilt input to the one that the forward pass had: it carries on the radii of all later blocks, times
    1/(1 − L) each.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> y = F(F(np.ones((3, 2))))
    >>> found = ir.sequence_gradient([F, F], y, np.ones((3, 2)))
    >>> len(found.parameters), bool(np.max(np.abs(found.x - 1.0)) < 1e-4)
    (2, True)
    """

    parameters: tuple[dict[str, Array], ...]
    x_bar: Array
    x: Array
    reconstructions: tuple[Inverse, ...]
    radius: tuple[Array, ...]
