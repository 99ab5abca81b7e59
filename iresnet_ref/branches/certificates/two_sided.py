"""What the slopes say of F = id + g from both sides, by the same matrix M(t, ρ) as Lip(g) (`branches.certificates.quadratic`).

    ⟨Δg, Δx⟩ ≥ −m‖Δx‖²,        μ‖Δx‖ ≤ ‖ΔF‖ ≤ ν‖Δx‖,        ‖Δ(x − θF(x))‖ ≤ r‖Δx‖.

m ≤ L, μ ≥ 1 − m ≥ 1 − L and ν ≤ 1 + L, L = Lip(g). Where m < 1, F is (1 − m)-strongly monotone and continuous, hence a homeomorphism
(Minty, Browder), also where L ≥ 1; x ← x − θ(F(x) − y) then converges at the rate r; at θ = 1, r = L. Minty's own rate, √(1 − (1 − m)²/ν²)
at θ = (1 − m)/ν², is poor: the least r over θ, multiples of 1/16 so that θ and 1 − θ are exact, is searched and proved by its own matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.branches.certificates.barrier import Centre
from iresnet_ref.branches.certificates.multipliers import best_multipliers
from iresnet_ref.branches.certificates.quadratic import LIPSCHITZ, Form, Quadratic
from iresnet_ref.rounding import down, up

_U = rounding.FLOAT64_ROUNDOFF
MONOTONE, UPPER, LOWER = Form(0.0, 1.0, 0), Form(1.0, 1.0, -1), Form(1.0, 1.0, 1)
_SIXTEENTHS: Sequence[int] = (14, 12, 10, 8, 6, 4, 2)
_FLOOR = 0.1
_REPRESENTED = 40


@dataclass(frozen=True)
class TwoSided:
    """⟨Δg, Δx⟩ ≥ −`monotone`‖Δx‖², `lower`‖Δx‖ ≤ ‖ΔF‖ ≤ `upper`‖Δx‖, and x ↦ x − `step`·(F(x) − y) contracts by `rate`: all proved.

    Where nothing better is proved these are L, max(0, 1 − L), 1 + L, and 1 and L.

    >>> import iresnet_ref as ir
    >>> found = ir.bounds.two_sided(ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5)))
    >>> found.invertible, 0.5 <= found.lower <= found.upper <= 1.5001
    (True, True)
    """

    monotone: float
    lower: float
    upper: float
    step: float
    rate: float

    @property
    def invertible(self) -> bool:
        """Whether F is proved to be a homeomorphism: m < 1 or Lip(g) < 1."""
        return self.monotone < 1.0


def from_lipschitz(bound: float) -> TwoSided:
    """Return what Lip(g) ≤ `bound` alone says."""
    return TwoSided(bound, max(0.0, down(1.0 - bound, 1)), up(1.0 + bound, 1), 1.0, bound)


def two_sided_bounds(problem: Quadratic, bound: float) -> TwoSided:
    """Return all of it for a problem whose Lip(g) is at most `bound`, each the better of what L says and of its own matrix."""
    plain = from_lipschitz(bound)
    if abs(problem.exponent) > _REPRESENTED or not problem.count:
        return plain
    coarse = best_multipliers(problem, LIPSCHITZ, 0.3)
    if coarse is None or not coarse.rho > 0.0:
        return plain
    scale, root = math.ldexp(1.0, problem.exponent), math.sqrt(coarse.rho)
    reach = scale * root
    half = Centre(scale / (2.0 * root) * coarse.tau, reach)
    m = min(plain.monotone, _proved(problem, MONOTONE, half))
    sum_of_both = Centre((1.0 + 1.0 / reach) * scale**2 * coarse.tau, (1.0 + reach) ** 2)
    rho = _proved(problem, UPPER, sum_of_both)
    upper = min(plain.upper, math.sqrt(max(rho, 0.0)) * (1.0 + 2.0 * _U))
    lower = max(plain.lower, down(1.0 - m, 1))
    if not problem.network.cropped:
        near = (1.0 / reach - 1.0, -((1.0 - reach) ** 2)) if reach < 0.98 else (0.02, 1.0)
        rho = _proved(problem, LOWER, Centre(near[0] * scale**2 * coarse.tau, near[1]))
        lower = max(lower, math.sqrt(-rho) * (1.0 - 2.0 * _U) if rho < 0.0 else 0.0)
    step, rate = _damped(problem, coarse.tau, scale, reach) if m < 1.0 <= bound else (1.0, bound)
    return TwoSided(m, lower, upper, step, rate)


def _proved(problem: Quadratic, form: Form, start: Centre, gap: float = 1e-3) -> float:
    """Return a proved ρ from a start that is feasible but for rounding."""
    start = Centre(start.tau, start.rho + 0.2 * (abs(start.rho) + _FLOOR))
    centre = best_multipliers(problem, form, gap, start, _FLOOR)
    return math.inf if centre is None else problem.prove_least(form, centre.tau)


def _damped(problem: Quadratic, tau: np.ndarray[tuple[int], np.dtype[np.float64]], scale: float, reach: float) -> tuple[float, float]:
    """Return (θ, r) with the least proved rate of x − θF(x) = (1 − θ)x − θg(x) on a list of θ, refined once around the best."""
    found: dict[float, float] = {}

    def rate(theta: float) -> float:
        kept = theta * reach / (1.0 - theta)
        start = Centre((1.0 + 1.0 / kept) * (theta * scale) ** 2 * tau, (1.0 - theta + theta * reach) ** 2)
        rho = _proved(problem, Form(1.0 - theta, -theta, -1), start, 3e-3)
        return math.sqrt(max(rho, 0.0)) * (1.0 + 2.0 * _U)

    for k in _SIXTEENTHS:
        found[k / 16] = rate(k / 16)
    best = min(found, key=lambda theta: found[theta])
    for theta in (best - 1 / 16, best + 1 / 16):
        found[theta] = rate(theta)
    best = min(found, key=lambda theta: found[theta])
    return best, found[best]
