"""The same call gives the same answer: again, with another seed where nothing random is claimed, and without autograd."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.comparisons import (
    ROUNDING,
    CallContext,
    Rows,
    forward_deterministic,
    forward_tolerance,
    gap,
    log_det_deterministic,
    log_det_gap,
    log_det_tolerance,
    warm_up,
)
from iresnet_verify.catalogue.shared.map_errors import floors, promised, size
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import verdict, with_refusals
from iresnet_verify.measurements import hygiene as measures
from iresnet_verify.subject.calls import Caller, host_calls
from iresnet_verify.subject.conventions import explain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.calls import HostCalls
    from iresnet_verify.subject.subject import HostArray


@check(
    "hygiene.determinism",
    claim="The result of a call does not depend on which calls came before: the tenth evaluation with the same seed equals the first, and "
    "F, the inverse and a deterministic log-det are the same after each of them, after all other callables and after F at other inputs, to "
    "rounding and the promised tolerance; in training mode F is, from the same state.",
    reference="a network is a function of its input, its generators and, in training, its state",
    kind="search",
    cost="thirteen evaluations, three of the inverse and of the log-det, one of all else",
    catches="values that depend on the number of calls, statistics updated in evaluation, an inverse or a sample that changes the module",
)
def determinism(ctx: Context) -> Outcome:
    """Ten evaluations, the module's state left to itself in between, in training mode put back."""
    warm_up(ctx)
    x = ctx.inputs(ctx.rows)
    if ctx.mode == "train" and not forward_deterministic(ctx, x):
        return Outcome("skipped", "y is random in training mode, perhaps by a generator of its own")

    def again() -> HostArray:
        with ctx.guard() if ctx.mode == "train" else nullcontext():
            return ctx.host(ctx.raw_forward(ctx.native(x), seed=0)[0])

    first = again()
    bound = forward_tolerance(ctx, x, first)
    with ctx.guard():
        last = [again() for _ in range(9)][-1]
    errors, bounds, refused = {"forward": gap(first, last)}, {"forward": bound}, dict[str, str]()
    if ctx.mode != "train" and (errors["forward"] <= bound).all():
        for name, error, allowed in _after_other_calls(ctx, x, first, refused):
            errors[name], bounds[name] = error, allowed
    return with_refusals(verdict(
        errors, bounds,
        expected="the same values whatever was called before",
        remedy="do not let a call change what the next one computes",
        passed="ten evaluations of F agree" + ("" if ctx.mode == "train" else f", and after other calls those of {', '.join(errors)}"),
        tolerance=f"{ROUNDING}; of two inverses the promised tolerance each and their rounding floor", oracle="the first evaluation",
        counterexample=lambda at: Counterexample({"x": x}),
    ), refused)


def _after_other_calls(ctx: Context, x: HostArray, y: HostArray, refused: dict[str, str]) -> Iterator[tuple[str, Rows, Rows]]:
    """Yield (name, largest difference, what is allowed) of two more rounds of all calls, one backwards, F at other inputs between."""
    calls, others = host_calls(ctx.caller, pure=False), ctx.inputs(ctx.rows)
    at = {"forward": x} | ({} if calls.inverse is None else {"inverse": y})
    if ctx.f.log_det is not None and ctx.log_det_claim[0] == "exact" and log_det_deterministic(ctx, x):
        at["log_det"] = x
    rounds: list[dict[str, HostArray]] = []
    with ctx.guard():
        for order in (list(at), list(at)[::-1], list(at)):
            rounds.append({})
            for name in order:
                try:
                    rounds[-1][name] = getattr(calls, name)(at[name], seed=0)
                except Exception as raised:
                    refused[name] = explain(name, raised)
            calls.forward(others, seed=0)
            if len(rounds) == 1:
                _call_the_rest(calls, others)
    for name in (n for n in at if n not in refused):
        value = rounds[0][name]
        error = np.maximum(gap(value, rounds[1][name]), gap(value, rounds[2][name]))
        if name == "forward":
            yield name, error, forward_tolerance(ctx, x, value)
        elif name == "inverse":
            allowed = 2.0 * promised(ctx)[0] * size(value)
            doubtful = (error > allowed) & (error <= np.sqrt(ctx.u) * size(value))  # larger ones are wrong whatever the Jacobian
            yield name, error, allowed + 2.0 * floors(ctx, value, y, value) if doubtful.any() else allowed
        else:
            yield name, error, log_det_tolerance(ctx, x, value, error)


def _call_the_rest(calls: HostCalls, x: HostArray) -> None:
    """Call what else the subject gives, for what it leaves behind; what raises is the matter of other checks."""
    for call in (calls.residual, calls.inverse_log_det, calls.log_prob, calls.sample):
        if call is not None:
            with suppress(Exception):
                call(len(x) if call is calls.sample else x, seed=0)


@check(
    "hygiene.forward-not-random",
    claim="y is not random: F(x) is the same under every seed, to rounding, in every mode in which something is promised.",
    reference="an invertible map is a function; where dropout is active no promise can be kept: declare modes=('eval',)",
    kind="search",
    cost="two evaluations",
    catches="dropout active in eval, dequantisation noise inside forward",
)
def forward_not_random(ctx: Context) -> Outcome:
    """Two seeds."""
    warm_up(ctx)
    x = ctx.inputs(ctx.rows)
    a, b = (ctx.f.forward(x, seed=seed) for seed in (1, 2))
    bound = forward_tolerance(ctx, x, a)
    return _same_under_seeds(x, gap(a, b), bound, "forward", "look for dropout or noise inside forward, or declare modes=('eval',)")


@check(
    "hygiene.forward-finite",
    claim="F(x) is finite at the subject's own inputs.",
    reference="F maps ℝᵈ to ℝᵈ", kind="search", cost="one evaluation",
    catches="infinite scales, overflowing exponentials, divisions by zero",
)
def forward_finite(ctx: Context) -> Outcome:
    """All rows of a batch."""
    x = ctx.inputs(4 * ctx.rows)
    y = ctx.f.forward(x)
    bad = ~np.isfinite(y.reshape(len(y), -1))
    return verdict(
        np.where(bad.any(axis=1), np.inf, 0.0), 0.0,
        expected="finite values at finite inputs", got=lambda at: f"{bad.sum(axis=1)[at.row]} entries NaN or infinite in {at.exceeding} of "
        f"{len(x)} rows, one at ‖x‖ = {np.linalg.norm(x[at.row].ravel()):.2g}",
        remedy="look for infinite parameters and overflow, or declare inputs= where F is finite",
        passed=f"all values of {len(x)} rows are finite", tolerance="none: finiteness", oracle="IEEE arithmetic",
        counterexample=lambda at: Counterexample({"x": x[at.rows]}, measures.not_finite),
    )


@check(
    "hygiene.exact-log-det-not-random",
    claim="A log-det that is declared exact is the same under every seed, to rounding.",
    reference='log_det_is="exact" of the subject',
    kind="search",
    cost="two evaluations",
    catches="stochastic estimates declared exact",
)
def exact_log_det_not_random(ctx: Context) -> Outcome:
    """Two seeds."""
    if ctx.declared_log_det[0] != "exact":
        return Outcome("skipped", f"the log-det is declared {ctx.declared_log_det[0]} in this mode")
    if ctx.subject.log_det_is is None and ctx.conventions.random_log_det:
        return Outcome("skipped", 'the log-det is random and judged as unbiased; log_det_is="unbiased" would say so')
    warm_up(ctx)
    x = ctx.inputs(ctx.rows)
    if not forward_deterministic(ctx, x):
        return Outcome("inconclusive", "y itself differs between seeds in this mode")
    a, b = (ctx.evaluate_log_det(x, seed) for seed in (1, 2))
    apart = gap(a, b)
    bound = log_det_tolerance(ctx, x, a, apart, seed=1)
    return _same_under_seeds(x, apart, bound, "log_det",
                             'declare log_det_is="unbiased" if it is an estimate; the other checks judge it as if it had been declared')


def _same_under_seeds(x: HostArray, error: Rows, bound: Rows, name: str, remedy: str) -> Outcome:
    return verdict(
        error, bound,
        expected=f"{name} to give the same values under two seeds",
        remedy=remedy,
        passed="two seeds agree", tolerance=ROUNDING, oracle="another seed",
        counterexample=lambda at: Counterexample({"x": x, "name": name, "seeds": np.array([1, 2]), "bound": at.bound},
                                                 measures.depends_on_seed),
    )


@check(
    "hygiene.no-grad",
    claim="Under torch.no_grad y and a deterministic log-det are what they are with autograd on, and an estimate is not 0 "
    "instead; or the call is refused.",
    reference="torch.no_grad changes what is recorded, not what is computed",
    kind="search",
    needs=("torch",),
    cost="four evaluations",
    catches="log-dets by autograd that silently become zero",
)
def no_grad(ctx: Context) -> Outcome:
    """Evaluate inside `torch.no_grad()`."""
    return _without_autograd(ctx, "no_grad")


@check(
    "hygiene.inference-mode",
    claim="Under torch.inference_mode y and a deterministic log-det are what they are with autograd on, and an estimate is "
    "not 0 instead; or the call is refused.",
    reference="torch.inference_mode changes what is recorded, not what is computed",
    kind="search",
    needs=("torch",),
    cost="four evaluations",
    catches="log-dets by autograd that silently become zero",
)
def inference_mode(ctx: Context) -> Outcome:
    """Evaluate inside `torch.inference_mode()`."""
    return _without_autograd(ctx, "inference_mode")


def _without_autograd(ctx: Context, context: str) -> Outcome:
    import torch

    warm_up(ctx)
    x = ctx.inputs(ctx.rows)
    if not forward_deterministic(ctx, x):
        return Outcome("inconclusive", "y differs between seeds in this mode")
    around: Any = CallContext(ctx.framework, getattr(torch, context))
    caller = Caller(ctx.subject, around, ctx.seed, ctx.conventions.context_row, dict(ctx.conventions.packed))
    off = host_calls(caller, pure=bool(ctx.conventions.changes_state))
    errors, bounds, notes, refused = dict[str, Rows](), dict[str, Rows](), dict[str, str](), dict[str, str]()
    for name in ("forward", "log_det"):
        on, without = getattr(ctx.f, name), getattr(off, name)
        if on is None or (name == "log_det" and ctx.log_det_claim[0] == "gradient-only"):
            continue
        try:
            b = without(x, seed=0)
        except Exception as error:
            refused[name] = explain(name, error)
            continue
        a = on(x, seed=0)
        if name == "forward":
            errors[name], bounds[name] = gap(a, b), forward_tolerance(ctx, x, a)
        elif log_det_deterministic(ctx, x):
            errors[name], bounds[name] = log_det_gap(ctx, x, a, b)
        elif (b == 0).all() and not (a == 0).any():
            errors[name], bounds[name] = gap(a, b), np.zeros(len(x))
        else:  # an estimate: only that it is still one can be seen
            notes[name] = "random: not compared, not zero"
    return with_refusals(verdict(
        errors, bounds,
        expected=f"the same values under torch.{context}",
        remedy="raise where autograd is needed and off, or turn it on",
        passed=f"torch.{context} changes nothing",
        tolerance=ROUNDING, oracle="the same call with autograd on", evidence=notes,
        counterexample=lambda at: Counterexample({"x": x, "name": at.case, "context": context, "bound": at.bound},
                                                 measures.differs_without_autograd),
    ), refused)
