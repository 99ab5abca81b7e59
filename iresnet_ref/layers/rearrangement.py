"""Permuting the axes of events and reshaping them: nothing is computed, and every norm is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass

from iresnet_ref.arrays import Array, public
from iresnet_ref.errors import ShapeError
from iresnet_ref.jacobian.shared_factors import Rearranged
from iresnet_ref.layers.layer import Layer, Pullback, transposed


@public
@dataclass(frozen=True)
class Rearrangement(Layer):
    """Events of shape `event`, their axes in the order `axes`, read as events of shape `out`.

    Raises: ShapeError where `axes` is no order of the axes, or `out` has another number of entries.

    >>> import numpy as np
    >>> Rearrangement((2, 3), (1, 0), (6,))(np.arange(6.0).reshape(1, 2, 3)).tolist()
    [[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]]
    """

    event: tuple[int, ...]
    axes: tuple[int, ...]
    out: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("event", "axes", "out"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if sorted(self.axes) != list(range(len(self.event))) or math.prod(self.event) != math.prod(self.out):
            raise ShapeError(
                f"rearrangement: expected an order of the {len(self.event)} axes and as many entries, got axes {self.axes} and "
                f"{self.event} → {self.out}; try axes={tuple(range(len(self.event)))}"
            )

    @property
    def name(self) -> str:
        """E.g. "rearrangement (2, 3)→(6,)"."""
        return f"rearrangement {self.event}→{self.out}"

    def out_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return the new shape."""
        if event != self.event:
            raise ShapeError(f"{self.name}: expected events of shape {self.event}, got {event}; fit it to the layer before")
        return self.out

    @property
    def _factor(self) -> Rearranged:
        return Rearranged(self.event, self.axes, self.out)

    def __call__(self, x: Array) -> Array:
        """Return the rearranged x."""
        return self._factor.apply(x)

    def linearize(self, x: Array) -> tuple[Array, Rearranged]:
        """Return the rearranged x and the rearrangement."""
        return self(x), self._factor

    def pullback(self, x: Array, v: Array | None, y_bar: Array | None, t_bar: Array | None) -> Pullback:
        """x̄ and v̄ are ȳ and t̄ put back."""
        return *transposed(self._factor, y_bar, t_bar), {}

    def norm_bound(self, p: float = 2.0) -> float:
        """Return 1, whatever p."""
        return 1.0
