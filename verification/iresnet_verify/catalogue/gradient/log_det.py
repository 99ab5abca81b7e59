"""Derivatives: of the log-det with respect to parameters and input, rows weighted unequally; of forward; frozen parameters."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.gradient import jax as gradient_jax
from iresnet_verify.catalogue.shared.gradient_expectation import expected_gradient
from iresnet_verify.catalogue.shared.log_det_truth import is_deterministic
from iresnet_verify.catalogue.shared.parameter_gradients import (
    FEW_ROWS,
    INPUT,
    Oracle,
    Sketch,
    oracle,
    rows_of,
    sketch,
    subject_gradient,
)
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import Comparison, verdict
from iresnet_verify.expectation.sampling import CALLS, replicates
from iresnet_verify.measurements import gradients as measures
from iresnet_verify.oracle import singular_values as singular
from iresnet_verify.randomness.enumeration import NotEnumerableError
from iresnet_verify.statistics import confidence_sequences as sequences
from iresnet_verify.subject.errors import BackwardError, Refused, backward_pass
from iresnet_verify.subject.frameworks import OPERATIONS

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.randomness.injection import Vector
    from iresnet_verify.subject.subject import HostArray

NEUMANN = "Chen et al. 2019 (arXiv 1906.02735), Theorem 2 and eq. 8; d log|det J| = tr(J⁻¹ dJ)"


@check(
    "gradient.log-det",
    claim="∇_θ Σ w_i log_det(x_i) = Σ w_i tr(J_i⁻¹ ∂J_i/∂θ) for unequal weights w_i, in expectation where draws are made.",
    reference=NEUMANN, kind="proof", needs=("log_det", "parameters"), statistical=True,
    cost="4 Jacobians (above d = 128 two) differentiated twice; for random values an enumeration of the backward pass",
    catches="detached terms, the first row's weight for all rows, division by the batch size, wrong Neumann coefficients",
)
def log_det_parameters(ctx: Context) -> Outcome:
    """The subject's backward pass against double backward through the exact determinant."""
    return _log_det(ctx, of_input=False)


@check(
    "gradient.log-det-input",
    claim="∇_x log_det(x) is the derivative of log|det dF/dx|: blocks before this one are trained through it.",
    reference=NEUMANN, kind="proof", needs=("log_det", "autograd"), statistical=True,
    cost="that of gradient.log-det",
    catches="log-dets computed on a detached copy of x, constant log-dets",
)
def log_det_input(ctx: Context) -> Outcome:
    """The same comparison for the gradient with respect to x."""
    return _log_det(ctx, of_input=True)


def _weights(ctx: Context, rows: int) -> Vector:
    """Unequal, of both signs, no sum of which is another: ±(1, 1.7, 2.3, …) in random order."""
    signs = np.where(np.arange(rows) % 2, -1.0, 1.0)
    return ctx.rng.permutation((1.0 + 0.7 * np.arange(rows) ** 0.9) * signs)


def _log_det(ctx: Context, of_input: bool) -> Outcome:
    if ctx.framework.name.startswith("jax"):
        return gradient_jax.log_det(ctx, _weights(ctx, rows_of(ctx)), of_input)
    try:
        return _by_autograd(ctx, of_input)
    except BackwardError as error:
        return Outcome("failed", f"expected a log-det that carries a graph to be differentiable, got: {error}; detach it where it is none",
                       {"compared": 1}, "existence", "autograd", Counterexample({"x": ctx.inputs(1)}))


def _by_autograd(ctx: Context, of_input: bool) -> Outcome:
    kind, _ = ctx.log_det_claim
    x = ctx.inputs(rows_of(ctx) if ctx.d <= singular.LARGE else FEW_ROWS)
    weights, chosen = _weights(ctx, len(x)), sketch(ctx, x)
    seed = ctx.caller.next_seed()
    mine = subject_gradient(ctx, x, weights, chosen, seed)
    which = (chosen.owner == len(chosen.names) - 1) == of_input
    if not which.any():
        return Outcome("skipped", "the module has no trainable parameters")
    if not mine.attached and ctx.mode == "eval":
        raise Refused("the log-det carries no gradient in evaluation mode")
    if kind == "bias":
        return _self_consistent(ctx, x, weights, chosen, which, seed)
    truth = oracle(ctx, x, weights, chosen)
    target = weights @ truth.rows
    evidence: dict[str, Any] = {"rows": len(x), "blocks": len(chosen.names), "numbers": int(which.sum()),
                                "gradient_norm": float(np.linalg.norm(target[which]))}
    if kind == "exact" or not mine.attached or is_deterministic(ctx, x):
        got, tolerance, how = mine.numbers, truth.tolerance, "one backward pass"
    else:
        try:
            found = expected_gradient(ctx, x, weights, chosen)
        except NotEnumerableError as reason:
            return _averaged(ctx, x, weights, chosen, truth, which, str(reason))
        got, how = found.value, f"enumeration of the draws ({found.method})"
        tolerance = truth.tolerance + found.rounding + 8.0 * found.remainder
        evidence["largest_remainder"] = float(found.remainder[which].max())
    return _agreement(ctx, x, weights, chosen, truth, which, got, tolerance, how, evidence)


def _agreement(
    ctx: Context, x: HostArray, weights: Vector, chosen: Sketch, truth: Oracle, which: Any, got: Vector, tolerance: Vector,
    how: str, evidence: dict[str, Any],
) -> Outcome:
    """Compare the numbers of a gradient, those of `which`, with the true ones."""
    one_pass = how == "one backward pass"
    target = (weights @ truth.rows)[which]
    got, bound = got[which], tolerance[which]
    names = [chosen.names[int(i)] for i in chosen.owner[which]]
    size = float(np.abs(target).max(initial=0.0))

    def counterexample(at: Comparison) -> Counterexample:
        if not (one_pass and not at.error <= 1e-3 * size + 4 * at.bound):
            return Counterexample({"x": x})
        name, allowed = names[at.row], max(4 * at.bound, 1e-4 * at.error) if math.isfinite(at.error) else 4 * at.bound
        return Counterexample({"x": x, "weights": weights, "name": "" if name == INPUT else name, "allowed": allowed},
                              measures.log_det_gradient)

    found = verdict(
        np.abs(got - target), bound,
        expected=lambda at: f"{target[at.row]:.8g} ± {at.bound:.2g} in the gradient with respect to {names[at.row]}",
        got=lambda at: f"{got[at.row]:.8g} ({how})",
        passed=lambda at: f"{len(names)} numbers of {len(set(names))} blocks agree to {at.largest:.2g} ({how})",
        tolerance="64·u·(√d·κ(J) + 1)·Σ|w_i|‖G_i‖ + 8·(change of the oracle under roundings)"
        + ("" if one_pass else " + rounding and remainder of the enumeration"),
        oracle=truth.source, evidence=evidence, counterexample=counterexample,
    )
    # What the enumeration leaves out must be small compared with the gradient itself for a pass to state something.
    zero = OPERATIONS * ctx.u * float(np.abs(weights).sum())  # a gradient below it is rounding: the log-det is constant
    small = max(ctx.budget.epsilon_per_dim * max(size, float(np.abs(truth.rows).max())), zero)
    if found.status == "passed" and size > 0 and bound.max() > small:
        return replace(found, status="inconclusive", message=f"what the enumeration leaves out ({bound.max():.2g}) is not small compared "
                       f"with the gradient ({size:.2g})")
    return found


def _averaged(
    ctx: Context, x: HostArray, weights: Vector, chosen: Sketch, truth: Oracle, which: Any, reason: str
) -> Outcome:
    """Means of many real gradients, projected on the true one: the ratio ⟨G, G*⟩/‖G*‖² has mean 1."""
    target = np.where(which, weights @ truth.rows, 0.0)
    norm2 = float(target @ target)
    if norm2 == 0.0:
        return Outcome("inconclusive", f"the true gradient is 0 and the draws are not enumerable: {reason}")
    copies = replicates(ctx)
    many, w = np.repeat(x, copies, axis=0), np.repeat(weights / copies, copies)
    ratios = np.array([subject_gradient(ctx, many, w, chosen, int(ctx.rng.integers(2**31))).numbers @ target / norm2 for _ in range(CALLS)])
    band = sequences.asymptotic(ratios, ctx.alpha)
    low, high = band.last
    epsilon = 5.0 * ctx.budget.epsilon_per_dim
    verdict = sequences.verdict(low - 1.0, high - 1.0, 1e-6, epsilon)
    evidence = {"low": low, "high": high, "epsilon": epsilon, "alpha": ctx.alpha, "calls": CALLS, "copies": copies,
                "not_enumerated": reason}
    tolerance = f"ε = {epsilon:g} of the gradient's length, five times the budget's ε per dimension, fixed before sampling"
    span = f"along the true gradient the mean is in [{low:.4g}, {high:.4g}] of it"
    if verdict == "PASS":
        return Outcome("passed", f"{span} at error rate {ctx.alpha:.1e} if the variance is finite ({reason})", evidence, tolerance,
                       truth.source)
    word = "suspected: " if verdict == "FAIL" else ""
    return Outcome("inconclusive", f"{word}{span} ({reason})", evidence, tolerance, truth.source)


def _self_consistent(ctx: Context, x: HostArray, weights: Vector, chosen: Sketch, which: Any, seed: int) -> Outcome:
    """A log-det that claims a bias b promises no rate for its gradient: it must be the derivative of the value returned."""
    mine = subject_gradient(ctx, x, weights, chosen, seed)
    got, slope, error = measures_along(ctx, x, weights, chosen, seed, of_input=bool(which[-1]))
    some = mine.attached and np.abs(mine.numbers[which]).max() > 0
    decided = abs(got - slope) <= 4.0 * error or not some or is_deterministic(ctx, x)
    return verdict(
        abs(got - slope), 4.0 * error if decided else np.inf,
        expected=f"the derivative {slope:.8g} of the returned value along a random direction",
        got=f"{got:.8g}" + ("" if some else ": no gradient at all"),
        passed=lambda at: f"the backward pass is the derivative of the returned value to {at.error:.2g}",
        undecided=f"backward gives {got:.6g}, the value at the same draws changes by {slope:.6g}: a gradient estimator of its own, for "
        "which a biased log-det states no claim",
        tolerance="4·the error of central differences of the value at the same seed",
        oracle="differences of the subject's own value along a random direction",
        evidence={"derivative": slope, "backward": got, "rows": len(x)}, counterexample=lambda at: Counterexample({"x": x}),
    )


def measures_along(
    ctx: Context, x: HostArray, weights: Vector, chosen: Sketch, seed: int, *, of_input: bool
) -> tuple[float, float, float]:
    """(⟨backward, v⟩, derivative of Σ w_i log_det(x_i) along v by Richardson, its error) for one random direction v."""
    import torch

    v = [torch.tensor(ctx.rng.standard_normal(p.shape)).to(p) * 0.1 / p.numel() ** 0.5 for p in chosen.tensors]
    vx = ctx.rng.standard_normal(x.shape)
    with ctx.guard(), ctx.framework.call_context():
        for p in ctx.subject.module.parameters():
            p.grad = None
        leaf = ctx.native(x, requires_grad=True)
        log_det = ctx.raw_log_det(leaf.clone(), seed=seed)
        if log_det.requires_grad:
            with backward_pass("the log-det"):
                log_det.backward(torch.tensor(weights, dtype=log_det.dtype))
        if of_input:
            got = 0.0 if leaf.grad is None else float((leaf.grad.double().numpy() * vx).sum())
        else:
            got = sum(float((p.grad.double() * d).sum()) for p, d in zip(chosen.tensors, v, strict=True) if p.grad is not None)

    def value(h: float) -> float:
        with ctx.guard():
            if not of_input:
                with torch.no_grad():
                    for p, d in zip(chosen.tensors, v, strict=True):
                        p.add_(h * d)
            at = (x + h * vx).astype(x.dtype) if of_input else x
            return float(weights @ ctx.evaluate_log_det(at, seed))

    h = ctx.u**0.2
    wide, narrow = ((value(s) - value(-s)) / (2.0 * s) for s in (h, h / 2.0))
    slope = narrow + (narrow - wide) / 3.0
    noise = 64.0 * ctx.u * (ctx.d + float(np.abs(weights).sum()) * ctx.d) / h
    return got, slope, abs(narrow - wide) + noise
