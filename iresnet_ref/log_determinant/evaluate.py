"""log|det dF/dx| of a residual block: which method, with which probes, at which price."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np

from iresnet_ref.arrays import device, indices, is_short, namespace, require_full_precision, size
from iresnet_ref.block import ResidualBlock
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.log_determinant import length_distributions
from iresnet_ref.log_determinant.estimator import Estimator
from iresnet_ref.log_determinant.exact import exact_logdet
from iresnet_ref.log_determinant.interval import FEWEST_REPLICATES, replicates_needed, spread
from iresnet_ref.log_determinant.length_distributions import LengthDistribution
from iresnet_ref.log_determinant.replicates import exact_in_products, replicates_for, require_reach
from iresnet_ref.log_determinant.result import LogDet
from iresnet_ref.log_determinant.series import exact_traces as traces_of
from iresnet_ref.probes import Probes

Method = Literal["auto", "exact", "series", "roulette", "arnoldi"]
EXACT_UP_TO = 256
"""`auto` computes the exact determinant up to this narrowest dimension of the chain."""
EXACT_AT_MOST = 4096
"""Beyond this narrowest dimension `auto` never forms the matrix, whatever standard error is asked for."""


def logdet(
    block: ResidualBlock,
    x: Any,
    *,
    method: Method = "auto",
    terms: int | None = None,
    lengths: LengthDistribution | None = None,
    expected_terms: float | None = None,
    probes: Probes | None = None,
    standard_error: float | None = None,
    exact_traces: int | None = None,
    allow_infinite_variance: bool = False,
    check: bool = True,
) -> LogDet:
    """Return log|det dF/dx| = log det(I + J_g(x)) per row, in nats, with its bias bound and standard error.

    exact      det(I + J) at the narrowest dimension r; its rounding is bounded by `logdet_error_bound`.
    series     Σ_{k≤terms} (−1)^{k+1} vᵀJᵏv/k; |bias| ≤ −r(log(1 − L) + Σ_{k≤terms} Lᵏ/k) ([B19] Thm 4, rank J ≤ r).
    roulette   unbiased ([C19]); N drawn for each sample from `lengths`, by default `near_optimal(L, expected_terms)`, whose
               variance is finite for every L < 1; E[N] = max(6, 1.5/(1 − L)) unless `expected_terms` is given.
    arnoldi    quadrature on the Krylov space of `terms` products. Biased: |bias| ≤ (r + d)Σ_{k>terms} Lᵏ/k is what is proved,
               and usually far too large.
    auto       exact while the narrowest dimension is at most 256, else roulette. With `standard_error`, whichever of the two
               meets it for the fewest operations.

    Exact traces replace the first one (two or three dense layers) or two (up to two) stochastic terms, with weight 1;
    `exact_traces` limits them, and the result says how many there were (0 for convolutions and deeper branches).

    Each of `probes.count` replicates has its own N and its own block of probes; the standard error comes from them, is NaN
    below 8, and the one proved (or planned) beforehand where they agree to rounding. With `standard_error` their number is planned
    to meet it on every row (at least 8 and `probes.count`), fixed beforehand by the variance bound or by an independent pilot
    of 32 on another stream: the standard error that is returned is that of the run itself. `evaluations` counts products with
    J or Jᵀ without the pilot's, or the size of the determinant for `exact`.

    Raises: NotContractiveError, InfiniteVarianceError (unless `allow_infinite_variance`), ShapeError, DTypeError,
    NonFiniteError, ValueError.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> exact = ir.logdet(F, np.zeros((1, 2)), method="exact").value
    >>> estimate = ir.logdet(F, np.zeros((1, 2)), method="roulette", standard_error=0.01)
    >>> bool(abs(estimate.value - exact)[0] < 0.06), estimate.exact_traces
    (True, 2)
    """
    block.require(x, "x", check=check)
    chain = block.branch.jacobian(x)
    return logdet_on(
        chain, block, x, method=method, terms=terms, lengths=lengths, expected_terms=expected_terms, probes=probes,
        standard_error=standard_error, exact_traces=exact_traces, allow_infinite_variance=allow_infinite_variance
    )  # fmt: skip


def logdet_on(
    chain: Chain,
    block: ResidualBlock,
    x: Any,
    *,
    method: Method,
    terms: int | None,
    lengths: LengthDistribution | None,
    expected_terms: float | None,
    probes: Probes | None,
    standard_error: float | None,
    exact_traces: int | None,
    allow_infinite_variance: bool,
) -> LogDet:
    """Return `logdet` of a block whose chain at x is known."""
    _refuse(method, terms, lengths, expected_terms, standard_error, exact_traces)
    if method != "series":
        require_full_precision(x, f"logdet, method {method!r}", "method='series' with terms=, or")
    lipschitz, d = block.contraction(), size(block.branch.event_shape)
    if method == "arnoldi" and block.norm != 2.0:
        raise ValueError(f"logdet: expected Lip(g) < 1 in the 2-norm for method 'arnoldi', got the {block.norm}-norm; try 'roulette'")
    if method == "arnoldi" and terms is not None and terms > d:
        raise ValueError(f"logdet: expected at most d = {d} terms for method 'arnoldi', got {terms}; try method='exact'")
    rank = min(size(f.in_shape) for f in chain.factors)
    if method == "auto" and standard_error is None:
        method = "exact" if rank <= EXACT_UP_TO else "roulette"
    if method == "exact":
        return _exact(chain, x)
    drawn = None
    if method in ("auto", "roulette"):
        lengths = length_distributions.near_optimal(lipschitz, expected_terms) if lengths is None else lengths
        if not allow_infinite_variance:
            length_distributions.require_finite_variance(lengths, lipschitz)
        drawn = length_distributions.table(lengths, lipschitz)
    probes = Probes() if probes is None else probes
    price = exact_in_products(chain) if method == "auto" and rank <= EXACT_AT_MOST else math.inf
    per_replicate = probes.block * drawn.mean if drawn is not None else 0.0
    if price <= FEWEST_REPLICATES * per_replicate:
        return _exact(chain, x)
    traces = traces_of(chain, 0 if is_short(x) else exact_traces)  # they sum over the weights: too much for so few bits
    estimator = Estimator(chain, lipschitz, terms or 0, drawn, traces[: terms or None], method == "arnoldi", block.norm)
    if standard_error is not None:
        count = replicates_for(estimator, probes, standard_error, x)
        if price <= count * per_replicate:
            return _exact(chain, x)
        probes = probes.part(0, require_reach(count, standard_error, per_replicate or probes.block * (terms or 1)))
    variance = min(estimator.variance_bound(probes), math.inf if standard_error is None else probes.count * standard_error**2)
    return _estimate(estimator, probes, x, rank, "roulette" if method == "auto" else method, variance)


def _refuse(
    method: str,
    terms: int | None,
    lengths: LengthDistribution | None,
    expected_terms: float | None,
    standard_error: float | None,
    exact_traces: int | None,
) -> None:
    """Refuse options that are unknown or contradict one another."""
    if method not in get_args(Method):
        raise ValueError(f"logdet: expected method {', '.join(map(repr, get_args(Method)))}, got {method!r}; try 'auto'")
    if (terms is not None) != (method in ("series", "arnoldi")):
        raise ValueError(
            f"logdet: expected terms= exactly for methods 'series' and 'arnoldi', got terms={terms} for {method!r}; try terms=10"
        )
    if terms is not None and terms < 1:
        raise ValueError(f"logdet: expected terms ≥ 1, got {terms}")
    if (lengths is not None or expected_terms is not None) and method not in ("auto", "roulette"):
        raise ValueError(f"logdet: expected lengths= and expected_terms= for method 'roulette' only, got them for {method!r}")
    if lengths is not None and expected_terms is not None:
        raise ValueError("logdet: expected lengths= or expected_terms=, got both; a distribution has its own expected number of terms")
    if standard_error is not None and not (0.0 < standard_error < math.inf and method != "exact"):
        raise ValueError(f"logdet: expected standard_error > 0 for a method with probes, got {standard_error} for {method!r}")
    if exact_traces is not None and exact_traces not in (0, 1, 2):
        raise ValueError(f"logdet: expected exact_traces 0, 1 or 2, got {exact_traces}; leave it out for as many as there are")


def _exact(chain: Chain, x: Any) -> LogDet:
    xp = namespace(x)
    zero = xp.zeros((x.shape[0],), dtype=x.dtype, device=device(x))
    order = min(size(f.in_shape) for f in chain.factors)
    return LogDet(exact_logdet(chain), zero, zero, indices(np.full(x.shape[0], order), x), "exact")


def _estimate(estimator: Estimator, probes: Probes, x: Any, rank: int, method: str, variance: float) -> LogDet:
    """Return the estimate; `variance` of one replicate, proved or planned, stands where they are all alike."""
    xp = namespace(x)
    zero = xp.zeros((x.shape[0],), dtype=x.dtype, device=device(x))
    bias, exact = zero + estimator.bias_bound(rank), len(estimator.traces)
    if not estimator.random:
        value, _ = estimator.estimates(Probes(), x)
        return LogDet(value[0, :], zero, bias, indices(np.zeros(x.shape[0]), x), method, 0, exact)
    estimates, evaluations = estimator.estimates(probes, x)
    value = xp.mean(estimates, axis=0)
    error, skewness = spread(estimates, value, estimator.noise, variance)
    evaluations = indices(evaluations, x)
    return LogDet(value, error, bias, evaluations, method, probes.count, exact, skewness, replicates_needed(probes))
