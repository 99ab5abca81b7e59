"""The largest singular triple of J_g without the matrix: v ← Jᵀ(Jv)/‖·‖, for searches in many dimensions.

Jv is a central difference of g over a step of u^(1/3)·max(1, ‖x‖), right to about u^(2/3); Jᵀw is one ordinary reverse
pass, which memory-efficient layers answer as well. After n rounds ‖Jᵀw‖ at ‖w‖ = 1 is a lower bound on ‖J‖₂ up to the
rounding of that pass: enough to lead a search, whose last word belongs to the Jacobian oracle and to pairs of points.
One round at one row costs three evaluations and a reverse pass, the matrix d of them.

*An upper bound without the matrix* (`contraction`). For B = (JᵀJ)^q and r standard normal w_i, ‖B‖ ≤ α√(2/π) maxᵢ ‖Bw_i‖ but with
probability α^{−r} (Halko, Martinsson and Tropp 2011, Lemma 4.1), so that ‖J‖ ≤ (α√(2/π) maxᵢ ‖Bw_i‖)^{1/2q}. Where it is below 1,
I + J is regular with a positive determinant and σ_min ≥ 1 − ‖J‖ (Weyl): most questions about J of a contraction need no matrix.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.map_errors import Rows, norms, residual, size
from iresnet_verify.oracle import finite_differences as differences
from iresnet_verify.oracle import singular_values as singular
from iresnet_verify.subject.frameworks import OPERATIONS

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

WITNESSES, ALPHA = 4, 64.0
"""r and α: each bound fails with probability 6e-8, one of the `ROUNDS` of a row with 7e-7."""
ENOUGH = 0.9
"""A bound below it is not sharpened further."""
MANY_ROUNDS = 192
"""Rounds after which the bound is within some 3 % of the norm: one of them fails with probability 1e-5."""
LANCZOS = 30
"""Steps that lead to the extreme singular vectors of I + J."""
ROUNDS = 12
"""Rounds from a random v; (σ₂/σ₁)²⁴ of what else v holds is left."""
AGAIN = 3
"""Rounds from the v of a neighbour."""
SOURCE = "products with J_g and its transpose, confirmed by differences"
PROBES, AGREE = 4, 1e-2
"""wᵀ(Jv) of random units w, v is of size ‖Jv‖/√d; this part of it is left to kinks and float32."""


def available(ctx: Context) -> bool:
    """Whether products are the cheaper way, above d = LARGE in torch, and adjoint: wᵀ(Jv) = (Jᵀw)ᵀv for `PROBES` w, v at an input.

    An output without a graph, a backward pass that raises and one that is wrong leave the search to the Jacobian oracle.
    """
    if ctx.d <= singular.LARGE or ctx.framework.name != "torch":
        return False
    x, seed = np.repeat(ctx.inputs(1), PROBES, axis=0), ctx.caller.next_seed()
    w, v = (a / norms(a)[:, None] for a in np.random.default_rng(0).standard_normal((2, PROBES, ctx.d)))
    try:
        Jv, Jw = _times(ctx, x, v, seed), _transposed(ctx, x, w, seed)
    except Exception:  # whatever a subject's backward pass raises
        return False
    gap = np.abs((w * Jv).sum(1) - (Jw * v).sum(1))
    return bool((gap <= AGREE * (norms(Jv) + norms(Jw)) / np.sqrt(ctx.d)).all())


def largest(ctx: Context, x: HostArray, v: HostArray | None = None) -> tuple[Rows, HostArray, HostArray]:
    """Return (σ, u, v) of J_g at every row, σ ≤ ‖J_g‖₂ to rounding and −inf where it is not finite; `v` of neighbours if known."""
    rounds = ROUNDS if v is None else AGAIN
    v = np.random.default_rng(0).standard_normal((len(x), ctx.d)) if v is None else v
    v = v / np.maximum(norms(v), 1e-300)[:, None]
    seed, sigma, u = ctx.caller.next_seed(), np.zeros(len(x)), v
    for _ in range(rounds):
        u = _times(ctx, x, v, seed)
        length = norms(u)
        u = u / np.where(length > 0.0, length, 1.0)[:, None]
        w = _transposed(ctx, x, u, seed)
        sigma = norms(w)
        v = np.where(sigma[:, None] > 0.0, w / np.where(sigma > 0.0, sigma, 1.0)[:, None], v)
    return np.where(np.isfinite(sigma), sigma, -np.inf), u, v


def contraction(ctx: Context, x: HostArray, rounds: int = ROUNDS) -> Rows:
    """Return an upper bound on ‖J_g‖₂ at every row (see the module), infinite where it is not finite.

    Beyond `ROUNDS` rounds, for a norm that is close to 1, a row is left as soon as its bound is below 1.
    """
    n, rng = len(x), np.random.default_rng(1)
    many, seed = np.repeat(x, WITNESSES, axis=0), ctx.caller.next_seed()
    w = rng.standard_normal((n * WITNESSES, ctx.d))
    grown, bound = np.log(norms(w)), np.full(n, np.inf)
    w = w / norms(w)[:, None]
    open_rows = np.arange(n)
    margin = 1.0 + 16.0 * (ctx.u ** (2.0 / 3.0) + ctx.accuracy)
    for q in range(1, rounds + 1):
        picked = (open_rows[:, None] * WITNESSES + np.arange(WITNESSES)).ravel()
        image = _transposed(ctx, many[picked], _times(ctx, many[picked], w[picked], seed), seed)
        length = norms(image)
        with np.errstate(divide="ignore", invalid="ignore"):
            grown[picked] += np.log(length)
            w[picked] = image / np.where(length > 0.0, length, 1.0)[:, None]
            most = grown[picked].reshape(-1, WITNESSES).max(axis=1)
            found = margin * np.exp((math.log(ALPHA * math.sqrt(2.0 / math.pi)) + most) / (2 * q))
        found = np.where(np.isnan(grown[picked]).reshape(-1, WITNESSES).any(axis=1), np.inf, found)
        bound[open_rows] = np.minimum(bound[open_rows], found)
        open_rows = open_rows[bound[open_rows] >= (ENOUGH if q < ROUNDS else 1.0)]
        if not len(open_rows):
            break
    return np.where(np.isnan(bound), np.inf, bound)


def extremes(ctx: Context, x: HostArray) -> tuple[HostArray, HostArray]:
    """Return unit vectors (n, d) that I + J_g stretches most and least, by `LANCZOS` steps on (I + J)ᵀ(I + J) from one random vector."""
    seed, n = ctx.caller.next_seed(), len(x)
    steps = min(LANCZOS, ctx.d)
    v = np.random.default_rng(2).standard_normal((n, ctx.d))
    V, T = np.zeros((n, steps, ctx.d)), np.zeros((n, steps, steps))
    v = v / norms(v)[:, None]
    for k in range(steps):
        V[:, k] = v
        image = v + _times(ctx, x, v, seed)
        w = image + _transposed(ctx, x, image, seed)
        for _ in range(2):  # twice is enough (Parlett)
            w_in_V = np.einsum("nkd,nd->nk", V[:, : k + 1], w)
            T[:, k, k] += w_in_V[:, k]
            w = w - np.einsum("nkd,nk->nd", V[:, : k + 1], w_in_V)
        beta = norms(w)
        if k + 1 < steps:
            T[:, k, k + 1] = T[:, k + 1, k] = beta
        v = w / np.where(beta > 0.0, beta, 1.0)[:, None]
    good = np.asarray(np.isfinite(T).all(axis=(1, 2)))
    S = np.linalg.eigh(np.where(good[:, None, None], T, 0.0))[1]
    most, least = (np.einsum("nkd,nk->nd", np.nan_to_num(V), S[:, :, i]) for i in (-1, 0))
    return most, least


def confirmed(ctx: Context, x: HostArray, u: HostArray, v: HostArray) -> tuple[Rows, Rows]:
    """Return (σ, its error) at every row: ‖Jᵀu‖ is right to one reverse pass, and uᵀ(Jv) by extrapolated differences must agree with it."""
    flat_x = x.reshape(len(x), -1).astype(np.float64)
    seed = ctx.caller.next_seed()

    def g(rows: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        return residual(ctx, rows.astype(x.dtype).reshape(-1, *x.shape[1:]), seed).reshape(len(rows), -1)

    D, slack = differences.derivative(g, flat_x, v, 8.0 * ctx.u + ctx.accuracy, ctx.u)
    along = (u * D).sum(axis=1)
    value = norms(_transposed(ctx, x, u, seed))
    rounding = OPERATIONS * ctx.u * math.sqrt(ctx.d) * (value + 1.0) + ctx.accuracy * value
    gap = np.abs(along - value)
    allowed = rounding + 8.0 * slack + ctx.u ** (2.0 / 3.0) * np.maximum(1.0, value)
    return value, np.where(gap <= allowed, rounding, np.maximum(rounding, gap))


def transposed_of_map(ctx: Context, x: HostArray, w: HostArray) -> HostArray:
    """(I + J_g)ᵀw at every row."""
    return w + _transposed(ctx, x, w, ctx.caller.next_seed())


def _times(ctx: Context, x: HostArray, v: HostArray, seed: int) -> HostArray:
    """J_g v at every row, ‖v‖ = 1."""
    points, h = x.astype(np.float64).reshape(len(x), -1), ctx.u ** (1.0 / 3.0) * size(x)[:, None]
    up, down = ((points + s * h * v).astype(x.dtype).reshape(x.shape) for s in (1.0, -1.0))
    return (residual(ctx, up, seed) - residual(ctx, down, seed)).reshape(len(x), -1) / (2.0 * h)


def _transposed(ctx: Context, x: HostArray, w: HostArray, seed: int) -> HostArray:
    """J_gᵀw at every row."""
    import torch

    name = "forward" if ctx.subject.residual is None else "residual"
    with ctx.guard(), ctx.framework.call_context():
        leaf = ctx.native(x, requires_grad=True)
        y = ctx.caller.event(name, leaf.clone(), seed=seed)[0]
        y.backward(torch.as_tensor(w).reshape(y.shape).to(y))
        found = np.zeros_like(w) if leaf.grad is None else np.asarray(ctx.host(leaf.grad), dtype=np.float64).reshape(w.shape)
    return found if name == "residual" else found - w
