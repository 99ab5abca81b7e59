"""σ, its gradient and a proved bound of a layer's *raw* weight at once, and what that says of the weight after the division.

One Gram matrix of the raw weight W gives σ and its vectors, and proves ‖W‖ ≤ c (`norms.largest_pair`, `norms.gram_symbol`). The layer
that is used has W′ = fl(sW). With the unit roundoff u of its dtype, s rounded to it as well, and f its smallest normal number,

    ‖W′‖ ≤ s(1 + u)(c + u‖|W|‖) + 4Nf,      N the entries,

so W′ needs no proof of its own. For convolutions ‖|W|‖ is ‖Σ_t|K_t|‖. `docs/proofs.md` derives it.
What makes the proof cheap is `Warm`: vectors and choices of the last one. It decides no truth: a stale one costs time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from iresnet_ref.arrays import Array, HostArray, from_host, namespace, size, to_host
from iresnet_ref.jacobian.convolution import Convolution
from iresnet_ref.layers.layer import Layer
from iresnet_ref.layers.linear import LinearLayer
from iresnet_ref.normalisation.norm_gradient import wave_slope
from iresnet_ref.norms.convolution import absolute_bound, as_matrix, by_frequencies, covering_grids, weight_slope
from iresnet_ref.norms.dense import largest, times_power_of_two
from iresnet_ref.norms.gram_symbol import TAPS_UP_TO, Peak, peak
from iresnet_ref.norms.largest_pair import largest_pair
from iresnet_ref.rounding import FLOAT64_ROUNDOFF, smallest_normal, unit_roundoff, up

ROUNDOFFS = (2.0**-24, 2.0**-53)
"""Of float32 and float64: in fewer digits, and in more, the divided weight is proved itself."""
ORDINARY = (2.0**-60, 2.0**60)
"""Of the largest entry: outside, the divided weight is proved itself."""
_GRID_KEPT = 128
"""Proofs until the grid around a zero-padded image is chosen anew: the weights have moved, and another may be tighter."""


@dataclass(frozen=True, eq=False)
class Warm:
    """What the next proof begins with: `vectors` in the weight's namespace, dtype and device, or None.

    Of a convolution on a grid also its `twists`, and how many `proofs` there have been on it.
    """

    vectors: Any = None
    twists: tuple[int, ...] = ()
    proofs: int = 0


class RawProof(NamedTuple):
    """‖W‖ ≤ `bound` and ‖|W|‖ ≤ `absolute`, both proved; σ and `slope` = ∂σ/∂W; what the next proof begins with."""

    bound: float
    absolute: float
    sigma: float
    slope: Array
    warm: Warm


def raw_proof(layer: Layer, warm: Warm | None) -> RawProof | None:
    """Return what is proved of a linear layer's weight in the 2-norm; None where this is not the way to prove it.

    >>> import iresnet_ref as ir
    >>> proof = raw_proof(ir.layers.Affine(np.diag([0.5, 2.0]), np.zeros(2)), None)
    >>> proof.sigma, 2.0 <= proof.bound <= 2.0 * (1 + 1e-9), bool(np.all(proof.slope == np.diag([0.0, 1.0])))
    (2.0, True, True)
    """
    if not isinstance(layer, LinearLayer) or unit_roundoff(layer.weight) not in ROUNDOFFS:
        return None
    if hasattr(namespace(layer.weight), "mp"):  # it may have no subnormal numbers at all
        return None
    host = np.asarray(to_host(layer.weight), dtype=np.float64)
    if not ORDINARY[0] <= largest(host) <= ORDINARY[1]:
        return None
    warm = Warm() if warm is None else warm
    start = None if warm.vectors is None else np.asarray(to_host(warm.vectors), dtype=np.float64)
    operator = replace(layer.operator, weight=host)
    if by_frequencies(operator):
        found = _by_frequencies(operator, start, warm)
    else:
        pair = largest_pair(as_matrix(operator), start)
        found = pair.bound, pair.sigma, weight_slope(operator, pair.u, pair.v), Warm(pair.block)
    if found is None or not found[0] < math.inf:
        return None
    bound, sigma, slope, after = found
    if after.vectors is not None:
        after = replace(after, vectors=from_host(np.ascontiguousarray(after.vectors), layer.weight))
    return RawProof(bound, absolute_bound(operator), sigma, from_host(slope, layer.weight), after)


def _by_frequencies(operator: Convolution, start: HostArray | None, warm: Warm) -> tuple[float, float, HostArray, Warm] | None:
    """Return (bound, σ, slope, what the next proof begins with) of a convolution with a host kernel."""
    kernel = np.asarray(operator.weight)
    outputs, inputs, kh, kw = kernel.shape
    if kh * kw * min(outputs, inputs) > TAPS_UP_TO:
        return None
    exponent = math.frexp(largest(kernel))[1]
    scaled = np.ldexp(kernel, -exponent)
    rows, columns = operator.image
    grids = [((rows, 0), (columns, 0))] if operator.padding == "circular" else covering_grids(operator.image, kernel.shape[2:])
    kept = [grid for grid in grids if tuple(twist for _, twist in grid) == warm.twists and warm.proofs < _GRID_KEPT]
    peaks: dict[Any, Peak] = {grid: peak(scaled, grid, start if kept else None) for grid in kept or grids}
    grid = min(peaks, key=lambda g: peaks[g].bound)
    found = peaks[grid]
    if not found.bound < math.inf:
        return None
    sigma, slope = wave_slope(kernel, grid, found.frequency)
    after = Warm(found.vectors, tuple(twist for _, twist in grid), warm.proofs + 1 if kept else 0)
    return times_power_of_two(found.bound, exponent), sigma, slope, after


def divided(layer: Any, proof: RawProof, share: float) -> tuple[Any, float] | None:
    """Return the layer with fl(sW) and s ≤ 1; it carries the proof that ‖fl(sW)‖ ≤ share. None where it is to be proved itself."""
    weight = layer.parameters["weight"]
    if proof.bound <= share:
        return carrying(layer, proof.bound, proof.absolute), 1.0
    total, lost = _of_scaled(weight, proof)
    scale = (share - lost) / total * (1.0 - 16.0 * FLOAT64_ROUNDOFF)
    if not scale > ORDINARY[0]:
        return None
    bounds = scaled_bounds(weight, proof, scale)
    return (carrying(layer, *bounds, weight=weight * scale), scale) if bounds[0] <= share else None


def scaled_bounds(weight: Any, proof: RawProof, scale: float) -> tuple[float, float]:
    """Return proved bounds on ‖W′‖ and ‖|W′|‖ of W′ = fl(W·fl(s)), s ≤ 1; inf where s is too small for them."""
    if not ORDINARY[0] < scale <= 1.0:
        return math.inf, math.inf
    total, lost = _of_scaled(weight, proof)
    u = unit_roundoff(weight)
    return up(scale * total, 2) + lost, up(scale * (1.0 + u) * (1.0 + u) * proof.absolute, 8) + lost


def _of_scaled(weight: Any, proof: RawProof) -> tuple[float, float]:
    """Return (1 + u)(c + u‖|W|‖), rounded up, and 4Nf."""
    u = unit_roundoff(weight)
    return up((1.0 + u) * (proof.bound + u * proof.absolute), 6), 4.0 * size(tuple(weight.shape)) * smallest_normal(weight)


def carrying(layer: Any, norm: float, absolute: float, **changes: Array) -> Any:
    """Return the layer, changed, with what is proved of the weight that it has then."""
    new = replace(layer, **changes)
    vars(new)["_norms"] = (norm, absolute)
    return new
