"""Hypotheses of gradients: which weights of the rows, or which parts, a backward pass used in place of the right ones.

The right gradient of Σ w_i ℓ(x_i) is Σ w_i G_i. A pass that uses other weights a_i gives Σ a_i G_i, and the a_i are found from its
numbers, of which there are more than rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from iresnet_verify.catalogue.shared.gradient_expectation import expected_gradient
from iresnet_verify.catalogue.shared.log_det_truth import is_deterministic
from iresnet_verify.catalogue.shared.parameter_gradients import (
    INPUT,
    Oracle,
    Sketch,
    oracle,
    sketch,
    subject_gradient,
)
from iresnet_verify.diagnosis.case import SEED, Case
from iresnet_verify.diagnosis.hypothesis import SPARE, Array, Cause, Explanation, Prediction, explain
from iresnet_verify.oracle import singular_values as singular
from iresnet_verify.randomness.enumeration import NotEnumerableError
from iresnet_verify.subject.calls import flat
from iresnet_verify.subject.errors import BackwardError, backward_pass

DETACHED = Cause("detached", "{what} is 0: the value is cut from the graph.", "Do not detach what is to be trained.")
PART = Cause("parameter-detached", "{what} has no part for {detail}, the rest is right.", "Do not detach it.")
RAISES = Cause("backward-raises", "The backward pass of {what} raises: {detail}.", "Let it answer, or detach what carries no gradient.")
ROWS = 4
"""Rows of one comparison of gradients of the log-det."""
ONE_PARAMETER = Cause("one-parameter-wrong", "{what} is wrong for {detail}, and right for every other parameter.",
                      "Look for a second use of it in the backward pass alone.")
FAR = 4.0
"""How many times as far out a gradient that is not finite is looked for too."""
NOT_FINITE = Cause("gradient.far-inputs", "{what} is NaN or infinite where the value and its derivative are finite.",
                   "Look for a where whose other branch is not finite: clip its argument too.")
SLOPES = Cause("slopes-detached", "{what} has no part for x and for the biases ({detail}): the slopes of the activations are detached.",
               "Differentiate through the slopes: the second derivative of the activation belongs to it.")
FIRST = Cause("first-weight-for-all", "{what} uses the first row's weight for every row.", "Use each row's own upstream gradient.")
MEAN = Cause("mean-weight-for-all", "{what} uses the mean of the upstream gradients for every row.", "Use each row's own upstream "
             "gradient.")
LAST = Cause("last-weight-for-all", "{what} uses the last row's weight for every row.", "Use each row's own upstream gradient.")
SUM = Cause("sum-of-weights", "{what} uses the sum of the upstream gradients for every row.", "Use each row's own upstream gradient.")
ONES = Cause("weights-ignored", "{what} ignores the upstream gradient: every row has weight 1.", "Multiply by each row's upstream "
             "gradient.")
ABSOLUTE = Cause("absolute-weights", "{what} uses the absolute values of the upstream gradients.", "Use each row's own upstream gradient.")
ANOTHER = Cause("another-row-s-weight", "{what} uses the weight of {detail} for every row.", "Use each row's own upstream gradient.")
EXCHANGED = Cause("weights-permuted", "{what} uses each row's weight for another row: {detail}.", "Use each row's own upstream gradient.")
WRONG_WEIGHTS = Cause("wrong-weights", "{what} uses the weights {detail} of the rows.", "Use each row's own upstream gradient.")
CLIPPED = Cause("gradient-clipped", "{what} is clipped to ±{detail}.", "Clip, if at all, in the training loop.")
SEVERAL = Cause("parameters-scaled", "{what} has {detail} times its part for several parameters.", "Remove the factor.")
CUT_SOLVE = Cause("backward-solve-cut-short", "{what} is that of {detail} terms of (I + J)⁻ᵀ = I − Jᵀ + (Jᵀ)² − …: the solve of the "
                  "backward pass stops early.", "Iterate until the residual is small, as in the forward pass.")
TRANSPOSED = Cause("not-transposed", "{what} multiplies by {detail}, where its transpose belongs.", "Use the transpose: a product with J "
                   "from the left.")
ELSEWHERE = Cause("gradient-at-another-point", "{what} is that at {detail}.", "Differentiate at the point of the forward pass.")
ONE_MAP = Cause("gradient-does-not-depend-on-x", "{what} is made by one matrix at every x{detail}: the backward pass does not know where "
                "F bends.", "Multiply by the slopes of the activations at the point of the forward pass.")
"""What is evaluated at 0 by mistake, and what takes F for a linear map, are the same numbers."""
AT_ZERO = ", the Jacobian at 0"
GRADIENT_SIGN = Cause("gradient-sign", "{what} has the wrong sign.", "Remove the minus.")
GRADIENT_FACTOR = Cause("gradient-factor", "{what} is {detail} times the right one.", "Remove the factor.")
BRANCH = Cause("gradient-factor", "{what} has {detail} times the part of the branch.", "Remove the factor.")
SKIP = Cause("branch-detached", "{what} has the part of the identity alone: g is cut from the graph.", "Do not detach g.")
NEUMANN_WEIGHTS = Cause("neumann-weights", "{what} weights every term of the Neumann series beyond the first by {detail} too much.",
                        "The weight of Jᵏ is (−1)ᵏ/P(N ≥ k), from k = 0 on.")
NEUMANN_SIGN = Cause("neumann-without-signs", "{what} adds up Jᵏ with one sign: it is that of −log det(I − J).", "Alternate the signs: "
                     "(−J)ᵏ.")
LAST_STEP = Cause("last-step-alone", "{what} is made of one step of the iteration: the rest is cut from the graph.",
                  "Differentiate by the implicit function theorem: solve with I + Jᵀ.")
NOT_INVERTED = Cause("gradient-not-inverted", "{what} multiplies by (I + J)ᵀ where it should solve with it.", "Solve with I + Jᵀ.")


def weights_of(rows: int) -> Array:
    """Unequal, of both signs, none of them 1."""
    return np.asarray(np.where(np.arange(rows) % 2, -1.0, 1.0) * (1.3 + 0.7 * np.arange(rows) ** 0.9), dtype=np.float64)


def log_det_gradient(case: Case) -> Explanation | None:
    """Explain the gradient of Σ w_i log_det(x_i) with respect to parameters and x."""
    ctx = case.ctx
    if ctx.f.log_det is None or ctx.d > singular.LARGE or ctx.subject.module is None or ctx.framework.name != "torch":
        return None
    what = "The gradient of the log-det"
    x = case.x[:ROWS]
    w, chosen = weights_of(len(x)), sketch(ctx, x)
    truth = oracle(ctx, x, w, chosen)
    try:
        mine = subject_gradient(ctx, x, w, chosen, SEED)
    except BackwardError as error:
        return _raised("the log-det", error)
    got, tolerance = mine.numbers, 8.0 * truth.tolerance
    if ctx.log_det_claim[0] != "exact" and mine.attached and not is_deterministic(ctx, x):
        try:
            found = expected_gradient(ctx, x, w, chosen)
        except NotEnumerableError:
            return None
        got, tolerance = found.value, tolerance + 8.0 * (found.rounding + found.remainder)
    right = w @ truth.rows
    parameters = chosen.owner != len(chosen.names) - 1
    made = [*_by_weights(truth, w, got, tolerance), *_by_parts(truth, w, chosen, got, tolerance)]
    explained = explain(what, got, right, made, inputs=len(x) + 2)
    if explained is None and ctx.log_det_claim[0] == "gradient-only":
        made = list(_neumann(case, x, w, chosen, truth, got, tolerance))
        explained = explain(what, got[parameters], right[parameters],
                            [Prediction(p.cause, p.numbers[parameters], tolerance[parameters], p.detail, p.fitted) for p in made],
                            inputs=len(x) + 2)
    return explained


def _raised(what: str, error: BackwardError) -> Explanation:
    return Explanation(RAISES, what, str(error).partition(" raised ")[2] or str(error), 1, 0.0, 0, "It raised when it was tried again.")


def _not_finite(what: str, at: Any) -> Explanation:
    return Explanation(NOT_FINITE, what, "", len(at), 0.0, 0, f"It is in {int(at.sum())} of {len(at)} places.")


def _by_weights(truth: Oracle, w: Array, got: Array, tolerance: Array) -> Iterator[Prediction]:
    n = len(w)
    yield Prediction(DETACHED, 0.0 * tolerance, tolerance)
    yield Prediction(FIRST, np.full(n, w[0]) @ truth.rows, tolerance)
    yield Prediction(MEAN, np.full(n, w.mean()) @ truth.rows, tolerance)
    yield Prediction(LAST, np.full(n, w[-1]) @ truth.rows, tolerance)
    yield Prediction(SUM, np.full(n, w.sum()) @ truth.rows, tolerance)
    yield Prediction(ONES, np.ones(n) @ truth.rows, tolerance)
    yield Prediction(GRADIENT_SIGN, -w @ truth.rows, tolerance)
    yield Prediction(GRADIENT_FACTOR, w @ truth.rows / n, tolerance, f"1/(the batch size), 1/{n},")
    for c, words in ((2.0, "2"), (0.5, "1/2")):
        yield Prediction(GRADIENT_FACTOR, c * w @ truth.rows, tolerance, words)
    for i in range(1, n - 1):
        yield Prediction(ANOTHER, np.full(n, w[i]) @ truth.rows, tolerance, f"row {i + 1}")
    yield Prediction(ABSOLUTE, np.abs(w) @ truth.rows, tolerance)
    yield Prediction(WRONG_WEIGHTS, np.sign(w) @ truth.rows, tolerance, "±1, the signs of the upstream gradients,")
    for order in permutations(range(n)):
        if order != tuple(range(n)):
            yield Prediction(EXCHANGED, w[list(order)] @ truth.rows, tolerance, f"row i has that of row {[i + 1 for i in order]}")
    a = np.linalg.lstsq(truth.rows.T, got, rcond=1e-10)[0]
    if np.abs(a - a.mean()).max() > 1e-6 * np.abs(a).max():  # else it is a factor of all
        yield Prediction(WRONG_WEIGHTS, a @ truth.rows, tolerance * float(np.abs(a / w).max(initial=1.0)),
                         f"({', '.join(f'{v:.4g}' for v in a)}) for ({', '.join(f'{v:.4g}' for v in w)})", 2)


def _by_parts(truth: Oracle, w: Array, chosen: Sketch, got: Array, tolerance: Array) -> Iterator[Prediction]:
    right = w @ truth.rows
    zero = [b for b in range(len(chosen.names)) if np.abs(got[chosen.owner == b]).max(initial=0.0) == 0.0
            and (np.abs(right) > tolerance)[chosen.owner == b].any()]
    if zero and len(zero) < len(chosen.names):
        names = ", ".join("x" if chosen.names[b] == INPUT else f"`{chosen.names[b]}`" for b in zero)
        cut = np.isin(chosen.owner, zero)
        yield Prediction(PART, np.where(cut, 0.0, right), tolerance, names)
        biases = {b for b, p in enumerate(chosen.tensors) if p.ndim == 1}
        if biases and set(zero) == biases | {len(chosen.names) - 1}:
            yield Prediction(SLOPES, np.where(cut, 0.0, got), tolerance, names)
    pivot = int(np.argmax(np.abs(right)))
    if right[pivot]:
        c = float(got[pivot] / right[pivot])
        yield Prediction(GRADIENT_FACTOR, c * right, tolerance, f"{c:.6g}", 1)
    bound = float(np.abs(got).max())
    if (np.abs(got) == bound).sum() > SPARE:
        yield Prediction(CLIPPED, np.clip(right, -bound, bound), tolerance, f"{bound:.6g}", 1)
    ratios = {}
    for b in range(len(chosen.names)):
        mine, theirs = right[chosen.owner == b], got[chosen.owner == b]
        i = int(np.argmax(np.abs(mine)))
        if np.abs(mine[i]) > tolerance[chosen.owner == b][i] and len(mine) > SPARE:
            ratios[b] = float(theirs[i] / mine[i])
    off = [b for b, c in ratios.items() if abs(c - 1.0) > 1e-6]
    if off and len(off) < len(ratios):
        factor = {b: ratios.get(b, 1.0) for b in range(len(chosen.names))}
        names = ", ".join("x" if chosen.names[b] == INPUT else f"`{chosen.names[b]}`" for b in off)
        factors = ", ".join(f"{factor[b]:.6g}" for b in off)
        yield Prediction(ONE_PARAMETER if len(off) == 1 else SEVERAL, np.array([factor[b] for b in chosen.owner]) * right, tolerance,
                         names if len(off) == 1 else f"{factors} (for {names})", 2)


def _neumann(case: Case, x: Array, w: Array, chosen: Sketch, truth: Oracle, got: Array, tolerance: Array) -> Iterator[Prediction]:
    """tr(M ∂J) for other M than (I + J)⁻¹: I + c((I + J)⁻¹ − I), and (I − J)⁻¹."""
    import torch

    from iresnet_verify.oracle import rows_torch

    ctx = case.ctx
    name = "forward" if ctx.subject.residual is None else "residual"

    def along(plus: bool) -> Array:
        with ctx.guard(), ctx.framework.call_context():
            leaf = ctx.native(x, requires_grad=True)
            y = ctx.caller.event(name, leaf.clone(), seed=SEED)[0]
            J = rows_torch.rows(y.reshape(len(x), -1), leaf, batched=ctx.caller.batched_cotangents, create_graph=True)
            J = J.reshape(len(x), ctx.d, ctx.d)
            eye = torch.eye(ctx.d, dtype=J.dtype)
            A = J.detach() if name == "residual" else J.detach() - eye
            M = torch.linalg.inv(eye - A) if plus else eye.expand_as(A)
            value = (torch.tensor(w).to(J) * (M.transpose(1, 2) * J).sum((1, 2))).sum()
            found = torch.autograd.grad(value, [*chosen.tensors, leaf], allow_unused=True)
        return chosen(list(found[:-1]), found[-1])

    right, first = w @ truth.rows, along(plus=False)
    yield Prediction(NEUMANN_SIGN, along(plus=True), tolerance)
    rest = np.where(chosen.owner != len(chosen.names) - 1, right - first, 0.0)
    if rest @ rest > 0.0:
        c = float((got - first) @ rest / (rest @ rest))
        yield Prediction(NEUMANN_WEIGHTS, first + c * (right - first), tolerance, f"{c:.6g}", 1)


def forward_gradient(case: Case) -> Explanation | None:
    """Explain the backward pass of forward with respect to x."""
    import torch

    ctx = case.ctx
    if ctx.subject.module is None or ctx.framework.name != "torch":
        return None
    x, J = case.x, case.truth.jacobian
    c = np.random.default_rng(SEED).standard_normal(x.shape)
    with ctx.guard(), ctx.framework.call_context():
        leaf = ctx.native(x, requires_grad=True)
        y = ctx.raw_forward(leaf.clone(), seed=SEED)[0]
        if not y.requires_grad:
            return None
        try:
            with backward_pass("forward"):
                y.backward(torch.tensor(c).to(y))
        except BackwardError as error:
            return _raised("forward", error)
        got = np.zeros(c.shape) if leaf.grad is None else leaf.grad.double().numpy()
    got, c = flat(got), flat(c)
    if not np.isfinite(got).all() and np.isfinite(J.matrix).all():
        return _not_finite("The gradient of forward with respect to x", ~np.isfinite(got).all(1))
    rounding = 64.0 * ctx.u * np.sqrt(ctx.d) * (np.linalg.norm(J.matrix, axis=(1, 2)) + 1.0)
    tolerance = (8.0 * np.linalg.norm(c, axis=1) * (J.error + rounding))[:, None]
    right = np.einsum("nij,ni->nj", J.matrix, c)

    def branch(v: Array) -> Array:
        return np.asarray(np.einsum("nij,ni->nj", J.residual, np.broadcast_to(v, c.shape)))

    made = [
        Prediction(DETACHED, 0.0 * c, tolerance), Prediction(SKIP, c, tolerance), Prediction(GRADIENT_SIGN, -right, tolerance),
        Prediction(FIRST, c + branch(c[:1]), tolerance), Prediction(FIRST, c[:1] + branch(c[:1]), tolerance),
        Prediction(LAST, c + branch(c[-1:]), tolerance), Prediction(LAST, c[-1:] + branch(c[-1:]), tolerance),
        Prediction(SUM, c + branch(c.sum(0)), tolerance), Prediction(SUM, c.sum(0) + branch(c.sum(0)), tolerance),
        Prediction(MEAN, c + branch(c.mean(0)), tolerance), Prediction(MEAN, c.mean(0) + branch(c.mean(0)), tolerance),
        Prediction(GRADIENT_FACTOR, 2.0 * right, tolerance, "2"), Prediction(GRADIENT_FACTOR, right / len(c), tolerance, f"1/{len(c)}"),
        Prediction(ABSOLUTE, np.abs(c) + branch(np.abs(c)), tolerance), Prediction(ABSOLUTE, c + branch(np.abs(c)), tolerance),
        Prediction(TRANSPOSED, np.einsum("nij,nj->ni", J.matrix, c), tolerance, "J"),
        *[Prediction(ANOTHER, made, tolerance, f"row {i + 1}") for i in range(1, len(c) - 1)
          for made in (c + branch(c[i : i + 1]), c[i : i + 1] + branch(c[i : i + 1]))],
    ]
    for name, at in (("F(x)", case.y), ("0", np.zeros_like(x)), ("−x", -x), ("2·x", 2 * x)):
        other = ctx.jacobian(at.astype(x.dtype)).residual
        cause, words = (ONE_MAP, AT_ZERO) if name == "0" else (ELSEWHERE, name)
        made.append(Prediction(cause, c + np.einsum("nij,ni->nj", other, c), tolerance, words))
    if len(c) > ctx.d and np.ptp(J.matrix, axis=0).max() > tolerance.max():
        matrix = np.linalg.lstsq(c, got, rcond=None)[0]
        made.append(Prediction(ONE_MAP, c @ matrix, tolerance, "", ctx.d))
    pivot = np.unravel_index(int(np.argmax(np.abs(right))), right.shape)
    made.append(Prediction(GRADIENT_FACTOR, got[pivot] / right[pivot] * right, tolerance, f"{got[pivot] / right[pivot]:.6g}", 1))
    bound = float(np.abs(got).max())
    if (np.abs(got) == bound).sum() > SPARE:
        made.append(Prediction(CLIPPED, np.clip(right, -bound, bound), tolerance, f"{bound:.6g}", 1))
    rest = branch(c)
    factor = float(((got - c) * rest).sum() / max(float((rest * rest).sum()), 1e-300))
    made.append(Prediction(BRANCH, c + factor * rest, tolerance, f"{factor:.6g}", 1))
    return explain("The gradient of forward with respect to x", got, right, made) or parameter_gradient(case)


def parameter_gradient(case: Case) -> Explanation | None:
    """Find the parameter whose gradient through forward is wrong, or those that have none, while all others are right."""
    found = [_slopes(case, SEED + i) for i in range(SPARE)]  # what one cotangent shows the others must
    if any(s is None for s in found):
        return None
    slopes = [s for s in found if s is not None]
    if any((~np.isfinite(s.got) & np.isfinite(s.right)).any() for s in slopes):
        return _not_finite("The gradient of forward with respect to parameters", ~np.isfinite(slopes[0].got))
    named, wrong = slopes[0].named, slopes[0].wrong
    if any(not np.array_equal(s.wrong, wrong) for s in slopes):
        return None
    what, sure = "The gradient of forward", f"Differences of forward along each of {len(named)} parameters, {SPARE} times: "
    zero = all(bool((s.got[wrong] == 0.0).all()) for s in slopes)
    if 0 < len(wrong) < len(named) and (zero or len(wrong) == 1):
        names = ", ".join(f"`{named[int(i)]}`" for i in wrong)
        return Explanation(PART if zero else ONE_PARAMETER, what, names, case.rows, 0.0, 0,
                           f"{sure}those of the {len(named) - len(wrong)} others are right.")
    if len(wrong) == len(named) > SPARE - 1 and all((s.right != 0.0).all() for s in slopes):
        pivot = np.argmax(np.abs(slopes[0].right))
        factor = float(slopes[0].got[pivot] / slopes[0].right[pivot])
        if all((np.abs(s.got - factor * s.right) <= 2.0 * s.allowed * max(1.0, abs(factor))).all() for s in slopes):
            return Explanation(DETACHED if zero else GRADIENT_FACTOR, f"{what} with respect to parameters", f"{factor:.6g}", case.rows,
                               0.0, 0, f"{sure}all have the same factor.")
    return None


@dataclass(frozen=True)
class Slopes:
    """The gradient of c·F along one direction a parameter, by the backward pass and by differences, and the error allowed."""

    named: list[str]
    got: Array
    right: Array
    allowed: Array

    @property
    def wrong(self) -> Any:
        """Indices of the parameters whose gradient is wrong."""
        return np.flatnonzero(~(np.abs(self.got - self.right) <= self.allowed))


def _slopes(case: Case, seed: int) -> Slopes | None:
    """Both, for one cotangent c; None where forward has no graph."""
    import torch

    ctx = case.ctx
    if ctx.subject.module is None or ctx.framework.name != "torch":
        return None
    x = case.x
    c = np.random.default_rng(seed).standard_normal(x.shape)
    named = [(n, p) for n, p in ctx.subject.module.named_parameters() if p.requires_grad and p.numel()]
    ways = [torch.tensor(ctx.rng.standard_normal(p.shape)).to(p) / p.numel() ** 0.5 for _, p in named]
    with ctx.guard(), ctx.framework.call_context():
        for p in ctx.subject.module.parameters():
            p.grad = None
        y = ctx.raw_forward(ctx.native(x, requires_grad=True), seed=SEED)[0]
        if not y.requires_grad:
            return None
        y.backward(torch.tensor(c).to(y))
        got = np.array([0.0 if p.grad is None else float((p.grad.double() * v).sum()) for (_, p), v in zip(named, ways, strict=True)])

    def slope(p: object, v: object, h: float) -> float:
        def value(step: float) -> float:
            with ctx.guard(), torch.no_grad():
                p.add_(step * v)  # type: ignore[attr-defined,operator]  # a parameter of torch
                return float((ctx.f.forward(x, seed=SEED).astype(np.float64) * c).sum())

        return (value(h) - value(-h)) / (2.0 * h)

    h = ctx.u**0.2
    wide, narrow = (np.array([slope(p, v, s) for (_, p), v in zip(named, ways, strict=True)]) for s in (h, h / 2.0))
    right = narrow + (narrow - wide) / 3.0
    rounding = 8.0 * ctx.u * float(np.linalg.norm(c) * (1.0 + np.abs(x).max())) / h  # of rows whose errors are independent
    allowed = 8.0 * (np.abs(narrow - wide) + rounding)
    return Slopes([n for n, _ in named], got, right, allowed)


def _inverse_gradient_not_finite(case: Case, y: Any) -> Any:
    """The rows of y at which the inverse is finite, and its gradient is not."""
    ctx = case.ctx
    with ctx.guard(), ctx.framework.call_context():
        leaf = ctx.native(y, requires_grad=True)
        back = ctx.raw_inverse(leaf.clone(), seed=SEED)
        back.sum().backward()
        got = np.zeros(y.shape) if leaf.grad is None else leaf.grad.double().numpy()
        return ~np.isfinite(flat(got)).all(1) & np.isfinite(flat(ctx.host(back.detach()))).all(1)


def inverse_gradient(case: Case) -> Explanation | None:
    """Explain the backward pass of the inverse."""
    import torch

    ctx = case.ctx
    if ctx.f.inverse is None or ctx.framework.name != "torch":
        return None
    c = np.random.default_rng(SEED).standard_normal(case.y.shape)
    with ctx.guard(), ctx.framework.call_context():
        leaf = ctx.native(case.y, requires_grad=True)
        back = ctx.raw_inverse(leaf.clone(), seed=SEED)
        if not back.requires_grad:
            return None
        back.backward(torch.tensor(c).to(back))
        got = np.zeros(c.shape) if leaf.grad is None else leaf.grad.double().numpy()
        at = ctx.host(back.detach())
    got, c = flat(got), flat(c)
    for size in (1.0, FAR):
        bad = _inverse_gradient_not_finite(case, (size * case.y).astype(case.y.dtype))
        if bad.any():
            return _not_finite("The gradient of the inverse", bad)
    J = ctx.jacobian(at.astype(case.x.dtype))
    tolerance = (8.0 * np.linalg.norm(c, axis=1) * (J.error + 1e3 * ctx.u * (np.linalg.norm(J.matrix, axis=(1, 2)) + 1.0)))[:, None]

    def solved(A: Array, v: Array) -> Array:
        return np.asarray(np.linalg.solve(A, v[..., None])[..., 0], dtype=np.float64)

    right = solved(J.matrix.swapaxes(1, 2), c)
    A, one = J.residual.swapaxes(1, 2), c[..., None]
    made = [
        Prediction(DETACHED, 0.0 * c, tolerance), Prediction(LAST_STEP, c, tolerance),
        Prediction(LAST_STEP, (one - A @ one)[..., 0], tolerance),
        Prediction(NOT_INVERTED, (one + A @ one)[..., 0], tolerance), Prediction(GRADIENT_SIGN, -right, tolerance),
        Prediction(TRANSPOSED, solved(J.matrix, c), tolerance, "(I + J)⁻¹"),
        Prediction(NEUMANN_SIGN, solved(2.0 * np.eye(ctx.d) - J.matrix.swapaxes(1, 2), c), tolerance),
        Prediction(FIRST, solved(J.matrix.swapaxes(1, 2), np.broadcast_to(c[:1], c.shape)), tolerance),
        Prediction(MEAN, solved(J.matrix.swapaxes(1, 2), np.broadcast_to(c.mean(0), c.shape)), tolerance),
    ]
    for name, point in (("y, not at F⁻¹(y)", case.y), ("0", np.zeros_like(case.y))):
        other = ctx.jacobian(point).matrix.swapaxes(1, 2)
        cause, words = (ONE_MAP, AT_ZERO) if name == "0" else (ELSEWHERE, name)
        made.append(Prediction(cause, solved(other, c), tolerance, words))
    term, total = one, one
    for n in range(2, 61):
        term = -A @ term
        total = total + term
        if n > 2:  # two are the last step alone
            made.append(Prediction(CUT_SOLVE, total[..., 0], tolerance, str(n)))
    pivot = np.unravel_index(int(np.argmax(np.abs(got))), got.shape)
    for cause, whole in ((GRADIENT_FACTOR, right), (LAST_STEP, c), (LAST_STEP, (one - A @ one)[..., 0])):
        made.append(Prediction(cause, got[pivot] / whole[pivot] * whole, tolerance, f"{got[pivot] / whole[pivot]:.6g}", 1))
    return explain("The gradient of the inverse", got, right, made)
