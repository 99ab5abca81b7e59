"""The adjoint equation (I + J)ᵀz = b on a stored chain: dense at the narrowest dimension, or by GCR.

With J = AB, cut at its narrowest dimension, (I + J)⁻ᵀ = I − Bᵀ(I + BA)⁻ᵀAᵀ (Woodbury). GCR (`inversion.krylov`) minimises
‖b − (I + J)ᵀz‖ over the Krylov space, which contains the Neumann sums Σ_{k<m} (−Jᵀ)ᵏb: so m products shrink the residual by
Lᵐ at least, also from one restart to the next. Where J contracts in the 1-norm or
the ∞-norm, Jᵀ contracts in the dual norm, ‖Jᵀ‖_q = ‖J‖_p ≤ L, and the Neumann sums themselves are taken.
"""

from __future__ import annotations

import math
from functools import partial

from iresnet_ref.arrays import Array, namespace, row_norm, size
from iresnet_ref.inversion.krylov import gcr
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.log_determinant.exact import inverse_of_identity_plus

DENSE = 32
"""Up to this narrowest dimension the equation is solved densely."""
CYCLE = 40
"""The most pairs that GCR keeps before it starts again."""
CHECK_EVERY = 4
MOST = 20_000
"""The most products with Jᵀ: near L = 1 what L guarantees for one cycle is next to nothing."""


def dual(p: float) -> float:
    """Return q with 1/p + 1/q = 1, for p = 1, 2 or ∞."""
    return {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}[p]


def solve_adjoint(chain: Chain, b: Array, goal: Array, lipschitz: float, q: float = 2.0) -> tuple[Array, Array, int, str]:
    """Return (z, ‖b − (I + J)ᵀz‖_q per row, products with Jᵀ, method), above `goal` only where rounding is, or after `MOST` products."""
    n = size(chain.narrowest().in_shape)
    dense = n <= DENSE
    xp = namespace(b)
    z, residual, products = xp.zeros_like(b), b, n if dense else 0
    norm = row_norm(b, b.ndim - 1, q)
    iterate = partial(_neumann, q=q) if q != 2.0 else _krylov
    if dense:
        iterate = partial(_densely, inverse=inverse_of_identity_plus(chain.narrowest().dense()))
    going = bool(xp.any(norm > goal))
    while going:
        move, used = iterate(chain, residual, goal)
        better = b - (z + move) - chain.rmatvec(z + move)
        products, after = products + used + 1, row_norm(better, b.ndim - 1, q)
        # In exact arithmetic every row shrinks by L^used, the dense ones to zero: a row that does not has reached its floor.
        shrunk = after < 0.5 * (1.0 + (0.0 if dense else lipschitz**used)) * norm
        keep = xp.reshape(shrunk, (-1, *(1,) * (b.ndim - 1)))
        z, residual = xp.where(keep, z + move, z), xp.where(keep, better, residual)
        norm = xp.where(shrunk, after, norm)
        going = products < MOST and bool(xp.any(shrunk & (norm > goal)))
    return z, norm, products, "dense" if dense else "krylov" if q == 2.0 else "neumann"


def _densely(chain: Chain, r: Array, goal: Array, inverse: Array) -> tuple[Array, int]:
    """Return ((I + J)⁻ᵀr, products), J = AB and `inverse` = (I + BA)⁻¹."""
    xp = namespace(r)
    start = chain.narrowest_index()
    a, b = (Chain(factors, chain.batch, chain.like) for factors in (chain.factors[start:], chain.factors[:start]))
    inner = a.rmatvec(r)
    row = xp.matmul(xp.reshape(inner, (r.shape[0], 1, -1)), inverse)
    return r - b.rmatvec(xp.reshape(row, inner.shape)), 1


def _krylov(chain: Chain, r: Array, goal: Array) -> tuple[Array, int]:
    """Return (z, products) with ‖r − (I + J)ᵀz‖ ≤ goal on every row, or CYCLE products used."""
    z, _, products = gcr(chain.rmatvec, r, goal, CYCLE, CHECK_EVERY)
    return z, products


def _neumann(chain: Chain, r: Array, goal: Array, q: float) -> tuple[Array, int]:
    """Return (Σ_{k<m} (−Jᵀ)ᵏr, m) with (−Jᵀ)ᵐr, what is left, below goal on every row, or m = CYCLE."""
    xp = namespace(r)
    z, rest = xp.zeros_like(r), r
    for k in range(1, CYCLE + 1):
        z, rest = z + rest, -chain.rmatvec(rest)
        if k == CYCLE or (k % CHECK_EVERY == 0 and not bool(xp.any(row_norm(rest, r.ndim - 1, q) > goal))):
            break
    return z, k
