"""The log-determinant's gradient taken in the forward pass, so that nothing of it is stored ([C19] §3.3, "backward-in-forward").

What a Neumann series or a determinant keeps for its reverse pass, several times the batch, is replaced by one array for
each parameter and one of the shape of x. The cotangents of the log-determinants are not known yet at that time: [C19]
takes one number for the whole batch, which is wrong where a loss weights its rows. Here the forward pass takes the
rows' weights up to a common factor, and the backward pass refuses cotangents that are not in that proportion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, every_row, public, to_host
from iresnet_ref.block import ResidualBlock
from iresnet_ref.gradient.log_determinant import logdet_gradient, require
from iresnet_ref.gradient.result import LogDetGradient
from iresnet_ref.log_determinant.methods import LogDetMethod, Name


@dataclass(frozen=True, eq=False)
class StoredGradient:
    """What is kept between the passes: x, and the gradient of Σ_b w_b log det(I + J_g(x_b)) for the weights w.

    Reference: [C19] §3.3.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> y, stored = ir.backward_in_forward(F, np.ones((3, 2)))
    >>> x_bar, gradients = stored.backward(y, np.full(3, -1.0 / 3.0))
    >>> tuple(x_bar.shape)
    (3, 2)
    """

    block: ResidualBlock
    x: Array
    weights: Array
    logdet: LogDetGradient

    def backward(self, y_bar: Array, logdet_bar: Array, *, check: bool = True) -> tuple[Array, dict[str, Array]]:
        """Return (x̄, gradients) for the cotangents ȳ (batch, *event) of F(x) and those (batch,) of the log-determinants.

        `logdet_bar` must be s·w for one number s. Raises ValueError where it is not, ShapeError, DTypeError, NonFiniteError.
        """
        require(self.block, self.x, logdet_bar, y_bar, check=check, weighted="logdet_bar")
        s = _common_factor(self.weights, logdet_bar)
        x_bar, _, gradients = self.block.pullback(self.x, y_bar=y_bar, check=False)
        total = {name: gradient + s * self.logdet.parameters[name] for name, gradient in gradients.items()}
        return x_bar + s * self.logdet.x_bar, total


@public
def backward_in_forward(
    block: ResidualBlock, x: Array, weights: Array | None = None, *, method: LogDetMethod | Name = "auto", check: bool = True
) -> tuple[Array, StoredGradient]:
    """Return (F(x), the log-determinant's gradient, taken now): the backward pass will need x and F only.

    `weights` (batch,) are the cotangents that the rows' log-determinants will get, up to a common factor that the
    backward pass supplies (default: ones, for a loss that treats its rows alike, as a mean does); `method` as in
    `logdet_gradient`. Memory kept: x, one array of its shape, and one for each parameter.

    Raises: as `logdet_gradient`. Reference: [C19] §3.3.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> y, stored = ir.backward_in_forward(F, np.ones((3, 2)))
    >>> x_bar, gradients = stored.backward(y, np.full(3, -1.0 / 3.0))
    >>> x_bar.shape
    (3, 2)
    """
    gradient = logdet_gradient(block, x, method, weights=weights, check=check)
    weights = every_row(x, 1.0) if weights is None else weights
    return x + block.branch(x), StoredGradient(block, x, weights, gradient)


def _common_factor(weights: Array, cotangents: Array) -> float:
    """Return s with cotangents = s·weights up to their rounding. Raises ValueError."""
    w, c = (to_host(a).astype(np.float64) for a in (weights, cotangents))
    if not w.any():
        s = 0.0
    else:
        largest = int(np.argmax(np.abs(w)))
        s = float(c[largest] / w[largest])
    off = np.abs(c - s * w) > 8.0 * rounding.unit_roundoff(weights) * np.maximum(np.abs(c), np.abs(s * w))
    if off.any():
        row = int(np.argmax(off))
        raise ValueError(
            f"backward: expected log-determinant cotangents in the proportion of the weights of the forward pass, got "
            f"{c[row]:.6g} on row {row} instead of {s * w[row]:.6g}; pass these weights to backward_in_forward, or use "
            "logdet_gradient in the backward pass"
        )
    return s
