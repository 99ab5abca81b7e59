"""The largest singular triple of J_g without the matrix: v ← Jᵀ(Jv)/‖·‖, for searches in many dimensions.

Jv is a central difference of g over a step of u^(1/3)·max(1, ‖x‖), right to about u^(2/3); Jᵀw is one ordinary reverse
pass, which memory-efficient layers answer as well. After n rounds ‖Jᵀw‖ at ‖w‖ = 1 is a lower bound on ‖J‖₂ up to the
rounding of that pass: enough to lead a search, whose last word belongs to the Jacobian oracle and to pairs of points.
One round at one row costs three evaluations and a reverse pass, the matrix d of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify.catalogue.shared.map_errors import Rows, norms, residual, size
from iresnet_verify.oracle import singular_values as singular

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

ROUNDS = 12
"""Rounds from a random v; (σ₂/σ₁)²⁴ of what else v holds is left."""
AGAIN = 3
"""Rounds from the v of a neighbour."""
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
