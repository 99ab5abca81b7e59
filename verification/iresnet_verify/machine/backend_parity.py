"""The same network on every backend against the 50-digit run: each error in units of its rounding bound.

Weights and inputs are float32 numbers, the same bits everywhere, so that every difference is the backend's rounding. The units
are derived beforehand, from u and the 50-digit run; none of them is measured on the backend it is applied to:

    draws              0 or inf: signs, Gaussians, Hadamard columns and series lengths are the same bits
    forward            ‖e‖₂ + u‖y‖₂, e the running error bound of g
    exact logdet       `ir.bounds.logdet_error_bound`
    series logdet      d(j + du) Σ_k L^{k−1} on the same probes, j ≥ ‖δJ‖₂ also of one product with J: `Bounds.jacobian`
    roulette logdet    the same with L^{k−1}/P(N ≥ k) for each term k ≤ N that a probe has
    inverse            the proved radius
    inverse gradient   of (I + J)⁻ᵀx̄: its error_bound + j‖ȳ‖/(1 − L)
    gradient           of Σ log det(I + J) with respect to all weights: `Bounds.gradient`
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

import iresnet_ref as ir
from iresnet_backends import Backend, available, get
from iresnet_backends.capabilities import row
from iresnet_ref.arrays import to_host
from iresnet_ref.errors import DTypeError
from iresnet_ref.log_determinant import length_distributions
from iresnet_ref.log_determinant.exact import exact_logdet
from iresnet_ref.log_determinant.roulette import roulette_logdet
from iresnet_ref.log_determinant.series import series_logdet
from iresnet_ref.rounding import unit_roundoff

Host = npt.NDArray[Any]
SIZES, LIPSCHITZ, ROWS, TERMS = (5, 8, 8, 5), 0.9, 4, 5
QUANTITIES = (
    "draws", "forward", "exact logdet", "series logdet", "roulette logdet", "inverse", "inverse gradient", "gradient"
)


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
        branch = ir.mlp(SIZES, activation="tanh", lipschitz=LIPSCHITZ, seed=self.seed, like=np.zeros(1, np.float32))
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
        branch = ir.mlp(SIZES, activation="tanh", lipschitz=LIPSCHITZ, seed=self.seed, like=b.asarray(np.zeros(1)))
        return ir.ResidualBlock(branch.with_parameters({k: b.asarray(v) for k, v in self.parameters.items()}))

    @cached_property
    def high(self) -> ir.ResidualBlock:
        """The network at 50 digits."""
        return self.block(self.digits)

    @cached_property
    def y(self) -> Any:
        """F(x) at 50 digits."""
        return self.high(self.digits.asarray(self.x))

    @cached_property
    def chain(self) -> Any:
        """J at 50 digits."""
        return self.high.branch.linearize(self.digits.asarray(self.x))[1]

    @cached_property
    def draws(self) -> list[Host]:
        """Everything that is drawn: see `drawn`."""
        return drawn(self.x, self.seed)

    @cached_property
    def table(self) -> length_distributions.Table:
        """The distribution of the series lengths."""
        return length_distributions.table(length_distributions.near_optimal(LIPSCHITZ), LIPSCHITZ)

    @cached_property
    def lengths(self) -> Host:
        """A series length for each probe and row."""
        return ir.Probes(seed=self.seed, count=2).lengths(ROWS, self.table.thresholds, self.table.n_exact_terms)

    @cached_property
    def estimates(self) -> tuple[Any, Any]:
        """(series, roulette) at 50 digits."""
        v = self.digits.asarray(self.draws[0])
        return series_logdet(self.chain, v, TERMS), roulette_logdet(self.chain, v, self.lengths, self.table)

    @cached_property
    def gradients(self) -> tuple[dict[str, Any], Any]:
        """(the gradient of Σ log det(I + J) for each parameter, (I + J)⁻ᵀx) at 50 digits."""
        x = self.digits.asarray(self.x)
        gradient = ir.logdet_gradient(self.high, x, method="exact").parameters
        return gradient, ir.inverse_gradient(self.high, x, x, rtol=1e-40).y_bar

    def gap(self, value: Any, truth: Any) -> Host:
        """Return |value − truth|, the difference taken at 50 digits."""
        return np.abs(to_host(self.digits.asarray(to_host(value).astype(np.float64)) - truth))


def drawn(x: Any, seed: int) -> list[Host]:
    """Return signs, Gaussians (rounded to the dtype of x) and Hadamard columns for x, on the host."""
    kinds: tuple[Any, ...] = ("rademacher", "gaussian", "hadamard")
    return [to_host(ir.Probes(seed=seed, count=2, kind=kind).draw(x)) for kind in kinds]


class Bounds:
    """What rounding may do, to first order: the computation evaluated with absolute values, 1 for |φ′|, |φ″| ≤ 1 and 2 for |φ‴|.

    A sum of n terms adds nu of the sum of their absolute values, and φ, φ′, φ″ add 8u(|φ| + 1); `e` bounds the error of all
    arguments of φ.
    """

    def __init__(self, truth: Truth, u: float) -> None:
        self.truth, self.u = truth, u
        self.weights = [np.abs(w) for k, w in truth.parameters.items() if k.endswith("weight")]
        biases = [np.abs(b) for k, b in truth.parameters.items() if k.endswith("bias")]
        jacobian = to_host(truth.chain.dense())
        self.t = np.abs(np.linalg.inv(np.eye(SIZES[0]) + jacobian))
        self.a, self.v = [np.abs(truth.x)], [np.broadcast_to(np.eye(SIZES[0]), jacobian.shape)]
        error, self.e = np.zeros_like(truth.x), 0.0
        for w, b in zip(self.weights, biases, strict=True):
            size = self.a[-1] @ w.T + b  # |tanh z| ≤ |z|
            error = error @ w.T + (w.shape[1] + 2) * u * size
            self.e = max(self.e, float(error.max()))
            error = error + 8 * u * (size + 1.0)
            self.a.append(size)
            self.v.append(w @ self.v[-1])

    @property
    def jacobian(self) -> float:
        """≥ ‖δJ‖₂, and the relative error of a product with J: ∏‖|W|‖₂ times what its sums and diagonals add."""
        sums = self.u * sum(w.shape[1] + 2 for w in self.weights)
        norms = math.prod(float(np.linalg.norm(w, 2)) for w in self.weights)
        return norms * (sums + (len(self.weights) - 1) * (self.e + 16 * self.u))

    @property
    def gradient(self) -> float:
        """≥ the Frobenius norm of the error of Σ_b tr((I + J_b)⁻¹∂J_b), all parameters together; T = (I + J)⁻¹ errs by δT."""
        of_t = (self.jacobian + 8 * SIZES[0] * self.u) / (1 - LIPSCHITZ) ** 2
        sums = self.u * (sum(2 * sum(w.shape) for w in self.weights) + ROWS + SIZES[0])
        diagonals = 4 * len(self.weights) * (2 * self.e + 8 * self.u)
        return (sums + diagonals) * self._reverse(self.t) + self._reverse(np.full_like(self.t, of_t))

    def _reverse(self, t: Host) -> float:
        """Return the size of the reverse pass with absolute values, from T."""
        square, t_bar, x_bar = 0.0, np.swapaxes(t, 1, 2), np.zeros_like(self.truth.x)
        for w, a, v in zip(self.weights[::-1], self.a[-2::-1], self.v[-2::-1], strict=True):
            of_weight = (t_bar @ np.swapaxes(v, 1, 2) + x_bar[:, :, None] * a[:, None, :]).sum(0)
            square += float(np.sum(of_weight**2) + np.sum(x_bar.sum(0) ** 2))
            t_bar, x_bar = w.T @ t_bar, x_bar @ w
            x_bar = x_bar + (v * t_bar).sum(2)
        return math.sqrt(square)


def errors(b: Backend, truth: Truth) -> dict[str, float]:
    """Return the error of every quantity on a backend, in units of its bound.

    Where the reference refuses the backend's products, as keeping fewer bits than their dtype, what was not measured yet is infinite.
    """
    found: dict[str, float] = {quantity: math.inf for quantity in QUANTITIES}  # noqa: C420 - whose keys are strings, not these literals
    with suppress(DTypeError):
        _measure(b, truth, found)
    return found


def _measure(b: Backend, truth: Truth, found: dict[str, float]) -> None:
    """Put the errors into `found`, one after the other."""
    block, x = truth.block(b), b.asarray(truth.x)
    d, u, norm = SIZES[0], unit_roundoff(x), np.linalg.norm
    bounds = Bounds(truth, u)

    def record(quantity: str, error: Host, bound: Any) -> None:
        found[quantity] = float((error / to_host(bound).astype(np.float64)).max())

    draws = drawn(x, truth.seed)
    same = all((a == t.astype(a.dtype)).all() for a, t in zip(draws, truth.draws, strict=True))
    found["draws"] = 0.0 if same else math.inf
    y = block(x)
    running = to_host(block.branch.running_error(x)[1]).astype(np.float64)
    record("forward", norm(truth.gap(y, truth.y), axis=1), running + u * norm(to_host(truth.y), axis=1))
    value = ir.logdet(block, x, method="exact").value
    record("exact logdet", truth.gap(value, exact_logdet(truth.chain)), ir.bounds.logdet_error_bound(block, x, value))
    chain, v = block.branch.linearize(x)[1], b.asarray(truth.draws[0])
    steps = np.arange(1, max(TERMS, int(truth.lengths.max())) + 1)
    terms = d * (bounds.jacobian + d * u) * LIPSCHITZ ** (steps - 1.0)
    series, roulette = truth.estimates
    record("series logdet", truth.gap(series_logdet(chain, v, TERMS), series), terms[:TERMS].sum())
    sums = np.cumsum(terms / [truth.table.survival(int(k)) for k in steps])[truth.lengths - 1]
    record("roulette logdet", truth.gap(roulette_logdet(chain, v, truth.lengths, truth.table), roulette), sums)
    inverse = ir.invert(block, y, rtol=64 * u, throw=False)
    preimage = ir.invert(truth.high, truth.digits.asarray(to_host(y)), rtol=1e-40).x
    record("inverse", norm(truth.gap(inverse.x, preimage), axis=1), inverse.error_bound)
    gradient, y_bar = truth.gradients
    through = ir.inverse_gradient(block, x, x, throw=False)
    propagated = bounds.jacobian * norm(to_host(y_bar), axis=1) / (1 - LIPSCHITZ)
    record("inverse gradient", norm(truth.gap(through.y_bar, y_bar), axis=1), to_host(through.error_bound) + propagated)
    ours = ir.logdet_gradient(block, x, method="exact").parameters
    square = sum(np.sum(truth.gap(ours[k], gradient[k]) ** 2) for k in gradient)
    record("gradient", np.sqrt(square), np.asarray(bounds.gradient))


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
