"""Derivatives of the map itself, and parameters that are frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.gradient import jax as gradient_jax
from iresnet_verify.catalogue.shared.parameter_gradients import ROWS
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.measurements import gradients as measures

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray


@check(
    "gradient.forward",
    claim="Backward through forward gives Jᵀc with respect to x, and the derivative of c·F along any direction of the parameters.",
    reference="chain rule; Behrmann et al. 2019 (arXiv 1811.00995), Section 2", kind="proof", needs=("parameters",),
    cost="two backward passes, four evaluations, 4 Jacobians",
    catches="detached outputs, gradients lost in memory-efficient or iterative layers",
)
def forward_gradient(ctx: Context) -> Outcome:
    """x̄ against the Jacobian oracle; parameters against central differences along one random direction."""
    if ctx.framework.name.startswith("jax"):
        return gradient_jax.forward(ctx)  # x̄ is what the Jacobian oracle confirmed already
    import torch

    x = ctx.inputs(ROWS)
    c = ctx.rng.standard_normal(x.shape)
    J = ctx.jacobian(x)
    seed = ctx.caller.next_seed()
    named = [(n, p) for n, p in ctx.subject.module.named_parameters() if p.requires_grad and p.numel()]
    v = [torch.tensor(ctx.rng.standard_normal(p.shape)).to(p) * 0.1 / p.numel() ** 0.5 for _, p in named]
    found = _backward(ctx, x, c, v, seed)
    if found is None:
        return Outcome("failed", "expected a differentiable output, got one without a graph", {"rows": ROWS}, "existence",
                       "autograd", Counterexample({"x": x}, measures.input_gradient))
    x_bar, along = found
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=x.shape)
    moved = _backward(ctx, (x.astype(np.float64) * (1 + 4 * ctx.u * signs)).astype(x.dtype), c, v, seed)
    change = np.zeros_like(x_bar) if moved is None else moved[0] - x_bar  # sees what one pass through F loses to rounding inside
    rows = (len(x), -1)
    right = np.einsum("nij,ni->nj", J.matrix, c.reshape(rows))
    gap = np.linalg.norm(x_bar.reshape(rows) - right, axis=1)
    size = np.linalg.norm(c.reshape(rows), axis=1)
    allowed = 2.0 * size * (J.error + 64.0 * ctx.u * np.sqrt(ctx.d) * (np.linalg.norm(J.matrix, axis=(1, 2)) + 1.0))
    allowed = allowed + 8.0 * np.linalg.norm(change.reshape(rows), axis=1)
    worst = int(np.argmax(gap / allowed))

    def value(h: float) -> float:
        with ctx.guard(), torch.no_grad():
            for (_, p), d in zip(named, v, strict=True):
                p.add_(h * d)
            return float((ctx.f.forward(x, seed=seed).astype(np.float64) * c).sum())

    h = ctx.u**0.2
    wide, narrow = ((value(s) - value(-s)) / (2.0 * s) for s in (h, h / 2.0))
    slope, noise = narrow + (narrow - wide) / 3.0, (64.0 * ctx.u + ctx.accuracy) * float(np.abs(c).sum() * (1.0 + np.abs(x).max())) / h
    error = 4.0 * (abs(narrow - wide) + noise)
    evidence = {"largest_input_gap": float(gap.max()), "parameter_gap": abs(along - slope), "parameter_error": error, "rows": ROWS}
    tolerance = (f"input {allowed[worst]:.2e} (oracle's error, 64·u·√d·(‖J‖+1), changes under roundings), "
                 f"parameters {error:.2e} (differences)")
    if gap[worst] > allowed[worst]:
        return Outcome("failed", f"expected ∂(c·F)/∂x = Jᵀc, got a gap of {gap[worst]:.3g}", evidence, tolerance, J.source,
                       Counterexample({"x": x}, measures.input_gradient if gap[worst] > 1e-2 * size[worst] else None))
    if abs(along - slope) > error:
        stateless = next(iter(ctx.subject.module.buffers()), None) is None
        if stateless or along == 0.0 or abs(along - slope) > 0.5 * abs(slope):
            return Outcome("failed", f"expected the derivative {slope:.6g} of c·F along a direction of the parameters, got {along:.6g}",
                           evidence, tolerance, "central differences", Counterexample({"x": x}))
        return Outcome("inconclusive", f"backward gives {along:.6g}, differences {slope:.6g} ± {error:.1g}: kinks, or vectors of a "
                       "power iteration that move with the parameters", evidence, tolerance, "central differences")
    return Outcome("passed", f"input to {gap.max():.2g}, parameters to {abs(along - slope):.2g}", evidence, tolerance, J.source)


def _backward(ctx: Context, x: HostArray, c: HostArray, v: list[Any], seed: int) -> tuple[HostArray, float] | None:
    """(x̄, ⟨θ̄, v⟩) of one backward pass of c through forward; None where there is no graph."""
    import torch

    with ctx.guard(), ctx.framework.call_context():
        tensors = [p for p in ctx.subject.module.parameters() if p.requires_grad and p.numel()]
        for p in ctx.subject.module.parameters():
            p.grad = None
        leaf = ctx.native(x, requires_grad=True)
        y = ctx.raw_forward(leaf.clone(), seed=seed)[0]
        if not y.requires_grad:
            return None
        y.backward(torch.tensor(c).to(y))
        x_bar = np.zeros_like(c) if leaf.grad is None else leaf.grad.double().numpy()
        return x_bar, sum(float((p.grad.double() * d).sum()) for p, d in zip(tensors, v, strict=True) if p.grad is not None)


@check(
    "gradient.frozen-parameters",
    claim="A parameter with requires_grad = False gets no gradient, and no backward pass changes any parameter's value.",
    reference="torch.nn.Parameter.requires_grad", kind="proof", needs=("module", "torch"),
    cost="two backward passes",
    catches="hand-written backward passes that touch frozen or all parameters",
)
def frozen_parameters(ctx: Context) -> Outcome:
    """Every second parameter is frozen for one backward pass through y and the log-det."""
    x = ctx.inputs(ROWS)
    count, trouble, _ = _frozen_pass(ctx, x, freeze=False)
    if trouble.startswith("raised"):
        return Outcome("inconclusive", f"a backward pass through y and the log-det {trouble}", {"parameters": count})
    count, trouble, refreshed = _frozen_pass(ctx, x, freeze=True)
    evidence = {"parameters": count, "frozen": count // 2, "changed_by_forward": refreshed}
    if trouble:
        return Outcome("failed", f"expected frozen parameters to be left alone; with every second one frozen the pass {trouble}",
                       evidence, "exact equality", "the values before, and the same pass with none frozen", Counterexample({"x": x}))
    return Outcome("passed", f"{count // 2} frozen parameters untouched", evidence, "exact equality", "the values before")


def _frozen_pass(ctx: Context, x: HostArray, freeze: bool) -> tuple[int, str, int]:
    """Return (parameters, what went wrong or "", parameters that forward itself changes)."""
    with ctx.guard(), ctx.framework.call_context():
        named = [(n, p) for n, p in ctx.subject.module.named_parameters() if p.numel()]
        for i, (_, p) in enumerate(named):
            p.grad = None
            if freeze and i % 2 and p.is_leaf:
                p.requires_grad_(False)
        before, wanted = [p.detach().clone() for _, p in named], [p.requires_grad for _, p in named]
        seed = ctx.caller.next_seed()
        try:
            y, log_det = ctx.raw_forward(ctx.native(x, requires_grad=True).clone(), seed=seed)
            loss = y.sum()
            if ctx.f.log_det is not None and log_det is None:
                log_det = ctx.raw_log_det(ctx.native(x, requires_grad=True).clone(), seed=seed)
            loss = loss if log_det is None else loss + log_det.sum()
            between = [p.detach().clone() for _, p in named]
            if loss.requires_grad:
                loss.backward()
        except Exception as error:  # a layer may raise anything where it expects a gradient
            return len(named), f"raised {type(error).__name__}: {' '.join(str(error).split())[:120]}", 0
        touched = [n for (n, p), w in zip(named, wanted, strict=True) if not w and p.grad is not None]
        switched = [n for (n, p), w in zip(named, wanted, strict=True) if p.requires_grad is not w]
        moved = [n for (n, p), a in zip(named, between, strict=True) if not bool((p.detach() == a).all())]
        refreshed = sum(not bool((a == b).all()) for a, b in zip(before, between, strict=True))
    what = {"left gradients on": touched, "changed the values of": moved, "changed requires_grad of": switched}
    return len(named), " and ".join(f"{did} {names[:3]}" for did, names in what.items() if names), refreshed
