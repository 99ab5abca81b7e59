"""Arnoldi quadrature: vᵀlog(I + J)v ≈ ‖v‖² e₁ᵀlog(I + H)e₁, H = QᵀJQ on the Krylov space of k products. Biased.

e₁ᵀHʲe₁‖v‖² = vᵀJʲv for j ≤ k (Saad, *Analysis of some Krylov subspace approximations*, 1992, Lemma 3.1), so with ‖H‖ ≤ ‖J‖ ≤ L
both sides differ from the series cut at k by at most ‖v‖² Σ_{j>k} Lʲ/j each; in expectation the trace's side by r of it, r the
rank of J: |bias| ≤ (r + d) Σ_{j>k} Lʲ/j. That is at least the bound of the series with k terms; the true bias is usually far
smaller, not so for eigenvalues that fill a disc, and what it is at most is proved from the space itself (`error`).

The logarithm of the small matrix is ∫₀¹ e₁ᵀH(I + tH)⁻¹e₁ dt by Gauss–Legendre nodes, σ/(1 + tσ) at each, where σ is what
elimination of I + tH from its last row leaves at the first entry. Its pivots are positive, for ‖H‖ < 1. The integrand is analytic for
|t| < 1/L only: [0, 1] is cut at 1 − ½, 1 − ¼, … until the last piece is no longer than 1 − L, with the same few nodes in each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, HostArray, from_host, holds, namespace, size, to_host
from iresnet_ref.arrays.namespaces import is_traced
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.jacobian.factors import Dense, Diagonal
from iresnet_ref.log_determinant.arnoldi.error import LEFT, arnoldi_error, eliminated, room
from iresnet_ref.log_determinant.arnoldi.process import krylov
from iresnet_ref.log_determinant.bounds import truncation_bound
from iresnet_ref.log_determinant.estimator import Estimates, Estimator
from iresnet_ref.log_determinant.series import divisor, replaced_terms
from iresnet_ref.log_determinant.variance import square_moment
from iresnet_ref.probes import PILOT_STREAM, Probes


def arnoldi_logdet(chain: Chain, v: Array, steps: int, lipschitz: float, traces: Sequence[Array] = ()) -> tuple[Array, Array]:
    """Return (‖v‖² e₁ᵀlog(I + H)e₁, what it is off by at most) for each probe and row, H of order `steps` ≤ d.

    The first len(traces) ≤ steps terms are exact traces; the bound is that of the others (`error`).
    """
    space = krylov(chain, v, steps)
    columns = space.columns
    xp, d = namespace(v), size(chain.in_shape)
    flat = xp.reshape(v, (*v.shape[:2], d))
    value, growth, nodes = integrated(columns, room(lipschitz))
    powers = [columns[0][..., 0]]  # e₁ᵀHʲe₁ for j = 1, 2
    if steps > 1:
        powers.append(columns[0][..., 0] * columns[0][..., 0] + columns[0][..., 1] * columns[1][..., 0])
    for k, _ in enumerate(traces, start=1):
        value = value - powers[k - 1] / divisor(k)
    left = [v]
    for _ in range(LEFT + 1):
        left.append(chain.rmatvec(left[-1]))
    left = [xp.reshape(z, flat.shape) for z in left[1:]]
    error = arnoldi_error(space, nodes, growth, lipschitz, left, symmetric=is_symmetric(chain))
    return replaced_terms(traces, value) + xp.sum(flat * flat, axis=-1) * value, error


SHORTEST = 4
"""The fewest products that `auto` tries …"""
PROBES_TRIED = 4
"""… with so many probes."""
BIAS_SHARE = 1.0 / 32.0
"""Of a standard error that is asked for: what the bound may be for `auto` to take it. Biases of many blocks add up."""


def products_of(steps: int) -> int:
    """Return the products of one probe: `steps` with J, and with Jᵀ those of the bound."""
    return steps + LEFT + 1


def steps_within(chain: Chain, lipschitz: float, bias: float, most: int, probes: Probes, like: Array) -> int | None:
    """Return the first of 4, 8, 16, … ≤ most products whose error is proved to be at most `bias` on every row, for a few probes; or None.

    They are drawn from a stream of their own, as those of the pilot of a standard error.
    """
    v = replace(probes, stream=probes.stream ^ PILOT_STREAM, count=PROBES_TRIED, block=1).draw(like)
    steps = SHORTEST
    while steps <= most:
        if float(to_host(arnoldi_logdet(chain, v, steps, lipschitz)[1]).max()) <= bias:
            return steps
        steps *= 2
    return None


def is_symmetric(chain: Chain) -> bool:
    """Return whether J = ±WᵀDW or J = W = Wᵀ in every number; False where there is no value to look at."""
    if is_traced(chain.like):
        return False
    xp = namespace(chain.like)
    match chain.factors:
        case Dense(a), Diagonal(_), Dense(b) if tuple(a.shape) == tuple(reversed(b.shape)):
            across = xp.matrix_transpose(b)
            return holds(a == across) or holds(a == -across)
        case (Dense(a),):
            return holds(a == xp.matrix_transpose(a))
        case _:
            return False


def integrated(columns: list[Array], lipschitz: float) -> tuple[Array, Array, int]:
    """Return (e₁ᵀlog(I + H)e₁ = ∫₀¹ σ/(1 + tσ) dt, the growth of the elimination, the number of nodes)."""
    xp = namespace(columns[0])
    nodes, weights = graded_rule(lipschitz, columns[0])
    t = xp.reshape(nodes, (-1, 1, 1, 1))
    sigma, _, growth = eliminated(columns, t)
    return xp.sum(xp.reshape(weights, (-1, 1, 1)) * sigma / (1.0 + t[..., 0] * sigma), axis=0), growth, nodes.shape[0]


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


def graded_rule(lipschitz: float, like: Array) -> tuple[Array, Array]:
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


def gauss_legendre(n: int, like: Array) -> tuple[Array, Array]:
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
class ArnoldiEstimator(Estimator):
    """The quadrature on the Krylov space of `terms` products."""

    terms: int
    method: ClassVar[str] = "arnoldi"

    def __post_init__(self) -> None:
        d = size(self.chain.in_shape)
        if self.norm != 2.0:
            raise ValueError(f"logdet: expected Lip(g) < 1 in the 2-norm for ir.Arnoldi, got the {self.norm}-norm; try ir.Roulette()")
        if self.terms > d:
            raise ValueError(f"logdet: expected at most d = {d} terms for ir.Arnoldi, got {self.terms}; try ir.Exact()")

    @property
    def products(self) -> float:
        """One for each term, and those of the bound."""
        return float(products_of(self.terms))

    def values(self, probes: Probes, v: Array) -> Estimates:
        """Return the quadrature of each probe and row, and what it is off by at most."""
        evaluations = np.full(v.shape[1], int(self.products) * probes.count * probes.block)
        values, errors = arnoldi_logdet(self.chain, v, self.terms, self.lipschitz, self.traces)
        return Estimates(values, evaluations, errors)

    def bias_bound(self, rank: int) -> float:
        """Return the bound of both sides, and the rounding of an orthonormal basis."""
        d = size(self.chain.in_shape)
        return truncation_bound(rank + d, self.lipschitz, self.terms) + d * rounding.unit_roundoff(self.chain.like)

    def variance(self, probes: Probes) -> float:
        """Return the second moment: |vᵀf(H)v| ≤ ‖v‖² Σ_{k>q} Lᵏ/k for f the logarithm without its first q terms."""
        moment = square_moment(size(self.chain.in_shape), probes.kind, probes.block)
        return moment * truncation_bound(1, self.lipschitz, len(self.traces)) ** 2


def shorter(roulette: Estimator, wanted: float, probes: Probes, like: Array, most: float) -> ArnoldiEstimator | None:
    """Return the quadrature whose bound meets a standard error with at most the products of a roulette; None where it does not.

    It is not tried where the fewest products are `most` or more, or in another norm than the 2-norm.
    """
    if roulette.norm != 2.0 or like.shape[0] == 0 or not most > products_of(SHORTEST):
        return None
    steps = min(size(roulette.chain.in_shape), math.floor(roulette.products) - products_of(0))
    terms = steps_within(roulette.chain, roulette.lipschitz, BIAS_SHARE * wanted, steps, probes, like)
    return None if terms is None else ArnoldiEstimator(roulette.chain, roulette.lipschitz, roulette.traces[:terms], roulette.norm, terms)
