"""The invertible 1×1 convolution W = P L U over channels, with log|det W| = Σs exactly (Glow, arXiv 1807.03039, §3.2).

P is a fixed permutation, L unit lower triangular, U upper triangular with the diagonal ±eˢ of fixed signs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import (
    Array,
    HostArray,
    device,
    every_row,
    from_host,
    indices,
    namespace,
    public,
    row_norm,
    size,
    to_host,
)
from iresnet_ref.arrays.validation import require_event
from iresnet_ref.errors import ShapeError
from iresnet_ref.flows.bijections.protocol import ClosedForm, Options, Pulled
from iresnet_ref.norms.dense import absolute_norm_bound, norm_bound
from iresnet_ref.probes import Probes


@public
@dataclass(frozen=True)
class PLULinear(ClosedForm):
    """y = P L U x over the channels of each pixel; events (channels,) or (channels, height, width).

    Of `lower` and `upper`, (channels, channels), the strict triangles count; `log_scale` s is (channels,).
    log|det dy/dx| = Σs times the number of pixels. Raises: ShapeError for factors that do not fit.
    Limits: the inverse multiplies by L⁻¹ and U⁻¹; its proved error is ‖W⁻¹‖ times the rounding of the residual and grows with ‖|L|‖‖|U|‖.
    Reference: Kingma and Dhariwal, *Glow*, 2018, arXiv 1807.03039, §3.2.

    >>> import numpy as np
    >>> m = PLULinear.rotation((3,), seed=1, like=np.zeros(1))
    >>> y, log_det = m.forward(np.ones((2, 3)))
    >>> bool(np.allclose(m.inverse(y).x, 1.0)), bool(abs(log_det.value[0]) < 1e-14)
    (True, True)
    """

    lower: Array
    upper: Array
    log_scale: Array
    event_shape: tuple[int, ...]
    order: tuple[int, ...]
    signs: tuple[float, ...]

    def __post_init__(self) -> None:
        require_event(self.event_shape, "PLU linear")
        n = self.event_shape[0]
        shapes = [tuple(p.shape) for p in (self.lower, self.upper, self.log_scale)]
        placed = sorted(self.order) == list(range(n)) and len(self.signs) == n and {*self.signs} <= {1.0, -1.0}
        if shapes != [(n, n), (n, n), (n,)] or not placed:
            raise ShapeError(
                f"PLU linear: expected lower and upper ({n}, {n}), log_scale ({n},), an order of {n} channels and as many signs ±1, "
                f"got {shapes}, {self.order}, {self.signs}; try PLULinear.rotation(event_shape)"
            )

    @classmethod
    @public
    def rotation(cls, event_shape: tuple[int, ...], *, seed: int = 0, like: Array | None = None) -> PLULinear:
        """Return a random rotation: the same on every backend, for the same seed."""
        require_event(event_shape, "PLU linear")
        n = event_shape[0]
        draw = Probes(seed=seed, kind="gaussian").gaussians(1, n * n).reshape(n, n)
        order, lower, upper = _plu(np.linalg.qr(draw)[0])
        like = np.zeros(1) if like is None else like
        diagonal = np.diag(upper)
        return cls(
            from_host(np.tril(lower, -1), like),
            from_host(np.triu(upper, 1), like),
            from_host(np.log(np.abs(diagonal)), like),
            tuple(event_shape),
            order,
            tuple(float(s) for s in np.sign(diagonal)),
        )

    def parameters(self) -> dict[str, Array]:
        """Return the triangles and the log-scale."""
        return {"lower": self.lower, "upper": self.upper, "log_scale": self.log_scale}

    @property
    def _factors(self) -> tuple[Array, Array]:
        """L and U."""
        xp = namespace(self.lower)
        identity = xp.eye(len(self.order), dtype=self.lower.dtype, device=device(self.lower))
        signs = from_host(np.asarray(self.signs), self.lower)
        return xp.tril(self.lower, k=-1) + identity, xp.triu(self.upper, k=1) + identity * (signs * xp.exp(self.log_scale))

    def _pixels(self, x: Array) -> Array:
        return namespace(x).reshape(x, (x.shape[0], len(self.order), size(self.event_shape[1:])))

    def value(self, x: Array) -> Array:
        """Return P L U x."""
        xp = namespace(x)
        lower, upper = self._factors
        y = xp.matmul(lower, xp.matmul(upper, self._pixels(x)))
        return xp.reshape(xp.take(y, indices(np.asarray(self.order), y), axis=1), x.shape)

    def inverse_value(self, y: Array) -> Array:
        """Return U⁻¹L⁻¹Pᵀy."""
        xp = namespace(y)
        lower, upper = self._factors
        z = xp.take(self._pixels(y), indices(np.argsort(self.order), y), axis=1)
        z = xp.matmul(inverse_of_lower(lower), z)
        upper_inverse = xp.matrix_transpose(inverse_of_lower(xp.matrix_transpose(upper)))
        return xp.reshape(xp.matmul(upper_inverse, z), y.shape)

    def log_abs_det(self, x: Array, y: Array) -> Array:
        """Return pixels·Σs."""
        return every_row(x) + size(self.event_shape[1:]) * namespace(x).sum(self.log_scale)

    def rounding(self, x: Array, y: Array) -> Array:
        """‖W⁻¹‖(‖r̂‖ + ρ), r̂ = y − Wx as computed, ρ ≤ γ(‖|L|‖‖|U|‖‖x‖ + ‖y‖) its rounding, that of eˢ included."""
        u, n = rounding.unit_roundoff(x), len(self.order)
        inverse, product = self._norms
        event = x.ndim - 1
        rho = rounding.gamma(2 * n + 2 * rounding.ELEMENTARY + 8, u) * (product * row_norm(x, event) + row_norm(y, event))
        m = size(self.event_shape)
        total = (row_norm(y - self.value(x), event) + rho) * (1.0 + (2 * m + 64) * u)
        return inverse * (total + 4.0 * m * rounding.smallest_normal(x))

    @cached_property
    def _norms(self) -> tuple[float, float]:
        """Proved bounds, in host float64, on ‖W⁻¹‖₂ and on (1 + 1/least |U_ii|)·‖|L|‖‖|U|‖."""
        lower, upper = (np.asarray(to_host(a), dtype=np.float64) for a in self._factors)
        inverse = rounding.up(inverse_norm_bound(lower) * inverse_norm_bound(upper.T), 1)
        # fl eˢ is accurate to 8u(eˢ + 1): relative to the diagonal that is 8u(1 + 1/|U_ii|).
        least = float(np.abs(np.diag(upper)).min())
        product = absolute_norm_bound(lower) * absolute_norm_bound(upper) * (1.0 + (1.0 / least if least > 0.0 else np.inf))
        return inverse * (1.0 + 2.0**-20), rounding.up(product, 4)

    @property
    def inverse_lipschitz(self) -> float:
        """A proved bound on ‖W⁻¹‖₂; inf where none is proved."""
        return self._norms[0]

    def pullback(self, x: Array, y_bar: Array, weights: Array | None, options: Options) -> Pulled:
        """With a = Ux: L̄ = c̄aᵀ, ā = Lᵀc̄ for c̄ = Pᵀȳ; Ū = āxᵀ, s̄ = diag(Ū)·diag(U) + pixels·Σw, x̄ = Uᵀā."""
        xp = namespace(x)
        lower, upper = self._factors
        flat = self._pixels(x)
        c_bar = xp.take(self._pixels(y_bar), indices(np.argsort(self.order), x), axis=1)
        a_bar = xp.matmul(xp.matrix_transpose(lower), c_bar)
        of_lower = xp.sum(xp.matmul(c_bar, xp.matrix_transpose(xp.matmul(upper, flat))), axis=0)
        of_upper = xp.sum(xp.matmul(a_bar, xp.matrix_transpose(flat)), axis=0)
        identity = xp.eye(len(self.order), dtype=x.dtype, device=device(x))
        slope = xp.sum(of_upper * upper * identity, axis=-1)
        if weights is not None:
            slope = slope + size(self.event_shape[1:]) * xp.sum(weights)
        gradients = {"lower": xp.tril(of_lower, k=-1), "upper": xp.triu(of_upper, k=1), "log_scale": slope}
        return xp.reshape(xp.matmul(xp.matrix_transpose(upper), a_bar), x.shape), gradients


def inverse_of_lower(a: Array) -> Array:
    """Return A⁻¹ of a lower triangular matrix: [[A, 0], [B, C]]⁻¹ = [[A⁻¹, 0], [−C⁻¹BA⁻¹, C⁻¹]]."""
    n = a.shape[0]
    if n == 1:
        return 1.0 / a
    xp, k = namespace(a), n // 2
    first, last = inverse_of_lower(a[:k, :k]), inverse_of_lower(a[k:, k:])
    corner = -xp.matmul(last, xp.matmul(a[k:, :k], first))
    right = xp.zeros((k, n - k), dtype=a.dtype, device=device(a))
    return xp.concat([xp.concat([first, right], axis=1), xp.concat([corner, last], axis=1)], axis=0)


def inverse_norm_bound(a: HostArray) -> float:
    """Return a proved bound on ‖A⁻¹‖₂ of a lower triangular float64 matrix: ‖R‖/(1 − ‖I − RA‖) for R ≈ A⁻¹; inf if not proved.

    >>> 2.0 <= inverse_norm_bound(np.diag([0.5, 1.0])) < 2.0 + 1e-12
    True
    """
    n = a.shape[0]
    if not np.isfinite(a).all() or not np.diag(a).all():
        return np.inf
    r = np.asarray(inverse_of_lower(a))
    if not np.isfinite(r).all():
        return np.inf
    u = rounding.FLOAT64_ROUNDOFF
    defect = float(np.linalg.norm(np.eye(n) - r @ a)) + rounding.gamma(n + 2, u) * float(np.linalg.norm(np.abs(r) @ np.abs(a)))
    defect = rounding.up(defect, 2 * n * n + 8)
    return rounding.up(norm_bound(r) / (1.0 - defect), 4) if defect < 1.0 else np.inf


def _plu(w: HostArray) -> tuple[tuple[int, ...], HostArray, HostArray]:
    """Return (order, L, U) with W = (LU)[order], by elimination with row pivoting on the host."""
    n = w.shape[0]
    rows, lower, upper = np.arange(n, dtype=np.intp), np.eye(n), w.copy()
    for k in range(n - 1):
        p = k + int(np.argmax(np.abs(upper[k:, k])))
        upper[[k, p]], rows[[k, p]] = upper[[p, k]], rows[[p, k]]
        lower[[k, p], :k] = lower[[p, k], :k]
        lower[k + 1 :, k] = upper[k + 1 :, k] / upper[k, k]
        upper[k + 1 :] -= lower[k + 1 :, k : k + 1] * upper[k]
    return tuple(int(i) for i in np.argsort(rows)), lower, np.triu(upper)
