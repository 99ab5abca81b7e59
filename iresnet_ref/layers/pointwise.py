"""Activations entry by entry, y = φ(x), with factor diag φ′(x)."""

from __future__ import annotations

from dataclasses import dataclass

from iresnet_ref.arrays import Array, public
from iresnet_ref.jacobian.factors import Diagonal, Factor
from iresnet_ref.layers.activations import Activation
from iresnet_ref.layers.layer import Layer, Pullback, sum_probes, transposed


@public
@dataclass(frozen=True)
class Pointwise(Layer):
    """h ↦ φ(h), entry by entry.

    Lip is the activation's. Shapes: any event.

    >>> import numpy as np, iresnet_ref as ir
    >>> ir.layers.Pointwise(ir.activations.get("tanh"))(np.zeros((1, 2))).tolist()
    [[0.0, 0.0]]
    """

    activation: Activation

    @property
    def name(self) -> str:
        """The activation's name."""
        return self.activation.name

    def out_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return the same shape."""
        return event

    def __call__(self, x: Array) -> Array:
        """Return φ(x)."""
        return self.activation.value(x)

    def linearize(self, x: Array) -> tuple[Array, Diagonal]:
        """Return φ(x) and the diagonal φ′(x)."""
        y, slope = self.activation.both(x)
        return y, Diagonal(slope)

    def record(self, x: Array) -> tuple[Array, Diagonal]:
        """Return `linearize`, and φ″ in the factor where the activation has it from the same work."""
        if self.activation.three is None:
            return self.linearize(x)
        y, slope, second = self.activation.three(x)
        return y, Diagonal(slope, second)

    def pullback(self, x: Array, v: Array | None, y_bar: Array | None, t_bar: Array | None) -> Pullback:
        """x̄ = φ′ȳ + Σ_probes φ″v t̄, v̄ = φ′t̄."""
        return Pointwise.pullback_at(self, self.linearize(x)[1], x, v, y_bar, t_bar)

    def pullback_at(self, factor: Factor, x: Array, v: Array | None, y_bar: Array | None, t_bar: Array | None) -> Pullback:
        """Return `pullback` with φ′ as it is in the factor."""
        x_bar, v_bar = transposed(factor, y_bar, t_bar)
        if t_bar is None:
            return x_bar, None, {}
        slope, second = (factor.entries, factor.second) if isinstance(factor, Diagonal) else (self.activation.both(x)[1], None)
        bent = (self.activation.second_at(x, slope) if second is None else second) * sum_probes(v * t_bar, x.ndim)
        return (bent if x_bar is None else x_bar + bent), v_bar, {}

    def norm_bound(self, p: float = 2.0) -> float:
        """Return sup|φ′|, whatever p."""
        return self.activation.lipschitz
