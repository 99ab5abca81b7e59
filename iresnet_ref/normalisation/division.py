"""W/max(1, σ̂/c): a weight divided by a proved bound on its norm ([B19] §2.1)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeVar, cast

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, all_finite, public, to_host
from iresnet_ref.arrays.validation import require_real
from iresnet_ref.errors import NonFiniteError, ShapeError
from iresnet_ref.layers.linear import LinearLayer
from iresnet_ref.norms.induced import induced_norm_bound, require_norm

Weight = TypeVar("Weight")


@public
def normalise(weight: Weight, c: float, *, norm: float = 2.0) -> Weight:
    """Return W if ‖W‖ ≤ c is proved, else W·c/σ̄ with σ̄ a proved bound and a margin for the rounding of the product.

    `weight` is a matrix, or a layer `Affine` or `Conv`: then its weight is divided, its bias is kept, and the norm is that of
    the operator on the layer's image, induced by the `norm` of events: 1, 2 or ∞. The result is certified: its proved bound is at most c.
    Reference: [B19] §2.1, with the proof in the place of power iteration.
    Raises ValueError for another norm, and unless 0 < c < ∞ and W is finite; ShapeError for a kernel without its image.

    >>> import numpy as np
    >>> from iresnet_ref.normalisation.singular_values import spectral_norm
    >>> w = normalise(np.asarray([[3.0, 4.0]]), 0.9)
    >>> bool(0.899 < spectral_norm(w) <= 0.9)
    True
    """
    if not 0.0 < c < math.inf:
        raise ValueError(f"normalise: expected 0 < c < inf, got {c}; try the layer's share of the Lipschitz bound, such as 0.9")
    require_norm(norm)
    layer = weight if isinstance(weight, LinearLayer) else None
    w = layer.weight if layer is not None else cast("Array", weight)
    require_real(w, "normalise")
    if layer is None and w.ndim != 2:
        raise ShapeError(
            f"normalise: expected a matrix or a layer, got an array of shape {tuple(w.shape)}; a kernel's norm depends on the "
            "image: try normalise(Conv(kernel, bias, image), c)"
        )

    def bound_of(array: Array) -> float:
        if layer is not None:
            return replace(layer, weight=array).norm_bound(norm)
        return induced_norm_bound(to_host(array), norm, norm)

    bound = bound_of(w)
    if bound <= c:
        return weight
    if not math.isfinite(bound):
        if not all_finite(w):
            raise NonFiniteError("normalise: expected finite weights, got NaN or infinity; look for the step that produced them")
        raise ValueError(f"normalise: expected weights whose norm is within float64, got {bound}; scale them down first")
    # The scaled entries are rounded in the weights' own precision: a relative error u in each moves the norm by at most
    # u‖|W|‖₂ ≤ u √n ‖W‖₂, n the smaller side; the proof itself has a slack of about n²u in float64. For a kernel n is that
    # of its reshaped matrix. Too small a margin costs another proof, nothing else.
    n = min(w.shape[0], math.prod(w.shape[1:]))
    margin = 4.0 * rounding.unit_roundoff(w) * (math.sqrt(n) + 1.0) + n * (n + 8) * rounding.FLOAT64_ROUNDOFF
    scaled = w * (c / (bound * (1.0 + margin)))
    while bound_of(scaled) > c:
        margin *= 2.0
        scaled = w * (c / (bound * (1.0 + margin)))
    return cast(Weight, scaled if layer is None else replace(layer, weight=scaled))
