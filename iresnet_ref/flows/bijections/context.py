"""Conditioning on a context: y = x + U h, a translation that depends on h; log-determinant 0.

In front of a residual block it makes F(x + Uh) = (x + Uh) + g(x + Uh), whose first layer is W₁x + Vh + b with V = W₁U. For a
given h that is the block itself at another point: its certificate, its inverse with all bounds and its log-determinant hold as they
are, whatever U, since Lip(g) is asked for in x alone. What h does is bounded by nothing; h may be the output of any network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, every_row, expand_rows, from_host, namespace, public, row_norm, size, whole_number
from iresnet_ref.arrays.validation import require_alike, require_batch, require_event
from iresnet_ref.errors import ShapeError
from iresnet_ref.flows.bijections.protocol import ClosedForm, Options, Pulled
from iresnet_ref.jacobian.factors import outer
from iresnet_ref.probes import Probes


@public
@dataclass(frozen=True)
class ContextShift(ClosedForm):
    """y = x + U h: U of shape (channels, k) moves the channels of events (channels, …), h = `context` of shape (batch, k) or (1, k).

    `condition(h)` sets the context, `condition(None)` takes it away; so does `Flow.condition`, for all steps of a flow. While it is set it
    is a parameter: gradients then have h̄ under "context".
    Limits: the way back is off by the rounding of the sum, a few u(|y| + |U h|).
    The log-determinant is 0. Raises: ShapeError for a weight or a context that does not fit, DTypeError.

    >>> import numpy as np, iresnet_ref as ir
    >>> ContextShift(np.asarray([[1.0], [-1.0]]), (2,)).condition(np.asarray([[3.0]]))(np.zeros((1, 2))).tolist()
    [[3.0, -3.0]]
    """

    weight: Array
    event_shape: tuple[int, ...]
    context: Array | None = None

    def __post_init__(self) -> None:
        channels = tuple(self.event_shape)[:1]
        if not channels or tuple(self.weight.shape)[:-1] != channels:
            raise ShapeError(
                f"context shift: expected a weight of shape (channels, k) for events {self.event_shape}, got {tuple(self.weight.shape)}; "
                "try ContextShift.random(event_shape, k)"
            )
        if self.context is not None:
            require_batch(self.context, tuple(self.weight.shape[1:]), "context", check=False)
            require_alike(self.context, self.weight, "context")

    @classmethod
    @public
    def random(cls, event_shape: tuple[int, ...], k: int, *, seed: int = 0, like: Array | None = None) -> ContextShift:
        """Return one with U drawn from N(0, 1/k); `like` gives namespace, dtype and device (default: NumPy float64)."""
        require_event(event_shape, "context shift")
        whole_number("context shift: k", k, 1)
        draw = Probes(seed=seed, kind="gaussian").gaussians(1, event_shape[0] * k).reshape(event_shape[0], k) / math.sqrt(k)
        return cls(from_host(draw, np.zeros(1) if like is None else like), tuple(event_shape))

    @public
    def condition(self, context: Array | None) -> ContextShift:
        """Return it with this context. Raises ShapeError, DTypeError."""
        return replace(self, context=context)

    def parameters(self) -> dict[str, Array]:
        """Return U, and the context where it is set."""
        return {"weight": self.weight} if self.context is None else {"weight": self.weight, "context": self.context}

    def _context(self, x: Array) -> Array:
        """Return h for the rows of x. Raises ShapeError where there is none, or another number of rows."""
        if self.context is None or self.context.shape[0] not in (1, x.shape[0]):
            got = "none" if self.context is None else f"{self.context.shape[0]}"
            raise ShapeError(
                f"context shift: expected one row of context for each of {x.shape[0]} events, got {got}; try flow.condition(context)"
            )
        return self.context

    def _shift(self, weight: Array, context: Array) -> Array:
        """Return U h, broadcast over pixels."""
        xp = namespace(weight)
        return expand_rows(xp.matmul(context, xp.matrix_transpose(weight)), len(self.event_shape) - 1)

    def value(self, x: Array) -> Array:
        """Return x + U h."""
        return x + self._shift(self.weight, self._context(x))

    def inverse_value(self, y: Array) -> Array:
        """Return y − U h."""
        return y - self._shift(self.weight, self._context(y))

    def log_abs_det(self, x: Array, y: Array) -> Array:
        """Return 0."""
        return every_row(x)

    def rounding(self, x: Array, y: Array) -> Array:
        """|x̂ − x| ≤ γ_k|U||h| + u|x̂|, entry by entry, rounded up."""
        xp, u, n, k = namespace(x), rounding.unit_roundoff(x), size(self.event_shape), self.weight.shape[1]
        magnitude = self._shift(xp.abs(self.weight), xp.abs(self._context(x)))
        entries = rounding.gamma(k, u) * magnitude + u * xp.abs(x)
        return row_norm(entries, x.ndim - 1) * (1.0 + (2 * n + 2 * k + 64) * u) + 4.0 * n * (k + 1) * rounding.smallest_normal(x)

    def pullback(self, x: Array, y_bar: Array, weights: Array | None, options: Options) -> Pulled:
        """x̄ = ȳ, Ū = Σ s̄hᵀ, h̄ = Uᵀs̄, with s̄ = ȳ summed over pixels."""
        xp, context = namespace(x), self._context(x)
        s_bar = xp.sum(y_bar, axis=tuple(range(2, y_bar.ndim))) if y_bar.ndim > 2 else y_bar
        h_bar = xp.matmul(s_bar, self.weight)
        if context.shape[0] == 1:
            h_bar = xp.sum(h_bar, axis=0, keepdims=True)
        return y_bar, {"weight": outer(s_bar, context), "context": h_bar}

    @property
    def inverse_lipschitz(self) -> float:
        """1."""
        return 1.0
