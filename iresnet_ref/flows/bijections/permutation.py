"""A fixed permutation of channels: log-determinant 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from iresnet_ref.arrays import Array, indices, namespace, public
from iresnet_ref.arrays.validation import require_event
from iresnet_ref.errors import ShapeError
from iresnet_ref.flows.bijections.protocol import Rearrangement


@public
@dataclass(frozen=True)
class Permutation(Rearrangement):
    """y_k = x_{order[k]} over the first event axis.
    The log-determinant is 0. Raises: ShapeError for an order that is no permutation of the channels.

    >>> import numpy as np
    >>> Permutation((3,), (2, 0, 1))(np.asarray([[0.0, 1.0, 2.0]])).tolist()
    [[2.0, 0.0, 1.0]]
    """

    event_shape: tuple[int, ...]
    order: tuple[int, ...]

    def __post_init__(self) -> None:
        require_event(self.event_shape, "permutation")
        if sorted(self.order) != list(range(self.event_shape[0])):
            raise ShapeError(
                f"permutation: expected an order of the {self.event_shape[:1]} channels, got {self.order}; "
                "try tuple(reversed(range(channels)))"
            )

    def value(self, x: Array) -> Array:
        """Return the channels in this order."""
        return namespace(x).take(x, indices(np.asarray(self.order), x), axis=1)

    def inverse_value(self, y: Array) -> Array:
        """Return the channels in their first order."""
        return namespace(y).take(y, indices(np.argsort(self.order), y), axis=1)
