"""The same network on every backend against the 50-digit run: each error in units of its rounding bound.

Weights and inputs are float32 numbers, the same bits everywhere, so that every difference is the backend's rounding. The
units: ‖e‖₂ + u‖y‖₂ for F(x), e the running error bound; 8du/(1 − L) + 2d‖δJ‖/(1 − L) for log det(I + J), δJ the error of the
computed Jacobian; d(‖δJ‖ + cu)/(1 − L) for the truncated series on the same probes, c the operations of one product with
J times ∏‖|W|‖₂; the proved radius for the inverse; for the draws 0 or inf.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

import iresnet_ref as ir
from iresnet_backends import Backend, available, get
from iresnet_backends.capabilities import row
from iresnet_ref.arrays import to_host
from iresnet_ref.logdet.exact import exact_logdet
from iresnet_ref.logdet.series import series_logdet
from iresnet_ref.rounding import logdet_rounding, unit_roundoff

Host = npt.NDArray[np.float64]
SIZES, LIPSCHITZ, ROWS, TERMS = (5, 8, 8, 5), 0.9, 4, 5
QUANTITIES = ("draws", "forward", "exact logdet", "series logdet", "inverse")


@dataclass(frozen=True)
class Parity:
    """The largest error of a quantity on a backend, in units of its rounding bound."""

    backend: str
    dtype: str
    quantity: str
    error: float

    @property
    def kept(self) -> bool:
        """Whether the error is within its bound."""
        return self.error <= 1.0

    def record(self) -> dict[str, Any]:
        """Return what JSON gets."""
        return {**asdict(self), "kept": self.kept}


@dataclass(frozen=True)
class Truth:
    """The network and its inputs as host numbers, and everything about them at 50 digits."""

    seed: int

    @cached_property
    def parameters(self) -> dict[str, Host]:
        """The weights: float32 numbers."""
        branch = ir.mlp(SIZES, activation="elu", lipschitz=LIPSCHITZ, seed=self.seed, like=np.zeros(1, np.float32))
        return {k: np.asarray(v, dtype=np.float64) for k, v in branch.parameters().items()}

    @cached_property
    def x(self) -> Host:
        """The inputs: float32 numbers at scales 0.1 to 3."""
        draw = np.random.default_rng(self.seed).standard_normal((ROWS, SIZES[0])) * np.geomspace(0.1, 3.0, ROWS)[:, None]
        return draw.astype(np.float32).astype(np.float64)

    @cached_property
    def digits(self) -> Backend:
        """The arithmetic of 50 digits."""
        return get("precision:50")

    def block(self, b: Backend) -> ir.ResidualBlock:
        """Return the network on a backend."""
        branch = ir.mlp(SIZES, activation="elu", lipschitz=LIPSCHITZ, seed=self.seed, like=b.asarray(np.zeros(1)))
        return ir.ResidualBlock(branch.with_parameters({k: b.asarray(v) for k, v in self.parameters.items()}))

    @cached_property
    def high(self) -> ir.ResidualBlock:
        """The network at 50 digits."""
        return self.block(self.digits)

    @cached_property
    def chain(self) -> Any:
        """J at 50 digits."""
        return self.high.branch.linearize(self.digits.asarray(self.x))[1]

    @cached_property
    def signs(self) -> Host:
        """The probes."""
        return ir.Probes(seed=self.seed, count=2).draw(self.x)

    def gap(self, value: Any, truth: Any) -> Host:
        """Return |value − truth|, the difference taken at 50 digits."""
        return np.abs(to_host(self.digits.asarray(to_host(value).astype(np.float64)) - truth))


def errors(b: Backend, truth: Truth) -> dict[str, float]:
    """Return the error of every quantity on a backend, in units of its bound."""
    block, x = truth.block(b), b.asarray(truth.x)
    d, u, lipschitz = SIZES[0], unit_roundoff(x), block.contraction()
    found: dict[str, float] = {}
    v = ir.Probes(seed=truth.seed, count=2).draw(x)
    found["draws"] = 0.0 if (to_host(v) == truth.signs).all() else math.inf
    exact_x = truth.digits.asarray(truth.x)
    y = block(x)
    high_y = truth.high(exact_x)
    norm = np.linalg.norm
    running = to_host(block.branch.running_error(x)[1]).astype(np.float64)
    bound = running + u * norm(to_host(y).astype(np.float64), axis=1)
    found["forward"] = float((norm(truth.gap(y, high_y), axis=1) / bound).max())
    chain = block.branch.linearize(x)[1]
    of_j = norm(truth.gap(chain.dense(), truth.chain.dense()), axis=(1, 2))
    value = ir.logdet(block, x, method="exact").value
    bound = logdet_rounding(d, u, lipschitz) + 2 * d * of_j / (1 - lipschitz)
    found["exact logdet"] = float((truth.gap(value, exact_logdet(truth.chain)) / bound).max())
    weights = [w for k, w in truth.parameters.items() if k.endswith("weight")]
    operations = sum(w.shape[1] + 4 for w in weights) * math.prod(float(norm(np.abs(w), 2)) for w in weights)
    series = series_logdet(truth.chain, truth.digits.asarray(truth.signs), TERMS)
    bound = d * (of_j + (operations + d) * u) / (1 - lipschitz)
    found["series logdet"] = float((truth.gap(series_logdet(chain, v, TERMS), series) / bound).max())
    inverse = ir.invert(block, y, rtol=64 * u, strict=False)
    preimage = ir.invert(truth.high, truth.digits.asarray(to_host(y)), rtol=1e-40).x
    found["inverse"] = float((norm(truth.gap(inverse.x, preimage), axis=1) / to_host(inverse.error_bound)).max())
    return found


def measure(names: Sequence[str] | None = None, seed: int = 0) -> list[Parity]:
    """Return the parity of every backend that works here, or of those named, at float32 and float64.

    Raises: BackendUnavailableError for a name that does not work here.
    """
    truth, found = Truth(seed), []
    for name in available() if names is None else names:
        if name.startswith("precision"):
            continue
        for dtype in [t for t in ("float32", "float64") if t in row(name).dtypes]:
            b = get(name, dtype)
            with b.active():
                units = errors(b, truth)
            for quantity, error in units.items():
                found.append(Parity(name, dtype, quantity, error))
    return found
