"""What Arnoldi's value of vᵀlog(I + J)v is off by, from what its Krylov space has left over: a bound, and no estimate.

With y_t = (I + tH)⁻¹βe₁ and the residual ρ_t = v − (I + tJ)Qy_t of x_t = Qy_t, shifted FOM,

    vᵀlog(I + J)v = ∫₀¹ vᵀJ(I + tJ)⁻¹v dt = ∫₀¹ vᵀJQy_t dt + ∫₀¹ vᵀJ(I + tJ)⁻¹ρ_t dt.

The first integral is β²e₁ᵀlog(I + H)e₁ up to the rounding of vᵀJQ. From JQ = QH + h q e_kᵀ + E, q = q_{k+1}, follows
ρ_t = v − βq₁ − t h q e_kᵀy_t − tEy_t, and with z_i = (Jᵀ)ⁱv

    |vᵀJ(I + tJ)⁻¹q| ≤ Σ_{i≤l} |z_iᵀq| + ‖z_{l+1}‖‖q‖/(1 − tL),    |e_kᵀy_t| = β t^{k−1} Π_{j<k} h_{j+1,j} / χ(t),    χ(t) = det(I + tH) > 0

(Saad 2003, §6.4; Frommer & Simoncini 2008 on shifted residuals). Where J is symmetric, vᵀJ(I + tJ)⁻¹q = h e_kᵀy_t qᵀ(I + tJ)⁻¹q but for
rounding: the residual enters twice, as in Gauss quadrature, whose value is never too low. log χ has |(log χ)″| ≤ k(M/(1 − tM))²,
‖H‖₂ ≤ M < 1, so that on [a, b] 1/χ is at most max(1/χ(a), 1/χ(b))·exp(k(M/(1 − bM))²(b − a)²/8): finitely many determinants bound the
integrals. Nothing needs Q to be orthonormal but ‖H‖ ≤ M, which follows from the measured QᵀQ. docs/proofs.md counts the roundings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, HostArray, from_host, namespace
from iresnet_ref.log_determinant.arnoldi.process import LARGEST, Krylov

LEFT = 3
"""l: products with Jᵀ after Jᵀv."""


def room(lipschitz: float) -> float:
    """Return M = L + (1 − L)/8, what ‖H‖ may be."""
    return lipschitz + 0.125 * (1.0 - lipschitz)


def arnoldi_error(space: Krylov, nodes: int, growth: Array, lipschitz: float, left: Sequence[Array], *, symmetric: bool) -> Array:
    """Return, per probe and row, a bound on |value − vᵀlog(I + J)v|, `left` the vectors z₁ … z_{l+1} of shape (probes, batch, d).

    So many `nodes` gave the value, with this `growth` of the elimination (`eliminated`). inf where ‖H‖ ≤ M < 1 is not seen.
    """
    first = left[0]
    xp, u, k, d = namespace(first), rounding.unit_roundoff(first), len(space.columns), first.shape[-1]
    m, beta, skew = room(lipschitz), space.length, space.skew
    gap, logarithm = 1.0 - m, -math.log1p(-m) / m  # ∫ dt/(1 − tM)
    whole, perturbed = 1.0 + skew, 4.0 * u * growth
    largest = lipschitz * whole + skew * space.beyond + space.residual * whole  # ‖H‖(1 − skew)
    places, linear, divided, squared = _pieces(k, lipschitz)
    _, determinant, other = eliminated(space.columns, xp.reshape(from_host(places, first), (-1, 1, 1, 1)))
    tau = (math.sqrt(k) * 4.0 * u * other + k * u) / gap  # of the matrix, and of t
    seen = (skew <= 0.5) & (largest <= m * (1.0 - skew)) & (tau < 0.25) & (perturbed < 0.25 * gap)
    seen = seen & xp.all(determinant > 0.0, axis=0)
    # what the process and the arithmetic leave
    sizes = [xp.sqrt(xp.sum(z * z, axis=-1)) for z in left]
    process = 3.0 * beta * (space.moments * logarithm + sizes[0] * (space.residual / gap + u * logarithm))
    arithmetic = beta * beta * (2.0 * perturbed / gap + u * (1.0 + 16.0 / gap + logarithm * (2 * d + nodes + 64)))
    # what the space leaves: ∫ t h |e_kᵀy_t||vᵀJ(I + tJ)⁻¹q| dt
    inverse = 1.0 / determinant
    larger = xp.maximum(inverse[1:, ...], inverse[:-1, ...])

    def integral(weights: HostArray, values: Array) -> Array:
        return xp.sum(xp.reshape(from_host(weights, first), (-1, 1, 1)) * values, axis=0)

    product = space.beyond
    for j, column in enumerate(space.columns[:-1]):
        product = product * column[..., j + 1]
    product = beta * (product + k * rounding.smallest_normal(first)) * (1.0 + 2.0 * tau)
    dots = [xp.abs(xp.sum(z * space.after, axis=-1)) + d * u * LARGEST * s for z, s in zip(left[:-1], sizes[:-1], strict=True)]
    plain, over = integral(linear, larger), integral(divided, larger)
    rest = xp.minimum(LARGEST * sizes[0] * over, sum(dots[1:], dots[0]) * plain + LARGEST * sizes[-1] * over)
    if symmetric:
        rounded = beta * (4.0 * skew + 4.0 * space.residual + 2.0 * u) / gap**2.0
        rest = xp.minimum(rest, product * LARGEST**2.0 * integral(squared, larger * larger) + rounded * plain)
    total = (process + arithmetic + product * rest) * (1.0 + (2 * d + 8 * k + len(linear) + 64) * u)
    return xp.where(seen & (total < math.inf), total, xp.full_like(total, math.inf))


def eliminated(columns: list[Array], t: Array) -> tuple[Array, Array, Array]:
    """Return (σ, det(I + tH), the largest growth over the nodes) for nodes t of shape (n, 1, 1, 1).

    σ is what is left of the first entry, e₁ᵀH(I + tH)⁻¹e₁ = σ/(1 + tσ). The computed ones are those of H + D, ‖D‖_F ≤ 4u·growth.
    """
    xp = namespace(columns[0])
    last = xp.expand_dims(columns[-1], axis=0)
    determinant, squares = 1.0, 0.0
    for j in range(len(columns) - 1, 0, -1):  # row j has one entry left of the diagonal: only column j − 1 changes
        before = xp.expand_dims(columns[j - 1], axis=0)
        pivot = 1.0 + t * last[..., j : j + 1]
        ratio = t * before[..., j:] / pivot
        moved = ratio * last[..., :j]
        sizes = xp.sqrt(xp.sum(before * before, axis=-1)) + xp.sqrt(xp.sum(moved * moved, axis=-1)) + xp.abs(last[..., j])
        squares, determinant = squares + sizes * sizes, determinant * pivot[..., 0]
        last = before[..., :j] - moved
    sigma = last[..., 0]
    determinant = determinant * (1.0 + t[..., 0] * sigma)
    return sigma, determinant, xp.max(xp.sqrt(squares + sigma * sigma), axis=0)


@lru_cache(maxsize=64)
def _pieces(k: int, lipschitz: float) -> tuple[HostArray, HostArray, HostArray, HostArray]:
    """Return the ends of pieces of [0, 1] with b − a ≤ c(1 − bM), c² = 2/k, and for each piece, rounded up,

    e^{M²/4}∫tᵏdt, the same over 1 − bL, and e^{M²/2}∫t^{2k−1}dt/(1 − bL): the exponent kM²c²/8 of the module is M²/4.
    """
    m, c = room(lipschitz), math.sqrt(2.0 / k)
    ends: list[float] = [0.0]
    weights: list[tuple[float, float, float]] = []
    while ends[-1] < 1.0:
        a = ends[-1]
        b = min(1.0, (a + c) / (1.0 + c * m))
        once, twice = ((b**n - a**n) / n + 4.0 * rounding.FLOAT64_ROUNDOFF * b ** (n - 1) for n in (k + 1, 2 * k))
        once, twice = once * math.exp(0.25 * m * m), twice * math.exp(0.5 * m * m)
        under = rounding.down(1.0 - b * lipschitz)
        weights.append((rounding.up(once, 32), rounding.up(once / under, 32), rounding.up(twice / under, 32)))
        ends.append(b)
    return np.asarray(ends), *np.asarray(weights).T
