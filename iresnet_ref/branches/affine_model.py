"""The affine model of F = id + g at the origin, F(x) ≈ x + g(0) + J_g(0)x: of the weights alone, on the host.

Exact for an affine g, good where the slopes of the activations change little. How good is tried out at points of the size √n that
standardised data have: what ‖r‖/‖g‖ is left of y = F(x) at the model's preimage of y, corrected once by the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from iresnet_ref.arrays import Array, HostArray, from_host, size, to_host
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.layers import sequence
from iresnet_ref.layers.layer import Layer

Matrix = npt.NDArray[np.float64]
POINTS = 16
"""At how many points the model is tried out."""


@dataclass(frozen=True)
class AffineModel:
    """`value` = g(0) (1, n), `inverse` = (I + J_g(0))⁻ᵀ (n, n): a row y has the preimage (y − value)·inverse.

    `misfit` is the largest ‖r‖/‖g‖ after one correction at the points tried; an observation and no bound.
    """

    value: HostArray
    inverse: HostArray
    misfit: float


def affine_model(layers: Sequence[Layer], event: tuple[int, ...], like: Array) -> AffineModel | None:
    """Return the model; None where I + J_g(0) is singular."""
    n = size(event)

    def g(x: HostArray) -> HostArray:
        return to_host(sequence.value(layers, from_host(x.reshape(-1, *event), like))).reshape(-1, n).astype(np.float64)

    at_origin, factors = sequence.linearized(layers, from_host(np.zeros((1, *event)), like))
    value = to_host(at_origin).reshape(1, n).astype(np.float64)
    matrix: Matrix = np.eye(n) + to_host(Chain(factors, 1, at_origin).dense())[0].astype(np.float64)
    try:
        inverse = np.linalg.inv(matrix.T)
    except np.linalg.LinAlgError:
        return None
    x = np.sqrt(2.0) * np.cos(np.arange(1, POINTS + 1)[:, None] * np.arange(1, n + 1))
    y = x + g(x)
    x = (y - value) @ inverse
    x = x + (y - x - g(x)) @ inverse
    reached = g(x)
    misfit = np.linalg.norm(y - x - reached, axis=1) / np.maximum(np.linalg.norm(reached, axis=1), np.finfo(np.float64).tiny)
    dtype = to_host(at_origin).dtype  # so that handing it to the device converts nothing
    return AffineModel(value.astype(dtype), inverse.astype(dtype), float(misfit.max()))
