"""The true log|det dF/dx|: float64 slogdet of the Jacobian oracle, with an error bound.

|log|det(J+E)| − log|det J|| ≤ −d·log(1 − ‖J⁻¹‖₂‖E‖₂) while ‖J⁻¹‖₂‖E‖₂ < 1 (Weyl), to first order
d·‖J⁻¹‖₂·‖E‖₂. E collects the oracle's error δJ and the backward error 8·d·u₆₄·‖J‖₂ of the elimination; 8·d·u is
added for the sum of logarithms and the rounding of the result in the subject's dtype. Infinite where J may be
singular: such a row decides nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from iresnet_verify.oracle import singular_values as singular
from iresnet_verify.oracle.jacobian import Jacobian

Array = np.ndarray[Any, np.dtype[np.float64]]


def log_det_truth(jacobian: Jacobian, u: float, sigma: Array | None = None) -> tuple[Array, Array, str]:
    """Return (value, error, source) per row from the oracle's Jacobian; u is the subject's unit roundoff.

    `sigma` are the Jacobian's singular values where they are known already.
    """
    J = jacobian.matrix
    d = J.shape[-1]
    source = f"float64 slogdet of the Jacobian by {jacobian.source}"
    if J.shape[0] == 0:
        return np.zeros(0), np.zeros(0), source
    value = np.linalg.slogdet(J)[1]
    sigma = singular.values(J) if sigma is None else sigma
    smallest, largest = sigma[:, -1], sigma[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        perturbation = (jacobian.error + 8 * d * 2.0**-53 * largest) / smallest
        first = np.where(perturbation < 1, -d * np.log1p(-np.minimum(perturbation, 1.0)), np.inf)
    return value, 8 * d * u * (1 + np.abs(value) / d) + first, source
