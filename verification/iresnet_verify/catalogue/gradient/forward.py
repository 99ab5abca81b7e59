"""Derivatives of the map itself, with respect to its input and its parameters, and parameters that are frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.gradient import jax as gradient_jax
from iresnet_verify.catalogue.shared.comparisons import warm_up
from iresnet_verify.catalogue.shared.parameter_directions import along_directions, compare_directions
from iresnet_verify.catalogue.shared.parameter_gradients import rows_of
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import verdict
from iresnet_verify.measurements import gradients as measures
from iresnet_verify.oracle import finite_differences as differences
from iresnet_verify.oracle import singular_values as singular
from iresnet_verify.subject.calls import flat
from iresnet_verify.subject.errors import BackwardError, backward_pass
from iresnet_verify.subject.frameworks import OPERATIONS
from iresnet_verify.subject.module_state import preserved

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray


DIRECTIONS, SHARP = 16, 1e-6
"""Random directions above d = LARGE, and the share of ‖c‖ that an error of x̄ may hide behind there."""


@check(
    "gradient.forward-input",
    claim="Backward through forward gives Jᵀc with respect to x.",
    reference="chain rule; Behrmann et al. 2019 (arXiv 1811.00995), Section 2", kind="proof", needs=("module", "torch"),
    cost="two backward passes, 4 to 16 Jacobians; above d = 128 differences along 17 directions for one to four rows",
    catches="detached outputs, gradients lost in memory-efficient or iterative layers",
)
def forward_input(ctx: Context) -> Outcome:
    """One backward pass against the transposed Jacobian of the oracle, row by row."""
    warm_up(ctx)
    x = ctx.inputs(rows_of(ctx))
    c = ctx.rng.standard_normal(x.shape)
    seed = ctx.caller.next_seed()
    try:
        found = _backward(ctx, x, c, seed)
    except BackwardError as error:
        return Outcome("failed", f"expected a differentiable output, got: {error}", {"compared": len(x)}, "existence", "autograd",
                       Counterexample({"x": x}, measures.backward_raises))
    if found is None:
        return Outcome("failed", "expected a differentiable output, got one without a graph", {"compared": len(x)}, "existence",
                       "autograd", Counterexample({"x": x}, measures.input_gradient))
    x_bar = found[0]
    along = _along_directions(ctx, x, c, x_bar, seed) if ctx.d > singular.LARGE else None
    if along is not None:
        return along
    J = ctx.jacobian(x)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=x.shape)
    moved = _backward(ctx, (x.astype(np.float64) * (1 + 4 * ctx.u * signs)).astype(x.dtype), c, seed)
    change = np.zeros_like(x_bar) if moved is None else moved[0] - x_bar  # sees what one pass through F loses to rounding inside
    rows = (len(x), -1)
    right = np.einsum("nij,ni->nj", J.matrix, c.reshape(rows))
    size = np.linalg.norm(c.reshape(rows), axis=1)
    allowed = 2.0 * size * (J.error + 64.0 * ctx.u * np.sqrt(ctx.d) * (np.linalg.norm(J.matrix, axis=(1, 2)) + 1.0))
    allowed = allowed + 8.0 * np.linalg.norm(change.reshape(rows), axis=1)
    return verdict(
        np.linalg.norm(x_bar.reshape(rows) - right, axis=1), allowed,
        expected="∂(c·F)/∂x = Jᵀc", got=lambda at: f"a gap of {at.error:.3g} in row {at.row}",
        passed=lambda at: f"right to {at.largest:.2g}", tolerance="2‖c‖(oracle's error + 64·u·√d·(‖J‖+1)) + 8·changes under roundings",
        oracle=J.source,
        counterexample=lambda at: Counterexample({"x": x}, measures.input_gradient if at.error > 1e-2 * size[at.row] else None),
    )


def _along_directions(ctx: Context, x: HostArray, c: HostArray, x_bar: HostArray, seed: int) -> Outcome | None:
    """x̄ᵀv against cᵀ(Jv) by differences, for v along x̄ and in `DIRECTIONS` random directions: no row of J is needed.

    An error e of x̄ is seen as ‖e‖/√d along a random v: where that is less than `SHARP`‖c‖ for all of them, None.
    """
    copy = ctx.float64_copy(x, seed)
    forward, u = (ctx.f.forward, ctx.u) if copy is None else (copy.calls.forward, 2.0**-53)
    dtype = x.dtype if copy is None else np.float64
    rows, n = (len(x), -1), DIRECTIONS + 1
    flat_x, flat_c, flat_bar = (a.reshape(rows).astype(np.float64) for a in (x, c, x_bar))
    v = ctx.rng.choice([-1.0, 1.0], size=(len(x), n, ctx.d)) / np.sqrt(ctx.d)
    length = np.linalg.norm(flat_bar, axis=1)
    v[:, 0] = np.where(length[:, None] > 0.0, flat_bar / np.where(length > 0.0, length, 1.0)[:, None], v[:, 0])

    def images(points: HostArray) -> HostArray:
        return flat(forward(points.astype(dtype).reshape(-1, *x.shape[1:]), seed=seed)).astype(np.float64)

    D, slack = differences.derivative(images, np.repeat(flat_x, n, axis=0), v.reshape(-1, ctx.d), 8.0 * u + ctx.accuracy, u)
    D, slack = D.reshape(len(x), n, -1), slack.reshape(len(x), n)
    size = np.linalg.norm(flat_c, axis=1)[:, None]
    norm = np.maximum(np.linalg.norm(D, axis=2).max(axis=1), length / size[:, 0])[:, None]
    allowed = size * (8.0 * slack + 2.0 * OPERATIONS * ctx.u * np.sqrt(ctx.d) * (norm + 1.0) + ctx.accuracy * norm)
    if not (allowed * np.sqrt(ctx.d) <= SHARP * size).all():
        return None
    gap = np.abs(np.einsum("nd,nkd->nk", flat_bar, v) - np.einsum("nd,nkd->nk", flat_c, D))
    worst = (np.arange(len(x)), (gap / allowed).argmax(axis=1))
    return verdict(
        gap[worst], allowed[worst],
        expected="∂(c·F)/∂x = Jᵀc", got=lambda at: f"a gap of {at.error:.3g} along one direction in row {at.row}",
        passed=lambda at: f"right to {at.largest:.2g} along {n} directions",
        tolerance="‖c‖(8·error of the differences + 2·64·u·√d·(‖J‖+1))", oracle="differences of F along directions",
        evidence={"directions": n},
        counterexample=lambda at: Counterexample(
            {"x": x}, measures.input_gradient if at.error * np.sqrt(ctx.d) > 1e-2 * size[at.row, 0] else None),
    )


@check(
    "gradient.forward",
    claim="Backward through forward gives the derivative of c·F along any direction of the parameters.",
    reference="chain rule; Behrmann et al. 2019 (arXiv 1811.00995), Section 2", kind="proof", needs=("parameters",),
    cost="one backward pass, 24 evaluations for each of 3 (quick) to 7 directions",
    catches="detached parameters, gradients lost in memory-efficient or iterative layers",
)
def forward_parameters(ctx: Context) -> Outcome:
    """θ̄ against differences along random directions of the parameters and along θ̄ itself."""
    warm_up(ctx)
    x = ctx.inputs(max(4, rows_of(ctx)))
    c = ctx.rng.standard_normal(x.shape)
    if ctx.framework.name.startswith("jax"):
        return compare_directions(gradient_jax.forward(ctx, x, c), what="c·F", moves_by_itself=False,
                                  counterexample=lambda at: Counterexample({"x": x}))
    named = [(n, p) for n, p in ctx.subject.module.named_parameters() if p.requires_grad and p.numel()]
    if not named:
        return Outcome("skipped", "the module has no trainable parameters")
    seed = ctx.caller.next_seed()
    found = _backward(ctx, x, c, seed)
    gradients = [None] * len(named) if found is None else found[1]
    copy = ctx.float64_copy(x, seed)  # of a narrower subject: its differences are sharper
    copied = {} if copy is None else dict(copy.caller.subject.module.named_parameters())
    moved = [copied[n] for n, _ in named] if copied.keys() >= {n for n, _ in named} else None
    forward = ctx.f.forward if moved is None or copy is None else copy.calls.forward
    guard = None if moved is None or copy is None else lambda: preserved(copy.caller.subject.module)
    at = x if moved is None else x.astype(np.float64)

    def number() -> float:
        return float((forward(at, seed=seed).astype(np.float64) * c).sum())

    y = ctx.f.forward(x, seed=seed).astype(np.float64)
    u = ctx.u if moved is None else 2.0**-53
    floor = (2.0 * u + ctx.accuracy) * float(np.sqrt(np.square(y * c).sum()))
    blur = 0.0 if moved is None or found is None else _rounding_of_gradients(ctx, x, c, seed, found[1])
    unseen = next(iter(ctx.subject.module.buffers()), None) is not None
    return compare_directions(
        along_directions(ctx, named, gradients, number, floor, moved, guard, blur), what="c·F", moves_by_itself=unseen,
        counterexample=lambda at: Counterexample({"x": x}),
    )


def _rounding_of_gradients(ctx: Context, x: HostArray, c: HostArray, seed: int, gradients: list[Any]) -> float:
    """Bound ‖δθ̄‖₂ of one backward pass: 64·u·‖θ̄‖, and 8 changes under a move of x by 4u, which sees what is lost to cancellation."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=x.shape)
    moved = _backward(ctx, (x.astype(np.float64) * (1 + 4 * ctx.u * signs)).astype(x.dtype), c, seed)
    pairs = [(g, h) for g, h in zip(gradients, [] if moved is None else moved[1], strict=False) if g is not None and h is not None]
    size, change = (float(sum(t.double().square().sum() for t in ts)) ** 0.5 for ts in ([g for g, _ in pairs], [g - h for g, h in pairs]))
    return 64.0 * ctx.u * size + 8.0 * change


def _backward(ctx: Context, x: HostArray, c: HostArray, seed: int) -> tuple[HostArray, list[Any]] | None:
    """(x̄, gradients of the trainable parameters) of one backward pass of c through forward; None where there is no graph."""
    import torch

    with ctx.guard(), ctx.framework.call_context():
        tensors = [p for p in ctx.subject.module.parameters() if p.requires_grad and p.numel()]
        for p in ctx.subject.module.parameters():
            p.grad = None
        leaf = ctx.native(x, requires_grad=True)
        y = ctx.raw_forward(leaf.clone(), seed=seed)[0]
        if not y.requires_grad:
            return None
        with backward_pass("forward"):
            y.backward(torch.tensor(c).to(y))
        x_bar = np.zeros_like(c) if leaf.grad is None else leaf.grad.double().numpy()
        return x_bar, [None if p.grad is None else p.grad.clone() for p in tensors]


@check(
    "gradient.frozen-parameters",
    claim="A parameter with requires_grad = False gets no gradient, and no backward pass changes any parameter's value.",
    reference="torch.nn.Parameter.requires_grad", kind="proof", needs=("module", "torch"),
    cost="two backward passes", compares_values=False,
    catches="hand-written backward passes that touch frozen or all parameters",
)
def frozen_parameters(ctx: Context) -> Outcome:
    """Every second parameter is frozen for one backward pass through y and the log-det."""
    x = ctx.inputs(max(4, rows_of(ctx)))
    count, trouble, _ = _frozen_pass(ctx, x, freeze=False)
    if trouble.startswith("raised"):
        return Outcome("inconclusive", f"a backward pass through y and the log-det {trouble}", {"parameters": count})
    count, trouble, changed = _frozen_pass(ctx, x, freeze=True)
    return verdict(
        float(bool(trouble)), 0.0,
        expected="frozen parameters to be left alone", got=f"a pass with every second one frozen that {trouble}",
        passed=f"{count // 2} frozen parameters untouched", tolerance="exact equality",
        oracle="the values before, and the same pass with none frozen",
        evidence={"compared": count, "frozen": count // 2, "changed_by_forward": changed},
        counterexample=lambda at: Counterexample({"x": x}),
    )


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
