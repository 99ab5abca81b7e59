"""Activations entry by entry, y = φ(x), with factor diag φ′(x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from iresnet_ref.arrays import public
from iresnet_ref.jacobian.factors import Diagonal
from iresnet_ref.layers.activations import Activation
from iresnet_ref.layers.layer import Layer, Pullback, sum_probes


@public
@dataclass(frozen=True)
class Pointwise(Layer):
    """h ↦ φ(h), entry by entry."""

    activation: Activation

    @property
    def name(self) -> str:
        """The activation's name."""
        return self.activation.name

    def out_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return the same shape."""
        return event

    def __call__(self, x: Any) -> Any:
        """Return φ(x)."""
        return self.activation.value(x)

    def linearize(self, x: Any) -> tuple[Any, Diagonal]:
        """Return φ(x) and the diagonal φ′(x)."""
        y, slope = self.activation.both(x)
        return y, Diagonal(slope)

    def pullback(self, x: Any, v: Any, y_bar: Any, t_bar: Any) -> Pullback:
        """x̄ = φ′ȳ + Σ_probes φ″v t̄, v̄ = φ′t̄."""
        slope = self.activation.both(x)[1]
        x_bar = None if y_bar is None else slope * y_bar
        if t_bar is None:
            return x_bar, None, {}
        bent = self.activation.second(x) * sum_probes(v * t_bar, x.ndim)
        return (bent if x_bar is None else x_bar + bent), slope * t_bar, {}

    def norm_bound(self, p: float = 2.0) -> float:
        """Return sup|φ′|, whatever p."""
        del p
        return self.activation.lipschitz
