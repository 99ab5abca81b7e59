"""What a layer is: the shape of its value, its value, its Jacobian factor, a pullback and a Lipschitz bound; and its parameters.

What rounding does to a layer is a function beside it (`iresnet_ref.error_analysis`), which knows nothing of a new one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self, cast

from iresnet_ref.arrays import Array, namespace, public
from iresnet_ref.arrays.validation import require_parameters
from iresnet_ref.jacobian.factors import Factor

Pullback = tuple[Array | None, Array | None, dict[str, Array]]
"""(x̄, v̄, gradients): None for a cotangent that is zero."""

QUICKER = {
    "linearize": ("record", "pullback_at", "pullback_first"), "pullback": ("pullback_at", "pullback_first"),
    "pullback_at": ("pullback_first",), "with_parameters": ("of_fitting",),
}  # fmt: skip
"""Methods, and those that give the same for less work."""


class Layer(ABC):
    """One layer of a branch: a frozen dataclass with five methods, and with `parameters` where it has fields that are learnt.

    docs/layers.md makes one. Errors of rounding are proved of the layers of this package; of another one nothing is
    (`error_analysis`): what rests on them is inf, and all else is as for any layer.

    >>> import iresnet_ref as ir
    >>> isinstance(ir.layers.CLipSwish(), ir.layers.Layer)
    True
    """

    def __init_subclass__(cls, **options: object) -> None:
        """A subclass that says a method anew says the quicker ones anew too, or has those that ask the method."""
        super().__init_subclass__(**options)
        said = {name: place for place, parent in reversed(list(enumerate(cls.__mro__))) for name in vars(parent)}
        for quicker in {name for method, names in QUICKER.items() for name in names if said[method] < said[name]}:
            setattr(cls, quicker, vars(Layer)[quicker])

    @abstractmethod
    def out_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of its value for events of this shape. Raises ShapeError for events that it does not take."""

    @abstractmethod
    def __call__(self, x: Array) -> Array:
        """Return the value."""

    @abstractmethod
    def linearize(self, x: Array) -> tuple[Array, Factor]:
        """Return the value and the Jacobian factor at x."""

    @abstractmethod
    def pullback(self, x: Array, v: Array | None, y_bar: Array | None, t_bar: Array | None) -> Pullback:
        """Return (x̄, v̄, {parameter: gradient}) for the cotangents ȳ of y = layer(x) and t̄ of the tangent t = J(x) v.

        x (batch, *in), ȳ (batch, *out); v (*probes, batch, *in) and t̄ (*probes, batch, *out), both or neither of them
        None; a cotangent None is zero. v may have batch length 1, one tangent for all rows, where t broadcasts over the
        batch; v̄ may then have the length of either. Gradients are summed over batch and probes: weights of rows are in
        the cotangents already.
        """

    def record(self, x: Array) -> tuple[Array, Factor]:
        """Return `linearize` where `pullback_at` will follow: another method only where the factor can spare it work."""
        return self.linearize(x)

    def pullback_at(self, factor: Factor, x: Array, v: Array | None, y_bar: Array | None, t_bar: Array | None) -> Pullback:
        """Return `pullback` where the factor at x is at hand: another method only where that saves work."""
        return self.pullback(x, v, y_bar, t_bar)

    def pullback_first(
        self, factor: Factor, x: Array, v: Array | None, y_bar: Array | None, t_bar: Array | None
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return `pullback_at` where v̄ is not asked for: another method only where that saves work."""
        x_bar, _, gradients = self.pullback_at(factor, x, v, y_bar, t_bar)
        return x_bar, gradients

    @abstractmethod
    def norm_bound(self, p: float = 2.0) -> float:
        """Return a proved Lipschitz constant from p-norm to p-norm (p = 1, 2 or ∞), inf where none is proved."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return type(self).__name__

    @property
    def parameters(self) -> Mapping[str, Array]:
        """The parameters by name: fields, unless `with_parameters` is another one."""
        return {}

    @public
    def with_parameters(self, parameters: Mapping[str, Array]) -> Self:
        """Return the layer with these parameters. Raises ShapeError."""
        require_parameters(parameters, self.parameters)
        return cast("Self", replace(cast("Any", self), **parameters)) if parameters else self

    def of_fitting(self, parameters: Mapping[str, Array]) -> Self:
        """Return `with_parameters` of parameters that are known to fit: another method only where that saves work."""
        return self.with_parameters(parameters)


def transposed(factor: Factor, y_bar: Array | None, t_bar: Array | None) -> tuple[Array | None, Array | None]:
    """Return (Fᵀȳ, Fᵀt̄): what a layer pulls back whose factor F does not turn with x."""
    x_bar, v_bar = (None if bar is None else factor.transpose(bar) for bar in (y_bar, t_bar))
    return x_bar, v_bar


def over_rows(v_bar: Array, v: Array, ndim: int) -> Array:
    """Return the cotangent v̄, summed over its rows where v is one tangent for all rows of an x of `ndim` axes."""
    return v_bar if v_bar.shape == v.shape else namespace(v_bar).sum(v_bar, axis=v.ndim - ndim, keepdims=True)


def sum_probes(v: Array, ndim: int) -> Array:
    """Return v summed over its leading probe axes, down to `ndim` axes."""
    return namespace(v).sum(v, axis=tuple(range(v.ndim - ndim))) if v.ndim > ndim else v
