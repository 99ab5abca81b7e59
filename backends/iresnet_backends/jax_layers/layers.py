"""Blocks, bijections and flows as pytrees of JAX: a call is (y, log_det), `inverse` (x, log_det); their leaves are the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import jax
import jax.numpy as jnp

import iresnet_ref as ir
from iresnet_backends.jax_layers.functions import normalised_branch
from iresnet_backends.jax_layers.host import words_of
from iresnet_backends.jax_layers.passes import Pair, Passes
from iresnet_backends.jax_layers.pytrees import register
from iresnet_ref import bijections, rounding
from iresnet_ref.errors import DTypeError, NotContractiveError
from iresnet_ref.flows.bijections.composition import as_composition


@dataclass(frozen=True, eq=False)
class Layer:
    """A bijection of the reference, x ↦ (y, log|det dy/dx|) row by row, as a pytree whose leaves are its raw parameters.

    `raw` is any bijection of `ir.bijections`, a block or branch, or a sequence of them. With `lipschitz` each call divides the weights of
    every residual branch by proved bounds of their norms, Lip(g) ≤ `lipschitz`, with the gradient through the division. With None
    weights are used as they are and each block has to state a constant, of which nothing is proved until the host is asked:
    `projected`, `certificates`. `options` say how log-determinants and inverses are computed; those of a call are taken as they are,
    draws included. Without them a random log-determinant takes its draws from `key`.

    Shapes: x (batch, *event). Raises: as the reference, ShapeError, DTypeError, NotContractiveError; ValueError without a key where
    one is needed. Reference: [B19] Thm 1, §2.1; [C19] eq. 6, 8.

    >>> import jax, jax.numpy as jnp
    >>> swap = Layer(ir.bijections.Permutation((2,), (1, 0)))
    >>> swap(jnp.asarray([[1.0, 2.0]]))[0].tolist()
    [[2.0, 1.0]]
    """

    raw: Any
    lipschitz: float | None = 0.9
    options: ir.Options | None = None

    def __post_init__(self) -> None:
        def plain(_: str, block: ir.ResidualBlock) -> ir.ResidualBlock:
            if type(block.branch) is not ir.Branch:
                raise DTypeError(
                    f"{type(self).__name__}: expected branches that are an ir.Branch, got {type(block.branch).__name__}, whose layers the "
                    "host makes; try ir.mlp, ir.convnet or ir.densenet, or ir.Branch(branch.layers, branch.event_shape)"
                )
            if self.lipschitz is None and block.lipschitz is None:
                raise NotContractiveError(
                    f"{type(self).__name__}: expected lipschitz=, to divide weights, or blocks that state a constant, got neither; try "
                    "lipschitz=0.9, or ir.ResidualBlock(branch, lipschitz=0.9)"
                )
            return block if self.lipschitz is None else replace(block, lipschitz=None)

        raw = _mapped(self._understood(self.raw), plain)
        object.__setattr__(self, "raw", jax.tree.map(jnp.asarray, raw))

    def _understood(self, raw: Any) -> Any:
        """Return the bijection that is meant. Raises DTypeError."""
        if isinstance(raw, ir.Branch | ir.ResidualBlock):
            return bijections.Residual(raw if isinstance(raw, ir.ResidualBlock) else ir.ResidualBlock(raw))
        return raw if isinstance(raw, bijections.Bijection) else as_composition(raw)

    @property
    def steps(self) -> Any:
        """The bijection of the raw parameters."""
        return self.raw

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one x."""
        shape: tuple[int, ...] = self.steps.in_shape
        return shape

    def __call__(self, x: Any, context: Any = None, *, key: Any = None, options: ir.Options | None = None) -> Pair:
        """Return (y, log_det) for x of shape (batch, *event); `context` (batch, k) where a step takes one."""
        steps = self.steps if context is None else self.steps.condition(context)
        return self._passes(x, key, options).forward(steps, x)

    def inverse(self, y: Any, context: Any = None, *, key: Any = None, options: ir.Options | None = None) -> Pair:
        """Return (x, log_det) of the inverse map, to the options' `rtol` (default: three quarters of the dtype's digits).

        Raises: ConvergenceError where rounding keeps a row above it; from a compiled program a JaxRuntimeError with its text.
        """
        steps = self.steps if context is None else self.steps.condition(context)
        return self._passes(y, key, options).inverse(steps, y)

    def _passes(self, x: Any, key: Any, options: ir.Options | None) -> Passes:
        given = options or self.options or ir.Options(rtol=float(rounding.unit_roundoff(x)) ** 0.75)
        words = None if key is None or options is not None else words_of(key)
        return Passes(self.lipschitz, given.shared(self.steps.streams), words, own_draws=options is not None)

    def parameters(self) -> dict[str, Any]:
        """Return the raw parameters by the names of the reference, {"0.weight": …}."""
        found: dict[str, Any] = self.raw.parameters()
        return found

    def with_parameters(self, parameters: Mapping[str, Any]) -> Self:
        """Return the layer with these raw parameters. Raises ShapeError for other names or shapes."""
        return replace(self, raw=self.raw.with_parameters(parameters))

    def initialise(self, x: Any) -> Self:
        """Return the layer with what waits for a first batch (ActNorm) set from x; outside of transformations."""
        ready = self.reference().initialise(x)
        branches = tuple(self._blocks())
        kept = {key: p for key, p in self.parameters().items() if key.startswith(branches)} if branches else {}
        return replace(self, raw=ready.with_parameters({**ready.parameters(), **kept}))

    def reference(self) -> Any:
        """Return the same as a value of the reference, each branch divided and certified; outside of transformations."""
        return _mapped(self.raw, lambda _, block: self._certified(block))

    def certificates(self) -> dict[str, ir.Certificate]:
        """Return what is proved of Lip(g) of each residual block, by the prefix of its parameters; outside of transformations."""
        return {prefix: self._certified(block).certificate for prefix, block in self._blocks().items()}

    def projected(self) -> Self:
        """Return the layer with divided weights in place of the raw ones, and Lip(g) ≤ `lipschitz`, or what a block states, proved.

        For the time after a step of an optimiser; outside of transformations. Raises: NotContractiveError where no bound is proved.
        """

        def divide(_: str, block: ir.ResidualBlock) -> ir.ResidualBlock:
            bound = block.lipschitz if self.lipschitz is None else self.lipschitz
            return replace(block, branch=normalised_branch(bound or 0.0, block.branch).branch)

        return replace(self, raw=_mapped(self.raw, divide))

    def _certified(self, block: ir.ResidualBlock) -> ir.ResidualBlock:
        return block if self.lipschitz is None else replace(block, branch=normalised_branch(self.lipschitz, block.branch).branch)

    def _blocks(self) -> dict[str, ir.ResidualBlock]:
        found: dict[str, ir.ResidualBlock] = {}
        _mapped(self.raw, found.setdefault)
        return found


class ResidualBlock(Layer):
    """F(x) = x + g(x) with proved Lip(g) ≤ `lipschitz` < 1, as a pytree that trains, compiles and maps like any other.

    `raw` is g (`ir.mlp`, `ir.convnet`, `ir.densenet`, `from_jax` of a network), a block, or the sizes of an MLP.

    The log-determinant is computed by `options` (`ir.Options(logdet=ir.Roulette())`, `ir.Exact()`, `ir.Series(10)`, …) and is that value,
    not a surrogate; the gradient is the reference's: exact, or unbiased, for any weights of the rows. x and the weights are all that
    is kept for it. Reverse mode only: JAX refuses `jvp` of it, and differentiates `reference()` in both.

    >>> import jax, jax.numpy as jnp
    >>> block = ResidualBlock((2, 16, 2), lipschitz=0.5)
    >>> gradient = jax.grad(lambda block: block(jnp.ones((3, 2)))[1].sum())(block)
    >>> gradient.parameters()["0.weight"].shape, block.certificate().bound <= 0.5
    ((16, 2), True)
    """

    def _understood(self, raw: Any) -> Any:
        if isinstance(raw, Sequence) and all(isinstance(n, int) for n in raw):
            raw = ir.mlp(raw, lipschitz=0.9 if self.lipschitz is None else self.lipschitz, like=jnp.zeros(1))
        step = super()._understood(raw)
        if not isinstance(step, bijections.Residual):
            raise DTypeError(f"ResidualBlock: expected a branch, a block or the sizes of an MLP, got {type(raw).__name__}; try Layer")
        return step

    def certificate(self) -> ir.Certificate:
        """Return the proof that the division gives, Lip(g) ≤ `bound`, of the weights as they are now; outside of transformations.

        `ir.certify(block.reference().block)` looks for a smaller bound.
        """
        return self.certificates()[""]


class Flow(Layer):
    """z = F(x), z ~ base, of an `ir.Flow`: `log_prob(x)` to train, `sample(n)` to draw, a call and `inverse` for (value, log_det).

    `options` default to the flow's own. ActNorm is initialised by `initialise(batch)`, before anything else. `reference()` is the
    certified `ir.Flow` of the weights as they are now.

    >>> import jax, jax.numpy as jnp
    >>> flow = Flow(ir.Flow([ir.ResidualBlock(ir.mlp((2, 16, 2), like=jnp.zeros(1)))]))
    >>> gradient = jax.grad(lambda flow: -flow.log_prob(jnp.zeros((8, 2))).mean())(flow)
    >>> flow.sample(5, seed=1).shape
    (5, 2)
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.options is None and self.raw.options != ir.Options():
            object.__setattr__(self, "options", self.raw.options)

    def _understood(self, raw: Any) -> Any:
        return raw if isinstance(raw, ir.Flow) else ir.Flow(raw)

    @property
    def steps(self) -> Any:
        """The composition of the raw parameters."""
        return self.raw.steps

    def log_prob(self, x: Any, context: Any = None, *, key: Any = None, options: ir.Options | None = None) -> Any:
        """Return log p(x) per row, in nats; given a context, log p(x | context)."""
        z, log_det = self(x, context, key=key, options=options)
        return self.base_log_prob(z) + log_det

    def base_log_prob(self, z: Any) -> Any:
        """Return log p_Z(z) per row, in nats."""
        return self.raw.base.log_prob(z)

    def sample(self, n: int, context: Any = None, *, seed: int = 0, options: ir.Options | None = None) -> Any:
        """Return n draws x = F⁻¹(z), with gradients; row i depends on the seed and i alone. Raises ConvergenceError."""
        given = options or replace(self._passes(self.raw.base.like, None, None).options, logdet=ir.Exact())
        return self.inverse(self.raw.base.sample(n, seed=seed), context, options=given)[0]


def _mapped(step: Any, change: Callable[[str, ir.ResidualBlock], ir.ResidualBlock], prefix: str = "") -> Any:
    """Return the bijection or flow with every block changed; `prefix` is that of its parameters."""
    if isinstance(step, ir.Flow):
        return replace(step, steps=_mapped(step.steps, change))
    if isinstance(step, bijections.Residual):
        return bijections.Residual(change(prefix, step.block))
    if isinstance(step, bijections.Composition):
        return bijections.Composition(tuple(_mapped(inner, change, f"{prefix}{i}.") for i, inner in enumerate(step.steps)))
    return replace(step, rest=_mapped(step.rest, change, prefix)) if isinstance(step, bijections.FactorOut) else step


register(Layer, ("raw",))
register(ResidualBlock, ("raw",))
register(Flow, ("raw",))
