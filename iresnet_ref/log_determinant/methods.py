"""How a log-determinant and its gradient are computed, as values: each method carries the options that it has, and no others.

All but `Exact` and `Auto` name a series Σ c_k tr Jᵏ whose terms are estimated with `probes`. The same value serves the
log-determinant and its gradient, which takes the Neumann series of the same length ([C19] eq. 8).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from iresnet_ref.arrays import Array, changed, is_short, public
from iresnet_ref.errors import DTypeError
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.log_determinant.arnoldi.quadrature import ArnoldiEstimator
from iresnet_ref.log_determinant.estimator import Estimator
from iresnet_ref.log_determinant.length_distributions import (
    LengthDistribution,
    Table,
    near_optimal,
    require_finite_variance,
    require_length_distribution,
    table,
)
from iresnet_ref.log_determinant.roulette import RouletteEstimator
from iresnet_ref.log_determinant.series import SeriesEstimator, exact_traces
from iresnet_ref.probes import Probes


class LogDetMethod:
    """What every method can be asked for by a flow that uses it for each of its blocks."""

    @property
    def name(self) -> str:
        """The method in one word, as results state it."""
        return type(self).__name__.lower()

    def after_streams(self, streams: int) -> Self:
        """Return the method with the next `streams` random streams passed over."""
        return self

    def shared_by(self, blocks: int) -> Self:
        """Return the method for one of so many independent blocks: their variances add up to standard_error²."""
        return self


@public
@dataclass(frozen=True)
class Exact(LogDetMethod):
    """det(I + J) at the narrowest dimension n, in n³ operations; its rounding is bounded by `ir.bounds.logdet_error_bound`.

    It needs no Lip(g) < 1 where some bound is proved, as of spectrally normalised weights, whose bound is 1 and a little: the
    determinant must not be negative (−inf where it is 0), and nothing is said of an inverse.
    Reference: the Weinstein–Aronszajn identity det(I + AB) = det(I + BA); Kato, *Perturbation Theory*, 1966, IV §6.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> ir.logdet(F, np.ones((3, 2)), ir.Exact()).method
    'exact'
    """


@dataclass(frozen=True)
class Estimate(LogDetMethod):
    """What estimates have in common.

    `probes` are the replicates. With `standard_error` their number is planned to meet it on every row (at least 8 and
    `probes.count`), fixed beforehand by a variance bound or by an independent pilot. `exact_traces` (0, 1 or 2; None for as many
    as the chain knows) limits how many terms are replaced by exact traces. The last two concern the value, not its gradient.
    """

    probes: Probes = field(default_factory=Probes, kw_only=True)
    standard_error: float | None = field(default=None, kw_only=True)
    exact_traces: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not isinstance(self.probes, Probes):
            raise DTypeError(f"{name}: expected probes of type ir.Probes, got {type(self.probes).__name__}; try ir.Probes(count=16)")
        if self.standard_error is not None and not 0.0 < self.standard_error < math.inf:
            raise ValueError(f"{name}: expected standard_error > 0, got {self.standard_error}; leave it out for `probes` as they are")
        if self.exact_traces is not None and self.exact_traces not in (0, 1, 2):
            raise ValueError(f"{name}: expected exact_traces 0, 1 or 2, got {self.exact_traces}; leave it out for as many as there are")

    def after_streams(self, streams: int) -> Self:
        """Return the estimate on later streams."""
        return changed(self, probes=self.probes.on_stream(self.probes.stream + streams)) if streams else self

    def shared_by(self, blocks: int) -> Self:
        """Return the estimate to standard_error/√blocks."""
        if self.standard_error is None or blocks < 2:
            return self
        return replace(self, standard_error=self.standard_error / math.sqrt(blocks))

    @abstractmethod
    def estimator(self, chain: Chain, lipschitz: float, norm: float) -> Estimator:
        """Return the estimate where J is the chain and g contracts by `lipschitz` in this norm, ready for probes."""

    def traces(self, chain: Chain) -> tuple[Array, ...]:
        """Return the exact traces that replace terms; none in few bits, where sums over the weights are too much."""
        return exact_traces(chain, 0 if is_short(chain.like) else self.exact_traces)


@dataclass(frozen=True)
class Truncated(Estimate):
    """An estimate of the first `terms` of the series."""

    terms: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.terms < 1:
            raise ValueError(f"{type(self).__name__}: expected terms ≥ 1, got {self.terms}; try {type(self).__name__}(terms=10)")


@public
@dataclass(frozen=True)
class Series(Truncated):
    """Σ_{k≤terms} (−1)^{k+1} vᵀJᵏv/k; |bias| ≤ −r(log(1 − L) + Σ_{k≤terms} Lᵏ/k) for rank J ≤ r ([B19] Thm 4).

    Raises: ValueError for terms < 1 or standard_error ≤ 0, DTypeError for other probes.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> found = ir.logdet(F, np.ones((3, 2)), ir.Series(8))
    >>> bool(np.max(found.bias_bound) < 1e-3), bool(np.max(found.bias_bound) > 0.0)
    (True, True)
    """

    def estimator(self, chain: Chain, lipschitz: float, norm: float) -> SeriesEstimator:
        """Return the series of J."""
        return SeriesEstimator(chain, lipschitz, self.traces(chain)[: self.terms], norm, self.terms)

@public
@dataclass(frozen=True)
class Roulette(Estimate):
    """The unbiased series of random length N, drawn for each sample ([C19] eq. 6).

    `lengths` is the distribution of N (`ir.roulette`), or a number: E[N] of `ir.roulette.near_optimal`, whose variance is
    finite for every L < 1; by default max(6, 1.5/(1 − L)). A distribution whose variance is not proved finite from L is refused
    unless `allow_infinite_variance`.

    Raises: InfiniteVarianceError where the variance is not proved finite, ValueError, DTypeError.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> found = ir.logdet(F, np.ones((3, 2)), ir.Roulette(probes=ir.Probes(seed=1, count=16)))
    >>> bool(np.max(found.bias_bound) < 1e-15), found.replicates
    (True, 16)
    """

    lengths: LengthDistribution | float | None = None
    allow_infinite_variance: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.lengths, bool) or not (self.lengths is None or isinstance(self.lengths, int | float)):
            require_length_distribution(self.lengths)

    def estimator(self, chain: Chain, lipschitz: float, norm: float) -> RouletteEstimator:
        """Return the roulette of J. Raises InfiniteVarianceError, ValueError."""
        return RouletteEstimator(chain, lipschitz, self.traces(chain), norm, self.table(lipschitz))

    def table(self, lipschitz: float, *, gradient: bool = False) -> Table:
        """Return the distribution of N as it is drawn. Raises InfiniteVarianceError, ValueError."""
        lengths = self.lengths
        if not isinstance(lengths, LengthDistribution):
            lengths = near_optimal(lipschitz, None if lengths is None else float(lengths))
        if not self.allow_infinite_variance:
            require_finite_variance(lengths, lipschitz, gradient=gradient)
        return table(lengths, lipschitz)


@public
@dataclass(frozen=True)
class Arnoldi(Truncated):
    """Quadrature on the Krylov space of `terms` ≤ d products, and a proved bound on its error from what that space leaves over.

    The bound, `bias_bound`, is |value − mean vᵀlog(I + J)v| over the probes themselves, and never above (r + d)Σ_{k>terms} Lᵏ/k, which is
    known beforehand and usually far too large: 1e-9 for 30 nats at 64 dimensions and 8 products. It takes four products with Jᵀ a probe.
    Its gradient is that of the series with as many terms.

    Raises: ValueError for terms < 1.
    Reference: Saad, *Analysis of some Krylov subspace approximations*, 1992; docs/proofs.md for the bound.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> exact, found = (ir.logdet(F, np.ones((3, 2)), method).value for method in (ir.Exact(), ir.Arnoldi(2)))
    >>> bool(np.max(np.abs(exact - found)) < 0.5)
    True
    """

    def estimator(self, chain: Chain, lipschitz: float, norm: float) -> ArnoldiEstimator:
        """Return the quadrature of J. Raises ValueError for another norm than the 2-norm, and more terms than dimensions."""
        return ArnoldiEstimator(chain, lipschitz, self.traces(chain)[: self.terms], norm, self.terms)


@public
@dataclass(frozen=True)
class Auto(LogDetMethod):
    """`Exact` while the narrowest dimension is at most 256, else `estimate`.

    With `estimate.standard_error`, whichever meets it for the fewest operations; and `Arnoldi` in place of a roulette of default
    lengths where its proved bound is below 1/32 of it within the products that the roulette takes.
    Reference: those of the methods it chooses from, [B19] eq. 4 and [C19] eq. 6.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> ir.logdet(F, np.ones((3, 2)), ir.Auto()).method
    'exact'
    """

    estimate: Roulette = field(default_factory=Roulette)

    def after_streams(self, streams: int) -> Auto:
        """Return the method with the estimate on later streams."""
        return changed(self, estimate=self.estimate.after_streams(streams))

    def shared_by(self, blocks: int) -> Auto:
        """Return the method with the estimate for one of so many blocks."""
        shared = self.estimate.shared_by(blocks)
        return self if shared is self.estimate else Auto(shared)


Name = Literal["auto", "exact", "roulette"]
"""The methods that have no option which must be given, by name."""
BY_NAME: dict[str, LogDetMethod] = {"auto": Auto(), "exact": Exact(), "roulette": Roulette()}


def named(method: LogDetMethod | Name) -> LogDetMethod:
    """Return the method itself. Raises ValueError for an unknown name, DTypeError for another object.

    >>> named("exact"), named(Series(5)).terms
    (Exact(), 5)
    """
    if isinstance(method, str):
        if method not in BY_NAME:
            raise ValueError(
                f"method: expected {', '.join(map(repr, BY_NAME))}, or ir.Series(terms), ir.Arnoldi(terms), got {method!r}; try 'auto'"
            )
        return BY_NAME[method]
    if not isinstance(method, LogDetMethod):
        raise DTypeError(f"method: expected a name or ir.Exact, Series, Roulette, Arnoldi or Auto, got {type(method).__name__}")
    return method
