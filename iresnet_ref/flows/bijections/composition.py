"""Composition f_n ∘ ⋯ ∘ f_1, and the multi-scale factor-out as a bijection."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, changed, every_row, flatten_events, namespace, public, row_norm, shown, size
from iresnet_ref.arrays.validation import require_alike, require_event
from iresnet_ref.block import ResidualBlock
from iresnet_ref.errors import DTypeError, ShapeError
from iresnet_ref.flows.bijections.protocol import DEFAULT, Bijection, Options, Pulled, Record, added
from iresnet_ref.flows.bijections.residual import Residual
from iresnet_ref.gradient.exact import Determinant, eliminate_together
from iresnet_ref.inversion.composition import PathInverse, propagated
from iresnet_ref.inversion.result import Inverse
from iresnet_ref.log_determinant.result import LogDet

LINE = 100
"""Characters of a step in a `repr`."""


@public
@dataclass(frozen=True)
class Composition(Bijection):
    """x ↦ f_n(⋯ f_1(x)); residual blocks among the steps are wrapped. Parameters are {"2.log_scale": …}.

    The error bound of the inverse is propagated: with ε_k the bound of step k alone and Λ_k ≥ Lip(f_k⁻¹), the preimage is
    within ε_1 + Λ_1(ε_2 + Λ_2(⋯)) of the exact one. It is a true bound, and quickly vacuous: eight blocks at L = .97
    multiply by 1.5e12 (`inverse_lipschitz`).
    Raises: DTypeError for a step that is no bijection, ShapeError for none, or for two that do not fit.

    >>> import numpy as np, iresnet_ref as ir
    >>> f = Composition((ir.bijections.Permutation((2,), (1, 0)), ir.ResidualBlock(ir.mlp((2, 8, 2)))))
    >>> y, log_det = f.forward(np.ones((1, 2)))
    >>> bool(abs(f.inverse(y).x - 1.0).max() < 1e-5)
    True
    """

    steps: tuple[Any, ...]

    def __post_init__(self) -> None:
        steps = tuple(Residual(s) if isinstance(s, ResidualBlock) else s for s in self.steps)
        for step in steps:
            if not isinstance(step, Bijection):
                raise DTypeError(
                    f"flow: expected steps that are residual blocks or bijections, got {type(step).__name__}; try ir.ResidualBlock(branch)"
                )
        if not steps:
            raise ShapeError("flow: expected at least one step, got none; try [ir.ResidualBlock(ir.mlp((2, 64, 64, 2)))]")
        for i, (a, b) in enumerate(pairwise(steps)):
            if tuple(a.out_shape) != tuple(b.in_shape):
                raise ShapeError(
                    f"flow: expected step {i + 1} to take events {a.out_shape} of step {i}, got {b.in_shape}; try another order"
                )
        object.__setattr__(self, "steps", steps)
        self._require_alike()

    def _require_alike(self) -> None:
        arrays = list(self.parameters().values())
        for array in arrays[1:]:
            require_alike(array, arrays[0], "flow parameter")

    def __repr__(self) -> str:
        """Name the steps, on at most ten lines."""
        return "\n".join([f"Composition {self.in_shape} → {self.out_shape}, {len(self.steps)} steps", *self.described()])

    def described(self) -> list[str]:
        """Return at most eight lines that name the steps, equal ones in a row together."""
        names = [repr(s.block) if isinstance(s, Residual) else f"{type(s).__name__} {s.in_shape}" for s in self.steps]
        lines, first = list[str](), 0
        for name, group in itertools.groupby(names):
            count = len(list(group))
            where = f"{first}" if count == 1 else f"{first}–{first + count - 1}"
            lines.append(f"  {where}: {name if len(name) <= LINE else name[: LINE - 1] + '…'}")
            first += count
        return lines if len(lines) <= 8 else [*lines[:5], f"  … {len(lines) - 7} more …", *lines[-2:]]

    @property
    def streams(self) -> int:  # type: ignore[override]  # a constant of the other bijections
        """Those of all steps."""
        return sum(step.streams for step in self.steps)

    @property
    def in_shape(self) -> tuple[int, ...]:
        """That of the first step."""
        return tuple(self.steps[0].in_shape)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """That of the last step."""
        return tuple(self.steps[-1].out_shape)

    def parameters(self) -> dict[str, Array]:
        """Return the parameters of all steps, in their order."""
        return {f"{i}.{name}": p for i, step in enumerate(self.steps) for name, p in step.parameters().items()}

    def _replaced(self, parameters: Mapping[str, Array]) -> Composition:
        steps = [step.with_parameters({name: parameters[f"{i}.{name}"] for name in step.parameters()}) for i, step in enumerate(self.steps)]
        made = changed(self, steps=tuple(steps))
        made._require_alike()
        return made

    @public
    def initialise(self, x: Array) -> Composition:
        """Return it with every step initialised from what the steps before it make of x."""
        self.require(x, "x")
        steps: list[Bijection] = []
        for step in self.steps:
            steps.append(step.initialise(x))
            x = steps[-1].value(x)
        return Composition(tuple(steps))

    @public
    def condition(self, context: Array | None) -> Composition:
        """Return it with every step conditioned."""
        return Composition(tuple(step.condition(context) for step in self.steps))

    def require_values(self, x: Array, name: str, **others: Array | None) -> None:
        """Refuse of x what the first step refuses."""
        if name == "x":
            self.steps[0].require_values(x, name, **others)
        else:
            super().require_values(x, name, **others)

    def value(self, x: Array) -> Array:
        """Return f_n(⋯ f_1(x))."""
        for step in self.steps:
            x = step.value(x)
        return x

    def forward_and_log_det(self, x: Array, options: Options) -> tuple[Array, LogDet]:
        """Return the value and the sum of the log-determinants."""
        parts: list[LogDet] = []
        for step, own in zip(self.steps, own_options(self.steps, options), strict=True):
            x, log_det = step.forward_and_log_det(x, own)
            parts.append(log_det)
        return x, functools.reduce(added, parts)

    def record(self, x: Array, options: Options | None) -> CompositionRecord:
        """Return the records of the steps."""
        records: list[Record] = []
        value = x
        for step, own in zip(self.steps, own_options(self.steps, options), strict=True):
            records.append(step.record(value, own))
            value = records[-1].value
        return CompositionRecord(self, x, value, options, tuple(records))

    @public
    def inverse(self, y: Array, *, options: Options = DEFAULT, estimate: bool = False, check: bool = True) -> PathInverse:
        """Return the preimage of y; `error_bound` is propagated through all steps: true, and soon `vacuous`.

        With `estimate`, `amplification_estimate` is what an error at y is multiplied by along this path, to first order: no
        bound, usually near 1, and about 48 products with each block's Jacobian.
        """
        self.require(y, "y", self.out_shape, check=check)
        found = self.preimage(y, options)
        return replace(found, amplification_estimate=self.amplification(found.x)) if estimate else found

    def preimage(self, y: Array, options: Options) -> PathInverse:
        """Return the preimage; its residual is that of the whole composition."""
        results: list[Inverse] = []
        constants: list[float] = []
        x = y
        for step, own in zip(reversed(self.steps), reversed(own_options(self.steps, options)), strict=True):
            results.append(step.preimage(x, own))
            constants.append(step.inverse_lipschitz)
            x = results[-1].x
        bound, product, vacuous = propagated(results, constants)
        return PathInverse(
            x,
            row_norm(y - self.value(x), y.ndim - 1),
            bound,
            functools.reduce(operator.add, (r.evaluations for r in results)),
            functools.reduce(_and, (r.converged for r in results)),
            " + ".join(dict.fromkeys(r.method for r in results)),
            functools.reduce(_and, (r.covers_computed for r in results)),
            inverse_lipschitz=product,
            vacuous=vacuous,
        )

    def amplification(self, x: Array) -> Array:
        """Return the product of the steps' own, along the path of x."""
        product = every_row(x, 1.0)
        for step in self.steps:
            product = step.amplification(x) * product
            x = step.value(x)
        return product

    @property
    def inverse_lipschitz(self) -> float:
        """The product of those of the steps: a true bound, quickly vacuous."""
        product = 1.0
        for step in self.steps:
            product = rounding.up(product * step.inverse_lipschitz, 1)
        return product

    def pullback(self, x: Array, y_bar: Array, weights: Array | None, options: Options) -> Pulled:
        """The steps' pullbacks, last to first."""
        return self.record(x, None if weights is None else options).pullback(y_bar, weights)


@dataclass(frozen=True, eq=False)
class CompositionRecord(Record):
    """The records of the steps."""

    records: tuple[Record, ...]

    def determinants(self) -> tuple[Determinant, ...]:
        """Return those of the steps."""
        return tuple(found for record in self.records for found in record.determinants())

    def log_det(self) -> LogDet:
        """Return the sum of the steps' log-determinants."""
        eliminate_together(self.determinants())
        return functools.reduce(added, [record.log_det() for record in self.records])

    def pullback(self, y_bar: Array, weights: Array | None = None) -> Pulled:
        """The steps' pullbacks, last to first."""
        if weights is not None:
            eliminate_together(self.determinants())
        found: list[dict[str, Array]] = []
        for record in reversed(self.records):
            y_bar, mine = record.pullback(y_bar, weights)
            found.append(mine)
        return y_bar, {f"{i}.{name}": g for i, mine in enumerate(reversed(found)) for name, g in mine.items()}


Own = TypeVar("Own", Options, Options | None)


def own_options(steps: Sequence[Bijection], options: Own) -> list[Own]:
    """Return options for each step whose random streams no other step uses."""
    before = itertools.accumulate((step.streams for step in steps[:-1]), initial=0)
    return [options if options is None else options.after(streams) for streams in before]


def _and(a: Any, b: Any) -> Any:
    return a & b


def as_composition(steps: Any) -> Composition:
    """Return a composition as it is, of a sequence of steps the composition. Raises DTypeError, ShapeError."""
    if isinstance(steps, Composition):
        return steps
    if isinstance(steps, Bijection | ResidualBlock) or not isinstance(steps, Sequence):
        raise DTypeError(f"flow: expected a sequence of steps, got {shown(steps)}; try [ir.ResidualBlock(branch)]")
    return Composition(tuple(steps))  # pyright: ignore[reportUnknownArgumentType] - narrowed from Any


@public
@dataclass(frozen=True)
class FactorOut(Bijection):
    """Half of the channels go to the base at once, the rest through further steps: the multi-scale architecture.

    y = (flat rest(x_a), flat x_b), a vector, with x_a the first half of the channels (the larger one of an odd number).
    Real NVP, arXiv 1605.08803, §3.6. Nest one in another for more scales; the base then is one density on vectors.
    Raises: ShapeError for fewer than two channels, or steps that do not take half of them.

    >>> import numpy as np, iresnet_ref as ir
    >>> f = FactorOut((4, 2, 2), [ir.bijections.Permutation((2, 2, 2), (1, 0))])
    >>> f(np.zeros((3, 4, 2, 2))).shape
    (3, 16)
    """

    event_shape: tuple[int, ...]
    rest: Any

    def __post_init__(self) -> None:
        rest = self.rest if isinstance(self.rest, Bijection) else as_composition(self.rest)
        require_event(self.event_shape, "factor out")
        if self.event_shape[0] < 2:
            raise ShapeError(f"factor out: expected events of at least two channels, got {self.event_shape}; try ir.Squeeze before")
        half = (self.event_shape[0] - self.event_shape[0] // 2, *self.event_shape[1:])
        if tuple(rest.in_shape) != half:
            raise ShapeError(f"factor out: expected steps that take half the channels, {half}, got {rest.in_shape}; try such steps")
        object.__setattr__(self, "rest", rest)

    @property
    def streams(self) -> int:  # type: ignore[override]  # a constant of the other bijections
        """Those of the rest."""
        return int(self.rest.streams)

    @property
    def in_shape(self) -> tuple[int, ...]:
        """(channels, …)."""
        return self.event_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(d′,), all numbers of both parts."""
        return (size(self.rest.out_shape) + size(self.event_shape) - size(self.rest.in_shape),)

    def parameters(self) -> dict[str, Array]:
        """Return those of the rest."""
        return dict(self.rest.parameters())

    def _replaced(self, parameters: Mapping[str, Array]) -> FactorOut:
        return replace(self, rest=self.rest.with_parameters(parameters))

    @public
    def initialise(self, x: Array) -> FactorOut:
        """Return it with the rest initialised."""
        self.require(x, "x")
        return replace(self, rest=self.rest.initialise(self.split(x)[0]))

    @public
    def condition(self, context: Array | None) -> FactorOut:
        """Return it with the rest conditioned."""
        return replace(self, rest=self.rest.condition(context))

    def split(self, x: Array) -> tuple[Array, Array]:
        """Return (x_a, x_b)."""
        half = self.rest.in_shape[0]
        return x[:, :half, ...], x[:, half:, ...]

    def join(self, a: Array, b: Array) -> Array:
        """Return (flat a, flat b)."""
        return namespace(a).concat([flatten_events(a, a.ndim - 1), flatten_events(b, b.ndim - 1)], axis=-1)

    def parts(self, y: Array) -> tuple[Array, Array]:
        """Return what the rest has made, flat, and the channels beside it."""
        xp, n = namespace(y), size(self.rest.out_shape)
        other = (self.event_shape[0] - self.rest.in_shape[0], *self.event_shape[1:])
        a = xp.reshape(y[:, :n], (y.shape[0], *self.rest.out_shape))
        return a, xp.reshape(y[:, n:], (y.shape[0], *other))

    def value(self, x: Array) -> Array:
        """Return (flat rest(x_a), flat x_b)."""
        a, b = self.split(x)
        return self.join(self.rest.value(a), b)

    def forward_and_log_det(self, x: Array, options: Options) -> tuple[Array, LogDet]:
        """Return the value and the log-determinant of the rest."""
        a, b = self.split(x)
        a, log_det = self.rest.forward_and_log_det(a, options)
        return self.join(a, b), log_det

    def preimage(self, y: Array, options: Options) -> Inverse:
        """Return the preimage: that of the rest, joined with x_b, which is exact."""
        a, b = self.parts(y)
        found = self.rest.preimage(a, options)
        return replace(found, x=namespace(y).concat([found.x, b], axis=1))

    def amplification(self, x: Array) -> Array:
        """Return that of the rest, at least 1."""
        xp, rest = namespace(x), self.rest.amplification(self.split(x)[0])
        return xp.maximum(rest, xp.ones_like(rest))

    @property
    def inverse_lipschitz(self) -> float:
        """That of the rest, at least 1."""
        return max(1.0, self.rest.inverse_lipschitz)

    def record(self, x: Array, options: Options | None) -> FactorOutRecord:
        """Return the record of the rest."""
        a, b = self.split(x)
        rest = self.rest.record(a, options)
        return FactorOutRecord(self, x, self.join(rest.value, b), options, rest)

    def pullback(self, x: Array, y_bar: Array, weights: Array | None, options: Options) -> Pulled:
        """The rest's pullback, joined with the identity."""
        return self.record(x, None if weights is None else options).pullback(y_bar, weights)


@dataclass(frozen=True, eq=False)
class FactorOutRecord(Record):
    """The record of the rest: what passes by has neither a log-determinant nor parameters."""

    bijection: FactorOut
    rest: Record

    def determinants(self) -> tuple[Determinant, ...]:
        """Return those of the rest."""
        return self.rest.determinants()

    def log_det(self) -> LogDet:
        """Return the log-determinant of the rest."""
        return self.rest.log_det()

    def pullback(self, y_bar: Array, weights: Array | None = None) -> Pulled:
        """The rest's pullback, joined with the identity."""
        a_bar, b_bar = self.bijection.parts(y_bar)
        a_bar, gradients = self.rest.pullback(a_bar, weights)
        return namespace(b_bar).concat([a_bar, b_bar], axis=1), gradients
