"""A typical size of the rounding of layers: variances of independent roundings, an estimate and no bound.

Reference: Higham, Mary, *A new approach to probabilistic rounding error analysis*, SISC 2019.
"""

from __future__ import annotations

import math
import operator
from functools import reduce, singledispatch

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, expand_rows, namespace, size
from iresnet_ref.layers import CLipSwish, Concatenation, DiagonalAffine, GroupSort, LipSwish, Parallel, Pointwise
from iresnet_ref.layers.layer import Layer
from iresnet_ref.layers.linear import LinearLayer
from iresnet_ref.layers.rearrangement import Rearrangement
from iresnet_ref.layers.sequence import Layers, steps


@singledispatch
def rounding_variance(layer: Layer, h: Array, y: Array, variance: Array, unit: Array) -> Array:
    """Return the estimated variance of each entry of y = layer(h), given that of h, in `unit`² of its row.

    Of a layer that is not known here: Lip²Σσ² spread over the entries (Lip = 1 where none is stated), and one rounding.

    >>> import numpy as np
    >>> from iresnet_ref.layers.activations import get
    >>> x = np.ones((1, 2))
    >>> bool(rounding_variance(Pointwise(get("relu")), x, x, 0.0 * x, np.ones(1))[0, 0] == 2.0**-106)
    True
    """
    xp, lipschitz = namespace(h), layer.norm_bound()
    total = xp.sum(variance, axis=tuple(range(1, h.ndim))) * (lipschitz**2 if lipschitz < math.inf else 1.0)
    return expand_rows(total / size(tuple(y.shape[1:])), y.ndim - 1) + _one_rounding(y, unit)


def variance_along(layers: Layers, x: Array, variance: Array, unit: Array) -> Array:
    """Return the estimated variance of the layers' value at x, given that of x."""
    for layer, h, y in steps(layers, x):
        variance = rounding_variance(layer, h, y, variance, unit)
    return variance


def _one_rounding(y: Array, unit: Array) -> Array:
    """Return (u·y)² in `unit`² of its row: the estimated variance of one rounding. No square leaves the range if |y| ≤ unit."""
    scaled = rounding.unit_roundoff(y) * (y / expand_rows(unit, y.ndim - 1))
    return scaled * scaled


@rounding_variance.register
def _linear(layer: LinearLayer, h: Array, y: Array, variance: Array, unit: Array) -> Array:
    """Σⱼ A²ⱼ(σ²ⱼ + nu²h²ⱼ/6) + u²y²: independent roundings of the partial sums of n terms."""
    partial = layer.operator.terms / 6.0 * _one_rounding(h, unit)
    return layer.operator.squared().apply(variance + partial) + _one_rounding(y, unit)


@rounding_variance.register
def _diagonal(layer: DiagonalAffine, h: Array, y: Array, variance: Array, unit: Array) -> Array:
    """a²σ² + u²y²."""
    return layer.scale * layer.scale * variance + _one_rounding(y, unit)


@rounding_variance.register
def _pointwise(layer: Pointwise, h: Array, y: Array, variance: Array, unit: Array) -> Array:
    """φ′²σ² ≤ Lip²σ², plus one rounding of φ."""
    return layer.activation.lipschitz**2 * variance + _one_rounding(y, unit)


@rounding_variance.register
def _lipswish(layer: LipSwish, h: Array, y: Array, variance: Array, unit: Array) -> Array:
    """That of the activation with β fixed."""
    return rounding_variance(layer.fixed, h, y, variance, unit)


@rounding_variance.register
def _clipswish(layer: CLipSwish, h: Array, y: Array, variance: Array, unit: Array) -> Array:
    """That of φ at [h, −h]."""
    xp = namespace(h)
    return rounding_variance(layer.inner, xp.concat([h, -h], axis=1), y, xp.concat([variance, variance], axis=1), unit)


@rounding_variance.register
def _moved(layer: GroupSort | Rearrangement, h: Array, y: Array, variance: Array, unit: Array) -> Array:
    """The variances in their new places."""
    return layer.linearize(h)[1].apply(variance)


@rounding_variance.register
def _concatenation(layer: Concatenation, h: Array, y: Array, variance: Array, unit: Array) -> Array:
    """[η₁²σ²; η₂²σ_f²] and one rounding."""
    first, second = layer.weights(h)
    inner = variance_along(layer.inner, h, variance, unit)
    own = namespace(h).concat([first * first * variance, second * second * inner], axis=1)
    return own + _one_rounding(y, unit)


@rounding_variance.register
def _parallel(layer: Parallel, h: Array, y: Array, variance: Array, unit: Array) -> Array:
    """The sum of the paths' variances, and one rounding."""
    paths = (variance_along(path, h, variance, unit) for path in layer.paths)
    return reduce(operator.add, paths) + _one_rounding(y, unit)
