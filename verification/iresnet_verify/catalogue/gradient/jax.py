"""Gradients of a JAX subject with respect to the pytree of its parameters, and of its log-det with respect to the input.

`from_parameters(pytree)` builds the subject at other parameters and `parameters` is the pytree it stands at: a dictionary,
an Equinox module, the state of a Flax module. Its leaves that are floating arrays are differentiated; what else it holds
(functions, integers, strings) is passed through.

Oracle: `jax.grad` of Σ w_i log|det J_i| with J by `jax.jacrev` of g (or F) on single rows, used only if it agrees with a
central difference of the same number, evaluated without tracing, along a random direction. Tolerance per leaf:
K·u·√d·κ(J)·Σ|w_i|‖G_i‖ over the leaf, plus K·u times the sum over all leaves and 1, plus eight times the largest change when x
moves by a few roundings, K = 64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.parameter_directions import LENGTH, RANDOM, Along
from iresnet_verify.catalogue.shared.parameter_gradients import INPUT, rows_of
from iresnet_verify.catalogue.shared.slopes import SAFE, rounding, slope
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.verdict import verdict
from iresnet_verify.subject.calls import Caller
from iresnet_verify.subject.errors import Undecided
from iresnet_verify.subject.frameworks import OPERATIONS

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.randomness.injection import Vector
    from iresnet_verify.subject.subject import HostArray, Subject

Leaves = list[Any]
MOST = 6
"""Leaves without a gradient that are moved alone."""
Number = Callable[[Leaves, Any], Any]
"""(leaves, x) -> one value a row."""


class Parameters:
    """The floating arrays among the leaves of a subject's pytree, and the subject at other values of them."""

    def __init__(self, subject: Subject) -> None:
        import jax

        self.subject = subject
        found, self._tree = jax.tree_util.tree_flatten_with_path(subject.parameters)
        self._all = [leaf for _, leaf in found]
        self._which = [i for i, leaf in enumerate(self._all) if _is_floating(leaf)] if subject.from_parameters else []
        self.names = [jax.tree_util.keystr(found[i][0]) or "parameters" for i in self._which]
        self.leaves: Leaves = [self._all[i] for i in self._which]

    def at(self, leaves: Sequence[Any]) -> Subject:
        """Return the subject with `leaves` in place of its own."""
        import jax

        if self.subject.from_parameters is None:
            return self.subject
        full = list(self._all)
        for i, leaf in zip(self._which, leaves, strict=True):
            full[i] = leaf
        return self.subject.from_parameters(jax.tree_util.tree_unflatten(self._tree, full))


def log_det(ctx: Context, weights: Vector, of_input: bool) -> Outcome:
    """Compare the gradient of Σ w_i log_det(x_i) as the subject gives it with that of the exact determinant."""
    kind, _ = ctx.log_det_claim
    if kind != "exact":
        return Outcome("skipped", f"its log-det claims {kind!r}: draws from JAX keys cannot be enumerated, and a biased one has no rate")
    parameters, x, seed = Parameters(ctx.subject), ctx.inputs(rows_of(ctx)), ctx.caller.next_seed()
    names = [INPUT] if of_input else parameters.names

    def number(make: Callable[[Caller, Any], Any]) -> Number:
        return lambda leaves, at: make(_caller(ctx, parameters.at(leaves)), at)

    own = number(lambda caller, at: caller.scalar("log_det", at, seed=seed))
    exact = number(lambda caller, at: _exact(caller, at, seed))
    got = weights @ _per_row(ctx, own, parameters, x, of_input)
    rows = _per_row(ctx, exact, parameters, x, of_input)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=x.shape)
    moved = _per_row(ctx, exact, parameters, (x * (1 + 4 * ctx.u * signs)).astype(x.dtype), of_input)
    if not _agrees(ctx, exact, parameters, x, weights @ rows, weights, of_input):
        raise Undecided("the gradient of the exact log-det by jax.grad disagrees with its differences (kinks, or a rule of its own)")
    sizes = [x.size] if of_input else [int(np.size(leaf)) for leaf in parameters.leaves]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    kappa = float(np.linalg.cond(ctx.jacobian(x).matrix).max())
    size = np.array([(np.abs(weights) * np.linalg.norm(rows[:, owner == b], axis=1)).sum() for b in range(len(sizes))])
    change = np.abs(weights) @ np.abs(moved - rows)
    worst = np.array([change[owner == b].max(initial=0.0) for b in range(len(sizes))])
    tolerance = (OPERATIONS * ctx.u * (np.sqrt(ctx.d) * kappa * size + size.sum() + 1.0) + 8.0 * worst)[owner]
    return _agreement(x, weights @ rows, got, tolerance, [names[i] for i in owner])


def forward(ctx: Context, x: HostArray, c: HostArray) -> list[Along]:
    """⟨θ̄, v⟩ by `jax.grad` of c·F beside differences, for random directions v of the leaves, θ̄ itself, and each leaf whose θ̄ is 0."""
    import jax

    parameters, seed = Parameters(ctx.subject), ctx.caller.next_seed()
    leaves = parameters.leaves

    def image(moved: Leaves) -> Any:
        return _caller(ctx, parameters.at(moved)).event("forward", ctx.native(x), seed=seed)[0]

    gradients = [np.asarray(ctx.host(g), dtype=np.float64)
                 for g in jax.grad(lambda moved: (ctx.native(c) * image(moved)).sum())(leaves)]
    random = [[ctx.rng.standard_normal(g.shape) * (LENGTH / max(g.size, 1) ** 0.5) for g in gradients]
              for _ in range(RANDOM[ctx.budget.name])]
    size = float(sum(np.square(g).sum() for g in gradients)) ** 0.5
    own = [[g * (LENGTH * len(gradients) ** 0.5 / size) for g in gradients]] if 0.0 < size < np.inf else []
    missing = [i for i, g in enumerate(gradients) if g.size and not g.any()][:MOST]
    alone = [[v if j == i else 0.0 * v for j, v in enumerate(random[0])] for i in missing]

    def along(v: list[HostArray]) -> Along:
        def value(h: float) -> float:
            moved = [p + ctx.native(h * d).astype(p.dtype) for p, d in zip(leaves, v, strict=True)]
            return float((ctx.host(image(moved)).astype(np.float64) * c).sum())

        noise = max(SAFE * rounding(value, 64.0 * ctx.u / LENGTH), floor)
        return Along(sum(float((g * d).sum()) for g, d in zip(gradients, v, strict=True)), slope(value, 0.5, noise))

    floor = (2.0 * ctx.u + ctx.accuracy) * float(np.linalg.norm(ctx.host(image(leaves)).astype(np.float64) * c))
    return [along(v) for v in (*random, *alone, *own)]


def _agreement(x: HostArray, target: Vector, got: Vector, tolerance: Vector, names: list[str]) -> Outcome:
    return verdict(
        np.abs(got - target), tolerance,
        expected=lambda at: f"{target[at.row]:.8g} ± {at.bound:.2g} in the gradient with respect to {names[at.row]}",
        got=lambda at: f"{got[at.row]:.8g}",
        passed=lambda at: f"{len(names)} numbers of {len(set(names))} leaves agree to {at.largest:.2g}",
        tolerance="64·u·(√d·κ(J) + 1)·Σ|w_i|‖G_i‖ + 8·(change of the oracle under roundings)",
        oracle="jax.grad of the exact log-determinant of jax.jacrev, confirmed by differences",
        evidence={"rows": len(x), "gradient_norm": float(np.linalg.norm(target))}, counterexample=lambda at: Counterexample({"x": x}),
    )


def _caller(ctx: Context, subject: Subject) -> Caller:
    return Caller(subject, ctx.framework, 0, ctx.conventions.context_row, dict(ctx.conventions.packed))


def _exact(caller: Caller, x: Any, seed: int) -> Any:
    """log|det J| (batch,) by jax.jacrev on single rows."""
    import jax

    name = "forward" if caller.subject.residual is None else "residual"

    def one(row: Any) -> Any:
        return caller.event(name, row.reshape(1, *x.shape[1:]), seed=seed)[0].reshape(-1)

    d = int(np.prod(x.shape[1:], dtype=int))
    J = jax.numpy.stack([jax.jacrev(one)(row) for row in x.reshape(-1, d)])
    return jax.numpy.linalg.slogdet(J + jax.numpy.eye(d, dtype=J.dtype) if name == "residual" else J)[1]


def _per_row(ctx: Context, number: Number, parameters: Parameters, x: HostArray, of_input: bool) -> Vector:
    """(rows, numbers): the gradient of each row's value with respect to the leaves, or to x."""
    import jax

    at = ctx.native(x)
    gradient = jax.jacrev(number, argnums=1 if of_input else 0)(parameters.leaves, at)
    parts = [gradient] if of_input else gradient
    return np.concatenate([np.asarray(ctx.host(g), dtype=np.float64).reshape(len(x), -1) for g in parts], axis=1)


def _agrees(
    ctx: Context, exact: Number, parameters: Parameters, x: HostArray, gradient: Vector, weights: Vector, of_input: bool
) -> bool:
    leaves = [ctx.native(x)] if of_input else parameters.leaves
    v = _direction(ctx, leaves)
    along = float(gradient @ np.concatenate([np.asarray(d, dtype=np.float64).ravel() for d in v]))

    def value(h: float) -> float:
        moved = [p + h * d for p, d in zip(leaves, v, strict=True)]
        rows = exact(parameters.leaves, moved[0]) if of_input else exact(moved, ctx.native(x))
        return float(weights @ np.asarray(ctx.host(rows), dtype=np.float64))

    slope, error = _difference(ctx, value, float(ctx.d * np.abs(weights).sum()))
    return abs(slope - along) <= 0.02 * max(abs(slope), abs(along)) + error


def _difference(ctx: Context, value: Callable[[float], float], size: float) -> tuple[float, float]:
    """(derivative at 0 by one step of Richardson, four times the estimate of its error)."""
    h = ctx.u**0.2
    wide, narrow = ((value(s) - value(-s)) / (2.0 * s) for s in (h, h / 2.0))
    return narrow + (narrow - wide) / 3.0, 4.0 * (abs(narrow - wide) + (64.0 * ctx.u + ctx.accuracy) * size / h)


def _direction(ctx: Context, leaves: Sequence[Any]) -> list[Any]:
    return [ctx.native(np.asarray(ctx.rng.standard_normal(np.shape(p)) * 0.1 / max(np.size(p), 1) ** 0.5)).astype(p.dtype)
            for p in leaves]


def _is_floating(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape") and str(leaf.dtype).startswith(("float", "bfloat")) and np.size(leaf) > 0
