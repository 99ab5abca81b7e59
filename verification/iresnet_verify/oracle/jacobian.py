"""The Jacobian oracle: dF/dx of the subject's F, in float64 on the host, with its source named and its error bounded.

The first of these that works *and* agrees with a directional difference of F in a random direction:
rows of g by autograd (J_F = I + J_g) · rows of F by autograd · rows of F by `.backward()`, one fresh forward each ·
Richardson differences. JAX subjects: rows by `jax.vjp` or columns by `jax.jvp` in place of autograd. Elsewhere the
subject is called outside of function transforms: several published layers do not survive them, and memory-efficient
ones support only `.backward()`: `derivative_methods` lists them. The subject's own log-det or series is never used.

Error bound (2-norm, per row). Autograd: K·u·√d·(‖J‖₂ + 1) with K = `OPERATIONS`, plus four times the change of J
when x moves by a few roundings (x(1 ± 4u)), which sees ill-conditioning inside F that the first term cannot (above
d = LARGE twice its estimate from 16 random products). Differences:
their own estimate. A row that disagrees while most agree sits on a kink: its error becomes 8√d·gap (a random unit
direction sees ‖δJ‖_F/√d). A method that disagrees in more than a quarter of the rows is rejected.

Numerical limits: rows must not depend on each other; `Undecided` is raised where no method agrees.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from iresnet_verify.oracle import finite_differences as differences
from iresnet_verify.oracle.derivative_methods import Method, derivative_methods
from iresnet_verify.oracle.singular_values import LARGE, norm_bound
from iresnet_verify.subject.calls import Caller, flat
from iresnet_verify.subject.errors import Undecided
from iresnet_verify.subject.frameworks import OPERATIONS
from iresnet_verify.subject.subject import HostArray

Array = np.ndarray[Any, np.dtype[np.float64]]
PROBES = 16


@dataclass(frozen=True)
class Jacobian:
    """dF/dx as (batch, d, d) float64, the method that gave it, and a bound on its 2-norm error."""

    matrix: Array
    source: str
    error: Array
    residual: Array
    """J − I, without the cancellation where it was made from g."""


@dataclass(frozen=True)
class Oracle:
    """What the oracle needs of a subject."""

    caller: Caller
    forward: Callable[..., HostArray]
    """Host calls, the state put back after each."""
    u: float
    accuracy: float
    guard: Callable[[], AbstractContextManager[None]]
    """Puts the module's state back, gradients included."""

    @property
    def noise(self) -> float:
        """Relative noise η assumed of one evaluation of F; what exceeds it shows in the scatter of the differences."""
        return 8 * self.u + self.accuracy

    def __call__(self, x: HostArray, seed: int) -> Jacobian:
        """Return J at the rows of x; every evaluation is seeded alike."""
        rejected: list[str] = []
        for method in derivative_methods(self.caller, self.guard, seed):
            accepted = self._accepted(method, x, seed, rejected)
            if accepted is not None:
                return _jacobian(*accepted, method.of_residual, method.source, rejected)
        J, estimated = differences.full_jacobian(self._evaluate(seed), self._flat(x), self.noise, self.u)
        error = self._confirmed(x, J, estimated, seed, together=False)[0] if np.isfinite(J).all() else None
        if error is None:
            raise Undecided("no Jacobian of forward agrees with a directional difference "
                            f"(rows may depend on each other, or F jumps; tried {'; '.join(rejected) or 'differences'})")
        return _jacobian(J, error, False, "Richardson differences", rejected)

    def _accepted(self, method: Method, x: HostArray, seed: int, rejected: list[str]) -> tuple[Array, Array] | None:
        """(J, its error) by one method; None, and the reason in `rejected`, where it raises or disagrees.

        Where a row has the same value in a larger batch: first x, x(1 ± 4u) and the points of the differences in few large
        batches. Elsewhere, and where not every row agrees then, each in a batch of its own, which decides.
        """
        if self.caller.rows_independent is None:
            self.caller.rows_independent = self._rows_are_independent(x, seed)
        together = self.caller.rows_independent
        while True:
            try:
                J, change = self._with_change(method, x, together)
            except Exception as error:
                rejected.append(f"{method.source}: {type(error).__name__}")
                return None
            norm = norm_bound(J)
            bound = OPERATIONS * self.u * np.sqrt(self._d(x)) * (norm + (not method.of_residual))
            bound += 4 * np.where(np.isfinite(change), change, np.inf) + self.accuracy * norm
            confirmed, all_agree = self._confirmed(x, J + np.eye(J.shape[1]) if method.of_residual else J, bound, seed, together)
            if all_agree or not together:
                break
            together = False
        self.caller.rows_independent = self.caller.rows_independent and (together or not all_agree)
        if confirmed is None:
            rejected.append(f"{method.source}: disagrees with a directional difference")
            return None
        return J, confirmed

    def _rows_are_independent(self, x: HostArray, seed: int) -> bool:
        """Whether F at x is the same where x and x in reverse order are evaluated as one batch."""
        try:
            y, both = (self._flat(self.forward(rows, seed=seed)) for rows in (x, np.concatenate([x, x[::-1]])))
        except Exception:
            return False
        gap = np.linalg.norm(both - np.concatenate([y, y[::-1]]), axis=1).max(initial=0.0)
        return bool(gap <= OPERATIONS * self.u * (np.linalg.norm(y, axis=1).max(initial=0.0) + 1.0))

    def _with_change(self, method: Method, x: HostArray, together: bool) -> tuple[Array, Array]:
        """J at x, and ‖J − J′‖_F for J′ where every entry of x is moved by about one rounding.

        Above d = LARGE it is estimated by products wᵀ(J − J′) with `PROBES` vectors of random signs, E‖wᵀA‖² = ‖A‖_F², and
        doubled: below the norm with probability P(χ²₁₆ < 4) = .001 where A has rank one, less where it has more.
        """
        rng = np.random.default_rng(0)
        nearby = (x.astype(np.float64) * (1 + 4 * self.u * rng.choice([-1.0, 1.0], size=x.shape))).astype(x.dtype)
        products = method.products if self._d(x) > LARGE else None
        both = together and products is None
        J, moved = np.split(method.rows(np.concatenate([x, nearby])), 2) if both else (method.rows(x), None)
        if not np.isfinite(J).all():
            raise ValueError("not finite")
        if products is not None:
            w = rng.choice([-1.0, 1.0], size=(len(x), PROBES, self._d(x)))
            return J, 2.0 * np.sqrt(np.mean(np.sum((products(nearby, w) - w @ J) ** 2, axis=2), axis=1))
        change: Array = np.linalg.norm((method.rows(nearby) if moved is None else moved) - J, axis=(1, 2))
        return J, change

    def _confirmed(self, x: HostArray, J: Array, error: Array, seed: int, together: bool) -> tuple[Array | None, bool]:
        """Compare with a directional difference of F: (the error bounds, None where rejected; whether all rows agree)."""
        flat_x = self._flat(x)
        v = np.random.default_rng([seed, 1]).standard_normal(flat_x.shape)
        v /= np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-300)
        D, slack = differences.derivative(self._evaluate(seed), flat_x, v, self.noise, self.u, together=together)
        product = np.einsum("nij,nj->ni", J, v)
        gap = np.linalg.norm(D - product, axis=1)
        allowed = error + 8 * slack + self.u ** (2 / 3) * np.maximum(1.0, np.linalg.norm(product, axis=1))
        agrees = ~(gap > allowed)  # a NaN gap (F undefined near x) cannot refute
        if x.shape[0] and (~agrees).mean() > 0.25:
            return None, False
        return np.where(agrees, error, np.maximum(error, 8 * np.sqrt(self._d(x)) * gap)), bool(agrees.all())

    def _evaluate(self, seed: int) -> Callable[[Array], Array]:
        shape = self.caller.subject.event_shape

        def evaluate(rows: Array) -> Array:
            return flat(self.forward(rows.reshape(-1, *shape), seed=seed)).astype(np.float64)

        return evaluate

    @staticmethod
    def _d(x: HostArray) -> int:
        return int(np.prod(x.shape[1:], dtype=int))

    @staticmethod
    def _flat(x: HostArray) -> Array:
        return flat(x).astype(np.float64)


def _jacobian(J: Array, error: Array, of_residual: bool, source: str, rejected: list[str]) -> Jacobian:
    eye = np.eye(J.shape[1])
    note = f" ({'; '.join(rejected)})" if rejected else ""
    full, residual = (J + eye, J) if of_residual else (J, J - eye)
    return Jacobian(full, source + note, error, residual)
