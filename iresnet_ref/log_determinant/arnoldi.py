"""Arnoldi quadrature: vᵀlog(I + J)v ≈ ‖v‖² e₁ᵀlog(I + H)e₁, H = QᵀJQ on the Krylov space of k products. Biased.

e₁ᵀHʲe₁‖v‖² = vᵀJʲv for j ≤ k (Saad, *Analysis of some Krylov subspace approximations*, 1992, Lemma 3.1), so with ‖H‖ ≤ ‖J‖ ≤ L
both sides differ from the series cut at k by at most ‖v‖² Σ_{j>k} Lʲ/j each; in expectation the trace's side by r of it, r the
rank of J: |bias| ≤ (r + d) Σ_{j>k} Lʲ/j. That is at least the bound of the series with k terms; the true bias is usually far
smaller: 1e2–1e4 times for spectra that are nearly real, not at all for eigenvalues that fill a disc.

The logarithm of the small matrix is ∫₀¹ e₁ᵀH(I + tH)⁻¹e₁ dt by Gauss–Legendre nodes, σ/(1 + tσ) at each, where σ is what
elimination of I + tH from its last row leaves at the first entry. Its pivots are positive, for ‖H‖ < 1. The integrand is analytic for
|t| < 1/L only: [0, 1] is cut at 1 − ½, 1 − ¼, … until the last piece is no longer than 1 − L, with the same few nodes in each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import HostArray, device, from_host, namespace, size
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.log_determinant.bounds import truncation_bound
from iresnet_ref.log_determinant.series import SeriesEstimator, divisor, replaced_terms
from iresnet_ref.log_determinant.variance import square_moment
from iresnet_ref.probes import Probes


def arnoldi_logdet(chain: Chain, v: Any, steps: int, lipschitz: float, traces: Sequence[Any] = ()) -> Any:
    """Return ‖v‖² e₁ᵀlog(I + H)e₁ for each probe and row, H of order `steps` ≤ d, the first len(traces) ≤ steps terms exact."""
    columns = hessenberg(chain, v, steps)
    xp = namespace(v)
    flat = xp.reshape(v, (*v.shape[:2], size(chain.in_shape)))
    value = log_first_entry(columns, lipschitz)
    powers = [columns[0][..., 0]]  # e₁ᵀHʲe₁ for j = 1, 2
    if steps > 1:
        powers.append(columns[0][..., 0] * columns[0][..., 0] + columns[0][..., 1] * columns[1][..., 0])
    for k, _ in enumerate(traces, start=1):
        value = value - powers[k - 1] / divisor(k)
    return replaced_terms(traces, value) + xp.sum(flat * flat, axis=-1) * value


def hessenberg(chain: Chain, v: Any, steps: int) -> list[Any]:
    """Return the columns of H, column j with its entries 0 … j + 1 (the last one without the entry below the diagonal).

    Gram–Schmidt twice. Where Jq lies in the space to rounding, the next vector is 0: the process has ended there.
    """
    xp = namespace(v)
    lead, d = tuple(v.shape[:2]), size(chain.in_shape)
    tiny = 8.0 * d * rounding.unit_roundoff(v)
    q = xp.reshape(v, (*lead, 1, d))
    basis = q / xp.sqrt(xp.sum(q * q, axis=-1, keepdims=True))
    columns: list[Any] = []
    for j in range(steps):
        w = xp.reshape(chain.matvec(xp.reshape(basis[..., j, :], tuple(v.shape))), (*lead, 1, d))
        length = xp.sqrt(xp.sum(w * w, axis=-1, keepdims=True))
        entries = xp.zeros((*lead, 1, j + 1), dtype=v.dtype, device=device(v))
        for _ in range(2):
            h = xp.matmul(w, xp.matrix_transpose(basis))
            w, entries = w - xp.matmul(h, basis), entries + h
        beta = xp.sqrt(xp.sum(w * w, axis=-1, keepdims=True))
        beta = xp.where(beta > tiny * length, beta, xp.zeros_like(beta))
        if j + 1 == steps:
            columns.append(entries[..., 0, :])
            break
        columns.append(xp.concat([entries, beta], axis=-1)[..., 0, :])
        unit = xp.where(beta > 0.0, w / xp.where(beta > 0.0, beta, xp.ones_like(beta)), xp.zeros_like(w))
        basis = xp.concat([basis, unit], axis=-2)
    return columns


def log_first_entry(columns: list[Any], lipschitz: float) -> Any:
    """Return e₁ᵀlog(I + H)e₁ = ∫₀¹ σ/(1 + tσ) dt for H given by its columns, ‖H‖ ≤ L < 1."""
    xp = namespace(columns[0])
    nodes, weights = graded_rule(lipschitz, columns[0])
    t = xp.reshape(nodes, (-1, 1, 1, 1))
    last = xp.expand_dims(columns[-1], axis=0)
    for j in range(len(columns) - 1, 0, -1):  # row j has one entry left of the diagonal: only column j − 1 changes
        before = xp.expand_dims(columns[j - 1], axis=0)
        ratio = t * before[..., j:] / (1.0 + t * last[..., j : j + 1])
        last = before[..., :j] - ratio * last[..., :j]
    sigma = last[..., 0]
    t = t[..., 0]
    return xp.sum(xp.reshape(weights, (-1, 1, 1)) * sigma / (1.0 + t * sigma), axis=0)


def pieces(lipschitz: float) -> int:
    """Return how many pieces [0, ½], [½, ¾], … [0, 1] is cut into: the last is at most 1/L − 1 long.

    >>> pieces(0.5), pieces(0.9), pieces(1 - 1e-12)
    (1, 5, 41)
    """
    return 1 + max(0, math.ceil(math.log2(max(lipschitz, 0.5) / (1.0 - lipschitz))))


def quadrature_order(lipschitz: float, u: float) -> int:
    """Return n with |∫₀¹ f − Gauss| ≤ u for f = e₁ᵀH(I + tH)⁻¹e₁, ‖H‖ ≤ L, and n nodes in each of the `pieces`.

    f is analytic for |t| < 1/L and |f| ≤ L/(1 − rL) for |t| ≤ r. A piece of length ℓ ends at least δ ≥ ℓ before 1/L. Of the
    ellipse with its ends as foci, the one that reaches r = .9δ further lies in that disc, and the error is at most
    (32/15) ℓ max|f| ρ^{−2n}/(1 − ρ^{−2}), ρ = z + √(z² − 1), z = 1 + 1.8δ/ℓ (Trefethen, *Approximation Theory and Practice*,
    Thm 19.3); ℓ max|f| = ℓ/(.1δ).

    >>> quadrature_order(0.5, 2.0**-53), quadrature_order(1 - 1e-12, 2.0**-53)
    (12, 13)
    """
    reach = 1.0 / max(lipschitz, 1e-3) - 1.0 if lipschitz <= 0.5 else 1.0  # the least δ/ℓ
    z = 1.0 + 1.8 * reach
    rho = z + math.sqrt(z * z - 1.0)
    largest = pieces(lipschitz) * 32.0 / 15.0 / (0.1 * reach) / (1.0 - rho**-2)
    return max(1, math.ceil(math.log(largest / u) / (2.0 * math.log(rho))))


def graded_rule(lipschitz: float, like: Any) -> tuple[Any, Any]:
    """Return the nodes and weights on [0, 1], `quadrature_order` of them in each of the `pieces`."""
    xp, count = namespace(like), pieces(lipschitz)
    nodes, weights = gauss_legendre(quadrature_order(lipschitz, rounding.unit_roundoff(like)), like)
    lengths = [*(0.5 ** (i + 1) for i in range(count - 1)), 0.5 ** (count - 1)]
    starts = [1.0 - 0.5**i for i in range(count)]
    both = [(start + length * nodes, length * weights) for start, length in zip(starts, lengths, strict=True)]
    return xp.concat([t for t, _ in both], axis=0), xp.concat([w for _, w in both], axis=0)


@lru_cache(maxsize=64)
def _host_rule(n: int) -> tuple[HostArray, HostArray]:
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return 0.5 + 0.5 * nodes, 0.5 * weights


def gauss_legendre(n: int, like: Any) -> tuple[Any, Any]:
    """Return the nodes and weights on [0, 1]; beyond float64 three Newton steps on P_n make them as accurate."""
    nodes, weights = (from_host(a, like) for a in _host_rule(n))
    if rounding.unit_roundoff(like) >= rounding.FLOAT64_ROUNDOFF:
        return nodes, weights
    x = 2.0 * nodes - 1.0
    for _ in range(3):
        p, q = x, namespace(x).ones_like(x)  # P_k, P_{k−1}
        for k in range(2, n + 1):
            p, q = ((2 * k - 1) * x * p - (k - 1) * q) / k, p
        slope = n * (x * p - q) / (x * x - 1.0)
        x = x - p / slope
    return 0.5 + 0.5 * x, 1.0 / ((1.0 - x * x) * slope * slope)


@dataclass(frozen=True)
class ArnoldiEstimator(SeriesEstimator):
    """The quadrature on the Krylov space of `terms` products."""

    def __post_init__(self) -> None:
        d = size(self.chain.in_shape)
        if self.norm != 2.0:
            raise ValueError(f"logdet: expected Lip(g) < 1 in the 2-norm for ir.Arnoldi, got the {self.norm}-norm; try ir.Roulette()")
        if self.terms > d:
            raise ValueError(f"logdet: expected at most d = {d} terms for ir.Arnoldi, got {self.terms}; try ir.Exact()")

    @property
    def random(self) -> bool:
        """Always: the terms behind the last product depend on the probe."""
        return True

    def values(self, probes: Probes, v: Any) -> tuple[Any, HostArray]:
        """Return the quadrature of each probe and row."""
        evaluations = np.full(v.shape[1], self.terms * probes.count * probes.block)
        return arnoldi_logdet(self.chain, v, self.terms, self.lipschitz, self.traces), evaluations

    def bias_bound(self, rank: int) -> float:
        """Return the bound of both sides, and the rounding of an orthonormal basis."""
        d = size(self.chain.in_shape)
        return truncation_bound(rank + d, self.lipschitz, self.terms) + d * rounding.unit_roundoff(self.chain.like)

    def variance(self, probes: Probes) -> float:
        """Return the second moment: |vᵀf(H)v| ≤ ‖v‖² Σ_{k>q} Lᵏ/k for f the logarithm without its first q terms."""
        moment = square_moment(size(self.chain.in_shape), probes.kind, probes.block)
        return moment * truncation_bound(1, self.lipschitz, len(self.traces)) ** 2
