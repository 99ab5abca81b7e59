"""The true gradient of Σ w_i log|det J(x_i; θ)| with respect to parameters and input, and the subject's own.

Oracle: rows of J by autograd with a graph (from g where it is given), float64 `slogdet`, and a backward pass through both.
Above d = LARGE, where that graph is expensive, tr(J⁻¹ dJ) is differentiated at constant J⁻¹, some rows of J at a time, each by an
ordinary backward pass through its own copy of x. Memory-efficient layers give wrong second derivatives, so it is
used only if one of several central differences of the exact log-det along random directions agrees with it to 2 %.

Tolerance, per block of parameters: K·u·√d·κ(J)·Σ|w_i|‖G_i‖ over the block, plus K·u times the same over all blocks, plus
eight times the largest change of the oracle in the block when x moves by one rounding while the loss is scaled by 1/3
and back (which sees single precision hidden in a backward pass), K = 64.

Gradients are compared on at most 34 numbers a block: 32 entries and two random sign sums scaled by 1/√size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.oracle import rows_torch
from iresnet_verify.oracle import singular_values as singular
from iresnet_verify.subject.errors import Undecided, backward_pass
from iresnet_verify.subject.frameworks import OPERATIONS

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.randomness.injection import Vector
    from iresnet_verify.subject.subject import HostArray

ROWS = {"quick": 4, "standard": 8, "thorough": 16}
"""Rows of one comparison, by budget."""
FEW_ROWS = 2
"""Rows of one comparison of log-dets above d = LARGE, where each costs seconds."""
COPIES = 2**16
"""Numbers in one batch of copies of a row, at most (one copy at least): half a MiB of float64; eight times that is twice as slow."""
INPUT = "x"
"""The name of the block that holds the gradient with respect to the input."""


def rows_of(ctx: Context) -> int:
    """Return the rows of one comparison of gradients; above d = LARGE a quarter of them, where each Jacobian costs seconds."""
    rows = min(ROWS[ctx.budget.name], ctx.rows)
    return rows if ctx.d <= singular.LARGE else max(1, rows // 4)


@dataclass(frozen=True)
class Sketch:
    """Which numbers of each block are compared; blocks are the trainable parameters, and x."""

    names: tuple[str, ...]
    tensors: tuple[Any, ...]
    """The parameters; x is not among them."""
    entries: tuple[HostArray, ...]
    signs: tuple[HostArray, ...]
    owner: HostArray
    """Block of each number."""

    def __call__(self, gradients: list[Any], x_gradient: Any) -> Vector:
        """Return the numbers of one gradient; None counts as 0."""
        parts = []
        for gradient, entry, sign in zip([*gradients, x_gradient], self.entries, self.signs, strict=True):
            g = np.zeros(sign.shape[1]) if gradient is None else gradient.detach().cpu().double().numpy().ravel()
            parts += [g[entry], sign @ g / np.sqrt(max(g.size, 1))]
        return np.concatenate(parts)


def sketch(ctx: Context, x: HostArray) -> Sketch:
    """Choose the numbers to compare."""
    named = [(n, p) for n, p in ctx.subject.module.named_parameters() if p.requires_grad and p.numel()]
    sizes = [p.numel() for _, p in named] + [x.size]
    entries = tuple(ctx.rng.choice(s, size=min(s, 32), replace=False) for s in sizes)
    signs = tuple(ctx.rng.choice([-1.0, 1.0], size=(2, s)) for s in sizes)
    owner = np.repeat(np.arange(len(sizes)), [len(e) + 2 for e in entries])
    return Sketch((*(n for n, _ in named), INPUT), tuple(p for _, p in named), entries, signs, owner)


def exact_log_det(ctx: Context, leaf: Any, seed: int, *, batched: bool, create_graph: bool) -> Any:
    """log|det J| (batch,) in float64, differentiable with respect to parameters and `leaf` if asked."""
    import torch

    name = "forward" if ctx.subject.residual is None else "residual"
    y = ctx.caller.event(name, leaf.clone(), seed=seed)[0]
    J = rows_torch.rows(y.reshape(y.shape[0], -1), leaf, batched=batched, create_graph=create_graph)
    J = J.reshape(len(leaf), J.shape[1], -1).double()
    return torch.linalg.slogdet(J + torch.eye(J.shape[1], dtype=J.dtype) if name == "residual" else J)[1]


@dataclass(frozen=True)
class Oracle:
    """Per-row gradients G_i as numbers of the sketch, (rows, numbers), and the tolerance of Σ w_i G_i."""

    rows: Vector
    tolerance: Vector
    source: str


def oracle(ctx: Context, x: HostArray, weights: Vector, chosen: Sketch) -> Oracle:
    """Return the true gradients. Raises `Undecided` where double backward does not agree with differences."""
    seed = ctx.caller.next_seed()
    try:
        rows = _per_row(ctx, x, chosen, seed)
        signs = np.random.default_rng(0).choice([-1.0, 1.0], size=x.shape)
        moved = _per_row(ctx, (x.astype(np.float64) * (1 + 4 * ctx.u * signs)).astype(x.dtype), chosen, seed, scale=1.0 / 3.0)
    except Exception as error:  # a backward pass of the subject's own may raise anything
        what = (str(error).strip().splitlines() or [""])[0][:120]
        raise Undecided(f"the exact log-det cannot be differentiated twice: {type(error).__name__}: {what}") from error
    if not _agrees(ctx, x, weights, chosen, weights @ rows, seed):
        raise Undecided("the gradient of the exact log-det by double backward disagrees with its differences "
                        "(layers that recompute, or kinks)")
    matrix = ctx.jacobian(x).matrix
    sigma = singular.values(matrix)
    kappa = float((sigma[:, 0] / np.maximum(sigma[:, -1], 1e-300)).max())
    blocks = len(chosen.names)
    size = np.array([(np.abs(weights) * np.linalg.norm(rows[:, chosen.owner == b], axis=1)).sum() for b in range(blocks)])
    change = np.abs(weights) @ np.abs(moved - rows)
    worst = np.array([change[chosen.owner == b].max(initial=0.0) for b in range(blocks)])
    rounding = OPERATIONS * ctx.u * (np.sqrt(ctx.d) * kappa * size + size.sum()) + ctx.accuracy * size * kappa
    tolerance = (rounding + 8.0 * worst)[chosen.owner]
    return Oracle(rows, tolerance, "double backward through the float64 slogdet of the autograd Jacobian")


def _per_row(ctx: Context, x: HostArray, chosen: Sketch, seed: int, scale: float = 1.0) -> Vector:
    if ctx.d > singular.LARGE:
        found = _by_copies(ctx, x, chosen, seed, scale)
        if found is not None:
            return found
    return rows_torch.batched_or_single(ctx.caller, lambda batched: _differentiated(ctx, x, chosen, seed, scale, batched))


def _by_copies(ctx: Context, x: HostArray, chosen: Sketch, seed: int, scale: float) -> Vector | None:
    """∇ tr(A J(x_i; θ)), A = J(x_i)⁻¹ held constant, for every row; None where a copy of a row has another image than the row."""
    import torch

    name = "forward" if ctx.subject.residual is None else "residual"
    with ctx.guard(), ctx.framework.call_context():
        whole = ctx.caller.event(name, ctx.native(x), seed=seed)[0].detach()
        eye = torch.eye(ctx.d, dtype=whole.dtype, device=whole.device)
        near = OPERATIONS * ctx.u * (1.0 + float(whole.abs().max()))
        answers = []
        for i in range(len(x)):
            leaf = ctx.native(x, requires_grad=True)
            row = leaf[i : i + 1]

            def some(part: Any, create_graph: bool, row: Any = row) -> tuple[Any, Any]:
                copies = row.expand(len(part), *row.shape[1:]).clone()
                y = ctx.caller.event(name, copies, seed=seed)[0]
                rows = torch.autograd.grad(y, copies, part.reshape(y.shape), create_graph=create_graph, allow_unused=True)[0]
                return y, torch.zeros_like(part) if rows is None else rows.reshape(part.shape)

            parts = torch.split(eye, max(1, COPIES // ctx.d))
            images, found = zip(*(some(part, create_graph=False) for part in parts), strict=True)
            if any(bool(((y.detach() - whole[i]).abs() > near).any()) for y in images):
                return None
            J = torch.cat(found).double()
            A = torch.linalg.inv(J if name == "forward" else J + eye.double()).T.to(eye.dtype)
            total: list[Any] = [None] * (len(chosen.tensors) + 1)
            for part, held in zip(parts, torch.split(A, len(parts[0])), strict=True):
                value = scale * (held * some(part, create_graph=True)[1]).sum()
                if value.requires_grad:  # else J does not depend on anything here
                    new = torch.autograd.grad(value, [*chosen.tensors, leaf], allow_unused=True)
                    total = [b if a is None else a if b is None else a + b for a, b in zip(total, new, strict=True)]
            answers.append(chosen(total[:-1], total[-1]))
    return np.stack(answers) / scale


def _differentiated(ctx: Context, x: HostArray, chosen: Sketch, seed: int, scale: float, batched: bool) -> Vector:
    import torch

    with ctx.guard(), ctx.framework.call_context():
        leaf = ctx.native(x, requires_grad=True)
        values = exact_log_det(ctx, leaf, seed, batched=batched, create_graph=True)
        answers = []
        for i in range(len(x)):
            if not values.requires_grad:  # J does not depend on anything: a linear map without parameters
                answers.append(chosen([None] * len(chosen.tensors), None))
                continue
            found = torch.autograd.grad(scale * values[i], [*chosen.tensors, leaf], retain_graph=True, allow_unused=True)
            answers.append(chosen(list(found[:-1]), found[-1]))
    return np.stack(answers) / scale


def _agrees(ctx: Context, x: HostArray, weights: Vector, chosen: Sketch, gradient: Vector, seed: int) -> bool:
    """Whether one of several central differences along random directions agrees with double backward to 2 %.

    The directions are the sketch's random signs, so that the gradient's own numbers say how fast the log-det changes.
    """
    import torch

    if not chosen.tensors:
        return True
    for which, step in ((0, ctx.u**0.2), (1, ctx.u**0.3), (0, ctx.u**0.25)):
        directions, terms = [], []
        for block, p in enumerate(chosen.tensors):
            length = max(float(p.detach().double().square().mean().sqrt()), 0.05)
            directions.append(torch.as_tensor(chosen.signs[block][which]).reshape(p.shape).to(p) * (length / p.numel() ** 0.5))
            terms.append(float(gradient[chosen.owner == block][which - 2]) * length)
        slope = 0.0
        for sign in (1.0, -1.0):
            with ctx.guard(), ctx.framework.call_context():
                with torch.no_grad():
                    for p, v in zip(chosen.tensors, directions, strict=True):
                        p.add_(sign * step * v)
                values = exact_log_det(ctx, ctx.native(x, requires_grad=True), seed, batched=ctx.caller.batched_cotangents,
                                        create_graph=False)
                slope += sign * float((torch.tensor(weights) * values.detach()).sum()) / (2.0 * step)
        noise = 64.0 * ctx.u * ctx.d * float(np.abs(weights).sum()) / step
        if abs(slope - sum(terms)) <= 0.02 * max(abs(slope), sum(map(abs, terms))) + noise:
            return True
    return False


@dataclass(frozen=True)
class SubjectGradient:
    """The subject's gradient of Σ w_i log_det(x_i), as numbers of the sketch."""

    numbers: Vector
    attached: bool
    """Whether the log-det carries a graph at all."""
    values: Vector


def subject_gradient(ctx: Context, x: HostArray, weights: Vector, chosen: Sketch, seed: int) -> SubjectGradient:
    """One backward pass through the subject's log-det; gradients of rows with equal x are summed."""
    import torch

    with ctx.guard(), ctx.framework.call_context():
        for p in ctx.subject.module.parameters():
            p.grad = None
        leaf = ctx.native(x, requires_grad=True)
        log_det = ctx.raw_log_det(leaf.clone(), seed=seed)
        values = np.asarray(ctx.host(log_det), dtype=np.float64)
        if not log_det.requires_grad:
            return SubjectGradient(np.zeros(chosen.owner.size), False, values)
        upstream = torch.tensor(weights, dtype=log_det.dtype, device=log_det.device)
        with backward_pass("the log-det"):
            log_det.backward(upstream)
        x_gradient = leaf.grad
        groups = chosen.signs[-1].shape[1] // (x[0].size or 1)
        if x_gradient is not None and len(x) != groups:  # rows repeated for the columns of an enumeration
            x_gradient = x_gradient.reshape(groups, len(x) // groups, *leaf.shape[1:]).sum(1)
        return SubjectGradient(chosen([p.grad for p in chosen.tensors], x_gradient), True, values)
