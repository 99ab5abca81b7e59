"""log|det dF/dx| of a residual block: the method chosen, its replicates planned, and carried out."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from iresnet_ref.arrays import Array, every_row, holds, indices, namespace
from iresnet_ref.arrays.validation import require_full_precision
from iresnet_ref.block import ResidualBlock
from iresnet_ref.errors import NotContractiveError
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.log_determinant.arnoldi.quadrature import shorter
from iresnet_ref.log_determinant.estimator import Estimates, Estimator
from iresnet_ref.log_determinant.exact import exact_logdet, signed_logdet
from iresnet_ref.log_determinant.interval import FEWEST_REPLICATES, error_and_skewness, replicates_needed
from iresnet_ref.log_determinant.methods import Auto, Estimate, Exact, LogDetMethod, Name, Series, named
from iresnet_ref.log_determinant.replicates import exact_in_products, replicates_for, require_reach
from iresnet_ref.log_determinant.result import LogDet
from iresnet_ref.probes import Probes

EXACT_UP_TO = 256
"""`auto` computes the exact determinant up to this narrowest dimension of the chain."""
EXACT_AT_MOST = 4096
"""Beyond this narrowest dimension `auto` never forms the matrix, whatever standard error is asked for."""


def logdet_of_block(block: ResidualBlock, x: Array, method: LogDetMethod | Name = "auto", *, check: bool = True) -> LogDet:
    """Return `ir.logdet` of a residual block."""
    block.require(x, "x", check=check)
    return evaluate(block.branch.jacobian(x), block, x, method)


def require_bits(method: LogDetMethod, x: Array, what: str) -> None:
    """Refuse what 8 or 11 bits do not carry: all but the series. Raises DTypeError."""
    if not isinstance(method, Series):
        remedy = "method=ir.Series(terms), or weights and inputs cast to float32"
        require_full_precision(x, f"{what}, method {method.name!r}", remedy)


def evaluate(
    chain: Chain,
    block: ResidualBlock,
    x: Array,
    method: LogDetMethod | Name,
    *,
    determinant: Callable[[], Array] | None = None,
    estimates: Callable[[Estimator, Probes], Estimates] | None = None,
) -> LogDet:
    """Return the log-determinant at x, where J is the `chain`.

    `determinant` gives the exact one where J has been formed already; `estimates` takes the place of `Estimator.estimates` at x.
    """
    method, exact_cost, replaceable = named(method), math.inf, False
    require_bits(method, x, "logdet")
    if isinstance(method, Exact) and block.lipschitz is None and not block.certificate.bound < 1.0:
        return _exact_without_contraction(chain, block, x)
    lipschitz = block.contraction()
    rank = chain.rank
    if isinstance(method, Auto):
        to_a_goal = method.estimate.standard_error is not None
        replaceable = to_a_goal and method.estimate.lengths is None
        exact_cost = exact_in_products(chain) if to_a_goal and rank <= EXACT_AT_MOST else math.inf
        method = method.estimate if to_a_goal or rank > EXACT_UP_TO else named("exact")
    if not isinstance(method, Estimate):
        return _exact(chain, block, x, determinant)
    estimator, probes, wanted = method.estimator(chain, lipschitz, block.norm), method.probes, method.standard_error
    if replaceable and wanted is not None:
        estimator = shorter(estimator, wanted, probes, x, exact_cost / FEWEST_REPLICATES) or estimator
    per_replicate = probes.block * estimator.products
    if exact_cost <= FEWEST_REPLICATES * per_replicate:
        return _exact(chain, block, x, determinant)
    if wanted is not None:
        count = replicates_for(estimator, probes, wanted, x)
        if exact_cost <= count * per_replicate:
            return _exact(chain, block, x, determinant)
        probes = probes.part(0, require_reach(count, wanted, per_replicate))
    planned = math.inf if wanted is None else probes.count * wanted**2
    variance = block.once_proved(min(estimator.variance_bound(probes), planned))
    if not estimator.random:
        probes, variance, found = Probes(), 0.0, estimator.estimates(Probes(), x)
    else:
        found = estimator.estimates(probes, x) if estimates is None else estimates(estimator, probes)
    return _result(estimator, found, probes, x, variance, block.once_proved(estimator.bias_bound(rank)))


def _exact(chain: Chain, block: ResidualBlock, x: Array, determinant: Callable[[], Array] | None) -> LogDet:
    zero = every_row(x)
    value = exact_logdet(chain, contracts=block.contracts_from(chain.narrowest_index())) if determinant is None else determinant()
    return LogDet(value, zero, zero, indices(np.full(x.shape[0], chain.rank), x), "exact")


def _exact_without_contraction(chain: Chain, block: ResidualBlock, x: Array) -> LogDet:
    """The determinant where Lip(g) < 1 is not proved: a fact of this x, which nothing else rests on."""
    if not (block.certificate.proved and hasattr(namespace(x), "linalg")):
        block.contraction()  # raises, with the reason
    sign, value = signed_logdet(chain)
    if not holds(sign >= 0.0):  # for ‖J‖ ≤ 1 no determinant is negative
        raise NotContractiveError(
            f"logdet: expected det(I + J) ≥ 0, as it is for Lip(g) ≤ 1, got a negative one where the proved bound is "
            f"{block.certificate.bound:.6g}: F is no residual flow there; try ir.spectral.normalise"
        )
    return _exact(chain, block, x, lambda: value)


def _result(estimator: Estimator, found: Estimates, probes: Probes, x: Array, variance: float, bias_bound: float) -> LogDet:
    """Return the result of estimates; `variance` of one replicate, proved or planned, stands where they are all alike."""
    xp, zero = namespace(x), every_row(x)
    value, bias, exact, method = xp.mean(found.values, axis=0), zero + bias_bound, len(estimator.traces), estimator.method
    if not estimator.random:
        return LogDet(value, zero, bias, indices(np.zeros(x.shape[0]), x), method, 0, exact)
    if found.errors is not None and bias_bound < math.inf:
        bias = xp.minimum(bias, xp.mean(found.errors, axis=0))
    error, skewness = error_and_skewness(found.values, value, estimator.noise, variance)
    return LogDet(value, error, bias, indices(found.evaluations, x), method, probes.count, exact, skewness, replicates_needed(probes))
