"""One forward pass of a block, kept for what is asked of it afterwards: log det(I + J) and the reverse pass."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from iresnet_ref.arrays import Array, HostArray, indices, lazy
from iresnet_ref.block import ResidualBlock
from iresnet_ref.gradient.exact import Determinant, determinant
from iresnet_ref.gradient.neumann import neumann_gradient, neumann_terms
from iresnet_ref.gradient.result import LogDetGradient
from iresnet_ref.layers.tape import Tape
from iresnet_ref.log_determinant.estimator import Estimates, Estimator
from iresnet_ref.log_determinant.evaluate import EXACT_UP_TO, evaluate, require_bits
from iresnet_ref.log_determinant.methods import Auto, LogDetMethod, Name, Roulette, Truncated, named
from iresnet_ref.log_determinant.result import LogDet
from iresnet_ref.log_determinant.series import PowerSeries
from iresnet_ref.probes import Probes


@dataclass(frozen=True, eq=False)
class BlockRecord:
    """F at x: the tape of g, which serves value, log-determinant and gradient, and J formed once for both where they are exact."""

    block: ResidualBlock
    x: Array
    tape: Tape
    swept: dict[LogDetMethod, tuple[Array, Array]] = field(default_factory=dict)
    """The probes of an estimate, and the cotangent of its gradient, from the sweep that gave the value."""

    @property
    def value(self) -> Array:
        """x + g(x)."""
        return self.x + self.tape.value

    @lazy
    def determinant(self) -> Determinant:
        """det(I + J_g(x)), for its value and its gradient."""
        return determinant(self.tape, contracts=self.block.contracts_from(self.tape.jacobian.narrowest_index()))

    def log_det(self, method: LogDetMethod | Name) -> LogDet:
        """Return log det(I + J_g(x))."""
        estimated = self.estimated(method)
        if estimated is None:
            return evaluate(self.tape.jacobian, self.block, self.x, method, determinant=lambda: self.determinant.logdet)

        def estimates(estimator: Estimator, probes: Probes) -> Estimates:
            if not isinstance(estimator, PowerSeries) or probes != estimated.probes or estimator.at_once(probes, self.x) < probes.count:
                return estimator.estimates(probes, self.x)
            v = probes.draw(self.x)
            found, (neumann,) = estimator.swept(probes, v, neumann_terms(estimator.survival))
            self.swept[estimated] = v, v + neumann
            return found.averaged(probes)

        return evaluate(self.tape.jacobian, self.block, self.x, method, estimates=estimates)

    def gradient(self, method: LogDetMethod | Name, weights: Array, y_bar: Array | None) -> LogDetGradient:
        """Return the gradient of Σ_b w_b log det(I + J_g(x_b)) + Σ ȳᵀF(x)."""
        x_bar, gradients, evaluations, truncation, used = self._gradient(method, weights, y_bar)
        return LogDetGradient(gradients, x_bar, self.block.once_proved(truncation), indices(evaluations, self.x), used)

    def weighted_pullback(self, method: LogDetMethod | Name, weights: Array, y_bar: Array) -> tuple[Array, dict[str, Array]]:
        """Return (x̄, gradients) of the same."""
        return self._gradient(method, weights, y_bar)[:2]

    def _gradient(
        self, method: LogDetMethod | Name, weights: Array, y_bar: Array | None
    ) -> tuple[Array, dict[str, Array], HostArray, float, str]:
        """Return (x̄, gradients, evaluations per row, truncation, method)."""
        require_bits(named(method), self.x, "logdet_gradient")
        estimated, lipschitz = self.estimated(method), self.block.contraction()
        if estimated is None:
            x_bar, gradients = self.determinant.gradient(weights, y_bar)
            evaluations, truncation, used = np.full(self.x.shape[0], self.determinant.order), 0.0, "exact"
        else:
            x_bar, gradients, evaluations, truncation = neumann_gradient(
                self.tape, self.x, estimated, lipschitz, weights, y_bar, self.swept.get(estimated)
            )
            used = "neumann"
        return x_bar if y_bar is None else y_bar + x_bar, gradients, evaluations, truncation, used

    def pullback(self, y_bar: Array) -> tuple[Array, dict[str, Array]]:
        """Return (x̄, gradients) of Σ ȳᵀF(x)."""
        x_bar, _, gradients = self.tape.pullback(y_bar)
        return y_bar + x_bar, gradients

    def estimated(self, method: LogDetMethod | Name) -> Roulette | Truncated | None:
        """Return the estimate that the gradient takes, None for the exact one."""
        method = named(method)
        if isinstance(method, Auto):
            return None if self.tape.jacobian.rank <= EXACT_UP_TO else method.estimate
        return method if isinstance(method, Roulette | Truncated) else None


def record(block: ResidualBlock, x: Array, *, linearize: bool = True) -> BlockRecord:
    """Return the forward pass at x; without `linearize` it serves `pullback` only."""
    return BlockRecord(block, x, block.branch.record(x, linearize=linearize))
