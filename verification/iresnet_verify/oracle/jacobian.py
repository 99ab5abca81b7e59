"""The Jacobian oracle: dF/dx of somebody's F, in float64 on the host, with its source named and its error bounded.

The first of these that works *and* agrees with a directional difference of F in a random direction:
rows of g by autograd (J_F = I + J_g) · rows of F by autograd · rows of F by `.backward()`, one fresh forward each ·
Richardson differences. JAX subjects: rows by `jax.vjp` or columns by `jax.jvp` in place of autograd. Elsewhere the
subject is called outside of function transforms: several published layers do not survive them, and memory-efficient
ones answer only `.backward()` (`autodiff_torch`). The subject's own log-det or series is never used.

Error bound (2-norm, per row). Autograd: K·u·√d·(‖J‖₂ + 1) with K = `OPERATIONS`, plus four times the change of J
when x moves by a few roundings (x(1 ± 4u)), which sees ill-conditioning inside F that the first term cannot (above
d = LARGE twice its estimate from 16 random products). Differences:
their own estimate. A row that disagrees while most agree sits on a kink: its error becomes 8√d·gap (a random unit
direction sees ‖δJ‖_F/√d). A method that disagrees in more than a quarter of the rows is rejected.

Numerical limits: rows must not depend on each other; `Undecided` is raised where no method agrees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from iresnet_verify.oracle import finite_differences as differences
from iresnet_verify.oracle.singular_values import LARGE, norm_bound
from iresnet_verify.subject.calls import Caller, flat
from iresnet_verify.subject.errors import Undecided
from iresnet_verify.subject.subject import HostArray, Native

Array = np.ndarray[Any, np.dtype[np.float64]]
Rows = Callable[[HostArray], Array]
"""x -> J (batch, d, d)."""
Products = Callable[[HostArray, Array], Array]
"""(x, w (batch, probes, d)) -> wᵀJ, by the same method."""
PROBES = 16
OPERATIONS = 64
"""K: roundings that one evaluation is allowed, relative to the size of what it adds up."""


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
        for source, rows, products in self._methods(seed):
            found = self._judged(rows, products, x, seed, source, rejected)
            if found is not None:
                return self._answer(*found, " of g by " in source, source, rejected)
        J, error_bound = differences.full_jacobian(self._evaluate(seed), self._flat(x), self.noise, self.u)
        verdict = self._judge(x, J, error_bound, seed, together=False)[0] if np.isfinite(J).all() else None
        if verdict is None:
            raise Undecided("no Jacobian of forward agrees with a directional difference "
                            f"(rows may depend on each other, or F jumps; tried {'; '.join(rejected) or 'differences'})")
        return self._answer(J, verdict, False, "Richardson differences", rejected)

    def _judged(
        self, rows: Rows, products: Products | None, x: HostArray, seed: int, source: str, rejected: list[str]
    ) -> tuple[Array, Array] | None:
        """(J, its error) by one method, None where it raises or disagrees.

        Where a row has the same value in a larger batch: first x, x(1 ± 4u) and the points of the differences in few large
        batches. Elsewhere, and where not every row agrees then, each in a batch of its own, which decides.
        """
        of_residual = " of g by " in source
        if self.caller.rows_independent is None:
            self.caller.rows_independent = self._batch_does_not_matter(x, seed)
        for together in (True, False)[not self.caller.rows_independent :]:
            try:
                J, change = self._with_change(rows, products, x, together)
            except Exception as error:
                rejected.append(f"{source}: {type(error).__name__}")
                return None
            norm = norm_bound(J)
            bound = OPERATIONS * self.u * np.sqrt(self._d(x)) * (norm + (not of_residual))
            bound += 4 * np.where(np.isfinite(change), change, np.inf) + self.accuracy * norm
            verdict, all_agree = self._judge(x, J + np.eye(J.shape[1]) if of_residual else J, bound, seed, together)
            if all_agree or not together:
                self.caller.rows_independent = self.caller.rows_independent and (together or not all_agree)
                break
        if verdict is None:
            rejected.append(f"{source}: disagrees with a directional difference")
            return None
        return J, verdict

    def _batch_does_not_matter(self, x: HostArray, seed: int) -> bool:
        """Whether F has one value at x, and at x again in the other order, in batches of one and of two such lots."""
        try:
            y, both = (self._flat(self.forward(rows, seed=seed)) for rows in (x, np.concatenate([x, x[::-1]])))
        except Exception:
            return False
        gap = np.linalg.norm(both - np.concatenate([y, y[::-1]]), axis=1).max(initial=0.0)
        return bool(gap <= OPERATIONS * self.u * (np.linalg.norm(y, axis=1).max(initial=0.0) + 1.0))

    def _with_change(
        self, rows: Rows, products: Products | None, x: HostArray, together: bool
    ) -> tuple[Array, Array]:
        """J at x, and ‖J − J′‖_F for J′ where every entry of x is moved by about one rounding.

        Above d = LARGE it is estimated by products wᵀ(J − J′) with `PROBES` vectors of random signs, E‖wᵀA‖² = ‖A‖_F², and
        doubled: below the norm with probability P(χ²₁₆ < 4) = .001 where A has rank one, less where it has more.
        """
        rng = np.random.default_rng(0)
        beside = (x.astype(np.float64) * (1 + 4 * self.u * rng.choice([-1.0, 1.0], size=x.shape))).astype(x.dtype)
        probing = products is not None and self._d(x) > LARGE
        J, moved = np.split(rows(np.concatenate([x, beside])), 2) if together and not probing else (rows(x), None)
        if not np.isfinite(J).all():
            raise ValueError("not finite")
        if probing and products is not None:
            w = rng.choice([-1.0, 1.0], size=(len(x), PROBES, self._d(x)))
            return J, 2.0 * np.sqrt(np.mean(np.sum((products(beside, w) - w @ J) ** 2, axis=2), axis=1))
        change: Array = np.linalg.norm((rows(beside) if moved is None else moved) - J, axis=(1, 2))
        return J, change

    def _answer(self, J: Array, error: Array, is_residual: bool, source: str, rejected: list[str]) -> Jacobian:
        eye = np.eye(J.shape[1])
        note = f" ({'; '.join(rejected)})" if rejected else ""
        full, residual = (J + eye, J) if is_residual else (J, J - eye)
        return Jacobian(full, source + note, error, residual)

    def _judge(self, x: HostArray, J: Array, error: Array, seed: int, together: bool) -> tuple[Array | None, bool]:
        """Compare with a directional difference of F: the error bounds (None: rejected), and whether all rows agree."""
        flat_x = self._flat(x)
        v = np.random.default_rng([seed, 1]).standard_normal(flat_x.shape)
        v /= np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-300)
        D, slack = differences.derivative(self._evaluate(seed), flat_x, v, self.noise, self.u, together=together)
        product = np.einsum("nij,nj->ni", J, v)
        gap = np.linalg.norm(D - product, axis=1)
        allowed = error + 8 * slack + self.u ** (2 / 3) * np.maximum(1.0, np.linalg.norm(product, axis=1))
        agrees = ~(gap > allowed)  # a NaN gap (F undefined beside x) cannot refute
        if x.shape[0] and (~agrees).mean() > 0.25:
            return None, False
        return np.where(agrees, error, np.maximum(error, 8 * np.sqrt(self._d(x)) * gap)), bool(agrees.all())

    def _methods(self, seed: int) -> list[tuple[str, Rows, Products | None]]:
        if self.caller.framework.name.startswith("jax"):
            return self._jax_methods(seed)
        if not self.caller.framework.differentiable:
            return []
        names = (["residual"] if self.caller.subject.residual is not None else []) + ["forward"]
        return [
            *((f"rows of {'g' if name == 'residual' else 'F'} by autograd", partial(self._grad_rows, name, seed),
               partial(self._grad_products, name, seed)) for name in names),
            ("rows by .backward()", partial(self._backward_rows, seed), None),
        ]

    def _jax_methods(self, seed: int) -> list[tuple[str, Rows, Products | None]]:
        from iresnet_verify.oracle import rows_jax as autodiff_jax

        caller = self.caller
        names = (["residual"] if caller.subject.residual is not None else []) + ["forward"]
        return [
            (f"{what} of {'g' if name == 'residual' else 'F'} by jax.{how}", partial(_swapped, made, caller, name, seed), None)
            for name in names for what, how, made in (("rows", "vjp", autodiff_jax.rows), ("columns", "jvp", autodiff_jax.columns))
        ]

    def _grad_rows(self, name: str, seed: int, x: HostArray) -> Array:
        from iresnet_verify.oracle import rows_torch as autodiff_torch

        framework = self.caller.framework

        def attempt(batched: bool) -> Array:
            with self.guard(), framework.call_context():
                leaf = framework.native(x, requires_grad=True)
                y = self.caller.event(name, leaf.clone(), seed=seed)[0]
                J = autodiff_torch.rows(y.reshape(y.shape[0], -1), leaf, batched=batched)
                return np.asarray(framework.host(J), dtype=np.float64).reshape(len(x), self._d(x), -1)

        return autodiff_torch.settled(self.caller, attempt)

    def _grad_products(self, name: str, seed: int, x: HostArray, w: Array) -> Array:
        """(batch, probes, d): wᵀJ for w (batch, probes, d), one reverse pass each."""
        import torch

        framework = self.caller.framework
        with self.guard(), framework.call_context():
            leaf = framework.native(x, requires_grad=True)
            y = self.caller.event(name, leaf.clone(), seed=seed)[0]
            found = [torch.autograd.grad(y, leaf, torch.as_tensor(w[:, k]).reshape(y.shape).to(y), retain_graph=True)[0]
                     for k in range(w.shape[1])]
            return np.stack([flat(framework.host(row)).astype(np.float64) for row in found], axis=1)

    def _backward_rows(self, seed: int, x: HostArray) -> Array:
        rows = []
        for i in range(self._d(x)):
            with self.guard(), self.caller.framework.call_context():
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

    @staticmethod
    def _d(x: HostArray) -> int:
        return int(np.prod(x.shape[1:], dtype=int))

    @staticmethod
    def _flat(x: HostArray) -> Array:
        return flat(x).astype(np.float64)


def _swapped(made: Callable[..., Array], caller: Caller, name: str, seed: int, x: HostArray) -> Array:
    return made(caller, name, x, seed)
