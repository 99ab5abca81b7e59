"""Base densities of flows, and what is computed from log p: bits per dimension."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, Self, runtime_checkable

from iresnet_ref.arrays import Array, device, flatten_events, from_host, namespace, public, size, whole_number
from iresnet_ref.arrays.validation import require_alike, require_batch, require_event, require_parameters
from iresnet_ref.errors import ShapeError
from iresnet_ref.log_determinant.result import LogDet
from iresnet_ref.probes import Probes


@dataclass(frozen=True)
class LogProb:
    """log p(x) in nats, one entry per row: `value`, with the `standard_error` and `bias_bound` of its `log_det`.

    The standard error is 0 for exact log-determinants and NaN from fewer than 8 replicates, as in `ir.LogDet`.

    Raises: nothing; `interval` raises ValueError for one that no flow returned.

    >>> import numpy as np, iresnet_ref as ir
    >>> flow = ir.Flow([ir.ResidualBlock(ir.mlp((2, 8, 2)))])
    >>> low, high = flow.log_prob(np.ones((3, 2))).interval()
    >>> bool(np.all(low <= high))
    True
    """

    value: Array
    standard_error: Array
    bias_bound: Array
    log_det: LogDet | None = None

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Return (low, high), meant to contain log p(x) with this probability: `LogDet.interval`, moved by log p_Z."""
        if self.log_det is None:
            raise ValueError("interval: expected a LogProb that a flow returned, got one without log_det; try flow.log_prob(x)")
        low, high = self.log_det.interval(level)
        return self.value + (low - self.log_det.value), self.value + (high - self.log_det.value)


@dataclass(frozen=True)
class BitsPerDimension:
    """Bits per dimension, one entry per row, with its standard error and bias bound.

    Lower is better; bits are nats/log 2. From `Flow.bits_per_dimension`.

    >>> import numpy as np, iresnet_ref as ir
    >>> flow = ir.Flow([ir.ResidualBlock(ir.mlp((2, 8, 2)))])
    >>> tuple(flow.bits_per_dimension(np.ones((3, 2))).value.shape)
    (3,)
    """

    value: Array
    standard_error: Array
    bias_bound: Array


@public
def bits_per_dimension(log_prob: LogProb, dimensions: int, *, levels: int = 1) -> BitsPerDimension:
    """Return −log₂ p(x)/d, plus log₂(levels) where the data had been divided by `levels` before the flow saw it.

    d counts the numbers of one data event, before any padding. For bytes: levels = 1 if the flow takes values in [0, 256]
    (`ir.bijections.Logit` with levels=256), levels = 256 if it takes them divided by 256: the density of x/256 is 256ᵈ times that of x.
    Uniform bytes have 8 bits per dimension in either way. Limits: a few roundings more than log p(x) has.
    Reference: Theis et al. 2016, arXiv 1511.01844.
    Raises: ValueError for dimensions or levels below 1.

    >>> import numpy as np
    >>> zero = np.zeros(1)
    >>> bits_per_dimension(LogProb(zero, zero, zero), 784, levels=256).value.tolist()
    [8.0]
    """
    if dimensions < 1 or levels < 1:
        raise ValueError(f"bits_per_dimension: expected dimensions ≥ 1 and levels ≥ 1, got {dimensions} and {levels}; try levels=1")
    per = 1.0 / (dimensions * math.log(2.0))
    return BitsPerDimension(math.log2(levels) - log_prob.value * per, log_prob.standard_error * per, log_prob.bias_bound * per)


@runtime_checkable
class Base(Protocol):
    """A density on events of `event_shape` that can be drawn from."""

    @property
    def event_shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def like(self) -> Array:
        """An array: it carries namespace, dtype and device of what is drawn."""
        ...

    def log_prob(self, z: Array) -> Array:
        """Return log p(z) per row."""
        ...

    def sample(self, n: int, *, seed: int = 0) -> Array:
        """Return n draws; row i depends on the seed and i alone."""
        ...

    def parameters(self) -> dict[str, Array]:
        """Return the parameters by name."""
        ...

    def with_parameters(self, parameters: Mapping[str, Array]) -> Self:
        """Return the density with these parameters."""
        ...

    def pullback(self, z: Array, weights: Array) -> tuple[Array, dict[str, Array]]:
        """Return (z̄, gradients) of Σ_b w_b log p(z_b)."""
        ...


@public
@dataclass(frozen=True)
class StandardGaussian:
    """N(0, I) on events of `event_shape`; `like` carries namespace, dtype and device (its values do not matter).
    log p(z) = −‖z‖²/2 − (d/2) log 2π, in nats. Raises: ShapeError for an event shape that is none.

    >>> import numpy as np
    >>> np.round(StandardGaussian((2,), np.zeros(1)).log_prob(np.zeros((1, 2))), 4).tolist()
    [-1.8379]
    """

    event_shape: tuple[int, ...]
    like: Array

    def __post_init__(self) -> None:
        require_event(self.event_shape, "gaussian")
        xp = namespace(self.like)
        object.__setattr__(self, "like", xp.zeros((0,), dtype=self.like.dtype, device=device(self.like)))

    @public
    def log_prob(self, z: Array) -> Array:
        """Return −‖z‖²/2 − (d/2) log 2π."""
        require_events(z, self.event_shape, self.like)
        return -0.5 * _sum_of_squares(z) - _log_normaliser(z)

    @public
    def sample(self, n: int, *, seed: int = 0) -> Array:
        """Return n draws, the same on every backend up to the rounding to its dtype."""
        whole_number("sample: n", n, 0)
        draws = Probes(seed=seed, kind="gaussian").gaussians(n, size(self.event_shape))[0]
        return from_host(draws.reshape(n, *self.event_shape), self.like)

    def parameters(self) -> dict[str, Array]:
        """None."""
        return {}

    @public
    def with_parameters(self, parameters: Mapping[str, Array]) -> StandardGaussian:
        """Return itself."""
        return self

    def pullback(self, z: Array, weights: Array) -> tuple[Array, dict[str, Array]]:
        """z̄ = −wz."""
        return -z * _wide(weights, z), {}


@public
@dataclass(frozen=True)
class DiagonalGaussian:
    """N(mean, diag(e^{2·log_scale})), both parameters of the event shape, and trainable.
    Limits: e^{−log_scale} overflows for log_scale < −88 in float32, −709 in float64: log p is then −inf or NaN.
    Units: nats. Raises: ShapeError for a scale of another shape than the mean, DTypeError.

    >>> import numpy as np
    >>> DiagonalGaussian(np.ones(2), np.zeros(2)).sample(3).shape
    (3, 2)
    """

    mean: Array
    log_scale: Array

    def __post_init__(self) -> None:
        if tuple(self.mean.shape) != tuple(self.log_scale.shape) or not self.mean.shape:
            raise ShapeError(
                f"gaussian: expected mean and log_scale of one event shape, got {tuple(self.mean.shape)} and "
                f"{tuple(self.log_scale.shape)}; try zeros of the event shape"
            )

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of the mean."""
        return tuple(self.mean.shape)

    @property
    def like(self) -> Array:
        """The mean."""
        return self.mean

    def _standard(self, z: Array) -> Array:
        return (z - self.mean) * namespace(z).exp(-self.log_scale)

    @public
    def log_prob(self, z: Array) -> Array:
        """Return the standard density of (z − mean)e^{−log_scale}, minus Σ log_scale."""
        require_events(z, self.event_shape, self.like)
        return -0.5 * _sum_of_squares(self._standard(z)) - _log_normaliser(z) - namespace(z).sum(self.log_scale)

    @public
    def sample(self, n: int, *, seed: int = 0) -> Array:
        """Return mean + e^{log_scale}·(standard draws)."""
        z = StandardGaussian(self.event_shape, self.mean).sample(n, seed=seed)
        return self.mean + z * namespace(z).exp(self.log_scale)

    def parameters(self) -> dict[str, Array]:
        """Return the mean and the log-scale."""
        return {"mean": self.mean, "log_scale": self.log_scale}

    @public
    def with_parameters(self, parameters: Mapping[str, Array]) -> DiagonalGaussian:
        """Return the density with these parameters."""
        require_parameters(parameters, self.parameters())
        return replace(self, **parameters)

    def pullback(self, z: Array, weights: Array) -> tuple[Array, dict[str, Array]]:
        """With e = (z − m)e^{−s}: z̄ = −w e e^{−s}, m̄ = −Σz̄, s̄ = Σ w(e² − 1)."""
        xp = namespace(z)
        e, w = self._standard(z), _wide(weights, z)
        z_bar = -w * e * xp.exp(-self.log_scale)
        return z_bar, {"mean": -xp.sum(z_bar, axis=0), "log_scale": xp.sum(w * (e * e - 1.0), axis=0)}


def require_events(z: Array, event_shape: tuple[int, ...], like: Array) -> None:
    """Refuse what is no batch of events of this shape, like the base's arrays; values are not looked at. Raises ShapeError, DTypeError."""
    require_batch(z, event_shape, "z", check=False)
    require_alike(z, like, "z")


def _sum_of_squares(z: Array) -> Array:
    flat = flatten_events(z, z.ndim - 1)
    return namespace(z).sum(flat * flat, axis=-1)


def _log_normaliser(z: Array) -> Array:
    """Return (d/2) log 2π, at the working precision of the namespace."""
    xp = namespace(z)
    one = xp.ones((), dtype=z.dtype, device=device(z))
    return 0.5 * size(tuple(z.shape[1:])) * xp.log(8.0 * xp.atan(one))


def _wide(weights: Array, z: Array) -> Array:
    return namespace(z).reshape(weights, (-1, *(1,) * (z.ndim - 1)))
