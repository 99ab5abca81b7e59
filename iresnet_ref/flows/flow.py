"""A flow: a composition of bijections and the base density at its end. log p(x) = log p_Z(F(x)) + log|det dF/dx|."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from iresnet_ref.arrays import Array, changed, every_row, public, shown, size
from iresnet_ref.arrays.validation import require_alike, require_batch, require_finite, require_rows
from iresnet_ref.errors import DTypeError, ShapeError
from iresnet_ref.flows.base import Base, BitsPerDimension, LogProb, StandardGaussian, bits_per_dimension
from iresnet_ref.flows.bijections.composition import Composition, as_composition
from iresnet_ref.flows.bijections.protocol import DEFAULT, Options, Record
from iresnet_ref.inversion.composition import PathInverse
from iresnet_ref.log_determinant.result import LogDet


@public
@dataclass(frozen=True)
class Flow:
    """z = F(x) = f_n(⋯ f_1(x)) with z ~ `base`; steps are `ir.ResidualBlock` and the bijections of `iresnet_ref.flows.bijections`.

    F leads from data to the base. A flow is a value: `initialise(x)` (ActNorm, from the first batch) and
    `with_parameters` return new ones. `base` is the standard Gaussian unless given; a flow whose steps have no parameters needs
    one. `options` say how residual blocks compute log-determinants and inverses (`ir.Options`); every method takes others.
    With `ZeroPad` among the steps `log_prob` is no density on the data: see `iresnet_ref.flows.bijections.zero_padding`.

    Raises: ShapeError where steps do not fit, DTypeError for other objects or mixed dtypes and devices.
    Reference: [B19] §3, [C19] §2.

    >>> import numpy as np, iresnet_ref as ir
    >>> x = np.asarray([[0.0, 1.0], [2.0, 5.0], [4.0, 3.0]])
    >>> flow = ir.Flow([ir.bijections.ActNorm.uninitialised((2,), like=x), ir.ResidualBlock(ir.mlp((2, 16, 2), like=x))])
    >>> flow = flow.initialise(x)
    >>> flow.log_prob(x).value.shape, flow.sample(4, seed=1).shape
    ((3,), (4, 2))
    """

    steps: Any
    base: Any = None
    options: Options = DEFAULT

    def __post_init__(self) -> None:
        steps = as_composition(self.steps)
        arrays = list(steps.parameters().values())
        base = self.base
        if not (base is None or isinstance(base, StandardGaussian | Base)):
            raise DTypeError(f"flow: expected a base density, got {shown(base)}; try ir.StandardGaussian(event_shape, x)")
        if base is None:
            if not arrays:
                raise ShapeError(
                    "flow: expected base= where no step has parameters, got none; try ir.densities.StandardGaussian(event_shape, x)"
                )
            base = StandardGaussian(steps.out_shape, arrays[0])
        if tuple(base.event_shape) != steps.out_shape:
            raise ShapeError(
                f"flow: expected a base on events {steps.out_shape}, of the last step, got {tuple(base.event_shape)}; leave base= out"
            )
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "base", base)
        self._require_alike()

    def _require_alike(self) -> None:
        if self.steps.like is not None:
            require_alike(self.base.like, self.steps.like, "flow base")

    def __repr__(self) -> str:
        """Name the steps and the base, on at most ten lines."""
        steps: Composition = self.steps
        numbers = sum(size(tuple(p.shape)) for p in self.parameters().values())
        head = f"Flow {steps.in_shape} → {type(self.base).__name__} {steps.out_shape}, {len(steps.steps)} steps, {numbers} parameters"
        return "\n".join([head, *steps.described()])

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one data event."""
        composition: Composition = self.steps
        return composition.in_shape

    @property
    def dimensions(self) -> int:
        """How many numbers one data event has: before padding."""
        return size(self.event_shape)

    def _require(self, x: Array, *, check: bool, **others: Array | None) -> None:
        self.steps.require(x, "x", check=check, **others)
        require_alike(x, self.base.like, "x")

    @public
    def __call__(self, x: Array, *, check: bool = True) -> Array:
        """Return F(x)."""
        self._require(x, check=check)
        return self.steps.value(x)

    @public
    def forward(self, x: Array, *, options: Options | None = None, check: bool = True) -> tuple[Array, LogDet]:
        """Return (F(x), log|det dF/dx|), errors of independent blocks added in squares, bias bounds added."""
        self._require(x, check=check)
        composition: Composition = self.steps
        return composition.forward(x, options=options or self.options, check=False)

    @public
    def inverse(self, z: Array, *, estimate: bool = False, options: Options | None = None, check: bool = True) -> PathInverse:
        """Return the preimage of z, as `ir.bijections.Composition.inverse`."""
        require_batch(z, self.steps.out_shape, "z", check=check)
        require_alike(z, self.base.like, "z")
        composition: Composition = self.steps
        return composition.inverse(z, options=options or self.options, estimate=estimate, check=False)

    @public
    def log_prob(self, x: Array, *, options: Options | None = None, check: bool = True) -> LogProb:
        """Return log p(x) = log p_Z(F(x)) + log|det dF/dx| per row, in nats."""
        z, log_det = self.forward(x, options=options, check=check)
        return self._log_prob(z, log_det)

    def _log_prob(self, z: Array, log_det: LogDet) -> LogProb:
        value = self.base.log_prob(z) + log_det.value
        return LogProb(value, log_det.standard_error, log_det.bias_bound, log_det)

    @public
    def sample(self, n: int, *, seed: int = 0, options: Options | None = None) -> Array:
        """Return n ≥ 0 draws x = F⁻¹(z), z ~ base; row i depends on the seed and i alone. Raises ConvergenceError, ValueError."""
        if n < 0:
            raise ValueError(f"sample: expected n ≥ 0 draws, got {n}; try 1")
        return self.inverse(self.base.sample(n, seed=seed), options=options, check=False).x

    @public
    def bits_per_dimension(self, x: Array, *, levels: int = 1, options: Options | None = None, check: bool = True) -> BitsPerDimension:
        """Return `ir.densities.bits_per_dimension` of log p(x), with d the numbers of one data event before padding."""
        return bits_per_dimension(self.log_prob(x, options=options, check=check), self.dimensions, levels=levels)

    @public
    def condition(self, context: Array | None, *, check: bool = True) -> Flow:
        """Return the flow of p(x | h) for the rows h of `context` (batch, k), or one for all; None takes the context away again.

        It is a flow like any other, of as many rows: `log_prob(x)`, `sample(len(context))`, gradients with h̄ in addition to those of the
        parameters. Raises ShapeError where no step takes a context (`ir.bijections.ContextShift`), DTypeError, NonFiniteError.
        """
        bare = self.steps.condition(None)
        steps = bare.condition(context)
        if context is not None and steps.parameters().keys() == bare.parameters().keys():
            raise ShapeError("flow: expected a step that takes a context, got none; try ir.bijections.ContextShift.random(event_shape, k)")
        if context is not None and check:
            require_finite(context=context)
        return replace(self, steps=steps)

    @public
    def initialise(self, x: Array) -> Flow:
        """Return the flow with its data-dependent state set from the batch x; what was initialised stays as it is."""
        self._require(x, check=True)
        return replace(self, steps=self.steps.initialise(x))

    def parameters(self) -> dict[str, Array]:
        """Return all parameters, {"0.log_scale": …, "base.mean": …}."""
        own = {f"base.{name}": p for name, p in self.base.parameters().items()}
        return {**self.steps.parameters(), **own}

    @public
    def with_parameters(self, parameters: Mapping[str, Array]) -> Flow:
        """Return the flow with these parameters; the keys are those of `parameters()`. Raises ShapeError."""
        of_base = {k.removeprefix("base."): p for k, p in parameters.items() if str(k).startswith("base.")}
        if of_base.keys() != self.base.parameters().keys():
            wanted = sorted(self.base.parameters())
            raise ShapeError(f"parameters: expected of the base {wanted}, got {sorted(of_base)}; try the keys of parameters()")
        steps = self.steps.with_parameters({k: p for k, p in parameters.items() if not str(k).startswith("base.")})
        made = changed(self, steps=steps, base=self.base.with_parameters(of_base))
        made._require_alike()
        return made

    @public
    def log_prob_gradient(
        self, x: Array, *, weights: Array | None = None, options: Options | None = None, check: bool = True
    ) -> tuple[Array, dict[str, Array]]:
        """Return (x̄, gradients) of Σ_b w_b log p(x_b) without autodiff; `weights` (batch,), default ones.

        For a mean negative log-likelihood give −1/batch. Exact, or unbiased, as `ir.logdet_gradient` of each block.
        """
        weights = self._weights(x, weights, check=check)
        return self._back(self.steps.record(x, options or self.options), weights)

    @public
    def log_prob_and_gradient(
        self, x: Array, *, weights: Array | None = None, options: Options | None = None, check: bool = True
    ) -> tuple[LogProb, Array, dict[str, Array]]:
        """Return `log_prob(x)` and `log_prob_gradient(x, weights=weights)`, from one forward pass.

        Memory: the tapes of all blocks at once, what went into each layer and its derivatives, as autodiff keeps them.
        """
        weights = self._weights(x, weights, check=check)
        record = self.steps.record(x, (options or self.options).shared(self.steps.streams))
        return self._log_prob(record.value, record.log_det()), *self._back(record, weights)

    def _back(self, record: Record, weights: Array) -> tuple[Array, dict[str, Array]]:
        """Return (x̄, gradients) of Σ_b w_b log p(x_b) from the record of the steps."""
        z_bar, of_base = self.base.pullback(record.value, weights)
        x_bar, gradients = record.pullback(z_bar, weights)
        return x_bar, {**gradients, **{f"base.{name}": g for name, g in of_base.items()}}

    def _weights(self, x: Array, weights: Array | None, *, check: bool) -> Array:
        self._require(x, check=check, weights=weights)
        if weights is None:
            return every_row(x, 1.0)
        require_rows(weights, x, "weights")
        return weights
