"""log|det dF/dx| of a residual block: exact, truncated series with its bias bound, or unbiased Russian roulette."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from iresnet_ref.arrays import device, indices, namespace, size
from iresnet_ref.block import ResidualBlock
from iresnet_ref.logdet import laws
from iresnet_ref.logdet.bounds import logdet_bounds, truncation_bound
from iresnet_ref.logdet.exact import exact_logdet
from iresnet_ref.logdet.laws import Law
from iresnet_ref.logdet.result import LogDet
from iresnet_ref.logdet.roulette import roulette_logdet
from iresnet_ref.logdet.series import series_logdet
from iresnet_ref.probes import Probes

Method = Literal["auto", "exact", "series", "roulette"]
EXACT_UP_TO = 256
"""`auto` computes the exact determinant up to this narrowest dimension of the chain."""
FEWEST_REPLICATES = 8
"""Below this many independent replicates no standard error is given."""


def logdet(
    block: ResidualBlock,
    x: Any,
    *,
    method: Method = "auto",
    terms: int | None = None,
    law: Law | None = None,
    probes: Probes | None = None,
    allow_infinite_variance: bool = False,
    check: bool = True,
) -> LogDet:
    """Return log|det dF/dx| = log det(I + J_g(x)) per row, in nats, with its bias bound and standard error.

    exact      det(I + J) at the narrowest dimension; absolute error ≤ 8·d·u/(1 − L) + a few d‖δJ‖/(1 − L).
    series     Σ_{k≤terms} (−1)^{k+1} vᵀJᵏv/k; |bias| ≤ −d(log(1 − L) + Σ_{k≤terms} Lᵏ/k) ([B19] Thm 4).
    roulette   unbiased ([C19]); N drawn for each sample from `law` (default near-optimal, finite variance for all L < 1).
    auto       exact while the narrowest dimension is at most 256, else roulette.

    Each of `probes.count` probes is an independent replicate with its own N; the standard error comes from them, and is
    NaN below 8. `evaluations` counts products with Jᵀ, or the size of the determinant for `exact`.

    Raises: NotContractiveError, InfiniteVarianceError (unless `allow_infinite_variance`), ShapeError, DTypeError,
    NonFiniteError, ValueError.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> exact = ir.logdet(F, np.zeros((1, 2)), method="exact").value
    >>> series = ir.logdet(F, np.zeros((1, 2)), method="series", terms=4)
    >>> bool(exact.shape == series.value.shape)
    True
    """
    if method not in ("auto", "exact", "series", "roulette"):
        raise ValueError(f"logdet: expected method 'auto', 'exact', 'series' or 'roulette', got {method!r}")
    if (terms is not None) != (method == "series"):
        raise ValueError(
            f"logdet: expected terms= exactly for method 'series', got terms={terms} for {method!r}; try terms=10"
        )
    if terms is not None and terms < 1:
        raise ValueError(f"logdet: expected terms ≥ 1, got {terms}")
    block.require(x, "x", check=check)
    lipschitz = block.contraction()
    d = size(block.branch.event_shape)
    _, chain = block.branch.linearize(x)
    xp = namespace(x)
    batch = x.shape[0]
    zero = xp.zeros((batch,), dtype=x.dtype, device=device(x))
    narrowest = size(chain.narrowest().in_shape)
    if method == "auto":
        method = "exact" if narrowest <= EXACT_UP_TO else "roulette"
    if method == "exact":
        return LogDet(exact_logdet(chain), zero, zero, indices(np.full(batch, narrowest), x), method)
    probes = Probes() if probes is None else probes
    v = probes.draw(x)
    if method == "series":
        assert terms is not None
        estimates = series_logdet(chain, v, terms)
        bias = truncation_bound(d, lipschitz, terms)
        evaluations = np.full(batch, terms * probes.count)
    else:
        law = laws.near_optimal(lipschitz) if law is None else law
        if not allow_infinite_variance:
            laws.require_finite_variance(law, lipschitz)
        drawn = laws.table(law, lipschitz)
        lengths = probes.lengths(batch, drawn.thresholds, drawn.sure)
        estimates = roulette_logdet(chain, v, lengths, drawn)
        bias = truncation_bound(d, lipschitz, drawn.last)
        evaluations = lengths.sum(axis=0)
    value = xp.mean(estimates, axis=0)
    return LogDet(value, _standard_error(estimates, value), zero + bias, indices(evaluations, x), method)


def _standard_error(estimates: Any, mean: Any) -> Any:
    """Return sd/√count over independent replicates, NaN below the fewest that say anything."""
    xp = namespace(estimates)
    count = estimates.shape[0]
    if count < FEWEST_REPLICATES:
        return xp.full(mean.shape, math.nan, dtype=mean.dtype, device=device(mean))
    deviation = estimates - mean
    return xp.sqrt(xp.sum(deviation * deviation, axis=0) / ((count - 1) * count))


__all__ = ["Law", "LogDet", "Method", "laws", "logdet", "logdet_bounds", "truncation_bound"]
