"""A residual block as a step of a flow: its log-determinant and its inverse are computed as the options say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, changed, public, size
from iresnet_ref.block import ResidualBlock
from iresnet_ref.flows.bijections.protocol import DEFAULT, Bijection, Options, Pulled, Record, norm_growth
from iresnet_ref.gradient.exact import Determinant
from iresnet_ref.gradient.record import BlockRecord
from iresnet_ref.gradient.record import record as block_record
from iresnet_ref.inversion.composition import amplification
from iresnet_ref.inversion.result import Inverse
from iresnet_ref.inversion.solve import invert_block
from iresnet_ref.log_determinant.evaluate import evaluate
from iresnet_ref.log_determinant.methods import LogDetMethod, Name
from iresnet_ref.log_determinant.result import LogDet


@public
@dataclass(frozen=True)
class Residual(Bijection):
    """F = id + g in a flow. `ir.Flow` wraps blocks in it; parameters are those of the branch.

    >>> import numpy as np, iresnet_ref as ir
    >>> step = Residual(ir.ResidualBlock(ir.mlp((2, 8, 2))))
    >>> step.forward(np.ones((3, 2)))[1].method
    'exact'
    """

    block: ResidualBlock
    streams = 1

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The event shape of the branch."""
        return self.block.branch.event_shape

    def parameters(self) -> dict[str, Array]:
        """Return the parameters of the branch."""
        return self.block.branch.parameters()

    def _replaced(self, parameters: Mapping[str, Array]) -> Residual:
        return changed(self, block=changed(self.block, branch=self.block.branch.with_parameters(parameters)))

    def value(self, x: Array) -> Array:
        """Return x + g(x)."""
        return x + self.block.branch(x)

    def forward_and_log_det(self, x: Array, options: Options) -> tuple[Array, LogDet]:
        """Return (F(x), log det(I + J_g(x)))."""
        g, chain = self.block.branch.linearize(x)
        return x + g, evaluate(chain, self.block, x, options.logdet)

    def preimage(self, y: Array, options: Options) -> Inverse:
        """Return `ir.invert` of the block; its error bound in the 2-norm, whatever norm g contracts in."""
        inverse = invert_block(self.block, y, options.inverse, rtol=options.rtol, check=False)
        return replace(inverse, error_bound=self._growth[0] * inverse.error_bound)

    def amplification(self, x: Array) -> Array:
        """Return the estimate of ‖(I + J_g(x))⁻¹‖₂."""
        return amplification(self.block, x)

    @property
    def _growth(self) -> tuple[float, float]:
        return norm_growth(self.block.norm, size(self.in_shape))

    @property
    def inverse_lipschitz(self) -> float:
        """1/(1 − L), in the 2-norm."""
        (a, b), stretch = self._growth, self.block.least_stretch()
        return rounding.up(a * b / stretch, 4) if stretch > 0.0 else math.inf

    def record(self, x: Array, options: Options | None) -> ResidualRecord:
        """Return the tape of F at x."""
        tape = block_record(self.block, x, linearize=options is not None)
        return ResidualRecord(self, x, tape.value, options, tape)

    def pullback(self, x: Array, y_bar: Array, weights: Array | None, options: Options) -> Pulled:
        """x̄ = ȳ + J_gᵀȳ + ∇ Σ w log det(I + J_g)."""
        return self.record(x, None if weights is None else options).pullback(y_bar, weights)


@dataclass(frozen=True, eq=False)
class ResidualRecord(Record):
    """One tape for value, log-determinant and gradient."""

    tape: BlockRecord

    @property
    def _method(self) -> LogDetMethod | Name:
        return (self.options or DEFAULT).logdet

    def determinants(self) -> tuple[Determinant, ...]:
        """Return det(I + J_g(x)) where it is exact."""
        return () if self.options is None or self.tape.estimated(self._method) else (self.tape.determinant,)

    def log_det(self) -> LogDet:
        """Return log det(I + J_g(x))."""
        return self.tape.log_det(self._method)

    def pullback(self, y_bar: Array, weights: Array | None = None) -> Pulled:
        """x̄ = ȳ + J_gᵀȳ + ∇ Σ w log det(I + J_g)."""
        if weights is None:
            return self.tape.pullback(y_bar)
        return self.tape.weighted_pullback(self._method, weights, y_bar)
