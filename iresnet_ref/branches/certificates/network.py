"""A branch as its units: which linear combinations of signals enter each nonlinearity, and which make up g.

A *unit* is a vector δ = Δφ(v) of which the two differences at a pair of points obey δ_k = s v_k, s ∈ [α_k, β_k], or, in a group that is
tied, ‖δ‖ ≤ β‖v‖. Signal 0 is Δx; v of unit i is Σ_{j<i} A_ij δ_j, and Δg = Σ_j A_j δ_j: affine layers, concatenation, sums of paths and
rearrangements are these matrices. Three nonlinearities pass a part of their input on linearly, which loses nothing:

    CLipSwish   [φ(z); φ(−z)]/1.004 = ([z; −z] + [e; e])/(2·1.1·1.004),   e = z tanh(βz/2) with slopes ±(2 sup swish′ − 1),
    MaxMin      (max, min)(a, b) = ((a + b) ± |a − b|)/2,   |·| with slopes ±1,
    GroupSort   sort(v) = mean(v)1 + δ with ‖δ‖ ≤ ‖v − mean(v)1‖ in each group, since sorting keeps the mean and is 1-Lipschitz.

A *convolution* that wraps around is a matrix for each frequency, with the same multiplier on all pixels (docs/proofs.md: it loses nothing).
The one with zero padding is a crop of one that wraps around a larger grid if every signal that enters a convolution vanishes outside of the
image, which nothing does that has passed one linearly, and if 0 ∈ [α, β] for every unit (0 there is then a slope).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce, singledispatchmethod
from typing import Any

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import HostArray, size, to_host
from iresnet_ref.jacobian.convolution import Convolution
from iresnet_ref.layers import Affine, CLipSwish, Concatenation, Conv, DiagonalAffine, LipSwish, Parallel, Pointwise
from iresnet_ref.layers.layer import Layer
from iresnet_ref.layers.rearrangement import Rearrangement
from iresnet_ref.layers.sorting import GroupSort
from iresnet_ref.layers.swish import CLIPSWISH, lipswish, slopes_of
from iresnet_ref.norms.convolution import Grid, covering_grids, symbol, symbol_terms
from iresnet_ref.norms.semidefinite import Matrix, Rounded

Combination = dict[int, Rounded]
"""Σ_j A_j δ_j, by signal."""
EVEN_SLOPE = 1.1996786402577342
"""≥ 2 sup swish′ − 1: the slopes of z tanh(βz/2), whatever β."""
WHOLE_UP_TO = 320
"""Convolutions with so many entries in all signals are written out as matrices: zero padding is then exact, and pixels differ."""


@dataclass(frozen=True, eq=False)
class Unit:
    """δ with v = Σ A_j δ_j, slopes in [low, high] per entry, and `tie`: entries of one number share their multiplier."""

    inputs: Combination
    low: Matrix
    high: Matrix
    tie: HostArray


@dataclass(frozen=True, eq=False)
class Network:
    """The units of a branch in their order, and Δg; `width` of Δx, `copies` frequencies, each met with its conjugate."""

    width: int
    units: tuple[Unit, ...]
    output: Combination
    copies: int = 1
    cropped: bool = False
    """Whether g is a crop of what the matrices say: a bound on ⟨Δg, Δx⟩, ‖Δg‖ or ‖Δx + Δg‖ from above holds for it, none from below."""


class UnreadableError(Exception):
    """Why a branch has no quadratic constraint here; caught by who asks."""


def network_of(layers: Sequence[Layer], event: tuple[int, ...]) -> Network:
    """Return the units of a branch of these layers on events of this shape. Raises UnreadableError with the reason."""
    flat = _flat(layers)
    images = {(layer.image, layer.padding) for layer in flat if isinstance(layer, Conv)}
    if not images or entries(layers, event) <= WHOLE_UP_TO:
        return _Reader(_Whole()).network(layers, event)
    if len(images) > 1 or any(isinstance(layer, Affine | DiagonalAffine | Rearrangement | Parallel) for layer in flat):
        raise UnreadableError("convolutions stand beside other linear layers, or differ in image or padding")
    (image, padding) = images.pop()
    kernels = [np.asarray(to_host(layer.weight), dtype=np.float64) for layer in flat if isinstance(layer, Conv)]
    if padding == "circular":
        return _Reader(_Frequencies(((image[0], 0), (image[1], 0)))).network(layers, event)
    largest = (max(k.shape[2] for k in kernels), max(k.shape[3] for k in kernels))
    grid = min(
        covering_grids(image, largest),
        key=lambda grid: math.prod(float(np.linalg.norm(symbol(k, grid), 2, axis=(1, 2)).max()) for k in kernels),
    )
    return replace(_Reader(_Frequencies(grid, zero_padded=True)).network(layers, event), cropped=True)


def _flat(layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers, and those inside of them."""
    found: list[Layer] = []
    for layer in layers:
        inside = layer.inner if isinstance(layer, Concatenation) else sum(layer.paths, ()) if isinstance(layer, Parallel) else ()
        found += [layer, *_flat(inside)]
    return found


def entries(layers: Sequence[Layer], event: tuple[int, ...]) -> int:
    """Return how many entries Δx and what comes out of the nonlinearities have."""

    def within(layers: Sequence[Layer], event: tuple[int, ...]) -> int:
        total = 0
        for layer in layers:
            paths = (layer.inner,) if isinstance(layer, Concatenation) else layer.paths if isinstance(layer, Parallel) else ()
            total += sum(within(path, event) for path in paths)
            total += 0 if paths or isinstance(layer, Conv | Affine) else size(event)
            event = layer.out_shape(event)
        return total

    return size(event) + within(layers, event)


@dataclass(frozen=True)
class _Whole:
    """Events flattened: one matrix for each linear map."""

    zero_padded = False

    def width(self, event: tuple[int, ...]) -> int:
        """Return how many entries an event has."""
        return size(event)

    def linear(self, layer: Affine | Conv) -> tuple[Rounded, bool]:
        """Return the matrix, and whether it acts on each pixel alone."""
        weight = _exact(layer.weight)
        if isinstance(layer, Conv):
            weight = np.asarray(Convolution(weight, layer.image, layer.padding).matrix())
        return Rounded.exact(weight[None]), True

    def pixels(self, event: tuple[int, ...]) -> int:
        """Return how many entries a channel has."""
        return size(event[1:])


@dataclass(frozen=True)
class _Frequencies:
    """One matrix [[Re B, −Im B], [Im B, Re B]] for each frequency of a grid: the channels, real parts first."""

    grid: Grid
    zero_padded: bool = False

    def width(self, event: tuple[int, ...]) -> int:
        """Return twice the channels."""
        return 2 * event[0]

    def linear(self, layer: Affine | Conv) -> tuple[Rounded, bool]:
        """Return B(ω) of all frequencies, and whether the layer acts on each pixel alone."""
        kernel = _exact(layer.weight)
        blocks = symbol(kernel, self.grid)
        re, im = np.real(blocks), np.imag(blocks)
        sums = np.abs(kernel).sum(axis=(2, 3))[None]
        value = np.concatenate([np.concatenate([re, -im], 2), np.concatenate([im, re], 2)], 1)
        absolute = np.broadcast_to(np.tile(sums, (1, 2, 2)), value.shape)
        return Rounded(value, absolute, symbol_terms(kernel)), kernel.shape[2:] == (1, 1)

    def pixels(self, event: tuple[int, ...]) -> int:
        """Return 1: after the channels comes the imaginary part, which a group does not reach into."""
        return 1


def _exact(weight: Any) -> Matrix:
    """Return a weight as float64. Raises UnreadableError where the host has rounded it."""
    if rounding.unit_roundoff(weight) < rounding.FLOAT64_ROUNDOFF:
        raise UnreadableError("its weights carry more digits than float64")
    host = np.asarray(to_host(weight), dtype=np.float64)
    if not np.isfinite(host).all():
        raise UnreadableError("a weight is not finite")
    return host


@dataclass(eq=False)
class _Reader:
    """Walks the layers. `local` says that what flows vanishes outside of the image."""

    how: _Whole | _Frequencies
    units: list[Unit] = field(default_factory=list)
    copies: int = 1
    local: bool = True

    def network(self, layers: Sequence[Layer], event: tuple[int, ...]) -> Network:
        """Return the units of all layers."""
        width = self.how.width(event)
        output = self.through(layers, {0: Rounded.exact(np.eye(width)[None])}, event)
        return Network(width, tuple(self.units), output, self.copies)

    def through(self, layers: Sequence[Layer], h: Combination, event: tuple[int, ...]) -> Combination:
        """Return what a sequence of layers makes of a combination."""
        for layer in layers:
            h = self.layer(layer, h, event)
            event = layer.out_shape(event)
        return h

    @singledispatchmethod
    def layer(self, layer: Any, h: Combination, event: tuple[int, ...]) -> Combination:
        """Return what a layer makes of a combination. Raises UnreadableError where nothing is known of it."""
        raise UnreadableError(f"none is known of {layer.name}")

    @layer.register
    def _(self, layer: Pointwise, h: Combination, event: tuple[int, ...]) -> Combination:
        return self.unit(h, *layer.activation.slope_interval)

    @layer.register
    def _(self, layer: LipSwish, h: Combination, event: tuple[int, ...]) -> Combination:
        return self.unit(h, *slopes_of(layer.scale))

    @layer.register
    def _(self, layer: Parallel, h: Combination, event: tuple[int, ...]) -> Combination:
        return reduce(_sum, [self.through(path, h, event) for path in layer.paths])

    @layer.register
    def _(self, layer: DiagonalAffine, h: Combination, event: tuple[int, ...]) -> Combination:
        scale = _exact(layer.scale).reshape(-1, 1)
        return {j: a.times(scale) for j, a in h.items()}

    @layer.register
    def _(self, layer: Rearrangement, h: Combination, event: tuple[int, ...]) -> Combination:
        places = np.asarray(layer(np.arange(size(event), dtype=np.float64).reshape(1, *event)))
        return {j: a.rows(places.reshape(-1).astype(np.int64)) for j, a in h.items()}

    @layer.register(Affine)
    @layer.register(Conv)
    def _(self, layer: Affine | Conv, h: Combination, event: tuple[int, ...]) -> Combination:
        weight, pixelwise = self.how.linear(layer)
        if self.how.zero_padded and not (pixelwise or self.local):
            raise UnreadableError("a part of the output of a zero-padded convolution passes on to another one linearly")
        self.local = self.local and pixelwise
        self.copies = max(self.copies, len(weight.value))
        return {j: weight if _is_identity(a) else weight @ a for j, a in h.items()}

    def unit(self, h: Combination, low: float, high: float, tie: HostArray | None = None) -> Combination:
        """Append a unit with these slopes; a linear one is a factor."""
        if low == high:
            return {j: a.times(low) for j, a in h.items()}
        if not (math.isfinite(low) and math.isfinite(high)):
            raise UnreadableError("an activation states no finite slopes")
        if self.how.zero_padded and not low <= 0.0 <= high:
            raise UnreadableError("zero padding needs activations with a slope 0")
        n = int(next(iter(h.values())).value.shape[-2])
        if isinstance(self.how, _Frequencies):  # the real and the imaginary part of a channel
            half = np.arange(n // 2, dtype=np.intp) if tie is None else tie
            tie = np.concatenate([half, half])
        elif tie is None:
            tie = np.arange(n, dtype=np.intp)
        self.units.append(Unit(h, np.full(n, low), np.full(n, high), tie))
        self.local = True
        return {len(self.units): Rounded.exact(np.eye(n)[None])}

    @layer.register
    def _(self, layer: CLipSwish, h: Combination, event: tuple[int, ...]) -> Combination:
        width, phi = self.how.width(event), layer.inner
        mirrored = self.concatenated((h, {j: a.times(-1.0) for j, a in h.items()}), (width, width))
        swish = isinstance(phi, LipSwish) or phi.activation is lipswish(scale=CLIPSWISH)
        if self.how.zero_padded or not swish:  # what passes on linearly would not vanish outside of the image
            return self.layer(phi, mirrored, layer.out_shape(event))
        even = self.unit(h, -EVEN_SLOPE, EVEN_SLOPE)
        scale = phi.scale if isinstance(phi, LipSwish) else CLIPSWISH
        return {j: a.times(0.5 / scale, 4) for j, a in _sum(mirrored, self.concatenated((even, even), (width, width))).items()}

    @layer.register
    def _(self, layer: GroupSort, h: Combination, event: tuple[int, ...]) -> Combination:
        channels, pixels = event[0], self.how.pixels(event)
        k = channels if layer.group is None else layer.group
        if k == 1:
            return h
        places = np.arange(channels * pixels).reshape(channels // k, k, pixels)
        if isinstance(self.how, _Frequencies):
            places = np.concatenate([places, places + channels])
        group = np.empty(places.size, dtype=np.int64)
        group[places] = np.arange(places.shape[0] * pixels).reshape(places.shape[0], 1, pixels)
        tie = group[: places.size // 2] if isinstance(self.how, _Frequencies) else group
        if self.how.zero_padded:  # what passes on linearly would not vanish outside: ‖δ‖ ≤ ‖v‖ alone
            return self.unit(h, -1.0, 1.0, tie)
        n = places.size
        if k == 2:
            a, b = places[:, 0].reshape(-1), places[:, 1].reshape(-1)
            halves = {j: (m.rows(a) + m.rows(b)).times(0.5) for j, m in h.items()}
            difference = {j: m.rows(a) + m.rows(b).times(-1.0) for j, m in h.items()}
            absolute = self.unit(difference, -1.0, 1.0)
            sign = np.where(np.isin(np.arange(n), a) == layer.descending, 0.5, -0.5)[:, None]
            back = np.empty(n, dtype=np.int64)
            back[a] = back[b] = np.arange(len(a))
            spread = {j: m.rows(back) for j, m in halves.items()}
            return _sum(spread, {j: m.rows(back).times(sign) for j, m in absolute.items()})
        mean = np.zeros((n, n))
        mean[group[:, None] == group[None, :]] = 1.0 / k
        average, rest = Rounded(mean[None], mean[None], 1), Rounded((np.eye(n) - mean)[None], (np.eye(n) + mean)[None], 2)
        means = {j: average @ m for j, m in h.items()}
        return _sum(means, self.unit({j: rest @ m for j, m in h.items()}, -1.0, 1.0, tie))

    @layer.register
    def _(self, layer: Concatenation, h: Combination, event: tuple[int, ...]) -> Combination:
        local = self.local
        inner = self.through(layer.inner, h, event)
        self.local = self.local and local
        first, second = layer.host_weights()
        if not math.isfinite(first):
            raise UnreadableError("the weights of a concatenation are not finite")
        raw = [] if layer.raw is None else [float(r) for r in to_host(layer.raw)]
        steps = 4 * (34 + math.ceil(sum(min(abs(r), 1e6) for r in raw)))
        ends = reduce(lambda shape, inside: inside.out_shape(shape), layer.inner, event)
        parts = ({j: a.times(first, steps) for j, a in h.items()}, {j: a.times(second, steps) for j, a in inner.items()})
        return self.concatenated(parts, (self.how.width(event), self.how.width(ends)))

    def concatenated(self, parts: tuple[Combination, Combination], widths: tuple[int, int]) -> Combination:
        """Return the two combinations one after the other along the channels."""
        columns = {j: a.value.shape[2] for part in parts for j, a in part.items()}
        order = np.arange(sum(widths))
        if isinstance(self.how, _Frequencies):  # the real parts of both, then the imaginary parts
            first, second = order[: widths[0]].reshape(2, -1), order[widths[0] :].reshape(2, -1)
            order = np.concatenate([first[0], second[0], first[1], second[1]])
        out: Combination = {}
        for j, n in columns.items():
            blocks = [part.get(j) or Rounded.exact(np.zeros((1, width, n))) for part, width in zip(parts, widths, strict=True)]
            count = max(len(block.value) for block in blocks)
            value, absolute = (
                np.concatenate([np.broadcast_to(a, (count, *a.shape[1:])) for a in arrays], axis=1)
                for arrays in zip(*((block.value, block.absolute) for block in blocks), strict=True)
            )
            out[j] = Rounded(value, absolute, max(block.roundings for block in blocks)).rows(order)
        return out


def _is_identity(a: Rounded) -> bool:
    copies, rows, columns = a.value.shape
    return a.roundings == 0 and copies == 1 and rows == columns and bool((a.value[0] == np.eye(rows)).all())


def _sum(a: Combination, b: Combination) -> Combination:
    both = {j: a[j] + b[j] for j in a.keys() & b.keys()}
    return {**a, **b, **both}
