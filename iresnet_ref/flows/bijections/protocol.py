"""What a bijection of a flow is: a value with its log-determinant, a preimage with its error bound, a pullback.

Every one maps events of `in_shape` to events of `out_shape`, batch first. Bijections are values: `with_parameters` and
`initialise` return new ones. Public methods validate once; those that a bijection defines (`value`,
`forward_and_log_det`, `preimage`, `pullback`) contain only mathematics.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from iresnet_ref.arrays import Array, changed, device, every_row, indices, lazy, namespace, public, row_norm
from iresnet_ref.arrays.validation import require_alike, require_batch, require_finite, require_parameters
from iresnet_ref.gradient.exact import Determinant
from iresnet_ref.inversion import methods as inverse_methods
from iresnet_ref.inversion.methods import InverseMethod
from iresnet_ref.inversion.methods import Name as InverseName
from iresnet_ref.inversion.result import Inverse
from iresnet_ref.log_determinant import methods as logdet_methods
from iresnet_ref.log_determinant.methods import LogDetMethod
from iresnet_ref.log_determinant.methods import Name as LogDetName
from iresnet_ref.log_determinant.result import LogDet

Pulled = tuple[Array, dict[str, Array]]
"""(x̄, {parameter: gradient})."""


@dataclass(frozen=True)
class Options:
    """How the residual blocks of a flow compute: `logdet` is the method of `ir.logdet`, `inverse` and `rtol` are those of `ir.invert`.

    Each block draws from its own stream, counted from that of the method's probes. A standard error is that of the whole flow:
    each of its n residual blocks is asked for standard_error/√n. Gradients take the Neumann series where the value is estimated.

    Raises: ValueError, DTypeError for what is no method.

    >>> import numpy as np, iresnet_ref as ir
    >>> flow = ir.Flow([ir.ResidualBlock(ir.mlp((2, 8, 2)))], options=ir.Options(logdet=ir.Series(5), rtol=1e-8))
    >>> flow.log_prob(np.ones((3, 2))).log_det.method
    'series'
    """

    logdet: LogDetMethod | LogDetName = "auto"
    inverse: InverseMethod | InverseName = "auto"
    rtol: float = 1e-6

    def __post_init__(self) -> None:
        """Refuse what is no method. Raises ValueError, DTypeError."""
        logdet_methods.named(self.logdet)
        inverse_methods.named(self.inverse)

    def after(self, streams: int) -> Options:
        """Return the options with the next `streams` streams passed over."""
        return changed(self, logdet=logdet_methods.named(self.logdet).after_streams(streams)) if streams else self

    def shared(self, blocks: int) -> Options:
        """Return the options for one of so many blocks: variances add up to standard_error²."""
        method = logdet_methods.named(self.logdet)
        shared = method.shared_by(blocks)
        return self if shared is method else replace(self, logdet=shared)


DEFAULT = Options()


class Bijection(ABC):
    """x ↦ y with log|det dy/dx| per row.

    A step of your own: `in_shape`, `value`, `forward_and_log_det`, `preimage`, `pullback`; `ClosedForm` asks for less.
    Shapes: x (batch, *in_shape), y (batch, *out_shape), log-determinants (batch,), in nats.

    >>> import numpy as np, iresnet_ref as ir
    >>> isinstance(ir.bijections.Permutation((2,), (1, 0)), ir.bijections.Bijection)
    True
    """

    streams: int = 0
    """How many random streams its log-determinant may use."""

    @property
    @abstractmethod
    def in_shape(self) -> tuple[int, ...]:
        """The event shape of x."""

    @property
    def out_shape(self) -> tuple[int, ...]:
        """The event shape of y."""
        return self.in_shape

    @abstractmethod
    def value(self, x: Array) -> Array:
        """Return y, without validation."""

    @abstractmethod
    def forward_and_log_det(self, x: Array, options: Options) -> tuple[Array, LogDet]:
        """Return (y, log|det dy/dx|), without validation."""

    def record(self, x: Array, options: Options | None) -> Record:
        """Return the forward pass at x, kept; without options nothing will be asked about the log-determinant."""
        return Record(self, x, self.value(x), options)

    @abstractmethod
    def preimage(self, y: Array, options: Options) -> Inverse:
        """Return the preimage of y with its error bound, without validation."""

    @abstractmethod
    def pullback(self, x: Array, y_bar: Array, weights: Array | None, options: Options) -> Pulled:
        """Return (x̄, gradients) of Σ ȳᵀy(x) + Σ_b w_b log|det dy/dx|_b; `weights` None is zero."""

    @property
    @abstractmethod
    def inverse_lipschitz(self) -> float:
        """A bound on Lip(y ↦ x), inf where none is known."""

    def amplification(self, x: Array) -> Array:
        """Return an estimate, per row, of the Lipschitz constant of the inverse near y(x); here its bound."""
        return every_row(x) + self.inverse_lipschitz

    def parameters(self) -> dict[str, Array]:
        """Return the parameters by name."""
        return {}

    @lazy
    def like(self) -> Array | None:
        """The first parameter, None where there is none: it carries namespace, dtype and device."""
        return next(iter(self.parameters().values()), None)

    @public
    def with_parameters(self, parameters: Mapping[str, Array]) -> Self:
        """Return the bijection with these parameters; the keys are those of `parameters()`. Raises ShapeError."""
        require_parameters(parameters, self.parameters())
        return self._replaced(parameters)

    def _replaced(self, parameters: Mapping[str, Array]) -> Self:
        return replace(self, **parameters) if parameters else self  # type: ignore[type-var]  # every bijection is a dataclass

    @public
    def initialise(self, x: Array) -> Self:
        """Return the bijection with its data-dependent state set from the batch x; itself where it has none."""
        return self

    @public
    def condition(self, context: Array | None) -> Self:
        """Return the bijection conditioned on a context, or with None on nothing; itself where it takes none."""
        return self

    def require(self, x: Array, name: str, shape: tuple[int, ...] | None = None, *, check: bool = True, **others: Array | None) -> None:
        """Refuse a batch that is not finite, or not of the event shape (default: of x) or the parameters' kind.

        `check` looks at the values, those of x and of what else has to be finite, by one host synchronisation.
        """
        require_batch(x, self.in_shape if shape is None else shape, name, check=False)
        if self.like is not None:
            require_alike(x, self.like, name)
        for other, a in others.items():
            if a is not None:
                require_batch(a, (), other, check=False)
                require_alike(a, x, other)
        if check:
            self.require_values(x, name, **others)

    def require_values(self, x: Array, name: str, **others: Array | None) -> None:
        """Refuse values that are not finite, by one host synchronisation."""
        require_finite(**{name: x}, **others)

    @public
    def __call__(self, x: Array, *, check: bool = True) -> Array:
        """Return y for x of shape (batch, *in_shape). Raises ShapeError, DTypeError, NonFiniteError."""
        self.require(x, "x", check=check)
        return self.value(x)

    @public
    def forward(self, x: Array, *, options: Options = DEFAULT, check: bool = True) -> tuple[Array, LogDet]:
        """Return (y, log|det dy/dx|) for x of shape (batch, *in_shape)."""
        self.require(x, "x", check=check)
        return self.forward_and_log_det(x, options.shared(self.streams))

    @public
    def inverse(self, y: Array, *, options: Options = DEFAULT, check: bool = True) -> Inverse:
        """Return the preimage of y of shape (batch, *out_shape) with its guarantees; `error_bound` as in `ir.invert`."""
        self.require(y, "y", self.out_shape, check=check)
        return self.preimage(y, options)


@dataclass(frozen=True, eq=False)
class Record:
    """A forward pass of a bijection at x, kept for what is asked of it afterwards: `value`, the log-determinant, the reverse pass."""

    bijection: Bijection
    x: Array
    value: Array
    options: Options | None

    def determinants(self) -> tuple[Determinant, ...]:
        """Return what is to be eliminated for its log-determinant and its gradient, if anything is."""
        return ()

    def log_det(self) -> LogDet:
        """Return log|det dy/dx|."""
        return self.bijection.forward_and_log_det(self.x, self.options or DEFAULT)[1]

    def pullback(self, y_bar: Array, weights: Array | None = None) -> Pulled:
        """Return (x̄, gradients) of Σ ȳᵀy(x) + Σ_b w_b log|det dy/dx|_b."""
        return self.bijection.pullback(self.x, y_bar, weights, self.options or DEFAULT)


class ClosedForm(Bijection):
    """A bijection of events of `event_shape` whose inverse and log-determinant are formulas.

    A step of your own says `value`, `inverse_value`, `log_abs_det`, the `rounding` of the inverse, and `pullback`: nothing is iterated.

    >>> import numpy as np, iresnet_ref as ir
    >>> swap = ir.bijections.Permutation((2,), (1, 0))
    >>> isinstance(swap, ir.bijections.ClosedForm), swap.inverse(np.asarray([[1.0, 2.0]])).x.tolist()
    (True, [[2.0, 1.0]])
    """

    event_shape: tuple[int, ...]

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The event shape of x."""
        return self.event_shape

    @abstractmethod
    def inverse_value(self, y: Array) -> Array:
        """Return x."""

    @abstractmethod
    def log_abs_det(self, x: Array, y: Array) -> Array:
        """Return log|det dy/dx| per row."""

    @abstractmethod
    def rounding(self, x: Array, y: Array) -> Array:
        """Return, per row, a bound on ‖x − x*‖₂ for the computed x and the exact preimage x* of y."""

    def forward_and_log_det(self, x: Array, options: Options) -> tuple[Array, LogDet]:
        """Return (y, log|det dy/dx|)."""
        y = self.value(x)
        return y, exactly(self.log_abs_det(x, y), x)

    def record(self, x: Array, options: Options | None) -> ClosedFormRecord:
        """Return the forward pass at x, kept."""
        return ClosedFormRecord(self, x, self.value(x), options)

    def preimage(self, y: Array, options: Options) -> Inverse:
        """Return the preimage of y."""
        x = self.inverse_value(y)
        return closed_form(x, row_norm(y - self.value(x), y.ndim - 1), self.rounding(x, y))


@dataclass(frozen=True, eq=False)
class ClosedFormRecord(Record):
    """The formula reads x and y."""

    bijection: ClosedForm

    def log_det(self) -> LogDet:
        """Return log|det dy/dx|."""
        return exactly(self.bijection.log_abs_det(self.x, self.value), self.x)


class Rearrangement(ClosedForm):
    """A bijection that only moves entries: log-determinant 0, no rounding, an isometry."""

    def log_abs_det(self, x: Array, y: Array) -> Array:
        """Return 0."""
        return every_row(x)

    def rounding(self, x: Array, y: Array) -> Array:
        """Return 0."""
        return every_row(x)

    def preimage(self, y: Array, options: Options) -> Inverse:
        """Return the preimage of y, exactly."""
        return closed_form(self.inverse_value(y), every_row(y), every_row(y))

    def pullback(self, x: Array, y_bar: Array, weights: Array | None, options: Options) -> Pulled:
        """x̄ = Pᵀȳ = P⁻¹ȳ."""
        return self.inverse_value(y_bar), {}

    @property
    def inverse_lipschitz(self) -> float:
        """1."""
        return 1.0


def exactly(value: Array, x: Array) -> LogDet:
    """Return the log-determinant of a formula: no bias, no variance, no products with a Jacobian."""
    return LogDet(value, every_row(x), every_row(x), indices(np.zeros(x.shape[0]), x), "exact")


def closed_form(x: Array, residual: Array, bound: Array) -> Inverse:
    """Return the result of an inverse that is a formula."""
    xp = namespace(x)
    n = x.shape[0]
    done = xp.ones((n,), dtype=xp.bool, device=device(x))
    return Inverse(x, residual, bound, indices(np.zeros(n), x), done, "closed form")


def added(a: LogDet, b: LogDet) -> LogDet:
    """Return the log-determinant of a composition, from independent draws: values, bias bounds, variances and third moments add.

    The replicates are the fewer of the two: `interval` takes the degrees of freedom of the part that has the least. A part of n
    replicates has skewness a/√n of its mean, and so they add.
    """
    xp = namespace(a.value)
    method = a.method if a.method == b.method else " + ".join(dict.fromkeys((a.method + " + " + b.method).split(" + ")))
    random = [part for part in (a, b) if part.replicates]
    replicates = min((part.replicates for part in random), default=0)
    error, skewness = a.standard_error, None
    if random:
        error = xp.sqrt(a.standard_error * a.standard_error + b.standard_error * b.standard_error)
        safe = xp.where(error > 0.0, error, 1.0)
        skewness = 0.0 * error
        for part in random:
            share: Any = part.standard_error / safe
            skewness = skewness + math.sqrt(replicates / part.replicates) * (part.skewness * share**3.0)
    return LogDet(
        a.value + b.value,
        error,
        a.bias_bound + b.bias_bound,
        a.evaluations + b.evaluations,
        method,
        replicates,
        a.exact_traces + b.exact_traces,
        skewness,
        max(a.replicates_needed, b.replicates_needed),
    )


def norm_growth(p: float, n: int) -> tuple[float, float]:
    """Return (a, b) with ‖v‖₂ ≤ a‖v‖_p and ‖v‖_p ≤ b‖v‖₂ in n dimensions."""
    q = 0.0 if math.isinf(p) else 1.0 / p
    return float(n) ** max(0.0, 0.5 - q), float(n) ** max(0.0, q - 0.5)
