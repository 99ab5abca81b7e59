"""Affine maps h ↦ A h + b: a dense matrix, or a convolution on images of one size."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self, cast

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, changed, expand_rows, namespace, public, size, to_host
from iresnet_ref.arrays.validation import require_parameters
from iresnet_ref.errors import ShapeError
from iresnet_ref.jacobian.convolution import Convolution, Operator, Padding, require_convolution
from iresnet_ref.jacobian.factors import Dense, Factor
from iresnet_ref.layers.layer import Layer, Pullback, transposed
from iresnet_ref.norms.convolution import absolute_bound, operator_norm_bound
from iresnet_ref.norms.induced import sum_norm_bound


@dataclass(frozen=True)
class LinearLayer(Layer):
    """h ↦ A h + b with a shared operator A of `weight`, and a number of `bias` for each output channel."""

    weight: Array
    bias: Array

    def __post_init__(self) -> None:
        if tuple(self.bias.shape) != tuple(self.weight.shape[:1]):
            outputs = tuple(self.weight.shape[:1])
            got = tuple(self.bias.shape)
            raise ShapeError(f"bias: expected one number for each output {outputs}, got shape {got}; try zeros of it")

    @property
    @abstractmethod
    def operator(self) -> Operator:
        """The linear part A, made anew: what it computes of the weight and keeps belongs to one call, its tracers and its autodiff."""

    def host_norms(self) -> tuple[float, float]:
        """Return proved bounds on ‖A‖₂ and ‖|A|‖₂ for the weight as it is on the host, in float64."""
        host = replace(self.operator, weight=to_host(self.weight))
        return operator_norm_bound(host), absolute_bound(host)

    def out_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of A h + b."""
        if event != self.operator.in_shape:
            raise ShapeError(f"{self.name}: expected events of shape {self.operator.in_shape}, got {event}; fit it to the layer before")
        return self.operator.out_shape

    @property
    def parameters(self) -> Mapping[str, Array]:
        """The weight and the bias."""
        return {"weight": self.weight, "bias": self.bias}

    @public
    def with_parameters(self, parameters: Mapping[str, Array]) -> Self:
        """Return the layer with these parameters. Raises ShapeError."""
        require_parameters(parameters, self.parameters)
        return changed(self, **parameters)

    def of_fitting(self, parameters: Mapping[str, Array]) -> Self:
        """Return the layer with parameters of the same shapes."""
        return changed(self, **parameters)

    def __call__(self, x: Array) -> Array:
        """Return A x + b."""
        return self.operator.apply(x) + self.along_channels(self.bias)

    def linearize(self, x: Array) -> tuple[Array, Factor]:
        """Return A x + b and the factor A."""
        return self(x), self.operator

    def pullback(self, x: Array, v: Array | None, y_bar: Array | None, t_bar: Array | None) -> Pullback:
        """x̄ = Aᵀȳ, v̄ = Aᵀt̄, W̄ = ∂(ȳᵀAx + t̄ᵀAv)/∂W, b̄ = ȳ summed over rows and pixels."""
        return LinearLayer.pullback_at(self, self.operator, x, v, y_bar, t_bar)

    def pullback_at(self, factor: Factor, x: Array, v: Array | None, y_bar: Array | None, t_bar: Array | None) -> Pullback:
        """Return `pullback` by the factor A as it is, with what it has made of the weight already."""
        return *transposed(factor, y_bar, t_bar), self._gradients(factor, x, v, y_bar, t_bar)

    def pullback_first(
        self, factor: Factor, x: Array, v: Array | None, y_bar: Array | None, t_bar: Array | None
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return the same without v̄."""
        return transposed(factor, y_bar, None)[0], self._gradients(factor, x, v, y_bar, t_bar)

    def _gradients(self, factor: Factor, x: Array, v: Array | None, y_bar: Array | None, t_bar: Array | None) -> dict[str, Array]:
        xp, operator = namespace(x), cast("Operator", factor)
        pairs = ((y_bar, x), (t_bar, v))
        parts = [operator.weight_gradient(bar, into) for bar, into in pairs if bar is not None and into is not None]
        weight = sum(parts[1:], parts[0]) if parts else xp.zeros_like(self.weight)
        bias = xp.zeros_like(self.bias) if y_bar is None else xp.sum(y_bar, axis=(0, *range(2, y_bar.ndim)))
        return {"weight": weight, "bias": bias}

    def norm_bound(self, p: float = 2.0) -> float:
        """Return a proved bound on ‖A‖_p."""
        return self.norms(p)[0]

    def norms(self, p: float) -> tuple[float, float]:
        """Return proved bounds on ‖A‖_p and ‖|A|‖_p; proved once for p = 2, which is dear."""
        return self._norms if p == 2.0 else self._widened(*[sum_norm_bound(to_host(self.weight), p)] * 2)

    @cached_property
    def _norms(self) -> tuple[float, float]:
        return self._widened(*self.host_norms())

    def _widened(self, norm: float, absolute: float) -> tuple[float, float]:
        """The bounds as they are, or rounded up by what the host has rounded of a weight that has more digits."""
        if rounding.unit_roundoff(self.weight) >= rounding.FLOAT64_ROUNDOFF:
            return norm, absolute
        # an entry that is rounded to zero may stand once for every output
        lost = size(self.operator.out_shape) * size(tuple(self.weight.shape)) * rounding.SMALLEST_NORMAL
        lost = 2.0 * rounding.FLOAT64_ROUNDOFF * absolute + lost
        return rounding.up(norm + lost), rounding.up(absolute + lost)

    def along_channels(self, bias: Array) -> Array:
        """Return one number for each output channel as an array that broadcasts over rows and pixels."""
        return expand_rows(bias, self.weight.ndim - 2)


@public
@dataclass(frozen=True)
class Affine(LinearLayer):
    """h ↦ W h + b, W of shape (out, in), b of shape (out,). Raises: ShapeError, DTypeError.

    >>> import numpy as np, iresnet_ref as ir
    >>> layer = ir.layers.Affine(np.asarray([[0.0, 2.0]]), np.ones(1))
    >>> layer(np.ones((3, 2))).tolist(), bool(2.0 <= layer.norm_bound() < 2.001)
    ([[3.0], [3.0], [3.0]], True)
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight.ndim != 2:
            raise ShapeError(f"dense layer: expected a weight of shape (out, in), got {tuple(self.weight.shape)}; try Conv for kernels")

    @property
    def name(self) -> str:
        """E.g. "dense 64→2"."""
        return f"dense {self.weight.shape[1]}→{self.weight.shape[0]}"

    @property
    def operator(self) -> Dense:
        """The linear part."""
        return Dense(self.weight)


@public
@dataclass(frozen=True)
class Conv(LinearLayer):
    """h ↦ K ∗ h + b on images, K of shape (out, in, kh, kw) with odd sides, b of shape (out,), stride 1.

    `image` is the (height, width) that the layer works on: the norm that is certified is that of the operator there.
    Raises: ShapeError for even kernels, kernels larger than the image, a bias of another length; DTypeError.

    >>> import numpy as np, iresnet_ref as ir
    >>> layer = ir.layers.Conv(np.ones((1, 1, 3, 3)) / 9, np.zeros(1), (5, 5))
    >>> tuple(layer(np.ones((2, 1, 5, 5))).shape), bool(layer.norm_bound() <= 1.0)
    ((2, 1, 5, 5), True)
    """

    image: tuple[int, int]
    padding: Padding = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_convolution(tuple(self.weight.shape), tuple(self.image), self.padding)

    @property
    def name(self) -> str:
        """E.g. "conv 3×3 3→64 on 16×16"."""
        outputs, inputs, kh, kw = self.weight.shape
        wraps = ", circular" if self.padding == "circular" else ""
        return f"conv {kh}×{kw} {inputs}→{outputs} on {self.image[0]}×{self.image[1]}{wraps}"

    @property
    def operator(self) -> Convolution:
        """The linear part."""
        return Convolution(self.weight, self.image, self.padding)
