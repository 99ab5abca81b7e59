"""The one exception family. Every message states what was expected, what came, and what to try."""

from __future__ import annotations


class IResNetError(Exception):
    """Base of every error this project raises on purpose."""


class ShapeError(IResNetError, ValueError):
    """An array has the wrong shape: the batch comes first, (batch, *event). Try x[None] for a single event."""


class DTypeError(IResNetError, TypeError):
    """An array has the wrong dtype, or arrays of one call differ in dtype or device; or an argument is of another kind.

    Try `like=` an array of yours where the network is made, or the backend's `asarray`.
    """


class NonFiniteError(IResNetError, ValueError):
    """An input holds NaN or infinity.

    Try to find the step that made it: `ir.certify` names the layer whose weights are not finite.
    """


class NotContractiveError(IResNetError, ValueError):
    """Lip(g) < 1 is not proved, or has been disproved by an iteration.

    Try `lipschitz=0.9` where the branch is made, `ir.certify(F)` for the tightest bound, or `ir.ResidualBlock(g, lipschitz=…)` for a
    constant that you know.
    """


class HostArithmeticError(IResNetError, ArithmeticError):
    """The host flushes subnormal numbers to zero: nothing is proved of weights in such arithmetic.

    Try torch.set_flush_denormal(False), and no library that was built with -ffast-math.
    """


class InfiniteVarianceError(IResNetError, ValueError):
    """A distribution of the series length for which the variance is not proved finite from the Lipschitz bound.

    Try `ir.roulette.near_optimal(L)`, the default, or `ir.Roulette(…, allow_infinite_variance=True)` if you know better.
    """


class ConvergenceError(IResNetError, RuntimeError):
    """An iteration ended above its tolerance. Try a larger rtol, float64, or more max_evaluations.

    `result` is the best `Inverse` reached, `floor` the relative residual per row below which
    rounding does not let any method go.
    """

    def __init__(self, message: str, result: object = None, floor: object = None) -> None:
        super().__init__(message)
        self.result = result
        self.floor = floor


class DivergedError(NonFiniteError):
    """A training met a loss, gradient or new weights that are not finite; `state` is the last whose loss and gradient were.

    Try a smaller learning_rate, or `clip=1.0` in `ir.training.Settings`, from that state on.
    """

    def __init__(self, message: str, state: object = None) -> None:
        super().__init__(message)
        self.state = state
