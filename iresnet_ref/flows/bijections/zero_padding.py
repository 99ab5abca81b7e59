"""Injective padding: d → d + k channels, the new ones zero ([B19] §4, after Jacobsen, Smeulders, Oyallon, *i-RevNet*, ICLR 2018).

Padding widens a network; it is injective, not onto. A flow that begins with it has no density on its data: `log_prob` is
then log p_Y(F(x, 0)) + log|det dF(x, 0)|, the density of the *padded* space at the point (x, 0), which does not integrate
to 1 over x. It is comparable between models of the same padding, and with nothing else. The inverse projects: whatever a
point has in the padded channels is dropped, so that samples are projections.
"""

from __future__ import annotations

from dataclasses import dataclass

from iresnet_ref.arrays import Array, device, every_row, namespace, public, row_norm
from iresnet_ref.arrays.validation import require_event
from iresnet_ref.errors import ShapeError
from iresnet_ref.flows.bijections.protocol import Options, Pulled, Rearrangement, closed_form
from iresnet_ref.inversion.result import Inverse


@public
@dataclass(frozen=True)
class ZeroPad(Rearrangement):
    """x ↦ (x, 0), `channels` zeros appended to the first event axis; log-determinant 0 by convention; inverse (x, z) ↦ x.

    `Inverse.residual_norm` of the inverse is ‖z‖₂, how far y was from the image.
    Raises: ShapeError for no channel to append. Reference: [B19] §4, injective padding.

    >>> import numpy as np
    >>> ZeroPad((2,), 1)(np.ones((1, 2))).tolist()
    [[1.0, 1.0, 0.0]]
    """

    event_shape: tuple[int, ...]
    channels: int

    def __post_init__(self) -> None:
        require_event(self.event_shape, "zero padding")
        if self.channels < 1:
            raise ShapeError(f"zero padding: expected at least one channel, got {self.channels}; try 1")

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(c + channels, …)."""
        return self.event_shape[0] + self.channels, *self.event_shape[1:]

    def value(self, x: Array) -> Array:
        """Return (x, 0)."""
        xp = namespace(x)
        shape = (x.shape[0], self.channels, *self.event_shape[1:])
        return xp.concat([x, xp.zeros(shape, dtype=x.dtype, device=device(x))], axis=1)

    def inverse_value(self, y: Array) -> Array:
        """Return x of (x, z)."""
        return y[:, : self.event_shape[0], ...]

    def preimage(self, y: Array, options: Options) -> Inverse:
        """Return x of (x, z), with ‖z‖ as its residual."""
        return closed_form(self.inverse_value(y), row_norm(y[:, self.event_shape[0] :, ...], y.ndim - 1), every_row(y))

    def pullback(self, x: Array, y_bar: Array, weights: Array | None, options: Options) -> Pulled:
        """x̄ = the first channels of ȳ."""
        return self.inverse_value(y_bar), {}
