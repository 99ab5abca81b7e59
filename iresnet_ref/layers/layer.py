"""What a layer is: a value, a Jacobian factor, a pullback, a Lipschitz bound and its rounding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from iresnet_ref.arrays import namespace
from iresnet_ref.jacobian.factors import Factor
from iresnet_ref.rounding.forward_error import ForwardError
from iresnet_ref.rounding.jacobian_error import JacobianError

Pullback = tuple[Any, Any, dict[str, Any]]
"""(x̄, v̄, gradients): None for a cotangent that is zero."""


@runtime_checkable
class Layer(Protocol):
    """One layer of a branch."""

    def out_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of its value for events of this shape. Raises ShapeError for events that it does not take."""
        ...

    def __call__(self, x: Any) -> Any:
        """Return the value."""
        ...

    def linearize(self, x: Any) -> tuple[Any, Factor]:
        """Return the value and the Jacobian factor at x."""
        ...

    def pullback(self, x: Any, v: Any, y_bar: Any, t_bar: Any) -> Pullback:
        """Return (x̄, v̄, {parameter: gradient}) for the cotangents ȳ of y = layer(x) and t̄ of the tangent t = J(x) v.

        x (batch, *in), ȳ (batch, *out); v (*probes, batch, *in) and t̄ (*probes, batch, *out), both or neither of them
        None; a cotangent None is zero. v may have batch length 1, one tangent for all rows, where t broadcasts over the
        batch; v̄ may then have the length of either. Gradients are summed over batch and probes: weights of rows are in
        the cotangents already.
        """
        ...

    def forward_error(self, h: Any, y: Any, before: ForwardError) -> ForwardError:
        """Return the rounding of y = layer(h), given that of h."""
        ...

    def jacobian_error(self, h: Any, error: Any) -> JacobianError:
        """Return what is known of the factor computed at ĥ, ‖ĥ − h‖₂ ≤ error per row."""
        ...

    def noise(self, h: Any, y: Any, variance: Any, unit: Any) -> Any:
        """Return the estimated variance of the rounding of y = layer(h), in `unit`² of its row: an estimate, no bound."""
        ...

    def norm_bound(self, p: float = 2.0) -> float:
        """Return a proved Lipschitz constant from p-norm to p-norm (p = 1, 2 or ∞), inf where none is proved."""
        ...

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters by name."""
        ...

    def with_parameters(self, parameters: Mapping[str, Any]) -> Any:
        """Return the layer with these parameters."""
        ...


def sum_probes(v: Any, ndim: int) -> Any:
    """Return v summed over its leading probe axes, down to `ndim` axes."""
    return namespace(v).sum(v, axis=tuple(range(v.ndim - ndim))) if v.ndim > ndim else v
