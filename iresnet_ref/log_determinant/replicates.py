"""How many replicates reach a standard error, and what the exact determinant costs in products with J.

The number of replicates is fixed before the run that is reported, from the proved variance bound or from a pilot with draws
of its own: stopping when the standard error of the run looks small enough would make it too small.
"""

from __future__ import annotations

import math

import numpy as np

from iresnet_ref.arrays import Array, namespace, size, to_host
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.jacobian.factors import Factor
from iresnet_ref.log_determinant.estimator import Estimator
from iresnet_ref.log_determinant.interval import FEWEST_REPLICATES
from iresnet_ref.probes import PILOT_STREAM, Probes

PILOT = 32
PILOT_MARGIN = 31.0 / 15.655
"""The upper 99 % limit of a variance over its estimate from 32 normal replicates: 31/χ²₃₁(.01)."""
LU_SLOWDOWN = 5.0
"""Time of a flop of a batched LU over one of a matrix product; measured 4–7 on one CPU thread."""
MOST_REPLICATES = 2**22
MOST_PRODUCTS = 2**26
"""For one row: at L = 1 − 1e-5 a single replicate takes up to 1e5."""


def replicates_for(estimator: Estimator, probes: Probes, wanted: float, like: Array) -> float:
    """Return the number of replicates, at least 8 and `probes.count`, planned for a standard error of `wanted` on every row.

    The smaller of two variances over wanted²: the proved bound, and the pilot's largest over the rows, times its margin.
    """
    least = max(FEWEST_REPLICATES, probes.count)
    if not estimator.random or like.shape[0] == 0:
        return least
    bound = estimator.variance_bound(probes)
    if bound <= least * wanted * wanted:
        return least
    pilot = Probes(probes.seed, probes.stream ^ PILOT_STREAM, probes.kind, PILOT, probes.block)
    values = estimator.estimates(pilot, like).values
    xp = namespace(values)
    variance = float(np.max(to_host(xp.var(values, axis=0, correction=1))))
    return max(least, math.ceil(min(PILOT_MARGIN * variance, bound) / (wanted * wanted)))


def require_reach(count: float, wanted: float, products: float) -> int:
    """Return a number of replicates that can be run, each of so many `products`; raises ValueError beyond 2²², or 2²⁶ products."""
    most = math.floor(min(MOST_REPLICATES, MOST_PRODUCTS / max(products, 1.0)))
    if not count <= most:
        raise ValueError(
            f"logdet: expected a standard error within reach of {most} replicates, got {wanted:g}, which takes {count:.3g}; "
            "try ir.Exact(), a larger block of Hadamard probes, or a larger standard_error"
        )
    return int(count)


def exact_in_products(chain: Chain) -> float:
    """Return the cost per row of the exact determinant, in products with J."""
    factors = chain.narrowest().factors
    n = size(factors[0].in_shape)
    first = next((i for i, f in enumerate(factors) if not f.shared), len(factors))
    formed = n * sum(_flops(f) for f in factors[first:])
    return (formed + LU_SLOWDOWN * 2.0 / 3.0 * n**3) / sum(_flops(f) for f in factors)


def _flops(factor: Factor) -> float:
    """2·(entries of the weight)·(places it is used at) for what carries a weight (out, …), else one per entry."""
    weight = getattr(factor, "weight", None)
    out = size(factor.out_shape)
    return 2.0 * size(tuple(weight.shape)) * out / weight.shape[0] if weight is not None else float(out)
