"""Forward and inverse through a bijection of the reference: blocks by `functions`, everything else is a formula that JAX differentiates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp

import iresnet_ref as ir
from iresnet_backends.jax_layers import functions
from iresnet_backends.jax_layers.functions import How
from iresnet_backends.layer_options import is_random
from iresnet_ref import bijections
from iresnet_ref.flows.bijections.composition import own_options

Pair = tuple[Any, Any]


@dataclass(frozen=True)
class Passes:
    """Passes with one seed, `words`; blocks are divided to Lip(g) ≤ `lipschitz`, or with None used as they are.

    Without `own_draws` the options' probes have no seed of their own: random log-determinants need words.
    """

    lipschitz: float | None
    options: ir.Options
    words: Any
    own_draws: bool

    def forward(self, step: Any, x: Any) -> Pair:
        """Return (y, log_det)."""
        if isinstance(step, bijections.Residual):
            return functions.forward(*self._block(step.block), x, self.words)
        if isinstance(step, bijections.Composition):
            total = jnp.zeros(x.shape[:1], dtype=x.dtype)
            for passes, inner in self._each(step):
                x, log_det = passes.forward(inner, x)
                total = total + log_det
            return x, total
        if isinstance(step, bijections.FactorOut):
            a, b = step.split(x)
            a, log_det = self.forward(step.rest, a)
            return step.join(a, b), log_det
        y, found = step.forward(x, check=False)
        return y, found.value

    def inverse(self, step: Any, y: Any) -> Pair:
        """Return (x, log_det of the inverse)."""
        if isinstance(step, bijections.Residual):
            return functions.inverse(*self._block(step.block), y, self.words)
        if isinstance(step, bijections.Composition):
            total = jnp.zeros(y.shape[:1], dtype=y.dtype)
            for passes, inner in reversed(self._each(step)):
                y, log_det = passes.inverse(inner, y)
                total = total + log_det
            return y, total
        if isinstance(step, bijections.FactorOut):
            parts: Any = step.parts(y)
            a, log_det = self.inverse(step.rest, parts[0])
            return jnp.concatenate([a, parts[1]], axis=1), log_det
        x = step.inverse(y, check=False).x
        return x, -step.forward(x, check=False)[1].value

    def _each(self, step: Any) -> list[tuple[Passes, Any]]:
        """Return the steps with options whose streams no other step uses."""
        return [(replace(self, options=own), s) for s, own in zip(step.steps, own_options(step.steps, self.options), strict=True)]

    def _block(self, block: ir.ResidualBlock) -> tuple[How, ir.Branch]:
        """Return how the block computes, and its branch as it is evaluated. Raises ValueError for want of a seed."""
        how = How(self.options, block.lipschitz, self.lipschitz).settled(block.branch)
        if self.words is None and not self.own_draws and is_random(how.options):
            raise ValueError(
                "jax_layers: expected key= for a log-determinant that draws probes, got none; try key=jax.random.key(0), another one in "
                "every step, or options= with probes of your own"
            )
        return how, block.branch if self.lipschitz is None else functions.divided(self.lipschitz, block.branch)
