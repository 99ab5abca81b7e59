"""What a layer knows of the error of its computed Jacobian factor; `logdet_error_bound` is made of it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable


class FactorError(NamedTuple):
    """The computed Jacobian factor F̂ beside the true F.

    `norm` ≥ ‖F‖₂, ‖F̂‖₂; `absolute` ≥ ‖|F̂|‖₂; `terms` roundings in a product with F̂; `nuclear` ≥ ‖F̂ − F‖_* per row.
    """

    norm: float
    absolute: float
    terms: int
    nuclear: Any


@runtime_checkable
class HasFactorError(Protocol):
    """A layer that bounds the error of its computed Jacobian factor."""

    def factor_error(self, h: Any, error: Any) -> FactorError:
        """Return what is known of the factor computed at ĥ, |ĥ − h| ≤ error entry by entry."""
