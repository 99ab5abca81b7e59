"""The Jacobian over boxes: for every pair of points of a box Δg = JΔx with J ∈ P ± Q, entry by entry, rounding included.

For x, x′ in the box c ± r let S_i be the diagonal of the difference quotients of the activations, s ∈ [α, β] (`Activation.slopes_between`
on what enters them), D_i a diagonal of the middles, |S_i − D_i| ≤ δ_i. With T_i = A_i S_{i−1} A_{i−1} ⋯ S_1 A_1,

    Δv_i = T_i Δx,    v_i(x) ∈ v_i(c) ± |T_i|r,    T_i ∈ P_i ± Q_i,    P_{i+1} = AD_iP_i,    Q_{i+1} = |A|(δ_i(|P_i| + Q_i) + |D_i|Q_i),

and of J itself more is known, since T − P = Σ_i M_i (S_i − D_i) T_i with M_i = A_L D_{L−1} A_{L−1} ⋯ D_{i+1} A_{i+1}, exactly:

    |J − P| ≤ Q = Σ_i |M_i| δ_i (|P_i| + Q_i).

The absolute value of the product M_i, not the product of absolute values: for random layers of n units a radius √n times as small, a layer.
docs/proofs.md derives the margins for rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import singledispatch

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import HostArray, size, to_host
from iresnet_ref.branches.certificates.network import UnreadableError
from iresnet_ref.error_analysis.forward import forward_error, no_error
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.jacobian.factors import Factor, StackedDiagonal
from iresnet_ref.jacobian.shared_factors import SharedDiagonal
from iresnet_ref.layers import CLipSwish, DiagonalAffine, Layer, LipSwish, Pointwise, Rearrangement, sequence
from iresnet_ref.layers.activations import Activation
from iresnet_ref.layers.linear import LinearLayer
from iresnet_ref.norms.stacks import nonnegative_norm_bounds, stack_norm_bounds
from iresnet_ref.rounding import gamma

_U = rounding.FLOAT64_ROUNDOFF
_UNDERFLOW = 2.0**-500
_LARGEST = 2.0**300
"""The product of all norms up to which what underflows stays below `_UNDERFLOW`."""
_ROUNDED = 1.0 + 4.0 * _U
_ENTRIES = 2**21
"""Entries of the largest array that is worked on at once."""
_FEW = 64
"""Entries of J up to which a plain loop beats one matrix product a box."""


@dataclass(frozen=True, eq=False)
class Linear:
    """A with |A|, ‖|A|‖_p ≤ `norm`, and the roundings of an entry of Av and of Aᵀu."""

    factor: Factor
    absolute: Factor
    norm: float
    terms: int
    terms_back: int


Part = Linear | Activation


@singledispatch
def parts_of(layer: Layer, event: tuple[int, ...], p: float) -> tuple[Part, ...]:
    """Return a layer's linear maps and activations in their order. Raises UnreadableError where it is not made of these."""
    raise UnreadableError(f"none is known of {layer.name}")


@parts_of.register
def _(layer: LinearLayer, event: tuple[int, ...], p: float) -> tuple[Part, ...]:
    back = size((layer.weight.shape[0], *layer.weight.shape[2:]))
    return (Linear(layer.operator, layer.operator.absolute(), layer.norms(p)[1], layer.operator.terms, back),)


@parts_of.register
def _(layer: DiagonalAffine, event: tuple[int, ...], p: float) -> tuple[Part, ...]:
    return (Linear(SharedDiagonal(layer.scale), SharedDiagonal(np.abs(to_host(layer.scale))), layer.norm_bound(p), 1, 1),)


@parts_of.register
def _(layer: Rearrangement, event: tuple[int, ...], p: float) -> tuple[Part, ...]:
    moved = layer.linearize(np.zeros((1, *event)))[1]
    return (Linear(moved, moved, 1.0, 0, 0),)


@parts_of.register
def _(layer: Pointwise, event: tuple[int, ...], p: float) -> tuple[Part, ...]:
    return (layer.activation,)


@parts_of.register
def _(layer: LipSwish, event: tuple[int, ...], p: float) -> tuple[Part, ...]:
    return parts_of(layer.fixed, event, p)


@parts_of.register
def _(layer: CLipSwish, event: tuple[int, ...], p: float) -> tuple[Part, ...]:
    ones = np.ones((1, *event))
    mirror, absolute = (StackedDiagonal(np.concatenate([ones, sign * ones], axis=1)) for sign in (-1.0, 1.0))
    return (Linear(mirror, absolute, 2.0, 0, 2), *parts_of(layer.inner, layer.out_shape(event), p))


class Enclosure:
    """J of a sequence of layers over boxes, in the p-norm of their events. Raises UnreadableError."""

    def __init__(self, layers: sequence.Layers, event: tuple[int, ...], p: float) -> None:
        """Read the layers, their weights converted to host float64."""
        found = sequence.parameters(layers)
        if any(rounding.unit_roundoff(a) < _U for a in found.values()):
            raise UnreadableError("its weights carry more digits than float64")
        host = {name: np.asarray(to_host(a), dtype=np.float64) for name, a in found.items()}
        if not all(np.isfinite(a).all() for a in host.values()):
            raise UnreadableError("a weight is not finite")
        self.layers, self.event, self.p, self.d = sequence.with_parameters(layers, host), event, p, size(event)
        self.parts: list[tuple[Layer, tuple[Part, ...]]] = []
        total, widest = 1.0, self.d
        for layer in self.layers:
            self.parts.append((layer, parts_of(layer, event, p)))
            event = layer.out_shape(event)
            widest = max(widest, size(event))
            total *= math.prod(max(1.0, _norm(part)) for part in self.parts[-1][1])
        if not total <= _LARGEST:
            raise UnreadableError("its weights or slopes are beyond the range in which this is proved")
        self.out = event
        self.together = max(1, _ENTRIES // (max(self.d, size(event)) * widest))
        """Boxes to look at in one call."""

    def over(self, low: HostArray, high: HostArray) -> HostArray:
        """Return c (cells,) with ‖Δg‖_p ≤ c‖Δx‖_p for all pairs in [low, high], (cells, d); inf where nothing is proved."""
        with np.errstate(all="ignore"):
            p, q, margin = self.enclosed(low, high)
            total = (stack_norm_bounds(p, self.p) + nonnegative_norm_bounds(q, self.p) + margin) * (1.0 + 8.0 * _U)
        return np.where(np.isfinite(total), np.broadcast_to(total, (len(low),)), math.inf)

    def enclosed(self, low: HostArray, high: HostArray) -> tuple[HostArray, HostArray, float]:
        """Return (P, Q, ε) with |J − P′| ≤ Q entry by entry, ‖P − P′‖_p ≤ ε: (cells, m, d), or (1, m, d) where all cells have the same."""
        centre = np.clip(0.5 * low + 0.5 * high, low, high)
        radius = np.maximum(high - centre, centre - low) * (1.0 + 2.0 * _U) + _UNDERFLOW
        p, margin, spreads = self._forward(centre, radius)
        return np.moveaxis(p, 0, 2), np.moveaxis(self._spread(spreads), 0, 2), margin

    def at(self, points: HostArray) -> HostArray:
        """Return ‖J‖_p at points (rows, d), as computed; 0 where an activation is at a kink: the product of one-sided slopes is no J."""
        x = points.reshape(-1, *self.event)
        y, factors = sequence.linearized(self.layers, x)
        norms = np.asarray(np.linalg.norm(np.asarray(Chain(factors, len(x), y).dense()), self.p, axis=(1, 2)))
        for layer, h, _ in sequence.steps(self.layers, x):
            if isinstance(layer, Pointwise) and layer.activation.jump > 0.0:
                norms = np.where(np.isin(to_host(h), layer.activation.kinks).reshape(len(x), -1).any(axis=1), 0.0, norms)
        return norms

    def weights(self) -> HostArray:
        """Return ‖T₁e_j‖, what a side of a box weighs in the first activation."""
        columns = np.eye(self.d).reshape(self.d, 1, *self.event)
        for _, parts in self.parts:
            for part in parts:
                if isinstance(part, Activation):
                    return np.linalg.norm(columns.reshape(self.d, -1), axis=1)
                columns = np.asarray(part.factor.apply(columns))
        return np.ones(self.d)

    def _forward(self, centre: HostArray, radius: HostArray) -> tuple[HostArray, float, list[tuple[HostArray, HostArray]]]:
        """Return P (d, cells, m), ‖P̂ − P‖ ≤ margin, and of each activation D (cells, *event) and δ(|P| + Q) (d, cells, *event)."""
        cells = len(centre)
        x = centre.reshape(cells, *self.event)
        p = np.eye(self.d).reshape(self.d, 1, *self.event)
        q = np.zeros_like(p)
        before, norm, steps = no_error(x, self.p), 1.0, 0
        spreads: list[tuple[HostArray, HostArray]] = []
        remaining = sum(isinstance(part, Activation) for _, parts in self.parts for part in parts)
        for layer, parts in self.parts:
            v = x
            for part in parts:
                if isinstance(part, Activation):
                    large = (np.abs(p) + _margin(steps, norm) + q) * (1.0 + 8.0 * _U)
                    ones = (1,) * (v.ndim - 1)
                    reach = (large * radius.T.reshape(self.d, cells, *ones)).sum(axis=0) * (1.0 + 2.0 * (self.d + 8) * _U) + _UNDERFLOW
                    reach = reach + np.asarray(before.error).reshape(cells, *ones) * (1.0 + 4.0 * _U) + 4.0 * _U * np.abs(v)
                    least, largest = part.slopes_between(v - reach, v + reach)
                    middle = 0.5 * (least + largest)
                    delta = np.maximum(largest - middle, middle - least) * (1.0 + 2.0 * _U) + _UNDERFLOW
                    spread = delta * large * (1.0 + 4.0 * _U)
                    spreads.append((middle, spread))
                    p, q = middle * p, (spread + np.abs(middle) * q) * (1.0 + 8.0 * _U)
                    steps, norm, remaining = steps + 1, norm * _norm(part) * _ROUNDED, remaining - 1
                else:
                    p, v = np.asarray(part.factor.apply(p)), v if len(parts) == 1 else np.asarray(part.factor.apply(v))
                    if remaining:
                        q = np.asarray(part.absolute.apply(q)) * (1.0 + 2.0 * (part.terms + 8) * _U) + _UNDERFLOW
                    steps, norm = steps + part.terms, norm * part.norm * _ROUNDED
            if remaining:
                y = layer(x)
                before = forward_error(layer, x, y, before)
                x = np.asarray(y)
        return p.reshape(self.d, -1, size(self.out)), _margin(steps, norm), spreads

    def _spread(self, spreads: list[tuple[HostArray, HostArray]]) -> HostArray:
        """Return Q (d, cells, m) = Σ |M_i| δ_i(|P_i| + Q_i), M_i from the last layer back."""
        outputs = size(self.out)
        total = np.zeros((self.d, 1, outputs))
        m = np.eye(outputs).reshape(outputs, 1, *self.out)
        norm, steps, left = 1.0, 0, list(spreads)
        for part in (part for _, parts in reversed(self.parts) for part in reversed(parts)):
            if not left:
                break
            if isinstance(part, Activation):
                middle, spread = left.pop()
                weight = (np.abs(m) + _margin(steps, norm)) * (1.0 + 8.0 * _U)
                total = total + _contracted(spread, weight) * (1.0 + 2.0 * (size(middle.shape[1:]) + 8) * _U) + _UNDERFLOW
                m, steps, norm = middle * m, steps + 1, norm * _norm(part) * _ROUNDED
            else:
                m, steps, norm = np.asarray(part.factor.transpose(m)), steps + part.terms_back, norm * part.norm * _ROUNDED
        return total * (1.0 + 2.0 * (len(spreads) + 2) * _U)


def _margin(steps: int, norm: float) -> float:
    """Return γ_steps·norm, rounded up, and what may have underflowed: how far a product of matrices of this norm, so rounded, is off."""
    return gamma(steps + 1, _U) * norm + _UNDERFLOW


def _norm(part: Part) -> float:
    return max(map(abs, part.slope_interval)) if isinstance(part, Activation) else part.norm


def _contracted(spread: HostArray, weight: HostArray) -> HostArray:
    """Return Σ_k spread_{dck} weight_{mck} for each cell c; `weight` may have one cell for all."""
    d, cells = spread.shape[:2]
    e, w = spread.reshape(d, cells, -1), weight.reshape(weight.shape[0], weight.shape[1], -1)
    if w.shape[1] == 1:
        return np.asarray((e.reshape(d * cells, -1) @ w[:, 0].T).reshape(d, cells, -1))
    if d * len(w) <= _FEW:
        return np.einsum("dck,mck->dcm", e, w)
    return np.asarray(np.matmul(e.swapaxes(0, 1), w.transpose(1, 2, 0)).swapaxes(0, 1))
