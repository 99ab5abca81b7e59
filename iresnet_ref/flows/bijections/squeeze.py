"""Squeeze: 2×2 pixels become four channels, (c, h, w) → (4c, h/2, w/2); log-determinant 0.

Dinh, Sohl-Dickstein, Bengio, *Density estimation using Real NVP*, ICLR 2017, arXiv 1605.08803, §3.6; [B19] §4 ("invertible
downsampling"). Channel 4k + 2i + j holds pixel (i, j) of each 2×2 square of channel k.
"""

from __future__ import annotations

from dataclasses import dataclass

from iresnet_ref.arrays import Array, namespace, public
from iresnet_ref.arrays.validation import require_event
from iresnet_ref.errors import ShapeError
from iresnet_ref.flows.bijections.protocol import Rearrangement


@public
@dataclass(frozen=True)
class Squeeze(Rearrangement):
    """(channels, height, width) → (4·channels, height/2, width/2).
    The log-determinant is 0. Raises: ShapeError for an odd height or width. Reference: [B19] §4.

    >>> import numpy as np
    >>> Squeeze((1, 2, 2))(np.asarray([[[[1.0, 2.0], [3.0, 4.0]]]])).reshape(-1).tolist()
    [1.0, 2.0, 3.0, 4.0]
    """

    event_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        require_event(self.event_shape, "squeeze")
        if len(self.event_shape) != 3 or any(side % 2 for side in self.event_shape[1:]):
            raise ShapeError(
                f"squeeze: expected events (channels, height, width) of even height and width, got {self.event_shape}; "
                "try ir.bijections.ZeroPad on the channels, or crop the images"
            )

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(4c, h/2, w/2)."""
        c, h, w = self.event_shape
        return 4 * c, h // 2, w // 2

    def value(self, x: Array) -> Array:
        """Return the squares as channels."""
        xp = namespace(x)
        c, h, w = self.event_shape
        squares = xp.reshape(x, (x.shape[0], c, h // 2, 2, w // 2, 2))
        return xp.reshape(xp.permute_dims(squares, (0, 1, 3, 5, 2, 4)), (x.shape[0], *self.out_shape))

    def inverse_value(self, y: Array) -> Array:
        """Return the channels as squares."""
        xp = namespace(y)
        c, h, w = self.event_shape
        squares = xp.reshape(y, (y.shape[0], c, 2, 2, h // 2, w // 2))
        return xp.reshape(xp.permute_dims(squares, (0, 1, 4, 2, 5, 3)), (y.shape[0], c, h, w))
