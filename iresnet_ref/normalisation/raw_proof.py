"""σ, its gradient and a proved bound of a layer's *raw* weight at once, and what that says of the weight after the division.

One Gram matrix of the raw weight W gives σ and its vectors, and proves ‖W‖ ≤ c (`norms.largest_pair`, `norms.gram_symbol`). The layer
that is used has W′ = fl(sW). With the unit roundoff u of its dtype, s rounded to it as well, and f its smallest normal number,

    ‖W′‖ ≤ s(1 + u)(c + u‖|W|‖) + 4Nf,      N the entries,

so W′ needs no proof of its own. For convolutions ‖|W|‖ is ‖Σ_t|K_t|‖. `docs/proofs.md` derives it.
What makes the proof cheap is `Warm`: vectors and choices of the last one. It decides no truth: a stale one costs time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from iresnet_ref.arrays import Array, HostArray, changed, device, from_host, namespace, size, to_host
from iresnet_ref.jacobian.convolution import Convolution
from iresnet_ref.layers.layer import Layer
from iresnet_ref.layers.linear import LinearLayer
from iresnet_ref.normalisation.norm_gradient import wave_slope
from iresnet_ref.norms.convolution import absolute_bound, as_matrix, by_frequencies, covering_grids, weight_slope
from iresnet_ref.norms.dense import largest, times_power_of_two
from iresnet_ref.norms.gram_symbol import TAPS_UP_TO, Peak, peak
from iresnet_ref.norms.largest_pair import LargestPairs, largest_pairs
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


def raw_proofs(layers: Sequence[Layer], warm: Sequence[Warm | None]) -> list[RawProof | None]:
    """Return what is proved of linear layers' weights in the 2-norm; None where this is not the way.

    Matrices of one shape, lying or standing, are taken at once.

    >>> import iresnet_ref as ir
    >>> proof = raw_proofs([ir.layers.Affine(np.diag([0.5, 2.0]), np.zeros(2))], [None])[0]
    >>> proof.sigma, 2.0 <= proof.bound <= 2.0 * (1 + 1e-9), bool(np.all(proof.slope == np.diag([0.0, 1.0])))
    (2.0, True, True)
    """
    proofs: list[RawProof | None] = [None] * len(layers)
    stacks: dict[Any, list[int]] = {}
    for i, (layer, begun) in enumerate(zip(layers, warm, strict=True)):
        if not isinstance(layer, LinearLayer):
            continue
        weight = layer.weight
        if unit_roundoff(weight) not in ROUNDOFFS or hasattr(namespace(weight), "mp"):  # it may have no subnormal numbers at all
            continue
        if weight.shape[2:] in ((), (1, 1)):
            start = None if begun is None or begun.vectors is None else tuple(begun.vectors.shape)
            sides = tuple(sorted(weight.shape[:2]))
            stacks.setdefault((type(weight), weight.dtype, device(weight), sides, start), []).append(i)
        else:
            proofs[i] = _of_convolution(layer, Warm() if begun is None else begun)
    for (*_, start), places in stacks.items():
        starts = None if start is None else _stacked([begun.vectors for i in places if (begun := warm[i]) is not None])
        weights = [layers[i].parameters["weight"] for i in places]
        stack = prove_stack(_stacked([_lying(w) for w in weights]), starts)
        u, v = (from_host(found, weights[0]) for found in (stack.u, stack.v))
        slopes = u[:, :, None] * v[:, None, :]
        blocks = None if stack.block is None else from_host(stack.block, weights[0])
        numbers = zip(stack.bound.tolist(), stack.absolute.tolist(), stack.sigma.tolist(), strict=True)
        for k, (i, weight, (bound, absolute, sigma)) in enumerate(zip(places, weights, numbers, strict=True)):
            if bound < math.inf:
                slope = slopes[k, ...].T if weight.shape[0] > weight.shape[1] else slopes[k, ...]
                slope = slope if weight.ndim == 2 else namespace(weight).reshape(slope, tuple(weight.shape))
                proofs[i] = RawProof(bound, absolute, sigma, slope, Warm(None if blocks is None else blocks[k, ...]))
    return proofs


def _lying(weight: Array) -> Array:
    """Return a matrix, or that of a 1×1 kernel, turned where it has more rows than columns."""
    matrix = weight if weight.ndim == 2 else namespace(weight).reshape(weight, tuple(weight.shape[:2]))
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


def _stacked(arrays: list[Array]) -> HostArray:
    """Return arrays of one shape on the host, by one transfer."""
    return to_host(namespace(arrays[0]).stack(arrays, axis=0))


def prove_stack(weights: HostArray, starts: HostArray | None) -> LargestPairs:
    """Return the pairs of host matrices (count, m, n) in float32 or float64, from `starts` (count, min(m, n), p) or none.

    A bound is inf where this is not the way. ∂σ/∂W = uvᵀ.
    """
    most = np.abs(weights).max(axis=(1, 2), initial=0.0)
    ordinary = (most >= ORDINARY[0]) & (most <= ORDINARY[1])
    if not ordinary.all():
        weights = np.where(ordinary[:, None, None], weights, np.ones_like(weights))
    pairs = largest_pairs(weights, starts)
    return pairs._replace(bound=np.where(ordinary, pairs.bound, math.inf))


def _of_convolution(layer: LinearLayer, warm: Warm) -> RawProof | None:
    """Return the proof of a kernel on its image."""
    host = np.asarray(to_host(layer.weight), dtype=np.float64)
    if not ORDINARY[0] <= largest(host) <= ORDINARY[1]:
        return None
    start = None if warm.vectors is None else np.asarray(to_host(warm.vectors), dtype=np.float64)
    operator = replace(layer.operator, weight=host)
    if by_frequencies(operator):
        found = _by_frequencies(operator, start, warm)
    else:
        pairs = largest_pairs(as_matrix(operator)[None, ...], None if start is None else start[None, ...])
        block = None if pairs.block is None else pairs.block[0]
        found = float(pairs.bound[0]), float(pairs.sigma[0]), weight_slope(operator, pairs.u[0], pairs.v[0]), Warm(block)
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
    scale, bound, absolute = division(proof.bound, proof.absolute, share, weight)
    return (carrying(layer, bound, absolute, weight=weight * scale), scale) if bound <= share else None


def division(bound: Any, absolute: Any, share: Any, weight: Array) -> tuple[Any, Any, Any]:
    """Return s, and proved bounds on ‖W′‖ and ‖|W′|‖ of W′ = fl(W·fl(s)), for weights of this shape and dtype: numbers, or one for each.

    Where the bound on ‖W′‖ is above the share, W′ is to be proved itself.
    """
    total, lost = _of_scaled(bound, absolute, weight)
    scale = (share - lost) / total * (1.0 - 16.0 * FLOAT64_ROUNDOFF)
    return scale, *scaled_bounds(bound, absolute, scale, weight)


def scaled_bounds(bound: Any, absolute: Any, scale: Any, weight: Array) -> tuple[Any, Any]:
    """Return proved bounds on ‖W′‖ and ‖|W′|‖ of W′ = fl(W·fl(s)), s ≤ 1, from those of W; inf where s is too small for them."""
    total, lost = _of_scaled(bound, absolute, weight)
    u = unit_roundoff(weight)
    covered = (scale > ORDINARY[0]) & (scale <= 1.0)
    found = up(scale * total, 2) + lost, up(scale * (1.0 + u) * (1.0 + u) * absolute, 8) + lost
    if np.ndim(scale):
        return np.where(covered, found[0], math.inf), np.where(covered, found[1], math.inf)
    return found if covered else (math.inf, math.inf)


def _of_scaled(bound: Any, absolute: Any, weight: Array) -> tuple[Any, float]:
    """Return (1 + u)(c + u‖|W|‖), rounded up, and 4Nf."""
    u = unit_roundoff(weight)
    return up((1.0 + u) * (bound + u * absolute), 6), 4.0 * size(tuple(weight.shape)) * smallest_normal(weight)


def carrying(layer: Any, norm: float, absolute: float, **changes: Array) -> Any:
    """Return the layer, changed, with what is proved of the weight that it has then."""
    new = changed(layer, **changes)
    vars(new)["_norms"] = (norm, absolute)
    return new
