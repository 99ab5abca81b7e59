"""The largest singular triple of J_g without the matrix: v ← Jᵀ(Jv)/‖·‖, for searches in many dimensions.

Jv is a central difference of g over a step of u^(1/3)·max(1, ‖x‖), right to about u^(2/3); Jᵀw is one ordinary reverse
pass, which memory-efficient layers answer as well. After n rounds ‖Jᵀw‖ at ‖w‖ = 1 is a lower bound on ‖J‖₂ up to the
rounding of that pass: enough to lead a search, whose last word belongs to the Jacobian oracle and to pairs of points.
One round at one row costs three evaluations and a reverse pass, the matrix d of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify import singular
from iresnet_verify.catalogue.map_errors import Rows, norms, size

if TYPE_CHECKING:
    from iresnet_verify.context import Context
    from iresnet_verify.subject import HostArray

ROUNDS = 12
"""Rounds from a random v; (σ₂/σ₁)²⁴ of what else v holds is left."""
AGAIN = 3
"""Rounds from the v of a neighbour."""


def worthwhile(ctx: Context) -> bool:
    """Whether products are the cheaper way, and can be had: in torch above d = LARGE."""
    return ctx.d > singular.LARGE and ctx.framework.name == "torch"


def largest(ctx: Context, x: HostArray, v: HostArray | None = None) -> tuple[Rows, HostArray, HostArray]:
    """Return (σ, u, v) of J_g at every row, σ ≤ ‖J_g‖₂ to rounding and −inf where it is not finite; `v` of neighbours if known."""
    rounds = ROUNDS if v is None else AGAIN
    v = np.random.default_rng(0).standard_normal((len(x), ctx.d)) if v is None else v
    v = v / np.maximum(norms(v), 1e-300)[:, None]
    h = ctx.u ** (1.0 / 3.0) * size(x)[:, None]
    points, seed = x.astype(np.float64).reshape(len(x), -1), ctx.caller.next_seed()
    sigma, u = np.zeros(len(x)), v
    for _ in range(rounds):
        up, down = ((points + s * h * v).astype(x.dtype).reshape(x.shape) for s in (1.0, -1.0))
        u = _g(ctx, up, seed) - _g(ctx, down, seed)
        length = np.linalg.norm(u, axis=1)
        u = u / np.where(length > 0.0, length, 1.0)[:, None]
        w = _transposed(ctx, x, u, seed)
        sigma = np.linalg.norm(w, axis=1)
        v = np.where(sigma[:, None] > 0.0, w / np.where(sigma > 0.0, sigma, 1.0)[:, None], v)
    return np.where(np.isfinite(sigma), sigma, -np.inf), u, v


def _name(ctx: Context) -> str:
    return "forward" if ctx.subject.residual is None else "residual"


def _g(ctx: Context, x: HostArray, seed: int) -> HostArray:
    rows = (len(x), -1)
    if ctx.f.residual is not None:
        return np.asarray(ctx.f.residual(x, seed=seed), dtype=np.float64).reshape(rows)
    return (np.asarray(ctx.f.forward(x, seed=seed), dtype=np.float64) - x).reshape(rows)


def _transposed(ctx: Context, x: HostArray, w: HostArray, seed: int) -> HostArray:
    """J_gᵀw at every row."""
    import torch

    name = _name(ctx)
    with ctx.guard(), ctx.framework.calling():
        leaf = ctx.native(x, requires_grad=True)
        y = ctx.caller.event(name, leaf.clone(), seed=seed)[0]
        if not y.requires_grad:
            return np.zeros_like(w)
        row = torch.autograd.grad(y, leaf, torch.as_tensor(w).reshape(y.shape).to(y), allow_unused=True)[0]
        found = np.zeros_like(w) if row is None else np.asarray(ctx.host(row), dtype=np.float64).reshape(w.shape)
    return found if name == "residual" else found - w
