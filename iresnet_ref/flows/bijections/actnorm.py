"""ActNorm: y = eˢ(x + b), one s and b for each channel; the first batch sets them so that y has mean 0 and variance 1.

Kingma, Dhariwal, *Glow: Generative Flow with Invertible 1×1 Convolutions*, NeurIPS 2018, arXiv 1807.03039, §3.1. It need not
be contractive: its inverse is a formula. Whether it is initialised is part of the value, hence of what is saved:
loading never makes the next batch initialise it again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, device, every_row, expand_rows, namespace, public, row_norm, size, to_host
from iresnet_ref.arrays.validation import require_event
from iresnet_ref.errors import ShapeError
from iresnet_ref.flows.bijections.protocol import ClosedForm, Options, Pulled


@public
@dataclass(frozen=True)
class ActNorm(ClosedForm):
    """y = eˢ(x + b) for events (channels, …), s = `log_scale` and b = `shift` of shape (channels,).
    log|det dy/dx| = Σs times the number of pixels. Raises: ShapeError for parameters or events
    that do not fit, ValueError before it is initialised. Limits: eˢ overflows for |s| > 88 in float32, 709 in float64; a channel that is
    constant up to rounding is initialised with scale 1. Reference: Kingma and Dhariwal, *Glow*, 2018, arXiv 1807.03039, §3.1.

    >>> import numpy as np
    >>> x = np.array([[1.0, 5.0], [3.0, 9.0]])
    >>> a = ActNorm.uninitialised((2,), like=x).initialise(x)
    >>> a(x).tolist(), a.initialised
    ([[-1.0, -1.0], [1.0, 1.0]], True)
    """

    log_scale: Array
    shift: Array
    event_shape: tuple[int, ...]
    initialised: bool = True

    def __post_init__(self) -> None:
        channels = tuple(self.event_shape)[:1]
        if not channels or any(tuple(p.shape) != channels for p in (self.log_scale, self.shift)):
            raise ShapeError(
                f"actnorm: expected log_scale and shift of shape {channels or '(channels,)'} for events {self.event_shape}, "
                f"got {tuple(self.log_scale.shape)} and {tuple(self.shift.shape)}; try ActNorm.uninitialised(event_shape)"
            )

    @classmethod
    @public
    def uninitialised(cls, event_shape: tuple[int, ...], like: Array | None = None) -> ActNorm:
        """Return one that waits for `initialise`; `like` gives namespace, dtype and device (default: NumPy float64)."""
        require_event(event_shape, "actnorm")
        like = np.zeros(1) if like is None else like
        zero = namespace(like).zeros((event_shape[0],), dtype=like.dtype, device=device(like))
        return cls(zero, zero, tuple(event_shape), initialised=False)

    @public
    def initialise(self, x: Array) -> ActNorm:
        """Return it with b = −mean and eˢ = 1/standard deviation of each channel over the batch; itself if that was done.

        A channel that is constant up to rounding keeps scale 1.
        """
        if self.initialised:
            return self
        self.require(x, "x")
        if not size(tuple(x.shape)):
            raise ShapeError(f"actnorm: expected a batch with rows to initialise from, got {tuple(x.shape)}; try at least one")
        xp = namespace(x)
        axes = (0, *range(2, x.ndim))
        mean = xp.mean(x, axis=axes)
        centred = x - self._wide(mean)
        deviation = xp.sqrt(xp.mean(centred * centred, axis=axes))
        noise = rounding.gamma(size(tuple(x.shape)) + 2, rounding.unit_roundoff(x)) * xp.max(xp.abs(x), axis=axes)
        one = xp.ones_like(mean)
        scale = xp.where(deviation > noise, deviation, one)
        return replace(self, log_scale=-xp.log(scale), shift=-mean, initialised=True)

    def parameters(self) -> dict[str, Array]:
        """Return the log-scale and the shift."""
        return {"log_scale": self.log_scale, "shift": self.shift}

    def _wide(self, p: Array) -> Array:
        return expand_rows(p, len(self.event_shape) - 1)

    def _ready(self) -> None:
        if not self.initialised:
            raise ValueError(
                "actnorm: expected initialised scales, got none; call flow = flow.initialise(batch) once, before anything else"
            )

    @property
    def _pixels(self) -> int:
        return size(self.event_shape[1:])

    def value(self, x: Array) -> Array:
        """Return eˢ(x + b)."""
        self._ready()
        return (x + self._wide(self.shift)) * self._wide(namespace(x).exp(self.log_scale))

    def inverse_value(self, y: Array) -> Array:
        """Return e⁻ˢy − b."""
        self._ready()
        return y * self._wide(namespace(y).exp(-self.log_scale)) - self._wide(self.shift)

    def log_abs_det(self, x: Array, y: Array) -> Array:
        """Return pixels·Σs."""
        return every_row(x) + self._pixels * namespace(x).sum(self.log_scale)

    def rounding(self, x: Array, y: Array) -> Array:
        """|x̂ − x| ≤ 8u(e⁻ˢ + 1)|y| + u(|e⁻ˢy| + |x̂|) entry by entry, rounded up."""
        xp, u = namespace(x), rounding.unit_roundoff(x)
        scale = self._wide(xp.exp(-self.log_scale))
        entries = rounding.ELEMENTARY * (scale + 1.0) * xp.abs(y) + 2.0 * scale * xp.abs(y) + 2.0 * xp.abs(x)
        n = size(self.event_shape)
        return row_norm(entries, x.ndim - 1) * (u * (1.0 + (2 * n + 64) * u)) + 4.0 * n * rounding.smallest_normal(x)

    def pullback(self, x: Array, y_bar: Array, weights: Array | None, options: Options) -> Pulled:
        """x̄ = eˢȳ, b̄ = Σeˢȳ, s̄ = Σȳy + pixels·Σw."""
        xp = namespace(x)
        axes = (0, *range(2, x.ndim))
        x_bar = y_bar * self._wide(xp.exp(self.log_scale))
        slope = xp.sum(x_bar * (x + self._wide(self.shift)), axis=axes)
        if weights is not None:
            slope = slope + self._pixels * xp.sum(weights)
        return x_bar, {"log_scale": slope, "shift": xp.sum(x_bar, axis=axes)}

    @property
    def inverse_lipschitz(self) -> float:
        """max e⁻ˢ."""
        least = float(np.min(to_host(self.log_scale)))
        return rounding.up(math.exp(-least), 8) if -least < 700.0 else math.inf
