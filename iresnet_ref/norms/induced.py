"""Operator norms ‖W‖_{p→q} = sup ‖Wx‖_q/‖x‖_p that have a closed form, and their proved upper bounds ([C19] §4).

    ‖W‖_{1→q} = max_j ‖W e_j‖_q,      ‖W‖_{p→∞} = max_i ‖eᵢᵀW‖_{p*},  1/p + 1/p* = 1,      ‖W‖_{2→2} = σ₁(W).

The first: x ↦ ‖Wx‖_q is convex, so its maximum over the 1-ball is at a vertex ±e_j. The second is Hölder's inequality,
attained. Every other pair is refused: ‖W‖_{p→q} is NP-hard in general, and power iteration only bounds it from below.

F = id + g is inverted by Banach in any norm of the events in which Lip(g) < 1. The layers of g then form a *closed* chain of
norms p₀ → p₁ → ⋯ → p₀ of proved operators. From ∞ only ∞ → ∞ is proved, to 1 only 1 → 1, and from 2 only 2 → 2 and 2 → ∞,
so a closed chain of proved norms is constant: all 1, all 2 or all ∞. That is what `norm=` of a branch chooses.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from iresnet_ref.arrays import HostArray
from iresnet_ref.norms.dense import norm_bound
from iresnet_ref.norms.host_arithmetic import require_gradual_underflow
from iresnet_ref.rounding import FLOAT64_ROUNDOFF, up

CLOSED = (1.0, 2.0, math.inf)
"""The norms p whose p → p operator norm has a closed form."""


def require_norm(p: float) -> None:
    """Refuse a norm of the events in which no contraction can be proved. Raises ValueError.

    >>> require_norm(3.0)
    Traceback (most recent call last):
    ...
    ValueError: norm: expected 1, 2 or inf, the norms p whose operator norm p→p has a closed form, got 3.0; try norm=2
    """
    if p not in CLOSED:
        raise ValueError(f"norm: expected 1, 2 or inf, the norms p whose operator norm p→p has a closed form, got {p}; try norm=2")


def induced_norm_bound(weight: HostArray, p: float, q: float) -> float:
    """Return a proved upper bound on ‖W‖_{p→q}, tight to rounding, for the pairs 2→2, 1→q and p→∞; W (out, in).

    The bound is inf where W is not finite. Raises ValueError for p or q below 1, and for pairs without a closed form.

    >>> w = np.asarray([[3.0, -4.0], [0.0, 1.0]])
    >>> [round(induced_norm_bound(w, p, q), 12) for p, q in ((1, 1), (1, np.inf), (np.inf, np.inf), (2, np.inf))]
    [5.0, 4.0, 7.0, 5.0]
    """
    if not (p >= 1.0 and q >= 1.0):
        raise ValueError(f"induced norm: expected p ≥ 1 and q ≥ 1, got {p}→{q}; a smaller exponent gives no norm")
    require_gradual_underflow()
    w = np.asarray(weight, dtype=np.float64)
    if p == 1.0:
        return _largest(w.T, q)
    if q == math.inf:
        return _largest(w, _dual(p))
    if p == 2.0 and q == 2.0:
        return norm_bound(w)
    raise ValueError(
        f"induced norm: expected one of the pairs with a closed form, 1→q, p→∞ or 2→2, got {p}→{q}: it is NP-hard in general, "
        "and an iterative estimate is a lower bound that proves nothing; try norm=1, 2 or inf"
    )


def sum_norm_bound(weight: HostArray, p: float) -> float:
    """Return a proved bound on ‖A‖_p and ‖|A|‖_p, p = 1 or ∞, of a matrix or of the convolution with a kernel (out, in, kh, kw).

    An input (p = 1), or an output (p = ∞), meets every entry of its channel at most once.

    >>> [round(sum_norm_bound(np.ones((2, 3)), p), 12) for p in (1.0, math.inf)]
    [2.0, 3.0]
    """
    rows = weight if p == math.inf else weight.swapaxes(0, 1)
    return induced_norm_bound(rows.reshape(rows.shape[0], -1), math.inf, math.inf)


def induced_norm_slope(weight: HostArray, p: float, spectral: Callable[[], tuple[float, HostArray]]) -> tuple[float, HostArray]:
    """Return (σ, ∂σ/∂W), σ = ‖A‖_p: of the largest sum of moduli the signs, at a tie of the first one; for p = 2 what `spectral` finds.

    >>> induced_norm_slope(np.asarray([[1.0, -3.0], [2.0, 0.0]]), math.inf, NotImplemented)[1].tolist()
    [[1.0, -1.0], [0.0, 0.0]]
    """
    if p == 2.0:
        return spectral()
    channel = 0 if p == math.inf else 1
    others = tuple(axis for axis in range(weight.ndim) if axis != channel)
    sums = np.abs(weight).sum(axis=others)
    largest = np.arange(sums.size, dtype=np.intp) == np.argmax(sums)
    return float(sums.max()), np.sign(weight) * np.expand_dims(largest, others)


def stacked_norm_bound(first: float, second: float, inner: float, p: float) -> float:
    """Return a bound on ‖[η₁I; η₂A]‖_p, p = 1, 2 or ∞, from bounds on η₁, η₂ with η₁² + η₂² = 1 and on ‖A‖_p.

    >>> stacked_norm_bound(0.6, 0.8, 2.0, math.inf), 1.7 < stacked_norm_bound(0.6, 0.8, 2.0, 2.0) < 1.71
    (1.6, True)
    """
    if p == math.inf:
        return max(first, second * inner)
    if p == 1.0:
        return up(first + second * inner)
    return min(up(math.hypot(first, second * inner)), max(1.0, inner))  # the latter whatever η is


def of_norm(p: float) -> str:
    """Return how reasons name the norm that something is proved in, the 2-norm unless they say another.

    >>> of_norm(2.0), of_norm(1.0)
    ('', ' in the 1-norm')
    """
    return "" if p == 2.0 else f" in the {p:g}-norm"


def _dual(p: float) -> float:
    """Return at most p/(p − 1): of two exponents the smaller has the larger norm."""
    return 1.0 if p == math.inf else max(1.0, p / (p - 1.0) * (1.0 - 4.0 * FLOAT64_ROUNDOFF))


def _largest(rows: HostArray, p: float) -> float:
    """Return an upper bound on max_i ‖row_i‖_p.

    For 1 < p < ∞ the entries are divided by the largest, so that the largest sum of p-th powers is in [1, n]: the division
    moves the root by u, powers accurate to 8u by 8u/p, the sum by nu/p, exp and log by 8u(1 + log n).
    """
    size = float(np.abs(rows).max(initial=0.0))
    if p == math.inf or size == 0.0 or not math.isfinite(size):
        return size if math.isfinite(size) else math.inf
    n = rows.shape[1]
    if p == 1.0:
        return up(float(np.abs(rows).sum(axis=1).max()), n)
    power = float(((np.abs(rows) / size) ** p).sum(axis=1).max())
    return math.nextafter(up(math.exp(math.log(power) / p) * size, n + 32 + 8 * math.ceil(math.log(power))), math.inf)
