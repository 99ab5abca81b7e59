"""Derivatives that are asked for twice, and derivatives through the inverse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify.catalogue.shared import singular_products as products
from iresnet_verify.catalogue.shared.parameter_gradients import rows_of
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import verdict
from iresnet_verify.measurements import gradients as measures
from iresnet_verify.oracle import singular_values as singular
from iresnet_verify.subject.errors import BackwardError, Refused, backward_pass
from iresnet_verify.subject.frameworks import OPERATIONS

if TYPE_CHECKING:
    from iresnet_verify.catalogue.shared.map_errors import Rows
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

UNROLLED = 1000.0
"""An iteration stopped at a relative error τ after k steps has a derivative right to about kτ/(1 − L): at most this × τ."""


@check(
    "gradient.through-inverse",
    claim="Where inverse(y) can be differentiated, its derivative is that of the inverse map: Jᵀ ∂(c·x)/∂y = c at x = F⁻¹(y).",
    reference="implicit function theorem; Behrmann et al. 2019 (arXiv 1811.00995), Section 2", kind="search",
    needs=("inverse", "autodiff"),
    cost="one backward pass through the inverse, 4 Jacobians; above d = 128 products with J where ‖J_g‖ < 1",
    catches="straight-through steps, iterations cut from the graph but for the last, a wrong sign of the implicit gradient",
)
def through_inverse(ctx: Context) -> Outcome:
    """One backward pass through the inverse, multiplied by the oracle's Jacobian of forward."""
    x = ctx.inputs(rows_of(ctx))
    y = ctx.f.forward(x)
    c = ctx.rng.standard_normal(y.shape)
    try:
        taken = _by_jax(ctx, y, c) if ctx.framework.name.startswith("jax") else _by_torch(ctx, y, c)
    except BackwardError as error:
        raise Refused(str(error)) from error
    if taken is None:
        return Outcome("skipped", "inverse(y) carries no gradient: none is claimed", {"rows": len(x)}, oracle="autograd")
    at, found = taken
    rows = (len(x), -1)
    product, largest, smallest, oracle_error, oracle = _multiplied(ctx, at.astype(x.dtype), found.reshape(rows))
    gap = np.linalg.norm(product - c.reshape(rows), axis=1)
    tolerance = ctx.subject.inverse_tolerance if ctx.subject.inverse_tolerance is not None else ctx.u ** (1 / 3)
    size = np.linalg.norm(c.reshape(rows), axis=1)
    allowed = size * largest / smallest * (UNROLLED * max(tolerance, 64.0 * ctx.u) + oracle_error / smallest)
    return verdict(
        gap, allowed,
        expected="the gradient of the inverse", got=lambda at: f"one that is off by {at.error / size[at.row]:.2g} of its size",
        remedy="differentiate by the implicit function theorem, or return a result without a graph",
        passed=lambda at: f"right to {(gap / size).max():.2g} of its size",
        undecided="the Jacobian oracle cannot tell the Jacobian from a singular one",
        tolerance=f"{UNROLLED:g}·τ·κ(J)·‖c‖, τ = {tolerance:.1e} the error of the inverse, and the oracle's error", oracle=oracle,
        counterexample=lambda at: Counterexample({"x": x}),
    )


def _multiplied(ctx: Context, x: HostArray, w: HostArray) -> tuple[HostArray, Rows, Rows, Rows, str]:
    """Jᵀw at every row, an upper bound on ‖J‖, a lower one on σ_min, the oracle's error and its name; by products where they suffice."""
    if products.available(ctx):
        bound = products.contraction(ctx, x)
        if (bound < 1.0).all():
            error = OPERATIONS * ctx.u * np.sqrt(ctx.d) * (2.0 + bound)
            return products.transposed_of_map(ctx, x, w), 1.0 + bound, 1.0 - bound, error, products.SOURCE
    J = ctx.jacobian(x)
    smallest = np.maximum(singular.smallest(J.matrix)[1], 1e-300)
    return np.einsum("nij,ni->nj", J.matrix, w), singular.norm_bound(J.matrix), smallest, J.error, J.source


def _by_torch(ctx: Context, y: HostArray, c: HostArray) -> tuple[HostArray, HostArray] | None:
    """(inverse(y), its derivative of c·x) by `.backward()`, which memory-efficient layers answer too; None: no graph."""
    import torch

    with ctx.guard(), ctx.framework.call_context():
        leaf = ctx.native(y, requires_grad=True)
        back = ctx.raw_inverse(leaf.clone())
        if not back.requires_grad:
            return None
        with backward_pass("the inverse"):
            back.backward(torch.tensor(c).to(back))
        gradient = np.zeros_like(c) if leaf.grad is None else leaf.grad.detach().cpu().double().numpy()
        return ctx.host(back.detach()), gradient


def _by_jax(ctx: Context, y: HostArray, c: HostArray) -> tuple[HostArray, HostArray] | None:
    """The same by `jax.vjp`; None where JAX refuses (a loop of unknown length, code that leaves JAX)."""
    from iresnet_verify.oracle import rows_jax

    try:
        return rows_jax.pullback(ctx.caller, "inverse", y, c)
    except (TypeError, ValueError, NotImplementedError, RuntimeError):
        return None


@check(
    "gradient.repeated-backward",
    claim="A second backward pass over the same graph gives the same gradients, and two passes add up.",
    reference="torch.autograd: gradients accumulate; retain_graph=True keeps the graph as it is", kind="proof",
    needs=("module", "torch"),
    cost="two backward passes",
    catches="backward passes that change what they saved, free it, or write into .grad themselves",
)
def repeated_backward(ctx: Context) -> Outcome:
    """The gradients after one pass, of a second pass alone, and their sum, bit for bit."""
    import torch

    x = ctx.inputs(max(4, rows_of(ctx)))
    with ctx.guard(), ctx.framework.call_context():
        for p in ctx.subject.module.parameters():
            p.grad = None
        leaf = ctx.native(x, requires_grad=True)
        y, log_det = ctx.raw_forward(leaf.clone(), seed=ctx.caller.next_seed())
        if log_det is None and ctx.f.log_det is not None:
            log_det = ctx.raw_log_det(leaf.clone(), seed=ctx.caller.next_seed())
        loss = (y * torch.tensor(ctx.rng.standard_normal(y.shape)).to(y)).sum()
        if log_det is not None and log_det.requires_grad:
            loss = loss + (log_det * torch.arange(1, len(x) + 1).to(log_det)).sum()
        if not loss.requires_grad:
            return Outcome("skipped", "nothing here carries a gradient")
        named = [("x", leaf)] + [(n, p) for n, p in ctx.subject.module.named_parameters() if p.requires_grad]
        passes: list[dict[str, torch.Tensor | None]] = []
        for _ in range(2):
            try:
                loss.backward(retain_graph=True)
            except Exception as error:  # packages raise what they like
                what = (str(error).strip().splitlines() or [""])[0][:160]
                if not passes:
                    return Outcome("inconclusive", f"the first backward pass raised {type(error).__name__}: {what}")
                return Outcome("failed", f"expected a second backward pass with retain_graph=True, got {type(error).__name__}: {what}",
                               {"compared": len(named)}, "existence", "the first pass", Counterexample({"x": x}))
            passes.append({n: None if p.grad is None else p.grad.detach().clone() for n, p in named})
    wrong = [n for n in passes[0] if not _doubled(passes[0][n], passes[1][n])]
    return verdict(
        [float(n in wrong) for n in passes[0]], 0.0,
        expected="two passes to give twice the gradient", got=f"something else for {', '.join(wrong[:4])}",
        remedy="keep what the backward pass reads as it is",
        passed=f"{len(named)} gradients doubled", tolerance="exact: 2·g is exact in binary arithmetic", oracle="the first pass",
        counterexample=lambda at: Counterexample({"x": x}, measures.second_backward if "x" in wrong else None),
    )


def _doubled(first: object, second: object) -> bool:
    import torch

    if first is None or second is None:
        return first is second
    assert isinstance(first, torch.Tensor)
    assert isinstance(second, torch.Tensor)
    return bool(torch.equal(first + first, second) or (first.isnan() & second.isnan()).any())
