"""The gradient of a layer's norm with respect to its weight, dσ = uᵀ(dA)v at the largest singular value.

σ is what `norm_bound` proves a bound of, to rounding, since that is what a normalisation divides by: for a convolution
with zero padding on a large image not its own norm, but that of the circular convolution that contains it, whose
singular vectors are waves: dσ = Re Σ_t u*(dK_t)v e^{iω·t} with the singular pair u, v of the largest block B(ω). The pair of
frequencies ±ω is no tie: both have the same gradient. At true ties one of the gradients is returned. In the 1-norm and
the ∞-norm it is that of `norms.induced`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from iresnet_ref.arrays import Array, HostArray, from_host, to_host
from iresnet_ref.errors import NonFiniteError
from iresnet_ref.jacobian.convolution import Operator
from iresnet_ref.layers.layer import Layer
from iresnet_ref.layers.linear import LinearLayer
from iresnet_ref.norms.convolution import Grid, as_matrix, by_frequencies, largest_blocks, tightest_symbol, weight_slope
from iresnet_ref.norms.dense import times_power_of_two
from iresnet_ref.norms.induced import induced_norm_slope


def norm_slope(layer: Layer, p: float = 2.0) -> tuple[float, Array]:
    """Return (σ, ∂σ/∂W), W the layer's weight and σ its operator norm p → p, p = 1, 2 or ∞.

    Raises ValueError for layers that are not linear, NonFiniteError for weights that are not finite.

    >>> import numpy as np, iresnet_ref as ir
    >>> weight = np.diag([3.0, 4.0])
    >>> sigma, slope = norm_slope(ir.mlp((2, 2)).with_parameters({"0.weight": weight, "0.bias": np.zeros(2)}).layers[0])
    >>> bool(sigma == 4.0 and np.all(slope == np.diag([0.0, 1.0])))
    True
    """
    if not isinstance(layer, LinearLayer):
        raise ValueError(f"NormalisedBranch: expected layers with a weight to be linear, got {layer.name}; normalise it by hand")
    weight = to_host(layer.weight).astype(np.float64)
    if not np.isfinite(weight).all():
        raise NonFiniteError(f"NormalisedBranch: expected a finite norm of {layer.name}, got inf; look for NaN or infinity in its weight")
    sigma, slope = induced_norm_slope(weight, p, lambda: _spectral(replace(layer.operator, weight=weight)))
    return sigma, from_host(slope, layer.weight)


def _spectral(operator: Operator) -> tuple[float, HostArray]:
    """Return (σ, ∂σ/∂W) in the 2-norm, in the cases of `operator_norm_bound`."""
    if not by_frequencies(operator):
        sigma, u, v = _largest(as_matrix(operator))
        return sigma, weight_slope(operator, u, v)
    grid, blocks = tightest_symbol(operator)
    candidates = largest_blocks(blocks)
    best = int(candidates[np.argmax(np.linalg.svd(blocks[candidates], compute_uv=False)[:, 0])])
    return wave_slope(np.asarray(operator.weight), grid, best)


def wave_slope(kernel: HostArray, grid: Grid, frequency: int) -> tuple[float, HostArray]:
    """Return (σ, ∂σ/∂K) of the largest singular value of B(ω) at one frequency, numbered as `norms.convolution.symbol` does."""
    _, _, kh, kw = kernel.shape
    (rows, down), (columns, across) = grid
    row, column = divmod(frequency, columns // 2 + 1)
    y, x = np.arange(kh, dtype=np.float64)[:, None], np.arange(kw, dtype=np.float64)
    angle = np.pi * ((2 * row + down) * y / rows + (2 * column + across) * x / columns)
    sigma, u, v = _largest(kernel.reshape(*kernel.shape[:2], -1) @ np.exp(1j * angle).reshape(-1))
    pair = np.outer(u.conj(), v)[:, :, None, None]
    return sigma, np.real(pair) * np.cos(angle) - np.imag(pair) * np.sin(angle)


def _largest(matrix: HostArray) -> tuple[float, HostArray, HostArray]:
    """Return (σ, u, v) with σ = u*Av, from the smaller Gram matrix, whose gap σ₁² − σ₂² is as wide for the largest pair.

    The vectors are as accurate as those of the singular value decomposition, u/(1 − σ₂²/σ₁²), for a fifth of its time.
    """
    if matrix.shape[0] < matrix.shape[1]:
        sigma, v, u = _largest(matrix.conj().T)
        return sigma, u, v
    magnitude = float(np.abs(matrix).max(initial=0.0))
    exponent = max(math.frexp(magnitude)[1], -1000) if not 1e-100 < magnitude < 1e100 else 0  # squares neither under- nor overflow
    scaled = matrix * 2.0**-exponent
    v = np.linalg.eigh(scaled.conj().T @ scaled)[1][:, -1]
    u = scaled @ v
    length = float(np.linalg.norm(u))
    sigma = times_power_of_two(length, exponent)
    return sigma, u / max(length, float(np.finfo(np.float64).tiny)), v
