"""The Jacobian oracle: dF/dx of somebody's F, in float64 on the host, with its source named and its error bounded.

The first of these that works *and* agrees with a directional difference of F in a random direction:
rows of g by autograd (J_F = I + J_g) · rows of F by autograd · rows of F by `.backward()`, one fresh forward each ·
Richardson differences. JAX subjects: rows by `jax.vjp` or columns by `jax.jvp` in place of autograd. Elsewhere no
function transforms: several published layers do not survive them, and memory-efficient ones answer only
`.backward()`. The subject's own log-det or series is never used.

Error bound (2-norm, per row). Autograd: K·u·√d·(‖J‖₂ + 1) with K = `OPERATIONS`, plus four times the change of J
when x moves by a few roundings (x(1 ± 4u)), which sees ill-conditioning inside F that the first term cannot. Differences:
their own estimate. A row that disagrees while most agree sits on a kink: its error becomes 8√d·gap (a random unit
direction sees ‖δJ‖_F/√d). A method that disagrees in more than a quarter of the rows is rejected.

Numerical limits: rows must not depend on each other; `Undecided` is raised where no method agrees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from iresnet_verify import differences
from iresnet_verify.calls import Caller, flat
from iresnet_verify.singular import norm_bound
from iresnet_verify.subject import HostArray, Native

Array = np.ndarray[Any, np.dtype[np.float64]]
OPERATIONS = 64
"""K: roundings that one evaluation is allowed, relative to the size of what it adds up."""


class Undecided(Exception):  # noqa: N818 - an outcome, not a fault
    """The oracle or the budget cannot decide; the runner makes the check inconclusive with this reason."""


@dataclass(frozen=True)
class Jacobian:
    """The oracle's answer: dF/dx as (batch, d, d) float64, how it was made, and a bound on its 2-norm error."""

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
        """Relative noise η assumed of one evaluation of F; what is above it shows in the spread of the differences."""
        return 8 * self.u + self.accuracy

    def __call__(self, x: HostArray, seed: int) -> Jacobian:
        """Return J at the rows of x; every evaluation is seeded alike."""
        rejected: list[str] = []
        for source, rows in self._methods(seed):
            try:
                J = rows(x)
                if not np.isfinite(J).all():
                    raise ValueError("not finite")
                moved = rows(self._moved(x))
            except Exception as error:
                rejected.append(f"{source}: {type(error).__name__}")
                continue
            norm = norm_bound(J)
            change = np.linalg.norm(moved - J, axis=(1, 2))
            of_residual = " of g by " in source
            bound = OPERATIONS * self.u * np.sqrt(self._d(x)) * (norm + (not of_residual))
            error_bound = bound + 4 * np.where(np.isfinite(change), change, np.inf) + self.accuracy * norm
            verdict = self._judge(x, J + np.eye(J.shape[1]) if of_residual else J, error_bound, seed)
            if verdict is not None:
                return self._answer(J, of_residual, source, verdict, rejected)
            rejected.append(f"{source}: disagrees with a directional difference")
        J, error_bound = differences.full_jacobian(self._evaluate(seed), self._flat(x), self.noise, self.u)
        verdict = self._judge(x, J, error_bound, seed) if np.isfinite(J).all() else None
        if verdict is None:
            raise Undecided("no Jacobian of forward agrees with a directional difference "
                            f"(rows may depend on each other, or F jumps; tried {'; '.join(rejected) or 'differences'})")
        return self._answer(J, False, "Richardson differences", verdict, rejected)

    def _answer(self, J: Array, is_residual: bool, source: str, error: Array, rejected: list[str]) -> Jacobian:
        eye = np.eye(J.shape[1])
        note = f" ({'; '.join(rejected)})" if rejected else ""
        full, residual = (J + eye, J) if is_residual else (J, J - eye)
        return Jacobian(full, source + note, error, residual)

    def _judge(self, x: HostArray, J: Array, error: Array, seed: int) -> Array | None:
        """Return the error bounds after comparison with a directional difference of F; None: rejected."""
        flat_x = self._flat(x)
        v = np.random.default_rng([seed, 1]).standard_normal(flat_x.shape)
        v /= np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-300)
        D, slack = differences.derivative(self._evaluate(seed), flat_x, v, self.noise, self.u)
        product = np.einsum("nij,nj->ni", J, v)
        gap = np.linalg.norm(D - product, axis=1)
        allowed = error + 8 * slack + self.u ** (2 / 3) * np.maximum(1.0, np.linalg.norm(product, axis=1))
        agrees = ~(gap > allowed)  # a NaN gap (F undefined beside x) cannot refute
        if x.shape[0] and (~agrees).mean() > 0.25:
            return None
        return np.where(agrees, error, np.maximum(error, 8 * np.sqrt(self._d(x)) * gap))

    def _methods(self, seed: int) -> list[tuple[str, Callable[[HostArray], Array]]]:
        if self.caller.framework.name.startswith("jax"):
            return self._jax_methods(seed)
        if not self.caller.framework.differentiable:
            return []
        methods: list[tuple[str, Callable[[HostArray], Array]]] = []
        if self.caller.subject.residual is not None:
            methods.append(("rows of g by autograd", lambda x: self._grad_rows("residual", x, seed)))
        methods.append(("rows of F by autograd", lambda x: self._grad_rows("forward", x, seed)))
        methods.append(("rows by .backward()", lambda x: self._backward_rows(x, seed)))
        return methods

    def _jax_methods(self, seed: int) -> list[tuple[str, Callable[[HostArray], Array]]]:
        from functools import partial

        from iresnet_verify import autodiff_jax

        caller = self.caller
        names = (["residual"] if caller.subject.residual is not None else []) + ["forward"]
        return [
            (f"{what} of {'g' if name == 'residual' else 'F'} by jax.{how}", partial(_swapped, made, caller, name, seed))
            for name in names for what, how, made in (("rows", "vjp", autodiff_jax.rows), ("columns", "jvp", autodiff_jax.columns))
        ]

    def _grad_rows(self, name: str, x: HostArray, seed: int) -> Array:
        import torch

        with self.guard(), self.caller.framework.calling():
            leaf = self.caller.framework.native(x, requires_grad=True)
            y = self.caller.event(name, leaf.clone(), seed=seed)[0]
            columns = y.reshape(y.shape[0], -1)
            if not columns.requires_grad:
                raise ValueError("no graph")
            rows = [
                torch.autograd.grad(columns[:, i].sum(), leaf, retain_graph=True, allow_unused=True)[0]
                for i in range(columns.shape[1])
            ]
            return self._stack(rows, leaf)

    def _backward_rows(self, x: HostArray, seed: int) -> Array:
        rows = []
        for i in range(self._d(x)):
            with self.guard(), self.caller.framework.calling():
                leaf = self.caller.framework.native(x, requires_grad=True)
                y = self.caller.event("forward", leaf.clone(), seed=seed)[0]
                y.reshape(y.shape[0], -1)[:, i].sum().backward()
                rows.append(None if leaf.grad is None else leaf.grad.detach().clone())
        return self._stack(rows, leaf)

    def _stack(self, rows: Sequence[Native | None], leaf: Native) -> Array:
        if all(row is None for row in rows):
            raise ValueError("no output depends on the input")
        host = self.caller.framework.host
        zero = np.zeros(tuple(leaf.shape))
        return np.stack([flat(zero if r is None else host(r)).astype(np.float64) for r in rows], axis=1)

    def _evaluate(self, seed: int) -> Callable[[Array], Array]:
        shape = self.caller.subject.event_shape

        def evaluate(rows: Array) -> Array:
            return flat(self.forward(rows.reshape(-1, *shape), seed=seed)).astype(np.float64)

        return evaluate

    def _moved(self, x: HostArray) -> HostArray:
        """Return x with every entry moved by about one rounding."""
        signs = np.random.default_rng(0).choice([-1.0, 1.0], size=x.shape)
        return (x.astype(np.float64) * (1 + 4 * self.u * signs)).astype(x.dtype)

    @staticmethod
    def _d(x: HostArray) -> int:
        return int(np.prod(x.shape[1:], dtype=int))

    @staticmethod
    def _flat(x: HostArray) -> Array:
        return flat(x).astype(np.float64)


def _swapped(made: Callable[..., Array], caller: Caller, name: str, seed: int, x: HostArray) -> Array:
    return made(caller, name, x, seed)
