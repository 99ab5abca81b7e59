"""How rounding passes through the layers of a branch, row by row, in the p-norm of its events.

At x a layer has the exact value h and the computed one ĥ. s ≥ ‖ĥ − h‖ is a running error bound (Higham §3.3) that carries norms
instead of entries: an earlier layer's error is multiplied by ‖A‖, not by ‖|A|‖, which for a wide Gaussian A is many times
larger. The pair (a, b) has |s(x′) − s(x)| ≤ a‖x − x′‖ + b for every other point x′. docs/proofs.md derives each line.

`forward_error` is one function a type of layer; of a layer without one nothing is proved: s = ∞.
"""

from __future__ import annotations

import math
from functools import singledispatch
from typing import NamedTuple

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, every_row, namespace, row_norm, size
from iresnet_ref.layers import CLipSwish, Concatenation, DiagonalAffine, GroupSort, LipSwish, Parallel, Pointwise
from iresnet_ref.layers.layer import Layer
from iresnet_ref.layers.linear import LinearLayer
from iresnet_ref.layers.rearrangement import Rearrangement
from iresnet_ref.layers.sequence import Layers, steps


class ForwardError(NamedTuple):
    """Rounding at one layer: `error` s per row, `growth` a and `drift` b (per row), `lipschitz` of x ↦ h; p is `norm`.

    `flushed` is what a flush to zero may take of a number: the smallest normal one of the arithmetic, or of that in which the
    weights and x came.
    """

    error: Array
    growth: float
    drift: Array
    lipschitz: float
    norm: float = 2.0
    flushed: float = 0.0


def no_error(x: Array, norm: float = 2.0, flushed: float = 0.0) -> ForwardError:
    """Return the rounding in front of the first layer: none, and x as it is."""
    zero = every_row(x)
    return ForwardError(zero, 0.0, zero, 1.0, norm, max(flushed, rounding.smallest_normal(x)))


@singledispatch
def forward_error(layer: Layer, h: Array, y: Array, before: ForwardError) -> ForwardError:
    """Return the rounding of y = layer(h), given that of h. One function a type of layer; of any other one nothing is proved.

    >>> import numpy as np, iresnet_ref as ir
    >>> x = np.ones((1, 2))
    >>> layer = GroupSort(2)
    >>> forward_error(layer, x, layer(x), no_error(x)).error.tolist()  # it moves numbers and rounds none
    [0.0]
    """
    nothing = namespace(y).full_like(before.error, math.inf)
    return before._replace(error=nothing, growth=0.0, drift=nothing, lipschitz=layer.norm_bound(before.norm) * before.lipschitz)


def running_error(layers: Layers, x: Array, before: ForwardError) -> tuple[Array, ForwardError]:
    """Return the computed value of the layers at x and its rounding, given that of x."""
    y = x
    for layer, h, y in steps(layers, x):
        before = forward_error(layer, h, y, before)
    return y, before


@forward_error.register
def _linear(layer: LinearLayer, h: Array, y: Array, before: ForwardError) -> ForwardError:
    """s′ = ‖A‖s + γ_{n+1}‖|A||ĥ| + |b|‖, n products, n − 1 additions and the bias."""
    n, operator, bias = layer.operator.terms, layer.operator.absolute(), namespace(h).abs(layer.bias)
    touched = operator.apply(namespace(h).abs(h)) + layer.along_channels(bias)
    return _affine(h, y, before, *layer.norms(before.norm), n, touched)


@forward_error.register
def _diagonal(layer: DiagonalAffine, h: Array, y: Array, before: ForwardError) -> ForwardError:
    """s′ = max|a| s + γ₂‖|a∘ĥ| + |b|‖, as for an affine layer of one term."""
    xp, norm = namespace(h), layer.norm_bound()
    return _affine(h, y, before, norm, norm, 1, xp.abs(h * layer.scale) + xp.abs(layer.bias))


def _affine(h: Array, y: Array, before: ForwardError, norm: float, absolute: float, n: int, touched: Array) -> ForwardError:
    """Return s′ = ‖A‖s + γ_{n+1}‖touched‖, and what flushing loses of h and of A."""
    p, u, m = before.norm, rounding.unit_roundoff(h), size(tuple(y.shape[1:]))
    g, on_top = rounding.gamma(n + 1, u), 1.0 + (2 * n + 2 * m + 32) * u
    underflow = m ** (1.0 / p) * (4 * n + 8) * (1.0 + absolute) * before.flushed
    # a weight that is subnormal may be flushed whole, however large what it is multiplied with
    flushed = m ** (1.0 / p) * n * before.flushed
    rounded = g * row_norm(touched, y.ndim - 1, p) + flushed * row_norm(h, h.ndim - 1, p)
    error = (_carried(norm, before.error) + rounded) * on_top + underflow
    # ‖ĥ(x′) − ĥ(x)‖ ≤ Λ‖x − x′‖ + 2s(x) + (s(x′) − s(x)): what is touched changes with it
    change = g * absolute + flushed
    growth = on_top * (norm * before.growth + change * (before.lipschitz + before.growth))
    drift = on_top * (_carried(norm, before.drift) + change * (2.0 * before.error + before.drift))
    return ForwardError(error, growth, drift, norm * before.lipschitz, p, before.flushed)


@forward_error.register
def _pointwise(layer: Pointwise, h: Array, y: Array, before: ForwardError) -> ForwardError:
    """s′ = (Lip(φ)s + c(‖φ‖ + m^(1/p)))/(1 − c), c the accuracy of the elementary functions."""
    return _through_entries(y, before, layer.activation.lipschitz, layer.activation.error_on(y))


@forward_error.register
def _lipswish(layer: LipSwish, h: Array, y: Array, before: ForwardError) -> ForwardError:
    """That of the activation with β fixed; the rounding of β is in its constant."""
    return forward_error(layer.fixed, h, y, before)


@forward_error.register
def _clipswish(layer: CLipSwish, h: Array, y: Array, before: ForwardError) -> ForwardError:
    """That of φ at [h, −h], which is exact; both together have the constant of `norm_bound`."""
    inner = layer.inner if isinstance(layer.inner, Pointwise) else layer.inner.fixed
    return _through_entries(y, before, layer.norm_bound(before.norm), inner.activation.error_on(y))


@forward_error.register
def _moved(layer: GroupSort | Rearrangement, h: Array, y: Array, before: ForwardError) -> ForwardError:
    """The same: both are 1-Lipschitz in every p-norm, and round nothing."""
    return before


@forward_error.register
def _concatenation(layer: Concatenation, h: Array, y: Array, before: ForwardError) -> ForwardError:
    """s′ = ‖(η₁s, η₂s_f)‖ + 64u‖y‖, which covers η, the products and this line."""
    p, u, m = before.norm, rounding.unit_roundoff(h), size(tuple(y.shape[1:]))
    after = running_error(layer.inner, h, before)[1]
    c = weight_roundings(layer) * u
    own, more = (w * (1.0 + 2.0 * c) for w in layer.host_weights())
    on_top = 1.0 + (2 * m + 32) * u
    error = (_combined(_carried(own, before.error), _carried(more, after.error), p) + c * row_norm(y, y.ndim - 1, p)) * on_top
    error = error + 8.0 * m ** (1.0 / p) * before.flushed
    lipschitz = layer.norm_bound(p) * before.lipschitz
    # ‖ŷ(x′) − ŷ(x)‖ ≤ Λ‖x − x′‖ + 2s′(x) + (s′(x′) − s′(x)): solved for the last
    solved = on_top / (1.0 - 2.0 * c)
    growth = solved * (own * before.growth + more * after.growth + c * lipschitz)
    drift = solved * (_carried(own, before.drift) + _carried(more, after.drift) + 2.0 * c * error)
    return ForwardError(error, growth, drift, lipschitz, p, before.flushed)


def weight_roundings(layer: Concatenation) -> float:
    """Roundings of η·h, in units of u: softplus is accurate to 16 and |raw| more, the division and the product to 8."""
    return 64.0 + 4.0 * max(abs(r) for r in layer.host_raw())


@forward_error.register
def _parallel(layer: Parallel, h: Array, y: Array, before: ForwardError) -> ForwardError:
    """s′ = Σ s_k + γ_{k−1}Σ‖ŷ_k‖; the norms of the paths' values change by at most (Λ + a)‖x − x′‖ + 2s + b."""
    p, u, m = before.norm, rounding.unit_roundoff(h), size(tuple(y.shape[1:]))
    g, on_top = rounding.gamma(len(layer.paths) - 1, u), 1.0 + (2 * m + 32) * u
    error = drift = 0.0 * before.error
    growth = lipschitz = 0.0
    for path in layer.paths:
        x, after = running_error(path, h, before)
        error = error + after.error + g * row_norm(x, x.ndim - 1, p)
        growth += after.growth + g * (after.lipschitz + after.growth)
        drift = drift + after.drift + g * (2.0 * after.error + after.drift)
        lipschitz += after.lipschitz
    lipschitz = rounding.up(lipschitz, len(layer.paths))
    return ForwardError(error * on_top, growth * on_top, drift * on_top, lipschitz, p, before.flushed)


def _through_entries(y: Array, before: ForwardError, lipschitz: float, accuracy: float) -> ForwardError:
    """Return the rounding of y = fl φ(ĥ), φ entry by entry with this Lipschitz constant, |fl φ − φ| ≤ accuracy·u(|φ| + 1).

    s′ = (Lip s + c(‖ŷ‖ + m^(1/p)))/(1 − c), c = accuracy·u, since |φ(ĥ)| ≤ (|ŷ| + c)/(1 − c). A change of s′ stands on both
    sides of its inequality: ‖ŷ(x′) − ŷ(x)‖ ≤ Λ‖x − x′‖ + 2s′(x) + (s′(x′) − s′(x)).
    """
    change = lipschitz * before.lipschitz
    u, m = rounding.unit_roundoff(y), size(tuple(y.shape[1:]))
    if accuracy == 0.0:  # nothing is rounded, but a subnormal number may be flushed
        error = lipschitz * before.error + m ** (1.0 / before.norm) * before.flushed
        return ForwardError(error, lipschitz * before.growth, lipschitz * before.drift, change, before.norm, before.flushed)
    c, on_top = accuracy * u, 1.0 + (2 * m + 32) * u
    written = row_norm(y, y.ndim - 1, before.norm) + m ** (1.0 / before.norm)
    error = (lipschitz * before.error + c * written) * (on_top / (1.0 - c))
    solved = on_top / (1.0 - 2.0 * c)
    growth = solved * (lipschitz * before.growth + c * change)
    return ForwardError(error, growth, solved * (lipschitz * before.drift + 2.0 * c * error), change, before.norm, before.flushed)


def _carried(norm: float, error: Array) -> Array:
    """Return what a map of this norm makes of an error: of one that nobody knows, ∞, nothing where the map is 0."""
    return namespace(error).zeros_like(error) if norm == 0.0 else norm * error


def _combined(a: Array, b: Array, p: float) -> Array:
    """Return ‖(a, b)‖_p of two non-negative arrays, p = 1, 2 or ∞."""
    if p == 1.0:
        return a + b
    larger = namespace(a).maximum(a, b)
    return larger if math.isinf(p) else row_norm(namespace(a).stack([a, b], axis=1), 1)
