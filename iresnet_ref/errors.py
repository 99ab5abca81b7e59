"""The one exception family. Every message states what was expected, what came, and what to try."""

from __future__ import annotations


class IResNetError(Exception):
    """Base of every error this project raises on purpose."""


class ShapeError(IResNetError, ValueError):
    """An array has the wrong shape."""


class DTypeError(IResNetError, TypeError):
    """An array has the wrong dtype, or arrays of one call differ in dtype or device."""


class NonFiniteError(IResNetError, ValueError):
    """An input holds NaN or infinity."""


class NotContractiveError(IResNetError, ValueError):
    """Lip(g) < 1 is not proved, or has been disproved by an iteration."""


class HostArithmeticError(IResNetError, ArithmeticError):
    """The host flushes subnormal numbers to zero: nothing is proved of weights in such arithmetic."""


class InfiniteVarianceError(IResNetError, ValueError):
    """A distribution of the series length for which the variance is not proved finite from the Lipschitz bound."""


class ConvergenceError(IResNetError, RuntimeError):
    """An iteration ended above its tolerance.

    `result` is the best `Inverse` reached, `floor` the relative residual per row below which
    rounding does not let any method go.
    """

    def __init__(self, message: str, result: object = None, floor: object = None) -> None:
        super().__init__(message)
        self.result = result
        self.floor = floor


class DivergedError(NonFiniteError):
    """A training met a loss, gradient or new weights that are not finite; `state` is the last whose loss and gradient were."""

    def __init__(self, message: str, state: object = None) -> None:
        super().__init__(message)
        self.state = state
