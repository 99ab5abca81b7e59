"""The convolution of images as a linear operator: stride 1, odd kernels, zero or circular padding.

    y[o, i, j] = Σ_{c, a, b} K[o, c, a, b] · x[c, i + a − p, j + b − q],   p = (kh − 1)/2,  q = (kw − 1)/2,

the cross-correlation that the frameworks call convolution; x outside of the image is zero, or wraps around. The adjoint is
the convolution with the kernel reversed and its channels swapped.

Both formulations are one matrix product per piece of the batch and differ in the side that is expanded by the kh·kw taps:
`gather` the input (im2col), `scatter` the output, whichever has fewer channels, along one axis of the image after the other. A
piece is as large as a cache.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast, get_args

from iresnet_ref.arrays import Array, contiguous, device, lazy, namespace, size
from iresnet_ref.errors import ShapeError
from iresnet_ref.jacobian.factors import Dense, SharedFactor, matching_rows

Padding = Literal["zero", "circular"]
PIECE = 2**19
"""Entries of the expanded side that are worked on at once: two to four megabytes."""


@dataclass(frozen=True)
class Convolution(SharedFactor):
    """x ↦ K ∗ x on (*lead, in, h, w) with K of shape (out, in, kh, kw) and `image` = (h, w)."""

    weight: Array
    image: tuple[int, int]
    padding: Padding = "zero"

    @property
    def in_shape(self) -> tuple[int, ...]:
        """(in, h, w)."""
        return (self.weight.shape[1], *self.image)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(out, h, w)."""
        return (self.weight.shape[0], *self.image)

    @property
    def terms(self) -> int:
        """The length of the inner products."""
        return size(self.weight.shape[1:])

    def apply(self, v: Array) -> Array:
        """Return K ∗ v."""
        xp = namespace(v)
        lead = v.shape[:-3]
        x = xp.reshape(v, (size(lead), *self.in_shape))
        outputs, inputs = self.weight.shape[:2]
        formulation = self._gather if inputs <= outputs else self._scatter
        pieces = _pieces(x.shape[0], self._expanded(min(inputs, outputs)))
        y = formulation(x) if len(pieces) < 2 else xp.concat([formulation(x[rows, ...]) for rows in pieces], axis=0)
        return xp.reshape(y, (*lead, *self.out_shape))

    def transpose(self, u: Array) -> Array:
        """Return Kᵀ u, the convolution with the reversed kernel."""
        return self._adjoint.apply(u)

    def adjoint(self) -> Convolution:
        """Return the operator Kᵀ."""
        return self._adjoint

    @lazy
    def _adjoint(self) -> Convolution:
        return replace(self, weight=_reversed(self.weight))

    def weight_gradient(self, u: Array, v: Array) -> Array:
        """Return ∂/∂K Σ uᵀ(K ∗ v) over all leading axes; the last leading axis of u or v may be 1 for all rows."""
        if self.weight.shape[0] < self.weight.shape[1]:  # uᵀ(K ∗ v) = vᵀ(Kᵀ ∗ u): expand the side with fewer channels
            return _reversed(self.adjoint().weight_gradient(v, u))
        xp = namespace(u)
        u, v = matching_rows(u, v, 3)
        outputs, inputs, kh, kw = self.weight.shape
        count, pixels = size(u.shape[:-3]), size(self.image)
        u, v = xp.reshape(u, (count, outputs, pixels)), xp.reshape(v, (count, *self.in_shape))
        total = xp.zeros((outputs, kh * kw * inputs), dtype=u.dtype, device=device(u))
        for rows in _pieces(count, self._expanded(inputs)):
            columns = xp.matrix_transpose(self._columns(v[rows, ...]))
            total = total + xp.sum(xp.matmul(u[rows, ...], columns), axis=0)
        return xp.permute_dims(xp.reshape(total, (outputs, kh, kw, inputs)), (0, 3, 1, 2))

    def absolute(self) -> Convolution:
        """Return x ↦ |K| ∗ x, for running error bounds."""
        return replace(self, weight=namespace(self.weight).abs(self.weight))

    def squared(self) -> Convolution:
        """Return x ↦ (K∘K) ∗ x, for the propagation of rounding noise."""
        return replace(self, weight=self.weight * self.weight)

    def matrix(self) -> Array:
        """Return the operator as a matrix (out·h·w, in·h·w); its entries are those of K, exactly."""
        xp = namespace(self.weight)
        if self.weight.shape[0] < self.weight.shape[1]:  # fewer rows than columns
            return xp.matrix_transpose(self.adjoint().matrix())
        n = size(self.in_shape)
        identity = xp.eye(n, dtype=self.weight.dtype, device=device(self.weight))
        columns = self.apply(xp.reshape(identity, (n, *self.in_shape)))
        return xp.matrix_transpose(xp.reshape(columns, (n, size(self.out_shape))))

    def _expanded(self, channels: int) -> int:
        """Entries of one event with this many channels, once for each tap."""
        return channels * size((*self.weight.shape[2:], *self.image))

    def _columns(self, x: Array) -> Array:
        """im2col: (rows, in, h, w) → (rows, kh·kw·in, h·w), first along each row of the image, then from row to row."""
        xp = namespace(x)
        for axis, taps in ((3, self.weight.shape[3]), (2, self.weight.shape[2])):
            if taps > 1:
                padded = _pad(x, axis, taps // 2, self.padding)
                x = xp.concat([_shifted(padded, axis, t, self.image) for t in range(taps)], axis=1)
        return xp.reshape(x, (x.shape[0], self.terms, size(self.image)))

    def _gather(self, x: Array) -> Array:
        xp = namespace(x)
        outputs = self.weight.shape[0]
        matrix = xp.reshape(xp.permute_dims(self.weight, (0, 2, 3, 1)), (outputs, self.terms))
        return xp.reshape(xp.matmul(matrix, self._columns(x)), (x.shape[0], *self.out_shape))

    def _scatter(self, x: Array) -> Array:
        """One product for all taps, whose results are moved to their places: from row to row, then along each row."""
        xp = namespace(x)
        outputs, inputs, kh, kw = self.weight.shape
        matrix = xp.reshape(xp.permute_dims(self.weight, (2, 3, 0, 1)), (kh * kw * outputs, inputs))
        rows, pixels = x.shape[0], size(self.image)
        z = xp.reshape(xp.matmul(matrix, xp.reshape(x, (rows, inputs, pixels))), (rows, matrix.shape[0], *self.image))
        for axis, taps in ((2, kh), (3, kw)):
            if taps > 1:
                padded = _pad(z, axis, taps // 2, self.padding)
                width = padded.shape[1] // taps
                first, *others = (_shifted(padded[:, t * width : (t + 1) * width, ...], axis, t, self.image) for t in range(taps))
                z = first
                for term in others:
                    z = z + term
        return z


Operator: TypeAlias = Dense | Convolution
"""A shared linear map with a weight."""


def require_convolution(weight_shape: tuple[int, ...], image: tuple[int, ...], padding: str, stride: int | tuple[int, ...] = 1) -> Padding:
    """Refuse what the convolution is not defined for, with ShapeError (ValueError for the padding); return the padding."""
    if len(weight_shape) != 4 or min(weight_shape, default=0) < 1:
        raise ShapeError(f"convolution: expected a kernel of shape (out, in, kh, kw), got {tuple(weight_shape)}; try odd kernel sides")
    if len(image) != 2 or min(image) < 1:
        raise ShapeError(f"convolution: expected an image (height, width) of positive integers, got {tuple(image)}; try (height, width)")
    kernel = tuple(weight_shape[2:])
    if kernel[0] % 2 == 0 or kernel[1] % 2 == 0:
        raise ShapeError(f"convolution: expected a kernel with odd sides, which keeps the size of the image, got {kernel}; try 3 or (1, 3)")
    if kernel[0] > image[0] or kernel[1] > image[1]:
        raise ShapeError(f"convolution: expected a kernel no larger than the image {tuple(image)}, got {kernel}; try a smaller kernel")
    if (stride if isinstance(stride, int) else max(stride, key=lambda s: abs(s - 1))) != 1:
        raise ShapeError(
            f"convolution: expected stride 1, since a residual branch keeps its event shape, got {stride}; "
            "try a squeeze between blocks to halve the image"
        )
    if padding not in get_args(Padding):
        raise ValueError(f"padding: expected 'zero' or 'circular', got {padding!r}; try 'zero'")
    return cast(Padding, padding)


def _pieces(count: int, entries: int) -> list[slice]:
    """Return slices of the batch whose expansion, `entries` for each event, fits into a cache."""
    step = max(1, PIECE // max(entries, 1))
    return [slice(i, min(i + step, count)) for i in range(0, count, step)]


def _shifted(padded: Array, axis: int, tap: int, image: tuple[int, int]) -> Array:
    """Return the image as this tap sees it in what is padded along one axis."""
    window = slice(tap, tap + image[axis - 2])
    return padded[:, :, window, :] if axis == 2 else padded[:, :, :, window]


def _pad(x: Array, axis: int, width: int, padding: Padding) -> Array:
    xp = namespace(x)
    if padding == "circular":
        before, after = slice(x.shape[axis] - width, None), slice(0, width)
        ends = [x[:, :, s, :] if axis == 2 else x[:, :, :, s] for s in (before, after)]
    else:
        shape = tuple(width if i == axis else n for i, n in enumerate(x.shape))
        ends = [xp.zeros(shape, dtype=x.dtype, device=device(x))] * 2
    return xp.concat([ends[0], x, ends[1]], axis=axis)


def _reversed(kernel: Array) -> Array:
    """Return the kernel of the adjoint."""
    xp = namespace(kernel)
    return contiguous(xp.flip(xp.permute_dims(kernel, (1, 0, 2, 3)), axis=(2, 3)))
