"""The search for the worst stretch of g: ascents of ‖J_g(x)‖₂ over x, and pairs that show what they found.

At each x the largest singular triple (σ, u, v) of J_g comes from the Jacobian oracle, above d = LARGE from products with
J_g and its transpose (`singular_products`), which differences confirm where the search ends; where they do not, the oracle
has the last word. Above d = LARGE the checks of one state of the subject share one ascent (`worst_stretch`).

Since ∇ₓσ = ∇ₓ(uᵀJ_g(x)v) at fixed u, v, one differentiation of a vector-Jacobian product gives the direction of ascent; where
the framework cannot (no torch, kinks, custom backward passes), random steps of adapted length climb alone. Every accepted point
is accepted by its σ, so a wrong gradient wastes a step and never makes a verdict.

A *certified* ratio of a pair is (‖ĝ(a) − ĝ(b)‖ − η(a) − η(b))/‖a − b‖: a lower bound on Lip(g) whatever the rounding of
the two evaluations. Short pairs see the Jacobian, long ones have little rounding: several lengths are tried.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared import singular_products as products
from iresnet_verify.catalogue.shared.far_starts import at_steep_layers, scan
from iresnet_verify.catalogue.shared.map_errors import Domain, Rows, distance, norms, residual, size
from iresnet_verify.oracle import singular_values as singular
from iresnet_verify.subject.errors import Undecided
from iresnet_verify.subject.module_state import is_torch_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

    Triples = Callable[[Context, HostArray, HostArray | None], tuple[Rows, HostArray, HostArray]]
    """(x, v of neighbours if known) -> (σ, u, v) of J_g at every row, σ = −inf where it is not finite."""

LENGTHS = (1.0, 0.1, 1e-2, 1e-3, 1e-4)
"""Lengths of the pairs tried at a worst point, relative to max(1, ‖x‖)."""

WORK = 2**13
"""Rows × dimension of one batch of Jacobians, at most (one row at least): 16 rows at d = 512."""


@dataclass(frozen=True)
class Worst:
    """The largest ‖J_g‖₂ met: where, how large, the oracle's error there, its right singular vector, the work done."""

    x: HostArray
    value: float
    error: float
    direction: HostArray
    source: str
    evaluations: int


@dataclass(frozen=True)
class Pair:
    """Two points (1, *event), the measured ratio ‖g(a)−g(b)‖/‖a−b‖ and the part of it that rounding cannot explain."""

    a: HostArray
    b: HostArray
    ratio: float
    certified: float


def rounding_of_claim(ctx: Context) -> float:
    """Return the relative slack on a claimed L: 4nu for each layer, u of the subject's dtype.

    A layer divided by its singular value from an SVD has that norm to a few n·u, n the larger of d and the sides of its weight.
    Where a module shows its weights these are counted; a black box shows no hidden width: 8·max(d, 256)·u, which is the most.
    """
    most = 8.0 * max(ctx.d, 256) * ctx.u
    module = ctx.subject.module
    weights = [tuple(p.shape) for p in module.parameters() if p.ndim > 1] if is_torch_module(module) else []
    shown = sum(4.0 * max(ctx.d, shape[0], math.prod(shape[1:])) * ctx.u for shape in weights)
    return min(most, shown) if shown else most


def steepest(ctx: Context, x: HostArray, u: HostArray, v: HostArray) -> HostArray | None:
    """Return ∇ₓ(uᵀJ(x)v) of every row by two reverse passes, None where torch cannot give it or it vanishes.

    J is that of F: its derivative is the derivative of J_g too.
    """
    if ctx.framework.name != "torch":
        return None
    import torch

    point = ctx.native(x, requires_grad=True)
    left, right = ctx.native(u.reshape(x.shape).astype(x.dtype)), ctx.native(v.reshape(x.shape).astype(x.dtype))
    try:
        with ctx.guard(), torch.enable_grad():
            image = ctx.raw_forward(point)[0]
            (row,) = torch.autograd.grad(image, point, left, create_graph=True)
            if not row.requires_grad:
                return None
            (slope,) = torch.autograd.grad((row * right).sum(), point, allow_unused=True)
    except Exception:  # not twice differentiable, whatever it raises: random steps climb instead
        return None
    if slope is None:
        return None
    climb = np.asarray(ctx.host(slope), dtype=np.float64)
    return climb if np.isfinite(climb).all() and norms(climb).max() > 0.0 else None


def triples_by_jacobians(ctx: Context, x: HostArray, _: HostArray | None = None) -> tuple[Rows, HostArray, HostArray]:
    """Return the largest singular triples by the Jacobian oracle."""
    value, _error, u, v, _source = true_singular(ctx, x)
    return value, u, v


def true_singular(ctx: Context, x: HostArray) -> tuple[Rows, Rows, HostArray, HostArray, str]:
    """Return (σ, its error, u, v, source) of J_g at every row by the Jacobian oracle; σ = −inf where J is not finite."""
    chunk = max(1, WORK // max(ctx.d, 1))
    value, error = np.full(len(x), -np.inf), np.full(len(x), np.inf)
    u, v = np.zeros((len(x), ctx.d)), np.zeros((len(x), ctx.d))
    source = ""
    for start in range(0, len(x), chunk):
        oracle = ctx.residual_jacobian(x[start : start + chunk])
        source = oracle.source
        good = np.flatnonzero(np.isfinite(oracle.matrix).all(axis=(1, 2)))
        if len(good):
            value[start + good], u[start + good], v[start + good] = singular.largest(oracle.matrix[good])
            error[start + good] = oracle.error[good]
    return value, error, u, v, source


def starts(ctx: Context, domain: Domain, count: int) -> HostArray:
    """Return a pool of points: the subject's inputs, and on all of ℝᵈ also the origin and some a little further out."""
    pool = ctx.inputs(count)
    if not domain.everywhere:
        return pool
    wide = pool[: max(1, count // 4)] * np.asarray(3.0, dtype=pool.dtype)
    return np.concatenate([np.zeros_like(pool[:1]), pool, wide])


def _pool(
    ctx: Context, domain: Domain, count: int, top_singular: Triples, far: int
) -> tuple[HostArray, Rows, HostArray, HostArray]:
    """Return the pool of points with (σ, u, v) there; on all of ℝᵈ with `far` points of the scan and as many a steep layer."""
    pool = starts(ctx, domain, count)
    score, u, v = top_singular(ctx, pool, None)
    if far and domain.everywhere:
        more = np.concatenate([scan(ctx, far), at_steep_layers(ctx, far)])
        if len(more):
            with suppress(Undecided):  # far out the oracle may not know: the points above stand
                found, left, right = top_singular(ctx, more, None)
                pool, score = np.concatenate([pool, more]), np.concatenate([score, found])
                u, v = np.concatenate([u, left]), np.concatenate([v, right])
    return pool, score, u, v


def ascend(ctx: Context, domain: Domain, *, restarts: int, steps: int, far: bool = False) -> Worst:
    """Return the largest ‖J_g(x)‖₂ that multi-start ascent finds.

    Starts: the best half of a pool of 8·restarts points by σ, and as many at random. A step proposes x + s·∇σ/‖∇σ‖ and
    a random x + s·n per start, keeps the best, and adapts s (×1.6 after a success, ×½ after a failure; a start whose s
    has fallen below 1e-6 of its size is renewed from the pool). `far` adds to the pool, on all of ℝᵈ, what `far_starts` finds.
    """
    rng = ctx.rng
    by_products = products.available(ctx)
    top_singular: Triples = products.largest if by_products else triples_by_jacobians
    work = 16 * WORK if by_products else WORK
    affordable = max(2, work // (4 * max(ctx.d, 1)))
    restarts = max(1, min(restarts, affordable))
    steps = max(4, min(steps, 60 * 32 * (work // WORK) // max(ctx.d, 1)))
    pool, score, pool_u, pool_v = _pool(ctx, domain, max(2, min(8 * restarts, 4 * affordable)), top_singular, restarts if far else 0)
    evaluations = len(pool)
    order = np.argsort(-score)
    half = max(1, restarts // 2)
    spare = order[half:]
    chosen = np.concatenate([order[:half], rng.permutation(spare)[: restarts - half]])
    best, highest = pool[order[:1]], float(score[order[0]])
    x, value, u, v = pool[chosen].copy(), score[chosen], pool_u[chosen], pool_v[chosen]
    step = 0.5 * size(x) / np.sqrt(max(ctx.d, 1)) * np.sqrt(min(ctx.d, 8))
    column = (-1, *(1,) * (x.ndim - 1))
    for _ in range(steps):
        random = rng.standard_normal(x.shape)
        random /= np.maximum(norms(random), 1e-300).reshape(column)
        moves = [random * rng.uniform(0.1, 2.0, len(x)).reshape(column)]
        slope = steepest(ctx, x, u, v)
        if slope is not None:
            moves.append(slope / np.maximum(norms(slope), 1e-300).reshape(column))
        trials = [domain.clip((x + step.reshape(column) * move).astype(x.dtype)) for move in moves]
        try:
            found, left, right = top_singular(ctx, np.concatenate(trials), np.concatenate([v] * len(trials)))
        except Undecided:  # too many trials on kinks for the oracle; what was found so far stands
            break
        evaluations += len(trials) * len(x)
        table = found.reshape(len(trials), len(x))
        winner = table.argmax(axis=0)
        pick = winner * len(x) + np.arange(len(x))
        better = table.max(axis=0) > value
        rows = np.flatnonzero(better)
        x[rows], value[rows] = np.concatenate(trials)[pick[rows]], found[pick[rows]]
        u[rows], v[rows] = left[pick[rows]], right[pick[rows]]
        step = np.where(better, 1.6 * step, 0.5 * step)
        leader = int(value.argmax())
        if value[leader] > highest:
            best, highest = x[leader : leader + 1].copy(), float(value[leader])
        for i in np.flatnonzero(step < 1e-6 * size(x)):
            k = int(rng.integers(len(pool)))
            x[i], value[i] = pool[k], score[k]
            step[i] = 0.5 * float(size(x[i : i + 1])[0])
            u[i], v[i] = pool_u[k], pool_v[k]
    return _judged(ctx, best, by_products, evaluations)


def _judged(ctx: Context, x: HostArray, by_products: bool, evaluations: int) -> Worst:
    """‖J_g‖ at one point with its error: by products that differences confirm, else by the oracle."""
    if by_products:
        _, u, direction = products.largest(ctx, x)
        _, u, direction = products.largest(ctx, x, direction)
        sigma, error = products.confirmed(ctx, x, u, direction)
        if error[0] <= np.sqrt(ctx.u) * (1.0 + sigma[0]):
            return Worst(x, float(sigma[0]), float(error[0]), direction[0], products.SOURCE, evaluations)
    sigma, error, _, direction, source = true_singular(ctx, x)
    return Worst(x, float(sigma[0]), float(error[0]), direction[0], source, evaluations)


def worst_stretch(ctx: Context, domain: Domain, *, restarts: int, steps: int, far: bool = False) -> Worst:
    """Return the largest ‖J_g(x)‖₂ of an ascent; above d = LARGE that of the whole budget, made once for each state of the subject.

    That one depends on the state, the mode and the seed of the audit alone, so that it is the same whichever check asks first.
    """
    if ctx.d <= singular.LARGE:
        return ascend(ctx, domain, restarts=restarts, steps=steps, far=far)
    key = "ascent", *ctx.state_key()
    if key not in ctx.shared:
        own = replace(ctx, check_id="ascent")
        ctx.shared[key] = ascend(own, Domain.of(own), restarts=ctx.budget.restarts, steps=ctx.budget.steps, far=True)
    found: Worst = ctx.shared[key]
    return found


def hardest(ctx: Context, domain: Domain, part: int) -> HostArray:
    """Return (1, *event): where an iteration contracts least as far as 1/part of a search tells."""
    restarts, steps = max(2, ctx.budget.restarts // 2), max(5, ctx.budget.steps // part)
    return worst_stretch(ctx, domain, restarts=restarts, steps=steps).x


def measure_pairs(ctx: Context, a: HostArray, b: HostArray, *, whole: bool = False) -> tuple[Rows, Rows, Rows]:
    """Return (ratio, rounding of it, ‖a−b‖) of g, or of F where `whole`; ratio 0 where a = b."""
    values = (ctx.f.forward(a), ctx.f.forward(b)) if whole else (residual(ctx, a), residual(ctx, b))
    images = values if whole else (a + values[0].astype(a.dtype), b + values[1].astype(b.dtype))
    gap = distance(a, b)
    noise = ctx.forward_tolerance(a, images[0]) + ctx.forward_tolerance(b, images[1])
    apart = np.where(gap > 0.0, gap, np.inf)
    return distance(*values) / apart, noise / apart, gap


def along(ctx: Context, domain: Domain, x: HostArray, direction: HostArray) -> tuple[HostArray, HostArray]:
    """Return pairs x ± ½h·direction for every h of LENGTHS, centred at x, inside the domain."""
    unit = direction.reshape(1, *x.shape[1:]) / max(float(np.linalg.norm(direction)), 1e-300)
    h = 0.5 * float(size(x)[0]) * np.asarray(LENGTHS).reshape(-1, *(1,) * (x.ndim - 1))
    return domain.clip((x + h * unit).astype(x.dtype)), domain.clip((x - h * unit).astype(x.dtype))


def best_pair(ctx: Context, a: HostArray, b: HostArray) -> Pair:
    """Return the pair with the largest certified ratio of g."""
    ratio, noise, _ = measure_pairs(ctx, a, b)
    i = int((ratio - noise).argmax())
    return Pair(a[i : i + 1], b[i : i + 1], float(ratio[i]), float(ratio[i] - noise[i]))


def climb_pairs(ctx: Context, domain: Domain, *, restarts: int, steps: int) -> tuple[Pair, int]:
    """Return the best pair found by random local search over pairs, and the pairs measured.

    Starts from pairs of inputs and from short pairs in random directions; each step perturbs both ends by an adapted
    length and keeps what raises the ratio. Pairs closer than u^(1/3)·max(1, ‖x‖) are left out, so that the search does
    not climb rounding (u^(2/3) of the ratio there); what it ends with is certified.
    """
    rng = ctx.rng

    def measured(p: HostArray, q: HostArray) -> tuple[Rows, Rows]:
        apart = distance(p, q)
        usable = apart >= ctx.u ** (1.0 / 3.0) * size(p)
        return np.where(usable, distance(residual(ctx, p), residual(ctx, q)) / np.where(usable, apart, 1.0), 0.0), apart

    a = ctx.inputs(2 * restarts)
    near = np.asarray(0.05 * rng.standard_normal(a.shape), dtype=a.dtype)
    b = domain.clip(np.concatenate([a[restarts:][::-1], (a + near)[restarts:]]))
    value, gap = measured(a, b)
    step = np.full(len(a), 0.5)
    column: tuple[Any, ...] = (-1, *(1,) * (a.ndim - 1))
    for _ in range(steps):
        reach = (step * np.minimum(gap, size(a)) / np.sqrt(max(ctx.d, 1))).reshape(column)
        both = (step * size(a) / np.sqrt(max(ctx.d, 1))).reshape(column) * rng.standard_normal(a.shape)
        p = domain.clip((a + both).astype(a.dtype))
        q = domain.clip((b + both + reach * rng.standard_normal(a.shape)).astype(a.dtype))
        ratio, apart = measured(p, q)
        better = ratio > value
        a[better], b[better], value[better], gap[better] = p[better], q[better], ratio[better], apart[better]
        step = np.clip(np.where(better, 1.5 * step, 0.8 * step), 1e-3, 1.0)
    return best_pair(ctx, a, b), 2 * restarts * (steps + 1)
