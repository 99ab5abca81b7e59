"""What a layer knows of the error of its computed Jacobian factor; `logdet_error_bound` is made of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple


class JacobianError(NamedTuple):
    """How far the computed Jacobian factor F̂ is from the true F.

    `norm` ≥ ‖F‖₂, ‖F̂‖₂; `absolute` ≥ ‖|F̂|‖₂; `terms` roundings in a product with F̂; `nuclear` ≥ ‖F̂ − F‖_* per row.
    """

    norm: float
    absolute: float
    terms: int
    nuclear: Any


def telescoped(factors: Sequence[JacobianError]) -> Any:
    """Return Σ_i ‖δF_i‖_* Π_{j≠i}‖F_j‖ ≥ ‖ΠF̂ − ΠF‖_* per row, the products taken exactly."""
    norms = [factor.norm for factor in factors]
    return sum(f.nuclear * math.prod(norms[:i] + norms[i + 1 :]) for i, f in enumerate(factors))
