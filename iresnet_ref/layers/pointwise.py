"""Activations entry by entry, y = φ(x), with factor diag φ′(x)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from iresnet_ref import rounding
from iresnet_ref.arrays import flatten_events, namespace, public, size
from iresnet_ref.jacobian.factors import Diagonal
from iresnet_ref.layers.activations import Activation
from iresnet_ref.layers.layer import Pullback, sum_probes
from iresnet_ref.rounding.forward_error import ForwardError, one_rounding, through_entries
from iresnet_ref.rounding.jacobian_error import JacobianError


@public
@dataclass(frozen=True)
class Pointwise:
    """h ↦ φ(h), entry by entry."""

    activation: Activation

    @property
    def name(self) -> str:
        """The activation's name."""
        return self.activation.name

    @property
    def parameters(self) -> Mapping[str, Any]:
        """None."""
        return {}

    @public
    def with_parameters(self, parameters: Mapping[str, Any]) -> Pointwise:
        """Return itself."""
        del parameters
        return self

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

    def forward_error(self, h: Any, y: Any, before: ForwardError) -> ForwardError:
        """s′ = (Lip(φ)s + c(‖φ‖ + m^(1/p)))/(1 − c), c the accuracy of the elementary functions."""
        del h
        return through_entries(y, before, self.activation.lipschitz, self.activation.error_on(y))

    def jacobian_error(self, h: Any, error: Any) -> JacobianError:
        """|fl φ′(ĥ) − φ′(h)| ≤ c(|φ′| + 1) + curvature·e + jump·#{k: |ĥ − k| ≤ e}, a diagonal: its nuclear norm is the sum, Σe ≤ √m s."""
        xp, phi = namespace(h), self.activation
        flat, m = flatten_events(h, h.ndim - 1), size(tuple(h.shape[1:]))
        computed = phi.error_on(h) * rounding.unit_roundoff(h) * (phi.lipschitz + 1.0)
        nuclear = error * (phi.curvature * math.sqrt(m)) + m * computed
        if phi.jump > 0.0:
            for kink in phi.kinks:
                near = xp.abs(flat - kink) <= error[:, None] * (1.0 + 4.0 * rounding.unit_roundoff(h))
                nuclear = nuclear + phi.jump * xp.sum(xp.astype(near, h.dtype), axis=-1)
        return JacobianError(phi.lipschitz + computed, phi.lipschitz + computed, 1, nuclear)

    def noise(self, h: Any, y: Any, variance: Any, unit: Any) -> Any:
        """φ′²σ² ≤ Lip²σ², plus one rounding of φ."""
        return self.activation.lipschitz**2 * variance + one_rounding(y, unit)
